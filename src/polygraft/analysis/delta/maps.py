"""Change maps: every figure over layers and matrices, how two experts' changes relate, and both in sentences."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import add, attrgetter, methodcaller
from typing import Any

from polygraft.analysis.delta.measure import Cell, Changes, heads
from polygraft.maps import layer_map
from polygraft.result import Curve, LayerMap

FIGURES: tuple[tuple[str, str, str], ...] = (
    ("mav", "mean absolute change", ""),
    ("relative_mav", "relative mean absolute change", "of mean |W|"),
    ("relative_frobenius", "relative Frobenius norm of the change", "of the norm of W"),
    ("zero_share", "entries that did not change", "share"),
)
RELATIONS = (("cosine", "cosine of the two changes", "diverging"), ("conflict", "opposite signs", "sequential"),
             ("overlap", "overlap of the most changed entries", "sequential"))  # fmt: skip


def maps(delta: Changes) -> tuple[LayerMap, ...]:
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


def _map(delta: Changes, cells: dict[Cell, Any], value: Callable[[Any], float | None], title: str, **look: Any) -> LayerMap:
    return layer_map(delta.anatomy, {k: value(c) for k, c in cells.items()}, title, **look)


def _head_maps(delta: Changes, expert: int, name: str) -> list[LayerMap]:
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


def per_layer(delta: Changes) -> Curve:
    """Relative Frobenius norm of the change of each whole layer."""
    series = {}
    for i, name in enumerate(delta.names):
        layers = [[c for (_, at), c in delta.cells(i).items() if at == layer] for layer in range(delta.anatomy.layers)]
        series[name] = tuple(reduce(add, cells).relative_frobenius if cells else None for cells in layers)
    return Curve(
        "Change per layer", tuple(float(i) for i in range(delta.anatomy.layers)), series, "layer", "relative Frobenius norm"
    )


def summary(delta: Changes) -> tuple[str, ...]:
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
