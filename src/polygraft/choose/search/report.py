"""What a search found, in words and tables: what was confirmed and what was not, the surface, the gain that did not last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from polygraft import stats
from polygraft.choose.candidates import Candidate, needed
from polygraft.choose.search import surface
from polygraft.choose.search.confirm import Chosen, Confirmed, Verdict, optimism, significance
from polygraft.choose.search.judge import Judge, size
from polygraft.choose.search.objectives import Objective
from polygraft.choose.search.space import content
from polygraft.evals.findings import Findings
from polygraft.result import Cell, Estimate, InputRef, LayerMap, Result, Table

TOP = 12  # candidates in the table of the best
MOST = 2000  # candidates whose scores are kept as data
KINDS = {"expert": "expert", "soup": "soup", "window": "the paper's default", "random": "random window"}


@dataclass(frozen=True)
class Outcome:
    """Everything that a finished search knows."""

    judge: Judge
    picked: Chosen
    done: Confirmed
    reference: str
    strategy: str
    seed: int
    anchors: tuple[Candidate, ...]
    tolerance: float = 0.0
    windows: int = 0
    written: Findings | None = None

    @property
    def objectives(self) -> tuple[Objective, ...]:
        return self.judge.objectives

    @property
    def best(self) -> Candidate:
        return self.picked.best


# ------------------------------------------------------------------------------------------------------------------- words


def summary(o: Outcome) -> tuple[str, ...]:
    """Plain sentences: what was tried, what is best, what it beats on items that took no part in the choice, and what not."""
    trail, first = o.picked.trail, o.objectives[0]
    tried = len(trail.candidates) + len(trail.dropped)
    seen = o.picked.scores[o.picked.order[0]][0] * first.sign
    lines = [f"{tried:,} candidates were tried ({o.strategy}); {size(trail.select):,} items chose, {size(trail.held):,} others "
             "confirm.",
             f"Best by {first.name} ({first.metric.name}): {o.best.name}, {seen:.4g} {first.metric.unit} on the items that chose "
             "it."]
    if twins := [c.name for c in o.anchors if content(c) == content(o.best)]:
        lines.append(f"It is the same model as {twins[0]}.")
    lines += [*lost_elsewhere(o), *missing(o)]
    lines += [said for objective in o.objectives for said in verdict(o, objective)]
    return (*lines, *(gain(o, first)))


def lost_elsewhere(o: Outcome) -> list[str]:
    """Said where no candidate was as good as the reference in all other objectives, so that the best is not, either."""
    scores, at = o.picked.scores[o.picked.order[0]], o.done.seen
    worse = [x.name for x, s in zip(o.objectives[1:], scores[1:]) if s < x.sign * at[x.name][o.reference] - o.tolerance]
    return [f"No candidate is within {o.tolerance:g} of {o.reference} in every other objective: this one is worse in "
            f"{', '.join(worse)} on the items that chose."] if worse else []


def missing(o: Outcome) -> list[str]:
    """Said where there are not as many random windows as were asked for: its blocks of layers do not fit in other places."""
    drawn = sum(c.params["kind"] == "random" for c in o.done.controls)
    return [f"Its layers fit in {drawn or 'no'} other place{'s' * (drawn > 1)}, so there {'are' if drawn > 1 else 'is'} "
            f"{drawn or 'no'} random window{'s' * (drawn > 1)} to compare with."] if drawn < o.windows else []


def verdict(o: Outcome, objective: Objective) -> list[str]:
    """What the best is better and worse than on held-out items, and by name what no finalist beats."""
    every, name = o.done.of(o.best.name, objective.name), o.best.name
    if not every:
        return []
    better, worse = _told(every, stats.BETTER), _told(every, stats.WORSE)
    said = [f"On {every[0].difference.n:,} held-out items, by {objective.name}, {name} is better than "
            f"{better or 'none of its controls'}" + (f" and worse than {worse}" if worse else "") + "."]
    unbeaten = [v.control for v in every
                if not any(v.control == w.control for f in o.picked.finalists for w in o.done.beaten(f.name, objective.name))]
    if unbeaten:
        said.append(f"No candidate beats {', '.join(unbeaten)} there; \"not distinguishable\" is not \"equal\".")
    return said


def _told(verdicts: Sequence[Verdict], wanted: str) -> str:
    """`math, soup, 3 of 3 random windows`."""
    named = [v.control for v in verdicts if v.kind != "random" and v.difference.verdict == wanted]
    drawn = [v for v in verdicts if v.kind == "random"]
    some = sum(v.difference.verdict == wanted for v in drawn)
    return ", ".join(named + ([f"{some} of {len(drawn)} random windows"] if some else []))


def gain(o: Outcome, objective: Objective) -> list[str]:
    """One sentence about the winner's optimism."""
    lost = optimism(objective, o.done, o.best.name, o.reference)
    if lost is None:
        return []
    unit = objective.metric.unit.replace("%", "points")
    return [f"Its gain over {o.reference} was {lost:.3g} {unit} larger among the items that chose it than among the others."
            if lost > 0 else f"Its gain over {o.reference} held on items that did not choose it ({-lost:.3g} {unit} larger there)."]


# ------------------------------------------------------------------------------------------------------------------ tables


def tables(o: Outcome) -> tuple[Table, ...]:
    """Verdicts, scores and optimism, the surface, the best candidates, the rounds, then what finalists wrote."""
    held = [comparison(o, f) for f in o.picked.finalists if any(v.finalist == f.name for v in o.done.verdicts)]
    written = o.written.tables() if o.written else ()
    return (*held[:1], scores(o), *_surfaces(o), *held[1:], best(o), rounds(o), *written)


def comparison(o: Outcome, finalist: Candidate) -> Table:
    """One finalist less each of its controls, on held-out items."""
    names = [c.name for c in o.done.controls]
    kinds = {c.name: KINDS.get(str(c.params["kind"]), "") for c in o.done.controls}
    own = [v for v in o.done.verdicts if v.finalist == finalist.name]
    cells = {(v.control, v.objective): v.estimate for v in own}
    rows: tuple[tuple[Cell, ...], ...] = tuple((n, kinds[n], *(cells.get((n, x.name)) for x in o.objectives)) for n in names)
    exact = all(x.metric.binary and len(x.parts) == 1 for x in o.objectives)
    how = "exact McNemar tests, Newcombe intervals" if exact else "paired bootstrap over the same items"
    return Table(f"{finalist.name} on held-out items, less each control", ("control", "kind", *_heads(o.objectives)), rows,
                 f"{how}; intervals are 95 % each; verdicts hold over all {len(own)} comparisons of this finalist in each metric "
                 "(Holm, 5 %)")


def scores(o: Outcome) -> Table:
    """Every finalist and control: its score among the items that chose, among those that confirm, and what did not last."""
    rows: list[tuple[Cell, ...]] = []
    names = [*(f.name for f in o.picked.finalists), *(c.name for c in o.done.controls)]
    for name in dict.fromkeys(names):
        row: list[Cell] = [name]
        for x in o.objectives:
            row += [o.done.seen[x.name].get(name), o.done.values[x.name].get(name), optimism(x, o.done, name, o.reference)]
        rows.append(tuple(row))
    heads = [h for x in o.objectives for h in (f"{x.name}: chose", f"{x.name}: held out", f"{x.name}: optimism")]
    return Table("Finalists and controls", ("model", *heads), tuple(rows),
                 f"optimism: the gain over {o.reference} among the items that chose, less that among held-out items (above 0: it "
                 "looked better than it is); " + "; ".join(dict.fromkeys(x.metric.meaning for x in o.objectives)))


def _surfaces(o: Outcome) -> list[Table]:
    """The surface of every objective, on the items that chose."""
    trail, out = o.picked.trail, []
    if not any(c.params["kind"] == "window" for c in trail.candidates):
        return []
    at = next(a for a in o.anchors if a.name == o.reference)
    named = [*trail.candidates, *([at] if at.name not in {c.name for c in trail.candidates} else [])]
    measures = o.judge.measures(named, trail.select)
    for x in o.objectives:
        found = significance(x, measures, [c.name for c in named], o.reference, o.seed)
        base = o.done.seen[x.name].get(o.reference)
        note = (f"{x.metric.name}, {'more' if x.sign > 0 else 'less'} is better; {o.reference} has "
                f"{base:.4g} {x.metric.unit}" if base is not None else x.metric.name)
        note += f"; on the {size(trail.select):,} items that chose, verdicts over all {len(found)} candidates (Holm, 5 %)"
        out += surface.tables(trail.candidates, found, x.name, o.reference, o.best.name, note)
    return out


def best(o: Outcome) -> Table:
    """The best candidates on the items that chose; the Pareto front is marked."""
    front = set(o.picked.front)
    rows: list[tuple[Cell, ...]] = []
    for i in o.picked.order[: max(TOP, len(front))]:
        shown = [float(s * x.sign) for s, x in zip(o.picked.scores[i], o.objectives)]
        rows.append((o.picked.trail.candidates[i].name, *shown, *(["front" if i in front else ""] if front else [])))
    heads = (*_heads(o.objectives), *(["Pareto"] if front else []))
    return Table("Best candidates on the items that chose", ("candidate", *heads), tuple(rows),
                 "not confirmed: the best of many looks better than it is" + "; front: no other is as good in every objective"
                 * bool(front))


def rounds(o: Outcome) -> Table:
    """What the strategy did."""
    rows = tuple((i + 1, r.candidates, r.items, r.best) for i, r in enumerate(o.picked.trail.rounds))
    return Table(f"Rounds ({o.strategy})", ("round", "candidates", "items", "best by then"), rows)


def _heads(objectives: Sequence[Objective]) -> tuple[str, ...]:
    return tuple(f"{x.name} ({x.metric.name})" for x in objectives)


# ------------------------------------------------------------------------------------------------------------------ result


def maps(o: Outcome, anatomy: Any) -> tuple[LayerMap, ...]:
    """The chosen candidate: what it takes from where."""
    return needed(o.best.profile)[0].maps(anatomy)


def data(o: Outcome) -> dict[str, Any]:
    """Plain values: the choice, every candidate's scores, every comparison."""
    trail, sign = o.picked.trail, [x.sign for x in o.objectives]
    every = [{"name": trail.candidates[i].name, "params": dict(trail.candidates[i].params),
              "scores": [float(v * s) for v, s in zip(o.picked.scores[i], sign)]} for i in o.picked.order[:MOST]]
    return {
        "chosen": {"name": o.best.name, "params": dict(o.best.params), "profile": o.best.profile.to_json(),
                   "beats": [v.control for v in o.done.beaten(o.best.name, o.objectives[0].name)]},
        "objectives": [{"name": x.name, "metric": x.metric.name, "unit": x.metric.unit,
                        "higher_is_better": x.metric.higher_is_better} for x in o.objectives],
        "reference": o.reference, "candidates": every, "tried": len(trail.candidates) + len(trail.dropped),
        "front": [trail.candidates[i].name for i in o.picked.front],
        "items": {"choose": size(trail.select), "confirm": size(trail.held)},
        "held_out": {x.name: {n: _plain(e) for n, e in o.done.values[x.name].items()} for x in o.objectives},
        "differences": [{"objective": v.objective, "finalist": v.finalist, "control": v.control, "kind": v.kind,
                         "value": v.difference.value, "low": v.difference.low, "high": v.difference.high, "n": v.difference.n,
                         "p": v.difference.p, "holm": v.difference.holm, "verdict": v.difference.verdict}
                        for v in o.done.verdicts],
        "optimism": {x.name: optimism(x, o.done, o.best.name, o.reference) for x in o.objectives},
        **({"written": o.written.data()} if o.written else {}),
    }


def _plain(e: Estimate) -> list[Any]:
    return [e.value, e.low, e.high, e.n]


def result(o: Outcome, anatomy: Any, inputs: Sequence[InputRef], caveats: Sequence[str], more: dict[str, Any]) -> Result:
    """The step's Result."""
    lost = ("The verdicts are about these checkpoints and these items. A claim about a method needs several experts trained anew.",)
    return Result("merge.search", "", f"Search over {', '.join(o.best.profile.sources)}", summary(o), maps(o, anatomy), tables(o),
                  inputs=tuple(inputs), caveats=(*caveats, *lost), data=data(o) | more)
