"""`prune depth`: whole layers go: those that change the hidden states of text least, in all languages or in any of them.

Block influence of a layer in a language: BI = 1 - mean over tokens of cos(h_in, h_out), h the residual stream before and behind it
(ShortGPT, arXiv 2403.03853, eq. 1). Ours is that it is measured in every language, and that a layer may stay for the one language
that needs it (`worst`) instead of for their mean. `neighbours`: those n layers in a row go over which the stream turns least,
arccos(cos(h_l, h_{l+n})) / pi (Gromov et al., arXiv 2403.17887).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from polygraft.anatomy import Anatomy
from polygraft.blocks import Blocks, block_bytes, whole_bytes
from polygraft.errors import StepFailed
from polygraft.meter import LIBRARIES
from polygraft.prune import harm, reshaped, shallower
from polygraft.prune.calibration import Calibration, Spoken, planned
from polygraft.prune.config import Objective
from polygraft.prune.costs import FLOPS, states
from polygraft.prune.harm import Bits, Evaluated, Judge
from polygraft.prune.pruning import anatomy_of, read
from polygraft.result import Curve, InputRef, LayerMap, Result, Table
from polygraft.sources import Source, resolve
from polygraft.step import Context, Plan, Step
from polygraft.taps import Passing, Taps

if TYPE_CHECKING:
    import torch

How = Literal["influence", "neighbours"]
STATES = 1024  # tokens of a language whose states are compared over several layers


class Depth(Evaluated):
    """Take out whole layers: those that change text least, in all languages together or in the one that needs them most."""

    layers: int = Field(ge=1, description="how many layers go")
    how: How = Field("influence", description="layers that each change little, or neighbours that together turn the stream least")
    objective: Objective = Field(
        "mean", description="a layer counts by the mean over the calibration text, or by the language that it changes most"
    )


# ----------------------------------------------------------------------------------------------------------------- measures


class Influence:
    """Sums over the tokens of each language, one layer after another: `begin` ahead of a batch, `seen` for every tap, `done` behind
    a layer. `influence[g]` float64 [layers]; `turned[g]` [layers - n + 1]: what n layers turn the stream, of pi, by the first."""

    def __init__(self, text: Calibration, layers: int, n: int):
        self.text, self.n = text, n
        self.influence = {g: np.zeros(layers) for g in text.languages}
        self.turned: dict[str, list[float]] = {g: [] for g in text.languages}
        self.tokens = {t.language: t.tokens for t in text.told}
        self.states: dict[str, deque[torch.Tensor]] = {g: deque(maxlen=n + 1) for g in text.languages}
        self.now: dict[tuple[str, str], list[torch.Tensor]] = {}
        self.index = 0
        self.entered: torch.Tensor | None = None

    def begin(self, index: int, _batch: Any) -> None:
        self.index = index

    def seen(self, passing: Passing) -> None:
        import torch

        g = self.text.of[self.index]
        value = passing.value.reshape(-1, passing.value.shape[-1])
        counted = self.text.weighing[self.index].reshape(-1).to(value.device) > 0
        value = value[counted].float()
        self._keep(g, passing, value)
        if passing.point == "input.layer":
            self.entered = value
            return
        assert self.entered is not None
        cos = torch.nn.functional.cosine_similarity(self.entered, value, dim=-1, eps=1e-12)
        self.influence[g][passing.layer] += float((1 - cos.double()).sum()) / self.tokens[g]

    def _keep(self, g: str, passing: Passing, value: torch.Tensor) -> None:
        """Some tokens' states, evenly over the text, at this border between layers."""
        if passing.point == "input.layer" and passing.layer > 0:
            return  # what entered is what came out of the layer before
        every = max(1, self.tokens[g] // STATES)
        self.now.setdefault((g, passing.point), []).append(value[::every].cpu())

    def done(self, layer: int) -> None:
        """Every batch went through the layer."""
        import torch

        for g, borders in self.states.items():
            for point in ("input.layer", "residual"):
                if parts := self.now.pop((g, point), None):
                    borders.append(torch.cat(parts))
            if len(borders) == self.n + 1:
                cos = torch.nn.functional.cosine_similarity(borders[0], borders[-1], dim=-1, eps=1e-12).double()
                self.turned[g].append(float(torch.arccos(cos.clamp(-1, 1)).mean()) / np.pi)
            if not np.isfinite(self.influence[g][layer]):
                raise StepFailed("hidden states are not finite", where=f"layer {layer}, {g}",
                                 fix="compute in float32: --dtype float32")


def measured(blocks: Blocks, text: Calibration, n: int, progress: Any) -> Influence:
    """One pass over the text, a layer in memory at a time."""
    found = Influence(text, blocks.live.anatomy.layers, n)
    blocks.feed([dict(b) for b in text.batches])
    for block in blocks:
        with Taps(blocks.live.model, blocks.live.anatomy, found.seen, points=("input.layer", "residual"), layers=[block.layer]):
            block.run(found.begin)
        found.done(block.layer)
        progress(block.layer + 1, blocks.live.anatomy.layers, f"layer {block.layer}")
    return found


def together(each: Mapping[str, Sequence[float] | np.ndarray], tokens: Mapping[str, int], objective: Objective) -> np.ndarray:
    """What layers count, float64 [k]: the mean over all tokens of the text, or the largest of any language."""
    grid = np.array([each[g] for g in each], np.float64)
    return grid.max(axis=0) if objective == "worst" else np.average(grid, axis=0, weights=[tokens[g] for g in each])


def lowest(score: np.ndarray, n: int) -> tuple[int, ...]:
    """The n layers that count least, in order; ties to the lower number."""
    return tuple(sorted(int(i) for i in np.argsort(score, kind="stable")[:n]))


def chosen(found: Influence, how: How, objective: Objective) -> tuple[int, ...]:
    """The layers that go."""
    if how == "neighbours":
        first = int(np.argmin(together(found.turned, found.tokens, objective)))
        return tuple(range(first, first + found.n))
    return lowest(together(found.influence, found.tokens, objective), found.n)


# ---------------------------------------------------------------------------------------------------------------------- step


def plan(config: Depth, context: Context) -> Plan:
    """From headers alone."""
    source = context.model(config.model)
    weights, anatomy = source.weights, anatomy_of(source)
    text, fault = planned(config, context, anatomy), shallower.fault(anatomy, config.layers)
    problems = (*text.problems, *harm.faults(config, context), *((fault,) if fault else ()))
    total = reshaped.parameters(weights, anatomy)
    left = total - round(config.layers * layer_parameters(weights, anatomy))
    went = f"{config.layers} of {anatomy.layers} layers go: about {left:,} of {total:,} parameters stay ({left / total:.0%})"
    whole = sum(t.nbytes for t in weights.tensors.values())
    held = whole_bytes(weights, "float32") if config.evaluate else block_bytes(weights, anatomy, "float32")
    work = text.tokens + len(config.evaluate) * 2 * config.documents * harm.READ
    return Plan((went, *text.lines), LIBRARIES + held + states(config, weights, anatomy), whole, whole + text.read_bytes,
                2 * total * work / FLOPS, problems=problems, like=source)  # fmt: skip


def layer_parameters(weights: Any, anatomy: Anatomy) -> float:
    """Parameters of a layer, on average."""
    return sum(t.numel for key, t in weights.tensors.items() if anatomy.parts[key].layer is not None) / anatomy.layers


def run(config: Depth, context: Context, folder: Path, judge: Judge, spoken: Spoken | None = None) -> Result:
    """Write `model/`: fewer layers, a config that says so, proved to load."""
    from polygraft.model import device_for, dtype_for

    source = context.model(config.model)
    anatomy = anatomy_of(source)
    if fault := shallower.fault(anatomy, config.layers):
        raise fault
    held, device = harm.texts(config, context), device_for(config.device)
    text = read(config, context, source, spoken)
    assert text is not None  # a config without a corpus is refused
    with Blocks.open(source, dtype=dtype_for(device, config.dtype)[0], device=device, spill=folder / "states") as blocks:
        found, rules = measured(blocks, text, config.layers, context.progress), shallower.of_live(blocks.live.model)
    removed = chosen(found, config.how, config.objective)
    smaller, model = shallower.without(source.weights, anatomy, removed, rules), folder / "model"
    reshaped.write(smaller, model, text.batches[0], {"removed": list(removed), "calibration": text.provenance}, context.progress)
    before = harm.of_source(judge, source, held, config.dtype, config.device)
    after = harm.of_source(judge, resolve(model), held, config.dtype, config.device)
    sizes = reshaped.parameters(source.weights, anatomy), reshaped.parameters(smaller, Anatomy.of(smaller.config, smaller.tensors))
    return told(config, source, text, found, removed, sizes, before, after)


def told(config: Depth, source: Source, text: Calibration, found: Influence, removed: tuple[int, ...], sizes: tuple[int, int],
         before: Bits, after: Bits) -> Result:  # fmt: skip
    """The result: what every layer counts in every language, which went, and what that cost."""
    inputs = (source.ref("model"), *(InputRef(t.language, t.path, digest=t.digest) for t in text.told))
    layers = len(next(iter(found.influence.values())))
    score = together(found.influence, found.tokens, config.objective)
    names = ", ".join(map(str, removed))
    summary = (f"Layer{'s' * (len(removed) > 1)} {names} of {layers} went: {sizes[1]:,} of {sizes[0]:,} parameters stay "
               f"({sizes[1] / sizes[0]:.1%}). Files are that much smaller, and every runtime does that much less work.",
               *disagreed(found, removed), *harm.said(before, after))  # fmt: skip
    tables = (influences(found, removed), *((harm.table(before, {"fewer layers": after}),) if before else ()), text.table)
    data = {"removed": list(removed), "parameters": {"before": sizes[0], "after": sizes[1]}, "score": score.tolist(),
            "influence": {g: v.tolist() for g, v in found.influence.items()}, "turned": dict(found.turned),
            "harm": harm.data(before, after), "calibration": text.provenance}  # fmt: skip
    return Result("prune.depth", "", f"{config.model} without {len(removed)} of its layers", summary, maps(found, removed), tables,
                  curves(found), inputs=inputs, caveats=(*text.notes, *CAVEATS), data=data)  # fmt: skip


CAVEATS = (
    "Influence says how much a layer changes the stream, not what for: evaluate the model in every language and task that matters.",
    "A short training heals part of what layers carried: `polygraft tune sft` on the smaller model.",
)


def disagreed(found: Influence, removed: tuple[int, ...]) -> tuple[str, ...]:
    """Which layers each language by itself would give up, where these are others."""
    own = {g: lowest(v, len(removed)) for g, v in found.influence.items()}
    told = [f"{g} would give up {', '.join(map(str, layers))}" for g, layers in own.items() if layers != removed]
    return ("By influence in its own text, " + "; ".join(told) + ".",) if told else ()


def influences(found: Influence, removed: tuple[int, ...]) -> Table:
    layers = range(len(next(iter(found.influence.values()))))
    rows = tuple((i, *(round(float(v[i]), 5) for v in found.influence.values()), "went" if i in removed else "") for i in layers)
    return Table("Block influence, 1 - cos(before, behind)", ("layer", *found.influence, ""), rows)


def maps(found: Influence, removed: tuple[int, ...]) -> tuple[LayerMap, ...]:
    """Languages down, layers across, and what went."""
    layers = len(next(iter(found.influence.values())))
    grid = tuple(tuple(float(x) for x in v) for v in found.influence.values())
    gone = tuple(float(i in removed) for i in range(layers))
    return (LayerMap("Block influence by language", tuple(found.influence), layers, grid, unit="1 - cos", low=0.0),
            LayerMap("Layers that went", ("layer",), layers, (gone,), scale="categorical", labels={"0": "stays", "1": "went"}))


def curves(found: Influence) -> tuple[Curve, ...]:
    if not any(found.turned.values()):
        return ()
    x = tuple(float(i) for i in range(len(next(iter(found.turned.values())))))
    title = "What a layer turns the stream" if found.n == 1 else f"What {found.n} layers in a row turn the stream"
    return (Curve(title, x, {g: tuple(v) for g, v in found.turned.items()},
                  "first of them", "angle / pi"),)  # fmt: skip


def depth_step(judge: Judge, spoken: Spoken | None = None) -> Step:
    return Step("prune.depth", 1, Depth, plan, partial(run, judge=judge, spoken=spoken), makes_model=True)
