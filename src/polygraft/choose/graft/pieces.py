"""Pieces: stretches of token trees, or padded rows, as a model is called with them; hidden states are kept over all pieces.

All tokens of all pieces stand one behind the other, and a hidden state is [tokens, width]. What a piece needs of those before it
are the keys and values of one layer at a time, so whoever computes layer by layer never holds those of a whole model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from polygraft.evals.engines import batches, row, tree
from polygraft.evals.engines.columns import Columns


@dataclass(frozen=True)
class Piece:
    """`rows` sequences of `width` tokens at `start` among all tokens.

    inputs: what the model's body is called with; path: positions of what came before and is attended to; keep: which columns stay
    for the next piece (how many of the path, then others), None where no later piece attends to any.
    """

    start: int
    rows: int
    width: int
    inputs: dict[str, Any]
    path: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    keep: tuple[int, list[int]] | None = None

    @property
    def stop(self) -> int:
        return self.start + self.rows * self.width

    @property
    def cached(self) -> bool:
        """Whether keys and values must be carried into or out of this piece."""
        return len(self.path) > 0 or self.keep is not None

    def many(self, states: int) -> dict[str, Any]:
        """The inputs for as many states side by side."""
        def wide(name: str, value: Any) -> Any:
            if isinstance(value, dict):
                return {k: wide(name, v) for k, v in value.items()}
            return value if value.dim() == 4 else value.repeat(states, 1)  # a mask in full is the same for every row

        made = {name: wide(name, value) for name, value in self.inputs.items()}
        if not self.cached:
            return made | {"use_cache": False}
        cache = Columns()
        cache.advance(self.path)
        return made | {"use_cache": True, "past_key_values": cache}


@dataclass(frozen=True)
class Read:
    """What is read of some rows, and where.

    spots: int64 [p], tokens whose next-token distribution is looked at; asked: int64 [m, 2], a row of `spots` and the id after it,
    in order of the first; paths: for each row the entries of `asked` that it adds up.
    """

    pieces: list[Piece]
    spots: np.ndarray
    asked: np.ndarray
    paths: list[np.ndarray]

    @property
    def tokens(self) -> int:
        return self.pieces[-1].stop if self.pieces else 0

    @property
    def widest(self) -> int:
        """Tokens of the largest piece."""
        return max((p.stop - p.start for p in self.pieces), default=0)


def branches(model: Any, rows: Sequence[Sequence[int]], scored: Sequence[int], nodes: int, device: str, start: int = 0) -> Read:
    """Rows as the branches of one tree, in stretches of at most `nodes` tokens."""
    trie = tree.build(rows, scored)
    cuts = [0]
    while cuts[-1] < len(trie):
        cuts.append(tree.stretch(trie, cuts[-1], nodes))
    paths = [trie.path(a) for a in cuts[:-1]] + [[]]
    pieces = [_stretch(model, trie, a, b, paths[k], paths[k + 1], device, start) for k, (a, b) in enumerate(pairwise(cuts))]
    spots, place = np.unique(trie.asked[:, 0], return_inverse=True)
    return Read(pieces, spots + start, np.stack([place, trie.asked[:, 1]], 1), trie.paths)


def _stretch(model: Any, trie: tree.Trie, a: int, b: int, path: list[int], then: list[int], device: str, start: int) -> Piece:
    import torch

    before, positions = trie.depth[path], trie.depth[a:b]
    distance = positions[:, None] - np.concatenate([before, positions])
    ids, at = (torch.as_tensor(x, dtype=torch.long, device=device)[None] for x in (trie.tokens[a:b], positions))
    mask = row.masks(model, trie.visible(path, a, b), distance, device)
    old = sum(node < a for node in then)
    keep = (old, [len(path) + node - a for node in then[old:]]) if then else None
    return Piece(start + a, 1, b - a, {"input_ids": ids, "position_ids": at, "attention_mask": mask}, before, keep)


def padded(rows: Sequence[Sequence[int]], scored: Sequence[int], tokens: int, device: str, start: int = 0) -> Read:
    """Rows of their own, padded on the left in batches of at most `tokens`, for models that cannot read branches."""
    pieces: list[Piece] = []
    asked: list[tuple[int, int, int]] = []  # token, id after it, row
    for batch in batches.by_length([len(r) for r in rows], tokens):
        width = max(len(rows[i]) for i in batch)
        ids, mask = batches.pad([rows[i] for i in batch], width, left=True, device=device)
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
        pieces.append(Piece(start, len(batch), width, inputs))
        for r, i in enumerate(batch):
            end = start + (r + 1) * width
            asked += [(end - 1 - k, rows[i][-k], i) for k in range(scored[i], 0, -1)]
        start = pieces[-1].stop
    table = np.array(sorted(asked), np.int64).reshape(-1, 3)
    spots, place = np.unique(table[:, 0], return_inverse=True)
    return Read(pieces, spots, np.stack([place, table[:, 1]], 1), [np.flatnonzero(table[:, 2] == i) for i in range(len(rows))])


def joined(first: Read, second: Read, order: Sequence[int]) -> Read:
    """Both, the second's tokens behind the first's; `order` is the number of each of their rows among all."""
    paths = [*first.paths, *(p + len(first.asked) for p in second.paths)]
    asked = np.concatenate([first.asked, second.asked + np.array([len(first.spots), 0])])
    placed: list[np.ndarray] = [paths[0]] * len(paths)
    for path, number in zip(paths, order):
        placed[number] = path
    return Read([*first.pieces, *second.pieces], np.concatenate([first.spots, second.spots]), asked, placed)
