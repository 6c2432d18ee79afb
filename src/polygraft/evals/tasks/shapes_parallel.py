"""Shapes of plain parallel text: sentences and paragraphs to copy, the next sentence, the translation, all without labels.

Rows come in three layouts: lines of a file (NTREX-128, FLORES-200) with the English line and the document's name beside them; the
hub's table of NTREX with a column a language; the Universal Declaration with an edition a row. What is asked is chosen by the
English side, so that every language is asked the same, and shuffled by the hash of the line: the first N are from everywhere.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Mapping
from typing import Any

Row = dict[str, Any]
SHORTEST, LONGEST = 40, 400  # characters of a sentence that is asked, in English where there is English
PARAGRAPH = 300  # characters from which on sentences make a paragraph
BLOCK = 16  # sentences that count as one document where nothing says where documents end
CONTEXT = 3  # sentences before the one to be found
WRONG = 3  # other sentences beside the right one


def parallel(rows: list[Row], words: Mapping[str, Any]) -> list[Row]:
    """Lines of text (with `english` and `document`), a table with a column a language, or editions with `code` and `text`: one row
    a sentence with text, document, line, and english where it is known."""
    if "line" in rows[0]:
        found = [{**r, "text": r["text"].strip(), "document": str(r.get("document") or _block(r["line"]))} for r in rows]
    elif "eng_Latn" in rows[0]:
        if "column" not in words:
            raise ValueError(f"the hub's NTREX has no {words['name']}; FLORES-200 in a data folder may")
        found = [{"text": r[words["column"]].strip(), "english": r["eng_Latn"].strip(), "line": n, "document": _block(n)}
                 for n, r in enumerate(rows, 1)]
    else:
        found = _edition(rows, words["udhr"])
    return [r for r in found if r["text"] and r.get("english", r["text"])]


def _block(line: int) -> str:
    return f"block {(line - 1) // BLOCK + 1}"


def _edition(rows: list[Row], code: str) -> list[Row]:
    """The paragraphs of one edition; headings and list marks are left out by their length."""
    [text] = [r["text"] for r in rows if r["code"] == code]
    lines = [line.strip() for line in text.split("\n")]
    return [{"text": line, "line": n, "document": _block(n)} for n, line in enumerate(lines, 1) if len(line) >= SHORTEST // 2]


def _size(row: Row) -> int:
    return len(row.get("english") or row["text"])


def _spread(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda r: hashlib.sha256(str(r["line"]).encode()).digest())


def _asked(rows: list[Row]) -> list[Row]:
    """The rows neither too short to say something nor too long for a small context, shuffled."""
    return _spread([r for r in rows if SHORTEST <= _size(r) <= LONGEST])


def sentences(rows: list[Row], words: Mapping[str, Any]) -> list[Row]:
    """Parallel text: one row a sentence of middling length."""
    return _asked(parallel(rows, words))


def whole(rows: list[Row], words: Mapping[str, Any]) -> list[Row]:
    """Parallel text: every sentence, whatever its length."""
    return _spread(parallel(rows, words))


def paragraphs(rows: list[Row], words: Mapping[str, Any]) -> list[Row]:
    """Parallel text: consecutive sentences of one document, at least two and some 300 characters in all."""
    out: list[Row] = []
    taken: list[Row] = []
    for row in parallel(rows, words):
        if taken and taken[-1]["document"] != row["document"]:
            taken = []
        taken.append(row)
        if len(taken) > 1 and sum(map(_size, taken)) >= PARAGRAPH:
            out.append({**taken[0], "text": _joined(taken, words)})
            taken = []
    return _spread([r for r in out if r["text"]])


def _joined(rows: list[Row], words: Mapping[str, Any]) -> str:
    return _joint(words).join(r["text"] for r in rows)


def _joint(words: Mapping[str, Any]) -> str:
    return str(words.get("joint", " "))


def next_sentence(rows: list[Row], words: Mapping[str, Any]) -> list[Row]:
    """Parallel text: up to three sentences, and the one that follows among three of other documents that are about as long."""
    found = parallel(rows, words)
    out = []
    for i, row in enumerate(found):
        before = [r for r in found[max(0, i - CONTEXT):i] if r["document"] == row["document"]]
        if len(before) >= 2 and SHORTEST <= _size(row) <= LONGEST:
            out.append({**row, "context": _joined(before, words), "before": before[0]["line"]})
    by_size = sorted(found, key=lambda r: (_size(r), r["line"]))
    sizes = [_size(r) for r in by_size]
    made = [_with_wrong(r, [o for o in _near(by_size, bisect_left(sizes, _size(r))) if o["document"] != r["document"]])
            for r in _spread(out)]
    return [{**r, "choices": [_joint(words) + c for c in r["choices"]]} for r in made]


def match_translation(rows: list[Row], words: Mapping[str, Any]) -> list[Row]:
    """Parallel text: an English sentence, and its translation among those of three sentences near it."""
    found = parallel(rows, words)
    place = {r["line"]: i for i, r in enumerate(found)}
    asked = [{**r, "english": r["english"]} for r in _asked(found)]
    return [_with_wrong(r, [o for o in _near(found, place[r["line"]]) if o["line"] != r["line"]])
            for r in asked]


def _near(rows: list[Row], at: int, reach: int = 40) -> list[Row]:
    """Rows around a place, the nearest first."""
    order = sorted(range(max(0, at - reach), min(len(rows), at + reach)), key=lambda i: (abs(i - at), i))
    return [rows[i] for i in order]


def _with_wrong(row: Row, others: list[Row]) -> Row:
    """The row with its text among three other texts, at a place that the line's hash decides."""
    wrong = list(dict.fromkeys(o["text"] for o in others if o["text"] != row["text"]))[:WRONG]
    if len(wrong) < WRONG:
        raise ValueError(f"line {row['line']} has fewer than {WRONG} other sentences beside it")
    target = hashlib.sha256(f"place {row['line']}".encode()).digest()[0] % (WRONG + 1)
    return {**row, "choices": [*wrong[:target], row["text"], *wrong[target:]], "target": target}


SHAPES = {"sentences": sentences, "parallel": whole, "paragraphs": paragraphs, "next_sentence": next_sentence,
          "match_translation": match_translation}
