"""A decision as files: `decision.json`, the report with the decision at its top, and the page for a meeting."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from polygraft.files import resource_errors, write_atomic, write_json
from polygraft.poc.decision import STATUSES, Decision, Effect, Outcome, Reason
from polygraft.poc.judging import BITS, ends, gain, told
from polygraft.poc.reasons_ja import REASONS_JA
from polygraft.report.numbers import duration, fixed, number, size
from polygraft.report.write import ANSWER
from polygraft.report.write import write as write_report
from polygraft.result import Cell, Result, Table

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


def say(reason: Reason, language: str) -> str:
    """A reason's sentence; in English where a language has none of its own."""
    return REASONS_JA[reason.code].format(**reason.values) if language == "ja" and reason.code in REASONS_JA else reason.text


def as_result(decision: Decision, language: str = "en", earlier: Sequence[Decision] = ()) -> Result:
    """The decision as a Result: the verdict, a row for each method, everything measured, what does not apply, licences."""
    title = f"Decision for {decision.language_name}: {decision.stage} stage"
    made = (*tables(decision, language), *by_stage([*earlier, decision]))
    return Result("poc", "decision", title, (say(decision.reason, language), say(decision.equal, language)), tables=made,
                  caveats=tuple(say(c, language) for c in decision.caveats),
                  data={"verdict": decision.verdict, "recommended": decision.recommended, "stage": decision.stage})


def tables(decision: Decision, language: str) -> tuple[Table, ...]:
    tried = [r for r in decision.outcomes if r.status not in ("absent", "dropped")]
    out = [methods(decision, tried), measured(tried), reasons(decision.outcomes, language)]
    return tuple(t for t in (*out, *notes(tried, language), *sources(decision, language)) if t.rows)


def methods(decision: Decision, rows: Sequence[Outcome]) -> Table:
    """One row a method: what it gained, what it lost, what it costs."""
    money = f"cost to make, {decision.currency}" if decision.currency else ""
    served = f"to serve a million characters, {decision.currency}" if decision.currency else ""
    columns = ("method", f"{decision.measure}, change", "English, change", "other languages, worst change", "risks", "verdict",
               "time to make", *([money] if money else []), "training tokens", "weights touched", "stored", "read for a token",
               "tokens a character", *([served] if served else []))
    out: list[tuple[Cell, ...]] = []
    for r in rows:
        done = r.status != "failed"
        own: tuple[Cell, ...] = (duration(r.spent.seconds), *([r.spent.money] if money else []), r.spent.tokens) if done else (
            None, *([None] if money else []), None)
        serving: tuple[Cell, ...] = (size(r.serving.stored_bytes), size(r.serving.bytes_per_token),
                                     r.serving.tokens_per_character) if done else (None, None, None)
        out.append((r.title, *(_difference(_first(r.of(role))) for role in ("target", "english", "other")), _risks(r),
                    STATUSES[r.status], *own, None if r.touched is None else f"{r.touched:.2%}", *serving,
                    *([r.serving.money if done else None] if served else [])))
    return Table("Methods beside doing nothing", columns, tuple(out), "change: the method less doing nothing, on the same items")


def _first(effects: Sequence[Effect]) -> Effect | None:
    """The one that is told of several: of the target the deciding one, else the worst of those in bits per byte, else the worst."""
    if not effects:
        return None
    if effects[0].role == "target":
        return effects[0]
    texts = [e for e in effects if e.difference.unit == BITS]
    return min(texts or effects, key=gain)


def _difference(effect: Effect | None) -> Cell:
    return effect.difference if effect else None


def _risks(row: Outcome) -> str:
    """The measures of risk that were taken, in a few words each."""
    found = [f"{e.measure.partition(' of ')[0]} {told(e.difference)}" for role in RISKS for e in row.of(role)[:1] if ends(e)]
    return "; ".join(found)


def measured(rows: Iterable[Outcome]) -> Table:
    """Every effect, with the place where its number stands."""
    out = [(r.title, e.role, e.measure, e.language, _score(e.before), _score(e.after), e.difference, e.place)
           for r in rows for e in r.effects]
    return Table("Everything that was measured", ("method", "about", "measure", "language", "before", "after", "change", "place"),
                 tuple(out), "place: the step in this report, and the row in its table")


def _score(value: float | None) -> Cell:
    return None if value is None else fixed(value, 2)


def reasons(rows: Iterable[Outcome], language: str) -> Table:
    return Table("Why", ("method", "reason"), tuple((r.title, say(r.reason, language)) for r in rows))


def notes(rows: Iterable[Outcome], language: str) -> list[Table]:
    found = tuple((r.title, say(n, language)) for r in rows for n in r.notes)
    return [Table("What to know of each", ("method", "note"), found)] if found else []


def sources(decision: Decision, language: str) -> list[Table]:
    """Licences of all that goes in, and what each method's mix obliges to."""
    said = tuple((s.source, s.spec, s.licence or "not said", s.where) for s in decision.licences)
    asked = tuple((r.title, say(o, language)) for r in decision.outcomes for o in r.obligations)
    return [Table("Licences of the sources", ("source", "named as", "licence", "says who"), said, "no legal advice"),
            Table("What the mix obliges to", ("method", "obligation"), asked)]


def by_stage(told: Sequence[Decision]) -> list[Table]:
    """What each stage said of the deciding measure, where there were several."""
    rows = tuple((r.title, *(_difference(_first(d.outcome(r.method).of("target"))) for d in told)) for r in told[-1].outcomes
                 if any(d.outcome(r.method).of("target") for d in told))
    if len(told) < 2 or not rows:
        return []
    return [Table(f"{told[-1].measure}, change, stage by stage", ("method", *(d.stage for d in told)), rows,
                  "later stages train longer and ask more items")]


def headline(decision: Decision) -> list[str]:
    """What the command line says at the end."""
    out = [decision.sentence]
    for r in decision.outcomes:
        if r.status != "nothing":
            out.append(f"  {r.title}: {r.reason.text}")
    spent = f"{duration(decision.spent_seconds)} of {duration(decision.budget_seconds)}"
    return [*out, f"{decision.stage} stage: {spent}; {number(len(decision.outcomes) - 1)} methods looked at"]
