"""Which scripts a text is written in, letter by letter, by Unicode's own character names."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import numpy as np

from polygraft import languages

# the first word of a letter's Unicode name -> ISO 15924
NAMES = {
    "LATIN": "Latn", "CYRILLIC": "Cyrl", "GREEK": "Grek", "ARMENIAN": "Armn", "GEORGIAN": "Geor", "HEBREW": "Hebr",
    "ARABIC": "Arab", "SYRIAC": "Syrc", "THAANA": "Thaa", "NKO": "Nkoo", "ADLAM": "Adlm", "ETHIOPIC": "Ethi",
    "TIFINAGH": "Tfng", "DEVANAGARI": "Deva", "BENGALI": "Beng", "GURMUKHI": "Guru", "GUJARATI": "Gujr", "ORIYA": "Orya",
    "TAMIL": "Taml", "TELUGU": "Telu", "KANNADA": "Knda", "MALAYALAM": "Mlym", "SINHALA": "Sinh", "THAI": "Thai",
    "LAO": "Laoo", "TIBETAN": "Tibt", "MYANMAR": "Mymr", "KHMER": "Khmr", "MONGOLIAN": "Mong", "HANGUL": "Hang",
    "HIRAGANA": "Hira", "KATAKANA": "Kana", "CJK": "Hani", "IDEOGRAPHIC": "Hani", "BOPOMOFO": "Bopo", "YI": "Yiii",
    "CHEROKEE": "Cher", "CANADIAN": "Cans", "OL": "Olck", "MEETEI": "Mtei", "GOTHIC": "Goth", "COPTIC": "Copt",
    "JAVANESE": "Java", "SUNDANESE": "Sund", "CUNEIFORM": "Xsux", "TAGALOG": "Tglg",
}  # fmt: skip
UNNAMED = "Zzzz"  # letters of any other script
SCRIPTS = (UNNAMED, *dict.fromkeys(NAMES.values()))
WHOLE = {"Jpan": ("Hani", "Hira", "Kana"), "Kore": ("Hang", "Hani"), "Hans": ("Hani",), "Hant": ("Hani", "Bopo"), "Cans": ("Cans",)}
DENSE = ("Hani", "Hira", "Kana", "Hang", "Bopo", "Yiii")  # a sign of these says about as much as three letters
WIDE = {"HALFWIDTH", "FULLWIDTH", "VERTICAL"}
# scripts that a language is written in besides its usual one
OTHER_SCRIPTS = {
    "sr": ("Latn",), "bs": ("Cyrl",), "uz": ("Cyrl",), "kk": ("Latn",), "tt": ("Latn",), "ku": ("Arab",), "ms": ("Arab",),
    "pa": ("Arab",), "sd": ("Deva",), "mn": ("Mong",), "mni": ("Mtei",), "kab": ("Tfng",), "ks": ("Deva",),
}  # fmt: skip
TOP = 0x32400  # no letter of any script lies above
# ranges that hold one script and nothing else, so that their hundred thousand names need not be read
SOLID = {"Hani": ((0x3400, 0x4DC0), (0x4E00, 0xA000), (0x20000, TOP)), "Hang": ((0xAC00, 0xD7A4),)}


@lru_cache(1)
def _table() -> np.ndarray:
    """uint8[TOP]: 0 for what is no letter, else 1 + the place in SCRIPTS. Vowel signs are letters of their script."""
    table = np.zeros(TOP, np.uint8)
    place = {name: 1 + SCRIPTS.index(code) for name, code in NAMES.items()}
    solid = [(*ends, 1 + SCRIPTS.index(s)) for s, ranges in SOLID.items() for ends in ranges]
    for start, stop, value in solid:
        table[start:stop] = value
    for code in np.flatnonzero(table == 0).tolist():
        char = chr(code)
        kind = unicodedata.category(char)
        if kind not in ("Lu", "Ll", "Lt", "Lo", "Mc", "Mn", "Lm"):
            continue
        words = unicodedata.name(char, "").replace("-", " ").split()
        first = next((w for w in words if w not in WIDE), "")
        # marks and modifiers of no one script ("COMBINING ACUTE ACCENT") are no letters here
        table[code] = place.get(first, 1 if kind in ("Lu", "Ll", "Lt", "Lo") else 0)
    return table


def letters(text: str) -> dict[str, int]:
    """Letters of each script in a text, most frequent first, in units of an alphabet's letter: a Han sign, a kana or a Hangul
    block counts three. Digits, punctuation and emoji count nothing."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    counts = np.bincount(_table()[codes[codes < TOP]], minlength=len(SCRIPTS) + 1)[1:]
    found = {s: int(n) * (3 if s in DENSE else 1) for s, n in zip(SCRIPTS, counts) if n}
    return dict(sorted(found.items(), key=lambda e: -e[1]))


@lru_cache(1024)
def expected(language: str) -> tuple[str, ...]:
    """Scripts of a text in this language as its tag says: `ja` Han and kana, `sr-Latn` Latin, `sr` Cyrillic."""
    script = languages.split(languages.check(language))[1]
    return WHOLE.get(script, (script,))


@lru_cache(1024)
def possible(language: str) -> tuple[str, ...]:
    """Every script that texts in this language come in: for `sr` Cyrillic and Latin."""
    lang = languages.split(languages.check(language))[0]
    return (*expected(language), *(expected(lang) if not lang.startswith("x-") else ()), *OTHER_SCRIPTS.get(lang, ()))


def share(text: str, language: str) -> float | None:
    """Share of a text's letters that are in the language's script; None where there is no letter."""
    found = letters(text)
    total = sum(found.values())
    return sum(found.get(s, 0) for s in expected(language)) / total if total else None
