"""What is taken from a measurement: the layers of the asked rule, beside other rules, fewer languages and other documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from polygraft.analysis.layers import choose
from polygraft.analysis.layers.choose import RULES, Choice, Rule, Within
from polygraft.analysis.layers.final import last_block
from polygraft.analysis.layers.measure import CURVES, Measured
from polygraft.analysis.layers.tables import agreement, listed


@dataclass(frozen=True)
class Decision:
    """`often` float64 [layers]: the share of resamplings in which the rule takes the layer; None where there are no groups."""

    taken: Choice
    all: tuple[Choice, ...]
    fewer: dict[str, tuple[int, ...]]  # "without sw" or "en and sw" -> layers of the taken rule
    often: np.ndarray | None
    able: int  # layers among which is chosen
    weak: tuple[int, ...]  # chosen layers that do not stand out from the noise


def decide(m: Measured, *, rule: Rule, n: int | None, spread: float, within: Within, where: Any) -> Decision:
    """Raises InputError where nothing can be chosen, RecipeError where more layers are asked for than may be."""
    name = CURVES[m.kind]
    msd, noise = m.values[name], m.values.get(f"{name}.noise")
    options: dict[str, Any] = {"n": choose.count(n, m.layers, within), "c": spread, "within": within}
    choose.refuse_noise(msd, noise, where)
    choices = tuple(choose.choose(r, msd, **options) for r in RULES)
    taken = next(c for c in choices if c.rule == rule)
    choose.refuse_empty(taken)
    subsets = {f"without {g}": c for g, c in m.each("without").items()} | {" and ".join(p): c for p, c in m.pairs().items()}
    fewer = {which: choose.choose(rule, c, **options).layers for which, c in subsets.items()}
    often = choose.mask(rule, m.draws[name], **options).mean(0) if name in m.draws else None
    weak = () if noise is None else tuple(i for i in taken.layers if msd[i] <= choose.LEAST * noise[i])
    return Decision(taken, choices, fewer, often, choose.candidates(m.layers, within), weak)


def summary(m: Measured, d: Decision) -> tuple[str, ...]:
    """What was chosen and why, how stable it is, and what else the measurement says, in plain sentences."""
    said = [f"Chosen: layers {listed(d.taken.layers)}, by rule {d.taken.rule}: {d.taken.why}."]
    others = [f"{c.rule}: {listed(c.layers)}" for c in d.all if c.rule != d.taken.rule]
    if len(d.taken.layers) == d.able:
        said.append(f"These are all {d.able} that could be taken, so that nothing was chosen, and how often they are taken "
                    "again says nothing: ask for fewer (`top`), or choose among more (`within`).")
    said.append(f"The other rules would have taken {'; '.join(others)}.")
    for word, what in (("without", "with one language left out"), ("and", "by pairs of languages")):
        sets = [s for which, s in d.fewer.items() if word in which.split()]
        if sets:
            shared = agreement(sets, d.taken.layers)
            said.append(f"Mean agreement (Jaccard) of the layers taken {what} with the chosen: {shared:.2f}.")
    if d.often is not None:
        often = {i: float(d.often[i]) for i in d.taken.layers}
        least = min(often, key=often.__getitem__)
        said.append(f"Each chosen layer is taken in at least {often[least]:.1%} of resamplings of documents (layer {least}).")
    if d.weak:
        said.append(f"Chosen, but not standing out from what other documents would give: {listed(d.weak)}.")
    if "stream.share" in m.values:
        top = last_block(m.values["stream.share"])
        said.append(f"In the manner of LinguaMap, ours: languages part again in layers {listed(top)} of the stream." if top else
                    "Language does not rise again in the last layers of the stream, so none are named.")  # fmt: skip
    return tuple(said)
