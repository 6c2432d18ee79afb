"""From a deviation per layer to a set of layers: three rules, each with its reasons, and a refusal where nothing can be chosen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from polygraft.errors import InputError, RecipeError

Rule = Literal["top", "above", "block"]
Within = Literal["lower", "all"]
RULES: tuple[Rule, ...] = ("top", "above", "block")
TOP = 6  # SLAM tunes six layers
LEAST = 2.0  # languages are told apart where the deviation is this many times what noise alone would give


@dataclass(frozen=True)
class Choice:
    """The layers that a rule takes, in order, and why, in one sentence with the numbers."""

    rule: Rule
    layers: tuple[int, ...]
    why: str


def candidates(layers: int, within: Within) -> int:
    """How many layers, from the lowest, a rule may take: all, or the lower half (at least one)."""
    return layers if within == "all" else max(1, layers // 2)


def count(n: int | None, layers: int, within: Within) -> int:
    """How many layers "top" takes: `n`, else six or as many as there are. Raises RecipeError when there are fewer than `n`."""
    most = candidates(layers, within)
    if n is not None and n > most:
        raise RecipeError("more layers are asked for than may be chosen", where="top", found=n,
                          expected=f"1 to {most}: {_range(most, layers)} of a model of {layers} layers",
                          fix="ask for fewer, or set within: all")  # fmt: skip
    return min(TOP, most) if n is None else n


def top_mask(msd: np.ndarray, n: int, most: int) -> np.ndarray:
    """bool [..., layers]: the n largest of the first `most`; of equals the lower layer."""
    order = np.argsort(-msd[..., :most], axis=-1, kind="stable")[..., :n]
    mask = np.zeros(msd.shape, bool)
    np.put_along_axis(mask, order, True, -1)
    return mask


def above_mask(msd: np.ndarray, c: float, most: int) -> np.ndarray:
    """bool [..., layers]: those of the first `most` over their mean + c standard deviations (of all of them, ddof 0)."""
    part = msd[..., :most]
    mask = np.zeros(msd.shape, bool)
    mask[..., :most] = part > part.mean(-1, keepdims=True) + c * part.std(-1, keepdims=True)
    return mask


def block_mask(msd: np.ndarray, most: int) -> np.ndarray:
    """bool [..., layers]: the lowest run of neighbours over the mean of the first `most`, as long as it goes."""
    over = above_mask(msd, 0.0, most)
    started = np.cumsum(over, -1) > 0
    ended = np.cumsum(started & ~over, -1) > 0
    return over & ~ended


def mask(rule: Rule, msd: np.ndarray, *, n: int, c: float, within: Within) -> np.ndarray:
    """bool [..., layers]: what a rule takes by deviations [..., layers]."""
    most = candidates(msd.shape[-1], within)
    return top_mask(msd, n, most) if rule == "top" else above_mask(msd, c, most) if rule == "above" else block_mask(msd, most)


def choose(rule: Rule, msd: np.ndarray, *, n: int, c: float, within: Within) -> Choice:
    """What one rule takes by deviations [layers], which may be nothing, and why."""
    layers = tuple(int(i) for i in np.flatnonzero(mask(rule, msd, n=n, c=c, within=within)))
    most = candidates(len(msd), within)
    among, part = _range(most, len(msd)), msd[:most]
    if rule == "top":
        why = f"the {len(layers)} largest deviations of {among}: {_values(msd, layers)}"
        if left := [i for i in range(most) if i not in layers]:
            why += f"; the next is {_values(msd, [max(left, key=lambda i: (msd[i], -i))])}"
    else:
        limit = part.mean() + (c * part.std() if rule == "above" else 0.0)
        name = f"mean + {c:g} standard deviations" if rule == "above" else "the mean"
        run = "" if rule == "above" else "the lowest unbroken run of "
        why = f"{run}layers over {limit:.3g} ({name} of {among}): {_values(msd, layers) or 'none'}"
    return Choice(rule, layers, why + _elsewhere(msd, most))


def refuse_noise(msd: np.ndarray, noise: np.ndarray | None, where: object) -> None:
    """Raise InputError where no layer tells the languages apart: all deviations 0, or none LEAST times the noise."""
    if not msd.any():
        raise InputError("no layer tells the languages apart, so none can be chosen", where=where,
                         found="a deviation of 0 in every layer", expected="texts in different languages",
                         fix="check that every corpus is in the language that it is said to be in")  # fmt: skip
    if noise is not None and not (msd > LEAST * noise).any():
        best = int(np.argmax(msd - LEAST * noise))
        raise InputError("no layer tells the languages apart more than other documents would, so none can be chosen",
                         where=where, found=f"{msd[best]:.3g} in layer {best}, where documents alone give {noise[best]:.3g}",
                         expected=f"{LEAST:g} times that in some layer",
                         fix="read more text, or languages that differ more")  # fmt: skip


def refuse_empty(choice: Choice) -> None:
    """Raise InputError where a rule takes no layer."""
    if not choice.layers:
        raise InputError("the rule takes no layer", where=f"rule {choice.rule}", found=choice.why,
                         fix="lower `spread`, or take rule: top")  # fmt: skip


def random_sets(chosen: Sequence[int], layers: int, count: int, seed: int) -> list[tuple[int, ...]]:
    """`count` different sets of as many layers as `chosen`, drawn from all layers, and none of them `chosen` itself.

    Fewer where there are no more; `chosen` alone where it holds all layers.
    """
    count = min(count, max(1, math.comb(layers, len(chosen)) - 1))
    rng = np.random.default_rng([seed, layers, len(chosen)])
    found: list[tuple[int, ...]] = []
    while len(found) < count:
        drawn = tuple(sorted(int(i) for i in rng.choice(layers, len(chosen), replace=False)))
        if (drawn != tuple(chosen) and drawn not in found) or len(chosen) == layers:
            found.append(drawn)
    return found


def _values(msd: np.ndarray, layers: Sequence[int]) -> str:
    return ", ".join(f"{i} ({msd[i]:.3g})" for i in layers)


def _range(most: int, layers: int) -> str:
    return "all layers" if most == layers else f"layers 0 to {most - 1}" if most > 1 else "layer 0"


def _elsewhere(msd: np.ndarray, most: int) -> str:
    """Says so where the largest deviation lies above the layers that may be chosen."""
    peak = int(np.argmax(msd))
    return f"; the largest of all is layer {peak} ({msd[peak]:.3g}), which lies above them" if peak >= most else ""
