"""criteria.yaml: what must hold and what may be given up, and whether it does."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from polygraft import languages
from polygraft.config import Strict, parse
from polygraft.errors import CriteriaFailed, RecipeError, suggestion
from polygraft.evals import metrics
from polygraft.evals.metrics.base import Metric
from polygraft.evals.verdicts import compare
from polygraft.evals.verdicts.compare import Comparison, Difference, Figure
from polygraft.result import Cell, Estimate, Result, Table
from polygraft.yamltext import read_document

OVER = {"macro": compare.MEAN, "micro": compare.POOL, "worst": compare.WORST}
MUST, SHOULD, MAY = "must", "should", "may-give-up"
HELD, FAILED, UNCERTAIN = "held", "failed", "uncertain"


def _language(tag: str) -> str:
    """A language tag, or a word for several."""
    if tag in OVER or tag == "all":
        return tag
    try:
        return languages.check(tag)
    except RecipeError as e:
        raise ValueError("; ".join(filter(None, (e.what, e.fix)))) from e


class Criterion(Strict):
    """One demand on one score, in the unit of the tables (percent, nats ...)."""

    metric: str = Field(description="name of the metric, such as accuracy")
    task: str = Field(description="name of the task, such as mgsm")
    language: Annotated[str, AfterValidator(_language)] = Field(
        description="a language tag; `all`: each language; `macro`: their mean; `micro`: all items; `worst`: the worst one")
    floor: float | None = Field(None, description="the least that the score may be (where lower is better: the most)")
    tolerated_loss: float | None = Field(None, ge=0, description="how much worse than the reference the score may be")
    priority: Literal["must", "should", "may-give-up"] = Field("must", description="only a `must` that fails makes the whole fail")
    note: str = Field("", description="why; repeated with the reasons")

    @model_validator(mode="after")
    def _demands_something(self) -> Criterion:
        if self.floor is None and self.tolerated_loss is None:
            raise ValueError("neither `floor` nor `tolerated_loss`: nothing is demanded")
        return self


class CriteriaFile(Strict):
    """What criteria.yaml holds."""

    confidence: Literal["point", "bound"] = Field(
        "point", description="point: the score itself decides; bound: what the 95 % interval cannot exclude counts as failed")
    criteria: tuple[Criterion, ...] = Field(min_length=1, description="the demands")


@dataclass(frozen=True)
class Criteria:
    """Demands with their places (`criteria.yaml:3`) for messages."""

    confidence: str
    criteria: tuple[Criterion, ...]
    places: tuple[str, ...]


def read(path: Path) -> Criteria:
    """Read criteria.yaml. Raises InputError or RecipeError (with file:line) for what is not one."""
    document = read_document(Path(path), "criteria file")
    found = parse(CriteriaFile, document)
    return Criteria(found.confidence, found.criteria, tuple(document.where(("criteria", i)) for i in range(len(found.criteria))))


@dataclass(frozen=True)
class Judgement:
    """One demand on one model: whether it held, and what was found. `uncertain` when the 95 % interval holds both answers."""

    model: str
    task: str
    language: str
    metric: str
    demand: str
    priority: str
    status: str  # held or failed, as `confidence` decides
    uncertain: bool
    found: Estimate | None
    note: str = ""

    def words(self) -> str:
        """`swapped: mgsm sw accuracy 24.0 % [19.0, 29.8], floor 30: failed (must)`."""
        seen = "no score"
        if self.found is not None:
            seen = f"{self.found.value:.4g} {self.found.unit} [{self.found.low:.4g}, {self.found.high:.4g}]"
        status = self.status + (", but the interval holds both answers" if self.uncertain else "")
        return f"{self.model}: {self.task} {self.language} {self.metric} {seen}, {self.demand}: {status} ({self.priority})" + (
            f". {self.note}" if self.note else "")


@dataclass(frozen=True)
class Verdict:
    """passed: every `must` held for every model judged."""

    passed: bool
    judgements: tuple[Judgement, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """What failed or is uncertain, the musts first."""
        order = [MUST, SHOULD, MAY]
        told = [j for j in self.judgements if j.status == FAILED or j.uncertain]
        return tuple(j.words() for j in sorted(told, key=lambda j: (j.status != FAILED, order.index(j.priority))))

    def of(self, model: str) -> Verdict:
        """The same for one model only: what a search or a gate asks."""
        own = tuple(j for j in self.judgements if j.model == model)
        return Verdict(passes(own), own)

    def data(self) -> dict[str, Any]:
        return {"passed": self.passed, "reasons": list(self.reasons)}

    def table(self) -> Table:
        rows: list[tuple[Cell, ...]] = [(j.model, j.task, j.language, j.metric, j.found, j.demand, j.priority, status(j))
                                        for j in self.judgements]
        return Table("Criteria", ("model", "task", "language", "metric", "found", "demanded", "priority", "status"), tuple(rows),
                     "passed: every `must` held" if self.passed else "failed: not every `must` held")


def status(j: Judgement) -> str:
    return f"{j.status}, {UNCERTAIN}" if j.uncertain else j.status


def passes(judgements: Sequence[Judgement]) -> bool:
    return not any(j.status == FAILED and j.priority == MUST for j in judgements)


def check(criteria: Criteria, found: Comparison) -> Verdict:
    """Judge every model but the reference (the reference itself, where it is alone) by every demand.

    Raises RecipeError for a demand that matches nothing (a slip of the pen is no pass), and for a tolerated loss without a second
    model to lose against.
    """
    judged = [name for name in found.names if name != found.reference] or list(found.names)
    scores = {(s.task, s.metric, s.language, s.model): s.estimate for s in found.scores}
    differences = {(d.task, d.metric, d.language, d.model): d for d in found.differences}
    out = []
    for c, place in zip(criteria.criteria, criteria.places):
        for f in matching(c, found.figures, place):
            reachable(c, f.metric, place)
            for model in judged:
                key = (f.task, f.metric.name, f.language, model)
                if c.floor is not None:
                    out.append(judge(c, f, model, scores.get(key), "floor" if f.metric.higher_is_better else "at most", c.floor,
                                     criteria.confidence))
                if c.tolerated_loss is not None:
                    if judged == [found.reference]:
                        raise RecipeError("a tolerated loss needs a model to compare with", where=place,
                                          fix="evaluate the reference too, as the first model")
                    out.append(judge(c, f, model, loss(differences.get(key), f), f"loss from {found.reference} at most",
                                     c.tolerated_loss, criteria.confidence))
    return Verdict(passes(out), tuple(out))


def loss(d: Difference | None, f: Figure) -> Estimate | None:
    """How much worse than the reference, with its interval; negative for a gain."""
    if d is None:
        return None
    if f.metric.higher_is_better:
        return Estimate(0.0 - d.value, 0.0 - d.high, 0.0 - d.low, d.n, d.unit)
    return Estimate(d.value, d.low, d.high, d.n, d.unit)


def judge(c: Criterion, f: Figure, model: str, found: Estimate | None, what: str, bound: float, confidence: str) -> Judgement:
    """One demand on one model. No score, no pass."""
    demand, name = f"{what} {bound:g}", f.metric.name
    if found is None:
        return Judgement(model, f.task, f.language, name, demand, c.priority, FAILED, False, None, c.note)
    at_least = what == "floor"
    assert found.low is not None and found.high is not None
    slack = 1e-9 * max(1.0, abs(bound))  # 29 of 100 is not below 29 %
    fits = [v >= bound - slack if at_least else v <= bound + slack for v in (found.value, found.low, found.high)]
    held = all(fits) if confidence == "bound" else fits[0]
    return Judgement(model, f.task, f.language, name, demand, c.priority, HELD if held else FAILED, len(set(fits)) > 1, found,
                     c.note)


def matching(c: Criterion, figures: Sequence[Figure], place: str) -> list[Figure]:
    """The figures that a demand is about. Raises RecipeError when there is none, with the words that were probably meant."""
    here = [f for f in figures if f.kind != compare.STRATA]
    for wanted, name, of in ((c.task, "task", lambda f: f.task.partition("@")[0] if "@" not in c.task else f.task),
                             (c.metric, "metric", lambda f: f.metric.name)):
        known, here = {of(f) for f in here}, [f for f in here if of(f) == wanted]
        if not here:
            raise RecipeError(f"a criterion that matches nothing: no {name} `{wanted}`", where=place, fix=suggestion(wanted, known))
    single = [f for f in here if f.kind == compare.ONE] or here[:1 if c.language in OVER else None]  # a suite has averages only
    if c.language == "all" or (c.language in OVER and len(single) == 1):
        return single
    wanted_kind = OVER.get(c.language, compare.ONE)
    if wanted_kind == compare.POOL and not any(f.kind == compare.POOL for f in here):
        wanted_kind = compare.MEAN  # as many items in every language: the two are one
    found = [f for f in here if f.kind == wanted_kind and (c.language in OVER or f.language == c.language)]
    if not found:
        raise RecipeError(f"a criterion that matches nothing: no language `{c.language}` of {c.task}", where=place,
                          fix=suggestion(c.language, {f.language for f in single} | set(OVER) | {"all"}))
    return found


def reachable(c: Criterion, metric: Metric, place: str) -> None:
    """Raise RecipeError for a demand that no score of this metric could ever decide: it is in another unit."""
    low, high = metric.bounds
    for name, value, least, most in (("floor", c.floor, low, high), ("tolerated_loss", c.tolerated_loss, 0.0, high - low)):
        if value is not None and not least <= value <= most:
            expected = f"{least:g} to {most:g}" if math.isfinite(most) else f"{least:g} or more"
            raise RecipeError(f"`{name}` is beyond what {metric.name} can be", where=place, found=value,
                              expected=f"{expected} {metric.unit}".strip())


def slips(criteria: Criteria, asked: Iterable[tuple[str, str, str]], skip: Sequence[str] = ()) -> list[RecipeError]:
    """The demands that match nothing of what will be asked (each a task, language and metric), or that no score can decide.

    Demands on tasks in `skip` (suites) are left to `check`.
    """
    out = []
    every = list(dict.fromkeys(asked))
    figures = [Figure(task, language, metrics.get(metric), ()) for task, language, metric in every]
    for c, place in zip(criteria.criteria, criteria.places):
        if c.task in skip:
            continue
        try:
            for f in matching(c, [*figures, *(replace(f, kind=kind) for f in figures for kind in OVER.values())], place):
                reachable(c, f.metric, place)
        except RecipeError as e:
            out.append(e)
    return out


def judged(result: Result, criteria: Criteria, found: Comparison) -> Result:
    """The result with the verdict of the criteria: a sentence, a table, and `data["criteria"]`, which decides the exit code."""
    verdict = check(criteria, found)
    return replace(result, summary=(f"Criteria: {'met' if verdict.passed else 'not met'}.", *result.summary),
                   tables=(*result.tables, verdict.table()), data=result.data | {"criteria": verdict.data()})


def raise_failed(data: dict[str, Any], where: object) -> None:
    """Raise CriteriaFailed when a result's `data["criteria"]` say so: after everything was written."""
    said = data.get("criteria")
    if isinstance(said, dict) and said.get("passed") is False:
        reasons = "\n".join(f"  {r}" for r in said.get("reasons", []))
        raise CriteriaFailed(f"the criteria are not met\n{reasons}", where=where)
