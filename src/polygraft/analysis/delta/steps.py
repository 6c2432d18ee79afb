"""The change map as a step: `analyze.delta`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePath
from typing import Literal

from pydantic import Field

from polygraft import files
from polygraft.analysis.delta.maps import maps, per_layer, summary
from polygraft.analysis.delta.measure import check, compute
from polygraft.analysis.delta.tables import changed, heads_csv, table, tensors_csv
from polygraft.anatomy import Anatomy
from polygraft.checkpoint import Weights
from polygraft.config import Strict
from polygraft.errors import RecipeError
from polygraft.result import LayerMap, Result, encode
from polygraft.sources import Source, with_base
from polygraft.step import Context, ModelRef, Plan, Step

BUFFERS = 40 << 20
Figure = Literal["mav", "relative-mav", "frobenius", "unchanged", "rows", "heads", "cosine", "conflict", "overlap"]
DRAWN: tuple[Figure, ...] = ("mav", "frobenius", "unchanged", "rows", "cosine", "conflict", "overlap")
TITLES: dict[str, Figure] = {  # the first that begins what stands behind the models' names in a map's title
    "mean absolute change by head": "heads", "mean absolute change": "mav", "relative mean": "relative-mav",
    "relative Frobenius": "frobenius", "entries that did not": "unchanged", "rows that": "rows", "cosine": "cosine",
    "opposite signs": "conflict", "overlap of": "overlap",
}  # fmt: skip


class Delta(Strict):
    """What training changed, per layer and matrix, and how two experts' changes relate."""

    models: tuple[ModelRef, ...] = Field(
        min_length=1, max_length=2, description="one or two trained models", json_schema_extra={"argument": True}
    )
    base: ModelRef = Field(description="what they were trained from")
    threshold: float | None = Field(
        None, ge=0, description="a row changed much when its mean |change| exceeds this (default: the quantile)"
    )
    quantile: float = Field(0.9, ge=0, le=1, description="quantile of all rows' mean |change|, when no threshold is given")
    top: float = Field(0.1, ge=0, le=1, description="share of entries that count as most changed, for the overlap of two experts; "
                       "0 leaves the overlap out and saves four passes")
    draw: tuple[Figure, ...] = Field(DRAWN, description="which figures become layer maps; the CSV files and maps.json have all")
    epsilon: float = Field(0.0, ge=0, description="changes up to this have no sign")
    anatomy: tuple[dict[str, str], ...] = Field(
        (), description="rows for tensors that no rule knows", json_schema_extra={"hidden": True}
    )


def _opened(config: Delta, context: Context) -> tuple[Source, list[tuple[str, Source]], Anatomy]:
    base = context.model(config.base)
    sources = [context.model(m) for m in config.models]
    sources = [with_base(s, base) if s.adapter is not None and s.base is None else s for s in sources]
    short = [PurePath(m.split("@")[0]).name for m in config.models]
    names = short if len(set(short)) == len(short) else list(config.models)
    if len(set(names)) != len(names):
        raise RecipeError("the same model is named twice", where="models", found=", ".join(config.models))
    anatomy = Anatomy.of(base.weights.config, base.weights.tensors, extra=config.anatomy, where=config.base)
    check(anatomy, base.weights, [(n, s.weights) for n, s in zip(names, sources)])
    return base, list(zip(names, sources)), anatomy


def figure_of(m: LayerMap) -> Figure:
    """Which figure a layer map shows."""
    said = m.title.rpartition(": ")[2]
    return next(figure for words, figure in TITLES.items() if said.startswith(words))


def plan(config: Delta, context: Context) -> Plan:
    """Bytes and time from headers. Raises UserError when the models do not fit together."""
    base, experts, anatomy = _opened(config, context)
    size = sum(t.nbytes for t in base.weights.tensors.values())
    passes = 1 + len(experts) + (8 if len(experts) > 1 and config.top else 0)
    rows = sum(sum(t.shape) * 8 for t in base.weights.tensors.values() if len(t.shape) == 2) * len(experts)
    lines = (
        f"compare {', '.join(n for n, _ in experts)} with {config.base}: {anatomy.layers} layers, {len(anatomy.parts):,} tensors",
    )
    return Plan(
        lines, (80 << 20) + BUFFERS + rows, 200 * len(anatomy.parts) * len(experts) + 50_000, size * passes, size * passes / 4e8
    )


def run(config: Delta, context: Context, folder: Path) -> Result:
    """Write delta.csv, heads.csv and maps.json; the maps are in the Result too."""
    base, experts, anatomy = _opened(config, context)
    weights: list[tuple[str, Weights]] = [(n, s.weights) for n, s in experts]
    found = compute(
        anatomy,
        base.weights,
        weights,
        threshold=config.threshold,
        quantile=config.quantile,
        top=config.top,
        epsilon=config.epsilon,
        progress=context.progress,
    )
    drawn = maps(found)
    files.write_atomic(folder / "delta.csv", tensors_csv(found).encode())
    files.write_atomic(folder / "heads.csv", heads_csv(found).encode())
    files.write_json(folder / "maps.json", encode(drawn))
    result = Result(
        "analyze.delta",
        "",
        f"What training changed in {', '.join(n for n, _ in experts)}",
        summary(found),
        tuple(m for m in drawn if figure_of(m) in config.draw and (config.top or figure_of(m) != "overlap")),
        (table(found),),
        (per_layer(found),),
        inputs=(base.ref("base"), *(s.ref(n) for n, s in experts)),
    )
    return replace(
        result,
        caveats=("A large change need not matter, nor a small one be idle: only an evaluation with and without it can tell.",),
        data={"thresholds": dict(zip(found.names, found.thresholds)), "changed": changed(found)},
    )


STEPS = (Step("analyze.delta", 1, Delta, plan, run),)
