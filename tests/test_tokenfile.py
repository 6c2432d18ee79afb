"""Bytes of tokens, and cutting bytes: against the tokenizers library, in byte-level and SentencePiece vocabularies."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from polygraft.errors import InputError
from polygraft.tokenfile import BYTE_OF, Vocabulary, surrogate
from polygraft.vocab.pieces import COPIED, decompose

TEXT = ["the cat sat on the mat and the dog sat on the log", "кошка сидела на окне и смотрела на собаку", "naïve café déjà vu 123 456"] * 5


def byte_level(size: int = 340, text: list[str] = TEXT, specials: tuple[str, ...] = ("<s>", "</s>")) -> Tokenizer:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    core.train_from_iterator(text, trainers.BpeTrainer(vocab_size=size, special_tokens=list(specials), show_progress=False,
                                                       initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    return core


def sentencepiece(kind: str = "bpe", size: int = 330, text: list[str] = TEXT) -> Tokenizer:
    """BPE or Unigram as SentencePiece has them: `▁` for a space, bytes to fall back on."""
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))]
    core = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True) if kind == "bpe" else models.Unigram())
    core.normalizer = normalizers.Replace(" ", "▁")
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    trainer = trainers.BpeTrainer(vocab_size=size + 20, special_tokens=specials, show_progress=False) if kind == "bpe" else \
        trainers.UnigramTrainer(vocab_size=size, special_tokens=specials, unk_token="<unk>", show_progress=False)
    core.train_from_iterator([t.replace(" ", "▁") for t in text], trainer)
    tree = json.loads(core.to_str())
    tree["model"]["byte_fallback"] = True
    tree["added_tokens"] = [t for t in tree["added_tokens"] if not t["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(tree))


@pytest.fixture(scope="module", params=["bytes", "bpe", "unigram"])
def vocabulary(request, tmp_path_factory):
    core = byte_level() if request.param == "bytes" else sentencepiece(request.param)
    path = tmp_path_factory.mktemp(request.param) / "tokenizer.json"
    core.save(str(path))
    return Vocabulary.open(path)


def test_the_byte_alphabet_is_the_library_s():
    assert set(BYTE_OF) == set(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(BYTE_OF.values()) == list(range(256))
    assert surrogate(" п".encode()) == "ĠÐ¿"


def test_tokens_of_a_text_are_its_bytes(vocabulary):
    for text in TEXT[:3]:
        ids = vocabulary.tokenizer.encode(text, add_special_tokens=False).ids
        assert b"".join(vocabulary.contents[i] for i in ids) == text.encode()


def test_a_vocabulary_cut_by_itself_is_itself(vocabulary):
    made = decompose(vocabulary, vocabulary)
    assert (made.counts == 1).all() and made.ids.tolist() == list(range(vocabulary.size))


@given(st.binary(max_size=24))
def test_any_bytes_are_cut_into_tokens_of_those_bytes(vocabulary, content):
    found = vocabulary.segment(content)
    assert found is not None and b"".join(vocabulary.contents[i] for i in found) == content


def test_a_word_is_cut_as_the_library_cuts_it(vocabulary):
    word = " собаку" if vocabulary.alphabet == "bytes" else "собаку"
    assert list(vocabulary.segment(word.encode())) == vocabulary.tokenizer.encode(word, add_special_tokens=False).ids


def test_between_two_kinds_of_vocabulary_equal_bytes_are_copies(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    byte_level().save(str(tmp_path / "a/tokenizer.json"))
    sentencepiece().save(str(tmp_path / "b/tokenizer.json"))
    a, b = Vocabulary.open(tmp_path / "a"), Vocabulary.open(tmp_path / "b")
    made = decompose(a, b)
    shared = set(a.by_bytes) & {x for x in b.contents if x is not None}
    assert len(shared) > 256 and {b.contents[i] for i in made.copied} == shared
    assert (made.how[[b.by_bytes[x] for x in shared]] == COPIED).all()


def edited(tmp_path, change):
    path = tmp_path / "tokenizer.json"
    tree = json.loads(byte_level().to_str())
    change(tree)
    path.write_text(json.dumps(tree))
    return path


@pytest.mark.parametrize(("change", "words"), [
    (lambda t: t["model"]["vocab"].update(twice=5), "id 5 is"),
    (lambda t: t["added_tokens"].append({"id": 1, "content": "<x>", "special": True}), "id 1 is"),
    (lambda t: t["added_tokens"].append({"id": 999, "content": "<s>", "special": True}), "'<s>' has the ids 0 and 999"),
    (lambda t: t["model"].update(end_of_word_suffix="</w>"), "inside of words"),
    (lambda t: t.pop("model"), "not a tokenizer"),
    (lambda t: t["model"]["vocab"].update(neg=-1), "below 0"),
], ids=["two tokens an id", "added on another", "added twice", "suffix", "no model", "negative"])  # fmt: skip
def test_what_is_no_vocabulary_is_refused_with_both_values(tmp_path, change, words):
    with pytest.raises(InputError, match=words):
        Vocabulary.open(edited(tmp_path, change))
