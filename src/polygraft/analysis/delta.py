"""Change maps: what fine-tuning changed, per layer and matrix, against the base; and how two experts' changes relate.

Figures as in arXiv 2410.01335's analysis of parameter changes (MAV, share of rows over a threshold) and arXiv 2601.22620 (relative
Frobenius norm). bf16 caution: light tuning often moves a weight by less than one unit in its last place; the map of zeros tells.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from operator import add, attrgetter, methodcaller
from typing import Any

import numpy as np

from polygraft.addresses import Address
from polygraft.analysis.change import Change, Pair, measure
from polygraft.anatomy import Anatomy
from polygraft.checkpoint import Weights
from polygraft.errors import InputError
from polygraft.floats import FLOATS
from polygraft.maps import layer_map
from polygraft.result import Curve, LayerMap, Table

WORKERS = 2
Cell = tuple[str, int | None]
FIGURES: tuple[tuple[str, str, str], ...] = (
    ("mav", "mean absolute change", ""),
    ("relative_mav", "relative mean absolute change", "of mean |W|"),
    ("relative_frobenius", "relative Frobenius norm of the change", "of the norm of W"),
    ("zero_share", "entries that did not change", "share"),
)
RELATIONS = (("cosine", "cosine of the two changes", "diverging"), ("conflict", "opposite signs", "sequential"),
             ("overlap", "overlap of the most changed entries", "sequential"))  # fmt: skip


@dataclass(frozen=True)
class Delta:
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
) -> Delta:
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
    return Delta(anatomy, names, changes, pairs, limits)


def row_axis(anatomy: Anatomy, key: str) -> int:
    """The axis of a matrix's output rows: 0, but 1 in the layers of families that store matrices transposed (GPT-2)."""
    return 1 if anatomy.traits.transposed and anatomy.parts[key].layer is not None else 0


def _quantile(anatomy: Anatomy, changes: dict[str, list[Change]], expert: int, quantile: float) -> float:
    rows = [c[expert].rows for k, c in changes.items() if anatomy.parts[k].layer is not None and c[expert].rows.size]
    return float(np.quantile(np.concatenate(rows), quantile)) if rows else 0.0


# ----------------------------------------------------------------------------------------------------------------- heads


def heads(delta: Delta, expert: int) -> dict[tuple[str, int], list[tuple[float, float]]]:
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


def _head(delta: Delta, expert: int, addresses: Sequence[Address]) -> tuple[float, float] | None:
    slices = []
    for a in addresses:
        means = delta.changes[a.key][expert].means if a.key in delta.changes else ()
        if means:
            slices.append(means[a.axis][a.start : a.stop])
    if not slices:
        return None
    rows = np.concatenate(slices)
    return float(rows.mean()), float((rows > delta.thresholds[expert]).mean())


# ------------------------------------------------------------------------------------------------------------------ maps


def maps(delta: Delta) -> tuple[LayerMap, ...]:
    """For each expert every figure, the share of rows over the threshold and the heads; then how two experts relate."""
    found: list[LayerMap] = []
    for i, name in enumerate(delta.names):
        cells = delta.cells(i)
        found += [_map(delta, cells, attrgetter(field), f"{name}: {title}", unit=unit) for field, title, unit in FIGURES]
        over = methodcaller("row_share", delta.thresholds[i])
        note = f"mean |change| of the row over {delta.thresholds[i]:.3g}"
        found.append(_map(delta, cells, over, f"{name}: rows that changed much", unit="share", note=note))
        found += _head_maps(delta, i, name)
    if delta.pairs:
        both, related = " and ".join(delta.names[:2]), delta.relations()
        for field, title, scale in RELATIONS:
            low = -1.0 if scale == "diverging" else 0.0
            found.append(_map(delta, related, attrgetter(field), f"{both}: {title}", scale=scale, low=low, high=1.0))
    return tuple(found)


def _map(delta: Delta, cells: dict[Cell, Any], value: Callable[[Any], float | None], title: str, **look: Any) -> LayerMap:
    return layer_map(delta.anatomy, {k: value(c) for k, c in cells.items()}, title, **look)


def _head_maps(delta: Delta, expert: int, name: str) -> list[LayerMap]:
    found, made = heads(delta, expert), []
    for role in dict.fromkeys(role for role, _ in found):
        count = max(len(v) for (r, _), v in found.items() if r == role)
        grid = tuple(
            tuple(
                found[role, i][h][0] if (role, i) in found and h < len(found[role, i]) else None
                for i in range(delta.anatomy.layers)
            )
            for h in range(count)
        )
        rows = tuple(f"head {h}" for h in range(count))
        made.append(LayerMap(f"{name}: mean absolute change by head, {role}", rows, delta.anatomy.layers, grid))
    return made


def per_layer(delta: Delta) -> Curve:
    """Relative Frobenius norm of the change of each whole layer."""
    series = {}
    for i, name in enumerate(delta.names):
        layers = [[c for (_, at), c in delta.cells(i).items() if at == layer] for layer in range(delta.anatomy.layers)]
        series[name] = tuple(reduce(add, cells).relative_frobenius if cells else None for cells in layers)
    return Curve(
        "Change per layer", tuple(float(i) for i in range(delta.anatomy.layers)), series, "layer", "relative Frobenius norm"
    )


def summary(delta: Delta) -> tuple[str, ...]:
    """Where each expert changed most, in plain sentences."""
    lines = []
    curve = per_layer(delta)
    for i, name in enumerate(delta.names):
        whole = reduce(add, (c[i] for c in delta.changes.values()))
        ranked = sorted((v, layer) for layer, v in enumerate(curve.series[name]) if v is not None)[::-1]
        if not whole.abs_delta:
            lines.append(f"{name} equals the base: nothing changed.")
            continue
        most = ", ".join(str(layer) for _, layer in ranked[:3])
        lines.append(
            f"{name} changed by {whole.relative_frobenius or 0:.3%} of the weights' norm, most in layers {most}; "
            f"{whole.zero_share or 0:.1%} of its entries did not change."
        )
    if delta.pairs:
        pair = reduce(add, delta.pairs.values())
        told = f"cosine {pair.cosine:.3f}" if pair.cosine is not None else "no common change"
        shared = "" if pair.overlap is None else f"; their most changed entries overlap by {pair.overlap:.1%} (Jaccard)"
        lines.append(f"The two changes have {told}{shared}.")
    return tuple(lines)


# ---------------------------------------------------------------------------------------------------------------- tables


def table(delta: Delta) -> Table:
    """One row per layer tensor kind and expert: the figures summed over all layers."""
    rows = []
    for i, name in enumerate(delta.names):
        by: dict[str, Change] = {}
        for (label, _), c in delta.cells(i).items():
            by[label] = by[label] + c if label in by else c
        for label in (*delta.anatomy.rows, *delta.anatomy.outside):
            if label in by:
                c = by[label]
                rows.append((name, label, c.mav, c.relative_frobenius, c.row_share(delta.thresholds[i]), c.zero_share))
    return Table(
        "Change by part, all layers",
        ("model", "part", "MAV", "relative Frobenius", "rows over threshold", "unchanged"),
        tuple(rows),
    )


FIRST = ("model", "tensor", "layer", "part", "expert", "entries", "mav", "relative_mav", "relative_frobenius", "largest")
COLUMNS = (*FIRST, "row_share", "zero_share", "cosine", "conflict", "overlap")


def tensors_csv(delta: Delta) -> str:
    """One line per model and tensor; empty where a figure is not defined."""
    lines: list[list[Any]] = []
    for i, name in enumerate(delta.names):
        for key, changes in delta.changes.items():
            part, c, pair = delta.anatomy.parts[key], changes[i], delta.pairs.get(key)
            related = (pair.cosine, pair.conflict, pair.overlap) if pair else (None, None, None)
            lines.append(
                [
                    name,
                    key,
                    part.layer,
                    part.label,
                    part.expert,
                    c.n,
                    c.mav,
                    c.relative_mav,
                    c.relative_frobenius,
                    c.largest,
                    c.row_share(delta.thresholds[i]),
                    c.zero_share,
                    *related,
                ]
            )
    return _csv(COLUMNS, lines)


def heads_csv(delta: Delta) -> str:
    """One line per model, layer, role and head."""
    lines = [
        [name, layer, role, h, mav, share]
        for i, name in enumerate(delta.names)
        for (role, layer), values in heads(delta, i).items()
        for h, (mav, share) in enumerate(values)
    ]
    return _csv(("model", "layer", "role", "head", "mav", "row_share"), lines)


def _csv(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([["" if v is None else repr(v) if isinstance(v, float) else v for v in row] for row in rows])
    return out.getvalue()
