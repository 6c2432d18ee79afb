"""What was found about neurons in sentences, tables and pictures."""

from __future__ import annotations

import numpy as np

from polygraft.analysis.groups import percentile
from polygraft.analysis.neurons import topic
from polygraft.analysis.neurons.study import Study
from polygraft.result import Cell, Curve, Estimate, LayerMap, Table

CAVEATS = (
    "A neuron that fires for a language's text may answer to its script, its tokens or its topics: what it does is shown by an "
    "edit (polygraft steer), not by its firing.",
    "Of a model that was trained on one language, what is found for others is script and mechanics.",
)
RANDOM = "random"


def summary(s: Study) -> tuple[str, ...]:
    """The main figures in plain sentences."""
    total, shared = int(s.found.any.sum()), s.found.shared
    counts = ", ".join(f"{g} {int(m.sum()):,}" for g, m in s.found.masks.items())
    said = [f"{s.found.method} found {total:,} of {int(s.real.sum()):,} neurons: {counts}."]
    if not total:
        return (*said, "There is nothing to compare: these languages do not differ in any neuron by this rule.")
    said.append(f"Of one language alone: {shared[1]:,}; of several: {int(shared[2:].sum()):,}.")
    said.append(_depth(s))
    if s.draws is not None:
        low, high = percentile(s.draws[:, -1])
        said.append(f"Resampled documents give the same set at a Jaccard index of {s.draws[:, -1].mean():.2f} "
                    f"({low:.2f} to {high:.2f}).")  # fmt: skip
    if s.floor is not None:
        under = s.floor.under
        said.append(f"In parts of one language taken for {len(under)} languages, {np.mean(under):,.0f} neurons ({min(under):,} to "
                    f"{max(under):,}) score as the found ones do: so many documents alone would give.")  # fmt: skip
    if s.topic is not None:
        said.append(_languages_share(s))
    return tuple(said)


def _depth(s: Study) -> str:
    counts, layers = s.found.any.sum(1), len(s.real)
    quarters = [int(q.sum()) for q in np.array_split(counts, min(4, layers))]
    most = int(counts.argmax())
    parts = "; ".join(f"{q / counts.sum():.0%}" for q in quarters)
    steps = "quarter by quarter" if layers >= 4 else "part by part"
    return f"From the bottom of the model to its top, {steps}: {parts}; most are in layer {most} ({int(counts[most]):,})."


def _languages_share(s: Study) -> str:
    assert s.topic is not None
    kept = [(found, drawn) for found, drawn in s.topic.values() if found.n]
    if not kept:
        return "None of them changes from document to document."
    ours = float(np.mean([found.shares[0] for found, _ in kept]))
    random = np.concatenate([drawn[:, 0] for _, drawn in kept])
    beside = f", of random neurons' of the same layers {random.mean():.0%}" if len(random) else ""
    said = f"Language makes {ours:.0%} of what their activity varies by over groups of {s.per_group:.3g} parallel documents{beside}"
    return f"{said}; {s.nothing[0]:.0%} would be noise."


def languages(s: Study) -> Table:
    """For each language: how many neurons, how often they fire for it and for others, the control, the stability."""
    columns = ("language", "tokens", "neurons", "its own alone", "fire for it", "fire for others", "random fire for it",
               "random fire for others", "same again")  # fmt: skip
    rows: list[tuple[Cell, ...]] = []
    owners = s.found.scores.owned.sum(-1)
    for k, (g, mask) in enumerate(s.found.masks.items()):
        here, there = np.asarray(s.probability[..., k]), np.delete(s.probability, k, -1).mean(-1)
        fire = [_mean(values, m) for m in (mask, s.random[g]) for values in (here, there)]
        rows.append((g, s.tokens[k], int(mask.sum()), int((mask & (owners == 1)).sum()), *fire, _again(s, k)))
    note = ("Firing: mean share of tokens with an activation above 0. Random: as many neurons of the same layers, found for no "
            "language. Same again: mean Jaccard index with the sets of resampled documents, and the range of 95 % of them.")
    return Table("Neurons of each language", columns, tuple(rows), note)


def _mean(values: np.ndarray, mask: np.ndarray) -> float | None:
    return float(values[mask].mean()) if mask.any() else None


def _again(s: Study, k: int) -> Estimate | None:
    if s.draws is None or not s.found.masks[s.found.languages[k]].any():  # nothing stays nothing: that is no stability
        return None
    low, high = percentile(s.draws[:, k])
    return Estimate(float(s.draws[:, k].mean()), float(low), float(high), len(s.draws))


def owners(s: Study) -> Table:
    """How many languages a found neuron belongs to."""
    total = max(1, int(s.found.shared[1:].sum()))
    rows: tuple[tuple[Cell, ...], ...] = tuple((k, int(n), int(n) / total) for k, n in enumerate(s.found.shared) if k)
    return Table("How many languages a found neuron belongs to", ("languages", "neurons", "share"), rows)


def overlaps(s: Study) -> Table:
    """Each pair of languages, the largest overlap first."""
    masks = list(s.found.masks.items())
    rows: list[tuple[Cell, ...]] = []
    for i, (a, first) in enumerate(masks):
        for j, (b, second) in enumerate(masks[:i]):
            if first.any() or second.any():
                rows.append((b, a, int((first & second).sum()), float(s.overlap[i, j]), float(s.chance[i, j])))
    rows.sort(key=lambda r: -float(r[3]))  # type: ignore[arg-type]
    note = "Jaccard index: common neurons over all neurons of the two. By chance: sets as large in every layer, drawn at random."
    return Table("Overlap of languages", ("language", "language", "common", "Jaccard", "by chance"), tuple(rows), note)


def agreement(s: Study) -> Table:
    """The other methods that this reading allows, beside this one."""
    rows: tuple[tuple[Cell, ...], ...] = tuple((m, n, found, chance) for m, (n, found, chance) in s.agreement.items())
    note = f"Jaccard index of all neurons that a method gives to any language with those of {s.found.method}."
    return Table("Agreement with other methods", ("method", "neurons", "Jaccard", "by chance"), rows, note)


def firing(s: Study) -> Table:
    """Whether a language's neurons fire together."""
    columns = ("language", "within its documents", "random", "over all languages", "random over all")
    rows: tuple[tuple[Cell, ...], ...] = tuple((g, *f.own, *f.all) for g, f in s.firing.items())
    note = ("Mean correlation of two neurons' shares of active tokens over groups of documents. Over all languages it is high for "
            "any neurons that follow language; within a language's own documents it is not.")
    return Table("Do they fire together?", columns, rows, note)


def variance(s: Study) -> Table:
    """Language, documents and rest in the variance of each language's neurons and of random ones."""
    rows: list[tuple[Cell, ...]] = []
    for g, (found, drawn) in (s.topic or {}).items():
        if not found.n:
            continue
        rows.append((g, *(float(x) for x in found.shares)))
        if not len(drawn):
            continue
        low, high = percentile(drawn)
        ranges = zip(drawn.mean(0), low, high)
        rows.append((f"{RANDOM} ({g})", *(Estimate(float(m), float(a), float(b), len(drawn)) for m, a, b in ranges)))
    rows.append(("noise alone", *(float(x) for x in s.nothing)))
    note = (f"Shares of the sum of squares of mean activations over languages and groups of {s.per_group:.3g} parallel documents "
            "each. A mean over many documents has little topic left: with more documents in a group the share of documents falls "
            "and that of language rises, for random neurons too. Compare readings of as many documents in a group only.")
    return Table("How much is language, how much topic", ("neurons", *topic.SOURCES), tuple(rows), note)


def floors(s: Study) -> Table:
    """How specific neurons are to parts of one language, which do not differ in language."""
    if s.floor is None:
        return Table("What documents alone give", (), ())
    total = int(s.found.any.sum())
    rows: list[tuple[Cell, ...]] = [("found", s.floor.found, total)]
    rows += [(f"parts of {g}", best, n) for g, best, n in zip(s.found.languages, s.floor.best, s.floor.under)]
    note = (f"Each language's own documents dealt to {len(s.floor.under)} parts that are taken for languages. Worst score taken: "
            "of as many neurons as the method always takes. As specific: neurons that score at least as well as the worst found. "
            "A part has a fraction of the text, so the floor is rather too high.")
    return Table("What documents alone give", ("text", "worst score taken", "as specific"), tuple(rows), note)


def tables(s: Study) -> tuple[Table, ...]:
    made = [languages(s), owners(s), overlaps(s), agreement(s), floors(s), firing(s)]
    return tuple(t for t in (*made, *([variance(s)] if s.topic is not None else [])) if t.rows)


def layer_map(s: Study) -> LayerMap:
    """Languages down, layers across: how many neurons of a layer belong to a language."""
    counts = s.found.by_layer
    values = tuple(tuple(float(n) for n in row) for row in counts)
    return LayerMap("Language neurons of each layer", s.found.languages, len(s.real), values, unit="neurons", low=0.0)


def profile(s: Study) -> Curve:
    """The same as curves: which share of a language's neurons lies in each layer, beside an even spread."""
    counts = s.found.by_layer
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    series: dict[str, tuple[float | None, ...]] = {g: tuple(float(x) for x in r) for g, r in zip(s.found.languages, shares)}
    series["even spread"] = tuple(float(n) / float(s.sizes.sum()) for n in s.sizes)
    x = tuple(map(float, range(len(s.real))))
    return Curve("Where each language's neurons lie", x, series, "layer", "share of its neurons")
