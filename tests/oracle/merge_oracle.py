"""Merging written down as naively as possible: float64, whole models in memory, one formula a function."""

from __future__ import annotations

import re

import numpy as np

Model = dict[str, np.ndarray]


def layer_of(key: str) -> int | None:
    found = re.search(r"(?:^|\.)(?:layers|h)\.(\d+)\.", key)
    return int(found.group(1)) if found else None


def swap(task: Model, language: Model, b: int, u: int, tb: int, tu: int, wt: float = 0.5, wl: float = 0.5) -> Model:
    """Section A.2 of the method: three zones, the rest averaged."""
    layers = 1 + max(i for k in task if (i := layer_of(k)) is not None)
    out = {}
    for key in task:
        i = layer_of(key)
        blend = (wt * task[key] + wl * language[key]) / (wt + wl)
        if i is None:
            out[key] = blend
        elif i < b or i >= layers - u:
            out[key] = language[key]
        elif i < b + tb or i >= layers - u - tu:
            out[key] = blend
        else:
            out[key] = task[key]
    return out


def soup(models: list[Model], weights: list[float]) -> Model:
    return {k: sum(w * m[k] for m, w in zip(models, weights)) / sum(weights) for k in models[0]}


def task_arithmetic(base: Model, experts: list[Model], scales: list[float]) -> Model:
    return {k: base[k] + sum(s * (e[k] - base[k]) for e, s in zip(experts, scales)) for k in base}


def top(delta: np.ndarray, density: float) -> np.ndarray:
    """The int(density n) entries of largest magnitude; of equal ones, the first."""
    flat = delta.ravel()
    order = sorted(range(flat.size), key=lambda i: (-abs(flat[i]), i))
    kept = np.zeros_like(flat)
    for i in order[: int(density * flat.size)]:
        kept[i] = flat[i]
    return kept.reshape(delta.shape)


def elect(base: np.ndarray, deltas: list[np.ndarray], weights: list[float], scale: float) -> np.ndarray:
    out = base.copy().ravel()
    for i in range(out.size):
        entries = [(d.ravel()[i], w) for d, w in zip(deltas, weights)]
        sign = np.sign(sum(d * w for d, w in entries))
        agreeing = [(d, w) for d, w in entries if d != 0 and np.sign(d) == sign]
        if sum(w for _, w in agreeing) > 0:
            out[i] += scale * sum(d * w for d, w in agreeing) / sum(w for _, w in agreeing)
    return out.reshape(base.shape)


def ties(base: Model, experts: list[Model], weights: list[float], density: float, scale: float) -> Model:
    return {k: elect(base[k], [top(e[k] - base[k], density) for e in experts], weights, scale) for k in base}


def slerp(a: Model, b: Model, t: float) -> Model:
    out = {}
    for k in a:
        x, y = a[k].ravel(), b[k].ravel()
        nx, ny = np.sqrt(x @ x), np.sqrt(y @ y)
        cosine = (x @ y) / (nx * ny) if nx and ny else 1.0
        if abs(cosine) > 0.9995:
            out[k] = (1 - t) * a[k] + t * b[k]
            continue
        phi = np.arccos(np.clip(cosine, -1, 1))
        out[k] = np.sin((1 - t) * phi) / np.sin(phi) * a[k] + np.sin(t * phi) / np.sin(phi) * b[k]
    return out
