"""How much of a text says again what it said before, and whether it ends in a loop."""

from __future__ import annotations

import numpy as np

from polygraft.evals.quality import script

TAIL = 4_000  # characters at the end in which a loop is looked for
LONGEST = 500  # characters of the longest unit that loops
TIMES, REPEATED = 4, 40  # a loop: the unit so often, over so many characters
UNSPACED = ("Hani", "Hira", "Kana", "Thai", "Laoo", "Khmr", "Mymr", "Tibt")  # words are not set apart: characters are counted


def units(text: str) -> list[str]:
    """Words of a text, or its characters where most of it is in a script without spaces; case and punctuation kept."""
    counts = script.letters(text)
    unspaced = sum(counts.get(s, 0) for s in UNSPACED)
    return [c for c in text if not c.isspace()] if 2 * unspaced > sum(counts.values()) else text.split()


def duplicates(text: str, n: int = 4) -> tuple[int, int]:
    """(n-grams that occurred before, n-grams) of a text's words or characters: rep-n of Welleck et al. (2020) is their ratio."""
    found = units(text)
    grams = list(zip(*(found[i:] for i in range(n))))
    return len(grams) - len(set(grams)), len(grams)


def loop(text: str) -> tuple[str, float]:
    """The unit that a text's end repeats and how often (the last time perhaps cut); ("", 0) where it does not end in a loop.

    A loop is at least 4 times and 40 characters, and its unit has a letter or a digit: a ruled line is none.
    """
    end = text.rstrip()[-TAIL:]
    if len(end) < REPEATED:
        return "", 0.0
    codes = np.frombuffer(end.encode("utf-32-le", "surrogatepass"), np.uint32)
    for period in _periods(end):
        differ = np.flatnonzero(codes[period:] != codes[:-period])
        run = len(codes) - (int(differ[-1]) + 1 + period if len(differ) else 0)
        length = run if run == len(codes) else run + period
        unit = end[-period:]
        if length >= max(TIMES * period, REPEATED) and any(c.isalnum() for c in unit):
            return unit, length / period
    return "", 0.0


def _periods(end: str) -> list[int]:
    """Candidate lengths of the unit: how far back the last few characters stood before, shortest first."""
    last, at = end[-8:], len(end) - 8
    out: list[int] = []
    while len(out) < 50:
        found = end.rfind(last, max(0, len(end) - 8 - LONGEST), at + 7)
        if found < 0:
            break
        out.append(len(end) - 8 - found)
        at = found
    return out


def copied(text: str, prompt: str, n: int = 4) -> tuple[int, int]:
    """(n-grams of the text that the prompt has, n-grams of the text), of words or characters."""
    a, b = units(text), units(prompt)
    known = set(zip(*(b[i:] for i in range(n))))
    grams = list(zip(*(a[i:] for i in range(n))))
    return sum(g in known for g in grams), len(grams)
