"""The rules: from figures of change, layer by layer (or attention and FFN apart), to what goes to which expert. Pure functions.

relative   arXiv 2601.22620 (Shin and Hwang): relative Frobenius norms as shares p_e of each expert's total; d = p_L - p_T;
           d > tau: the language expert's, d < -tau: the task expert's, else a blend. tau is of the mean share here (ours): the
           published 0.001 at 32 layers is 0.032 of 1/32, and 0.032 means the same at 64 modules.
sign       ours: where the two changes have opposite signs as often as unrelated changes have (half of the entries), one of them has
           to be chosen, the one of larger share p_e (beyond relative's tau); where they agree more often, both are wanted: a blend.
cosine     after arXiv 2605.26735 (updates aligned in the middle, divergent outside): below the mean cosine the language expert's,
           above it the task expert's, and a blend within `tau` standard deviations, or within what chance alone does.
evenness   evidence of another kind (language neurons, deviation over languages) as shares of its total: over 1/L the language
           expert's, under it the task expert's (ours).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from polygraft.choose.auto.units import Units
from polygraft.errors import InputError

Rule = Literal["relative", "sign", "cosine", "neurons", "deviation"]
WEIGHTS: tuple[Rule, ...] = ("relative", "sign", "cosine")  # rules that ask the weights and nothing else
PUBLISHED_TAU, PUBLISHED_UNITS, PUBLISHED_FLOOR = 0.001, 32, 1e-8
TAU: dict[Rule, float] = {"relative": PUBLISHED_TAU * PUBLISHED_UNITS, "sign": 0.1, "cosine": 0.5,
                          "neurons": PUBLISHED_TAU * PUBLISHED_UNITS, "deviation": PUBLISHED_TAU * PUBLISHED_UNITS}  # fmt: skip
CHANCE = 0.5  # opposite signs of two unrelated changes
SIGMAS = 3.0  # the cosine of unrelated vectors of n entries has a standard deviation of 1/sqrt(n)


@dataclass(frozen=True)
class Judged:
    """What a rule says of every unit, float64 [layers, columns]. `score` > 0 speaks for the language expert, < 0 for the task's;
    within `band` of 0 (the same shape, >= 0) neither. `curves`: figures by name, [layers, columns], NaN where not defined."""

    rule: Rule
    tau: float
    columns: tuple[str, ...]
    score: np.ndarray
    band: np.ndarray
    curves: dict[str, np.ndarray]
    why: tuple[str, ...]

    @property
    def side(self) -> np.ndarray:
        """int8 [layers, columns]: 1 the language expert's, -1 the task expert's, 0 a blend."""
        return np.where(self.score > self.band, 1, np.where(self.score < -self.band, -1, 0)).astype(np.int8)

    @property
    def pull(self) -> np.ndarray:
        """The score with what lies within the band taken away: 0 where neither side is meant."""
        return np.sign(self.score) * np.maximum(np.abs(self.score) - self.band, 0.0)


def shares(size: np.ndarray, floor: float = 0.0) -> np.ndarray:
    """p_e: each expert's changes [experts, ...] over their sum (plus the published 1e-8 where that is asked for)."""
    return size / (size.sum(axis=tuple(range(1, size.ndim)), keepdims=True) + floor)


def relative(units: Units, tau: float, absolute: float | None = None) -> Judged:
    """The published rule; `absolute` is its own threshold on d, in place of `tau`, which is of the mean share."""
    p = shares(units.size, PUBLISHED_FLOOR if absolute is not None else 0.0)
    d, n = p[1] - p[0], p[0].size
    band = absolute if absolute is not None else tau / n
    said = f"{absolute:g}, as published" if absolute is not None else f"{tau:g} of the mean share, 1/{n}: {band:.3g}"
    why = (f"Each expert's change is taken as a share of its own total, so a longer or stronger training has no more say; "
           f"the difference of the shares decides beyond {said}.",)  # fmt: skip
    return Judged("relative", tau if absolute is None else absolute * n, units.columns, d, np.full_like(d, band),
                  {"language": p[1] * n, "task": p[0] * n, "difference": d * n}, why)


def sign(units: Units, tau: float) -> Judged:
    """Where signs conflict, the expert of larger relative change; where they agree more than chance by a share `tau`, a blend."""
    p = shares(units.size)
    d, bar = (p[1] - p[0]) * p[0].size, CHANCE * (1.0 - tau)
    agree = np.nan_to_num(units.conflict, nan=1.0) < bar
    why = (f"Opposite signs in under {bar:.0%} of the entries that both changed (chance: {CHANCE:.0%}) mean that both pull the "
           f"same way, so {_count(agree)} blended; elsewhere the expert of the larger relative change is taken.",)  # fmt: skip
    return Judged("sign", tau, units.columns, np.where(agree, 0.0, d), np.full_like(d, TAU["relative"]),
                  {"opposite signs": units.conflict, "chance": np.full_like(d, CHANCE)}, why)


def cosine(units: Units, tau: float) -> Judged:
    """Divergent changes to the language expert, aligned ones to the task expert; a unit that one alone changed is that one's."""
    known = np.isfinite(units.cosine)
    values = units.cosine[known]
    mean, spread = (float(values.mean()), float(values.std())) if values.size else (0.0, 0.0)
    noise = SIGMAS / np.sqrt(np.maximum(units.entries, 1.0))
    alone = np.sign(units.size[1]) - np.sign(units.size[0])
    score = np.where(known, mean - np.nan_to_num(units.cosine), 2.0 * alone)
    band = np.where(known, np.maximum(tau * spread, noise), 0.0)
    why = (f"The changes' cosine is {mean:.3f} on average (standard deviation {spread:.3f}): where they diverge more, the "
           f"layers are taken to be the language's, where they agree more, the task's; within {tau:g} standard deviations, or "
           f"within {SIGMAS:g}/sqrt(entries), which unrelated changes reach, neither.",)  # fmt: skip
    return Judged("cosine", tau, units.columns, score, band,
                  {"cosine": units.cosine, "mean": np.full_like(score, mean)}, why)


def evenness(rule: Rule, values: np.ndarray, tau: float, what: str) -> Judged:
    """Evidence float64 [layers] >= 0, of which a layer that has more than its even share is the language's. Raises InputError."""
    total = float(values.sum())
    if not np.isfinite(values).all() or (values < 0).any() or total <= 0:
        found = "nothing in any layer" if total == 0 else f"a sum of {total}"
        raise InputError("the evidence names no layer", where=what, found=found,
                         expected="neurons or a deviation in some layers", fix="make it again, with a setting that finds something")
    p = (values / total)[:, None]
    n = len(p)
    why = (f"Evidence: {what}. A layer with more than its even share 1/{n} of it (beyond {tau:g} of that) is the language's, one "
           f"with less the task's.",)  # fmt: skip
    return Judged(rule, tau, ("layer",), p - 1.0 / n, np.full_like(p, tau / n), {"evidence": p * n, "even": np.ones_like(p)}, why)


BY_WEIGHTS: dict[Rule, Callable[[Units, float], Judged]] = {"relative": relative, "sign": sign, "cosine": cosine}


def _count(mask: np.ndarray) -> str:
    return f"{int(mask.sum())} of {mask.size} are"
