"""Does editing help? Ways of steering against the unedited model, random neurons, the residual vector and whole layers.

"No" is an expected answer: published gains of forcing language neurons are mostly within noise, or losses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from polygraft import stats
from polygraft.analysis.steering.effects import LEAST_CONTROLS, Effects, Judged, judged
from polygraft.errors import RecipeError
from polygraft.result import Cell, Estimate, Table

NEURONS, COMPARATOR = "neurons", "comparator"
POWER = stats.z_value(0.95) + NormalDist().inv_cdf(0.8)  # standard errors that a true effect needs to be seen four times in five
UNSURE = "helps, not shown to beat random ones"
SAID = {stats.BETTER: "helps", stats.WORSE: "harms", stats.UNCLEAR: "no difference seen"}


@dataclass(frozen=True)
class Way:
    """One way on the measure asked about. Differences are from the unedited model, in the measure's unit; `p` are Holm's.

    `random`: the mean effect of its controls; `specific`: its own effect minus that. `detectable`: the true effect that so many
    items would show four times in five. `outcome`: "helps", "harms", "no difference seen", or UNSURE.
    """

    name: str
    kind: str
    effect: stats.Bootstrap
    p: float
    random: stats.Bootstrap | None
    specific: stats.Bootstrap | None
    specific_p: float
    controls: int
    detectable: float
    outcome: str
    harmed: tuple[str, ...]
    helped: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """`answer`: some way of editing neurons helps, and more than random neurons do. `sentence` says so, or why not.

    `best`: the neuron way with the greatest gain; `against`: for each comparator the best way's gain minus its gain, with Holm's p.
    `confirmed`: the best way on items that had no part in choosing it (`halves`), `items`: how many chose and how many confirmed.
    """

    answer: bool
    sentence: str
    measure: str
    unit: str
    ways: tuple[Way, ...]
    best: str
    against: dict[str, tuple[stats.Bootstrap, float]]
    confirmed: Way | None = None
    items: tuple[int, int] = (0, 0)

    @property
    def neurons(self) -> tuple[str, ...]:
        """The ways that edit neurons."""
        return tuple(w.name for w in self.ways if w.kind == NEURONS)


def judge(e: Effects, measure: str, kinds: Mapping[str, str], alpha: float = 0.05,
          chosen: tuple[int, int] | None = None) -> Verdict:
    """Rows of `e` are ways, `measure` names the column asked about; all other columns are side effects.

    `kinds[row]` is "neurons" or "comparator" (a residual vector, a layer left out). Three families are adjusted by Holm, each over
    all ways: effects, effects beyond the controls, and side effects (ways x columns). Raises RecipeError where the question cannot
    be answered: a way of neurons without three random controls, or no such way. `chosen`: the one way of neurons was the best of so
    many on so many other items, which the sentence says.
    """
    _check(e, measure, kinds)
    j = e.columns.index(measure)
    rows = range(len(e.rows))
    effect = judged(e, e.own, [(i, j) for i in rows], alpha)
    specific = judged(e, e.specific, [(i, j) for i in rows if e.specific.known(i)], alpha)
    side = judged(e, e.own, [(i, c) for i in rows for c in range(len(e.columns)) if c != j], alpha)
    ways = tuple(_way(e, i, j, kinds[e.rows[i]], effect, specific, side) for i in rows)
    sign = 1.0 if e.higher_is_better[j] else -1.0
    best = max((w for w in ways if w.kind == NEURONS), key=lambda w: (w.outcome == SAID[stats.BETTER], sign * w.effect.value))
    against = _against(e, j, best.name, [w.name for w in ways if w.kind == COMPARATOR])
    answer = best.outcome == SAID[stats.BETTER]
    return Verdict(answer, _sentence(e, j, ways, best, against, alpha, chosen), measure, e.units[j], ways, best.name, against)


def _check(e: Effects, measure: str, kinds: Mapping[str, str]) -> None:
    if measure not in e.columns:
        raise RecipeError("the verdict is about something that was not measured", found=measure, expected=", ".join(e.columns))
    neurons = [i for i, row in enumerate(e.rows) if kinds[row] == NEURONS]
    if not neurons:
        raise RecipeError("no way of editing neurons was tried", found=", ".join(e.rows), fix="name one, such as mean or zero")
    for i in neurons:
        if e.controls[i] < LEAST_CONTROLS:
            raise RecipeError("too few random controls for a verdict", where=e.rows[i], found=e.controls[i],
                              expected=f"at least {LEAST_CONTROLS} draws of as many random neurons in each layer")


def _way(e: Effects, i: int, j: int, kind: str, effect: Mapping[Any, Judged], specific: Mapping[Any, Judged],
         side: Mapping[Any, Judged]) -> Way:
    boot, p, said = effect[i, j]
    beyond = specific.get((i, j))
    outcome = SAID[said]
    if said == stats.BETTER and beyond is not None and beyond[2] != stats.BETTER:
        outcome = UNSURE
    others = {what: tuple(e.columns[c] for (r, c), (_, _, verdict) in side.items() if r == i and verdict == what)
              for what in (stats.WORSE, stats.BETTER)}
    random = e.random.cell(i, j) if e.random.known(i) else None
    return Way(e.rows[i], kind, boot, p, random, beyond and beyond[0], beyond[1] if beyond else 1.0, e.controls[i],
               POWER * boot.se, outcome, others[stats.WORSE], others[stats.BETTER])


def _against(e: Effects, j: int, best: str, comparators: Sequence[str]) -> dict[str, tuple[stats.Bootstrap, float]]:
    """The best way's gain minus each comparator's, in the good direction, from the same draws."""
    sign, b = (1.0 if e.higher_is_better[j] else -1.0), e.rows.index(best)

    def gain(i: int) -> Callable[[np.ndarray], np.ndarray]:
        return lambda values: sign * stats.paired(values[..., i, j], values[..., b, j])

    found = {name: e.own.contrast(gain(e.rows.index(name))) for name in comparators}
    return {name: (boot, p) for (name, boot), p in zip(found.items(), stats.holm([boot.p for boot in found.values()]))}


# ---------------------------------------------------------------------------------------------------------------- sentences


def _sentence(e: Effects, j: int, ways: Sequence[Way], best: Way, against: Mapping[str, tuple[stats.Bootstrap, float]],
              alpha: float, chosen: tuple[int, int] | None) -> str:
    about = f"{e.columns[j]} ({e.units[j]}, {'higher' if e.higher_is_better[j] else 'lower'} is better, " \
            f"{e.plain[j]:.4g} without an edit, {e.own.items[j]} items)"
    tried = [w for w in ways if w.kind == NEURONS]
    helps = best.outcome == SAID[stats.BETTER]
    parts = [_confirmed(best, about, *chosen) if chosen else
             _yes(best, about) if helps else _no(tried, best, about)]
    if best.harmed or best.helped:
        sides = [f"{what} {', '.join(names)}" for what, names in (("harms", best.harmed), ("helps", best.helped)) if names]
        parts.append(f"Side effects of {best.name}: it {' and '.join(sides)}.")
    elif len(e.columns) > 1:
        parts.append(f"No side effect of {best.name} was seen on {', '.join(c for i, c in enumerate(e.columns) if i != j)}.")
    for name, (boot, p) in against.items():
        word = "not distinguishable from" if not p < alpha else "better than" if boot.value > 0 else "worse than"
        own = next(w.outcome for w in ways if w.name == name)
        parts.append(f"It is {word} {name} ({said(boot)}, p = {p:.2g}), which itself: {own}.")
    return " ".join(parts)


def _confirmed(best: Way, about: str, ways: int, chosen_on: int) -> str:
    """What the way that was chosen on one half does on the other; all figures are of the other."""
    assert best.specific is not None  # see _yes
    does = {SAID[stats.BETTER]: "improves", SAID[stats.WORSE]: "harms", SAID[stats.UNCLEAR]: "makes no difference that is seen in",
            UNSURE: "improves, but not shown to do so more than random neurons,"}[best.outcome]
    answer = "Yes" if best.outcome == SAID[stats.BETTER] else "No"
    more = ""
    if best.outcome == UNSURE:
        more = f" More random sets than {best.controls} (controls) would tell more."
    elif answer == "No":
        more = f" So many items would show an effect of {best.detectable:.2g} four times in five."
    return (f"{answer}: of {ways} ways of editing neurons, {best.name} was best on one half of the items ({chosen_on}); on the "
            f"other half it {does} {about}: {said(best.effect)} (Holm p = {best.p:.2g}), and beyond random neurons "
            f"{said(best.specific)} (Holm p = {best.specific_p:.2g}).{more}")


def _yes(best: Way, about: str) -> str:
    assert best.specific is not None  # a way of neurons has controls: see _check
    return (f"Yes: {best.name} improves {about} by {said(best.effect)} (Holm p = {best.p:.2g}), and beyond random neurons by "
            f"{said(best.specific)} (Holm p = {best.specific_p:.2g}).")


def _no(tried: Sequence[Way], best: Way, about: str) -> str:
    counts = {outcome: [w.name for w in tried if w.outcome == outcome] for outcome in dict.fromkeys(w.outcome for w in tried)}
    outcomes = "; ".join(f"{outcome}: {', '.join(names)}" for outcome, names in counts.items())
    many = "the one way" if len(tried) == 1 else f"none of the {len(tried)} ways"
    does = "does not improve" if len(tried) == 1 else "improves"
    seen = f"so many items would show an effect of {best.detectable:.2g} four times in five"
    if best.outcome == UNSURE and best.specific is not None:
        seen = (f"its difference from {best.controls} random sets is {said(best.specific)} (Holm p = {best.specific_p:.2g}), and "
                "more of them (controls) would tell more")
    return (f"No: {many} of editing neurons {does} {about} beyond random neurons ({outcomes}). The best was {best.name} with "
            f"{said(best.effect)} (Holm p = {best.p:.2g}); {seen}.")


def said(b: stats.Bootstrap) -> str:
    """An effect with its interval."""
    return f"{b.value:+.4g} [{b.low:+.4g}, {b.high:+.4g}]"


# ------------------------------------------------------------------------------------------------------------------- tables


def tables(verdict: Verdict, e: Effects) -> tuple[Table, ...]:
    """The ways on the measure asked about, and every way's side effects."""
    j, n = e.columns.index(verdict.measure), e.own.items[e.columns.index(verdict.measure)]
    direction = "higher" if e.higher_is_better[j] else "lower"
    note = f"All {n} items, those that the best way was chosen on included. " if verdict.confirmed else f"{n} items. "
    note += f"Change from the unedited model's {e.plain[j]:.4g} {e.units[j]} ({direction} is better); p by Holm over all ways."
    columns = ("way", "kind", "effect", "random control", "beyond random", "p", "p beyond random", "verdict")
    found = [Table(f"Does editing help {verdict.measure}?", columns, tuple(_cells(w, n, e.units[j]) for w in verdict.ways), note)]
    if w := verdict.confirmed:
        found.append(Table(f"{w.name} on the other half of the items", columns, (_cells(w, verdict.items[1], e.units[j]),),
                           f"The {verdict.items[1]} items that had no part in choosing it: the answer is of these. p by Holm over "
                           "it and the ways that edit no found neurons."))
    others = [c for c in range(len(e.columns)) if c != j]
    if others:
        side = judged(e, e.own, [(i, c) for i in range(len(e.rows)) for c in others], 0.05)
        body: list[tuple[Cell, ...]] = []
        for i, row in enumerate(e.rows):
            body.append((row, *(_estimate(side[i, c][0], e.own.items[c], e.units[c], side[i, c][2]) for c in others)))
        found.append(Table("Side effects", ("way", *(e.columns[c] for c in others)), tuple(body),
                           "Change from the unedited model; verdicts by Holm over all ways and columns."))
    return tuple(found)


def _cells(w: Way, n: int, unit: str) -> tuple[Cell, ...]:
    cells = [_estimate(b, n, unit) if b else None for b in (w.effect, w.random, w.specific)]
    return (w.name, w.kind, *cells, w.p, w.specific_p if w.specific else None, w.outcome)


def _estimate(b: stats.Bootstrap, n: int, unit: str, said: str = "") -> Estimate:
    return Estimate(b.value, b.low, b.high, n, unit, said)


def data(verdict: Verdict) -> dict[str, Any]:
    """Plain values for `Result.data`."""
    against = {name: asdict(boot) | {"holm": p} for name, (boot, p) in verdict.against.items()}
    confirmed = verdict.confirmed and asdict(verdict.confirmed)
    return {"answer": "yes" if verdict.answer else "no", "sentence": verdict.sentence, "measure": verdict.measure,
            "confirmed": confirmed, "items": list(verdict.items),
            "unit": verdict.unit, "best": verdict.best, "ways": [asdict(w) for w in verdict.ways], "against": against}


CAVEAT = ("The verdict is about this model, these neurons and this text; a p adjusted by Holm covers the ways tried here, not "
          "those tried before.")


def caveats(verdict: Verdict) -> tuple[str, ...]:
    """What a reader of the verdict must know: which items it is of."""
    if len(verdict.neurons) < 2:
        return (CAVEAT,)
    if verdict.confirmed is None:
        return ("The best way was chosen on the items that it is judged by: its effect on new items is likely smaller.", CAVEAT)
    return (f"The best way was chosen on {verdict.items[0]} items, and the answer is of the other {verdict.items[1]}; the table of "
            "all ways is of all items.", CAVEAT)
