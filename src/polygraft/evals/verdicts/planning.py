"""What so many items can show, before they are asked: the smallest true difference that is found four times of five."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import NormalDist

import numpy as np

from polygraft.stats import z_value

DISCORDANT = 0.25  # share of items that exactly one of two related models gets right: 0.1 to 0.4 where models are of one size
POWER = 0.8
FEW = 10  # fewer items than this show nothing that a formula for many could tell


def factor(alpha: float = 0.05, power: float = POWER) -> float:
    """A true difference of so many standard errors is found with this power at a two-sided level of alpha: 2.80."""
    return z_value(1 - alpha) + NormalDist().inv_cdf(power)


DETECTABLE = factor()


def detectable(spread: float, n: int, *, alpha: float = 0.05, power: float = POWER) -> float:
    """The smallest mean difference that n paired items show with this power: (z_a + z_b) * spread / sqrt(n).

    `spread` is the standard deviation of the paired differences. Infinite when there is no item.
    """
    return factor(alpha, power) * spread / float(np.sqrt(n)) if n else float("inf")


def spread(a: np.ndarray, b: np.ndarray) -> float:
    """The standard deviation of right-or-wrong differences b - a [n], with one discordant pair each way added: where two models
    happen to agree on a few items, that is no proof that they always do."""
    n = len(a)
    share, shift = (float(np.sum(a != b)) + 2) / (n + 2), float(np.sum(b) - np.sum(a)) / (n + 2)
    return float(np.sqrt(max(share - shift * shift, 0.0)))


def detectable_points(n: int, discordant: float = DISCORDANT, comparisons: int = 1) -> float:
    """The accuracy difference, in points, that n paired items show with a power of 80 %: about 9 with 250 items.

    `discordant` is the share of items that exactly one of the two models gets right; `comparisons` tightens the level as the first
    step of Holm's method does. At most 100 points; raises ValueError for a share outside 0..1.
    """
    if not 0 <= discordant <= 1:
        raise ValueError(f"a share of discordant items of {discordant}")
    return min(100.0, 100 * detectable(float(np.sqrt(discordant)), n, alpha=0.05 / max(1, comparisons)))


def seen(n: int, binary: Iterable[bool]) -> str:
    """The sentence where it holds: for a score of right and wrong answers over enough items for the approximation; else ""."""
    return sentence(n) if n >= FEW and any(binary) else ""


def sentence(n: int, comparisons: int = 1) -> str:
    """`with 250 items you can see a difference of about 9 points`, for a plan."""
    return f"with {n:,} items you can see a difference of about {detectable_points(n, comparisons=comparisons):.2g} points"
