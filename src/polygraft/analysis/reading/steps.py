"""`analyze.activity`: text read once, kept for the analyses that name this reading."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from polygraft import languages
from polygraft.activity import Activity
from polygraft.analysis.reading.bins import percentile
from polygraft.analysis.reading.config import READING, Texts, Wanted, open_activity
from polygraft.analysis.reading.planned import planned, said
from polygraft.errors import RecipeError
from polygraft.result import Cell, Curve, InputRef, LayerMap, Result, Table
from polygraft.step import Context, Plan, Step

Role = Literal["qkv", "o", "ffn", "down"]
CAVEATS = (
    "A token counts as active for a neuron where act_fn(gate(x)) > 0 (act_fn(up(x)) without a gate), the convention of LAPE.",
    "Windows hold documents one after another, and attention sees over their borders.",
)


class Gather(Texts):
    """Read text once and keep what its neurons, layers and matrices did: counts, sums, squares, and what is asked for."""

    gather: tuple[Literal["histogram", "percentile", "residual", "attention"], ...] = Field(
        ("histogram", "residual", "attention"), description="what is kept beside counts, sums and squares of every neuron"
    )
    groups: int = Field(20, ge=0, le=1000, description="groups of documents to keep apart, for intervals; 0 keeps none")
    norms: tuple[Role, ...] = Field((), description="squared norms of these matrices' inputs, as pruning needs them")
    grams: tuple[Role, ...] = Field((), description="Gram matrices of these matrices' inputs: width x width for each layer")

    def wanted(self) -> Wanted:
        return Wanted(histogram="histogram" in self.gather, percentile="percentile" in self.gather, groups=self.groups,
                      residual="residual" in self.gather, attention="attention" in self.gather, norms=self.norms,
                      grams=self.grams)  # fmt: skip


def plan(config: Gather, context: Context) -> Plan:
    """Cost from headers and file sizes. Raises RecipeError where a reading is asked to be read again."""
    if config.activity is not None:
        raise RecipeError("a reading is made from corpora", where="activity", found=str(config.activity),
                          fix="give corpora, or name the reading in another analysis")
    return planned(config, config.wanted(), context, f"read text with {config.model}")


def run(config: Gather, context: Context, folder: Path) -> Result:
    """Write the reading to `folder / "activity"`."""
    found = open_activity(config, config.wanted(), context, folder)
    inputs = [InputRef(g, about["path"], digest=about["digest"]) for g, about in found.languages.items()]
    active = active_neurons(found)
    data = {
        "languages": list(found.languages), "tokens": {g: found.tokens(g) for g in found.languages}, "layers": found.layers,
        "neurons": list(found.sizes), "hidden": found.hidden, "experts": found.experts, "window": found.window,
        "parallel": found.parallel, "folder": READING, "active": {g: row.tolist() for g, row in zip(found.languages, active)},
    }  # fmt: skip
    return Result("analyze.activity", "", f"Text in {len(found.languages)} languages, read by {config.model}",
                  summary(found, active), (layer_map(found, active),), (texts(found),), curves(found, active),
                  inputs=(context.model(config.model).ref("model"), *inputs), caveats=(*said(config, found), *CAVEATS),
                  data=data)  # fmt: skip


def active_neurons(found: Activity) -> np.ndarray:
    """float64 [languages, layers]: mean share of a layer's neurons that are active at a token."""
    totals = np.stack([found.array(g, "positive").sum(1) / max(1, found.tokens(g)) for g in found.languages])
    return np.asarray(totals / np.maximum(1, np.asarray(found.sizes)))


def summary(found: Activity, active: np.ndarray) -> tuple[str, ...]:
    """What was read and how active the neurons were, in sentences."""
    tokens = [found.tokens(g) for g in found.languages]
    size = f"{tokens[0]:,} tokens of each" if len(set(tokens)) == 1 else f"{min(tokens):,} to {max(tokens):,} tokens of each"
    means = active.mean(1) if active.size else np.zeros(len(tokens))
    each = ", ".join(f"{m:.1%} in {languages.name(g)}" for g, m in zip(found.languages, means))
    return (f"Read {len(tokens)} language{'s' * (len(tokens) != 1)}, {size}.", f"Neurons active at a token, on average: {each}.")


def texts(found: Activity) -> Table:
    """Documents, tokens and tokens per character of each language."""
    rows: list[tuple[Cell, ...]] = []
    for g, about in found.languages.items():
        per = found.tokens(g) / about["characters"] if about.get("characters") else None
        rows.append((languages.name(g), g, about["documents"], found.tokens(g), per))
    return Table("What was read", ("language", "tag", "documents", "tokens", "tokens per character"), tuple(rows),
                 "BOS and padding are not counted. The last document may be cut where the budget ends.")  # fmt: skip


def layer_map(found: Activity, active: np.ndarray) -> LayerMap:
    """Mean share of active neurons, languages down and layers across."""
    rows = tuple(tuple(map(float, row)) for row in active)
    return LayerMap("Neurons active at a token", tuple(found.languages), found.layers, rows, unit="share", low=0.0)


def curves(found: Activity, active: np.ndarray) -> tuple[Curve, ...]:
    """Active neurons, and where they were gathered the upper tail and the residual stream's size, by layer."""
    made = [_curve("Neurons active at a token", found, dict(zip(found.languages, active)), "share of the layer")]
    first = next(iter(found.languages))
    if "histogram" in found.of(first):
        made.append(_curve("90th percentile of the neurons' values, mean of the layer", found,
                           {g: _ninetieth(found, g) for g in found.languages}, "act_fn(gate(x))"))  # fmt: skip
    if "square.residual" in found.of(first):
        norms = {g: np.sqrt(found.array(g, "square.residual") / max(1, found.tokens(g))) for g in found.languages}
        made.append(_curve("Size of the residual stream", found, norms, "root mean square norm", "layers passed"))
    return tuple(made)


def _ninetieth(found: Activity, language: str) -> np.ndarray:
    value = percentile(found.array(language, "histogram"), np.asarray(found.edges), 90)
    return np.where(found.real, value, 0).sum(1) / np.maximum(1, np.asarray(found.sizes))


def _curve(title: str, found: Activity, series: dict[str, np.ndarray], y: str, x: str = "layer") -> Curve:
    length = max(map(len, series.values()), default=0)
    return Curve(title, tuple(map(float, range(length))), {g: tuple(map(float, v)) for g, v in series.items()}, x, y)


STEPS = (Step("analyze.activity", 1, Gather, plan, run, resumable=True, parallel=True),)
