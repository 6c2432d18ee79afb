"""Change maps: what fine-tuning changed, per layer and matrix, against the base; and how two experts' changes relate.

Figures as in arXiv 2410.01335's analysis of parameter changes (MAV, share of rows over a threshold) and arXiv 2601.22620 (relative
Frobenius norm). bf16 caution: light tuning often moves a weight by less than one unit in its last place; the map of zeros tells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from polygraft.addresses import Address
from polygraft.analysis.delta.change import Change, Pair, measure
from polygraft.anatomy import Anatomy
from polygraft.checkpoint import Weights
from polygraft.errors import InputError
from polygraft.floats import FLOATS

WORKERS = 2
Cell = tuple[str, int | None]


@dataclass(frozen=True)
class Changes:
    """Everything measured: per tensor key, one Change per expert and how the first two relate. `threshold` is on row means."""

    anatomy: Anatomy
    names: tuple[str, ...]
    changes: dict[str, list[Change]]
    pairs: dict[str, Pair]
    thresholds: tuple[float, ...]

    def cells(self, expert: int) -> dict[Cell, Change]:
        return _group(self.anatomy, {k: c[expert] for k, c in self.changes.items()})

    def relations(self) -> dict[Cell, Pair]:
        return _group(self.anatomy, self.pairs)


def _group(anatomy: Anatomy, values: dict[str, Any]) -> dict[Cell, Any]:
    cells: dict[Cell, list[Any]] = {}
    for key, value in values.items():
        part = anatomy.parts[key]
        cells.setdefault((part.label, part.layer), []).append(value)
    return {cell: reduce(add, found) for cell, found in cells.items()}


def check(anatomy: Anatomy, base: Weights, experts: Sequence[tuple[str, Weights]]) -> None:
    """Raise InputError when an expert's tensors are not those of the base, naming the first and both values."""
    for name, expert in experts:
        for key in anatomy.parts:
            mine, theirs = base.tensors[key].shape, expert.tensors[key].shape if key in expert.tensors else "absent"
            if mine != theirs:
                raise InputError(
                    "the expert was not trained from this base",
                    where=key,
                    found=f"{name}: {theirs}; base: {mine}",
                    expected="the same shape",
                    fix="name the base that the expert was trained from",
                )


def compute(
    anatomy: Anatomy,
    base: Weights,
    experts: Sequence[tuple[str, Weights]],
    *,
    threshold: float | None = None,
    quantile: float = 0.9,
    top: float = 0.1,
    epsilon: float = 0.0,
    progress: Callable[..., None] = lambda *a: None,
) -> Changes:
    """Measure every tensor of floats. `threshold` (on a row's mean |Delta|): absolute, else a quantile over rows in layers.

    Two threads share the tensors; the figures do not depend on them. Raises InputError.
    """
    check(anatomy, base, experts)
    keys = [k for k in anatomy.parts if base.tensors[k].dtype in FLOATS and base.tensors[k].numel]
    total, done = sum(base.tensors[k].nbytes for k in keys), 0
    changes: dict[str, list[Change]] = {}
    pairs: dict[str, Pair] = {}

    def one(key: str) -> tuple[list[Change], Pair | None]:
        return measure(key, base, [w for _, w in experts], rows=row_axis(anatomy, key), top=top, epsilon=epsilon)

    with ThreadPoolExecutor(WORKERS) as pool:
        for key, (found, pair) in zip(keys, pool.map(one, keys), strict=True):
            changes[key] = found
            if pair is not None:
                pairs[key] = pair
            done += base.tensors[key].nbytes
            progress(done, total, key)
    names = tuple(n for n, _ in experts)
    limits = tuple(threshold if threshold is not None else _quantile(anatomy, changes, i, quantile) for i in range(len(names)))
    return Changes(anatomy, names, changes, pairs, limits)


def row_axis(anatomy: Anatomy, key: str) -> int:
    """The axis of a matrix's output rows: 0, but 1 in the layers of families that store matrices transposed (GPT-2)."""
    return 1 if anatomy.traits.transposed and anatomy.parts[key].layer is not None else 0


def _quantile(anatomy: Anatomy, changes: dict[str, list[Change]], expert: int, quantile: float) -> float:
    rows = [c[expert].rows for k, c in changes.items() if anatomy.parts[k].layer is not None and c[expert].rows.size]
    return float(np.quantile(np.concatenate(rows), quantile)) if rows else 0.0


def heads(delta: Changes, expert: int) -> dict[tuple[str, int], list[tuple[float, float]]]:
    """(role, layer) -> for each head its mean |Delta| and the share of its rows (columns of o) over the threshold.

    Empty where the layout of a fused q-k-v tensor is not known.
    """
    found = {}
    for layer in range(delta.anatomy.layers):
        try:
            roles = delta.anatomy.heads(layer)
        except InputError:
            return {}
        for role, blocks in roles.items():
            values = [_head(delta, expert, addresses) for addresses in blocks]
            if any(values):
                found[role, layer] = [v for v in values if v]
    return found


def _head(delta: Changes, expert: int, addresses: Sequence[Address]) -> tuple[float, float] | None:
    slices = []
    for a in addresses:
        means = delta.changes[a.key][expert].means if a.key in delta.changes else ()
        if means:
            slices.append(means[a.axis][a.start : a.stop])
    if not slices:
        return None
    rows = np.concatenate(slices)
    return float(rows.mean()), float((rows > delta.thresholds[expert]).mean())
