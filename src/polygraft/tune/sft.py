"""Supervised fine-tuning, full or LoRA: TRL's trainer on our examples, our order of them and our training state.

LoRA: Hu et al. 2021, arXiv 2106.09685. Weights are held in float32 (a bfloat16 step smaller than 1/256 of a weight would be
rounded away); `bf16` computes in bfloat16 by autocast. What is saved has the base's dtypes.
"""

from __future__ import annotations

import math
import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from polygraft.errors import InputError
from polygraft.files import digest as digest_of
from polygraft.result import Curve, Table
from polygraft.tune import examples, state
from polygraft.tune.output import write_adapter, write_model
from polygraft.watching import Log, Watcher

if TYPE_CHECKING:
    from polygraft.model import Live
    from polygraft.sources import Source

STATE = "state"  # where the resumable training state lies while training runs


@dataclass(frozen=True)
class Settings:
    """How to train. `rate` None means 2e-4 for LoRA and 1e-5 for full tuning; `alpha` None means 2 r; `targets` empty means
    every linear layer of the decoder; `steps` None means `epochs` times round the examples."""

    method: Literal["lora", "full"] = "lora"
    r: int = 16
    alpha: float | None = None
    dropout: float = 0.0
    rslora: bool = False
    targets: tuple[str, ...] = ()
    steps: int | None = None
    epochs: float = 1.0
    batch: int = 8
    accumulate: int = 1
    lr: float | None = None
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: float = 0.05
    weight_decay: float = 0.0
    clip: float = 1.0
    length: int = 1024
    packing: bool = False
    answer_only: bool = True
    template: Literal["chat", "human-assistant"] = "chat"
    dtype: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0
    save_every: int = 100
    recompute: bool = False
    device: str = "auto"

    @property
    def rate(self) -> float:
        return self.lr if self.lr is not None else {"lora": 2e-4, "full": 1e-5}[self.method]

    @property
    def scale(self) -> float:
        return self.alpha if self.alpha is not None else 2.0 * self.r

    def count(self, rows: int) -> int:
        """Optimiser steps for this many training rows."""
        return self.steps or max(1, math.ceil(self.epochs * rows / (self.batch * self.accumulate)))


@dataclass(frozen=True)
class Watched:
    """What scores the model while it is trained, where the readings go, and whether the best step's weights are kept."""

    watcher: Watcher
    log: Log
    best: bool = False
    key: Mapping[str, Any] = field(default_factory=dict)  # what was asked for: a training state of another watch is not resumed


@dataclass(frozen=True)
class Trained:
    """What training did: where the weights are, losses by step, and how much of the model had gradients."""

    path: Path
    losses: tuple[float, ...]
    accuracies: tuple[float, ...]
    trainable: int
    total: int
    tokens: int
    answer_tokens: int
    steps: int
    planned: int
    resumed: int
    seconds: float
    notes: tuple[str, ...] = field(default=())

    def curve(self, points: int = 200) -> Curve:
        """Loss and token accuracy over steps, averaged in bins when there are more steps than points."""
        width = max(1, math.ceil(len(self.losses) / points))
        x = tuple(float(min(i + width, len(self.losses))) for i in range(0, len(self.losses), width))
        series: dict[str, tuple[float | None, ...]] = {
            "loss (nats per answer token)": _bins(self.losses, width),
            "answer tokens guessed right": _bins(self.accuracies, width),
        }
        return Curve("Training", x, series, "step", "")

    def ends(self) -> tuple[float, float]:
        """Mean loss over the first and the last tenth of the steps."""
        tenth = max(1, len(self.losses) // 10)
        return _mean(self.losses[:tenth]), _mean(self.losses[-tenth:])

    def table(self) -> Table:
        first, last = self.ends()
        rows = (("steps", self.steps), ("tokens seen", self.tokens), ("of them with loss", self.answer_tokens),
                ("trained parameters", self.trainable), ("share of the model", f"{self.trainable / self.total:.2%}"),
                ("loss, first tenth", round(first, 4)), ("loss, last tenth", round(last, 4)))  # fmt: skip
        return Table("Training", ("what", "value"), rows)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _bins(values: Sequence[float], width: int) -> tuple[float, ...]:
    return tuple(_mean(values[i : i + width]) for i in range(0, len(values), width))


def train(
    source: Source,
    rows: Sequence[Mapping[str, Any]],
    settings: Settings,
    folder: Path,
    progress: Callable[..., None] = lambda *_: None,
    watched: Watched | None = None,
) -> Trained:
    """Train on the examples and write an adapter or a model to `folder/model`.

    While it runs, `folder/state` holds the newest training state; the same call continues from it, to the same bytes as without
    the interruption (one process, same machine and versions). Raises InputError for examples that leave nothing to learn.
    """
    from polygraft.model import load, quiet

    begun = time.monotonic()
    if source.checkpoint is None:
        raise InputError("an adapter cannot be tuned further", where=source.spec, fix="merge it into its base and tune that")
    live = load(source, dtype="float32", device=settings.device)
    if live.tokenizer is None:
        raise InputError("the model has no tokenizer", where=source.spec, expected="tokenizer.json")
    data, notes = prepare(rows, live.tokenizer, settings)
    steps = settings.count(len(data))
    job = digest_of([source.identity, examples.digest(rows), _meaning(settings), *([watched.key] if watched else [])])
    if watched is not None:
        watched.watcher.job = job
    with quiet():
        trainer = _trainer(live, data, settings, steps, folder / STATE, job, progress, watched)
        start = state.latest(folder / STATE, job)
        trainer.train(resume_from_checkpoint=str(start) if start else None)
        if watched is not None and watched.best and (best := watched.log.best) is not None:
            trainer.restore(best.step)
    out = folder / "model"
    if settings.method == "lora":
        write_adapter(trainer.model, source, out)
    else:
        write_model(live, source.checkpoint, out)
    shutil.rmtree(folder / STATE, ignore_errors=True)
    history = [h for h in trainer.state.log_history if "loss" in h]
    trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    tokens, answers = _tokens(trainer.train_dataset)
    return Trained(
        path=out, losses=tuple(h["loss"] for h in history), accuracies=tuple(h.get("mean_token_accuracy", 0.0) for h in history),
        trainable=trainable, total=sum(math.prod(t.shape) for t in source.checkpoint.tensors.values()), tokens=tokens,
        answer_tokens=answers, steps=trainer.state.global_step, planned=steps,
        resumed=int(start.name.removeprefix(state.PREFIX)) if start else 0,
        seconds=time.monotonic() - begun, notes=tuple(notes),
    )  # fmt: skip


def _meaning(settings: Settings) -> dict[str, Any]:
    """The settings that decide the result; how often to save and how to save memory do not."""
    return {k: v for k, v in vars(settings).items() if k not in {"save_every", "recompute"}}


def prepare(rows: Sequence[Mapping[str, Any]], tokenizer: Any, settings: Settings) -> tuple[Any, list[str]]:
    """Tokenised (and packed) training rows as a Dataset, and notes on what was cut or dropped."""
    from datasets import Dataset

    tokens = [examples.tokenize(row, tokenizer, settings.length, settings.answer_only, settings.template) for row in rows]
    kept = [t for t in tokens if any(label != examples.IGNORE for label in t["labels"])]
    cut = sum(len(t["input_ids"]) == settings.length for t in kept)
    notes = []
    if len(kept) < len(tokens):
        lost = len(tokens) - len(kept)
        notes.append(f"{lost} of {len(tokens)} examples have no answer within {settings.length} tokens and were left out")
    if cut:
        notes.append(f"{cut} of {len(kept)} examples were cut at {settings.length} tokens")
    if not kept:
        raise InputError("no example has an answer within the length", found=f"length {settings.length}", fix="raise `length`")
    data = Dataset.from_list([dict(t) for t in kept])
    if settings.packing:
        from trl import pack_dataset

        data = pack_dataset(data, settings.length, strategy="bfd")
    return data, notes


def _tokens(data: Any) -> tuple[int, int]:
    return sum(map(len, data["input_ids"])), sum(label != examples.IGNORE for labels in data["labels"] for label in labels)


def _trainer(live: Live, data: Any, s: Settings, steps: int, folder: Path, job: str, progress: Callable[..., None],
             watched: Watched | None = None) -> Any:  # fmt: skip
    from transformers import set_seed

    from polygraft.tune.trainer import arguments, trainer_class

    # peft and transformers tell each other of a name that changes
    warnings.filterwarnings("ignore", message="`(is_)?gradient_checkpointing` is deprecated", category=FutureWarning)
    set_seed(s.seed)
    model = live.model
    if s.method == "lora":
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(
            r=s.r, lora_alpha=s.scale,  # type: ignore[arg-type]
             lora_dropout=s.dropout, use_rslora=s.rslora, task_type="CAUSAL_LM",
            target_modules=list(s.targets) or "all-linear"))  # fmt: skip
    model.train()
    places = examples.order(len(data), steps * s.batch * s.accumulate, s.seed)
    return trainer_class()(job=job, progress=progress, watched=watched, model=model, args=arguments(s, steps, folder),
                           train_dataset=data.select(places), processing_class=live.tokenizer)  # fmt: skip
