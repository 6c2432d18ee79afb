"""All that a study measured, by group of cells that are compared with each other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log

import numpy as np

from polygraft.anatomy import Anatomy
from polygraft.arrays import Arrays
from polygraft.prune.costs import Extent
from polygraft.prune.study.compare import Column, Compared, compared
from polygraft.prune.study.config import Cell, Study, settings
from polygraft.prune.study.measures import decibels

OWN, OTHER, MIXED = "its own text", "another language's", "a mixture"


@dataclass(frozen=True)
class Group:
    """Cells that differ in setting and seed alone."""

    name: str
    settings: tuple[str, ...]
    seeds: tuple[int, ...]
    cells: Mapping[tuple[str, int], Cell]

    def of(self, setting: str) -> list[Cell]:
        return [self.cells[setting, seed] for seed in self.seeds]


@dataclass(frozen=True)
class Found:
    """`reads` of every cell and of the dense model; `tasks`: unit, direction of each column (`purpose title language metric`)."""

    config: Study
    anatomy: Anatomy
    extent: Extent
    reads: Mapping[Cell, Arrays]
    dense: Arrays
    tasks: Mapping[str, tuple[str, bool]]

    @property
    def groups(self) -> list[Group]:
        """In the order of the cells; those of every setting first."""
        by: dict[tuple[str, str, int, float], list[Cell]] = {}
        for cell in self.reads:
            by.setdefault(cell.group, []).append(cell)
        return [_group(some) for some in by.values()]

    @property
    def main(self) -> list[Group]:
        """Groups that hold every setting, not one more value of an axis."""
        axis = (self.config.samples, 0.0)
        return [g for g in self.groups if next(iter(g.cells.values())).group[2:] == axis]

    # ------------------------------------------------------------------------------------------------------------- values

    def bits(self, group: Group) -> dict[str, Compared]:
        """Bits per byte by language."""
        languages = self.config.languages
        columns = [self._column(group, f"bits.{g}", g, "bits/byte", False, 1 / log(2)) for g in languages]
        return dict(zip(languages, compared(columns, self.config.seed), strict=True))

    def asked(self, group: Group) -> dict[str, Compared]:
        """Every task's column; those that a model has no item for are left out."""
        columns = {}
        for name, (unit, higher) in self.tasks.items():
            column = self._column(group, f"task.{name}", name.rsplit(" ", 2)[1], unit, higher, 1.0)
            if (column.bottoms.sum(0) > 0).all() and column.dense[:, 1].sum() > 0:
                columns[name] = column
        return dict(zip(columns, compared(list(columns.values()), self.config.seed), strict=True))

    def _column(self, group: Group, name: str, language: str, unit: str, higher: bool, scale: float) -> Column:
        grid = np.stack([np.stack([self.reads[c][name] for c in group.of(s)], 1) for s in group.settings], 1)
        return Column(language, grid[..., 0], grid[..., 1], self.dense[name], unit, higher, scale)

    # --------------------------------------------------------------------------------------------------------- inside the model

    @property
    def diagnosed(self) -> bool:
        return self.config.diagnose > 0

    def mean(self, group: Group, setting: str, value: Callable[[Arrays], float | None]) -> float | None:
        """Mean over seeds of what is known."""
        known = [v for c in group.of(setting) if (v := value(self.reads[c])) is not None]
        return sum(known) / len(known) if known else None

    def errors(self, group: Group, relation: str) -> Iterator[np.ndarray]:
        """Relative output errors of all matrices, float64 [matrices] with NaN where no token came, of every cell and language that
        stand in that relation."""
        for setting in group.settings:
            for language in self.config.languages:
                if relate(setting, language, self.config) == relation:
                    for cell in group.of(setting):
                        signal, lost = self.reads[cell][f"matrices.{language}"].T
                        yield np.divide(lost, signal, out=np.full(len(lost), np.nan), where=signal > 0)

    def states(self, group: Group, relation: str) -> np.ndarray:
        """Sums over tokens float64 [cases, layers, 4] (see `measures.sums`) of every cell and language in that relation."""
        some = [self.reads[cell][f"states.{language}"] for setting in group.settings for language in self.config.languages
                if relate(setting, language, self.config) == relation for cell in group.of(setting)]  # fmt: skip
        return np.stack(some) if some else np.zeros((0, self.anatomy.layers, 4))

    def zeros(self, cell: Cell) -> dict[str, int]:
        found: dict[str, int] = json.loads(self.reads[cell].metadata["zeros"])
        return found

    def notes(self) -> tuple[str, ...]:
        """What must be said of texts and matrices, once each."""
        return tuple(dict.fromkeys(n for read in self.reads.values() for n in json.loads(read.metadata["notes"])))


def _group(some: Sequence[Cell]) -> Group:
    first = some[0]
    noise = f", {first.noise:.0%} noise" if first.noise else ""
    name = f"{first.method} at {first.pattern}, {first.samples:,} windows{noise}"
    by = {(c.setting, c.seed): c for c in some}
    return Group(name, tuple(dict.fromkeys(c.setting for c in some)), tuple(dict.fromkeys(c.seed for c in some)), by)


def relate(setting: str, language: str, config: Study) -> str:
    """How a calibration stands to a language."""
    shares = settings(config)[setting][0] if setting not in config.languages else {setting: 1.0}
    if set(shares) == {language}:
        return OWN
    return MIXED if shares.get(language) else OTHER


def ratio(pairs: np.ndarray) -> list[float | None]:
    """Decibels of every row of [n, 2]: signal and noise."""
    return [decibels(float(a), float(b)) for a, b in pairs]


def average(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None
