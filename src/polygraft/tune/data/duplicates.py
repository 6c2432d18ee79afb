"""Examples that are there already: the same but for case, white space and normal form, or nearly the same.

Near duplicates are found exactly, not by chance: all pairs whose sets of n-grams have a Jaccard similarity of at least `t`, by
prefix filtering (Bayardo, Ma & Srikant 2007; Chaudhuri et al. 2006): two sets that are so alike share one of the rarest
|x| - ceil(t |x|) + 1 members of each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from polygraft.tune.data.ngrams import Grams, distinct, grams

SHINGLE = 5  # units in an n-gram
ALIKE = 0.8  # Jaccard similarity of near duplicates (Lee et al. 2022, arXiv 2107.06499)


def exact(keys: Sequence[bytes]) -> list[int | None]:
    """For each example the earlier one with the same key, or None."""
    first: dict[bytes, int] = {}
    return [None if (at := first.setdefault(key, i)) == i else at for i, key in enumerate(keys)]


def near(texts: Sequence[Sequence[str]], threshold: float = ALIKE, n: int = SHINGLE) -> list[int | None]:
    """For each text, given as units, the first kept one before it whose n-grams have at least this Jaccard similarity, or None.

    What has been found a duplicate is not kept, so nothing is compared with it. Texts without units are duplicates of nothing.
    """
    sets = by_rarity(distinct(grams(texts, n)))
    members = [sets.hashes[a:b].tolist() for a, b in zip(sets.starts[:-1], sets.starts[1:])]
    index: dict[int, list[int]] = {}
    found: list[int | None] = []
    for i, mine in enumerate(members):
        prefix = mine[: len(mine) - math.ceil(threshold * len(mine) - 1e-9) + 1] if mine else []
        like = _like(i, prefix, members, index, threshold)
        found.append(like)
        if like is None:
            for gram in prefix:
                index.setdefault(gram, []).append(i)
    return found


def _like(i: int, prefix: Sequence[int], members: Sequence[list[int]], index: dict[int, list[int]], threshold: float) -> int | None:
    """The first indexed set that is like the i-th."""
    mine = members[i]
    near_in_size = {j for gram in prefix for j in index.get(gram, ())
                    if threshold * max(len(mine), len(members[j])) <= min(len(mine), len(members[j])) + 1e-9}
    if not near_in_size:
        return None
    have = set(mine)
    return next((j for j in sorted(near_in_size) if jaccard(have, members[j]) >= threshold - 1e-12), None)


def jaccard(a: set[int], b: Sequence[int]) -> float:
    """Members in both over members in either; `b` has none twice."""
    both = sum(map(a.__contains__, b))
    return both / (len(a) + len(b) - both)


def by_rarity(found: Grams) -> Grams:
    """The same sets, their members as ranks (uint64) from the rarest in all texts to the most common, each set sorted by them."""
    values, place, count = np.unique(found.hashes, return_inverse=True, return_counts=True)
    ranks = np.empty(len(values), np.uint64)
    ranks[np.lexsort((values, count))] = np.arange(len(values), dtype=np.uint64)
    mine, owners = ranks[place], found.owners
    return Grams(mine[np.lexsort((mine, owners))], found.starts)
