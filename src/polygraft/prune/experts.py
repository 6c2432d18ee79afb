"""`prune experts`: a mixture's experts that text in some languages needs least go, and their rows of the router.

Saliency of expert j (REAP, arXiv 2510.13999): S_j = mean over the tokens that chose j of g_j(x) |f_j(x)|, g the gate's weight and f
the expert's output. Ours is that it is taken in every language: `mean` is REAP on the calibration text; `worst` keeps an expert for
the language in which its share of the layer's saliency is largest, so that those of a language with little text do not go first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from polygraft.anatomy import Anatomy
from polygraft.blocks import Block, Blocks, block_bytes, whole_bytes
from polygraft.checkpoint import Weights
from polygraft.errors import InputError, StepFailed
from polygraft.meter import LIBRARIES
from polygraft.model import Live, view
from polygraft.prune import harm, reshaped
from polygraft.prune.calibration import Calibration, Spoken, planned
from polygraft.prune.config import Objective
from polygraft.prune.costs import FLOPS, states
from polygraft.prune.harm import Bits, Evaluated, Judge
from polygraft.prune.pruning import anatomy_of, read
from polygraft.result import InputRef, LayerMap, Result, Table
from polygraft.sources import Source, resolve
from polygraft.step import Context, Plan, Step
from polygraft.taps import Passing, Taps

if TYPE_CHECKING:
    pass

COUNTS = ("num_local_experts", "num_experts", "n_routed_experts")
NUMBER = re.compile(r"(?<=\.experts\.)\d+(?=\.)")


class Experts(Evaluated):
    """Take experts out of a mixture: in every layer those that count least for text, in all languages or in any of them."""

    experts: int = Field(ge=1, description="how many experts of every layer go")
    objective: Objective = Field(
        "mean", description="an expert counts by the mean over the calibration text, or by the language that it matters most to"
    )


# ---------------------------------------------------------------------------------------------------------------- saliency


class Saliency:
    """Sums of one model, layer by layer: `sums[g]` of g_j(x) |f_j(x)| and `chosen[g]` of tokens, float64 [layers, experts] by
    language; rows of layers that are no mixture stay 0."""

    def __init__(self, text: Calibration, anatomy: Anatomy):
        shape = anatomy.layers, anatomy.sizes.experts
        self.text, self.anatomy = text, anatomy
        self.sums = {g: np.zeros(shape) for g in text.languages}
        self.chosen = {g: np.zeros(shape) for g in text.languages}
        self.index = 0
        self.entered: Any = None
        self.routed: Any = None
        self.ups: dict[int | None, Any] = {}
        self.downs: dict[int | None, Any] = {}

    def begin(self, index: int, _batch: Any) -> None:
        self.index = index

    def gather(self, block: Block, live: Live) -> None:
        """One layer: its experts are followed while it runs."""
        keys = {role: self.anatomy.keys(layer=block.layer, role=f"experts.{role}") for role in ("up", "down")}
        self.ups, self.downs = ({self.anatomy.parts[key].expert: view(live.model, self.anatomy, key) for key in keys[role]}
                                for role in ("up", "down"))  # fmt: skip
        module = live.model.get_submodule((self.anatomy.live_name(keys["down"][0]) or "").rpartition(".")[0])
        hook = module.register_forward_pre_hook(lambda _m, args: setattr(self, "routed", (args[1], args[2])))
        try:
            with Taps(live.model, self.anatomy, self.seen, points=("input.ffn", "act"), layers=[block.layer]):
                block.run(self.begin)
        finally:
            hook.remove()

    def seen(self, passing: Passing) -> None:
        if passing.expert is None:
            self.entered = passing.value.reshape(-1, passing.value.shape[-1])
            return
        j, tokens, g = passing.expert, passing.tokens, self.text.of[self.index]
        assert tokens is not None
        index, weights = self.routed
        gate = (weights * (index == j)).sum(-1)[tokens]
        out = (passing.value * (self.entered[tokens] @ self.ups[j].T)) @ self.downs[j].T  # as the family's module computes it
        counted = self.text.weighing[self.index].reshape(-1).to(tokens.device)[tokens] > 0
        found = (gate.double() * out.double().norm(dim=-1))[counted]
        self.sums[g][passing.layer, j] += float(found.sum())
        self.chosen[g][passing.layer, j] += int(counted.sum())

    @property
    def mixtures(self) -> list[int]:
        """The layers that are mixtures."""
        return [i for i in range(self.anatomy.layers) if self.anatomy.keys(layer=i, role="router")]


def measured(blocks: Blocks, text: Calibration, progress: Any) -> Saliency:
    """One pass over the text, a layer in memory at a time. Raises StepFailed for what is not finite."""
    found = Saliency(text, blocks.live.anatomy)
    blocks.feed([dict(b) for b in text.batches])
    for block in blocks:
        if block.layer in found.mixtures:
            found.gather(block, blocks.live)
            if not all(np.isfinite(v[block.layer]).all() for v in found.sums.values()):
                raise StepFailed("what experts give is not finite", where=f"layer {block.layer}",
                                 fix="compute in float32: --dtype float32")
        progress(block.layer + 1, blocks.live.anatomy.layers, f"layer {block.layer}")
    return found


def mean(sums: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """REAP's score: the mean over the tokens that chose the expert, 0 where none did."""
    return np.divide(sums, chosen, out=np.zeros_like(sums), where=chosen > 0)


def scores(sums: Mapping[str, np.ndarray], chosen: Mapping[str, np.ndarray], objective: Objective) -> np.ndarray:
    """What every expert counts, float64 [layers, experts]: REAP over all tokens, or its largest share of a layer's in any one."""
    if objective == "mean":
        return mean(sum(sums.values(), np.zeros(())), sum(chosen.values(), np.zeros(())))
    each = [mean(sums[g], chosen[g]) for g in sums]
    return np.max([s / np.maximum(s.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny) for s in each], axis=0)


def staying(score: np.ndarray, n: int) -> tuple[int, ...]:
    """The experts of a layer that stay when the n that count least go, in order; of equals the lower number goes."""
    return tuple(sorted(int(i) for i in np.argsort(score, kind="stable")[n:]))


# ------------------------------------------------------------------------------------------------------------------- model


def fault(weights: Weights, anatomy: Anatomy, removed: int) -> InputError | None:
    """Why experts cannot be taken out of this model, None where they can."""
    where, config, total = anatomy.where, anatomy.config, anatomy.sizes.experts
    if not anatomy.keys(role="router"):
        return InputError("the model is no mixture of experts", where=where, fix="`polygraft prune depth` takes out layers")
    if anatomy.keys(role="experts.down") and all(anatomy.parts[k].expert is None for k in anatomy.keys(role="experts.down")):
        return InputError("the files stack all experts in one tensor, which is not read here", where=where,
                          fix="save the model with transformers, which writes a tensor for each expert")  # fmt: skip
    if (config.get("n_group") or 1) > 1:
        return InputError("experts are routed in groups of one size", where=where, found=f"n_group: {config['n_group']}")
    least = int(config.get("num_experts_per_tok") or 1)
    if total - removed < least:
        return InputError("fewer experts would be left than every token takes", where=where,
                          found=f"{removed} of {total} experts go", expected=f"{least} stay at least",
                          fix=f"ask for {max(0, total - least)} at most")
    return None


def without(weights: Weights, anatomy: Anatomy, kept: Mapping[int, Sequence[int]]) -> reshaped.Reshaped:
    """The model with the experts `kept` of every layer that is a mixture, and their rows of the router; bytes as they were."""
    names, rows = dict[str, str](), dict[str, Sequence[int]]()
    for key in weights.tensors:
        part = anatomy.parts[key]
        stay = None if part.layer is None else kept.get(part.layer)
        if stay is None or part.expert is None:
            names[key] = key
            if stay is not None and part.role == "router":
                rows[key] = stay
        elif part.expert in stay:
            names[NUMBER.sub(str(list(stay).index(part.expert)), key)] = key
    whole, inner = reshaped.decoder(weights.config)
    for name in COUNTS:
        if isinstance(inner.get(name), int):
            inner[name] = len(next(iter(kept.values())))
    return reshaped.Reshaped(weights, names, whole, rows)


# -------------------------------------------------------------------------------------------------------------------- step


def plan(config: Experts, context: Context) -> Plan:
    """From headers alone."""
    source = context.model(config.model)
    weights, anatomy = source.weights, anatomy_of(source)
    text, wrong = planned(config, context, anatomy), fault(weights, anatomy, config.experts)
    total, count = reshaped.parameters(weights, anatomy), max(1, anatomy.sizes.experts)
    each = sum(t.numel for key, t in weights.tensors.items() if anatomy.parts[key].expert is not None)
    went = round(each * config.experts / count)
    lines = (f"{config.experts} of {count} experts of every layer go: about {total - went:,} of {total:,} parameters stay "
             f"({1 - went / total:.0%})", *text.lines)  # fmt: skip
    whole = sum(t.nbytes for t in weights.tensors.values())
    held = whole_bytes(weights, "float32") if config.evaluate else block_bytes(weights, anatomy, "float32")
    work = text.tokens + len(config.evaluate) * 2 * config.documents * harm.READ
    return Plan(lines, LIBRARIES + held + states(config, weights, anatomy), whole, whole + text.read_bytes,
                2 * total * work / FLOPS, like=source,
                problems=(*text.problems, *harm.faults(config, context), *((wrong,) if wrong else ())))  # fmt: skip


def run(config: Experts, context: Context, folder: Path, judge: Judge, spoken: Spoken | None = None) -> Result:
    """Write `model/`: fewer experts, the router's rows of those that stay, proved to load."""
    from polygraft.model import device_for, dtype_for

    source = context.model(config.model)
    anatomy = anatomy_of(source)
    if wrong := fault(source.weights, anatomy, config.experts):
        raise wrong
    held, device = harm.texts(config, context), device_for(config.device)
    text = read(config, context, source, spoken)
    assert text is not None  # a config without a corpus is refused
    with Blocks.open(source, dtype=dtype_for(device, config.dtype)[0], device=device, spill=folder / "states") as blocks:
        found = measured(blocks, text, context.progress)
    score = scores(found.sums, found.chosen, config.objective)
    kept = {i: staying(score[i], config.experts) for i in found.mixtures}
    smaller, model = without(source.weights, anatomy, kept), folder / "model"
    reshaped.write(smaller, model, text.batches[0], {"kept": {str(i): list(k) for i, k in kept.items()},
                                                     "calibration": text.provenance}, context.progress)  # fmt: skip
    before = harm.of_source(judge, source, held, config.dtype, config.device)
    after = harm.of_source(judge, resolve(model), held, config.dtype, config.device)
    sizes = reshaped.parameters(source.weights, anatomy), reshaped.parameters(smaller, Anatomy.of(smaller.config, smaller.tensors))
    return told(config, source, text, found, score, kept, sizes, before, after)


def lost(found: Saliency, kept: Mapping[int, Sequence[int]]) -> dict[str, tuple[float, float]]:
    """By language: the share of choices, and of g |f| over all tokens, that were of experts which went."""
    out = {}
    for g in found.sums:
        gone = np.ones_like(found.sums[g], dtype=bool)
        for i, stay in kept.items():
            gone[i, list(stay)] = False
        out[g] = tuple(float(v[gone].sum() / v.sum()) if v.sum() > 0 else 0.0 for v in (found.chosen[g], found.sums[g]))
    return {g: (a, b) for g, (a, b) in out.items()}


def told(config: Experts, source: Source, text: Calibration, found: Saliency, score: np.ndarray, kept: Mapping[int, Sequence[int]],
         sizes: tuple[int, int], before: Bits, after: Bits) -> Result:  # fmt: skip
    """The result: which experts stay, what every language loses by it."""
    shares, count = lost(found, kept), found.anatomy.sizes.experts
    inputs = (source.ref("model"), *(InputRef(t.language, t.path, digest=t.digest) for t in text.told))
    worst = max(shares, key=lambda g: shares[g][1])
    summary = (f"{config.experts} of {count} experts of every layer went: {sizes[1]:,} of {sizes[0]:,} parameters stay "
               f"({sizes[1] / sizes[0]:.1%}). Files and memory are that much smaller; a token takes as much work as before.",
               f"Of what experts gave to {worst}, {shares[worst][1]:.1%} came from those that went, the most of any language.",
               *harm.said(before, after))  # fmt: skip
    rows = tuple((g, a, b) for g, (a, b) in shares.items())
    carried = Table("What the experts that went carried", ("language", "share of choices", "share of what experts give"), rows)
    tables = (carried, *((harm.table(before, {"fewer experts": after}),) if before else ()), text.table)
    data = {"kept": {str(i): list(k) for i, k in kept.items()}, "parameters": {"before": sizes[0], "after": sizes[1]},
            "score": score.tolist(), "saliency": {g: mean(found.sums[g], found.chosen[g]).tolist() for g in found.sums},
            "chosen": {g: v.tolist() for g, v in found.chosen.items()}, "lost": {g: list(v) for g, v in shares.items()},
            "harm": harm.data(before, after), "calibration": text.provenance}  # fmt: skip
    unseen = sum(int((score[i] == 0).sum()) for i in kept)
    strangers = (f"{unseen} experts were never chosen by this text: what they are for is not known.",) if unseen else ()
    caveats = (*text.notes, *strangers,
               "Experts for languages and topics that the text lacks go first: evaluate in all that matter.")  # fmt: skip
    return Result("prune.experts", "", f"{config.model} without {config.experts} of {count} experts a layer", summary,
                  maps(found, score, kept), tables, inputs=inputs, caveats=caveats, data=data)  # fmt: skip


def maps(found: Saliency, score: np.ndarray, kept: Mapping[int, Sequence[int]]) -> tuple[LayerMap, ...]:
    """Experts down, layers across: what each counts, and which went."""
    layers, count = score.shape
    rows = tuple(f"expert {j}" for j in range(count))
    counts = tuple(tuple(float(score[i, j]) if i in kept else None for i in range(layers)) for j in range(count))
    gone = tuple(tuple(float(j not in kept[i]) if i in kept else None for i in range(layers)) for j in range(count))
    return (LayerMap("What experts count", rows, layers, counts, low=0.0),
            LayerMap("Experts that went", rows, layers, gone, scale="categorical", labels={"0": "stays", "1": "went"}))


def experts_step(judge: Judge, spoken: Spoken | None = None) -> Step:
    return Step("prune.experts", 1, Experts, plan, partial(run, judge=judge, spoken=spoken), makes_model=True)
