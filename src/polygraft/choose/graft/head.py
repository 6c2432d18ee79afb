"""Behind the last layer: norm and head on the tokens that are looked at and no others, a bounded block of logits at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from polygraft.choose.graft.frame import Frame
from polygraft.evals.engines import batches

BLOCK = 16 << 20  # elements of logits at a time
Wear = Callable[[], None]


def blocks(frame: Frame, hidden: Any, wear: Wear) -> Iterator[tuple[int, int, Any]]:
    """(start, stop, logits [stop - start, vocabulary]) of states [p, hidden]; `wear` puts norm and head on before each block."""
    step = max(1, BLOCK // frame.vocabulary)
    for start in range(0, len(hidden), step):
        wear()
        yield start, min(start + step, len(hidden)), frame.logits(hidden[start:start + step])


class Likelihoods:
    """nats (float64) and greedy (bool), [candidates, m]: of the ids `asked` (int64 [m, 2]: a row of the states, the id after it)."""

    def __init__(self, candidates: int, asked: np.ndarray):
        self.asked = asked
        self.nats = np.zeros((candidates, len(asked)))
        self.greedy = np.zeros((candidates, len(asked)), bool)

    def read(self, frame: Frame, candidate: int, hidden: Any, wear: Wear) -> None:
        """Of one candidate, whose states are [p, hidden]."""
        for start, stop, logits in blocks(frame, hidden, wear):
            first, last = np.searchsorted(self.asked[:, 0], [start, stop])
            if last > first:
                at, gold = self.asked[first:last].T
                self.nats[candidate, first:last], self.greedy[candidate, first:last] = batches.gathered(logits, at - start, gold)


class Reference:
    """The distributions that others are compared with: log-probabilities [p, vocabulary], kept where they take at most `limit` bytes,
    else computed again from the states behind the last layer."""

    def __init__(self, limit: int):
        self.limit, self.hidden, self.kept = limit, None, list[Any]()
        self.wear: Wear = lambda: None

    def read(self, frame: Frame, candidate: int, hidden: Any, wear: Wear) -> None:
        """Take the states of the reference."""
        self.hidden, self.wear = hidden.clone(), wear
        if 4 * len(hidden) * frame.vocabulary <= self.limit:
            self.kept = [logits.float().log_softmax(1) for _, _, logits in blocks(frame, hidden, wear)]

    def block(self, frame: Frame, number: int, start: int, stop: int) -> Any:
        """Log-probabilities of the tokens of one block."""
        if self.kept:
            return self.kept[number]
        self.wear()
        assert self.hidden is not None
        return frame.logits(self.hidden[start:stop]).float().log_softmax(1)


class Divergence:
    """kl float64 [candidates, p]: KL(reference || candidate) in nats, of the distributions after each token that is looked at."""

    def __init__(self, candidates: int, spots: int, reference: Reference):
        self.reference, self.kl = reference, np.zeros((candidates, spots))

    def read(self, frame: Frame, candidate: int, hidden: Any, wear: Wear) -> None:
        """As `Likelihoods.read`."""
        for number, (start, stop, logits) in enumerate(blocks(frame, hidden, wear)):
            q = logits.float().log_softmax(1)
            p = self.reference.block(frame, number, start, stop)
            self.kl[candidate, start:stop] = (p.exp() * (p - q)).double().sum(1).clamp(min=0).cpu().numpy()
