"""The walk through a trie of layers: states go up together where they meet the same weights, and as few are held as must be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from polygraft.choose.graft.frame import Frame
from polygraft.choose.graft.parameters import Parameters
from polygraft.choose.graft.pieces import Read
from polygraft.choose.graft.scores import Work
from polygraft.choose.graft.trie import Agenda, Trie
from polygraft.errors import ResourceError

Computed = Callable[[int, Any], None]  # a node and its states [tokens, hidden]


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
    """Computes every node of a trie once.

    together: states side by side in one call; when memory runs out they get fewer. room: states held before the walk goes depth
    first (None: never, all of a layer are computed before the next, as parameters that come from files want it).
    """

    def __init__(self, frame: Frame, parameters: Parameters, states: States, *, together: int, room: int | None, work: Work):
        self.frame, self.parameters, self.states = frame, parameters, states
        self.together, self.room, self.work = together, room, work

    def run(self, trie: Trie, read: Read, computed: Computed) -> None:
        """`computed` is told of every node. Raises ResourceError when memory does not hold one state in one layer."""
        agenda, held, depth = Agenda(trie), 0, 0
        while nodes := agenda.take(held, self.room or len(trie) + 1, self.together):
            if depth != trie.depth[nodes[0]]:
                self.parameters.forget(depth - 1)
                depth = trie.depth[nodes[0]]
            self.parameters.wear(trie.variant[nodes[0]])  # type: ignore[arg-type]
            for node, value in zip(nodes, self._in_memory(trie, nodes, agenda, read)):
                held += 1
                self.work.states = max(self.work.states, held)
                if agenda.done(node):
                    self.states.drop(trie.parent[node])
                    held -= 1
                computed(node, value)
                if trie.children[node]:
                    self.states.put(node, value)
                else:
                    held -= 1
        self.parameters.forget(depth - 1)

    def _in_memory(self, trie: Trie, nodes: list[int], agenda: Agenda, read: Read) -> list[Any]:
        """The states of some nodes of one variant, fewer at a time when memory runs out."""
        import torch

        try:
            return self._computed(trie, nodes, agenda, read)
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                raise
        if len(nodes) == 1:
            raise ResourceError("the memory does not hold one hidden state in one layer", found=f"{read.tokens:,} tokens",
                                fix="use a smaller dtype, fewer batch_tokens, or a larger device")
        self.together = half = len(nodes) // 2
        self.frame.forget()
        torch.cuda.empty_cache()  # does nothing where there is none
        return [*self._in_memory(trie, nodes[:half], agenda, read), *self._in_memory(trie, nodes[half:], agenda, read)]

    def _computed(self, trie: Trie, nodes: list[int], agenda: Agenda, read: Read) -> list[Any]:
        import torch

        depth = trie.depth[nodes[0]]
        if depth == 0:
            return [torch.cat([self.frame.embed(piece) for piece in read.pieces]) for _ in nodes]
        before = [self.states.get(trie.parent[node], self.frame.device) for node in nodes]
        # the last to need a state may overwrite it; of two halves of a batch the second may fail, so only where it is alone
        out = [h if len(nodes) == 1 and agenda.left[trie.parent[n]] == 1 else torch.empty_like(h) for n, h in zip(nodes, before)]
        self.frame.layer(depth - 1, read.pieces, before, out, read.spots if depth == self.frame.anatomy.layers else None)
        return out
