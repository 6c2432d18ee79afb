"""A new tokenizer for a model: vocabulary and merges learned anew, everything else as the model's own has it.

Normaliser, pre-tokeniser, decoder, template, added tokens by name, bytes to fall back on and the digits of a token stay. The
trainers are those of the tokenizers library (BPE: arXiv 1508.07909; Unigram: arXiv 1804.10959).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from polygraft.errors import InputError, RecipeError
from polygraft.tokenfile import BYTE_OF, SPACE, Vocabulary
from polygraft.vocab.tokenizer import trim

Kind = Literal["bpe", "unigram"]
BYTES = tuple(f"<0x{b:02X}>" for b in range(256))
UNKNOWN = "<unk>"


def reserved(vocabulary: Vocabulary) -> list[str]:
    """Tokens that a replacement has from the start: added ones and the unknown one in order of their ids, bytes to fall back on."""
    names = {i: entry["content"] for i, entry in vocabulary.added.items()}
    unknown = vocabulary.model.get("unk_token")
    if vocabulary.kind == "Unigram" and isinstance(i := vocabulary.model.get("unk_id"), int):
        unknown = vocabulary.names[i]
    if unknown is not None and unknown in vocabulary.by_name:
        names[vocabulary.by_name[unknown]] = unknown
    found = [names[i] for i in sorted(names)]
    return [*found, *BYTES] if vocabulary.falls_back else found


def replacement(vocabulary: Vocabulary, documents: Iterable[str], kind: Kind, size: int, *, min_count: int = 2, longest: int = 24,
                digits: int = 1) -> dict[str, Any]:  # fmt: skip
    """tokenizer.json of a new vocabulary with `size` tokens (fewer where text has no more). `digits`: of a token, at most."""
    first = reserved(vocabulary)
    alphabet = sorted(BYTE_OF) if vocabulary.alphabet == "bytes" else []
    if size <= len(first) + len(alphabet):
        raise RecipeError("no room for tokens of the text", where="size", found=size,
                          expected=f"more than {len(first) + len(alphabet):,}: control tokens and bytes")
    core = _core(vocabulary, kind, digits)
    core.train_from_iterator(documents, _trainer(vocabulary, kind, size, first, alphabet, min_count, longest))
    made = json.loads(core.to_str())["model"]
    return _dressed(vocabulary, _model(vocabulary, made, kind))


def _trainer(vocabulary: Vocabulary, kind: Kind, size: int, first: list[str], alphabet: list[str], min_count: int,
             longest: int) -> Any:  # fmt: skip
    from tokenizers import trainers

    common: dict[str, Any] = {"vocab_size": size, "special_tokens": first, "initial_alphabet": alphabet, "show_progress": False}
    units = 2 * longest if vocabulary.alphabet == "bytes" else longest  # of the alphabet: bytes of a character, at most about
    if kind == "bpe":
        return trainers.BpeTrainer(**common, min_frequency=min_count, max_token_length=units)
    unknown = next((t for t in first if t == vocabulary.model.get("unk_token") or t == UNKNOWN), None)
    return trainers.UnigramTrainer(**common, max_piece_length=units, unk_token=unknown)


def _core(vocabulary: Vocabulary, kind: Kind, digits: int) -> Any:
    """The tokenizer that is trained: with the model's own way to cut text, and words and numbers cut where it leaves that to the
    vocabulary (SentencePiece cuts at spaces when it learns)."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    core = Tokenizer.from_str(json.dumps(vocabulary.tree | {"model": {"type": "BPE", "vocab": {}, "merges": []},
                                                            "added_tokens": [], "post_processor": None, "truncation": None,
                                                            "padding": None}))  # fmt: skip
    core.model = models.BPE() if kind == "bpe" else models.Unigram()
    parts = [core.pre_tokenizer] if vocabulary.tree.get("pre_tokenizer") else []
    if vocabulary.alphabet == "metaspace":
        parts.append(pre_tokenizers.Split(Regex(f"{SPACE}+(?={SPACE})|{SPACE}?[^{SPACE}]+|{SPACE}"), "isolated"))
    core.pre_tokenizer = pre_tokenizers.Sequence([*parts, pre_tokenizers.Split(Regex(f"\\p{{Nd}}{{1,{digits}}}"), "isolated")])
    return core


def _model(vocabulary: Vocabulary, made: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    """The model section: what was learned, with the old one's way to treat what it does not know."""
    old = vocabulary.model
    if kind == "unigram":
        return {"type": "Unigram", "unk_id": made["unk_id"], "vocab": made["vocab"], "byte_fallback": vocabulary.falls_back}
    kept = {"unk_token": old.get("unk_token"), "fuse_unk": bool(old.get("fuse_unk")), "byte_fallback": vocabulary.falls_back,
            "ignore_merges": bool(old.get("ignore_merges"))}  # fmt: skip
    if vocabulary.kind == "Unigram" and isinstance(i := old.get("unk_id"), int):
        kept["unk_token"], kept["fuse_unk"] = vocabulary.names[i], True
    return {**made, **kept}


def _dressed(vocabulary: Vocabulary, model: Mapping[str, Any]) -> dict[str, Any]:
    """The old tokenizer.json around a new model, its ids moved by name."""
    vocab = model["vocab"]
    pairs = vocab.items() if isinstance(vocab, Mapping) else ((t, i) for i, (t, _) in enumerate(vocab))
    ids = {str(token): int(i) for token, i in pairs}
    moved = {i: ids[token] for i, token in vocabulary.names.items() if token in ids}
    added = sorted((entry | {"id": ids[entry["content"]]} for entry in vocabulary.added.values()), key=lambda t: t["id"])
    tree = vocabulary.tree | {"model": dict(model), "added_tokens": added}
    return trim.moved(tree, vocabulary, moved)


def refuse_kind(vocabulary: Vocabulary) -> None:
    """Raise InputError for a tokenizer that is no frame for BPE or Unigram."""
    if vocabulary.kind not in ("BPE", "Unigram"):
        raise InputError("a kind of tokenizer that cannot be trained anew", where=vocabulary.path, found=vocabulary.kind,
                         expected="BPE or Unigram")
