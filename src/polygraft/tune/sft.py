"""`tune sft`: supervised fine-tuning of everything, of a selection, or of an adapter."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, Self

from pydantic import Field, model_validator

from polygraft import selectionfile
from polygraft.config import Unfit, changed
from polygraft.step import Context, SelectRef, Step
from polygraft.tune import adapters
from polygraft.tune.config import Adapter, Around, Training
from polygraft.tune.running import Task, begin, tuning_step


class Sft(Adapter, Training):
    """Supervised fine-tuning, full or LoRA, with the loss on answers only.

    Examples are JSON lines of messages (chat), of prompt and completion, or of text; several files are read one after another.
    """

    method: Literal["lora", "full"] = Field("lora", description="lora: train a small adapter; full: train the weights themselves")
    select: SelectRef | None = Field(
        None, description="what may move: ID_OR_FILE[:NAME[+NAME]] of a selection (default: everything)")
    targets: tuple[str, ...] = Field((), description="modules that get an adapter, such as q_proj (LoRA; default: all linear)")

    @model_validator(mode="after")
    def _of_this_method(self) -> Self:
        if self.method == "full" and (idle := changed(self, (*Adapter.model_fields, "targets"))):
            raise Unfit(f"`method: full` has no adapter, so {', '.join(idle)} would do nothing",
                        fix="leave them out; `select` says what may move")
        return self

    @property
    def way(self) -> Literal["lora", "full"]:
        return self.method


def task(config: Sft, context: Context, around: Around) -> Task:
    """The examples, and what may move."""
    made = begin(config, context, around, {"lora": "LoRA tuning", "full": "Full tuning"}[config.method])
    if config.select is None:
        return replace(made, caveats=adapters.left_out(made.anatomy)) if config.method == "lora" else made
    shapes = {key: t.shape for key, t in made.checkpoint.tensors.items()}
    chosen = selectionfile.on(selectionfile.pick(config.select, context.folder), made.anatomy, shapes)
    if config.method == "full":
        return replace(made, selection=chosen, title="Tuning of a selection")
    fitted, left = adapters.fitted(chosen, made.anatomy, shapes)
    return replace(made, selection=fitted, caveats=left)


def sft_step(around: Around) -> Step:
    """The step, with the named generators that `data` may call (`problems:en?n=2000`), and what scores while training."""
    return tuning_step("tune.sft", Sft, task, around)
