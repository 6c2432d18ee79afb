"""The rules of a decision, as pure functions of measured effects: ours, and written to be disappointing rather than wrong.

1. A method is *better* in the target language only by the deciding measure of the user's own evaluation, by a paired test adjusted
   over all methods (Holm). 2. A *loss* counts where it is shown, by its own test (adjusting would hide losses), and larger than
   tolerated. 3. Of those that are better without such a loss the one with the highest lower end of its interval is adopted.
4. Else one that is cheaper to serve is, if its interval excludes a loss beyond the tolerance. 5. Else doing nothing is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from polygraft.poc.decision import Effect, Outcome, Reason
from polygraft.report.numbers import fixed, spread
from polygraft.result import Estimate
from polygraft.stats import BETTER, WORSE, holm, verdict

CHEAPER = 0.05  # a share of what serving takes that is worth telling
POINTS, BITS = "points", "bits/byte"


@dataclass(frozen=True)
class Rules:
    """Losses that are tolerated, by unit; a unit that is not here tolerates none."""

    tolerated: Mapping[str, float]

    def allows(self, effect: Effect) -> float:
        return self.tolerated.get(effect.difference.unit, 0.0)


# ----------------------------------------------------------------------------------------------------------- one effect


def gain(effect: Effect) -> float:
    """The change for the better: positive where the method is better."""
    return effect.difference.value if effect.higher_is_better else -effect.difference.value


def ends(effect: Effect) -> tuple[float, float] | None:
    """The interval of `gain`, worst end first; None where there is none."""
    d = effect.difference
    if d.low is None or d.high is None:
        return None
    return (d.low, d.high) if effect.higher_is_better else (-d.high, -d.low)


def lost(effect: Effect, rules: Rules) -> bool:
    """Whether a loss is shown, and larger than tolerated."""
    return effect.difference.verdict == WORSE and -gain(effect) > rules.allows(effect)


def unsure(effect: Effect, rules: Rules) -> bool:
    """Whether a loss beyond the tolerance is neither shown nor excluded."""
    found = ends(effect)
    return not lost(effect, rules) and found is not None and -found[0] > rules.allows(effect)


def told(estimate: Estimate) -> str:
    """`+3.2 points [1.0, 5.4]`: the same in every language."""
    digits = spread(estimate.value, estimate.low, estimate.high)
    unit = "" if not estimate.unit else f" {estimate.unit}"
    interval = "" if estimate.low is None or estimate.high is None else (
        f" [{fixed(estimate.low, digits)}, {fixed(estimate.high, digits)}]")
    return f"{fixed(estimate.value, digits, plus=True)}{unit}{interval}"


def named(effect: Effect) -> str:
    """The measure with its language, as a sentence has it."""
    return f"{effect.measure} ({effect.language})"


# ------------------------------------------------------------------------------------------------------------ one method


def adjusted(effects: Mapping[str, Sequence[Effect]]) -> dict[str, tuple[Effect, ...]]:
    """The same with the verdict of each method's deciding effect adjusted over the methods: the first of role "target"."""
    places = {m: next((i for i, e in enumerate(some) if e.role == "target"), None) for m, some in effects.items()}
    tested = {m: (i, p) for m, i in places.items() if i is not None and (p := effects[m][i].p) is not None}
    out = {m: list(some) for m, some in effects.items()}
    for (m, (i, _)), p in zip(tested.items(), holm([p for _, p in tested.values()])):
        e = effects[m][i]
        said = verdict(e.difference.value, p, higher_is_better=e.higher_is_better)
        out[m][i] = replace(e, difference=replace(e.difference, verdict=said))
    return {m: tuple(some) for m, some in out.items()}


def judged(row: Outcome, today: Outcome, rules: Rules) -> Outcome:
    """The row with its status, the reason, and what could not be excluded. `row.effects` are adjusted."""
    target = next(iter(row.of("target")), None)
    if target is None or ends(target) is None:
        return replace(row, status="unmeasured", reason=Reason("unmeasured"))
    values = {"measure": named(target), "value": told(target.difference)}
    rest = [e for e in row.effects if e.role != "target"]
    losses = sorted((e for e in rest if lost(e, rules)), key=gain)
    notes = tuple(Reason("note-unsure", {"measure": named(e), "value": told(e.difference)}) for e in rest if unsure(e, rules))
    row = replace(row, notes=(*row.notes, *notes))
    more = {"lost": named(losses[0]), "loss": told(losses[0].difference)} if losses else {}
    if target.difference.verdict == WORSE:
        return replace(row, status="worse", reason=Reason("worse", values))
    if target.difference.verdict == BETTER:
        if not losses:
            return replace(row, status="gains", reason=Reason("gains", values))
        return replace(row, status="loses", reason=Reason("loses", values | more))
    saving = cheaper(row, today)
    if saving >= CHEAPER and not losses and not any(unsure(e, rules) for e in row.effects if e.role in ("target", "english")):
        return replace(row, status="saves", reason=Reason("saves", values | {"saving": f"{saving:.0%}"}))
    code = "even-loses" if losses else "even"
    return replace(row, status="even", reason=Reason(code, values | more | {"n": f"{target.difference.n:,}"}))


def cheaper(row: Outcome, today: Outcome) -> float:
    """The share of bytes that are read less to write the same text of the target language; 0 where it is not known."""
    now, then = (_work(o) for o in (today, row))
    return 1 - then / now if now and then else 0.0


def _work(row: Outcome) -> float:
    s = row.serving
    return s.bytes_per_token * (s.tokens_per_character or 0.0)


# ------------------------------------------------------------------------------------------------------------ the verdict


def verdict_of(rows: Sequence[Outcome], stage: str, language: str, cost: Mapping[str, str]) -> tuple[str, str, Reason]:
    """(verdict, recommended, reason) from the judged rows. `cost`: what making each method's model took, in words."""
    tried = [r for r in rows if r.status not in ("nothing", "absent", "dropped")]
    measured = [r for r in tried if r.status not in ("failed", "unmeasured")]
    if stage == "smoke":
        return "undecided", "", Reason("undecided-smoke", {"count": str(len(measured)), "planned": str(len(tried))})
    if not measured:
        return "undecided", "", Reason("undecided-unmeasured")
    if found := [r for r in measured if r.status == "gains"]:
        best = max(found, key=lambda r: (ends(r.of("target")[0]) or (0.0, 0.0))[0])
        return "adopt", best.method, Reason("adopt", {"method": best.title, "measure": best.reason.values["measure"],
                                                      "value": best.reason.values["value"], "cost": cost[best.method]})
    if found := [r for r in measured if r.status == "saves"]:
        best = max(found, key=lambda r: float(r.reason.values["saving"].rstrip("%")))
        return "adopt", best.method, Reason("adopt-saving", {"method": best.title, "language": language,
                                                             "saving": best.reason.values["saving"]})
    return "keep", "nothing", _keep(measured, language)


def _keep(measured: Sequence[Outcome], language: str) -> Reason:
    """Why doing nothing is best: others lose more than they gain, or nothing shows."""
    if losers := [r.title for r in measured if r.status == "loses"]:
        return Reason("keep-loses", {"language": language, "methods": ", ".join(losers)})
    even = [e for r in measured if r.status == "even" for e in r.of("target")[:1] if e.detectable]
    if not even:
        return Reason("keep")
    least = min(even, key=lambda e: e.detectable or 0.0)
    shown = fixed(least.detectable, spread(least.detectable or 0.0, None, None))
    return Reason("keep-small", {"n": f"{least.difference.n:,}", "detectable": f"{shown} {least.difference.unit}".strip()})
