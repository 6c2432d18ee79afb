"""Continued BPE from its definition: count every pair again after every merge."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise


def continued(words: list[tuple[list[int], int]], contents: dict[int, bytes], merges: list[tuple[int, int, int]], size: int,
              first: int, min_count: int) -> tuple[list[tuple[int, int, int]], list[list[int]]]:  # fmt: skip
    """(left, right, token) in order, and the words as they are cut in the end. A symbol of -1 merges with nothing."""
    contents, known, found, cuts = dict(contents), {(a, b): c for a, b, c in merges}, [], [list(ids) for ids, _ in words]

    def apply(a: int, b: int, c: int) -> None:
        for cut in cuts:
            i = 0
            while i < len(cut) - 1:
                if (cut[i], cut[i + 1]) == (a, b):
                    cut[i : i + 2] = [c]
                i += 1

    while True:
        pairs = Counter()
        for cut, (_, n) in zip(cuts, words, strict=True):
            for a, b in pairwise(cut):
                if -1 not in (a, b):
                    pairs[a, b] += n
        if again := [p for p in known if p in pairs]:
            apply(*again[0], known[again[0]])
            continue
        ranked = sorted(pairs, key=lambda p: (-pairs[p], len(contents[p[0]] + contents[p[1]]), contents[p[0]] + contents[p[1]], p))
        if not ranked or pairs[ranked[0]] < min_count or len(contents) == first + size:
            return found, cuts
        (a, b), content = ranked[0], contents[ranked[0][0]] + contents[ranked[0][1]]
        token = next((i for i, x in contents.items() if x == content), None)
        if token is None:
            token = len(contents)
            contents[token] = content
        known[a, b] = token
        found.append((a, b, token))
        apply(a, b, token)
