"""Figures of change as the formulas say, on whole float64 matrices."""

from __future__ import annotations

import numpy as np


def figures(w: np.ndarray, base: np.ndarray, threshold: float) -> dict[str, float]:
    d = w - base
    return {"mav": np.abs(d).mean(), "relative_mav": np.abs(d).mean() / np.abs(base).mean(),
            "relative_frobenius": np.linalg.norm(d) / np.linalg.norm(base), "zero_share": (d == 0).mean(),
            "row_share": (np.abs(d).mean(axis=1) > threshold).mean()}  # fmt: skip


def relation(a: np.ndarray, b: np.ndarray, epsilon: float, top: float) -> dict[str, float]:
    x, y = a.ravel(), b.ravel()
    both = (abs(x) > epsilon) & (abs(y) > epsilon)
    k = max(1, round(top * x.size))
    first, second = ({i for i in sorted(range(v.size), key=lambda i: (-abs(v[i]), i))[:k] if v[i] != 0} for v in (x, y))
    return {"cosine": x @ y / np.linalg.norm(x) / np.linalg.norm(y), "conflict": (np.sign(x[both]) != np.sign(y[both])).mean(),
            "overlap": len(first & second) / len(first | second)}  # fmt: skip


def head_means(d: np.ndarray, heads: int, columns: bool) -> list[float]:
    parts = np.split(np.abs(d), heads, axis=1 if columns else 0)
    return [p.mean() for p in parts]
