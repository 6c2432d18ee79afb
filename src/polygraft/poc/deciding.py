"""From a finished stage to its Decision: results, headers of what was made, prices and licences put together by the rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from polygraft.poc import gather, licences
from polygraft.poc.budget import SHARE
from polygraft.poc.config import Poc, Prices, Stage
from polygraft.poc.costs import priced, serving, serving_price
from polygraft.poc.decision import Decision, Effect, Licence, Outcome, Reason, Serving
from polygraft.poc.evaluation import Target
from polygraft.poc.facts import Facts
from polygraft.poc.judging import BITS, POINTS, Rules, adjusted, ends, judged, named, verdict_of
from polygraft.poc.methods import TABLE, Sizes, calibration, trained_experts
from polygraft.poc.texts import ENGLISH, Texts
from polygraft.poc.writing import CHANGE
from polygraft.report.numbers import duration, number, size
from polygraft.result import Result
from polygraft.sources import Source, resolve

LEP = "lep"
ANEW = ("refused", "no-neurons")  # reasons of one stage that need not hold in the next
REREAD = 1.5  # times that a text may be read before it is told


@dataclass(frozen=True)
class Setup:
    """What does not change from stage to stage."""

    config: Poc
    target: Target
    texts: Texts
    facts: Facts
    inputs: Path
    budget: float
    prices: Prices | None
    sources: Mapping[str, Source]

    @property
    def rules(self) -> Rules:
        return Rules({POINTS: self.config.tolerated_points, BITS: self.config.tolerated_bits})


@dataclass(frozen=True)
class Done:
    """A stage that ran: its results and their folders by step id, whose step each is, and what became of the other methods
    (`out`: method -> (status, reason))."""

    stage: Stage
    sizes: Sizes
    results: Mapping[str, Result] = field(default_factory=dict)
    folders: Mapping[str, Path] = field(default_factory=dict)
    owners: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    out: Mapping[str, tuple[str, Reason]] = field(default_factory=dict)

    @property
    def ran(self) -> list[str]:
        return [m for m in TABLE if m not in self.out]

    def model(self, method: str) -> Path | None:
        folder = self.folders.get(method)
        return folder / "model" if folder is not None and TABLE[method].model else None


def decide(setup: Setup, done: Done, before: Sizes | None = None) -> Decision:
    """The decision of a stage; `before` are the sizes of the one before it. Reads headers and tokenizers of the models made;
    everything else is in the results."""
    today = _today(setup)
    said = licences.licences(setup.config, setup.sources, bool(setup.texts.sampled))
    rows = [today, *_rows(setup, done, today, said)]
    cost = {r.method: _cost(r, setup.prices) for r in rows}
    verdict, best, reason = verdict_of(rows, done.stage, setup.facts.name, cost)
    first = next((e for r in rows for e in r.of("target")[:1]), None)
    spent = sum(r.cost.seconds for r in done.results.values())
    return Decision(
        done.stage, setup.config.lang, setup.facts.name, setup.facts.today, verdict, best, reason, tuple(rows),
        named(first) if first else f"{setup.target.metric} of {setup.target.title} ({setup.config.lang})", equal(done.sizes),
        setup.budget, spent, said, setup.prices.currency if setup.prices else "", _caveats(setup, done, rows, spent, before))


# ------------------------------------------------------------------------------------------------------------------- rows


def _today(setup: Setup) -> Outcome:
    """Doing nothing."""
    source = setup.sources[setup.facts.today]
    found = serving(source, _held(setup), setup.config.lang)
    return Outcome("nothing", "Do nothing", "nothing", Reason("nothing"), serving=serving_price(found, found, setup.prices),
                   touched=0.0, model=setup.config.models[setup.facts.today])


def _held(setup: Setup) -> Path | None:
    return setup.inputs / setup.texts.held if setup.texts.held else None


def _rows(setup: Setup, done: Done, today: Outcome, said: Sequence[Licence]) -> list[Outcome]:
    """Every method's row, judged."""
    found: dict[str, tuple[Effect, ...]] = {}
    for m in done.ran:
        evaluation = gather.evaluated(done.results, m)
        found[m] = gather.effects(*evaluation, setup.target.title, setup.target.metric, setup.config.lang) if evaluation else ()
    found = adjusted(found)
    most = max((gather.spent(done.results, gather.making(done.owners, m)).tokens for m in done.ran), default=0)
    out = []
    for m in TABLE:
        if m in done.out:
            status, reason = done.out[m]
            out.append(Outcome(m, TABLE[m].title, status, reason))
        else:
            out.append(judged(_row(setup, done, m, found[m], today, said, most), today, setup.rules))
    return out


def _row(setup: Setup, done: Done, method: str, effects: tuple[Effect, ...], today: Outcome, said: Sequence[Licence],
         most: int) -> Outcome:
    """What a method that ran is and took; not judged yet."""
    spent = priced(gather.spent(done.results, gather.making(done.owners, method)), setup.prices)
    model = done.model(method)
    source = resolve(model, offline=True) if model is not None and model.is_dir() else None
    own = serving_price(serving(source, _held(setup), setup.config.lang), today.serving, setup.prices) if source else today.serving
    notes = [Reason(code) for code in TABLE[method].notes]
    notes += [Reason("note-half")] if method == "swap" and all(trained_experts(setup.facts)) else []
    parts = calibration(setup.facts, done.sizes)
    if method == "prune" and parts[ENGLISH] < done.sizes.windows // 2:
        notes.append(Reason("note-calibration", {"language": setup.facts.name, "own": str(parts[setup.config.lang]),
                                                 "english": str(parts[ENGLISH])}))
    if TABLE[method].trains and most and spent.tokens < 0.9 * most:
        notes.append(Reason("note-tokens", {"tokens": number(spent.tokens), "share": f"{spent.tokens / most:.0%}"}))
    touched = gather.touched(done.results.get(f"{CHANGE}{method}"), method)
    touched = _tables(source, own) if method == LEP and source else 0.0 if not TABLE[method].model else touched
    where = f"steps/{model.parent.name}/model" if model is not None else ""
    mix = licences.obligations(method, setup.facts, said)
    return Outcome(method, TABLE[method].title, "unmeasured", Reason("unmeasured"), effects, spent, own, touched, tuple(notes),
                   where, mix)


def _tables(source: Source, own: Serving) -> float | None:
    """Share of embedding and head in a model."""
    from polygraft.anatomy import Anatomy
    from polygraft.prune.forecast import parts_of

    parts = parts_of(source.weights, Anatomy.of(source.weights.config, source.weights.tensors, where=source.spec))
    return (parts.embed + parts.head) / parts.total if own.stored_bytes else None


# ------------------------------------------------------------------------------------------------------------------ words


def _cost(row: Outcome, prices: Prices | None) -> str:
    """What making it took, in words that every language reads: money where it is priced, else time."""
    if row.spent.money is not None and prices is not None:
        return f"{number(row.spent.money)} {prices.currency}"
    return duration(row.spent.seconds)


def equal(sizes: Sizes) -> Reason:
    """What is equal for every method."""
    return Reason("equal", {"steps": f"{sizes.steps:,}", "rows": str(sizes.rows), "length": str(sizes.length)})


def _caveats(setup: Setup, done: Done, rows: Sequence[Outcome], spent: float, before: Sizes | None) -> tuple[Reason, ...]:
    """What the numbers cannot tell."""
    compared = sum(any(ends(e) for e in r.of("target")) for r in rows)
    out = [Reason("caveat-chosen")] if compared else []
    out += [Reason("caveat-losses")] if compared else []
    out += [Reason("caveat-family", {"count": str(compared)})] if compared > 1 else []
    if setup.texts.sampled:
        out.append(Reason("caveat-sampler", {"languages": ", ".join(setup.texts.sampled)}))
    out += [Reason("caveat-text", {"size": size(setup.texts.bytes)})] if setup.texts.cut else []
    read = done.sizes.steps * done.sizes.rows * done.sizes.length
    if (there := (rows[0].serving.tokens_per_character or 0.0) * setup.texts.characters) and read > REREAD * there:
        out.append(Reason("caveat-rounds", {"rounds": f"{read / there:.1f}"}))
    if before is not None and done.sizes.steps <= before.steps:
        out.append(Reason("caveat-earlier", {"stage": before.stage}))
    allowed = SHARE[done.stage] * setup.budget
    if spent > allowed:
        out.append(Reason("caveat-budget", {"spent": duration(spent), "allowed": duration(allowed)}))
    return tuple(out)


def carried(decision: Decision) -> dict[str, tuple[str, Reason]]:
    """What the next stage leaves out: methods that do not apply, and after the pilot those that are worse. A method that failed, or
    that planning refused by what was found until then, is tried again: with more text it may not."""
    out = {r.method: (r.status, r.reason) for r in decision.outcomes
           if r.status == "dropped" or (r.status == "absent" and r.reason.code not in ANEW)}
    for r in decision.outcomes:
        if r.status == "worse" and decision.stage != "smoke":
            values = {"stage": decision.stage, "measure": r.reason.values["measure"], "value": r.reason.values["value"]}
            out[r.method] = ("dropped", Reason("dropped", values))
    return out
