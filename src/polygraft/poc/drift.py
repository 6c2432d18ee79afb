"""What a check found: differences from the first ancestor and from the parent, as sentences, tables and curves. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from polygraft.poc import history
from polygraft.poc.ancestry import Chain
from polygraft.poc.history import Change, Check, Key
from polygraft.result import Cell, Curve, Estimate, Result, Table

if TYPE_CHECKING:
    from polygraft.evals.findings import Findings
    from polygraft.evals.verdicts.criteria import Criteria, Verdict

FIRST, PREVIOUS, NOW = "first", "previous", "now"
NAMED = 5  # scores that a sentence lists
ORIGIN = "no manifest"


def verdicts(asked: Criteria, pairs: Mapping[str, Findings]) -> dict[str, Verdict]:
    """The criteria against each ancestor; the one against the first decides."""
    from polygraft.evals.verdicts import criteria

    return {kind: criteria.check(asked, found.demanded()) for kind, found in pairs.items()}


def differences(found: Findings) -> dict[Key, Estimate]:
    """Of every score of a language: the model minus its ancestor, tested in pairs."""
    told = [d for d in found.comparison.differences if not d.average]
    return {(d.task, d.language, d.metric): Estimate(d.value, d.low, d.high, d.n, d.unit, d.verdict) for d in told}


def changes(pairs: Mapping[str, Findings]) -> tuple[Change, ...]:
    """Every score of a language with its differences from both ancestors."""
    first, found = differences(pairs[FIRST]), pairs[FIRST].comparison
    last = differences(pairs[PREVIOUS]) if PREVIOUS in pairs else {}
    scores = {(s.task, s.language, s.metric): s.estimate for s in found.scores if s.model != found.reference and not s.average}
    return tuple(Change(*key, scores[key], e, (last[key],) if key in last else ()) for key, e in first.items() if key in scores)


def result(chain: Chain, asked: Criteria, pairs: Mapping[str, Findings], judged: Mapping[str, Verdict],
           past: Sequence[Check]) -> Result:
    """The verdict, the drift, the chain, and every check until now, which is the last of `past`."""
    check = past[-1]
    tables = [scores(check), criteria_table(judged[FIRST], f"Criteria, compared with {check.first}")]
    if PREVIOUS in judged:
        tables.append(criteria_table(judged[PREVIOUS], f"The same criteria, compared with {check.previous}: told, not decided by"))
    tables += [history.table(past, deciding(asked, check)), chain_table(chain)]
    notes = [f"{link.name}: {link.note}." for link in chain.links if link.note]
    if chain.broken:
        notes.append(f"The chain of manifests breaks at {chain.links[-1].name}: {chain.broken}.")
    notes += [note for found in pairs.values() for note in found.caveats()]
    data = {"criteria": judged[FIRST].data(), "chain": list(check.chain), "broken": check.broken, "checks": len(past)}
    curves: tuple[Curve, ...] = history.curves(past)
    return Result("watch@1", "watch", f"Check {len(past)} of {check.model}", summary=sentences(check, judged), tables=tuple(tables),
                  curves=curves, caveats=tuple(dict.fromkeys(notes)), data=data)


def deciding(asked: Criteria, check: Check) -> Key | None:
    """The score that the table of checks follows: the first that a criterion names, else the first."""
    known = [c.key for c in check.changes]
    wanted = [key for c in asked.criteria for key in known
              if (c.task, c.metric) == (key[0], key[2]) and c.language in (key[1], "all")]
    return next(iter([*wanted, *known]), None)


def sentences(check: Check, judged: Mapping[str, Verdict]) -> tuple[str, ...]:
    """The check in words."""
    from polygraft.evals.verdicts.criteria import FAILED, MUST

    ago = f" ({len(check.chain) - 1} updates ago)" if len(check.chain) > 2 else ""
    last = [e for c in check.changes for e in c.since_previous]
    missed = [j.words() for j in judged[FIRST].judgements if j.status == FAILED and j.priority != MUST] if FIRST in judged else []
    out = [f"Criteria: {'met' if check.passed else 'not met'}.",
           f"Since {check.first}{ago}: {counted([c.since_first for c in check.changes])}."]
    out += [f"Failed, but no `must`: {words}." for words in missed[:NAMED]]
    if last:
        out.append(f"Since {check.previous}, the last update: {counted(last)}.")
    if PREVIOUS in judged and judged[PREVIOUS].passed and not check.passed:
        out.append("The last update alone is within what is tolerated: the loss is that of all updates together.")
    hidden = [c for c in check.changes if c.since_first.verdict == "worse" and any(e.verdict != "worse" for e in c.since_previous)]
    if hidden:
        names = ", ".join(" ".join(dict.fromkeys(c.key)) for c in hidden[:NAMED]) + " and more" * (len(hidden) > NAMED)
        out.append(f"Worse since {check.first}, but not by the last update alone: {names}.")
    return tuple(out)


def counted(found: Sequence[Estimate]) -> str:
    kinds = [e.verdict for e in found]
    worse, better = kinds.count("worse"), kinds.count("better")
    return f"{worse} of {len(kinds)} scores worse, {better} better, {len(kinds) - worse - better} not distinguishable"


def scores(check: Check) -> Table:
    """Every score now, since the first ancestor, and since the parent."""
    last = any(c.since_previous for c in check.changes)
    head = ("task", "language", "metric", "score", f"since {check.first}", *([f"since {check.previous}"] if last else []))
    rows = tuple((*c.key, c.now, c.since_first, *_last(c, last)) for c in check.changes)
    return Table("Drift", head, rows, "Differences on the same items, tested in pairs.")


def _last(c: Change, shown: bool) -> list[Cell]:
    return [next(iter(c.since_previous), None)] if shown else []


def criteria_table(verdict: Verdict, title: str) -> Table:
    found = verdict.table()
    return Table(title, found.columns, found.rows, found.note)


def chain_table(chain: Chain) -> Table:
    """From the model back to its first ancestor."""
    rows = tuple((link.name, link.source.spec, link.made_by or ORIGIN, link.note or "as it was") for link in chain.links)
    end = f"It breaks here: {chain.broken}." if chain.broken else "Complete: polygraft did not make the last one."
    return Table("Chain of manifests", ("model", "source", "made by", "note"), rows, end)
