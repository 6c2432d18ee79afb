"""How many examples of each source, and which: by weights or by temperature, deterministic by seed and content."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction

from polygraft.errors import RecipeError, suggestion


def shares(sizes: Mapping[str, int], weights: Mapping[str, float], alpha: float | None) -> dict[str, float]:
    """Each label's share of the mixture, summing to 1: proportional to its weight, or to size ** alpha.

    alpha 1 takes sources as they come, 0 all alike; 0.3 is that of mT5 (Xue et al. 2021, arXiv 2010.11934, 3.1). Raises RecipeError
    for a weight without a source and a source without a weight.
    """
    if unknown := next((w for w in weights if w not in sizes), None):
        raise RecipeError("a weight for data that are not there", where="mix.weights", found=unknown, expected=", ".join(sizes),
                          fix=suggestion(unknown, sizes) or f"add `{unknown}=PATH` to the data, or leave the weight out")
    if weights and (bare := next((s for s in sizes if s not in weights), None)):
        raise RecipeError("data without a weight", where="mix.weights", found=bare, expected="a weight for each label of the data",
                          fix=f"add `{bare}=...`, 0 to leave it out; unlabelled files are named `LABEL=PATH`")
    raw = {s: weights[s] if weights else size ** (1.0 if alpha is None else alpha) for s, size in sizes.items()}
    total = sum(raw.values())
    if not total > 0:
        raise RecipeError("all weights are 0", where="mix.weights", found=", ".join(f"{s}={raw[s]:g}" for s in sizes),
                          expected="a weight above 0", fix="give the labels that are to be drawn a weight")
    return {s: w / total for s, w in raw.items()}


def counts(share: Mapping[str, float], sizes: Mapping[str, int], examples: int | None, repeat: bool) -> dict[str, int]:
    """Examples asked of each label, by largest remainder. Without a number: the most that need no example twice; with `repeat` as
    many as there are in all sources that have a share."""
    if examples is None and repeat:
        examples = sum(n for s, n in sizes.items() if share[s] > 0)
    if examples is None:
        examples = int(min(Fraction(n) / Fraction(share[s]) + Fraction(1, 10**6) for s, n in sizes.items() if share[s] > 0))
    exact = {s: examples * p for s, p in share.items()}
    found = {s: int(x + 1e-9) for s, x in exact.items()}
    for s in sorted(share, key=lambda s: (found[s] - exact[s], s))[: examples - sum(found.values())]:
        found[s] += 1
    return found


def pick(keys: Sequence[bytes], count: int, seed: int, repeat: bool) -> list[int]:
    """Places of `count` of these examples, in order; with `repeat` some come again when there are too few, otherwise all are taken.

    The hash of seed and content decides which: a larger count takes what a smaller one took, and more, and other examples leave the
    order of these alone. Equal examples take turns in the order in which they stand.
    """
    if not keys:
        return []
    whole, rest = divmod(count, len(keys)) if repeat else (int(count >= len(keys)), count if count < len(keys) else 0)
    seen: Counter[bytes] = Counter()
    ranked = []
    for place, key in enumerate(keys):
        ranked.append((hashlib.sha256(b"pick\0%d\0%d\0" % (seed, seen[key]) + key).digest(), place))
        seen[key] += 1
    extra = {place for _, place in sorted(ranked)[:rest]} if rest else set()
    return [place for place in range(len(keys)) for _ in range(whole + (place in extra))]
