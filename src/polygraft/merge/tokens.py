"""Do the sources read text alike? Compares tokenizer files: equal bytes settle it, else the vocabularies inside are compared."""

from __future__ import annotations

import filecmp
from collections.abc import Mapping, Sequence
from pathlib import Path

from polygraft.errors import InputError
from polygraft.tokenfile import FILE, Vocabulary


def check(sources: Sequence[tuple[str, Mapping[str, Path]]], donor: int) -> tuple[str, ...]:
    """Notes about harmless differences to the donor's tokenizer. Raises InputError naming the first token that means two things."""
    name, extras = sources[donor]
    notes = []
    if FILE in extras:
        mine: Vocabulary | None = None
        for other, theirs in sources:
            if FILE not in theirs or filecmp.cmp(extras[FILE], theirs[FILE], shallow=False):
                continue
            mine = Vocabulary.open(extras[FILE]) if mine is None else mine
            notes += _compare(name, mine, other, Vocabulary.open(theirs[FILE]))
    elif any(FILE in theirs for _, theirs in sources):
        notes.append(f"{name} gives the tokenizer but has no {FILE}; the result has none either")
    templates = {bytes_of(e, "chat_template.jinja") for _, e in sources} - {None}
    if len(templates) > 1:
        notes.append(f"the sources' chat templates differ; the result takes that of {name}")
    return tuple(notes)


def bytes_of(extras: Mapping[str, Path], name: str) -> bytes | None:
    return extras[name].read_bytes() if name in extras else None


def _compare(a: str, mine: Vocabulary, b: str, theirs: Vocabulary) -> list[str]:
    for token, i in sorted(theirs.by_name.items(), key=lambda x: x[1]):
        if mine.by_name.get(token, i) != i or mine.names.get(i, token) != token:
            raise InputError(
                "the tokenizers differ, so the same embedding row means two things",
                where=f"token {i}",
                found=f"{a}: {mine.names.get(i)!r}; {b}: {token!r}",
                expected="the same token in every model",
                fix="merge models that were trained with the same tokenizer",
            )
    extra = sorted(theirs.by_name.keys() ^ mine.by_name.keys())
    if extra:
        return [
            f"{len(extra)} tokens are only in the tokenizer of {a} or of {b} (first: {extra[0]!r}); the result takes that of {a}"
        ]
    return [f"the tokenizer files of {a} and {b} differ, but not in their tokens; the result takes that of {a}"]
