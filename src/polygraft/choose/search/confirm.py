"""No winner by noise: what was chosen is asked items that took no part in the choice, beside what it must beat.

Every finalist is compared with every control on the same held-out items: exact McNemar tests and Newcombe intervals where items
are right or wrong, paired bootstrap else (`evals.verdicts.compare`), adjusted over a finalist's comparisons of a metric (Holm).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from polygraft import stats
from polygraft.anatomy import Anatomy
from polygraft.choose.candidates import Candidate, windows
from polygraft.choose.search.asking import Units
from polygraft.choose.search.judge import Judge
from polygraft.choose.search.objectives import Objective, Part, front
from polygraft.choose.search.space import content
from polygraft.choose.search.strategies import Search, Trail
from polygraft.evals.verdicts import compare
from polygraft.evals.verdicts.compare import Difference, Figure
from polygraft.evals.verdicts.measures import Measure
from polygraft.result import Estimate

FRONT = 6  # members of the front that are confirmed besides the best
SEEDS = 1000  # random windows are drawn by these seeds and the search's own


@dataclass(frozen=True)
class Chosen:
    """What the items to choose by say: `order` of the trail's candidates, best first; `scores` float64 [candidates, objectives],
    more being better; `front`: places of the Pareto front, the best of the first objective first."""

    trail: Trail
    order: tuple[int, ...]
    scores: np.ndarray
    front: tuple[int, ...]

    @property
    def best(self) -> Candidate:
        return self.trail.candidates[self.order[0]]

    @property
    def finalists(self) -> list[Candidate]:
        """The best, the runner-up, then others of the front; none twice."""
        some = [*self.order[:2], *self.front[: FRONT + 1]]
        return list({content(c): c for i in reversed(some) if (c := self.trail.candidates[i])}.values())[::-1]


def chosen(search: Search, trail: Trail) -> Chosen:
    """Who is best on the items that all were asked."""
    order, scores = search.order(trail.candidates, trail.select), search.judge.scores(trail.candidates, trail.select)
    some = sorted(front(scores), key=lambda i: (-scores[i, 0], i)) if len(search.judge.objectives) > 1 else []
    return Chosen(trail, tuple(order), scores, tuple(some))


def controls(anatomy: Anatomy, anchors: Sequence[Candidate], best: Candidate, count: int, seed: int) -> list[Candidate]:
    """What the best must beat: every source, its pair's soup and default, and random windows as wide as it is. Never itself."""
    own = [a for a in anchors if a.params["kind"] == "expert"
           or all(a.params.get(k) == best.params.get(k) for k in ("task", "language"))]
    drawn = windows(anatomy, best, range(seed * SEEDS, seed * SEEDS + count))
    named = [Candidate(f"random window {i + 1}", w.profile, w.params) for i, w in enumerate(drawn)]
    return [c for c in (*own, *named) if content(c) != content(best)]


@dataclass(frozen=True)
class Verdict:
    """One comparison on held-out items: finalist - control in one objective."""

    objective: str
    finalist: str
    control: str
    kind: str  # of the control: expert, soup, window (the default), random
    difference: Difference

    @property
    def estimate(self) -> Estimate:
        d = self.difference
        return Estimate(d.value, d.low, d.high, d.n, d.unit, d.verdict)


@dataclass(frozen=True)
class Confirmed:
    """What the held-out items say: every score with its interval, every comparison, and the gain that did not last.

    `values[objective][name]`; `optimism[objective][finalist]`: what it was better by than the reference among the items that chose
    it, less what it is better by among these; 0 is no optimism, above 0 is what choosing by chance added.
    """

    held: tuple[Units, ...]
    controls: tuple[Candidate, ...]
    values: Mapping[str, Mapping[str, Estimate]]
    seen: Mapping[str, Mapping[str, float]]  # the same scores on the items that chose, where they were asked there
    verdicts: tuple[Verdict, ...]

    def of(self, finalist: str, objective: str) -> list[Verdict]:
        return [v for v in self.verdicts if v.finalist == finalist and v.objective == objective]

    def beaten(self, finalist: str, objective: str) -> list[Verdict]:
        """The controls that the finalist is better than."""
        return [v for v in self.of(finalist, objective) if v.difference.verdict == stats.BETTER]


def confirmed(judge: Judge, picked: Chosen, against: Sequence[Candidate], seed: int) -> Confirmed:
    """Ask finalists and controls the held-out items and compare each with each."""
    held, finalists = picked.trail.held, picked.finalists
    everyone = list({content(c): c for c in (*against, *finalists)}.values())
    named = [*{c.name: c for c in (*finalists, *against)}.values()]
    known = [c for c in named if c.params["kind"] != "random"]  # random windows took no part in the choice
    judge.ask(everyone, held)
    judge.ask(known, picked.trail.select)
    measures, before = judge.measures(named, held), judge.measures(known, picked.trail.select)
    figures = {o.name: o.figure(measures) for o in judge.objectives}
    samples = compare.draw([f for f in figures.values() if not f.exact], seed)
    values = {o: {c.name: compare.estimate(f, c.name, samples) for c in named if c.name in f.models} for o, f in figures.items()}
    verdicts = [v for f in finalists for v in _verdicts(f, against, figures, samples)]
    seen = _plain(judge.objectives, before, [c.name for c in known])
    return Confirmed(tuple(held), tuple(against), values, seen, tuple(verdicts))


def _verdicts(finalist: Candidate, against: Sequence[Candidate], figures: Mapping[str, Figure],
              samples: compare.Samples) -> list[Verdict]:
    """One finalist less every control that is another model, in every objective."""
    pairs = [(o, f, b) for o, f in figures.items() for b in against
             if content(finalist) != content(b) and finalist.name in f.models and b.name in f.models]
    found = [compare.difference(f, finalist.name, b.name, samples) for _, f, b in pairs]
    judged = compare.judged(found, list(figures.values()))
    return [Verdict(o, finalist.name, b.name, str(b.params["kind"]), d) for (o, _, b), d in zip(pairs, judged)]


def _plain(objectives: Sequence[Objective], measures: Mapping[Part, Measure], names: Sequence[str]) -> dict[str, dict[str, float]]:
    return {o.name: dict(zip(names, map(float, o.values(measures, names)))) for o in objectives}


def optimism(objective: Objective, done: Confirmed, finalist: str, reference: str) -> float | None:
    """The gain over the reference among the items that chose, less the gain among held-out ones, more being better; in the
    metric's unit. None for the reference itself."""
    seen, held = done.seen[objective.name], done.values[objective.name]
    if finalist == reference or not {finalist, reference} <= set(held) & set(seen):
        return None
    return objective.sign * ((seen[finalist] - seen[reference]) - (held[finalist].value - held[reference].value))


def significance(objective: Objective, measures: Mapping[Part, Measure], names: Sequence[str], reference: str,
                 seed: int) -> dict[str, Estimate]:
    """Every candidate less the reference on the items that chose, with verdicts that hold over all of them (Holm)."""
    f: Figure = objective.figure(measures)
    samples = compare.draw([f] if not f.exact else [], seed)
    some = [n for n in names if n != reference and n in f.models]
    found = compare.judged([compare.difference(f, n, reference, samples) for n in some], [f])
    return {d.model: Estimate(d.value, d.low, d.high, d.n, d.unit, d.verdict) for d in found}
