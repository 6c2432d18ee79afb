"""One metric of one task in one language, for several models on the same items: what every verdict is made from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from polygraft.errors import InputError
from polygraft.evals import metrics
from polygraft.evals.metrics.base import Metric


@dataclass(frozen=True)
class Measure:
    """`columns[model]` is float64 [n, k]: what each item adds to the metric's sums; row i is the same item for every model.

    A row of zeros is an item for which the metric is not defined: it counts for nothing. `ids` and `strata` have one entry a row,
    or are empty. Raises InputError where there is no item, where the models' rows or columns differ in number, or where a number
    is not finite.
    """

    task: str
    language: str
    metric: Metric
    columns: dict[str, np.ndarray]
    ids: tuple[str, ...] = ()
    strata: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        arrays = {model: np.asarray(c, np.float64) for model, c in self.columns.items()}
        object.__setattr__(self, "columns", arrays)
        shapes = {a.shape for a in arrays.values()}
        if len(shapes) != 1 or any(len(s) != 2 or 0 in s for s in shapes):
            raise InputError("no items, or other items for some models", where=self.where,
                             found=", ".join(f"{m}: {' x '.join(map(str, a.shape))}" for m, a in arrays.items()) or "no model",
                             expected="the same items, at least one, for every model")
        for words, name in ((self.ids, "ids"), (self.strata, "strata")):
            if words and len(words) != self.n:
                raise InputError(f"{name} and items differ in number", where=self.where, found=len(words), expected=self.n)
        for model, a in arrays.items():
            if not (fine := np.isfinite(a).all(axis=1)).all():
                row = int(np.argmin(fine))
                raise InputError("a score is not a number", where=f"{self.where}: {model}: {self.ids[row] if self.ids else row}",
                                 found=", ".join(map(str, a[row])), fix="the model's outputs are damaged: inspect it with --check")

    @property
    def where(self) -> str:
        return f"{self.task} {self.language}: {self.metric.name}"

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(self.columns)

    @property
    def n(self) -> int:
        return len(next(iter(self.columns.values())))

    @cached_property
    def defined(self) -> dict[str, np.ndarray]:
        """For each model [n] of bool: the items that count."""
        return {m: np.any(a != 0, axis=1) for m, a in self.columns.items()}

    def by_stratum(self) -> dict[str, Measure]:
        """The same measure on the items of each stratum; empty where there are fewer than two."""
        names = list(dict.fromkeys(self.strata))
        if len(names) < 2:
            return {}
        kept = {name: [i for i, s in enumerate(self.strata) if s == name] for name in names}
        return {name: self.rows(places) for name, places in kept.items()}

    def rows(self, places: Sequence[int]) -> Measure:
        """The same measure on some of its items, in this order."""
        return replace(self, columns={m: a[places] for m, a in self.columns.items()},
                       ids=tuple(self.ids[i] for i in places) if self.ids else (),
                       strata=tuple(self.strata[i] for i in places) if self.strata else ())


def from_records(task: str, language: str, records: Mapping[str, Sequence[Mapping[str, Any]]],
                 known: Mapping[str, Metric] | None = None) -> list[Measure]:
    """A Measure for every metric that all models' records of a task have under `scores: {metric: [columns]}`.

    `records[model][i]` must be the same item for every model. A metric that a record lacks is not defined for that item.
    `known` are metrics that are not in the table. Raises InputError for rows that do not belong together or an unknown metric.
    """
    where, rows = f"{task} {language}", list(records.values())
    ids = [tuple(str(r["id"]) for r in found) for found in rows]
    if len(set(ids)) > 1:
        raise InputError("the models' records are of other items", where=where, expected="the same ids in the same order")
    names = [dict.fromkeys(name for r in found for name in r.get("scores", {})) for found in rows]
    shared = [name for name in names[0] if all(name in others for others in names)]
    out = []
    for name in shared:
        metric = (known or {}).get(name) or metrics.get(name)
        columns = {model: stack([r.get("scores", {}).get(name) for r in found], f"{where}: {name}: {model}")
                   for model, found in records.items()}
        strata = tuple(str(r.get("stratum") or "") for r in rows[0])
        measure = Measure(task, language, metric, columns, ids[0], strata if any(strata) else ())
        out.append(counting(one_per_group(measure, [r.get("group") for r in rows[0]]) if metric.group else measure))
    return out


def counting(measure: Measure) -> Measure:
    """Without the items that are not defined for any model: drawn, they would only make resamples empty."""
    kept = np.flatnonzero(np.logical_or.reduce(list(measure.defined.values())))
    return measure if len(kept) in (0, measure.n) else measure.rows(kept.tolist())


def stack(rows: Sequence[Sequence[float] | None], where: str) -> np.ndarray:
    """Records' columns [n, k]; None is a row of zeros. Raises InputError where they are not numbers, or differ in length."""
    k = max((len(r) for r in rows if r is not None), default=0)
    if any(r is not None and (len(r) != k or not all(isinstance(x, int | float) for x in r)) for r in rows):
        raise InputError("the scores of the records are damaged", where=where, expected=f"{k} numbers in each")
    return np.array([[0.0] * k if r is None else r for r in rows], np.float64).reshape(len(rows), k)


def one_per_group(measure: Measure, groups: Iterable[str | None]) -> Measure:
    """Items of one group become one row: the least of theirs ("all": right only where all are right), or their sum ("sum": a
    document is drawn as a whole). Items without a group stay."""
    members: dict[Any, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group or i, []).append(i)
    reduce = np.min if measure.metric.group == "all" else np.sum
    first = [places[0] for places in members.values()]
    columns = {m: np.stack([reduce(a[places], axis=0) for places in members.values()]) for m, a in measure.columns.items()}
    return replace(measure.rows(first), columns=columns)
