"""What changed, as a table by part and as CSV files by tensor and by head."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from polygraft.analysis.delta.change import Change
from polygraft.analysis.delta.measure import Changes, heads
from polygraft.result import Table


def table(delta: Changes) -> Table:
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


def changed(delta: Changes) -> dict[str, float]:
    """Of each model the share of all its weights that are not the base's."""
    sums = {name: [*delta.cells(i).values()] for i, name in enumerate(delta.names)}
    return {name: 1 - sum(c.zeros for c in cells) / max(1, sum(c.n for c in cells)) for name, cells in sums.items()}


FIRST = ("model", "tensor", "layer", "part", "expert", "entries", "mav", "relative_mav", "relative_frobenius", "largest")
COLUMNS = (*FIRST, "row_share", "zero_share", "cosine", "conflict", "overlap")


def tensors_csv(delta: Changes) -> str:
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


def heads_csv(delta: Changes) -> str:
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
