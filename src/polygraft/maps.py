"""From numbers by part to the picture that every method shares: layers across, parts down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polygraft.anatomy import Anatomy
from polygraft.result import LayerMap

Cell = tuple[str, int | None]  # a part's label and its layer; None outside the layers


def layer_map(anatomy: Anatomy, cells: Mapping[Cell, float | None], title: str, **look: Any) -> LayerMap:
    """A layer map of these cells in the anatomy's order; rows without any cell are left out."""
    rows = tuple(r for r in anatomy.rows if any((r, i) in cells for i in range(anatomy.layers)))
    grid = tuple(tuple(cells.get((r, i)) for i in range(anatomy.layers)) for r in rows)
    outside = {label: v for (label, layer), v in cells.items() if layer is None}
    return LayerMap(title, rows, anatomy.layers, grid, outside, **look)
