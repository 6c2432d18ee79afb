"""The walk through a trie of layers: states go up together where they meet the same weights, and as few are held as must be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from polygraft.choose.graft.frame import Frame
from polygraft.choose.graft.parameters import Parameters
from polygraft.choose.graft.pieces import Read
from polygraft.choose.graft.scores import Work
from polygraft.choose.graft.trie import Agenda, Trie
from polygraft.choose.graft.variants import Variant
from polygraft.errors import ResourceError

Arrived = Callable[[int, Any], None]  # a leaf and its states [spots, hidden] where tokens are read


class States(Protocol):
    """Hidden states by node: `polygraft.spill.Spill`, or `Memory`."""

    def put(self, number: int, value: Any) -> None: ...
    def get(self, number: int, device: str = "cpu") -> Any: ...
    def drop(self, number: int) -> None: ...


class Memory:
    """Hidden states where they were computed: nothing is copied."""

    def __init__(self) -> None:
        self.held: dict[int, Any] = {}

    def put(self, number: int, value: Any) -> None:
        self.held[number] = value

    def get(self, number: int, device: str = "cpu") -> Any:
        return self.held[number]

    def drop(self, number: int) -> None:
        self.held.pop(number, None)


class Walk:
    """Computes every node of a trie once; `arrived` gets each leaf's states where tokens are read.

    together: states side by side in one call; room: states held before the walk goes depth first (None: never, all of a layer are
    computed before the next, as parameters that are read from files want it).
    """

    def __init__(self, frame: Frame, parameters: Parameters, states: States, *, together: int, room: int | None, work: Work):
        self.frame, self.parameters, self.states = frame, parameters, states
        self.together, self.room, self.work = together, room, work

    def run(self, trie: Trie, read: Read, arrived: Arrived, progress: Callable[[], None]) -> None:
        """Raises ResourceError when memory does not hold one state."""
        import torch

        agenda, held, leaves = Agenda(trie), 0, set(trie.leaf)
        spots = torch.from_numpy(read.spots)
        worn: Variant | None = None
        while nodes := agenda.take(held, self.room or len(trie) + 1, self.together):
            variant: Any = trie.variant[nodes[0]]
            if worn is not None and worn != variant:
                self.parameters.forget(worn)
            worn = variant
            self.parameters.wear(variant)
            for node, value in zip(nodes, self._computed(trie, nodes, agenda, read)):
                held += 1
                self.work.states = max(self.work.states, held)
                if agenda.done(node):
                    self.states.drop(trie.parent[node])
                    held -= 1
                if node in leaves:
                    arrived(node, value[spots.to(value.device)])
                if trie.children[node]:
                    self.states.put(node, value)
                else:
                    held -= 1
                progress()
        if worn is not None:
            self.parameters.forget(worn)

    def _computed(self, trie: Trie, nodes: list[int], agenda: Agenda, read: Read) -> Sequence[Any]:
        import torch

        depth = trie.depth[nodes[0]]
        if depth == 0:
            made = [torch.cat([self.frame.embed(piece) for piece in read.pieces]) for _ in nodes]
            return made
        before = [self.states.get(trie.parent[node], self.frame.device) for node in nodes]
        out = [h if agenda.left[trie.parent[n]] == 1 and len(nodes) == 1 else torch.empty_like(h) for n, h in zip(nodes, before)]
        self.frame.layer(depth - 1, read.pieces, before, out)
        self.work.layers += len(nodes)
        return out
