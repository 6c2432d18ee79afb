"""Edits by their definition, one row after another in float64, and a model whose activation modules do them themselves."""

from __future__ import annotations

import numpy as np


def edited(x: np.ndarray, edits) -> np.ndarray:
    """x [..., width] after each edit in order, as `polygraft.edits.Edit` defines the operations."""
    x = np.array(x, np.float64)
    for e in edits:
        values = np.asarray(e.values, np.float64)
        if e.op in ("project", "keep"):
            inside = np.zeros_like(x)
            for direction in values:
                inside += (x * direction).sum(-1, keepdims=True) * direction
            x = inside if e.op == "keep" else x - inside
            continue
        for k, row in enumerate(range(x.shape[-1]) if e.rows is None else e.rows):
            v = values[k] if len(values) > 1 else values[0]
            old = x[..., row]
            x[..., row] = {"set": 0 * old + v, "scale": v * old, "add": old + v, "atleast": np.maximum(old, v)}[e.op]
    return x


def activation(plain, edits):
    """A module in the place of `plain` (an activation function) that edits what it gives."""
    import torch

    class Edited(torch.nn.Module):
        def forward(self, x):
            value = plain(x)
            return torch.from_numpy(edited(value.double().numpy(), edits)).to(value.dtype)

    return Edited()
