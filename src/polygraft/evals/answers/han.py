"""Chinese and Japanese numerals (三十五, 两万三, 二〇二四, 三点五, 壹佰贰拾), and ASCII numbers between their units (3万5千).

A last digit after a unit above ten counts the next unit in Chinese, ones in Japanese (百二 is 120 or 102): both are kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction

_DIGITS = ("零〇", "一壹壱弌", "二贰貳弐两兩俩倆", "三叁參参仨", "四肆", "五伍", "六陆陸", "七柒漆", "八捌", "九玖")
DIGITS = {c: value for value, row in enumerate(_DIGITS) for c in row}
TENS = {"廿": 20, "卅": 30, "卌": 40}
SMALL = {"十": 10, "拾": 10, "百": 100, "佰": 100, "千": 1000, "仟": 1000, "천": 1000}
LARGE = {"万": 10**4, "萬": 10**4, "만": 10**4, "亿": 10**8, "億": 10**8, "억": 10**8, "兆": 10**12, "조": 10**12}
UNITS = "".join([*SMALL, *LARGE])
NUMERALS = "".join([*DIGITS, *TENS, *(c for c in UNITS if c < "가")])  # Korean syllables are numerals only after a digit
LONGEST = 64


def whole(text: str) -> set[int]:
    """The values of a run of numerals; none for a run that is no number (`万万`). Digits alone are read by place (二〇二四)."""
    if not text or len(text) > LONGEST:
        return set()
    if all(c in DIGITS for c in text):
        return {_by_place(text)}
    total = section = 0
    number, unit, large = -1, 0, 0  # the digit that waits for its unit, the unit before it, the large unit before that
    for c in text:
        if c in DIGITS and (number < 1):
            number = DIGITS[c]
        elif c in TENS and number < 1 and not section % 100:
            section, number, unit = section + TENS[c], -1, 10
        elif c in SMALL and (not section or SMALL[c] < unit):
            section, number, unit = section + (1 if number < 0 else number) * SMALL[c], -1, SMALL[c]
        elif c in LARGE and LARGE[c] != large:
            part = section + max(number, 0)
            total = (total + part) * LARGE[c] if total and LARGE[c] > large else total + (part or 1) * LARGE[c]
            section, number, unit, large = 0, -1, LARGE[c], LARGE[c]
        else:
            return set()
    value = total + section
    if number < 1:
        return {value}
    return {value + number} | ({value + number * unit // 10} if unit > 10 and text[-2] in UNITS else set())


def _by_place(digits: str) -> int:
    return int("".join(str(DIGITS[c]) for c in digits))


def decimal(text: str) -> set[Fraction]:
    """The values of numerals with an optional 点 (`三点五`)."""
    head, point, tail = re.sub("[點・]", "点", text).partition("点")
    if not point:
        return {Fraction(v) for v in whole(head)}
    if not tail or len(tail) > LONGEST or any(c not in DIGITS for c in tail):
        return set()
    return {v + Fraction(_by_place(tail), 10 ** len(tail)) for v in whole(head)}


def between_units(pieces: Iterable[tuple[Fraction, str]]) -> Fraction:
    """ASCII numbers with units between, in order: (3, 万), (5, 千) is 35,000."""
    total = section = Fraction(0)
    for number, unit in pieces:
        if unit in LARGE:
            total, section = total + (section + number) * LARGE[unit], Fraction(0)
        else:
            section += number * SMALL.get(unit, 1)
    return total + section
