"""Whatever a model writes, a spreadsheet shows it and does not run it, and the sheet comes back whole."""

from __future__ import annotations

import pytest

from polygraft.evals.governance import sheet
from polygraft.evals.governance.sheet import Pair
from sheets import NAMES, filled, rows

HOSTILE = {
    "formula": "=HYPERLINK(\"http://example.com\",\"x\")", "plus": "+1+cmd|' /C calc'!A0", "minus": "-2+3", "at": "@SUM(1)", "tab formula": "\t=1+1",
    "wide formula": "＝1+1", "space formula": "  =1+1", "ansi": "\x1b[31mred\x1b[0m", "html": "<script>alert(1)</script>", "nul": "a\x00b",
    "surrogate": "a\ud800b", "override": "abc\u202ecba", "quotes": '","left"\n"2","x', "carriage": "a\r\nb\rc", "long": "x" * 100_000,
    "Arabic": "مرحبا (abc) ١٢", "isolates": "\u2067اب\u2069",
}


@pytest.mark.group("L")
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_answers_are_text_in_the_sheet(case):
    pairs = [Pair("t@1", "en", "1", HOSTILE[case], HOSTILE[case], "b")]
    text, key = sheet.make(pairs, NAMES, 0)
    raw = text.encode("utf-8")  # no half characters
    for shown in rows(text)[1]:
        assert not shown.startswith(("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")) and len(shown) < 32_767
        assert not any(c in shown for c in "\x1b\x00\u202e\r") and len(rows(text)) == 2
    [judged] = sheet.read(filled(raw.decode(), lambda r: "left" if r[4] == "b" else "right"), key, "s.csv")
    assert judged.preferred == "b"
