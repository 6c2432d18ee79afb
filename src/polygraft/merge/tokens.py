"""Do the sources read text alike? Compares tokenizer files: equal bytes settle it, else the vocabularies inside are compared."""

from __future__ import annotations

import filecmp
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polygraft import files
from polygraft.errors import InputError

FILE = "tokenizer.json"
LIMIT = 64 << 20


def check(sources: Sequence[tuple[str, Mapping[str, Path]]], donor: int) -> tuple[str, ...]:
    """Notes about harmless differences to the donor's tokenizer. Raises InputError naming the first token that means two things."""
    name, extras = sources[donor]
    notes = []
    if FILE in extras:
        mine: dict[str, int] | None = None
        for other, theirs in sources:
            if FILE not in theirs or filecmp.cmp(extras[FILE], theirs[FILE], shallow=False):
                continue
            mine = vocabulary(extras[FILE]) if mine is None else mine
            notes += _compare(name, mine, other, vocabulary(theirs[FILE]))
    elif any(FILE in theirs for _, theirs in sources):
        notes.append(f"{name} gives the tokenizer but has no {FILE}; the result has none either")
    templates = {bytes_of(e, "chat_template.jinja") for _, e in sources} - {None}
    if len(templates) > 1:
        notes.append(f"the sources' chat templates differ; the result takes that of {name}")
    return tuple(notes)


def bytes_of(extras: Mapping[str, Path], name: str) -> bytes | None:
    return extras[name].read_bytes() if name in extras else None


def vocabulary(path: Path) -> dict[str, int]:
    """Token -> id of a tokenizer.json, added tokens included."""
    tree: Any = files.read_json(path, LIMIT)
    model = tree.get("model", {}) if isinstance(tree, dict) else {}
    vocab = model.get("vocab", {}) if isinstance(model, dict) else {}
    table = dict(vocab) if isinstance(vocab, dict) else {entry[0]: i for i, entry in enumerate(vocab) if entry}
    for added in tree.get("added_tokens", []) if isinstance(tree, dict) else []:
        table[added["content"]] = added["id"]
    return table


def _compare(a: str, mine: dict[str, int], b: str, theirs: dict[str, int]) -> list[str]:
    ids = {i: t for t, i in mine.items()}
    for token, i in sorted(theirs.items(), key=lambda x: x[1]):
        if mine.get(token, i) != i or ids.get(i, token) != token:
            raise InputError(
                "the tokenizers differ, so the same embedding row means two things",
                where=f"token {i}",
                found=f"{a}: {ids.get(i)!r}; {b}: {token!r}",
                expected="the same token in every model",
                fix="merge models that were trained with the same tokenizer",
            )
    extra = sorted(theirs.keys() ^ mine.keys())
    if extra:
        return [
            f"{len(extra)} tokens are only in the tokenizer of {a} or of {b} (first: {extra[0]!r}); the result takes that of {a}"
        ]
    return [f"the tokenizer files of {a} and {b} differ, but not in their tokens; the result takes that of {a}"]
