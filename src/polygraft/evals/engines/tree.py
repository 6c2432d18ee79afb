"""The trie of everything that is asked of a model: what sequences begin with in common is computed once.

All sequences of a request, sorted, are walked depth first. A node is a token with all that stands before it; walking order numbers
the nodes, so that the ancestors of node i are the j <= i < end[j]. A stretch of consecutive nodes is one row of input: each token
at its depth, attending to its ancestors only. What the stretch needs from before is the path to its first node and nothing else,
so that every node is computed exactly once, and no sequence is padded. Few-shot blocks, questions and options need no rules of
their own: they are branches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Trie:
    """n nodes in depth-first order, and the m next tokens whose likelihood is wanted.

    tokens: ids [n]; parent: the node before it, -1 at the root; depth: its position; end: the first node after its subtree;
    asked: int64 [m, 2], a node and a token after it, ordered by node; paths: for each sequence the rows of `asked` that it adds up.
    A last token is not a node: nothing is predicted from it.
    """

    tokens: np.ndarray
    parent: np.ndarray
    depth: np.ndarray
    end: np.ndarray
    asked: np.ndarray
    paths: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.tokens)

    def path(self, node: int) -> list[int]:
        """The ancestors of a node, from the root to its parent: one a depth."""
        out = np.empty(self.depth[node], np.int64)
        for d in range(len(out) - 1, -1, -1):
            node = self.parent[node]
            out[d] = node
        return out.tolist()

    def visible(self, path: Sequence[int], start: int, stop: int) -> np.ndarray:
        """bool [stop - start, len(path) + stop - start]: which of the path's nodes and of the stretch each node attends to."""
        query, column = np.arange(start, stop)[:, None], np.concatenate([np.asarray(path, np.int64), np.arange(start, stop)])
        return (column <= query) & (query < self.end[column])


def build(sequences: Sequence[Sequence[int]], scored: Sequence[int]) -> Trie:
    """The trie of id sequences of at least two tokens, of which the last `scored[i]` < len(sequences[i]) are to be scored."""
    tokens: list[int] = []
    parent: list[int] = []
    depth: list[int] = []
    ends: dict[int, int] = {}
    asked: dict[tuple[int, int], int] = {}
    wanted: list[list[int]] = [[] for _ in sequences]
    path: list[int] = []
    before: Sequence[int] = ()
    for i in sorted(range(len(sequences)), key=lambda i: list(sequences[i])):
        sequence, read = sequences[i], sequences[i][:-1]
        common = shared(before, read)
        ends.update((node, len(tokens)) for node in path[common:])
        del path[common:]
        for token in read[common:]:
            parent.append(path[-1] if path else -1)
            depth.append(len(path))
            path.append(len(tokens))
            tokens.append(token)
        before = read
        for t in range(len(sequence) - scored[i], len(sequence)):
            wanted[i].append(asked.setdefault((path[t - 1], sequence[t]), len(asked)))
    end = np.full(len(tokens), len(tokens), np.int64)
    end[list(ends)] = list(ends.values())
    pairs = np.array(list(asked), np.int64).reshape(-1, 2)
    order = np.argsort(pairs[:, 0], kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    ids, before_it, at = (np.array(x, np.int64) for x in (tokens, parent, depth))
    return Trie(ids, before_it, at, end, pairs[order], [place[w] for w in wanted])


def shared(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two sequences begin with in common."""
    return next((k for k, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def stretch(trie: Trie, start: int, nodes: int) -> int:
    """Where the stretch that begins at `start` ends: after at most `nodes` nodes, where the path to what follows is short.

    The path is carried along as columns that everything in the next stretch pays for, so the second half is looked through for a
    place where it is much shorter: the end of an item.
    """
    if start + nodes >= len(trie):
        return len(trie)
    stop = start + nodes
    behind = trie.depth[start + max(1, nodes // 2):stop + 1][::-1]
    best = int(behind.argmin())
    return stop - best if 2 * behind[best] < behind[0] else stop
