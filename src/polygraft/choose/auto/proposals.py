"""From what a rule says of every unit to a profile: each unit as it is judged, or the best window of bottom and top layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal

import numpy as np

from polygraft.anatomy import Anatomy
from polygraft.choose.auto.fitting import Fit, best_window
from polygraft.choose.auto.rules import Judged
from polygraft.choose.auto.units import MODULES, norm_owner
from polygraft.choose.candidates import Candidate, columns, custom, mix
from polygraft.errors import InputError
from polygraft.merge.makers import group, policies
from polygraft.merge.zones import zones
from polygraft.result import Curve

Shape = Literal["free", "window"]
SAID = {"attn": "Attention", "ffn": "FFN"}
Policies = Mapping[str, Any]  # embed, norm, head: the sources of what is outside the layers


@dataclass(frozen=True)
class Proposal:
    """A candidate with its reasons. `grid`: float64 [layers, 2], the language expert's share of attention and of FFN."""

    name: str
    rule: str
    shape: Shape
    candidate: Candidate
    reasons: tuple[str, ...]
    curves: tuple[Curve, ...]
    grid: np.ndarray


def propose(
    anatomy: Anatomy, names: Sequence[str], judged: Judged, shape: Shape, *, alpha: float = 0.5, policy: Policies | None = None
) -> Proposal:
    """The rule's proposal; `alpha` is the language expert's share of a blend. `names`: task, language and maybe base.

    Raises InputError where a window is asked for and the rule's scores are 0 in every layer.
    """
    if shape == "free":
        grid = np.where(judged.side > 0, 1.0, np.where(judged.side < 0, 0.0, alpha))
        told: tuple[str, ...] = ()
        made: dict[str, Any] = {}
    else:
        fits = [_fit(judged, i) for i in range(len(judged.columns))]
        grid = np.stack([window_grid(anatomy.layers, f, alpha) for f in fits], axis=1)
        told = tuple(_fitted(f, c if len(fits) > 1 else "", anatomy.layers) for f, c in zip(fits, judged.columns))
        made = {c: {"bottom": f.bottom, "top": f.top, "transition": f.transition} for f, c in zip(fits, judged.columns)}
    by_part = len(judged.columns) > 1
    where = tuple(line for i, c in enumerate(judged.columns) for line in _sides(grid[:, i], names, c if by_part else "", alpha))
    both = grid if by_part else np.repeat(grid, 2, axis=1)
    params = {"rule": judged.rule, "tau": judged.tau, "by": "part" if by_part else "layer", "shape": shape, "alpha": alpha, **made}
    name = judged.rule + (", window" if shape == "window" else "")
    candidate = profile(anatomy, names, both, name=name, alpha=alpha, policy=policy or {}, params=params)
    return Proposal(name, judged.rule, shape, candidate, (*judged.why, *told, *where), (curve(judged),), both)


def _fit(judged: Judged, column: int) -> Fit:
    found = best_window(judged.pull[:, column])
    if found is None:
        raise InputError("the rule finds no layer that is one expert's more than the other's, so no window is better than another",
                         where=f"rule {judged.rule}", fix="lower tau, use another rule, or `polygraft merge swap` with its default")
    return found


def window_grid(layers: int, fit: Fit, alpha: float) -> np.ndarray:
    """float64 [layers]: the language expert's share of each layer of a window."""
    z = zones(layers, bottom=fit.bottom, top=fit.top, transition=fit.transition)
    share = {"swapped": 1.0, "transition": alpha, "task": 0.0}
    return np.array([share[z.zone(i)] for i in range(layers)])


def profile(
    anatomy: Anatomy,
    names: Sequence[str],
    grid: np.ndarray,
    *,
    name: str,
    alpha: float,
    policy: Policies,
    params: Mapping[str, Any],
) -> Candidate:
    """The candidate of these shares, float64 [layers, 2]. A module's norms go with it; one norm for both takes their mean share.

    Outside the layers a mean is `alpha` of the language expert, too, as published.
    """
    by = {kind: [float(x) for x in grid[:, i]] for i, kind in enumerate(MODULES)}
    made = custom(anatomy, names, {**by, "norm": [float(x) for x in grid.mean(axis=1)]}, name=name, **policy)
    rules = policies(anatomy.tied, policy.get("embed"), policy.get("norm"), policy.get("head"))
    weights = dict(made.profile.weights)
    for key, part in anatomy.parts.items():
        if part.layer is None and rules.get(group(part) or "") == "mean":
            weights[key] = mix(len(names), alpha)
        elif part.layer is not None and part.kind == "norm":
            own = {"attn": grid[part.layer, 0], "ffn": grid[part.layer, 1], "both": grid[part.layer].mean()}
            weights[key] = mix(len(names), float(own[norm_owner(anatomy, key)]))
    said = {**params, "layers": by, **rules}
    return Candidate(name, replace(made.profile, name="auto", weights=weights, params=said), {**made.params, **said})


def grid_of(anatomy: Anatomy, candidate: Candidate, language: int = 1) -> np.ndarray:
    """float64 [layers, 2]: what attention and FFN of any candidate take of the language expert, the profile's source `language`."""
    found = columns(anatomy, candidate.profile)
    return np.array([[column[kind][language] if kind in column else 0.0 for kind in MODULES] for column in found])


# ------------------------------------------------------------------------------------------------------------------ words


def curve(judged: Judged) -> Curve:
    """The figures that the rule judged, layers across."""
    many = len(judged.columns) > 1
    series = {f"{c} {name}" if many else name: tuple(float(v) if np.isfinite(v) else None for v in values[:, i])
              for name, values in judged.curves.items() for i, c in enumerate(judged.columns)}  # fmt: skip
    title, label, note = {
        "relative": ("Share of each expert's change", "share over the mean share", "Difference: language less task."),
        "sign": ("Opposite signs of the two changes", "share of the entries that both changed", ""),
        "cosine": ("Cosine of the two changes", "cosine", ""),
    }.get(judged.rule, ("Evidence per layer", "share over the even share", ""))
    return Curve(title, tuple(float(i) for i in range(len(judged.score))), series, "layer", label, note)


def _fitted(fit: Fit, column: str, layers: int) -> str:
    head = f"{SAID[column]}: " if column else ""
    if fit.bottom + fit.top == 0:
        return f"{head}No window of bottom and top layers follows the scores: all {layers} layers stay the task expert's."
    return (f"{head}Of all windows the one of bottom {fit.bottom}, top {fit.top} and a transition of {fit.transition} follows the "
            f"scores best; it reaches {fit.share:.0%} of what a choice of every layer would.")  # fmt: skip


def _sides(shares: np.ndarray, names: Sequence[str], column: str, alpha: float) -> list[str]:
    """Which layers go where, in words."""
    head, lines = f"{SAID[column]}, layer" if column else "Layer", []
    for share in sorted(set(shares.tolist()), reverse=True):
        which = [i for i, s in enumerate(shares.tolist()) if s == share]
        to = {1.0: f"from {names[1]}", 0.0: f"from {names[0]}"}.get(share, f"blended, {share:g} of {names[1]}")
        lines.append(f"{head}{'s' * (len(which) > 1)} {spans(which)} ({len(which)} of {len(shares)}): {to}.")
    if len(lines) == 1:
        lines.append(f"{SAID[column] + ': no' if column else 'No'} layer stands out, so this is no choice of layers.")
    return lines


def spans(layers: Sequence[int]) -> str:
    """0-4, 7, 30-31."""
    runs = [[i for _, i in run] for _, run in groupby(enumerate(layers), key=lambda pair: pair[1] - pair[0])]
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)
