"""The measurement of layers as tables, curves and layer maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from polygraft.analysis.layers.choose import Choice
from polygraft.analysis.layers.measure import CURVES, Measured
from polygraft.anatomy import Anatomy
from polygraft.maps import Cell as At
from polygraft.maps import layer_map
from polygraft.result import Cell, Curve, Estimate, LayerMap, Table
from polygraft.selection import Selection, Shapes

MSD = "mean squared deviation"


def curves(m: Measured) -> tuple[Curve, ...]:
    """The deviation with its noise and interval, of fewer languages, the overlap, the attention, the stream."""
    v = m.values
    band = "Low and high: 95 % interval over groups of documents, of the deviation less its noise." if "msd.low" in v else ""
    found = [
        _curve("Deviation over languages", _of(m, MSD="msd", noise="msd.noise", low="msd.low", high="msd.high"), MSD, band),
        _curve("Deviation of the share of active neurons", _of(m, MSD="msd.count", noise="msd.count.noise", low="msd.count.low",
               high="msd.count.high"), MSD, band),
        _curve("Deviation with one language left out", {f"without {g}": c for g, c in m.each("without").items()}, MSD),
        _curve(f"Overlap of active neurons with {m.reference}", {g: v[f"overlap.{g}"] for g in m.others}, "Jaccard index",
               f"Active: at more than {m.tau:g} of a language's tokens."),
        _curve("Deviation at the attention's output", _attention(m), MSD,
               "Their counts are not kept by group, so they have no interval."),
        _curve("Shift of the attention's mean output", _of(m, shift="attention.shift", noise="attention.shift.noise",
               low="attention.shift.low", high="attention.shift.high"), "share of the mean square"),
        _curve("Language in the residual stream", _of(m, share="stream.share", noise="stream.share.noise", low="stream.share.low",
               high="stream.share.high"), "share of the variance", "0 is the embedding.", "layers passed"),
    ]  # fmt: skip
    return tuple(c for c in found if c.series)


def _attention(m: Measured) -> dict[str, np.ndarray]:
    """The deviation at the attention's output of all languages, and with each left out."""
    name = {"neuron": "attention.msd", "count": "attention.msd.count"}[m.kind]
    shown = _of(m, **{"entries" if m.kind == "neuron" else "counts": name})
    return shown | {f"without {g}": c for g, c in m.each("attention.without").items()}


def _of(m: Measured, **names: str) -> dict[str, np.ndarray]:
    return {shown: m.values[name] for shown, name in names.items() if name in m.values}


def _curve(title: str, series: Mapping[str, np.ndarray], y_label: str, note: str = "", x_label: str = "layer") -> Curve:
    length = max(map(len, series.values()), default=0)
    return Curve(title, tuple(map(float, range(length))), {k: _floats(v) for k, v in series.items()}, x_label, y_label, note)


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(v) for v in values)


def maps(m: Measured, anatomy: Anatomy, chosen: Selection, shapes: Shapes) -> tuple[LayerMap, ...]:
    """How far each language is from the others, layers across; and which share of the model's own parts was chosen."""
    own = LayerMap("How far each language's neurons are from the mean of all", m.languages, m.layers,
                   tuple(_floats(c) for c in m.each("language").values()), unit=MSD, low=0.0)  # fmt: skip
    keys: dict[At, list[str]] = {}
    for key, part in anatomy.parts.items():
        if part.layer is not None:
            keys.setdefault((part.label, part.layer), []).append(key)
    cells = {at: Selection({k: chosen.rows[k] for k in ks if k in chosen}, chosen.axis).share({k: shapes[k] for k in ks})
             for at, ks in keys.items()}  # fmt: skip
    return own, layer_map(anatomy, cells, "Chosen parts", unit="share of the part", low=0.0, high=1.0)


def layers_table(m: Measured, chosen: Sequence[int]) -> Table:
    """One row a layer: all figures that the choice can rest on."""
    name = {"neuron": "MSD", "count": "counts"}[m.kind]
    columns = ("layer", "chosen", "MSD", "counts", f"{name} less noise", "attention",
               f"overlap {m.reference}", "one left out", "taken")
    note = ("MSD: of neurons. Counts, attention: the other MSDs. Less noise: less what documents alone give, with its 95 % "
            f"interval over groups of documents. One left out: {name} without one language, from and to. Taken: share of "
            "resamplings in which the rule takes the layer.")  # fmt: skip
    return Table("Deviation over languages by layer", columns, tuple(_row(m, i, i in chosen) for i in range(m.layers)), note)


def _row(m: Measured, i: int, chosen: bool) -> tuple[Cell, ...]:
    v, left = m.values, [c[i] for c in m.each("without").values()]

    def at(name: str) -> float | None:
        return float(v[name][i]) if name in v else None

    name = CURVES[m.kind]
    beyond = None
    if f"{name}.noise" in v:
        beyond = Estimate(float(v[name][i] - v[f"{name}.noise"][i]), at(f"{name}.low"), at(f"{name}.high"))
    mean = float(np.mean([v[f"overlap.{g}"][i] for g in m.others]))
    span = f"{min(left):.3g} to {max(left):.3g}" if left else None
    return (i, "yes" if chosen else "", at("msd"), at("msd.count"), beyond, at("attention.msd"), mean, span, at("often"))


def rules_table(choices: Sequence[Choice], taken: Choice, fewer: Mapping[str, Sequence[int]]) -> Table:
    """What each rule takes by all languages, and the taken one by some: `fewer[which]`."""
    rows: list[tuple[Cell, ...]] = [(choice.rule, "all", listed(choice.layers), choice.why) for choice in choices]
    rows += [(taken.rule, which, listed(layers), "") for which, layers in fewer.items()]
    return Table("What each rule takes", ("rule", "languages", "layers", "why"), tuple(rows), f"Taken: {taken.rule}.")


def trained_table(sets: Mapping[str, tuple[Sequence[int], int, float]]) -> Table:
    """What each named set holds: name -> (layers, parameters, share of all parameters, 0 to 1)."""
    rows = tuple((name, listed(layers), count, share) for name, (layers, count, share) in sets.items())
    return Table("What each set would train", ("set", "layers", "parameters", "share of all parameters"), rows)


def listed(layers: Sequence[int]) -> str:
    """Layers as words: `0 to 5`, `0, 3`, `none`."""
    run = len(layers) > 2 and layers[-1] - layers[0] == len(layers) - 1
    return f"{layers[0]} to {layers[-1]}" if run else ", ".join(map(str, layers)) or "none"


def agreement(sets: Sequence[Sequence[int]], chosen: Sequence[int]) -> float:
    """Mean Jaccard index of other choices with the chosen layers; 1 where there are none."""
    own = set(chosen)
    return float(np.mean([len(own & set(s)) / len(own | set(s)) for s in sets])) if sets else 1.0
