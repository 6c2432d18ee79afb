"""Many answers written in one row: prompts that begin alike share what they begin with, and an answer that is over makes room for
the next prompt at once. Each step feeds one token of every live answer, together with the prompts that were just let in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from polygraft.evals.engines import row, tree, writing
from polygraft.evals.engines.columns import Columns
from polygraft.evals.engines.writing import Answer

SHARED, DEAD = -1, -2  # owners of columns: every answer's, and nobody's any more
SPLIT = 256  # tokens that two groups of prompts must save by sharing more to be worth their own turn


def groups(prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Indices of prompts that share a beginning worth computing once, in sorted order.

    Going down the sorted prompts, the next one joins unless what all of them then share no longer would cost more tokens.
    """
    out: list[list[int]] = []
    common = 0
    for i in sorted(range(len(prompts)), key=lambda i: list(prompts[i])):
        if out:
            n, kept = len(out[-1]), tree.shared(prompts[out[-1][0]][:common], prompts[i])
            if (n - 1) * (common - kept) <= kept + SPLIT:
                out[-1].append(i)
                common = kept
                continue
        out.append([i])
        common = len(prompts[i])
    return out


class Decoder:
    """The answers to one group of prompts.

    model: a causal LM; live: answers written at once; nodes: tokens of prompts let in in one step.
    """

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], written: Sequence[Answer], *, live: int, nodes: int):
        self.model, self.written, self.live, self.nodes = model, written, live, nodes
        first = prompts[0]
        common = min([len(p) - 1 for p in prompts] + [tree.shared(first, p) for p in prompts])
        self.own = [list(p[common:]) for p in prompts]
        # those that are read together are of one length, and the longest, which take most room, come first
        self.waiting = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), -i))
        self.cache: Columns = row.prefilled(model, first[:common], nodes)
        self.owner = np.full(common, SHARED)
        self.depth = [common] * len(prompts)
        self.running: list[int] = []

    def __iter__(self) -> Iterator[list[int]]:
        """Places of the answers that got finished, step by step."""
        while self.running or self.waiting:
            yield self.step()

    def step(self) -> list[int]:
        self._admit()
        fed = [(i, self.own[i] if not self.written[i].tokens else self.written[i].tokens[-1:]) for i in self.running]
        owner = np.repeat(self.running, [len(tokens) for _, tokens in fed])
        position = np.concatenate([self.depth[i] + np.arange(len(tokens)) for i, tokens in fed])
        last = np.cumsum([len(tokens) for _, tokens in fed]) - 1
        tokens = np.concatenate([tokens for _, tokens in fed])
        logits = row.feed(self.model, self.cache, tokens, position, self._visible(owner), last)
        self.owner = np.concatenate([self.owner, owner])
        for (i, own), token in zip(fed, writing.choose(logits, [self.written[i] for i in self.running])):
            self.depth[i] += len(own)
            self.written[i].add(token)
        over = [i for i in self.running if self.written[i].over]
        if over:
            self.running = [i for i in self.running if not self.written[i].over]
            self.owner[np.isin(self.owner, over)] = DEAD
            self._sweep()
        return over

    def _admit(self) -> None:
        room = self.nodes
        while self.waiting and len(self.running) < self.live and (room >= len(self.own[self.waiting[-1]]) or not self.running):
            self.running.append(self.waiting.pop())
            room -= len(self.own[self.running[-1]])

    def _visible(self, owner: np.ndarray) -> np.ndarray:
        """bool [t, columns + t]: the shared columns, and an answer's own up to the token itself."""
        old = (self.owner == SHARED) | (self.owner == owner[:, None])
        new = (owner == owner[:, None]) & np.tri(len(owner), dtype=bool)
        return np.concatenate([old, new], 1)

    def _sweep(self) -> None:
        """Take dead columns out of the cache when they are a quarter of it: until then they cost less than moving the others."""
        if 4 * (self.owner == DEAD).sum() > len(self.owner):
            alive = np.flatnonzero(self.owner != DEAD)
            shared = int((self.owner == SHARED).sum())
            self.cache.keep(shared, alive[shared:])
            self.owner = self.owner[alive]
