"""The number that an answer ends with, whatever digits and separators its language writes.

Decimal digits of every script are read (`১২`, `๑๒`, `١٢`, `１２`), with signs, and with the separators of any convention. Where a
text can be read in two ways (`2,125` is two thousand or two and an eighth), both readings are kept: the gold answer decides.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

MINUS = "-\u2212\uff0d\ufe63"  # hyphen, minus sign, full-width and small hyphen
SPACES = " \u00a0\u2009\u202f"
GROUP = SPACES + "'\u2019\u066c"  # separators that only group: spaces, apostrophes, the Arabic thousands separator
OTHER = ".,\uff0e\uff0c\u066b"  # separators that group in one convention and mark decimals in another; the Arabic decimal separator
_SEPARATOR = f"[{GROUP}{OTHER}]"
# a minus belongs to the number unless what stands before it is something to subtract from
NUMBER = re.compile(
    rf"(?:(?<![\w)\]%])(?<![\w)\]%]\s)[{MINUS}])?"
    rf"(?:\d{{1,3}}(?:[{SPACES}]\d{{3}})+(?!\d)(?:[{OTHER}]\d+)?|\d+(?:[{GROUP[len(SPACES):]}{OTHER}]\d+)*)"
)


def numbers(text: str) -> list[str]:
    """Every number as it is written, in order."""
    return [m.group(0) for m in NUMBER.finditer(text)]


def readings(number: str) -> set[Decimal]:
    """Every value that a written number can mean: `1,00,000` is one value, `1.234` two. Anything else is the empty set."""
    negative = number[:1] in MINUS
    body = number.lstrip(MINUS + " ")
    parts = re.split(_SEPARATOR, body)
    marks = re.findall(_SEPARATOR, body)
    if not all(p.isdecimal() for p in parts):
        return set()
    digits = ["".join(str(int(c)) for c in p) for p in parts]
    texts = set()
    if _groups(parts, marks):
        texts.add("".join(digits))
    if marks and marks[-1] not in GROUP and marks.count(marks[-1]) == 1 and _groups(parts[:-1], marks[:-1]):
        texts.add("".join(digits[:-1]) + "." + digits[-1])
    return {-Decimal(t) if negative else Decimal(t) for t in texts}


def _groups(parts: Sequence[str], marks: Sequence[str]) -> bool:
    """Whether the separators group digits: all the same mark, groups of three (or two, as in India) and three at the end."""
    if not marks:
        return True
    whole = len(set(marks)) == 1 and len(parts[-1]) == 3 and 1 <= len(parts[0]) <= 3 and not (parts[0] in "0" and len(parts) == 2)
    return whole and all(len(p) in (2, 3) for p in parts[1:-1])


def answer(text: str, markers: Sequence[str] = ()) -> str | None:
    """The number that answers: the first after the last marker ("The answer is") that has one after it, else the last of all."""
    for at in sorted((m.end() for marker in markers for m in re.finditer(re.escape(marker), text, re.IGNORECASE)), reverse=True):
        if found := numbers(text[at:]):
            return found[0]
    found = numbers(text)
    return found[-1] if found else None


def correct(text: str, gold: str, markers: Sequence[str] = ()) -> bool:
    """Whether the answer found in `text` can be read as the gold number."""
    found = answer(text, markers)
    return found is not None and bool(readings(found) & readings(gold))
