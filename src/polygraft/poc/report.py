"""A decision as files: `decision.json`, the report with the decision at its top, and the page for a meeting."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from polygraft.files import resource_errors, write_atomic, write_json
from polygraft.poc.budget import SHARE
from polygraft.poc.decision import STATUSES, Decision, Effect, Outcome
from polygraft.poc.judging import BITS, gain
from polygraft.report.numbers import duration, fixed, number, size
from polygraft.report.write import ANSWER
from polygraft.report.write import write as write_report
from polygraft.result import Cell, Result, Table
from polygraft.stats import WORSE

if TYPE_CHECKING:
    from polygraft.poc.meeting import Tongue

DECISION, MEETING = "decision.json", "meeting.html"
RISKS = ("fidelity", "copy", "refusal")


def write(out: Path, told: Sequence[Decision], language: str = "en") -> None:
    """Write decision.json, answer.json, report.html and meeting.html of the last of these decisions, beside what the stages before
    it said. Raises ResourceError where there is no room."""
    from polygraft.poc import meeting

    decision = told[-1]
    with resource_errors(out):
        write_json(out / DECISION, decision.to_json())
        write_json(out / ANSWER, as_result(decision, language, told[:-1]).to_json())
        write_report(out, language)
        write_atomic(out / MEETING, meeting.page(decision, language).encode())


def as_result(decision: Decision, language: str = "en", earlier: Sequence[Decision] = ()) -> Result:
    """The decision as a Result: the verdict, a row for each method, everything measured, what does not apply, licences."""
    from polygraft.poc.meeting import Tongue

    tongue = Tongue(language, decision)
    title = f"Decision for {decision.language_name}: {decision.stage} stage"
    made = (*tables(tongue), *by_stage([*earlier, decision], tongue))
    return Result("poc", "decision", title, (tongue.plain(decision.reason), tongue.plain(decision.equal)), tables=made,
                  caveats=tuple(map(tongue.plain, decision.caveats)),
                  data={"verdict": decision.verdict, "recommended": decision.recommended, "stage": decision.stage})


def tables(tongue: Tongue) -> tuple[Table, ...]:
    decision = tongue.decision
    tried = [r for r in decision.outcomes if r.status not in ("absent", "dropped")]
    out = [methods(tongue, tried), risks(tried), costs(decision, tried), measured(tried, tongue),
           reasons(decision.outcomes, tongue)]
    return tuple(t for t in (*out, *notes(tried, tongue), *sources(tongue)) if t.rows)


def methods(tongue: Tongue, rows: Sequence[Outcome]) -> Table:
    """One row a method: what became of it, what it gained, what it lost, what it costs."""
    made, served = money(tongue.decision)
    out = tuple((r.title, STATUSES[r.status], *(_difference(_first(r.of(role))) for role in ("target", "english", "other")),
                 duration(r.spent.seconds) if r.status != "failed" else None, *[r.spent.money for _ in made],
                 *[r.serving.money for _ in served]) for r in rows)
    columns = ("method", "verdict", f"{deciding(tongue)}, change", "English, worst change", "other languages, worst change",
               "time to make", *made, *served)
    return Table("Methods beside doing nothing", columns, out, "change: the method less doing nothing, on the same items")


def money(decision: Decision) -> tuple[list[str], list[str]]:
    """The columns of money to make and to serve, where there are prices: none or one each."""
    return (([f"cost to make, {decision.currency}"], [f"to serve a million characters, {decision.currency}"]) if decision.currency
            else ([], []))


def deciding(tongue: Tongue) -> str:
    """What decides, in words: `accuracy of your evaluation (Swahili)`."""
    from polygraft.poc.meeting import measured as named

    first = next((e for r in tongue.decision.outcomes for e in r.of("target")), None)
    return named(tongue, first).unescape() if first else tongue.decision.measure


def risks(rows: Sequence[Outcome]) -> Table:
    """The risks that were measured, of every method that was."""
    out = tuple((r.title, *(_difference(next(iter(r.of(role)), None)) for role in RISKS)) for r in rows if any(map(r.of, RISKS)))
    return Table("Risks", ("method", "answers in the language, change", "copied characters, change", "refusals, change"), out,
                 "change: the method less doing nothing, on the same items; fewer refusals count as better")


def costs(decision: Decision, rows: Sequence[Outcome]) -> Table:
    """What making and serving each takes, with money where the user's prices say it."""
    made, served = money(decision)
    columns = ("method", "time to make", *made, "training tokens", "weights touched", "stored", "read for a token",
               "tokens a character", *served)
    out = tuple((r.title, duration(r.spent.seconds), *([r.spent.money] if made else []), r.spent.tokens,
                 None if r.touched is None else f"{r.touched:.2%}", size(r.serving.stored_bytes), size(r.serving.bytes_per_token),
                 r.serving.tokens_per_character, *([r.serving.money] if served else [])) for r in rows if r.status != "failed")
    note = "money: your own prices; serving: the bound for few sequences at once" if decision.currency else ""
    return Table("What each costs", columns, out, note)


def _first(effects: Sequence[Effect]) -> Effect | None:
    """The one that is told of several: of the target the deciding one, else a loss that shows, else the worst in bits per byte."""
    if not effects:
        return None
    if effects[0].role == "target":
        return effects[0]
    return min(effects, key=lambda e: (e.difference.verdict != WORSE, e.difference.unit != BITS, gain(e)))


def _difference(effect: Effect | None) -> Cell:
    return effect.difference if effect else None


def measured(rows: Iterable[Outcome], tongue: Tongue) -> Table:
    """Every effect, with the place where its number stands."""
    out = [(r.title, e.role, tongue.measure(e), e.language, _score(e.before), _score(e.after), e.difference, e.place)
           for r in rows for e in r.effects]
    return Table("Everything that was measured", ("method", "about", "measure", "language", "before", "after", "change", "place"),
                 tuple(out), "place: the step in this report, and the row in its table")


def _score(value: float | None) -> Cell:
    return None if value is None else fixed(value, 2)


def reasons(rows: Iterable[Outcome], tongue: Tongue) -> Table:
    return Table("Why", ("method", "reason"), tuple((r.title, tongue.plain(r.reason)) for r in rows))


def notes(rows: Iterable[Outcome], tongue: Tongue) -> list[Table]:
    found = tuple((r.title, tongue.plain(n)) for r in rows for n in r.notes)
    return [Table("What to know of each", ("method", "note"), found)] if found else []


def sources(tongue: Tongue) -> list[Table]:
    """Licences of all that goes in, and what each method's mix obliges to."""
    said = tuple((s.source, s.spec, s.licence or "not said", s.where) for s in tongue.decision.licences)
    asked = tuple((r.title, tongue.plain(o)) for r in tongue.decision.outcomes for o in r.obligations)
    return [Table("Licences of the sources", ("source", "named as", "licence", "says who"), said, "no legal advice"),
            Table("What the mix obliges to", ("method", "obligation"), asked)]


def by_stage(told: Sequence[Decision], tongue: Tongue) -> list[Table]:
    """What each stage said of the deciding measure, where there were several."""
    rows = tuple((r.title, *(_difference(_first(d.outcome(r.method).of("target"))) for d in told)) for r in told[-1].outcomes
                 if any(d.outcome(r.method).of("target") for d in told))
    if len(told) < 2 or not rows:
        return []
    return [Table(f"{deciding(tongue)}, change, stage by stage", ("method", *(d.stage for d in told)), rows,
                  "later stages train longer and ask more items")]


def headline(decision: Decision) -> list[str]:
    """What the command line says at the end."""
    from polygraft.poc.meeting import Tongue

    tongue = Tongue("en", decision)
    out = [tongue.plain(decision.reason)]
    for r in decision.outcomes:
        if r.status != "nothing":
            out.append(f"  {r.title}: {tongue.plain(r.reason)}")
    part = {str(k): v for k, v in SHARE.items()}[decision.stage] * decision.budget_seconds
    spent = f"{duration(decision.spent_seconds)} (its part of {duration(decision.budget_seconds)}: {duration(part)})"
    return [*out, f"{decision.stage} stage: {spent}; {number(len(decision.outcomes) - 1)} methods looked at"]
