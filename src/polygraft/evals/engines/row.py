"""One row through a model: tokens that stand for many sequences at once, told apart by their positions and by what they see."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from polygraft.evals.engines import batches, tree
from polygraft.evals.engines.columns import Columns


def feed(model: Any, cache: Columns, tokens: np.ndarray, positions: np.ndarray, visible: np.ndarray, keep: np.ndarray) -> Any:
    """Logits [len(keep), vocabulary] of some of the tokens, int [t] each; visible: bool [t, cache.length + t]."""
    import torch

    device = batches.entry(model)
    ids, at = (torch.as_tensor(x, dtype=torch.long, device=device) for x in (tokens, positions))
    distance = positions[:, None] - np.concatenate([cache.positions, positions])
    with grouped(str(device)):
        # a list of positions to keep is good on every device: the head may be on another one than the embedding
        out = model(input_ids=ids[None], position_ids=at[None], attention_mask=masks(model, visible, distance, device),
                    past_key_values=cache, use_cache=True, logits_to_keep=keep.tolist())
    cache.advance(positions)
    return out.logits[0]


@contextlib.contextmanager
def grouped(device: str) -> Iterator[None]:
    """On a CPU, let queries share their group's keys: transformers copies all columns for every query head unless this is set."""
    name = "TRANSFORMERS_SDPA_FORCE_GQA"
    if device != "cpu" or name in os.environ:
        yield
        return
    os.environ[name] = "1"
    try:
        yield
    finally:
        del os.environ[name]


def window(model: Any) -> int | None:
    """Tokens, itself included, that a token attends to in the layers that do not attend to all before it."""
    config = model.config.get_text_config()
    types = getattr(config, "layer_types", None)
    return getattr(config, "sliding_window", None) if types is None or "sliding_attention" in types else None


def masks(model: Any, visible: np.ndarray, distance: np.ndarray, device: Any) -> Any:
    """What transformers' models take: one mask, or one for each kind of attention layer."""
    types, near = getattr(model.config.get_text_config(), "layer_types", None), window(model)
    narrow = visible if near is None else visible & (distance < near)
    if types is None or near is None:
        return _additive(narrow, model.dtype, device)
    wide = _additive(visible, model.dtype, device)
    return {"full_attention": wide, "sliding_attention": _additive(narrow, model.dtype, device) if distance.max() >= near else wide}


def _additive(visible: np.ndarray, dtype: Any, device: Any) -> Any:
    """[1, 1, t, columns]: additive rather than boolean, since eager attention knows no other."""
    import torch

    mask = torch.zeros(visible.shape, dtype=dtype, device=device)
    return mask.masked_fill_(torch.from_numpy(~visible).to(device), torch.finfo(dtype).min)[None, None]


class Walk:
    """A depth-first walk through a trie, a stretch of at most `nodes` nodes at a time; `cache` holds the path to what comes next.

    nats (float64) and greedy (bool), [m] each: of the tokens that the trie asks for, as far as the walk has come.
    """

    def __init__(self, model: Any, trie: tree.Trie, nodes: int):
        self.model, self.trie, self.nodes, self.cache = model, trie, nodes, Columns()
        self.at, self.path = 0, list[int]()
        self.nats, self.greedy = np.zeros(len(trie.asked)), np.zeros(len(trie.asked), bool)

    def step(self) -> None:
        """Compute one stretch. After an error it can be tried again, with fewer nodes."""
        trie, start = self.trie, self.at
        stop = tree.stretch(trie, start, self.nodes)
        first, last = np.searchsorted(trie.asked[:, 0], [start, stop])
        nodes, gold = trie.asked[first:last].T
        read, rows = np.unique(nodes - start, return_inverse=True)
        keep = read if len(read) else np.array([stop - start - 1])  # an interface that was asked for nothing may give everything
        logits = feed(self.model, self.cache, trie.tokens[start:stop], trie.depth[start:stop],
                      trie.visible(self.path, start, stop), keep)
        if len(read):
            self.nats[first:last], self.greedy[first:last] = batches.gathered(logits, rows, gold)
        self._leave(start, stop)

    def ready(self) -> int:
        """How many of the asked tokens have been computed."""
        return int(np.searchsorted(self.trie.asked[:, 0], self.at))

    def total(self, sequence: int) -> tuple[float, bool]:
        """(nats, all greedy?) of a sequence's scored tokens."""
        path = self.trie.paths[sequence]
        return float(self.nats[path].sum()), bool(self.greedy[path].all())

    def _leave(self, start: int, stop: int) -> None:
        """Keep of the cache the path to node `stop`."""
        if stop < len(self.trie):
            path = self.trie.path(stop)
            old = sum(node < start for node in path)
            self.cache.keep(old, [len(self.path) + node - start for node in path[old:]])
            self.path = path
        self.at = stop


def prefilled(model: Any, prefix: Sequence[int], nodes: int) -> Columns:
    """A cache that has read `prefix`."""
    walk = Walk(model, tree.build([[*prefix, 0]], [0]), nodes)  # a last token is never read
    while walk.at < len(walk.trie):
        walk.step()
    return walk.cache
