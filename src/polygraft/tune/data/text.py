"""The normal form of an example, by which two of them are the same, and the units that n-grams are made of."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping
from typing import Any

TURN = "\x1f"  # between the texts of one example; no folded text holds it
# scripts written without spaces between words: their characters are units by themselves
UNSPACED = ((0x0E00, 0x0EFF), (0x0F00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3005, 0x3007), (0x3040, 0x30FF),
            (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xA9E0, 0xA9FF), (0xAA60, 0xAA7F), (0xF900, 0xFAFF),
            (0x20000, 0x3FFFF))  # fmt: skip

JOINERS = {0x200C, 0x200D, 0x00AD}  # zero-width (non-)joiners and soft hyphens: the word is the same without them


def texts(row: Mapping[str, Any]) -> list[str]:
    """The texts of an example in order, whatever its kind. `row` is one that `check_example` has passed."""
    if "messages" in row:
        return [m["content"] for m in row["messages"]]
    return [row["text"]] if "text" in row else [row["prompt"], row["completion"]]


def size(row: Mapping[str, Any]) -> int:
    """Characters (code points) of an example's texts."""
    return sum(map(len, texts(row)))


def fold(text: str) -> str:
    """NFC, case-folded, every run of white space one space."""
    if text.isascii():
        return " ".join(text.lower().split())
    return " ".join(unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold()).split())


def key(row: Mapping[str, Any]) -> bytes:
    """16 bytes (BLAKE2b) of an example's folded texts: equal for examples that differ in case, white space, normal form or kind."""
    return hashlib.blake2b(TURN.join(map(fold, texts(row))).encode("utf-8", "surrogatepass"), digest_size=16).digest()


class _Units(dict):
    """What each character becomes: itself, a space (punctuation, symbols), or itself between spaces (scripts without any)."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        if code in JOINERS:
            found = ""
        elif unicodedata.category(char)[0] not in "LMN":
            found = " "
        else:
            found = f" {char} " if any(low <= code <= high for low, high in UNSPACED) else char
        self[code] = found
        return found


_UNITS = _Units()


def units(text: str) -> list[str]:
    """The words of a text, folded and without punctuation; in scripts that write no spaces, its characters."""
    return fold(text).translate(_UNITS).split()
