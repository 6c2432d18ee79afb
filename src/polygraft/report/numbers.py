"""Numbers as a reader wants them: few digits, a unit, never NaN."""

from __future__ import annotations

import math
from datetime import datetime

from polygraft.report.strings import EN, Strings


def number(value: float | int | None, digits: int = 3, t: Strings = EN) -> str:
    """Thousands separated, about `digits` significant digits, plain notation where it is short; "–" for None."""
    if value is None:
        return "–"
    if isinstance(value, bool | int):
        return f"{value:,}".replace("-", "−")
    if not math.isfinite(value):
        return t["undefined"]
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
    """Decimals with which an interval is worth printing: two digits of its width, at most four or, where that would print an
    interval beside 0 as 0, as many as show its nearer end, at most eight; of no interval, as the value needs."""
    width = abs(high - low) if low is not None and high is not None else abs(value)
    if not math.isfinite(width) or width == 0:
        return 0 if float(value).is_integer() else 2
    nearest = min(abs(low), abs(high)) if low is not None and high is not None and low * high > 0 else 1.0
    return min(min(8, max(4, -math.floor(math.log10(nearest)))), max(0, 1 - math.floor(math.log10(width))))


def fixed(value: float | None, decimals: int, plus: bool = False, t: Strings = EN) -> str:
    """`value` with so many decimals and a true minus sign; `plus` also signs what is above zero."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return t["undefined"]
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


def duration(seconds: float, t: Strings = EN) -> str:
    """Seconds as a person says them: 0.4 s, 12 s, 3 min 5 s, 2 h 10 min."""
    if seconds < 9.95:
        return t["seconds"].format(n=f"{seconds:.1f}")
    whole = round(seconds)
    if whole < 60:
        return t["seconds"].format(n=whole)
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return " ".join([t["minutes"].format(n=minutes), *[t["seconds"].format(n=rest)] * bool(rest)])
    hours, minutes = divmod(round(seconds / 60), 60)
    return " ".join([t["hours"].format(n=f"{hours:,}"), *[t["minutes"].format(n=minutes)] * bool(minutes)])


def when(moment: str, t: Strings = EN) -> str:
    """A time of a manifest (UTC, ISO 8601, to the second) as it is read aloud; anything else as it came."""
    try:
        found = datetime.strptime(moment, "%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        return moment
    return t["when"].format(year=found.year, month=found.month, day=found.day, time=f"{found:%H:%M:%S}", iso=moment)
