"""Foreign text made safe to show: no control characters, no terminal escapes, no overrides of reading order.

What a model or a file name says is data. HTML escaping itself is jinja2's and `html.escape`'s work; this module removes what
escaping leaves in: characters that a terminal or a browser would obey.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])")
# Tab and line feed stay. Overrides (U+202D, U+202E) can make text read as another text, so they are shown instead of obeyed;
# marks, embeddings and isolates that honest Arabic or Hebrew text needs stay, and end with their element.
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202d\u202e\ud800-\udfff\ufeff\ufff9-\ufffb]")


def _shown(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 32:
        return chr(0x2400 + code)  # the control pictures: a visible sign for each
    return "\N{SYMBOL FOR DELETE}" if code == 127 else "\N{REPLACEMENT CHARACTER}" if 0xD800 <= code < 0xE000 else f"[U+{code:04X}]"


def clean(text: object) -> str:
    """`text` without terminal escapes; other characters that would be obeyed, not read, become visible signs. Valid UTF-8."""
    whole = str(text)
    if whole.isascii() and whole.isprintable():
        return whole
    return OBEYED.sub(_shown, ANSI.sub("", whole.replace("\r\n", "\n")))


def one_line(text: object, width: int | None = None) -> str:
    """`clean` text on one line, cut to `width` columns with an ellipsis."""
    text = str(text)
    kept = text if width is None else text[:20 * width + 200]  # a megabyte of name is not cleaned to be thrown away
    line = " ".join(clean(kept).split()) + ("…" if len(kept) < len(text) else "")
    return line if width is None else cut(line, width)


def columns(text: str) -> int:
    """Terminal columns that a text takes: wide East Asian characters two, combining marks none."""
    if text.isascii():
        return len(text)
    plain = sum(1 for c in text if unicodedata.category(c) not in ("Mn", "Me", "Cf"))
    return plain + sum(1 for c in text if unicodedata.east_asian_width(c) in "WF")


def cut(text: str, width: int) -> str:
    """The start of `text` in at most `width` columns, ending in an ellipsis where something was left out."""
    if columns(text) <= width:
        return text
    used, out = 1, []
    for c in text:
        used += columns(c)
        if used > width:
            break
        out.append(c)
    return "".join(out).rstrip() + "…"


def rtl(text: str) -> bool:
    """True where the first strongly directed character is right-to-left (the rule of `dir=auto`)."""
    return next((unicodedata.bidirectional(c) != "L" for c in text if unicodedata.bidirectional(c) in ("L", "R", "AL")), False)


SCRIPTS = (("ja", "HIRAGANA"), ("ja", "KATAKANA"), ("ko", "HANGUL"), ("zh", "CJK UNIFIED"), ("ar", "ARABIC"), ("he", "HEBREW"),
           ("hi", "DEVANAGARI"), ("bn", "BENGALI"), ("te", "TELUGU"), ("ta", "TAMIL"), ("th", "THAI"), ("ru", "CYRILLIC"),
           ("el", "GREEK"), ("am", "ETHIOPIC"))


def script_language(text: str) -> str:
    """A language whose fonts can draw this text, for labels that come without a language; "" for Latin. Kana beat Han."""
    names = {unicodedata.name(c, "").split(" LETTER")[0] for c in text if ord(c) > 0x36F}
    return next((tag for tag, script in SCRIPTS if any(n.startswith(script) for n in names)), "")


def csv_cell(value: object) -> str:
    """One CSV field (RFC 4180) that no spreadsheet takes for a formula."""
    text = "" if value is None else clean(value)
    if isinstance(value, str) and text[:1] in ("=", "+", "-", "@", "\t"):
        text = "'" + text
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\n') else text


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows as CSV with line feeds."""
    return "".join(",".join(csv_cell(c) for c in row) + "\n" for row in rows)
