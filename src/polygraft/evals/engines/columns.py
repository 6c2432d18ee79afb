"""Keys and values of one row of tokens, a column each: what a model has read, to be gone on from, dropped and moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

GROW = 1.25  # how much more room than needed is made


class Columns:
    """A cache as transformers' attention layers use it: `update` adds this pass's columns and gives all of them.

    The buffers [1, heads, room, size], one pair a layer on the layer's own device, grow when they must; nothing is copied to add a
    column. `length` columns count, at `positions` (int [length]); a forward pass writes after them, and `advance` makes what it
    wrote count.
    """

    is_compileable = False

    def __init__(self) -> None:
        self.positions = np.empty(0, np.int64)
        self.layers: dict[int, tuple[Any, Any]] = {}

    @property
    def length(self) -> int:
        return len(self.positions)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.length

    def update(self, keys: Any, values: Any, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        stop = self.length + keys.shape[2]
        if layer_idx not in self.layers or self.layers[layer_idx][0].shape[2] < stop:
            self.layers[layer_idx] = self._room(layer_idx, keys, stop), self._room(layer_idx, values, stop, 1)
        for buffer, new in zip(self.layers[layer_idx], (keys, values)):
            buffer[:, :, self.length:stop] = new
        k, v = self.layers[layer_idx]
        return k[:, :, :stop], v[:, :, :stop]

    def _room(self, layer: int, like: Any, columns: int, which: int = 0) -> Any:
        made = like.new_empty(*like.shape[:2], int(columns * GROW), like.shape[3])
        if layer in self.layers and self.length:
            made[:, :, :self.length] = self.layers[layer][which][:, :, :self.length]
        return made

    def advance(self, positions: np.ndarray) -> None:
        self.positions = np.concatenate([self.positions, positions])

    def keep(self, first: int, others: Sequence[int] | np.ndarray) -> None:
        """Keep the first columns, then `others` (in this order), and forget the rest."""
        import torch

        chosen = np.asarray(others, np.int64)
        if not np.array_equal(chosen, np.arange(first, first + len(chosen))):
            for pair in self.layers.values():
                at = torch.from_numpy(chosen).to(pair[0].device)
                for buffer in pair:
                    buffer[:, :, first:first + len(chosen)] = buffer.index_select(2, at)
        self.positions = np.concatenate([self.positions[:first], self.positions[chosen]])
