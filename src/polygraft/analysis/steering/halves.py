"""A verdict on other items than those that chose the best way: chosen on one half, confirmed on the other (ours)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from polygraft import stats
from polygraft.analysis.steering import verdict
from polygraft.analysis.steering.effects import Effects, Measured, Observed, Ratio, effects

LEAST_ITEMS = 40  # twenty to choose on and twenty to confirm on


def half(n: int) -> np.ndarray:
    """bool [n]: the items that choose, half of them by the hash of their place, the same in every column of as many items."""
    order = sorted(range(n), key=lambda i: hashlib.sha256(str(i).encode()).digest())
    return np.isin(np.arange(n), order[: n // 2])


def split(observed: Observed, measure: str) -> tuple[Observed, Observed] | None:
    """The runs on each half of the items. None with fewer than LEAST_ITEMS, or where a half has nothing that was measured.

    Columns with as many items as the measure are split with it, for they may be of the same items. Others had no part in the choice
    and stay whole.
    """
    choosing = half(len(observed.plain[measure].top))

    def divided(column: str) -> bool:
        found = [measured[column] for _, measured in observed.conditions()]
        return len(found[0].top) == len(choosing) and all(s.bottom[h].sum() > 0 for s in found for h in (choosing, ~choosing))

    columns = {c for c in observed.plain if divided(c)}
    if int((observed.plain[measure].bottom > 0).sum()) < LEAST_ITEMS or measure not in columns:
        return None

    def on(items: np.ndarray) -> Observed:
        def part(measured: Measured) -> dict[str, Ratio]:
            return {c: replace(s, top=s.top[items], bottom=s.bottom[items]) if c in columns else s for c, s in measured.items()}

        return Observed(part(observed.plain), {row: part(m) for row, m in observed.edited.items()},
                        {row: [part(c) for c in some] for row, some in observed.control.items()})

    return on(choosing), on(~choosing)


def judge(observed: Observed, measure: str, kinds: Mapping[str, str], *, seed: int = 0,
          draws: int = stats.DRAWS) -> tuple[verdict.Verdict, Effects]:
    """`verdict.judge` on all items, whose answer, sentence and `confirmed` are of the second half where the items can be split.

    There the way that was chosen on the first half stands alone beside the comparators: Holm is over these.
    """
    e = effects(observed, seed=seed, draws=draws)
    whole = verdict.judge(e, measure, kinds)
    if len(whole.neurons) < 2:  # nothing was chosen
        return whole, e
    parts = split(observed, measure)
    if parts is None:
        return replace(whole, sentence=f"{whole.sentence} With fewer than {LEAST_ITEMS} items the way was chosen on the items that "
                                       "it is judged by."), e
    first, second = parts
    best = verdict.judge(effects(first, seed=seed, draws=draws), measure, kinds).best
    rows = [row for row in observed.edited if row == best or kinds[row] == verdict.COMPARATOR]
    alone = Observed(second.plain, {r: second.edited[r] for r in rows}, {r: second.control.get(r, ()) for r in rows})
    n = len(first.plain[measure].top)
    found = verdict.judge(effects(alone, seed=seed, draws=draws), measure, kinds, chosen=(len(whole.neurons), n))
    return replace(whole, answer=found.answer, sentence=found.sentence, best=best, against=found.against,
                   confirmed=next(w for w in found.ways if w.name == best), items=(n, len(second.plain[measure].top))), e
