"""`tune slam`: one stage of alignment that trains up and down of a few layers' feed-forward parts and nothing else.

Fan et al., COLING 2025, arXiv 2501.03681; layers, parts and numbers are those of the released code, since the paper's choice of
layers is not in it (`analyze deviation` reconstructs one).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from polygraft import selections
from polygraft.errors import InputError, RecipeError
from polygraft.result import Estimate, Result, Table
from polygraft.selections import Entry
from polygraft.step import Context, DataRef, Plan, SelectRef, Step
from polygraft.tune import translation
from polygraft.tune.config import Around, Training, gather
from polygraft.tune.running import Task, plan_task, run_task
from polygraft.tune.translation import Alignment
from polygraft.watching import Watch

if TYPE_CHECKING:
    from polygraft.anatomy import Anatomy
    from polygraft.selection import Selection

RELEASED = {"lr": 2e-5, "schedule": "cosine", "warmup": 0.0, "epochs": 4.0, "length": 1024, "dtype": "bf16",
            "template": "human-assistant"}
RELEASED_BATCH = 512  # 4 GPUs x 64 x 2, and 8 x 32 x 2
CHECK = "problems-generate"  # English word problems: the last number written must be the answer
CHECKED = 50
ABLE = 0.2  # of the problems solved; below it there is little reasoning that other languages could reach (ours)
SPAN = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?\Z")


def _listed(value: Any) -> Any:
    """One number or span, or a list of them, as a list of texts."""
    values = value if isinstance(value, list | tuple) else [value]
    return tuple(str(v) if isinstance(v, int) and not isinstance(v, bool) else v for v in values)


class Slam(Alignment, Training):
    """SLAM: teach a model that reasons in English to read other languages, by up and down of a few layers."""

    data: tuple[DataRef, ...] = Field((), description="further examples, mixed in: .jsonl[.gz|.xz], or problems:en?n=2000")
    layers: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        (), description="the layers to train, from 0: 0-5, or 0,2,4-6", json_schema_extra={"metavar": "A-B,..."})
    select: SelectRef | None = Field(None, description="or those of a selection: ID_OR_FILE[:NAME], such as an analyze deviation "
                                     "(default name: chosen)")
    everything: bool = Field(False, description="or every weight of the model: the first stage of two-stage recipes (QAlign)")
    gate: bool = Field(False, description="train gate too, not only up and down")
    check: bool = Field(False, description="score English word problems before and after: can the model reason in English?")
    epochs: float = Field(4.0, gt=0, description="times round the examples, when no steps are given")
    accumulate: int = Field(4, ge=1, description="forward passes in one optimiser step (SLAM takes 512 examples a step)")
    lr: float | None = Field(2e-5, gt=0, description="peak learning rate")
    schedule: Literal["linear", "cosine", "constant"] = Field("cosine", description="how the learning rate falls after the warm-up")
    warmup: float = Field(0.0, ge=0, le=1, description="share of the steps in which the learning rate rises from 0")
    template: Literal["chat", "human-assistant"] = Field(
        "human-assistant", description="how an example becomes text: plain `Human: ... Assistant: ...` as in SLAM, or the "
        "model's chat template; a template other than that of the tests keeps translation out of the answers")

    @model_validator(mode="after")
    def _one_choice(self) -> Self:
        if bool(self.layers) + (self.select is not None) + self.everything != 1:
            raise ValueError("say what is trained: one of `layers`, `select` or `everything`")
        if self.everything and self.gate:
            raise ValueError("`gate` is part of `everything`")
        return self


# ----------------------------------------------------------------------------------------------------- what is trained


def spans(words: Sequence[str], depth: int) -> list[int]:
    """Layers named as `3` and `0-5`, rising. Raises RecipeError for what is none, or is beyond the model's `depth` layers."""
    found: set[int] = set()
    for word in words:
        m = SPAN.match(word)
        first, last = (int(m[1]), int(m[2] or m[1])) if m else (0, -1)
        if first > last:
            raise RecipeError("not a layer or a span of layers", where="layers", found=word, expected="for example 0-5, or 3")
        if last >= depth:
            raise RecipeError("no such layer in this model", where="layers", found=word, expected=f"0 to {depth - 1}")
        found.update(range(first, last + 1))
    return sorted(found)


def parts(layers: Sequence[int], gate: bool = False) -> list[Entry]:
    """Up and down (and gate) of these layers' feed-forward parts, whole."""
    roles = ("gate", "up", "down") if gate else ("up", "down")
    return [Entry(layer, "ffn", role) for layer in layers for role in roles]


def chosen(config: Slam, anatomy: Anatomy, context: Context) -> list[Entry]:
    """The entries that `layers` or `select` mean. Raises RecipeError for a selection of anything but whole feed-forward parts."""
    if config.select is None:
        return parts(spans(config.layers, anatomy.layers), config.gate)
    entries = picked(config.select, context)
    for e in entries:
        if e.kind != "ffn" or e.rows is not None:
            raise RecipeError("SLAM trains whole feed-forward parts of layers", where=config.select, found=e.label,
                              fix="for rows use `tune neurons`, for anything else `tune sft --select`")
    return [*entries, *(Entry(n, "ffn", "gate") for n in selections.layers(entries) if config.gate)]


def picked(select: str, context: Context) -> tuple[Entry, ...]:
    """What `FILE[:NAME]` means; of a file with several selections and none named, `chosen`."""
    file, names = selections.split(select)
    if names:
        return selections.pick(select, context.folder)
    path = context.folder(file)
    named = selections.read(path / selections.FILE if path.is_dir() else path)
    return named["chosen"] if len(named) != 1 and "chosen" in named else selections.pick(select, context.folder)


def selected(config: Slam, made: Task, context: Context) -> Selection | None:
    """The tensors that may move; None: all of them."""
    if config.everything:
        return None
    shapes = {key: t.shape for key, t in made.checkpoint.tensors.items()}
    return selections.on(chosen(config, made.anatomy, context), made.anatomy, shapes)


# ------------------------------------------------------------------------------------------------------------- the step


def task(config: Slam, context: Context, around: Around) -> Task:
    """The alignment examples (and further ones), and the layers' matrices."""
    aligned = translation.gather(config, context, config.seed)
    more, inputs = gather(config, context, around) if config.data else ([], ())
    title = "Question alignment, every weight," if config.everything else "SLAM"
    made = Task(context.model(config.model), [*aligned.rows, *more], (*aligned.inputs, *inputs), title)
    mixed = (f"{len(more):,} further examples were mixed in.",) if more else ()
    return replace(made, selection=selected(config, made, context), tables=(aligned.table(), against(config)), summary=mixed,
                   caveats=aligned.caveats(), data={"alignment": [vars(c) for c in aligned.counts]})


def against(config: Slam) -> Table:
    """This run's settings beside those of the released scripts (7B and 13B)."""
    here = {name: getattr(config, name) for name in RELEASED} | ({"epochs": f"{config.steps} steps"} if config.steps else {})
    rows: list[tuple[Any, ...]] = [("examples a step", RELEASED_BATCH, config.batch * config.accumulate)]
    rows += [(name, value, here[name]) for name, value in RELEASED.items()]
    return Table("Settings beside the released ones", ("setting", "SLAM's scripts", "here"), tuple(rows))


def watched(config: Slam) -> Slam:
    """The config whose watch scores English problems first and last, where `check` asks for it."""
    if not config.check or CHECK in config.watch.tasks:
        return config
    mine = Watch(tasks=(CHECK,), langs=("en",), items=CHECKED, every=10**9)
    langs = tuple(dict.fromkeys((*config.watch.langs, "en")))
    own = config.watch.model_copy(update={"tasks": (*config.watch.tasks, CHECK), "langs": langs})
    return config.model_copy(update={"watch": own if config.watch.wanted else mine})


def plan(config: Slam, context: Context, around: Around) -> Plan:
    config = watched(config)
    made = task(config, context, around)
    done = plan_task(made, config, context, around)
    counts = made.tables[0]
    told = "alignment pairs: " + ", ".join(f"{row[0]} {row[2]:,}" for row in counts.rows)
    return replace(done, lines=(*done.lines, told), notes=(*done.notes, *made.caveats))


def run(config: Slam, context: Context, folder: Path, around: Around) -> Result:
    config = watched(config)
    done = run_task(task(config, context, around), config, context, folder, around)
    return replace(done, step="tune.slam", caveats=(*done.caveats, *(unable(done) if config.check else ())))


def unable(done: Result) -> tuple[str, ...]:
    """The warning that the model to start from does not reason in English; nothing where it does."""
    first = done.data["watch"]["readings"][0]["scores"]
    found = next((Estimate(**e) for name, e in first.items() if name.startswith(f"{CHECK}/en/")), None)
    if found is None:
        raise InputError("the check of English problems gave no score", where=CHECK)
    if found.value is not None and found.value >= ABLE:
        return ()
    return (f"before the training the model solved {found.value:.0%} of the English problems: SLAM carries reasoning in English "
            "over to other languages, so start from a model that has it",)  # fmt: skip


def slam_step(around: Around) -> Step:
    return Step("tune.slam", 1, Slam, partial(plan, around=around), partial(run, around=around), makes_model=True, resumable=True)
