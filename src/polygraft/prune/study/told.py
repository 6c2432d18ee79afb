"""The result of a study: matrices, advice, and what pruning did inside, as tables, layer maps and curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polygraft.prune.study import inside, matrices
from polygraft.prune.study.cell import Bed
from polygraft.prune.study.found import Found, Group
from polygraft.result import Curve, InputRef, LayerMap, Result, Table

CAVEATS = (
    "Bits per byte compare calibrations within a language, not languages. They say how well a text is predicted; neither they nor "
    "results in English stand for what a pruned model knows in another language: ask it tasks.",
    "An interval covers the choice of documents, the floor the draw of calibration text. Neither covers another corpus, another "
    "model, another sparsity.",
    "Neurons are told by few tokens here: the first row of their table is what that alone does.",
)  # fmt: skip


class Drawn:
    """What the report shows, as it comes together."""

    def __init__(self) -> None:
        self.summary: list[str] = []
        self.tables: list[Table] = []
        self.maps: list[LayerMap] = []
        self.curves: list[Curve] = []
        self.data: dict[str, Any] = {"matrices": [], "masks": {}}

    def compared(self, found: Found, group: Group, bits: Any, main: bool) -> None:
        self.tables.append(matrices.harm(found, group, bits))
        table, judged = matrices.against_reference(found, group, bits)
        self.tables += [table] if judged else []
        self.data["matrices"].append(matrices.data(group, bits))
        if main:
            asked = found.asked(group)
            self.summary += matrices.summary(found, group, bits, judged)
            self.tables.insert(0, matrices.purposes(found, group, bits, asked))
            self.tables += [t] if (t := matrices.tasks(group, asked)) is not None else []

    def inside(self, found: Found, group: Group, bed: Bed) -> None:
        overlaps = inside.Overlaps(found, group, bed.masks)
        self.tables.append(overlaps.table())
        self.maps += [m] if (m := overlaps.map()) is not None else []
        self.data["masks"][group.name] = overlaps.data()
        if bed.dense is None:
            return
        table, maps = inside.hit(found, group)
        tables, curves = inside.subspaces(found, group)
        of_neurons = inside.neurons(found, group, bed.dense, bed.around)
        self.tables += [*inside.noise(found, group), table, *tables, *([of_neurons] if of_neurons else [])]
        self.maps += maps
        self.curves += curves


def told(found: Found, bed: Bed, notes: Sequence[str]) -> Result:
    """The result of all cells."""
    drawn, groups, main = Drawn(), found.groups, {g.name for g in found.main}
    all_bits = {g.name: found.bits(g) for g in groups}
    for group in groups:
        drawn.compared(found, group, all_bits[group.name], group.name in main)
    for group in found.main:
        drawn.inside(found, group, bed)
    drawn.curves += matrices.axes(found, all_bits)
    config = found.config
    inputs = [bed.source.ref("model"), *(InputRef(f"{what} {g}", str(ref)) for what in ("corpus", "evaluate")
                                         for g, ref in getattr(config, what).items() if g in config.languages)]  # fmt: skip
    drawn.data |= {"languages": list(config.languages), "reference": config.against,
                   "documents": {g: len(d) for g, d in bed.documents.items()},
                   "cells": {bed.path(c).name: {**vars(c), "sparsity": _sparsity(found, c)} for c in found.reads}}  # fmt: skip
    return Result("prune.study", "", f"{config.model}: what the language of calibration does", tuple(drawn.summary),
                  tuple(drawn.maps), tuple(drawn.tables), tuple(drawn.curves), inputs=tuple(inputs),
                  caveats=(*notes, *found.notes(), *CAVEATS), data=drawn.data)  # fmt: skip


def _sparsity(found: Found, cell: Any) -> float:
    zeros = found.zeros(cell)
    return sum(zeros.values()) / sum(found.extent.sizes[k] for k in zeros)
