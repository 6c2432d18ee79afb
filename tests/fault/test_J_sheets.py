"""Sheets of a blind comparison that came back altered or incomplete: each refused, with what is wrong."""

from __future__ import annotations

import csv
import io

import pytest

from polygraft.errors import InputError
from polygraft.evals.governance import sheet
from sheets import NAMES, PAIRS, filled, prefers, rows


def broken(what, text, key):
    """(sheet, key) damaged in one way."""
    head, *body = rows(text)
    raw = filled(text, prefers("jibu"))
    body = rows(raw.decode("utf-8-sig"))[1:]

    def again(found):
        out = io.StringIO()
        csv.writer(out).writerows([head, *found])
        return out.getvalue().encode()

    return {
        "a row without a choice": lambda: (again([[*body[0][:6], " "], *body[1:]]), key),
        "a row gone": lambda: (again(body[1:]), key),
        "a row twice": lambda: (again([*body, body[0]]), key),
        "an answer changed": lambda: (again([[*body[0][:4], "better now", *body[0][5:]], *body[1:]]), key),
        "sides swapped": lambda: (again([[*body[0][:4], body[0][5], body[0][4], body[0][6]], *body[1:]]), key),
        "a word that is no choice": lambda: (again([[*body[0][:6], "maybe"], *body[1:]]), key),
        "another number": lambda: (again([["999", *body[0][1:]], *body[1:]]), key),
        "cells cut off": lambda: (again([body[0][:5], *body[1:]]), key),
        "another header": lambda: (raw.replace(b"left,right,", b"A,B,", 1), key),
        "not UTF-8": lambda: (raw.replace(b"Frage", b"Fr\xe4ge", 1), key),
        "an open quote": lambda: (raw + b'1,"de', key),
        "empty": lambda: (b"", key),
        "a key of another sheet": lambda: (raw, sheet.make(PAIRS, NAMES, 1)[1]),
        "an altered key": lambda: (raw, {**key, "rows": [{**key["rows"][0], "left": "a"}, {**key["rows"][1], "left": "b"}, *key["rows"][2:]]}),
        "no key at all": lambda: (raw, {"rows": []}),
        "a key that is a list": lambda: (raw, []),
    }[what]()


@pytest.mark.group("J")
@pytest.mark.parametrize("what", [
    "a row without a choice", "a row gone", "a row twice", "an answer changed", "sides swapped", "a word that is no choice", "another number",
    "cells cut off", "another header", "not UTF-8", "an open quote", "empty", "a key of another sheet", "an altered key", "no key at all",
    "a key that is a list"])  # fmt: skip
def test_altered_and_incomplete_sheets_are_refused(what):
    text, key = sheet.make(PAIRS[:3], NAMES, 0)
    raw, key = broken(what, text, key)
    with pytest.raises(InputError) as e:
        sheet.read(raw, key, "s.csv")
    assert e.value.what and (e.value.expected or e.value.found)
