"""Text as the number grammar reads it: ASCII digits and signs, no invisible characters, no LaTeX around numbers.

Every step is linear in the text, whatever it holds: an answer is written by a machine and may be anything.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

HYPHENS = "\u2010\u2011\u2212\ufe63\uff0d"  # read as minus; dashes are not
GROUP_ONLY = "\uff0c\u060c"  # full-width and Arabic comma: they group digits or end a clause, and never mark decimals
KEPT = GROUP_ONLY + "\u066b"  # the Arabic decimal separator never groups
SINGLE = {"\u066a": "%", "\ufe6a": "%", "\u2044": "/", "\u2215": "/", "\u066c": "'", "\u2019": "'", "\u00a0": " ", "\t": " "}
LONGEST_WORD = 1000  # composing characters sorts runs of marks, in quadratic time: endless "words" stay as they are

_LATEX = re.compile(r"""
    \\[dt]?frac\s?(?:\{\s?(\d+)\s?\}\s?\{\s?(\d+)\s?\}|(\d)(\d))   # \frac{3}{4}, \frac34
  | (\{,\}|\\[%$]|\\(?:times|cdot|div|approx)(?![a-z]))            # 1{,}000  50\%  \$5
  | (\\!)                                                          # 1,\!000
  | (\\[,;:\ ])                                                    # 1\,000
""", re.VERBOSE)  # fmt: skip
_NAMED = {r"\times": "×", r"\cdot": "×", r"\div": "÷", r"\approx": "≈", "{,}": ",", r"\%": "%", r"\$": "$"}


def clean(text: str) -> str:
    """The text composed (NFC), with decimal digits of every script as ASCII, one kind of space, percent sign, slash and minus."""
    if not unicodedata.is_normalized("NFC", text):
        words = re.split(r"(\s)", text)
        text = "".join(unicodedata.normalize("NFC", w) if len(w) <= LONGEST_WORD else w for w in words)
    text = text.translate({ord(c): plain(c) for c in set(text) if c > "\x7f" or c == "\t"})
    return _LATEX.sub(_latex, text) if "\\" in text or "{,}" in text else text


def lower(text: str) -> str:
    """Small letters, at the same places (only `İ` would become longer)."""
    return text.replace("İ", "i").lower()


@cache
def plain(c: str) -> str:
    """What stands for one character: `৩` is 3, a zero-width joiner nothing, a full-width plus an ASCII one."""
    if c in KEPT:
        return c
    if c in SINGLE:
        return SINGLE[c]
    if c in HYPHENS:
        return "-"
    category = unicodedata.category(c)
    if category == "Nd":
        return str(unicodedata.decimal(c))
    if category == "Cf":
        return ""
    if category == "Zs":
        return " "
    return chr(ord(c) - 0xFEE0) if "\uff01" <= c <= "\uff5e" else c


def _latex(m: re.Match[str]) -> str:
    a, b, c, d, name, nothing, _ = m.groups()
    if name:
        return _NAMED[name]
    if nothing:
        return ""
    over = f"{a or c}/{b or d}" if a or c else " "
    return f" {over}" if m.string[m.start() - 1 : m.start()].isdigit() and (a or c) else over
