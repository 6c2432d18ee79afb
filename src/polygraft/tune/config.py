"""What every verb of training may be told, and the way from there to a Result: data, one training, what it did."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from polygraft.config import Strict, Unfit, changed
from polygraft.result import InputRef
from polygraft.step import Context, Detail, LabelledRef, ModelRef
from polygraft.tune.data import gathering
from polygraft.tune.data.config import Mix
from polygraft.tune.data.gathering import Example, Gathered
from polygraft.tune.data.leaks import Held
from polygraft.tune.examples import Generator
from polygraft.tune.retain import Retain
from polygraft.tune.settings import Settings
from polygraft.tune.training import STATE, Watched
from polygraft.watching import Log, Watch, Watchers

EXAMPLES = "examples: [LABEL=]PATH of .jsonl[.gz|.xz], plain text as .txt[.gz|.xz] or .parquet, or problems:en?n=2000; repeatable"

MOST_STEPS, MOST_EPOCHS = 10**9, 1e5  # beyond them a number was mistyped


class Tuning(Strict):
    """The fields of every verb of training but what it learns from."""

    model: ModelRef = Field(description="the model to train", json_schema_extra={"argument": True})
    steps: int | None = Field(None, ge=1, le=MOST_STEPS, description="optimiser steps (default: as `epochs` says)")
    epochs: float = Field(1.0, gt=0, le=MOST_EPOCHS, description="times round the examples, when no steps are given")
    batch: int = Field(8, ge=1, description="examples in one forward pass")
    accumulate: int = Field(1, ge=1, description="forward passes in one optimiser step")
    lr: float | None = Field(None, gt=0, le=1000, description="peak learning rate (default: 2e-4 for lora, 1e-5 for full)")
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="how the learning rate falls after the warm-up")
    warmup: float = Field(0.05, ge=0, le=1, description="share of the steps in which the learning rate rises from 0")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay")
    clip: float = Field(1.0, gt=0, description="largest norm of a gradient; a longer one is scaled down to it")
    length: int = Field(1024, ge=8, description="longest example in tokens; what is beyond is cut")
    packing: bool = Field(False, description="put several short examples into one row")
    blocks: bool = Field(False, description="plain text that is longer goes on in further examples, each of which begins after a "
                         "line break where there is one; held-out text is measured in bits per byte")
    answer_only: bool = Field(True, description="loss on answers only, or on all of an example's tokens")
    template: Literal["chat", "human-assistant"] = Field(
        "chat", description="how messages become text: the model's chat template, or plain `Human: ... Assistant: ...` (SLAM)")
    dtype: Literal["fp32", "bf16"] = Field("fp32", description="type to compute in; weights are held in float32 either way")
    seed: int = Field(0, ge=0, lt=2**32, description="seed of the order of examples, of the adapter's start and of dropout")
    save_every: Annotated[int, Detail] = Field(100, ge=0, description="steps between two saved states, from which an interrupted "
                                               "training goes on; 0: none")
    recompute: Annotated[bool, Detail] = Field(False, description="compute activations twice: less memory, more time")
    optimizer: Literal["adamw", "adamw8bit", "adafactor", "sgd"] = Field(
        "adamw", description="adamw8bit keeps a quarter of the state, and needs bitsandbytes; adafactor and sgd keep next to none")
    liger: Annotated[bool, Detail] = Field(False, description="liger's kernels, where liger-kernel and a GPU are")
    report_to: Annotated[Literal["none", "trackio", "wandb", "tensorboard"], Detail] = Field(
        "none", description="also log losses to a tracker that is installed; its keys come from its own settings")
    device: Annotated[Literal["auto", "cpu", "cuda"], Detail] = Field(
        "auto", description="auto: a GPU where there is one (which of several: CUDA_VISIBLE_DEVICES)")
    watch: Watch = Field(default=Watch(), description="scores taken while training")
    retain: Retain = Field(default=Retain(), description="what is to be kept of what the model could do")

    @model_validator(mode="after")
    def _told_once(self) -> Self:
        if self.steps is not None and changed(self, ("epochs",)):
            raise Unfit("`steps` and `epochs` both say how long: `epochs` would do nothing", fix="leave one of them out")
        return self

    @model_validator(mode="after")
    def _watched(self) -> Self:
        mix = getattr(self, "mix", None)
        used = {"every"} if self.retain.stop is not None else set()
        used |= {"langs", "data"} if mix is not None and mix.against else set()
        if not self.watch.wanted and (idle := changed(self.watch, [f for f in Watch.model_fields if f not in used])):
            raise Unfit(f"{', '.join(idle)} of `watch` without tasks or corpora: nothing is scored",
                        fix="say what is scored (`watch.tasks` or `watch.corpora`), or leave them out")
        if not self.watch.wanted and mix is not None and not mix.against and (idle := changed(mix, ("leaks", "ngram"))):
            raise Unfit(f"{', '.join(idle)} of `mix` without `against` or watched tasks: there are no items to look for",
                        fix="name tasks under `against`, or leave them out")
        return self

    def settings(self) -> Settings:
        """How to train, as the trainer takes it."""
        known = set(Settings.__dataclass_fields__)
        return Settings(**({k: v for k, v in self.model_dump().items() if k in known} | {"method": self.way}))

    @property
    def way(self) -> Literal["lora", "full"]:
        """Whether an adapter or the weights themselves are trained."""
        return "full"


class Training(Tuning):
    """The fields of every verb of training that learns from one collection of examples."""

    data: tuple[LabelledRef, ...] = Field(min_length=1, description=EXAMPLES)
    mix: Mix = Field(default=Mix(), description="how sources are mixed, filtered and held out")


class Adapter(Strict):
    """The shape of an adapter."""

    r: int = Field(16, ge=1, description="rank of the adapter's matrices (LoRA)")
    alpha: float | None = Field(None, gt=0, description="the adapter is scaled by alpha / r (LoRA; default: 2 r)")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the adapter's inputs dropped in training (LoRA)")
    rslora: bool = Field(False, description="scale by alpha / sqrt(r) instead (LoRA, arXiv 2312.03732)")


Evaluated = Callable[[Watch, Sequence[str], str | None, Context], Iterable[tuple[str, str, str, str]]]


@dataclass(frozen=True)
class Around:
    """What training may call and does not own: named generators of examples (`problems`), and what scores a model in training.

    held: items of evaluations in use, as (task, language, id, text), from a watch, further tasks and the folder of their files.
    """

    generators: Mapping[str, Generator]
    watchers: Watchers
    held: Evaluated = lambda *_: ()


def gather(config: Training, context: Context, around: Around) -> Gathered:
    """The examples to train on, mixed and filtered as `mix` says, those held out, and what they came from."""
    return gathered(config.data, config.mix, config, context, around)


def gathered(specs: Sequence[str], mix: Mix, config: Tuning, context: Context, around: Around, own: Sequence[Example] = (),
             made_of: Sequence[InputRef] = ()) -> Gathered:  # fmt: skip
    """The examples of these files and generators, as `gather` has them; before them `own`, which a verb has made of `made_of`."""
    found, inputs = gathering.load(specs, around.generators, context.data)
    held = [Held(*item) for item in around.held(config.watch, mix.against, mix.against_data, context)]
    return gathering.gather([*own, *found], [*made_of, *inputs], mix, held, config.seed, context.planning)


def watching(watch: Watch, context: Context, folder: Path, watchers: Watchers) -> Watched:
    """The watcher of this training and its empty log."""
    seconds = watchers.seconds(watch.time_budget) if watch.time_budget else None
    log = Log(watch.every, seconds)
    return Watched(watchers.make(watch, context, folder / STATE), log, watch.best is not None, watch.model_dump(mode="json"))
