"""Which tokens no text can bring about, and which control tokens are not one id: faults of a tokenizer that its size hides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polygraft import files
from polygraft.tokenfile import BYTE, Vocabulary
from polygraft.vocab.metrics.counting import is_utf8, unknown_id

# A token is looked for as a text of its own and behind these: what begins a text may get a space before it, and a token without
# a space comes only where something stands before it.
BEFORE = ("", "«", "\n")
MERGES, APART = "no merges lead to it", "the text is changed or parted before merges are made"


def by_merges(vocabulary: Vocabulary) -> Any:
    """The tokenizer with `ignore_merges` off, so that a token is found by its merges and not looked up whole."""
    if not vocabulary.model.get("ignore_merges"):
        return vocabulary.tokenizer
    from tokenizers import Tokenizer

    plain = vocabulary.tree | {"model": vocabulary.model | {"ignore_merges": False}, "truncation": None, "padding": None}
    return Tokenizer.from_str(files.canonical(plain).decode())


def unreachable(vocabulary: Vocabulary) -> dict[int, str]:
    """Id -> why, of the tokens that encoding their own text does not give: encode(decode(i)) != [i] wherever it stands.

    Left out are byte tokens to fall back on, the unknown token and control tokens. What is half a character has no text: of it,
    only the merges are asked.
    """
    tokenizer = by_merges(vocabulary)
    unknown = unknown_id(vocabulary)
    asked = [i for i, content in enumerate(vocabulary.contents)
             if content and i != unknown and not (vocabulary.falls_back and BYTE.fullmatch(vocabulary.names[i]))]
    text = {i: is_utf8(vocabulary.contents[i]) for i in asked}  # type: ignore[arg-type]
    missed = _not_found(tokenizer, vocabulary, [i for i in asked if text[i]])
    halves = [i for i in asked if not text[i] and not _merged(tokenizer, vocabulary, i)]
    reasons = {i: APART if _merged(tokenizer, vocabulary, i) else MERGES for i in missed}
    return dict(sorted((reasons | dict.fromkeys(halves, MERGES)).items()))


def _not_found(tokenizer: Any, vocabulary: Vocabulary, ids: Sequence[int]) -> list[int]:
    """Those of these ids that stand at the end of no encoding of their own text."""
    left = list(ids)
    for before in BEFORE:
        texts = [before + vocabulary.contents[i].decode() for i in left]  # type: ignore[union-attr]
        encoded = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        left = [i for i, e in zip(left, encoded) if not (e.ids == [i] if not before else e.ids[-1:] == [i])]
    return left


def _merged(tokenizer: Any, vocabulary: Vocabulary, i: int) -> bool:
    """Whether the model alone, given the token as the file writes it, makes it again."""
    name = vocabulary.names[i]
    return name in vocabulary.ids and [t.id for t in tokenizer.model.tokenize(name)] == [i]


def parted_control(vocabulary: Vocabulary) -> list[str]:
    """Control tokens that are not read as the one id that they have."""
    names = list(vocabulary.control)
    encoded = vocabulary.tokenizer.encode_batch_fast(names, add_special_tokens=False)
    return [name for name, e in zip(names, encoded) if e.ids != [vocabulary.control[name]]]
