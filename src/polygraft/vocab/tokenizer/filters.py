"""What a new token may be made of: letters of some scripts, so many digits, so many characters. (Ours.)"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from functools import cache

from polygraft.errors import RecipeError, suggestion
from polygraft.tokenfile import BYTE, Vocabulary
from polygraft.vocab.scripts import script_of

Filter = Callable[[bytes], bool]
PLANES = 0x20000  # code points; beyond these two planes there are only more ideographs


def allowed(vocabulary: Vocabulary, *, scripts: Iterable[str] = (), digits: int, joined: bool, longest: int) -> Filter:
    """Whether these bytes may be a new token of `vocabulary`.

    `scripts`: made of letters of these and of spaces, nothing else. `digits`: at most so many in a row; not `joined`: a digit
    stands with digits only. `longest`: characters. Never what an added token says already: it would be read as that.
    """
    taken = {entry["content"].encode() for entry in vocabulary.added.values()}
    wanted = frozenset(scripts)

    def judged(content: bytes) -> bool:
        if content in taken or vocabulary.write_of(content) in vocabulary.by_name:
            return False
        text, start, ends = whole(content)
        if len(text) + bool(ends) > longest or not fits(text, digits, joined):
            return False
        return not wanted or (all(within(c, wanted) for c in text) and all(begins(e, wanted) for e in ends)
                              and (not start or goes_on(start, bool(text or ends), wanted)))

    return judged


def whole(content: bytes) -> tuple[str, bytes, tuple[bytes, ...]]:
    """The characters of a token; what comes before them of a character whose beginning is missing; and of one whose end is."""
    start = next((i for i, b in enumerate(content) if b & 0xC0 != 0x80), len(content))
    end = next((i for i in range(len(content) - 1, max(start, len(content) - 4) - 1, -1) if content[i] & 0xC0 != 0x80), start)
    try:
        content[end:].decode()
        end = len(content)
    except UnicodeDecodeError:
        pass
    text = content[start:end].decode("utf-8", "ignore")
    return text, content[:start], (content[end:],) if end < len(content) else ()


def fits(text: str, digits: int, joined: bool) -> bool:
    run = most = 0
    for c in text:
        run = run + 1 if c.isdecimal() else 0
        most = max(most, run)
    return most <= digits and (joined or not most or text.isdecimal())


def within(character: str, scripts: frozenset[str]) -> bool:
    return character == " " or script_of(character, marks=True) in scripts


@cache
def begins(part: bytes, scripts: frozenset[str]) -> bool:
    """Whether a letter of these scripts begins with these bytes of UTF-8."""
    size = 4 if part[0] >= 0xF0 else 3 if part[0] >= 0xE0 else 2
    if not 0xC2 <= part[0] <= 0xF4 or len(part) >= size:
        return False
    low, high = (part.ljust(size, bytes([b])) for b in (0x80, 0xBF))
    return any(script_of(chr(c), marks=True) in scripts for c in range(_code(low), min(_code(high), 0x10FFFF) + 1))


@cache
def goes_on(part: bytes, ended: bool, scripts: frozenset[str]) -> bool:
    """Whether a letter of these scripts goes on with these bytes of UTF-8 after its first one; `ended`: and ends with them."""
    return part in _inner(scripts)[ended]


@cache
def _inner(scripts: frozenset[str]) -> tuple[frozenset[bytes], frozenset[bytes]]:
    """What stands after the first byte of any letter of these scripts: runs of bytes, and those that end it."""
    every = (chr(c).encode() for c in range(0x80, PLANES) if script_of(chr(c), marks=True) in scripts)
    runs, tails = set[bytes](), set[bytes]()
    for e in every:
        tails.update(e[i:] for i in range(1, len(e)))
        runs.update(e[i:j] for i in range(1, len(e)) for j in range(i + 1, len(e) + 1))
    return frozenset(runs), frozenset(tails)


def _code(encoded: bytes) -> int:
    """The code point of a character in UTF-8, whether it may be written or not (E0 80 80)."""
    value = encoded[0] & (0x3F >> (len(encoded) - 1))
    for b in encoded[1:]:
        value = value << 6 | b & 0x3F
    return value


@cache
def scripts_known() -> frozenset[str]:
    """Every script that has a letter, by the names of `script_of`."""
    return frozenset(unicodedata.name(chr(c), "").partition(" ")[0] for c in range(PLANES) if chr(c).isalpha())


def check_script(name: str) -> str:
    """A script's name as `script_of` has it. Raises RecipeError for one that no letter has."""
    if (found := name.strip().upper()) not in scripts_known():
        raise RecipeError("no such script", where="script", found=name, expected="the first word of its letters' Unicode names",
                          fix=suggestion(found, scripts_known() if found else ("LATIN", "CYRILLIC")))
    return found


def joins_digits(vocabulary: Vocabulary) -> bool:
    """Whether any token of the model's own has a digit beside something else (`v2`, ` 1`)."""
    texts = (vocabulary.bytes_of(t).decode("utf-8", "ignore") for t, i in vocabulary.ids.items()
             if i not in vocabulary.added and not (vocabulary.falls_back and BYTE.fullmatch(t)))
    return any(any(c.isdecimal() for c in text) and not text.isdecimal() for text in texts)
