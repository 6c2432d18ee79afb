"""An evaluation within a time budget: which items of which jobs are asked, and what happens when it runs late all the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from polygraft.errors import RecipeError
from polygraft.evals.budget import PROBE_SHARE, SHARE, Budget, allocate, order, seconds_an_item, spoken
from polygraft.evals.engines.base import Engine
from polygraft.evals.run import Job

Records = list[dict[str, Any]]
Ask = Callable[[Sequence[Job]], list[Records]]
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
    offered: list[int] = field(default_factory=list)  # items that each job had
    offered_kept: list[int] = field(default_factory=list)  # of those, what the jobs had that are still asked
    left_out: list[Job] = field(default_factory=list)

    def choose(self, jobs: Sequence[Job], ask: Ask, engine: Engine) -> list[Job]:
        """The jobs with as many items as fit, timed with the first model (which is loaded by now). Reads nothing of any answer."""
        clock, order_of = self.budget.clock, [units(j, self.seed) for j in jobs]
        share = self.budget.seconds * self.weights[0] / sum(self.weights)
        allowed = PROBE_SHARE * share / len({j.name for j in jobs})
        rates: dict[str, float] = {}  # seconds a token, by task: its languages differ in tokens
        started, calls, spent = clock(), 0, 0.0
        least = [1] * len(jobs)
        for at, (job, places) in enumerate(zip(jobs, order_of)):
            if job.name in rates:
                continue

            timed_items: list[int] = []

            def timed(some: list[int], job: Job = job, timed_items: list[int] = timed_items) -> list[float]:
                nonlocal calls, spent
                [records] = ask([picked(job, some)])
                timed_items += some
                calls, spent = calls + 1, spent + sum(r["seconds"] for r in records)
                return [r["seconds"] for r in records]
            rates[job.name] = seconds_an_item(timed, places, allowed) / tokens(job, places, engine)
            least[at] = sum(unit[0] in timed_items for unit in places)  # these are asked by now
        overhead = max(0.0, clock() - started - spent) / max(1, calls) * len(jobs)  # of asking a job at all
        costs = [rates[j.name] * tokens(j, places, engine) for j, places in zip(jobs, order_of)]
        before = started - self.budget.start  # loading; what was asked since is asked only once
        numbers = allocate(costs, [len(places) for places in order_of], SHARE * (share - before - overhead), least)
        if not any(numbers):
            raise self._too_short(before + overhead + sum(c * n for c, n in zip(costs, least)) / SHARE)
        self.offered = [len(j.items) or len(j.documents) for j in jobs]
        self.offered_kept = self.offered
        self.costs = [c * n + overhead / len(jobs) for c, n in zip(costs, numbers)]
        return [picked(j, [i for unit in places[:n] for i in unit]) for j, places, n in zip(jobs, order_of, numbers)]

    def _too_short(self, least: float) -> RecipeError:
        """`least` seconds are what the first model needs."""
        whole = math.ceil(1.05 * least * sum(self.weights) / self.weights[0])
        return RecipeError("the time budget is too short for one item of every task and language",
                           found=spoken(self.budget.seconds), expected=f"at least about {spoken(whole)}",
                           fix="give more time, or fewer tasks and languages")

    def run(self, model: int, jobs: Sequence[Job], ask: Ask) -> list[Records | None]:
        """The records of each job, None for those that the model's part of the time does not hold (the first is always asked).

        A job is asked whole or not at all, and what one model leaves out no other is compared on: see `without`.
        """
        end = self.budget.start + self.budget.seconds * sum(self.weights[:model + 1]) / sum(self.weights)
        found: list[Records | None] = []
        for job, cost in zip(jobs, self.costs):
            late = bool(found) and self.budget.clock() + cost * self.weights[model] / self.weights[0] > end
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
        if self.left_out:
            names = ", ".join(f"{j.title} {j.language}" for j in self.left_out)
            out.append(f"Left out for every model, because the time ran out: {names}.")
        return tuple(out)


def tokens(job: Job, places: Sequence[Sequence[int]], engine: Engine) -> float:
    """Tokens that a unit of a job takes on average, from the first of its order; at least 1."""
    some = [i for unit in places[:COUNTED] for i in unit]
    texts = [job.documents[i] if job.documents else job.items[i].prompt + "".join(job.items[i].choices) for i in some]
    return max(1.0, sum(map(engine.count, texts)) / max(1, len(places[:COUNTED])))
