"""Padded tokens and least squares, from their definitions, in numpy float64."""

from __future__ import annotations

import numpy as np


def padded(lengths: list[int], batch: int, accumulate: int) -> list[int]:
    """A pass is a rectangle as wide as its longest row; a step has `accumulate` passes."""
    out = []
    for at in range(0, len(lengths), batch * accumulate):
        step = lengths[at : at + batch * accumulate]
        tables = [step[i : i + batch] for i in range(0, len(step), batch)]
        out.append(sum(np.ones((len(rows), np.max(rows))).sum() for rows in tables))
    return [int(x) for x in out]


def line(x: list[int], y: list[float]) -> tuple[float, float]:
    """(intercept, slope) of the least-squares line."""
    solved, *_ = np.linalg.lstsq(np.stack([np.ones(len(x)), np.array(x, float)], 1), np.array(y, float), rcond=None)
    return float(solved[0]), float(solved[1])
