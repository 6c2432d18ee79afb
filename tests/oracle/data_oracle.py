"""Duplicates, leaks and shares of a mixture from their definitions, on lists of units, with nothing clever."""

from __future__ import annotations


def runs(units: list[str], n: int) -> set[tuple[str, ...]]:
    """All n-grams; of a shorter text the whole; of an empty one nothing."""
    if not units:
        return set()
    return {tuple(units[i : i + n]) for i in range(max(1, len(units) - n + 1))}


def near(texts: list[list[str]], threshold: float, n: int) -> list[int | None]:
    found: list[int | None] = []
    for i, mine in enumerate(texts):
        like = None
        for j in (j for j in range(i) if found[j] is None):
            a, b = runs(mine, n), runs(texts[j], n)
            if a and b and len(a & b) / len(a | b) >= threshold:
                like = j
                break
        found.append(like)
    return found


def leaks(rows: list[list[str]], items: list[list[str]], n: int, share: float, least: int) -> list[tuple[int, int]]:
    out = []
    for r, row in enumerate(rows):
        for i, item in enumerate(items):
            k = min(n, len(item))
            need = runs(item, k) if k >= least else set()
            have = {tuple(row[p : p + k]) for p in range(len(row) - k + 1)}
            if need and len(need & have) >= share * len(need):
                out.append((r, i))
    return out
