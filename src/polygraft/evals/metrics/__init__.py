"""Metrics by name. Each module here holds the metrics of one kind of answer in `METRICS`."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from polygraft.errors import RecipeError, suggestion
from polygraft.evals.metrics.base import Metric

MODULES: tuple[str, ...] = (
    "choice", "numbers", "likelihood", "copying", "summaries", "exams", "parallel", "quality", "translation", "calibration", "governance", "qa", "labels")


@cache
def table() -> dict[str, Metric]:
    """Every metric by its name and, where two kinds of answer have one of the same name, by `numbers.accuracy` (module.name)."""
    found = [(module, m) for module in MODULES for m in import_module(f"{__name__}.{module}").METRICS]
    return {f"{module}.{m.name}": m for module, m in found} | {m.name: m for _, m in reversed(found)}


def get(name: str) -> Metric:
    """The metric of this name. Raises RecipeError with the nearest names."""
    if name not in table():
        raise RecipeError("no such metric", found=name, fix=suggestion(name, table()))
    return table()[name]
