"""Metrics by name. Each module here holds the metrics of one kind of answer in `METRICS`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module

from polygraft.errors import RecipeError, suggestion
from polygraft.evals.items import Item, Response
from polygraft.evals.metrics.base import Metric

MODULES: tuple[str, ...] = (
    "choice", "numbers", "likelihood", "copying", "summaries", "exams", "parallel", "quality", "translation", "calibration",
    "governance", "qa", "labels")


@cache
def _of_lm_eval(key: str) -> Metric:
    """A mean over items of what lm-eval's own code computed; it is read from records, never scored here."""
    _, name, *marks = key.split(":")
    binary = "binary" in marks
    return Metric(name, "%" if binary else "", f"{name} as lm-eval computes it, mean over items", _not_here,
                  higher_is_better="lower" not in marks, binary=binary)


def _not_here(item: Item, response: Response) -> Sequence[float]:
    raise RuntimeError("a metric of lm-eval's is computed by lm-eval")


@cache
def table() -> dict[str, Metric]:
    """Every metric by its name and, where two kinds of answer have one of the same name, by `numbers.accuracy` (module.name)."""
    found = [(module, m) for module in MODULES for m in import_module(f"{__name__}.{module}").METRICS]
    return {f"{module}.{m.name}": m for module, m in found} | {m.name: m for _, m in reversed(found)}


def get(name: str) -> Metric:
    """The metric of this name; `lm-eval:NAME` (with `:binary`, `:lower`) is a mean that lm-eval gave. Raises RecipeError with the
    nearest names."""
    if name.startswith("lm-eval:"):
        return _of_lm_eval(name)
    if name not in table():
        raise RecipeError("no such metric", found=name, fix=suggestion(name, table()))
    return table()[name]
