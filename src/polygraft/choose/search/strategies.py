"""How candidates are gone through. Each strategy asks a Judge and returns what it saw; none decides what is best.

grid     every window on every item
halving  every window on few items, the better half on twice as many, and so on (successive halving: Jamieson & Talwalkar 2016)
greedy   from the task expert: in each round every run of layers is exchanged alone, and the best exchange stays
optuna   mixtures of layers proposed by Optuna's samplers (`proposals`)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from polygraft.choose.candidates import Candidate
from polygraft.choose.search.asking import Units
from polygraft.choose.search.clock import Clock
from polygraft.choose.search.config import CONFIRM, SELECT
from polygraft.choose.search.judge import Judge, Some, first, size
from polygraft.choose.search.objectives import best, ranks
from polygraft.choose.search.space import Space

FINAL = 4  # candidates that are left at the end of halving
BLOCK = 32  # items asked between two looks at the clock
LEAST = max(SELECT, CONFIRM)


@dataclass(frozen=True)
class Round:
    """One round: how many candidates were asked how many items (in all, by its end), and the best one then."""

    candidates: int
    items: int
    best: str


@dataclass
class Trail:
    """What a strategy saw: `candidates` were all asked `select`, `dropped` fewer items. `held` are left to confirm by."""

    candidates: list[Candidate]
    select: list[Units]
    held: list[Units]
    dropped: list[Candidate] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)


@dataclass(frozen=True)
class Search:
    """What every strategy works with. `reference`: the name of what candidates may not be worse than, of `anchors`."""

    space: Space
    judge: Judge
    clock: Clock
    anchors: Sequence[Candidate]
    reference: str
    tolerance: float = 0.0

    def order(self, candidates: Sequence[Candidate], some: Some) -> list[int]:
        """Places of the candidates, best first, on items that they and the reference have been asked."""
        at = next(a for a in self.anchors if a.name == self.reference)
        self.judge.ask([at], some)
        return best(self.judge.scores(candidates, some), self.judge.scores([at], some)[0], self.tolerance)

    def round(self, candidates: Sequence[Candidate], some: Some) -> Round:
        return Round(len(candidates), size(some), candidates[self.order(candidates, some)[0]].name)


Strategy = Callable[[Search, Some, Some], Trail]


def grid(search: Search, select: Some, held: Some) -> Trail:
    """Every window on every item; with a clock, on as many as there is time for."""
    some, select, held = search.clock.fitting(search.judge, search.space.grid(), select, held, LEAST)
    done = blocks(search, some, select, held)
    return Trail(some, done, held, rounds=[search.round(some, done)])


def blocks(search: Search, candidates: Sequence[Candidate], select: Some, held: Some) -> list[Units]:
    """Ask a block of items at a time, as long as there is time for another; -> the items that all have been asked."""
    parts = max(1, -(-size(select) // BLOCK))
    done, longest = first(select, 0.0, LEAST), 0.0
    for k in range(1, parts + 1):
        more = first(select, k / parts, LEAST)
        if not search.clock.another(longest, held, more):
            search.clock.over(done, select)
            break
        done = more
        longest = max(longest, search.judge.ask(candidates, done))
    return done


def halving(search: Search, select: Some, held: Some) -> Trail:
    """The worse half is dropped after each round, and what is left is asked twice as many items."""
    every = search.space.grid()
    rounds = max(1, min(search.space.config.rounds, 1 + int(math.log2(max(1, len(every) / FINAL)))))
    left, select, held = search.clock.fitting(search.judge, every, select, held, LEAST, times=rounds / 2 ** (rounds - 1))
    dropped: list[Candidate] = []
    told, done, rate = [], first(select, 0.0, LEAST), 0.0  # seconds of a candidate for an item
    for k in range(rounds):
        part = first(select, 2.0 ** (k + 1 - rounds), LEAST)
        work = len(left) * max(0, size(part) - size(done))
        if not search.clock.another(rate * work, held, part):
            search.clock.over(done, select)
            select = done
            break
        took = search.judge.ask(left, part)
        done, rate = part, took / work if work else rate
        told.append(search.round(left, part))
        if k == rounds - 1 or size(part) == size(select):
            break
        kept = halves(search.judge.scores(left, part), max(FINAL, -(-len(left) // 2)))
        dropped += [c for i, c in enumerate(left) if i not in kept]
        left = [left[i] for i in kept]
    search.judge.ask(left, select)
    return Trail(left, select, held, dropped, told)


def halves(values: np.ndarray, keep: int) -> list[int]:
    """Places of the `keep` best rows of float64 [candidates, objectives] in their own order: by front, then by the first score."""
    rank = ranks(values)
    order = sorted(range(len(values)), key=lambda i: (rank[i], -values[i, 0], i))
    return sorted(order[:keep])


def greedy(search: Search, select: Some, held: Some) -> Trail:
    """From the task expert's layers; every pair of experts goes its own way."""
    space, seen, told = search.space, dict[str, Candidate](), list[Round]()
    starts = [space.mixture(pair, [0.0] * len(space.genes())) for pair in space.pairs]
    around = [c for pair in space.pairs for c in _exchanges(space, pair, [0.0] * len(space.genes()))]
    times = len(space.pairs) * search.space.config.rounds
    _, select, held = search.clock.fitting(search.judge, [*starts, *around], select, held, LEAST, times=max(1, times // 2))
    for pair, start in zip(space.pairs, starts):
        genes, now, took = [0.0] * len(space.genes()), start, 0.0
        seen[now.name] = now
        took = search.judge.ask([now], select)
        for _ in range(space.config.rounds):
            if not search.clock.another(took, held, select):
                search.clock.notes.append(f"The time was over after {len(told)} rounds of exchanges.")
                break
            tried = _exchanges(space, pair, genes)
            took = search.judge.ask(tried, select)
            seen |= {c.name: c for c in tried}
            winner = search.order([now, *tried], select)[0]
            told.append(Round(len(tried), size(select), [now, *tried][winner].name))
            if winner == 0:
                break
            genes[winner - 1] = 1.0 - genes[winner - 1]
            now = tried[winner - 1]
    return Trail(list(seen.values()), select, held, rounds=told)


def _exchanges(space: Space, pair: tuple[str, str], genes: Sequence[float]) -> list[Candidate]:
    """Every gene changed alone."""
    return [space.mixture(pair, [*genes[:i], 1.0 - g, *genes[i + 1 :]]) for i, g in enumerate(genes)]
