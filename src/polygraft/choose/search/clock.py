"""A search within a time budget: fewer items first, then fewer candidates, decided by how long they take and by no score.

The evaluation's own budget (`evals.budget`) says how a length of time is written and which share of it may be planned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from polygraft.choose.candidates import Candidate
from polygraft.choose.search.asking import Units
from polygraft.choose.search.judge import Judge, Some, first, size
from polygraft.errors import RecipeError
from polygraft.evals.budget import SHARE, Budget, spoken

CONFIRMING = 0.3  # of the time, at most
SHARED = 3.0  # a grid's candidates are predicted to take no more than a third of what as many strangers would


@dataclass
class Clock:
    """The time of one search; budget None: no limit. `each`: seconds that a candidate which shares nothing takes for an item.

    finalists: candidates that are confirmed; anchors: those of them that are asked every item that chose, too. notes: what a
    reader must know of what there was no time for.
    """

    budget: Budget | None = None
    finalists: int = 10
    anchors: int = 0
    each: float = 0.0
    notes: list[str] = field(default_factory=list)

    def spend(self, seconds: float) -> None:
        """Count what an earlier run of this search took for answers that it left: all runs together have one budget."""
        if self.budget is not None:
            self.budget.start -= seconds

    def left(self, held: Some, select: Some = ()) -> float:
        """Seconds that choosing may still take: what is left, less confirming, and less asking the anchors what chose."""
        if self.budget is None:
            return float("inf")
        return SHARE * self.budget.left - self.each * (self.finalists * size(held) + self.anchors * size(select))

    def start(self, judge: Judge, anchors: Sequence[Candidate], some: Some, least: int) -> None:
        """Time the anchors on the first items, which are asked in any case: once to warm up, and once to measure."""
        if self.budget is None:
            return
        self.anchors = len(anchors)
        judge.ask(anchors[:1], first(some, 0.0))
        began = judge.asked
        part = first(some, 0.0, least)
        took = judge.ask(anchors, part)
        self.each = took / max(1, len(anchors) * size(part)) if judge.asked > began else 0.0

    def fitting(self, judge: Judge, candidates: Sequence[Candidate], select: Some, held: Some, least: int,
                times: float = 1.0) -> tuple[list[Candidate], list[Units], list[Units]]:
        """The candidates that fit, the items to choose by and those to confirm by. All candidates are asked the first items.

        times: how often the items are gone through in all, for strategies of several rounds. Raises RecipeError when not even a
        few candidates on the fewest items fit.
        """
        if self.budget is None:
            return list(candidates), list(select), list(held)
        confirming = first(held, CONFIRMING * self.budget.left / max(1e-9, self.each * self.finalists * size(held)), least)
        few = first(select, 0.0, least)
        some = self._thinned(candidates, size(few), confirming)
        rate = judge.ask(some, few) / size(few) * times + self.each * self.anchors  # seconds an item
        asked = size(few) + self.left(confirming) / max(1e-9, rate)
        choosing = first(select, asked / size(select), least)
        if size(choosing) < size(select) or size(confirming) < size(held):
            self.notes.append(f"Within a time budget of {spoken(self.budget.seconds)}, {size(choosing):,} of {size(select):,} "
                              f"items chose and {size(confirming):,} of {size(held):,} confirmed, picked by the hash of their "
                              "ids before any answer was seen.")
        return some, choosing, confirming

    def _thinned(self, candidates: Sequence[Candidate], items: int, held: Some) -> list[Candidate]:
        """Every candidate, or every second, third ... of them, so many as the least items leave time for."""
        assert self.budget is not None
        each, left = self.each * items / SHARED, self.left(held)
        most = int(left / each) if each > 0 else len(candidates)
        if most >= len(candidates):
            return list(candidates)
        if most < 2:
            raise RecipeError("the time budget does not hold a search", where="time_budget", found=spoken(self.budget.seconds),
                              expected=f"about {spoken((each * min(8, len(candidates)) + self.budget.seconds - left) * 1.2)}",
                              fix="give more time, or shorter and fewer items")
        step = -(-len(candidates) // most)
        self.notes.append(f"{len(candidates):,} candidates do not fit the time budget of {spoken(self.budget.seconds)}: one "
                          f"in {step} was tried.")
        return list(candidates[::step])

    def another(self, seconds: float, held: Some, select: Some = ()) -> bool:
        """Whether a round that is predicted to take so long still fits, where all are asked `select` then."""
        return seconds <= self.left(held, select)

    def over(self, select: Some, every: Some) -> None:
        """Say how many items chose where there was no time for another round."""
        self.notes.append(f"The time was over after {size(select):,} of {size(every):,} items to choose by.")


def clock(seconds: float | None, finalists: int, now: Callable[[], float] | None = None) -> Clock:
    """The clock of a search that begins now."""
    if seconds is None:
        return Clock(None, finalists)
    return Clock(Budget(seconds, now) if now else Budget(seconds), finalists)
