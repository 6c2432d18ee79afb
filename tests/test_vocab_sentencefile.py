"""tokenizer.model trimmed: the SentencePiece library reads it, and cuts text into the ids of the trimmed tokenizer.json."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import sentencepiece
from tokenizers import Tokenizer, decoders, models, normalizers

from polygraft.errors import InputError
from polygraft.vocab.tokenizer import sentencefile, trim
from test_tokenfile import TEXT
from test_vocab_trim import ids_of, saved

LINES = [*TEXT[:3], "the dog sat 42 times", "кошка и собака"]


def trained(kind: str, **more) -> bytes:
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(TEXT * 20), model_writer=out, vocab_size=340, model_type=kind, byte_fallback=True, split_digits=True,
        normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=False, hard_vocab_limit=False,
        minloglevel=2, **more)  # fmt: skip
    return out.getvalue()


def as_tokenizer(data: bytes, kind: str) -> str:
    """The same as a tokenizer.json: all ways to split a piece are merges, in order of the piece's score."""
    reader = sentencepiece.SentencePieceProcessor(model_proto=data)
    scored = [(reader.IdToPiece(i), reader.GetScore(i)) for i in range(reader.GetPieceSize())]
    ids = {piece: i for i, (piece, _) in enumerate(scored)}
    normal = {p for p, i in ids.items() if not (reader.IsControl(i) or reader.IsByte(i) or reader.IsUnknown(i))}
    if kind == "bpe":
        merges = [(p[:n], p[n:], score) for p, score in scored if p in normal for n in range(1, len(p)) if p[:n] in normal and p[n:] in normal]
        merges.sort(key=lambda m: (-m[2], ids[m[0]], ids[m[1]]))
        model = models.BPE(ids, [(a, b) for a, b, _ in merges], unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    else:
        model = models.Unigram(scored, reader.unk_id(), True)
    core = Tokenizer(model)
    core.normalizer = normalizers.Replace(" ", "▁")
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    core.add_special_tokens([reader.IdToPiece(i) for i in range(len(ids)) if reader.IsControl(i) or reader.IsUnknown(i)])
    return core.to_str()


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("ids", [{}, {"pad_id": 0, "unk_id": 3, "bos_id": 1, "eos_id": 2}], ids=["as usual", "padding first"])
def test_both_files_cut_alike_after_trimming(kind, ids, tmp_path):
    data = trained(kind, **ids)
    old = saved(tmp_path / "old", as_tokenizer(data, kind))
    kept = trim.closed(old, {i for t in LINES[:1] for i in ids_of(old, t)})
    new = saved(tmp_path / "new", json.dumps(trim.without(old, kept).tree))
    assert new.size < old.size
    path = tmp_path / "tokenizer.model"
    path.write_bytes(sentencefile.kept(data, kept))
    assert sentencefile.pieces(path.read_bytes(), path) == [new.names[i] for i in range(new.size)]
    more = [*LINES, "dogs on cats", "пёс", "你好", "7 + 8", "  the  "]
    assert sentencefile.cuts(path, LINES) == [ids_of(new, t) for t in LINES]
    assert sentencefile.cuts(path, more) == [ids_of(new, t) for t in more]
    reader = sentencepiece.SentencePieceProcessor(str(path))
    assert reader.IsUnknown(reader.unk_id()) and reader.IdToPiece(reader.bos_id()) == "<s>" and reader.IdToPiece(reader.eos_id()) == "</s>"


def test_control_tokens_that_move_are_named_by_their_new_ids(tmp_path):
    data = trained("bpe", user_defined_symbols=["<one>", "<two>"], pad_id=3)
    kept = [i for i in range(len(sentencefile.pieces(data, "m"))) if i != 0]  # even the unknown token may move: here all do
    moved = dict(_trainer(sentencefile.kept(data, kept)))
    assert moved[42] == 1 and moved[43] == 2 and moved[sentencefile.SIZE] == len(kept)
    assert 41 not in moved or moved[41] == 0


def _trainer(data):
    value = next(v for n, v, _ in sentencefile.fields(data) if n == sentencefile.TRAINER)
    return [(n, v) for n, v, _ in sentencefile.fields(value) if isinstance(v, int)]


def test_all_pieces_kept_is_the_same_model():
    data = trained("unigram")
    same = sentencefile.kept(data, np.arange(len(sentencefile.pieces(data, "m"))))
    one, two = (sentencepiece.SentencePieceProcessor(model_proto=d) for d in (data, same))
    assert [one.EncodeAsIds(t) for t in LINES] == [two.EncodeAsIds(t) for t in LINES] and one.GetPieceSize() == two.GetPieceSize()


@pytest.mark.parametrize("data", [b"\x0a\xff", b"not a model", b"\x0a\x02\x10\x01", bytes(40), b"\xff" * 20])
def test_what_is_no_sentencepiece_file_is_refused(data):
    with pytest.raises(InputError, match="SentencePiece"):
        sentencefile.pieces(data, "tokenizer.model")
