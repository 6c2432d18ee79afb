"""One row through a model: tokens that stand for many sequences at once, told apart by their positions and by what they see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from polygraft.evals.engines import batches, tree
from polygraft.evals.engines.columns import Columns


def feed(model: Any, cache: Columns, tokens: Any, positions: Any, visible: Any, keep: Any) -> Any:
    """Logits [len(keep), vocabulary] of some of the tokens, int [t] each; visible: bool [t, cache.length + t]."""
    import torch

    device = model.get_input_embeddings().weight.device
    # additive rather than boolean: eager attention knows no other, and fused attention makes it of a boolean one anyway
    mask = torch.zeros(visible.shape, dtype=model.dtype).masked_fill_(~torch.from_numpy(visible), torch.finfo(model.dtype).min)
    ids, at, kept = (torch.as_tensor(np.asarray(x), dtype=torch.long, device=device) for x in (tokens, positions, keep))
    out = model(input_ids=ids[None], position_ids=at[None], attention_mask=mask[None, None].to(device), past_key_values=cache,
                use_cache=True, logits_to_keep=kept)
    cache.advance(len(tokens))
    return out.logits[0]


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
