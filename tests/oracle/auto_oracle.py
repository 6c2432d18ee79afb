"""Choosing layers from weights, from the formulas: on whole float64 matrices, windows and orders gone through one by one."""

from __future__ import annotations

from itertools import permutations

import numpy as np

KIND = {"attn": "self_attn", "ffn": "mlp"}


def units(base: dict, experts: list[dict], layers: int, by: str) -> dict[str, np.ndarray]:
    """size [2, layers, columns], cosine and conflict [layers, columns], of llama-shaped tensors."""
    columns = [("self_attn", "mlp")] if by == "layer" else [("self_attn",), ("mlp",)]
    size, cosine, conflict = (np.full((2, layers, len(columns)), np.nan) for _ in range(3))
    for layer in range(layers):
        for c, modules in enumerate(columns):
            keys = [k for k in base if any(k.startswith(f"model.layers.{layer}.{m}.") for m in modules) and base[k].ndim == 2]
            deltas = [{k: e[k] - base[k] for k in keys} for e in experts]
            for i, d in enumerate(deltas):
                r = [np.linalg.norm(d[k]) / np.linalg.norm(base[k]) for k in keys]
                size[i, layer, c] = sum(r) if by == "layer" else sum(x * x for x in r) ** 0.5
            a, b = (np.concatenate([d[k].ravel() for k in keys]) for d in deltas)
            cosine[:, layer, c] = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
            both = (a != 0) & (b != 0)
            conflict[:, layer, c] = (np.sign(a[both]) != np.sign(b[both])).mean()
    return {"size": size, "cosine": cosine[0], "conflict": conflict[0]}


def published(size: np.ndarray, tau: float, alpha: float) -> np.ndarray:
    """arXiv 2601.22620: the language expert's share of every unit; size [2, units] of task and language, tau on the difference."""
    p_task, p_language = (n / (n.sum() + 1e-8) for n in size)
    return np.array([1.0 if x - y > tau else 0.0 if x - y < -tau else alpha for x, y in zip(p_language, p_task)])


def best_window(pull: list[float], default: int) -> tuple[int, int, int]:
    """(b, u, t) of the largest sum of pull over swapped less over task layers, by writing every window out."""
    n, found = len(pull), {}
    for t in range(max(1, default) + 1):
        for b in range(n + 1):
            for u in range(n + 1 - b):
                kind = ["T"] * n
                sides = [range(b, b + t) if b else (), range(n - u - t, n - u) if u else ()]
                inner = [i for side in sides for i in side]
                if len(set(inner)) < len(inner) or any(not b <= i < n - u for i in inner) or (t and not b + u):
                    continue
                kind[:b], kind[n - u :] = ["L"] * b, ["L"] * u
                for i in inner:
                    kind[i] = "-"
                found[b, u, t] = sum({"L": 1, "T": -1, "-": 0}[k] * x for k, x in zip(kind, pull))
    top = max(found.values())
    near = [w for w, v in found.items() if v >= top - 1e-12 * sum(map(abs, pull))]
    return min(near, key=lambda w: (abs(w[2] - default), w[0] + w[1], w[0]))


def by_chance(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Mean over all orders of b of the layers in common, and of the share of layers on which they agree; [layers, columns]."""
    orders = [b[list(order)] for order in permutations(range(len(b)))]
    return (float(np.mean([np.minimum(a, x).sum() / a.shape[1] for x in orders])), float(np.mean([1 - abs(a - x).mean() for x in orders])))
