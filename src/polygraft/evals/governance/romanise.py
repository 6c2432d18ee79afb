"""Other scripts in Latin letters as people type them: by no standard, and good enough to ask "does it still understand?".

Cyrillic and Greek by letter, Hangul by its parts (after the Revised Romanization), the scripts of India by the layout that their
Unicode blocks share, with the inherent vowel. Han and kana, Thai, Arabic and Hebrew need a dictionary and are not here.
"""

from __future__ import annotations

import unicodedata


def _split(said: str) -> list[str]:
    return said.split()


CYRILLIC = dict(zip(
    "абвгдеёжзийклмнопрстуфхцчшщъыьэюяіїєґўјљњћђџѓќѕ",
    _split("a b v g d e yo zh z i y k l m n o p r s t u f kh ts ch sh shch _ y _ e yu ya i yi ye g u j lj nj c dj dz gj kj dz")))
GREEK = dict(zip("αβγδεζηθικλμνξοπρσςτυφχψω", _split("a v g d e z i th i k l m n x o p r s s t y f ch ps o")))
LEADS = _split("g kk n d tt r m b pp s ss _ j jj ch k t p h")
VOWELS = _split("a ae ya yae eo e yeo ye o wa wae oe yo u wo we wi yu eu ui i")
TAILS = _split("_ k k k n n n t l k m l l l p l m p p t t ng t t k t p t")
BLOCKS = {"hi": 0x900, "mr": 0x900, "ne": 0x900, "bn": 0x980, "pa": 0xA00, "gu": 0xA80, "or": 0xB00, "ta": 0xB80, "te": 0xC00,
          "kn": 0xC80, "ml": 0xD00}  # fmt: skip
SILENT_END = ("hi", "mr", "ne", "bn", "pa", "gu")  # the inherent vowel at the end of a word is not said
INDEPENDENT = dict(zip(range(0x05, 0x15), _split("a aa i ee u oo ri li e e e ai o o o au")))
CONSONANTS = dict(zip(range(0x15, 0x3A), _split(
    "k kh g gh ng ch chh j jh ny t th d dh n t th d dh n n p ph b bh m y r r l l zh v sh sh s h")))
SIGNS = dict(zip(range(0x3E, 0x4D), _split("aa i ee u oo ri ri e e e ai o o o au")))
MARKS = {0x01: "n", 0x02: "n", 0x03: "h", 0x70: "n"}
VIRAMA, NUKTA = 0x4D, 0x3C
LETTERWISE = {**dict.fromkeys(("ru", "uk", "be", "bg", "sr", "mk"), CYRILLIC), "el": GREEK}
LANGUAGES = (*LETTERWISE, *BLOCKS, "ko")


def romanise(text: str, language: str) -> str:
    """A text in Latin letters. The language is one of LANGUAGES."""
    if language in LETTERWISE:
        return _letters(text, LETTERWISE[language])
    text = unicodedata.normalize("NFC", text)
    return _hangul(text) if language == "ko" else _indic(text.replace("\u200c", "").replace("\u200d", ""), language)


def _letters(text: str, table: dict[str, str]) -> str:
    out = []
    for char in unicodedata.normalize("NFC", text):
        plain = char.lower() if char.lower() in table else unicodedata.normalize("NFD", char.lower())[0]
        said = table.get(plain, char).replace("_", "")
        out.append(said.capitalize() if char.isupper() and plain in table else said)
    return "".join(out)


def _hangul(text: str) -> str:
    out = []
    for char in text:
        n = ord(char) - 0xAC00
        out.append((LEADS[n // 588] + VOWELS[n // 28 % 21] + TAILS[n % 28]).replace("_", "") if 0 <= n < 11172 else char)
    return "".join(out)


def _indic(text: str, language: str) -> str:
    base, out, open_vowel = BLOCKS[language], [], False  # open_vowel: a consonant waits for its vowel
    for char in text:
        n = ord(char) - base
        if n == NUKTA:
            continue
        if n in SIGNS or n == VIRAMA:
            out.append(SIGNS.get(n, ""))
        else:
            if open_vowel and not (language in SILENT_END and not 0 <= n < 0x80):
                out.append("a")
            out.append(CONSONANTS.get(n) or INDEPENDENT.get(n) or MARKS.get(n) or (str(n - 0x66) if 0x66 <= n < 0x70 else char))
        open_vowel = n in CONSONANTS
    return "".join(out) + ("a" if open_vowel and language not in SILENT_END else "")
