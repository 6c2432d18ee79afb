"""An evaluation within a time budget: which items of which jobs are asked, and what happens when it runs late all the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from polygraft.errors import RecipeError
from polygraft.evals.budget import PROBE_SHARE, SHARE, Budget, allocate, order, seconds_an_item, spoken
from polygraft.evals.engines.base import Engine
from polygraft.evals.run import Job

Records = list[dict[str, Any]]
Ask = Callable[[Sequence[Job]], list[Records]]
LEAST = 5  # units of a job that are asked even when the budget is too short for them
COUNTED = 16  # units whose tokens are counted to tell one language's length from another's


def units(job: Job, seed: int) -> list[list[int]]:
    """The places of a job's items (or documents) in the order in which a budget takes them.

    Items that are the same in every language have ids that differ by the language alone, and are taken together.
    """
    if job.documents:
        return order([str(i) for i in range(len(job.documents))], seed=seed)
    ids = [i.id.removeprefix(f"{job.language}-") for i in job.items]
    return order(ids, [i.stratum for i in job.items], [i.group for i in job.items], seed)


def picked(job: Job, places: Sequence[int]) -> Job:
    """The job with these of its items or documents, in their own order."""
    some = sorted(places)
    return replace(job, items=tuple(job.items[i] for i in some if job.items),
                   documents=tuple(job.documents[i] for i in some if job.documents), numbers=tuple(some))


def refuse_foreign(jobs: Sequence[Job]) -> None:
    """Raises RecipeError for lm-eval's own tasks: which of their items are asked is lm-eval's to say."""
    for job in jobs:
        if job.foreign is not None:
            raise RecipeError("a time budget cannot choose among the items of lm-eval's tasks", where=job.name,
                              fix="give `limit` instead of `time_budget`")


@dataclass
class Timing:
    """One evaluation of several models in `budget`; `weights` are what they cost, relative to one another."""

    budget: Budget
    weights: Sequence[float]
    seed: int = 0
    costs: list[float] = field(default_factory=list)  # predicted seconds of each chosen job, for the first model
    loading: float = 0.0  # seconds that opening the first model took
    opening: float | None = None  # when the first model began to open; what was before it, such as imports, happens once
    beyond: float = 0.0  # seconds that the least is predicted to take, where that is more than the budget
    offered: list[int] = field(default_factory=list)  # items that each job had
    offered_kept: list[int] = field(default_factory=list)  # of those, what the jobs had that are still asked
    left_out: list[Job] = field(default_factory=list)

    def choose(self, jobs: Sequence[Job], ask: Ask, engine: Engine) -> list[Job]:
        """The jobs with as many items as fit, timed with the first model (which is loaded by now). Reads nothing of any answer.

        What happens once (imports, the first calls) counts as spent and enters no prediction. Raises RecipeError when the time is
        over by then.
        """
        began = self.budget.start if self.opening is None else self.opening
        self.loading = self.budget.clock() - began
        order_of = [units(j, self.seed) for j in jobs]
        costs, timed, overhead = self._time(jobs, order_of, ask, engine)
        all_models = sum(self.weights) / self.weights[0]
        once = len(self.weights) * len(jobs) * overhead + (all_models - 1) * self.loading
        once -= sum(c * n for c, n in zip(costs, timed))  # which the first model is not asked again
        least = [max(n, min(LEAST, len(places))) for n, places in zip(timed, order_of)]
        needed = once + all_models * sum(c * n for c, n in zip(costs, least))
        self._refuse_late(needed)
        each = [c * all_models for c in costs]
        numbers = allocate(each, [len(places) for places in order_of], SHARE * self.budget.left - once, least)
        if not any(numbers):
            numbers, self.beyond = least, self.budget.seconds - self.budget.left + needed
        self.offered = [len(j.items) or len(j.documents) for j in jobs]
        self.offered_kept = self.offered
        self.costs = [c * n + overhead for c, n in zip(costs, numbers)]
        return [picked(j, [i for unit in places[:n] for i in unit]) for j, places, n in zip(jobs, order_of, numbers)]

    def _time(self, jobs: Sequence[Job], order_of: Sequence[list[list[int]]], ask: Ask,
              engine: Engine) -> tuple[list[float], list[int], float]:
        """(seconds a unit of each job, how many units of each were asked for that, seconds that asking a job takes at all)."""
        share = self.budget.seconds * self.weights[0] / sum(self.weights)
        allowed = PROBE_SHARE * share / len({j.name for j in jobs})
        rates: dict[str, float] = {}  # seconds a token, by task: its languages differ in tokens
        calls: list[float] = []  # seconds of each call beyond what its items took
        asked = [0] * len(jobs)
        for at, (job, places) in enumerate(zip(jobs, order_of)):
            if job.name in rates:
                continue
            items: set[int] = set()

            def timed(some: list[int], job: Job = job, items: set[int] = items) -> list[float]:
                self._refuse_late()
                started = self.budget.clock()
                [records] = ask([picked(job, some)])
                seconds = [r["seconds"] for r in records]
                calls.append(max(0.0, self.budget.clock() - started - sum(seconds)))
                items.update(some)
                return seconds
            rates[job.name] = seconds_an_item(timed, places, allowed) / tokens(job, places, engine)
            asked[at] = sum(unit[0] in items for unit in places)
        costs = [rates[j.name] * tokens(j, places, engine) for j, places in zip(jobs, order_of)]
        return costs, asked, median(calls[1:]) if calls[1:] else 0.0  # the first call is slow, and the only one that is

    def _refuse_late(self, needed: float = 0.0) -> None:
        """Raises RecipeError when the time is over before anything was chosen; `needed` more seconds ask the least."""
        if self.budget.left > 0:
            return
        spent = self.budget.seconds - self.budget.left
        enough = math.ceil(1.05 * (spent + needed) / SHARE)
        expected = f"about {spoken(enough)}" if needed > 0 else f"more than {spoken(math.ceil(spent))}"
        raise RecipeError("the time budget was over before it was known how many items fit", found=spoken(self.budget.seconds),
                          expected=expected, fix="give more time, or fewer tasks and languages")

    def run(self, model: int, jobs: Sequence[Job], ask: Ask) -> list[Records | None]:
        """The records of each job, None for those that the model's part of the time does not hold (the first is always asked).

        A job is asked whole or not at all, and what one model leaves out no other is compared on: see `without`. Where even the
        least goes beyond the budget, all of it is asked.
        """
        later = sum(self.weights[model + 1:])
        part = self.weights[model] / (self.weights[model] + later)  # of what is left, less loading the others
        end = self.budget.clock() + part * (self.budget.left - self.loading * later / self.weights[0])
        found: list[Records | None] = []
        for job, cost in zip(jobs, self.costs):
            late = bool(found) and not self.beyond and self.budget.clock() + cost * self.weights[model] / self.weights[0] > end
            found += [None] if late else ask([job])
        return found

    def without(self, jobs: Sequence[Job], found: Sequence[Records | None]) -> list[int]:
        """The places of the jobs that were asked; the others are left out from here on."""
        kept = [i for i, records in enumerate(found) if records is not None]
        self.left_out += [j for i, j in enumerate(jobs) if i not in kept]
        self.costs, self.offered_kept = [self.costs[i] for i in kept], [self.offered_kept[i] for i in kept]
        return kept

    def said(self, jobs: Sequence[Job]) -> tuple[str, ...]:
        """What a reader must know: how many items were asked, how they were chosen, and what there was no time for."""
        asked = [len(j.items) or len(j.documents) for j in jobs]
        each = [f"{j.title} {j.language} {n:,} of {of:,}" for j, n, of in zip(jobs, asked, self.offered_kept) if n < of]
        budget, n, of = spoken(self.budget.seconds), sum(asked), sum(self.offered)
        out = [f"Within a time budget of {budget}, {n:,} of {of:,} items were asked, picked by the hash of their ids, evenly over "
               "strata, before any answer was seen" + f" ({', '.join(each)})" * bool(each) + "."]
        if self.beyond:
            out.append(f"The time budget of {budget} could not be kept: a few items of every task, language and model were "
                       f"predicted to take about {spoken(math.ceil(self.beyond))}. Scores of so few items say little.")
        if self.left_out:
            names = ", ".join(f"{j.title} {j.language}" for j in self.left_out)
            out.append(f"Left out for every model, because the time ran out: {names}.")
        return tuple(out)


def tokens(job: Job, places: Sequence[Sequence[int]], engine: Engine) -> float:
    """Tokens that a unit of a job takes on average, from the first of its order; at least 1."""
    some = [i for unit in places[:COUNTED] for i in unit]
    texts = [job.documents[i] if job.documents else job.items[i].prompt + "".join(job.items[i].choices) for i in some]
    return max(1.0, sum(map(engine.count, texts)) / max(1, len(places[:COUNTED])))
