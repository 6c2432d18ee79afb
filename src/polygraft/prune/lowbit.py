"""`prune lowbit`: what rounding weights to few bits costs every language, by the text that says which inputs matter.

Every row is cut into groups of neighbours; a group holds whole numbers q of so many bits, w' = s q + m with s and m in float16. s
and m are those of least sum_j E[x_j^2] (w_j - w'_j)^2 among a range shrunk step by step towards the middle, each fitted again by
weighted least squares to its own q, three times. llama.cpp's K types are made in a like way, an importance matrix in the place of
E[x^2]; their blocks, the bits of their scales and their mixing of types are others: this is a simulation, in dense arithmetic.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from pydantic import Field, model_validator

from polygraft.anatomy import Anatomy
from polygraft.blocks import whole_bytes
from polygraft.checkpoint import Weights
from polygraft.meter import LIBRARIES
from polygraft.prune import harm, report
from polygraft.prune.calibration import Calibration, Spoken, planned
from polygraft.prune.costs import FLOPS, Extent, states
from polygraft.prune.engine import MASK, Method, Module, Overlay, Pruned, Work, prune
from polygraft.prune.harm import Bits, Evaluated, Judge
from polygraft.prune.pruning import anatomy_of, read
from polygraft.prune.statistics import Moments
from polygraft.result import InputRef, Result
from polygraft.sources import Source
from polygraft.step import Context, Plan, Step

if TYPE_CHECKING:
    import torch

FITS = 3  # of scale and offset to the numbers that they give
SHRUNK = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)  # of a group's range
NEAREST, TEXT = "nearest", "this text"
FEW = 16  # values in a group of 32: what a 4-bit file leaves


class Lowbit(Evaluated):
    """Round weights to few bits, weighed by text in some languages, and see what every language loses; nothing is kept."""

    bits: int = Field(4, ge=2, le=8, description="bits of a weight")
    group: int = Field(32, ge=2, description="neighbours in a row that share a scale and an offset, 16 bits each")
    alone: bool = Field(False, description="also weighed by each language's text alone")

    @model_validator(mode="after")
    def _held(self) -> Self:
        if not self.evaluate:
            raise ValueError("give held-out text to see what each language loses (--evaluate LANG=PATH)")
        return self


# ---------------------------------------------------------------------------------------------------------------- rounding


def rounded(w: torch.Tensor, importance: torch.Tensor, bits: int, group: int) -> torch.Tensor:
    """w float32 [out, in] as so many bits can say it; importance float32 [in], not negative. A group whose inputs all count nothing
    counts each alike; a last group that is shorter is filled up with its last weight, which counts nothing there."""
    import torch

    n, short = w.shape[1], -w.shape[1] % group
    filled = torch.cat([w, w[:, -1:].expand(-1, short)], 1).reshape(len(w), -1, group)
    counts = torch.cat([importance, importance.new_zeros(short)]).reshape(-1, group)
    total = counts.mean(1, keepdim=True)
    counts = torch.where(total > 0, counts / total.clamp_min(torch.finfo(counts.dtype).tiny), 1.0)
    best, least = filled, filled.new_full(filled.shape[:2], torch.inf)
    low, high = filled.amin(-1, keepdim=True), filled.amax(-1, keepdim=True)
    for share in SHRUNK:
        span = share * (high - low)
        offset, scale = (low + high - span) / 2, span / (2**bits - 1)
        for _ in range(FITS):
            made, offset, scale = fitted(filled, counts, offset, scale, 2**bits - 1)
            lost = (counts * (filled - made).square()).sum(-1)
            better = lost < least
            best, least = torch.where(better[..., None], made, best), torch.where(better, lost, least)
    return best.reshape(len(w), -1)[:, :n]


def fitted(w: torch.Tensor, counts: torch.Tensor, offset: torch.Tensor, scale: torch.Tensor,
           most: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """Groups [out, groups, group] rounded to offset + scale q, 0 <= q <= most, with those q, the offset and scale of least weighted
    squares in float16: (values, offset, scale)."""
    import torch

    q = torch.where(scale > 0, (w - offset) / scale.clamp_min(torch.finfo(w.dtype).tiny), 0.0).round().clamp(0, most)
    total = counts.sum(-1, keepdim=True)
    mean_q, mean_w = (counts * q).sum(-1, keepdim=True) / total, (counts * w).sum(-1, keepdim=True) / total
    spread = (counts * (q - mean_q).square()).sum(-1, keepdim=True)
    slope = (counts * (q - mean_q) * (w - mean_w)).sum(-1, keepdim=True) / spread.clamp_min(torch.finfo(w.dtype).tiny)
    s = torch.where(spread > 0, slope, 0.0).half().float()
    m = (mean_w - s * mean_q).half().float()
    return s * q + m, m, s


def method(bits: int, group: int, weighed: bool) -> Method:
    """For the engine: every weight stays, at another value."""
    import torch

    def rounds(ws: Mapping[str, torch.Tensor], stats: Moments) -> dict[str, Pruned]:
        importance = torch.from_numpy(np.square(stats.norms) if weighed else np.ones_like(stats.squares)).float()
        return {key: Pruned(torch.ones_like(w, dtype=torch.bool), rounded(w, importance.to(w.device), bits, group))
                for key, w in ws.items()}  # fmt: skip

    return rounds


def coarse(weights: Weights, keys: list[str]) -> int:
    """The most different values in any 32 neighbours of some rows of these matrices: few where the model was kept in few bits."""
    found = 0
    for key in keys:
        info = weights.info(key)
        some = weights.f32(key, 0, min(info.numel, 64 * info.shape[1])).reshape(-1, info.shape[1])
        groups = some[:, : info.shape[1] // 32 * 32].reshape(-1, 32)
        found = max(found, max((len(np.unique(g)) for g in groups), default=0))
    return found


# -------------------------------------------------------------------------------------------------------------------- step


def conditions(config: Lowbit, text: Calibration) -> dict[str, tuple[list[int], bool]]:
    """What is compared: name -> (batches of the text that are read, whether inputs are weighed)."""
    every = list(range(len(text.batches)))
    found = {NEAREST: (every, False), TEXT: (every, True)}
    if config.alone and len(text.languages) > 1:
        found |= {f"{g} alone": ([i for i in every if text.of[i] == g], True) for g in text.languages}
    return found


def plan(config: Lowbit, context: Context) -> Plan:
    """From headers alone."""
    source = context.model(config.model)
    weights, anatomy = source.weights, anatomy_of(source)
    text, extent = planned(config, context, anatomy), Extent.of(weights, anatomy)
    times = 2 + (len(config.corpus) if config.alone and len(config.corpus) > 1 else 0)
    size, whole = sum(extent.sizes.values()), sum(t.nbytes for t in weights.tensors.values())
    lines = (f"{size:,} weights in {len(extent.matrices):,} matrices rounded to {config.bits} bits, {times} times", *text.lines)
    work = 4 * text.tokens + (times + 1) * len(config.evaluate) * config.documents * harm.READ
    return Plan(lines, LIBRARIES + whole_bytes(weights, "float32") + states(config, weights, anatomy), whole,
                whole + text.read_bytes, times * (work + 40 * len(SHRUNK)) * size / FLOPS,
                problems=(*text.problems, *harm.faults(config, context)))  # fmt: skip


def run(config: Lowbit, context: Context, folder: Path, judge: Judge, spoken: Spoken | None = None) -> Result:
    """Round, read held-out text, and forget the rounded weights; the result says what each language lost."""
    from polygraft.model import copy_weights, device_for, dtype_for

    source = context.model(config.model)
    anatomy, device = anatomy_of(source), device_for(config.device)
    held, text = harm.texts(config, context), read(config, context, source, spoken)
    assert text is not None  # a config without a corpus is refused
    live = judge.load(source, config.dtype, config.device)
    before, after = harm.bits(judge, live, held), dict[str, Bits]()
    modules = dict[str, dict[str, Module]]()
    for name, (some, weighed) in conditions(config, text).items():
        layers = folder / "layers"
        job = Work(source, [text.batches[i] for i in some], [text.weighing[i] for i in some],
                   method(config.bits, config.group, weighed), False, dtype_for(device, config.dtype)[0], device)  # fmt: skip
        modules[name] = prune(job, layers, context.progress)
        overlay = Overlay(source.weights, layers, anatomy.layers)
        copy_weights(live, overlay, [key for key in overlay.where if not key.startswith(MASK)])
        after[name] = harm.bits(judge, live, held)
        shutil.rmtree(layers)
    return told(config, source, anatomy, text, before, after, modules)


def told(config: Lowbit, source: Source, anatomy: Anatomy, text: Calibration, before: Bits, after: Mapping[str, Bits],
         modules: Mapping[str, Mapping[str, Module]]) -> Result:  # fmt: skip
    """The result: what every language lost under every way of rounding."""
    size = config.bits + 32 / config.group
    gained = {g: harm.value(after[NEAREST][g]) - harm.value(after[TEXT][g]) for g in before}
    all_of = ", ".join(f"{g} {value:+.3f}" for g, value in gained.items())
    summary = (f"Weights of layers at {config.bits} bits in groups of {config.group} ({size:g} bits each with scale and offset).",
               *harm.said(before, after[TEXT]),
               f"What weighing inputs by this text saves against rounding to the nearest, in bits per byte: {all_of}.")  # fmt: skip
    values = coarse(source.weights, list(modules[TEXT])[:4])
    caveats = [*text.notes, "A simulation: blocks, scales and types of real files differ; activations and cache are not rounded."]
    if values <= FEW:
        caveats.append(f"The weights take at most {values} values in 32 neighbours: this model was kept in few bits before, so "
                       "that rounding looks harmless on it. Take one that was never quantised.")  # fmt: skip
    inputs = (source.ref("model"), *(InputRef(t.language, t.path, digest=t.digest) for t in text.told))
    data = {"bits": config.bits, "group": config.group, "bits_per_weight": size, "values": values,
            "harm": {name: harm.data(before, bits) for name, bits in after.items()},
            "error": {name: report.mean(list(found.values()), lambda m: m.error) for name, found in modules.items()},
            "calibration": text.provenance}  # fmt: skip
    return Result("prune.lowbit", "", f"{config.model} at {config.bits} bits", summary, report.maps(modules[TEXT], anatomy)[1:],
                  (harm.table(before, after), text.table), inputs=inputs, caveats=tuple(caveats), data=data)  # fmt: skip


def lowbit_step(judge: Judge, spoken: Spoken | None = None) -> Step:
    return Step("prune.lowbit", 1, Lowbit, plan, partial(run, judge=judge, spoken=spoken))
