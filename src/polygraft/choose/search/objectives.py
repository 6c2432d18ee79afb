"""What decides: one number or several for every candidate, each a score that the evaluation would show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from polygraft.choose.search.asking import DIVERGENCE, Ask
from polygraft.errors import RecipeError, suggestion
from polygraft.evals import metrics
from polygraft.evals.metrics.base import Metric
from polygraft.evals.metrics.likelihood import BITS
from polygraft.evals.verdicts import compare
from polygraft.evals.verdicts.compare import Figure
from polygraft.evals.verdicts.measures import Measure

Part = tuple[int, str]  # the number of an ask, the name of one of its metrics


@dataclass(frozen=True)
class Objective:
    """A score: the mean of one metric over some asks. `part`s are in the asks' order."""

    name: str
    metric: Metric
    parts: tuple[Part, ...]

    @property
    def sign(self) -> float:
        """1 where more is better, -1 where less is."""
        return 1.0 if self.metric.higher_is_better else -1.0

    def figure(self, measures: Mapping[Part, Measure]) -> Figure:
        """The score as the verdicts know it."""
        some = tuple(measures[p] for p in self.parts)
        return Figure(self.name, "", self.metric, some, compare.MEAN if len(some) > 1 else compare.ONE)

    def values(self, measures: Mapping[Part, Measure], names: Sequence[str]) -> np.ndarray:
        """float64 [candidates]: the score of each, in the metric's unit; NaN where no item is defined for it."""
        f = self.figure(measures)
        return np.array([f.observed(n) * self.metric.scale if n in f.models else np.nan for n in names])


def deciding(ask: Ask, wanted: str) -> Metric:
    """The metric of an ask that decides: the wanted one where it has it, else its first."""
    if ask.reference:
        return DIVERGENCE
    if ask.job.task is None:
        return BITS
    own = ask.job.task.metrics
    return metrics.get(wanted if wanted in own else own[0])


def resolve(words: Sequence[str], asks: Sequence[Ask], wanted: str) -> tuple[Objective, ...]:
    """The objectives that words name, or all that is asked, together where it is one metric. Raises RecipeError."""
    every = [(i, deciding(a, wanted)) for i, a in enumerate(asks)]
    if not words:
        groups: dict[tuple[str, str], list[int]] = {}
        for i, metric in every:
            groups.setdefault((metric.name, "" if metric.averages else asks[i].job.language), []).append(i)
        return tuple(_made(_name([asks[i] for i in some]), some, asks, wanted) for some in groups.values())
    known = list(dict.fromkeys(w for a in asks for w in (a.label, a.title, a.job.language)))
    found = []
    for word in words:
        some = [i for i, a in enumerate(asks) if word in (a.label, a.title, a.job.language)]
        if not some:
            raise RecipeError("nothing that is asked has this name", where="objectives", found=word, expected=", ".join(known),
                              fix=suggestion(word, known))
        found.append(_made(word, some, asks, wanted))
    if len({o.parts for o in found}) < len(found):
        raise RecipeError("one objective is named twice", where="objectives", found=", ".join(words), expected="each once")
    return tuple(found)


def _name(some: Sequence[Ask]) -> str:
    if len(some) == 1:
        return some[0].label
    titles, tags = dict.fromkeys(a.title for a in some), dict.fromkeys(a.job.language for a in some)
    return f"{'+'.join(titles)}:{'+'.join(tags)}"


def _made(name: str, some: Sequence[int], asks: Sequence[Ask], wanted: str) -> Objective:
    each = [deciding(asks[i], wanted) for i in some]
    if len({(m.unit, m.higher_is_better) for m in each}) > 1:
        said = ", ".join(f"{asks[i].label}: {m.name}" for i, m in zip(some, each))
        raise RecipeError("scores of different kinds have no mean", where=f"objectives: {name}", found=said,
                          fix="name them as objectives of their own, such as problems:es and bpb:en")
    return Objective(name, each[0], tuple((i, m.name) for i, m in zip(some, each)))


def unknown_metric(wanted: str, asks: Sequence[Ask]) -> RecipeError | None:
    """What is wrong with a metric that nothing has; the default is never wrong."""
    own = {m for a in asks if a.job.task is not None for m in a.job.task.metrics}
    if wanted in own or wanted == "nats" or not own:
        return None
    return RecipeError("no task that is asked has this metric", where="metric", found=wanted, fix=suggestion(wanted, own))


def front(values: np.ndarray) -> list[int]:
    """The Pareto front of float64 [candidates, objectives], more being better: those that no other is at least as good as
    everywhere and better somewhere. Of equal ones the first stands for all; a candidate with a NaN is in no front."""
    out = []
    for i, v in enumerate(values):
        beaten = (values >= v).all(axis=1) & ((values > v).any(axis=1) | (np.arange(len(values)) < i))
        if np.isfinite(v).all() and not beaten.any():
            out.append(i)
    return out


def ranks(values: np.ndarray) -> np.ndarray:
    """int [candidates]: 0 for the front, 1 for the front of the others, and so on (non-dominated sorting, Deb et al. 2002)."""
    rank, left, at = np.full(len(values), len(values)), list(range(len(values))), 0
    while left:
        here = front(values[left])
        if not here:
            break
        for i in here:
            rank[left[i]] = at
        left, at = [i for k, i in enumerate(left) if k not in set(here)], at + 1
    return rank


def best(values: np.ndarray, reference: np.ndarray | None = None, tolerance: float = 0.0) -> list[int]:
    """The candidates, best first: by the first objective, those first that are in every other one no worse than the reference
    (less `tolerance`). values float64 [candidates, objectives], reference [objectives]: more is better. Ties: the earlier one."""
    kept = np.full(len(values), True)
    if reference is not None and values.shape[1] > 1:
        kept &= (values[:, 1:] >= reference[1:] - tolerance).all(axis=1)
    finite = np.nan_to_num(values[:, 0], nan=-np.inf)
    return sorted(range(len(values)), key=lambda i: (not kept[i], -finite[i], i))
