"""`tune slam`: one stage of alignment that trains up and down of a few layers' feed-forward parts and nothing else.

Fan et al., COLING 2025, arXiv 2501.03681; layers, parts and numbers are those of the released code, since the paper's choice of
layers is not in it (`analyze deviation` reconstructs one).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from polygraft import selectionfile
from polygraft.config import Unfit
from polygraft.errors import InputError, RecipeError
from polygraft.result import Estimate, Result, Table
from polygraft.selectionfile import Entry
from polygraft.step import Context, LabelledRef, Plan, SelectRef, Step
from polygraft.tune import parts, translation
from polygraft.tune.config import MOST_EPOCHS, Around, Training, gathered
from polygraft.tune.data import uneven
from polygraft.tune.parts import Listed
from polygraft.tune.running import Task, plan_task, run_task
from polygraft.tune.translation import Alignment
from polygraft.watching import Watch

if TYPE_CHECKING:
    from polygraft.anatomy import Anatomy
    from polygraft.selection import Selection, Shapes

RELEASED = {"lr": 2e-5, "schedule": "cosine", "warmup": 0.0, "epochs": 4.0, "length": 1024, "dtype": "bf16",
            "template": "human-assistant"}
RELEASED_BATCH = 512  # 4 GPUs x 64 x 2, and 8 x 32 x 2
CHECK = "problems-generate"  # English word problems: the last number written must be the answer
CHECKED = 50
ABLE = 20.0  # % of the problems solved; below it there is little reasoning that other languages could reach (ours)


class Slam(Alignment, Training):
    """SLAM: teach a model that reasons in English to read other languages, by up and down of a few layers."""

    data: tuple[LabelledRef, ...] = Field((), description="further examples, mixed in: [LABEL=]PATH, or problems:en?n=2000")
    layers: Listed = Field((), description="the layers to train, from 0: 0-5, or 0,2,4-", json_schema_extra={"metavar": "A-B,..."})
    select: SelectRef | None = Field(None, description="or those of a selection: ID_OR_FILE[:NAME], such as an analyze deviation "
                                     "(default name: chosen)")
    everything: bool = Field(False, description="or every weight of the model: the first stage of two-stage recipes (QAlign)")
    gate: bool = Field(False, description="train gate too, not only up and down")
    check: bool = Field(False, description="score English word problems before and after: can the model reason in English?")
    epochs: float = Field(4.0, gt=0, le=MOST_EPOCHS, description="times round the examples, when no steps are given")
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
            given = self.layers or self.select is not None or self.everything
            raise Unfit("say what is trained: one of `layers`, `select` or `everything`",
                        fix="leave out all but one of them" if given else "for example `layers` 0-5")
        if self.everything and self.gate:
            raise Unfit("`gate` is part of `everything`", fix="leave `gate` out")
        return self


# ----------------------------------------------------------------------------------------------------- what is trained


def selected(config: Slam, made: Task, context: Context) -> Selection | None:
    """The tensors that may move; None: all of them. Raises RecipeError for a selection of anything but whole feed-forward parts."""
    if config.everything:
        return None
    shapes = {key: t.shape for key, t in made.checkpoint.tensors.items()}
    if config.select is None:
        return feed_forward(parts.layers(config.layers, made.anatomy), made.anatomy, shapes, config.gate)
    entries = picked(config.select, context)
    for e in entries:
        if e.kind != "ffn" or e.rows is not None:
            raise RecipeError("SLAM trains whole feed-forward parts of layers", where=config.select, found=e.label,
                              fix="for rows use `tune neurons`, for anything else `tune sft --select`")
    whole, named = [e for e in entries if e.role is None], [e for e in entries if e.role is not None]
    chosen = feed_forward(selectionfile.layers(whole), made.anatomy, shapes)  # a whole part has its gate and router, too
    chosen = selectionfile.on(entries, made.anatomy, shapes) & chosen | selectionfile.on(named, made.anatomy, shapes)
    return chosen | parts.select(["gate"], selectionfile.layers(entries), made.anatomy, shapes) if config.gate else chosen


def feed_forward(layers: Sequence[int], anatomy: Anatomy, shapes: Shapes, gate: bool = False) -> Selection:
    """Up and down (and gate) of these layers, whole; of experts too, and of a fused tensor up's rows. `shapes`: key -> shape."""
    return parts.select(["up", "down", *(["gate"] if gate else [])], layers, anatomy, shapes)


def picked(select: str, context: Context) -> tuple[Entry, ...]:
    """What `FILE[:NAME]` means; of a file with several selections and none named, `chosen`."""
    file, names = selectionfile.split(select)
    if names:
        return selectionfile.pick(select, context.folder)
    path = context.folder(file)
    named = selectionfile.read(path / selectionfile.FILE if path.is_dir() else path)
    return named["chosen"] if len(named) != 1 and "chosen" in named else selectionfile.pick(select, context.folder)


# ------------------------------------------------------------------------------------------------------------- the step


def task(config: Slam, context: Context, around: Around) -> Task:
    """The alignment examples (and further ones), and the layers' matrices."""
    aligned = translation.gather(config, context, config.seed)
    found = gathered(config.data, config.mix, config, context, around, aligned.examples, aligned.inputs)
    if caveats := aligned.caveats():  # of pairs, so not again of their characters
        found = replace(found, caveats=tuple(line for line in found.caveats if not line.startswith(uneven.BEGIN)))
    title = "Question alignment, every weight," if config.everything else "SLAM"
    made = Task(context.model(config.model), found.rows, found.inputs, title, gathered=found)
    more = sum(label not in config.pairs for label in found.labels)
    pairs = aligned.table()
    told = "alignment pairs: " + ", ".join(f"{row[0]} {row[2]:,}" for row in pairs.rows)
    return replace(made, selection=selected(config, made, context), tables=(pairs, against(config)), planned=(told,),
                   summary=(f"{more:,} further examples were mixed in.",) if more else (),
                   caveats=caveats, data={"alignment": [vars(c) for c in aligned.counts]})


def against(config: Slam) -> Table:
    """This run's settings beside those of the released scripts (7B and 13B)."""
    here = {name: getattr(config, name) for name in RELEASED} | ({"epochs": f"{config.steps} steps"} if config.steps else {})
    rows: list[tuple[Any, ...]] = [("examples a step", RELEASED_BATCH, config.batch * config.accumulate)]
    rows += [(name, value, here[name]) for name, value in RELEASED.items()]
    return Table("Settings beside the released ones", ("setting", "SLAM's scripts", "here"), tuple(rows))


def watched(config: Slam) -> Slam:
    """The config whose watch scores English problems first and last, where `check` asks for it."""
    if not config.check or (CHECK in config.watch.tasks and "en" in config.watch.langs):
        return config
    mine = Watch(tasks=(CHECK,), langs=("en",), items=CHECKED, every=10**9)
    langs = tuple(dict.fromkeys((*config.watch.langs, "en")))
    own = config.watch.model_copy(update={"tasks": tuple(dict.fromkeys((*config.watch.tasks, CHECK))), "langs": langs})
    return config.model_copy(update={"watch": own if config.watch.wanted else mine})


def plan(config: Slam, context: Context, around: Around) -> Plan:
    config = watched(config)
    return plan_task(task(config, context, around), config, context, around)


def run(config: Slam, context: Context, folder: Path, around: Around) -> Result:
    config = watched(config)
    done = run_task(task(config, context, around), config, context, folder, around)
    summary, caveats = english(done) if config.check else ((), ())
    return replace(done, step="tune.slam", summary=(*done.summary, *summary), caveats=(*done.caveats, *caveats))


def english(done: Result) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """How many English problems the model solved before and after, and the warning that it could not reason to begin with."""
    readings = done.data["watch"]["readings"]
    before, after = (Estimate(**r["scores"][f"{CHECK}/en/accuracy"]) for r in (readings[0], readings[-1]))
    if before.value is None or after.value is None:
        raise InputError("the English problems gave no score", where=CHECK)
    told = f"English problems solved: {_percent(before)} before the training, {_percent(after)} after."
    if before.value >= ABLE:
        return (told,), ()
    return (told,), (f"before the training the model solved {before.value:.0f} % of the English problems: SLAM carries reasoning "
                     "in English over to other languages, so start from a model that has it",)  # fmt: skip


def _percent(e: Estimate) -> str:
    return f"{e.value:.0f} % ({e.low:.0f} to {e.high:.0f}, of {e.n})"


def slam_step(around: Around) -> Step:
    return Step("tune.slam", 1, Slam, partial(plan, around=around), partial(run, around=around), makes_model=True, resumable=True)
