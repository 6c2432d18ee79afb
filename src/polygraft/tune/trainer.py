"""TRL's SFTTrainer with two changes: its training state is JSON and safetensors (see `state`), and examples come in our order."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraft import ranks
from polygraft.errors import ResourceError, StepFailed
from polygraft.tune import extras, state
from polygraft.tune.broken import failure
from polygraft.tune.head import in_place_of_trl
from polygraft.tune.processes import OneReader, dealt
from polygraft.watching import trainer_callback

SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}  # transformers' names; all warm up

if TYPE_CHECKING:
    from polygraft.ranks import Ranks
    from polygraft.tune.grafts import Grafts
    from polygraft.tune.settings import Settings
    from polygraft.tune.training import Watched, Work


def arguments(s: Settings, steps: int, folder: Path, still: bool = False) -> Any:
    """TRL's arguments for these settings. Weights stay in float32; `bf16` computes in bfloat16 by autocast.

    `still`: some trained parameters may take no part in a step, which several processes must be told.
    """
    import torch
    from trl import SFTConfig

    extras.check(s)
    extras.check_gpu(s)
    batch, accumulate = dealt(s, ranks.size())
    on_cpu = s.device == "cpu" or not torch.cuda.is_available()
    made = SFTConfig(
        output_dir=str(folder), max_steps=steps, num_train_epochs=1, per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulate, learning_rate=s.rate, lr_scheduler_type=SCHEDULES[s.schedule],
        warmup_steps=round(s.warmup * steps), weight_decay=s.weight_decay, max_grad_norm=s.clip,
        optim=extras.OPTIMIZERS[s.optimizer],
        bf16=s.dtype == "bf16", fp16=False, tf32=None if on_cpu else False, use_cpu=on_cpu, seed=s.seed, data_seed=s.seed,
        max_length=s.length, packing=s.packing, dataset_kwargs={"skip_prepare_dataset": True}, completion_only_loss=False,
        train_sampling_strategy="sequential", gradient_checkpointing=False, use_liger_kernel=s.liger, dataloader_num_workers=0,
        logging_steps=1, logging_nan_inf_filter=False, report_to=s.report_to, disable_tqdm=True, push_to_hub=False,
        ddp_find_unused_parameters=still,
        save_strategy="steps" if s.save_every else "no", save_steps=s.save_every or 500,
    )  # fmt: skip
    made._n_gpu = min(1, made.n_gpu)  # with several GPUs in sight, transformers would wrap the model in DataParallel
    return made


def told(progress: Callable[..., None]) -> Any:
    """A callback that tells progress."""
    from transformers import TrainerCallback

    class Told(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                progress(state.global_step, state.max_steps, f"loss {logs['loss']:.3f}")

    return Told()


def synced(grafts: Grafts) -> Any:
    """A callback that writes the grafts' values into their tensors after each optimiser step."""
    from transformers import TrainerCallback

    class Synced(TrainerCallback):
        def on_optimizer_step(self, *_: Any, **__: Any) -> None:
            grafts.sync()

    return Synced()


class Resumable:
    """What our trainer does in its own way: a state without pickles, and the weights of the best step put aside.

    `job` ties a state to the training that it came from.
    """

    model: Any
    optimizer: Any
    lr_scheduler: Any
    args: Any
    state: Any
    job: str
    work: Work
    grafts: Grafts
    watched: Watched | None
    here: Ranks
    moved: frozenset[str]
    begun: tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]  # random numbers and hooks' states as this step began

    @property
    def _best(self) -> Path:
        return Path(self.args.output_dir) / "best"

    def keep(self, step: int) -> None:
        """Put the trained weights aside, whole or not at all; the ones of an earlier step go."""
        if self.here.rank:
            return
        state.save(self._best, step, self.job, {f"weight.{k}": v for k, v in self._trained().items()}, {}, {})

    def restore(self, step: int) -> None:
        """Go back to the weights that were put aside after `step`. Raises StepFailed where they are not there."""
        kept = state.latest(self._best, self.job)
        if kept is None or kept.name != state.name(step):
            raise StepFailed("the best step's weights are gone", where=self._best, expected=f"those of step {step}",
                             fix="train again from the start")  # fmt: skip
        self._load_from_checkpoint(str(kept))

    def _trained(self) -> dict[str, Any]:
        """The parameters that training moves, those that a hook holds still for the moment too."""
        return {n: p for n, p in self.model.named_parameters() if n in self.moved}

    def rescue(self) -> None:
        """Keep the state of a training that is about to stop within a step, as it was before that step.

        Nothing where no states are kept (`save_every` 0), before the first step, and where the disk does not take it.
        """
        step = self.state.global_step
        last = state.latest(Path(self.args.output_dir), self.job)
        if self.here.rank or not self.work.settings.save_every or not step or (last and last.name == state.name(step)):
            return
        with suppress(ResourceError):
            self._commit(*self.begun)

    def _now(self) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
        return *state.random_state(), [dict(hook.kept()) for hook in self.work.hooks]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.here.rank == 0:
            self._commit(*self._now())

    def _commit(self, numbers: dict[str, Any], random_facts: dict[str, Any], hooks: list[dict[str, Any]]) -> None:
        optimizer, opt_facts = state.split_optimizer(self.optimizer.state_dict())
        tensors = {f"weight.{k}": v for k, v in self._trained().items()}
        tensors |= {f"optimizer.{k}": v for k, v in optimizer.items()} | {f"random.{k}": v for k, v in numbers.items()}
        facts = {"optimizer": opt_facts, "random": random_facts, "schedule": self.lr_scheduler.state_dict()}
        facts["watch"] = self.watched.log.to_json() if self.watched is not None else None
        facts["hooks"] = hooks
        history = dataclasses.asdict(self.state)
        state.save(Path(self.args.output_dir), self.state.global_step, self.job, tensors, facts, history)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        import torch

        kept = state.tensors(Path(resume_from_checkpoint), "weight.")
        with torch.no_grad():
            for name, parameter in self._trained().items():
                parameter.copy_(kept[name])
        self.grafts.sync()

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        facts = state.facts(Path(checkpoint))
        moments = state.tensors(Path(checkpoint), "optimizer.")
        self.optimizer.load_state_dict(state.join_optimizer(moments, facts["optimizer"]))
        self.lr_scheduler.load_state_dict(facts["schedule"])
        if self.watched is not None and facts.get("watch") is not None:
            self.watched.log.take(facts["watch"])
        for hook, kept in zip(self.work.hooks, facts["hooks"], strict=True):
            hook.take(kept)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        state.set_random_state(state.tensors(Path(checkpoint), "random."), state.facts(Path(checkpoint))["random"])

    def _load_scaler(self, checkpoint: str | None) -> None:
        """bfloat16 and float32 need no loss scaling, so there is no scaler."""


def divided_later(trainer: Any, num_items_in_batch: Any) -> int:
    """By what transformers will divide the loss of a pass: it is a mean over the tokens of its step, or over its own."""
    whole = trainer.loss_is_scaled_for_ga
    if whole is None:
        whole = (trainer.model_accepts_loss_kwargs and num_items_in_batch is not None) or trainer.compute_loss_func is not None
    return 1 if whole else trainer.current_gradient_accumulation_steps


def plus(found: Any, more: Any) -> Any:
    """A loss, or a loss with the model's outputs, with something added to it."""
    return (found[0] + more, *found[1:]) if isinstance(found, tuple) else found + more


def trainer_class() -> type:
    """The subclass, made when it is needed because its parent takes seconds to import."""
    from transformers import PrinterCallback
    from trl import SFTTrainer

    class Trainer(Resumable, SFTTrainer):
        """TRL's trainer, resumed, watched, and with the methods' hooks."""

        def __init__(self, *, work: Work, grafts: Grafts, progress: Callable[..., None], here: Ranks,
                     **kwargs: Any):  # fmt: skip
            super().__init__(callbacks=[told(progress)], **kwargs)
            self.remove_callback(PrinterCallback)
            self.work, self.grafts, self.job, self.watched, self.here = work, grafts, work.job, work.watched, here
            self.moved = frozenset(n for n, p in self.model.named_parameters() if p.requires_grad)
            self.trainable = sum(p.numel() for n, p in self.model.named_parameters() if n in self.moved)
            self.batches: list[Any] = []  # what the forward passes of this optimiser step have read
            if grafts.all:
                self.add_callback(synced(grafts))
            if work.watched is not None:
                keep = self.keep if work.watched.best else None
                reader = OneReader(work.watched.watcher, here)
                self.add_callback(trainer_callback(reader, work.watched.log, kwargs["processing_class"], keep))

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            if not self.batches and self.work.settings.save_every:
                self.begun = self._now()
            for hook in self.work.hooks:
                hook.before(self.state.global_step)
            return super().training_step(*args, **kwargs)

        def _check(self, what: str, value: float, batches: list[Any]) -> None:
            """Stop, all processes together, where the value of one of them is not finite."""
            total = float(self.here.sum(np.array([value]))[0])
            if math.isfinite(total):
                return
            self.rescue()
            raise failure(what, total, self.state.global_step, [] if math.isfinite(value) else batches, self.work,
                          self.processing_class, Path(self.args.output_dir), self.here)

        def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
            """The gradient's length, known before the optimiser's step is taken; transformers asks for it once a step."""
            found = super()._get_grad_norm(model, grad_norm)
            if found is not None:
                self._check("gradient", float(found), self.batches)
            self.batches = []
            return found

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
            loss = self._loss(model, inputs, return_outputs, num_items_in_batch)
            self.batches.append(inputs)
            self._check("loss", float((loss[0] if return_outputs else loss).detach()), [inputs])
            return loss

        def _loss(self, model: Any, inputs: Any, return_outputs: bool, num_items_in_batch: Any) -> Any:
            with self.grafts.shown(), in_place_of_trl(inputs["labels"]):
                found = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            added = [x for hook in self.work.hooks if (x := hook.loss(model, self.state.global_step)) is not None]
            return plus(found, sum(added) * divided_later(self, num_items_in_batch)) if added else found

    return Trainer
