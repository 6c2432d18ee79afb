"""`tune.sft` as a step of a recipe: config, plan from headers, run."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from polygraft.anatomy import Anatomy
from polygraft.checkpoint import Checkpoint
from polygraft.config import Strict
from polygraft.errors import InputError
from polygraft.maps import Cell, layer_map
from polygraft.result import InputRef, LayerMap, Result
from polygraft.step import Context, DataRef, Detail, ModelRef, Plan, Step
from polygraft.tune import examples
from polygraft.tune.examples import Generator
from polygraft.tune.sft import STATE, Settings, Watched, train
from polygraft.watching import Log, Watch, Watchers, told

LINEAR = {"attn", "ffn"}  # what peft's "all-linear" reaches in a decoder: every projection, not the embedding nor the head
FLOPS = 5e10  # per second, a modest two-core machine; a GPU is hundreds of times faster
ACTIVATION = 34 * 2  # bytes that a float32 backward pass keeps per token, layer and hidden unit (Korthikanti et al. 2022, 4.1)


class Sft(Strict):
    """Supervised fine-tuning, full or LoRA, with the loss on answers only.

    Examples are JSON lines of messages (chat), of prompt and completion, or of text; several files are read one after another.
    """

    model: ModelRef = Field(description="the model to train", json_schema_extra={"argument": True})
    data: tuple[DataRef, ...] = Field(min_length=1, description="examples: .jsonl[.gz|.xz], or problems:en?n=2000; repeatable")
    method: Literal["lora", "full"] = Field("lora", description="lora: train a small adapter; full: train every weight")
    r: int = Field(16, ge=1, description="rank of the adapter's matrices (LoRA)")
    alpha: float | None = Field(None, gt=0, description="the adapter is scaled by alpha / r (LoRA; default: 2 r)")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the adapter's inputs dropped in training (LoRA)")
    rslora: bool = Field(False, description="scale by alpha / sqrt(r) instead (LoRA, arXiv 2312.03732)")
    targets: tuple[str, ...] = Field((), description="modules that get an adapter, such as q_proj (LoRA; default: all linear)")
    steps: int | None = Field(None, ge=1, description="optimiser steps (default: as `epochs` says)")
    epochs: float = Field(1.0, gt=0, description="times round the examples, when no steps are given")
    batch: int = Field(8, ge=1, description="examples in one forward pass")
    accumulate: int = Field(1, ge=1, description="forward passes in one optimiser step")
    lr: float | None = Field(None, gt=0, description="peak learning rate (default: 2e-4 for lora, 1e-5 for full)")
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="how the learning rate falls after the warm-up")
    warmup: float = Field(0.05, ge=0, le=1, description="share of the steps in which the learning rate rises from 0")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay")
    clip: float = Field(1.0, gt=0, description="largest norm of a gradient; a longer one is scaled down to it")
    length: int = Field(1024, ge=8, description="longest example in tokens; what is beyond is cut")
    packing: bool = Field(False, description="put several short examples into one row")
    answer_only: bool = Field(True, description="loss on answers only, or on all of an example's tokens")
    template: Literal["chat", "human-assistant"] = Field(
        "chat", description="how messages become text: the model's chat template, or plain `Human: ... Assistant: ...` (SLAM)")
    dtype: Literal["fp32", "bf16"] = Field("fp32", description="type to compute in; weights are held in float32 either way")
    seed: int = Field(0, ge=0, description="seed of the order of examples, of the adapter's start and of dropout")
    save_every: Annotated[int, Detail] = Field(100, ge=0, description="steps between two saved states, from which an interrupted "
                                               "training goes on; 0: none")
    recompute: Annotated[bool, Detail] = Field(False, description="compute activations twice: less memory, more time")
    device: Annotated[Literal["auto", "cpu", "cuda"], Detail] = Field(
        "auto", description="auto: a GPU where there is one (which of several: CUDA_VISIBLE_DEVICES)")
    watch: Watch = Field(default=Watch(), description="scores taken while training")

    def settings(self) -> Settings:
        return Settings(**{k: v for k, v in self.model_dump().items() if k not in {"model", "data", "watch"}})


def gather(config: Sft, context: Context, generators: Mapping[str, Generator]) -> tuple[list[dict], tuple[InputRef, ...]]:
    """All examples in order, and what they came from."""
    rows, inputs = [], []
    for spec in config.data:
        new = examples.load(spec, generators, context.data)
        rows += new
        inputs.append(InputRef("data", spec, digest=examples.digest(new)))
    return rows, tuple(inputs)


def sizes(config: Sft, checkpoint: Checkpoint) -> tuple[dict[str, int], LayerMap]:
    """Trained parameters by tensor, and their share of each matrix as a map."""
    anatomy = Anatomy.of(checkpoint.config, checkpoint.tensors)
    full = config.method == "full"
    trained: dict[str, int] = {}
    for key, part in anatomy.parts.items():
        shape, name = checkpoint.tensors[key].shape, key.removesuffix(".weight").rsplit(".", 1)[-1]
        wanted = name in config.targets if config.targets else part.kind in LINEAR
        if full:
            trained[key] = prod(shape)
        elif wanted and len(shape) == 2 and key.endswith(".weight"):
            trained[key] = config.r * sum(shape)
    return trained, share_map(anatomy, checkpoint, trained)


def share_map(anatomy: Anatomy, checkpoint: Checkpoint, trained: Mapping[str, int]) -> LayerMap:
    """Trained parameters over stored ones, for every part of every layer."""
    count: dict[Cell, list[int]] = {}
    for key, part in anatomy.parts.items():
        cell = count.setdefault((part.label, part.layer), [0, 0])
        cell[0] += trained.get(key, 0)
        cell[1] += prod(checkpoint.tensors[key].shape)
    share = {k: a / b for k, (a, b) in count.items()}
    return layer_map(anatomy, share, "Trained share", unit="of the weights", low=0.0, high=max(share.values()))


def plan(config: Sft, context: Context, generators: Mapping[str, Generator], watchers: Watchers) -> Plan:
    """Steps, memory and a rough time, from headers and the examples' text."""
    source = context.model(config.model)
    if source.checkpoint is None:
        raise InputError("an adapter cannot be tuned further", where=source.spec, fix="merge it into its base and tune that")
    rows, _ = gather(config, context, generators)
    s, checkpoint = config.settings(), source.checkpoint
    trained, shares = sizes(config, checkpoint)
    total, some = sum(prod(t.shape) for t in checkpoint.tensors.values()), sum(trained.values())
    if not some:
        raise InputError("no layer has one of these names", where=source.spec, found=", ".join(config.targets),
                         fix="see `polygraft inspect`")  # fmt: skip
    tokens = sum(min(s.length, text_bytes(row) // 3) for row in rows) / len(rows)  # about three bytes a token
    steps = s.count(len(rows))
    seconds = steps * s.batch * s.accumulate * tokens * total * (6 if s.method == "full" else 4) / FLOPS
    hidden = int(checkpoint.config.get("hidden_size") or 1024)
    peak = 4 * total + 12 * some + int(s.batch * tokens * shares.layers * hidden * ACTIVATION) + (700 << 20)
    disk = sum(t.nbytes for t in checkpoint.tensors.values()) if s.method == "full" else 2 * some
    share = f"{some:,} trained parameters ({some / total:.2%})"
    lines = (f"{len(rows):,} examples, {steps:,} steps of {s.batch * s.accumulate}, {share}",)
    notes = ("the time is a guess for two CPU cores; a GPU is hundreds of times faster",)
    wrong = tuple(watchers.faults(config.watch, context)) if config.watch.wanted else ()
    return Plan(lines, peak, disk + (12 * some if s.save_every else 0), sum(t.nbytes for t in checkpoint.tensors.values()), seconds,
                (shares,), wrong, notes, like=source if s.method == "full" else None)  # fmt: skip


def text_bytes(row: Mapping) -> int:
    """UTF-8 bytes of an example's texts."""
    texts = [m["content"] for m in row["messages"]] if "messages" in row else row.values()
    return sum(len(t.encode("utf-8", "surrogatepass")) for t in texts)


def run(config: Sft, context: Context, folder: Path, generators: Mapping[str, Generator], watchers: Watchers) -> Result:
    """Train; the adapter or model lies in `folder/model`."""
    source = context.model(config.model)
    rows, inputs = gather(config, context, generators)
    watched = watching(config.watch, context, folder, watchers) if config.watch.wanted else None
    done = train(source, rows, config.settings(), folder, context.progress, watched)
    assert source.checkpoint is not None
    first, last = done.ends()
    summary: tuple[str, ...] = (
        f"{'LoRA' if config.method == 'lora' else 'Full'} tuning of {source.spec}: {done.steps:,} steps on {len(rows):,} examples.",
        f"{done.trainable:,} trained parameters, {done.trainable / done.total:.2%} of the model.",
        f"Loss {first:.3f} in the first tenth of the steps, {last:.3f} in the last.",
    )
    speed = round(done.tokens / max(done.seconds, 1e-9), 1)
    log = watched.log if watched else Log(1)
    summary += told(log, done.steps, done.planned, done.seconds - log.seconds) if watched else ()
    data: dict[str, Any] = {"watch": log.to_json()} if watched else {}
    if watched and config.watch.criteria is not None:  # decides the exit code, as an evaluation's do
        data["criteria"] = {"passed": not log.readings[-1].failed, "reasons": list(log.readings[-1].failed)}
    data |= {"seconds": round(done.seconds, 1), "tokens_per_second": speed, "resumed_at": done.resumed, "steps": done.steps}
    return Result(
        step="tune.sft", id=context.step_id, title=f"Tuning {source.spec}", summary=summary,
        tables=(done.table(), *((log.table(),) if watched else ())),
        maps=(sizes(config, source.checkpoint)[1],), curves=(done.curve(), *log.curves()),
        inputs=(source.ref(config.model), *inputs), data=data,
        caveats=("a falling training loss says that the examples were learnt, not that the model is better", *done.notes),
    )  # fmt: skip


def watching(watch: Watch, context: Context, folder: Path, watchers: Watchers) -> Watched:
    """The watcher of this training and its empty log."""
    seconds = watchers.seconds(watch.time_budget) if watch.time_budget else None
    log = Log(watch.every, seconds)
    return Watched(watchers.make(watch, context, folder / STATE), log, watch.best is not None, watch.model_dump(mode="json"))


def sft_step(generators: Mapping[str, Generator], watchers: Watchers) -> Step:
    """The step, with the named generators that `data` may call (`problems:en?n=2000`), and what scores while training."""
    return Step("tune.sft", 1, Sft, partial(plan, generators=generators, watchers=watchers),
                partial(run, generators=generators, watchers=watchers),
                makes_model=True, resumable=True)  # fmt: skip
