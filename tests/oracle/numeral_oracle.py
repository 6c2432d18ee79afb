"""Numbers written out, the naive way: what the reader of answers must turn back."""

from __future__ import annotations

import unicodedata

NAMES = "零一二三四五六七八九"
FINANCIAL = str.maketrans("一二三四五六七八九十百千万", "壹贰叁肆伍陆柒捌玖拾佰仟萬")


def han(n: int) -> str:
    """A whole number below 10^12 in Chinese numerals, with 零 for gaps: 10203 is 一万零二百零三."""
    if n == 0:
        return NAMES[0]
    groups = [n // 10 ** (4 * i) % 10**4 for i in range(3)]
    text = "".join(("零" if g < 1000 else "") + _four(g) + unit for g, unit in zip(groups[::-1], ("亿", "万", "")) if g)
    return text.lstrip("零")


def _four(n: int) -> str:
    text, gap = "", False
    for power, unit in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = n // power % 10
        text += ("零" if gap and digit and text else "") + (NAMES[digit] + unit if digit else "")
        gap = not digit
    return text


def native(text: str, zero: str) -> str:
    """ASCII digits as those of the script whose zero this is."""
    return text.translate({ord(str(d)): chr(ord(zero) + d) for d in range(10)})


def zeros() -> list[str]:
    """The zero of every script that Unicode has decimal digits for."""
    return [c for c in map(chr, range(0x110000)) if unicodedata.decimal(c, -1) == 0]
