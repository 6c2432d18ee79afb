"""Profiles drawn over the map of change: the upper rows are what training changed, the lower ones who gives what."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from polygraft.analysis.delta.measure import Changes
from polygraft.anatomy import Anatomy
from polygraft.choose.auto.beside import Beside
from polygraft.choose.auto.measured import cell_sizes
from polygraft.choose.auto.proposals import Proposal
from polygraft.choose.auto.units import MODULES, Shapes
from polygraft.maps import layer_map
from polygraft.result import LayerMap

WRITTEN = "= "  # opens the row of the profile that is written


def pictures(delta: Changes, shapes: Shapes, proposal: Proposal, beside: Sequence[Beside]) -> tuple[LayerMap, ...]:
    """The profiles over the difference of the changes, and each expert's change."""
    sizes = cell_sizes(delta, shapes)
    own = tuple(
        layer_map(delta.anatomy, {at: float(v[i]) for at, v in sizes.items()}, f"{name}: relative Frobenius norm of the change",
                  unit="of the norm of W", low=0.0)
        for i, name in enumerate(delta.names)
    )  # fmt: skip
    return over(delta.anatomy, delta.names, sizes, proposal, beside), *own


def over(
    anatomy: Anatomy, names: Sequence[str], sizes: dict[tuple[str, int], np.ndarray], proposal: Proposal, beside: Sequence[Beside]
) -> LayerMap:
    """-1 to 1: whose change of a part is relatively larger, (p_L - p_T) / (p_L + p_T); below it, whose layers a profile takes."""
    total = sum(sizes.values(), np.zeros(2))
    cells: dict[tuple[str, int | None], float | None] = {}
    for at, (task, language) in sizes.items():
        p, q = task / total[0], language / total[1]
        cells[at] = float((q - p) / (q + p)) if p + q else None
    change = layer_map(anatomy, cells, "")
    drawn = [row for name, grid in ((WRITTEN + proposal.name, proposal.grid), *((b.name, b.grid) for b in beside))
             for row in _rows(name, grid, apart=proposal.candidate.params["by"] == "part")]  # fmt: skip
    return LayerMap(
        "Who changed what, and who gives what",
        (*change.rows, *(name for name, _ in drawn)),
        anatomy.layers,
        (*change.values, *(values for _, values in drawn)),
        scale="diverging",
        low=-1.0,
        high=1.0,
        labels={"1": names[1], "-1": names[0], "0": "both alike"},
        note=f"Parts: whose change is the larger, as shares of each expert's total. Below: whose layers a profile takes; "
             f"`{WRITTEN.strip()}` is written.",
    )  # fmt: skip


def _rows(name: str, grid: np.ndarray, apart: bool) -> list[tuple[str, tuple[float, ...]]]:
    if apart and not np.array_equal(grid[:, 0], grid[:, 1]):
        return [(f"{name} {module}", tuple(float(2 * x - 1) for x in grid[:, i])) for i, module in enumerate(MODULES)]
    return [(name, tuple(float(2 * x - 1) for x in grid.mean(axis=1)))]
