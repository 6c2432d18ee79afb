"""What pruning did inside the model: noise of weights, outputs and states, masks, language subspaces, neurons of languages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np

from polygraft.anatomy import Anatomy
from polygraft.arrays import Arrays
from polygraft.maps import Cell as Place
from polygraft.maps import layer_map
from polygraft.prune.study.around import Around
from polygraft.prune.study.config import Cell
from polygraft.prune.study.found import MIXED, OTHER, OWN, Found, Group, average, ratio
from polygraft.prune.study.measures import LOST, TOTAL, beyond, overlap, shift, subspace_errors, thresholds
from polygraft.prune.study.states import Dense
from polygraft.result import Cell as Value
from polygraft.result import Curve, LayerMap, Table

RELATIONS = (OWN, MIXED, OTHER)


def _rounded(x: float | None, digits: int = 3) -> float | None:
    return None if x is None else round(float(x), digits)


# ------------------------------------------------------------------------------------------------------------------- noise


def noise(found: Found, group: Group) -> list[Table]:
    """SNR of weights, outputs and states: settings down, languages across."""
    languages, tables = found.config.languages, []
    kinds: tuple[tuple[str, str, Callable[..., float | None]], ...] = (
        ("outputs", "W x against W' x on the dense model's inputs, mean over matrices",
         lambda r, g: average(ratio(r[f"matrices.{g}"]))),
        ("hidden states", "the dense model's states against the pruned one's behind every layer, mean over layers",
         lambda r, g: average(ratio(r[f"states.{g}"][:, [TOTAL, LOST]]))),
    )  # fmt: skip
    for what, words, value in kinds:
        rows = [(s, _rounded(found.mean(group, s, lambda r: average(ratio(r["matrices.weight"])))),
                 *(_rounded(found.mean(group, s, partial(value, g=g))) for g in languages)) for s in group.settings]  # fmt: skip
        tables.append(Table(f"Signal to noise of {what}: {group.name}", ("calibrated on", "weights", *languages), tuple(rows),
                            f"dB, 10 log10(E[X^2] / E[(X - X')^2]), more is better: {words}; weights: W against W'"))  # fmt: skip
    return tables


def hit(found: Found, group: Group) -> tuple[Table, list[LayerMap]]:
    """Which matrices are hit: relative output errors by kind of matrix and layer, and what a foreign calibration adds."""
    anatomy, keys = found.anatomy, list(found.extent.matrices)
    means = {r: _mean(list(found.errors(group, r)), len(keys)) for r in RELATIONS}
    labels = sorted({anatomy.parts[k].label for k in keys}, key=anatomy.rows.index)
    rows = [(label, *(_rounded(average([_none(e[i]) for i, k in enumerate(keys) if anatomy.parts[k].label == label]), 4)
                      for e in means.values())) for label in labels]  # fmt: skip
    table = Table(f"Which matrices are hit: {group.name}", ("matrix", *(f"calibrated on {r}" for r in RELATIONS)), tuple(rows),
                  "|W x - W' x|^2 / |W x|^2 on the dense model's inputs in each language, mean over matrices, languages and seeds")
    maps = [_map(anatomy, keys, means[OWN], f"Error of outputs, calibrated on {OWN}: {group.name}", low=0.0)]
    more = means[OTHER] - means[OWN]
    if np.isfinite(more).any():
        maps.append(_map(anatomy, keys, more, f"What {OTHER} calibration adds to it: {group.name}", scale="diverging"))
    return table, maps


def _mean(some: list[np.ndarray], n: int) -> np.ndarray:
    """Mean of what is known, NaN where nothing is."""
    stacked = np.stack(some) if some else np.full((1, n), np.nan)
    known = np.isfinite(stacked)
    total = np.where(known, stacked, 0).sum(0)
    return np.divide(total, known.sum(0), out=np.full(n, np.nan), where=known.any(0))


def _none(x: float) -> float | None:
    return float(x) if np.isfinite(x) else None


def _map(anatomy: Anatomy, keys: list[str], values: np.ndarray, title: str, **look: object) -> LayerMap:
    cells: dict[Place, list[float | None]] = {}
    for key, value in zip(keys, values, strict=True):
        part = anatomy.parts[key]
        cells.setdefault((part.label, part.layer), []).append(_none(value))
    return layer_map(anatomy, {place: average(some) for place, some in cells.items()}, title, **look)


# -------------------------------------------------------------------------------------------------------------- subspaces


def subspaces(found: Found, group: Group) -> tuple[list[Table], list[Curve]]:
    """Errors within and outside the directions in which languages differ, and SNR of states, by layer."""
    tables, languages = [], found.config.languages
    for at, what in enumerate(("language-specific", "language-agnostic")):
        rows = [(s, *(_rounded(found.mean(group, s, partial(_part, g=g, at=at)), 4) for g in languages)) for s in group.settings]
        tables.append(Table(f"Error of states, {what} part: {group.name}", ("calibrated on", *languages), tuple(rows),
                            "|P (h - h')|^2 / |P h|^2, mean over layers; P projects on the LSAR subspace of the dense model's mean "
                            "states (other text), or on all that is orthogonal to it"))  # fmt: skip
    x = tuple(map(float, range(found.anatomy.layers)))
    errors: dict[str, tuple[float | None, ...]] = {}
    noises: dict[str, tuple[float | None, ...]] = {}
    for relation in RELATIONS:
        if len(some := found.states(group, relation)):
            specific, agnostic = (e.mean(0) for e in subspace_errors(some))
            errors |= {f"specific, {relation}": tuple(map(float, specific)), f"agnostic, {relation}": tuple(map(float, agnostic))}
            noises[relation] = tuple(ratio(some.sum(0)[:, [TOTAL, LOST]]))
    return tables, [Curve(f"Error of states by part: {group.name}", x, errors, "layer", "relative error"),
                    Curve(f"Signal to noise of states: {group.name}", x, noises, "layer", "dB")]  # fmt: skip


def _part(read: Arrays, g: str, at: int) -> float:
    return float(subspace_errors(read[f"states.{g}"])[at].mean())


# ----------------------------------------------------------------------------------------------------------------- neurons


def neurons(found: Found, group: Group, dense: Dense, around: Around) -> Table | None:
    """What became of neurons of languages (LAPE), the dense model's thresholds fixed."""
    if len(found.config.languages) < 2:
        return None
    chosen = around.lape(dense.firing, dense.real)
    at = thresholds(chosen, around.entropy(dense.firing), np.asarray(dense.firing.any(-1)))
    noise = shift(dense.firing, dense.other, around.entropy, at)
    rows: list[tuple[Value, ...]] = [("nothing: the dense model on other text", *_row([noise]))]
    for s in group.settings:
        some = [shift(dense.firing, found.reads[c]["firing"].astype(np.float64), around.entropy, at) for c in group.of(s)]
        rows.append((s, *_row(some)))
    columns = ("calibrated on", "before", "after", "in both", "agnostic before", "agnostic after", "entropy changes by")
    return Table(f"Neurons of languages: {group.name}", columns, tuple(rows),
                 "LAPE with the thresholds of the dense model kept; agnostic: entropy above the dense model's 95th percentile; "
                 "nats; the first row is what other text of the same languages does without any pruning")  # fmt: skip


def _row(some: list) -> tuple[float, ...]:
    names = ("before", "after", "both", "agnostic_before", "agnostic_after", "shift")
    return tuple(round(float(np.mean([getattr(s, n) for s in some])), 4) for n in names)


# ------------------------------------------------------------------------------------------------------------------- masks


class Overlaps:
    """Mask overlap of one group: `pairs` of settings on the same draw seed, and each setting with its other seeds."""

    def __init__(self, found: Found, group: Group, masks: Callable[[Cell], Path]):
        self.found, self.group = found, group
        files = {place: Arrays(masks(cell)) for place, cell in group.cells.items()}
        self.keys = list(found.extent.matrices)
        self.sizes = np.array([found.extent.sizes[k] for k in self.keys], np.float64)
        pairs = {(a, b): [((a, s), (b, s)) for s in group.seeds] for a, b in combinations(group.settings, 2)}
        pairs |= {(a, a): [((a, s), (a, t)) for s, t in combinations(group.seeds, 2)] for a in group.settings}
        self.values = {pair: np.full((len(self.keys), 3), np.nan) for pair, some in pairs.items() if some}
        for i, key in enumerate(self.keys):
            held = {place: f[key] for place, f in files.items()}
            for pair in self.values:
                each = [overlap(held[a], held[b], found.extent.sizes[key]) for a, b in pairs[pair]]
                adjusted = [beyond(*o) for o in each]
                mean = average(adjusted)
                self.values[pair][i] = (*np.mean(each, axis=0), np.nan if mean is None else mean)

    def mean(self, a: str, b: str, column: int) -> float | None:
        """Over matrices, weighted by size: IoU (0), chance (1), beyond chance (2)."""
        values = self.values.get((a, b), self.values.get((b, a)))
        if values is None:
            return None
        known = np.isfinite(values[:, column])
        return float(np.average(values[known, column], weights=self.sizes[known])) if known.any() else None

    def table(self) -> Table:
        names = self.group.settings
        rows = tuple((a, *(_rounded(self.mean(a, b, 0), 4) for b in names)) for a in names)
        chances = [c for a, b in self.values if (c := self.mean(a, b, 1)) is not None]
        chance = f"; chance gives {np.mean(chances):.4f}" if chances else ""
        return Table(f"Overlap of masks: {self.group.name}", ("calibrated on", *names), rows,
                     f"IoU of what stays, on draws of one seed{chance}; the diagonal compares two seeds of one calibration")

    def map(self) -> LayerMap | None:
        """How much of the overlap, beyond chance, another language takes away, by matrix and layer: seeds minus languages."""
        languages = [s for s in self.group.settings if s in self.found.config.languages]
        seeds = [v[:, 2] for (a, b), v in self.values.items() if a == b and a in languages]
        pairs = [v[:, 2] for (a, b), v in self.values.items() if a != b and a in languages and b in languages]
        if not seeds or not pairs:
            return None
        lost = _mean(seeds, len(self.keys)) - _mean(pairs, len(self.keys))
        return _map(self.found.anatomy, self.keys, lost, f"What the language changes in masks beyond a seed: {self.group.name}",
                    unit="IoU beyond chance", scale="diverging")

    def data(self) -> Mapping[str, Mapping[str, float | None]]:
        return {f"{a} / {b}": {"iou": self.mean(a, b, 0), "chance": self.mean(a, b, 1), "beyond": self.mean(a, b, 2)}
                for a, b in self.values}  # fmt: skip
