"""Numbers as a reader wants them: few digits, a unit, never NaN."""

from __future__ import annotations

import math

UNDEFINED = "undefined"


def number(value: float | int | None, digits: int = 3) -> str:
    """Thousands separated, about `digits` significant digits, plain notation where it is short; "–" for None."""
    if value is None:
        return "–"
    if isinstance(value, bool | int):
        return f"{value:,}".replace("-", "−")
    if not math.isfinite(value):
        return UNDEFINED
    size = abs(value)
    if size == 0:
        text = "0"
    elif size >= 10 ** 7 or size < 10 ** -3:
        text, power = f"{value:.{digits - 1}e}".split("e")
        text += "×10" + superscript(int(power))
    else:
        text = f"{value:,.{max(0, digits - 1 - math.floor(math.log10(size)))}f}"
    return text.replace("-", "−")


def superscript(power: int) -> str:
    return str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def spread(value: float, low: float | None, high: float | None) -> int:
    """Decimals with which an interval is worth printing: two digits of its width, at most four; of none, as the value needs."""
    width = abs(high - low) if low is not None and high is not None else abs(value)
    if not math.isfinite(width) or width == 0:
        return 0 if float(value).is_integer() else 2
    return min(4, max(0, 1 - math.floor(math.log10(width))))


def fixed(value: float | None, decimals: int, plus: bool = False) -> str:
    """`value` with so many decimals and a true minus sign; `plus` also signs what is above zero."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return UNDEFINED
    text = f"{value:+,.{decimals}f}" if plus else f"{value:,.{decimals}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def size(count: float) -> str:
    """Bytes in decimal units."""
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(value) < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} B" if unit == "B" else f"{value:.3g} {unit}" if value < 1000 else f"{value:,.0f} {unit}"


def duration(seconds: float) -> str:
    """Seconds as a person says them: 0.4 s, 12 s, 3 min 5 s, 2 h 10 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours:,} h {minutes} min" if minutes else f"{hours:,} h"
