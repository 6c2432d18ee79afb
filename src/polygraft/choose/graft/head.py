"""Behind the last layer: norm and head on the tokens that are looked at and no others, a bounded block of logits at a time.

Candidates that end alike are read side by side: a head's weights are large, and a few tokens each would not pay for fetching them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

from polygraft.choose.graft.frame import Frame
from polygraft.choose.graft.variants import Variant
from polygraft.evals.engines import batches

BLOCK = 16 << 20  # elements of logits at a time
SIDE = 16  # candidates side by side
Wear = Callable[[], None]


class Reading(Protocol):
    """What is made of states [c, p, hidden] of some candidates; `wear` puts their norm and head on."""

    def read(self, frame: Frame, candidates: Sequence[Sequence[int]], hidden: Any, wear: Wear) -> None: ...


def blocks(frame: Frame, hidden: Any, wear: Wear) -> Iterator[tuple[int, int, Any]]:
    """(start, stop, logits [c, stop - start, vocabulary]) of states [c, p, hidden], all candidates and some of the tokens each."""
    count, tokens, width = hidden.shape
    step = max(1, BLOCK // (frame.vocabulary * count))
    for start in range(0, tokens, step):
        wear()
        some = hidden[:, start:start + step]
        yield start, min(start + step, tokens), frame.logits(some.reshape(-1, width)).view(count, some.shape[1], -1)


class Likelihoods:
    """nats (float64) and greedy (bool), [candidates, m]: of the ids `asked` (int64 [m, 2]: a row of the states, the id after)."""

    def __init__(self, candidates: int, asked: np.ndarray):
        self.asked = asked
        self.nats = np.zeros((candidates, len(asked)))
        self.greedy = np.zeros((candidates, len(asked)), bool)

    def read(self, frame: Frame, candidates: Sequence[Sequence[int]], hidden: Any, wear: Wear) -> None:
        """As `Reading.read`; candidates that are the same model stand together."""
        for start, stop, logits in blocks(frame, hidden, wear):
            first, last = np.searchsorted(self.asked[:, 0], [start, stop])
            at, gold = self.asked[first:last].T
            rows = (np.arange(len(candidates))[:, None] * (stop - start) + at - start).reshape(-1)
            found = batches.gathered(logits.flatten(0, 1), rows, np.tile(gold, len(candidates)))
            for same, nats, greedy in zip(candidates, *(x.reshape(len(candidates), -1) for x in found)):
                self.nats[same, first:last], self.greedy[same, first:last] = nats, greedy


class Reference:
    """What others are compared with: log-probabilities, kept where they take at most `limit` bytes, else computed once more from
    the states behind the last layer. sums: float64 [p], of each token's log-probabilities: whether they are numbers."""

    def __init__(self, tokens: int, limit: int):
        self.limit, self.hidden, self.sums = limit, None, np.zeros(tokens)
        self.wear: Wear = lambda: None
        self.kept: Any = None

    def read(self, frame: Frame, candidates: Sequence[Sequence[int]], hidden: Any, wear: Wear) -> None:
        """Take the states of the reference, the only candidate."""
        import torch

        self.hidden, self.wear = hidden, wear
        keep = 4 * hidden.shape[1] * frame.vocabulary <= self.limit
        found = []
        for start, stop, logits in blocks(frame, hidden, wear):
            p = logits[0].float().log_softmax(1)
            self.sums[start:stop] = p.double().sum(1).cpu().numpy()
            found += [p] * keep
        self.kept = torch.cat(found) if found else None

    def block(self, frame: Frame, start: int, stop: int) -> Any:
        """Log-probabilities [stop - start, vocabulary]."""
        if self.kept is not None:
            return self.kept[start:stop]
        self.wear()
        assert self.hidden is not None
        return frame.logits(self.hidden[0, start:stop]).float().log_softmax(1)


class Divergence:
    """kl float64 [candidates, p]: KL(reference || candidate) in nats, of the distributions after each token that is looked at."""

    def __init__(self, candidates: int, tokens: int, reference: Reference):
        self.reference, self.kl = reference, np.zeros((candidates, tokens))

    def read(self, frame: Frame, candidates: Sequence[Sequence[int]], hidden: Any, wear: Wear) -> None:
        """As `Likelihoods.read`."""
        for start, stop, logits in blocks(frame, hidden, wear):
            p = self.reference.block(frame, start, stop)
            for same, own in zip(candidates, logits):
                q = own.float().log_softmax(1)
                self.kl[same, start:stop] = (p.exp() * (p - q)).double().sum(1).clamp(min=0).cpu().numpy()  # NaN stays NaN


class Arrived:
    """Collects candidates behind their last layer until some can be read together, or wait for more than `limit` bytes. `wear` puts
    a variant's parameters on."""

    def __init__(self, frame: Frame, wear: Callable[[Variant], None], reading: Reading, limit: int):
        self.frame, self.wear, self.reading, self.limit, self.held = frame, wear, reading, limit, 0
        self.waiting: dict[Variant, list[tuple[list[int], Any]]] = {}

    def add(self, end: Variant, candidates: list[int], hidden: Any) -> None:
        """Candidates that are one model, with this norm and head, and their states [p, hidden]."""
        waiting = self.waiting.setdefault(end, [])
        waiting.append((candidates, hidden))
        self.held += hidden.nbytes
        if len(waiting) == SIDE or self.held > self.limit:
            self._read(end)

    def flush(self) -> None:
        """Read all that wait."""
        for end in list(self.waiting):
            self._read(end)

    def _read(self, end: Variant) -> None:
        import torch

        waiting = self.waiting.pop(end)
        self.held -= sum(h.nbytes for _, h in waiting)
        self.reading.read(self.frame, [c for c, _ in waiting], torch.stack([h for _, h in waiting]), partial(self.wear, end))
