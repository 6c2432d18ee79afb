"""A blind comparison: two models' answers side by side in a sheet without names, and what people preferred, tested.

`make` gives the sheet and its key (which side was whose); `read` puts a filled sheet and its key together again and refuses what
was left out or changed. A cell is what a spreadsheet shows: never a formula, no control characters.
"""

from __future__ import annotations

import csv
import hashlib
import io
import random
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polygraft.errors import InputError
from polygraft.files import digest

KIND = "polygraft blind comparison"
COLUMNS = ("number", "language", "task", "question", "left", "right", "choice: left, right or tie")
SAID = {"left": "left", "l": "left", "right": "right", "r": "right", "tie": "tie", "t": "tie"}
FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")
LONGEST = 32_000  # characters of a cell: spreadsheets cut at 32,767


@dataclass(frozen=True)
class Pair:
    """Two models' answers to one question."""

    task: str
    language: str
    id: str
    question: str
    a: str
    b: str

    @property
    def same(self) -> bool:
        return visible(self.a) == visible(self.b)


@dataclass(frozen=True)
class Judged:
    """What was preferred for one question: "a", "b" or "tie"."""

    task: str
    language: str
    id: str
    preferred: str


def visible(text: str) -> str:
    """A text on which two readers of a sheet agree: spreadsheets change line ends, spaces at the edges and leading apostrophes."""
    return " ".join(text.lstrip("'").split())


def cell(text: str) -> str:
    """A text as a cell that no spreadsheet runs or hides: control characters and reading-order overrides dropped, an apostrophe
    before what would begin a formula, cut at what a cell holds."""
    kept = "".join(c for c in re.sub(r"\r\n?", "\n", text) if c in "\n\t" or not _obeyed(c)).strip()
    if len(kept) > LONGEST:
        kept = kept[:LONGEST] + " […]"
    return "'" + kept if kept.startswith(FORMULA) else kept


def _obeyed(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cs") or char in "\u202d\u202e\ufeff"


def make(pairs: Sequence[Pair], names: tuple[str, str], seed: int) -> tuple[str, dict[str, Any]]:
    """(the sheet as CSV, the key) of these pairs in a drawn order, sides drawn for each. Answers that read the same are ties and
    are not asked. Raises InputError where nothing differs."""
    asked = sorted((p for p in pairs if not p.same), key=lambda p: _draw(seed, "order", p))
    if not asked:
        raise InputError("the two models wrote the same everywhere", found=f"{len(pairs)} pairs of equal answers")
    text = io.StringIO()
    sheet = csv.writer(text)
    sheet.writerow(COLUMNS)
    rows = []
    for number, p in enumerate(asked, 1):
        left = "a" if random.Random(_draw(seed, "side", p)).random() < 0.5 else "b"
        shown = tuple(cell(t) for t in (p.language, p.task, p.question, *((p.a, p.b) if left == "a" else (p.b, p.a))))
        sheet.writerow((number, *shown, ""))
        rows.append({"number": number, "task": p.task, "language": p.language, "id": p.id, "left": left,
                     "shown": _fingerprint(shown)})
    ties = [{"task": p.task, "language": p.language, "id": p.id} for p in pairs if p.same]
    key: dict[str, Any] = {"kind": KIND, "version": 1, "a": names[0], "b": names[1], "seed": seed, "rows": rows, "same": ties}
    return text.getvalue(), key | {"digest": digest(key)}


def _draw(seed: int, what: str, p: Pair) -> str:
    return hashlib.sha256(f"{seed}\0{what}\0{p.task}\0{p.language}\0{p.id}".encode("utf-8", "surrogatepass")).hexdigest()


def _fingerprint(cells: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(visible(c) for c in cells).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def read(raw: bytes, key: Mapping[str, Any], where: object) -> list[Judged]:
    """What was preferred in every pair, those that were the same included. Raises InputError naming the first rows that lack a
    choice, were changed, are there twice or not at all, and for a key that is not this sheet's or was altered."""
    check_key(key)
    rows = {int(r["number"]): r for r in key["rows"]}
    found, missing = {}, []
    for line, cells in _table(raw, where):
        number = int(cells[0]) if cells[0].strip().isascii() and cells[0].strip().isdecimal() else 0
        if number not in rows or number in found:
            raise InputError("a row that is not in the key" if number not in rows else "a row that is there twice",
                             where=f"{where}:{line}", found=cells[0][:40], fix="use the sheet that was written with this key")
        if _fingerprint(cells[1:6]) != rows[number]["shown"]:
            raise InputError("the question or an answer was changed", where=f"{where}, number {number}",
                             expected="the text that was written; only the last column is filled in", fix="restore the row")
        choice = cells[6].strip().casefold()
        if choice and choice not in SAID:
            raise InputError("not a choice", where=f"{where}, number {number}", found=choice[:40], expected="left, right or tie")
        missing += [] if choice else [number]
        found[number] = SAID.get(choice, "")
    if absent := [n for n in rows if n not in found]:
        raise InputError(f"{len(absent)} rows are gone", where=where, found=_some(absent), expected=f"{len(rows)} rows",
                         fix="restore them")
    if missing:
        raise InputError(f"{len(missing)} of {len(rows)} rows have no choice", where=where, found=_some(missing),
                         expected="left, right or tie in each", fix="fill them in")
    out = [Judged(r["task"], r["language"], r["id"], _whose(found[n], r["left"])) for n, r in rows.items()]
    return out + [Judged(r["task"], r["language"], r["id"], "tie") for r in key["same"]]


def _whose(choice: str, left: str) -> str:
    if choice == "tie":
        return "tie"
    return left if choice == "left" else ("b" if left == "a" else "a")


def _some(numbers: Sequence[int]) -> str:
    return "number " + ", ".join(map(str, numbers[:10])) + (" ..." if len(numbers) > 10 else "")


def check_key(key: Any) -> None:
    """Raises InputError unless this is a key as `make` gives it."""
    wrong = InputError("not the key of a blind comparison", expected="the .key.json that was written with the sheet")
    if not isinstance(key, Mapping) or key.get("kind") != KIND:
        raise wrong
    if key.get("version") != 1 or digest({k: v for k, v in key.items() if k != "digest"}) != key.get("digest"):
        raise InputError("the key was altered", expected="the .key.json as it was written", fix="use the original")


def _table(raw: bytes, where: object) -> list[tuple[int, list[str]]]:
    """(line, cells) of every row below the header; commas, semicolons or tabs, as spreadsheets save. Raises InputError."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise InputError("the sheet is not UTF-8", where=where, found=str(e)[:80], fix="save it as CSV UTF-8") from e
    head = text.split("\n", 1)[0]
    mark = max(",;\t", key=head.count)
    out: list[tuple[int, list[str]]] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark)
    try:
        for n, cells in enumerate(reader):
            if n == 0 and [c.strip() for c in cells[:len(COLUMNS)]] != list(COLUMNS):
                raise InputError("not a sheet of a blind comparison", where=where, found=_one(cells), expected=", ".join(COLUMNS),
                                 fix="keep the first row as it was written")
            if n and any(c.strip() for c in cells):
                if len(cells) < len(COLUMNS):
                    raise InputError("a row lacks cells", where=f"{where}:{reader.line_num}", found=_one(cells),
                                     expected=f"{len(COLUMNS)} cells", fix="restore the row")
                out.append((reader.line_num, cells))
    except csv.Error as e:
        raise InputError("not CSV", where=f"{where}:{reader.line_num}", found=str(e), fix="save it again as CSV") from e
    return out


def _one(cells: Sequence[str]) -> str:
    return " | ".join(cells)[:80]
