"""The trie of layer sources: candidates that agree from the embedding up to a layer have one hidden state there.

A candidate is a path of variants, one for the embedding and one for each layer; what it ends with (norm and head) is no part of it.
Pure: variants are any hashable things, and nothing here knows of tensors.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Trie:
    """Nodes are distinct beginnings of paths, the parents before their children; node 0.. of depth 0 are embeddings.

    depth: layers behind the node (0 after the embedding); variant: the last of its path; parent: -1 for depth 0;
    children: of each node; leaf: for each path the node where it ends.
    """

    depth: list[int] = field(default_factory=list)
    variant: list[Hashable] = field(default_factory=list)
    parent: list[int] = field(default_factory=list)
    children: list[list[int]] = field(default_factory=list)
    leaf: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.depth)

    @property
    def layers(self) -> int:
        """How often a layer is computed when beginnings are shared: nodes behind the embeddings."""
        return sum(d > 0 for d in self.depth)

    def route(self, path: int) -> list[int]:
        """The nodes of a path, from its embedding to where it ends."""
        nodes = [self.leaf[path]]
        while (parent := self.parent[nodes[-1]]) >= 0:
            nodes.append(parent)
        return nodes[::-1]


def build(paths: Sequence[Sequence[Hashable]]) -> Trie:
    """The trie of these paths, all of the same length: the embedding's variant, then each layer's from the bottom."""
    trie = Trie()
    found: dict[tuple[int, Hashable], int] = {}
    for path in paths:
        node = -1
        for depth, variant in enumerate(path):
            if (node, variant) not in found:
                found[node, variant] = len(trie)
                if node >= 0:
                    trie.children[node].append(len(trie))
                trie.depth.append(depth)
                trie.variant.append(variant)
                trie.parent.append(node)
                trie.children.append([])
            node = found[node, variant]
        trie.leaf.append(node)
    return trie


class Agenda:
    """Which states are computed next: those that meet the same variant of a layer go together.

    Breadth first, the lowest layer next, while `held` states leave room; depth first beyond, until half of the room is free again,
    so that at most about `room` states and one a layer are held however many paths there are.
    """

    def __init__(self, trie: Trie):
        self.trie = trie
        self.left = [len(c) for c in trie.children]  # children that are not computed yet
        self.ready: dict[tuple[int, Hashable], list[int]] = {}
        self.deep = False
        for node, parent in enumerate(trie.parent):
            if parent < 0:
                self.ready.setdefault((0, trie.variant[node]), []).append(node)

    def take(self, held: int, room: int, most: int) -> list[int]:
        """At most `most` nodes of one variant whose parents are computed; empty when all are done."""
        if not self.ready:
            return []
        self.deep = held >= room if not self.deep else 2 * held > room
        depths = [depth for depth, _ in self.ready]
        wanted = max(depths) if self.deep else min(depths)
        key = max((k for k in self.ready if k[0] == wanted), key=lambda k: len(self.ready[k]))
        nodes = self.ready[key]
        count = most if self.deep else max(1, min(most, room - held))
        chosen, rest = nodes[:count], nodes[count:]
        if rest:
            self.ready[key] = rest
        else:
            del self.ready[key]
        return chosen

    def done(self, node: int) -> bool:
        """Note that a node is computed; whether its parent's state is needed no more."""
        for child in self.trie.children[node]:
            self.ready.setdefault((self.trie.depth[child], self.trie.variant[child]), []).append(child)
        parent = self.trie.parent[node]
        if parent < 0:
            return False
        self.left[parent] -= 1
        return self.left[parent] == 0
