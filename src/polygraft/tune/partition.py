"""`tune partition`: two skills in one model, each with a part of it to itself.

Four ways of arXiv 2505.18356, on the same examples seen as often: `simultaneous` (steps alternate between the sides, each moves
its own part), `freeze` (an expert for each side trains its part alone; the two parts are put together), `revert` (each expert
trains everything, then what is not its part goes back), `joint` (all examples mixed, everything moves).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from polygraft import selectionfile
from polygraft.config import Unfit, changed
from polygraft.result import LayerMap, Result
from polygraft.selection import Selection, Shapes
from polygraft.step import Context, LabelledName, LabelledRef, Plan, SelectRef, Step
from polygraft.tune import experts, owners, sidelog
from polygraft.tune.config import EXAMPLES, Around, Tuning, gathered
from polygraft.tune.data import uneven
from polygraft.tune.data.config import Mix
from polygraft.tune.data.gathering import Gathered
from polygraft.tune.owners import SIDES, Owner, Parts
from polygraft.tune.parts import Listed
from polygraft.tune.running import Task, fit, plan_task
from polygraft.tune.sides import Alternate, Sides

Method = Literal["simultaneous", "freeze", "revert", "joint"]
TITLES = {"simultaneous": "Simultaneous partition tuning", "freeze": "Freeze-then-train", "revert": "Train-then-revert",
          "joint": "Joint tuning"}  # fmt: skip
EXPERTS = "experts"  # the two experts' folder while they are trained


class Partition(Tuning):
    """Teach a task and a language at once, each in a part of the model that is its own (arXiv 2505.18356)."""

    task_data: tuple[LabelledRef, ...] = Field(min_length=1, description=f"the task's {EXAMPLES}")
    language_data: tuple[LabelledRef, ...] = Field(min_length=1, description=f"the language's {EXAMPLES}")
    method: Method = Field("simultaneous", description="simultaneous: steps alternate, each side moves its part; freeze: each "
                           "side's expert trains its part alone; revert: each trains all and keeps its part; joint: all mixed")
    language_layers: Listed = Field((), description="the language's layers, from 0: 0-5,30-31 (default: the bottom 6 and top 2 "
                                    "of 32, scaled to the depth)", json_schema_extra={"metavar": "A-B,..."})
    language_parts: Listed = Field((), description="of these layers (default: all) only such parts: attn, ffn, up, ...")
    language_select: SelectRef | None = Field(None, description="or the language's part from a selection: ID_OR_FILE[:NAME[+NAME]]")
    task_select: SelectRef | None = Field(None, description="the task's part from a selection (default: the rest)")
    outside: Owner = Field("task", description="whose embeddings, final norm and head are; none: they stay as they are")
    mix: Mix = Field(default=Mix(), description="how the sources of a side are mixed, filtered and held out, each side by itself")

    @model_validator(mode="after")
    def _one_partition(self) -> Self:
        if self.language_select is not None and (self.language_layers or self.language_parts):
            raise Unfit("say the language's part once: by `language_layers` and `language_parts`, or by `language_select`",
                        fix="leave one of the two out")
        if self.steps is None and self.packing:
            raise Unfit("say `steps`: both sides have equally many, and how many rows packing leaves is not known before",
                        fix="add `steps`, those of both sides together")
        if self.steps == 1:
            raise Unfit("two sides need two steps at least", found="`steps` 1", fix="give 2 steps or more")
        if self.mix.weights and all(len(labels(side)) == 1 for side in (self.task_data, self.language_data)):
            raise Unfit("each side has one source, so the weights of `mix` would do nothing", found=", ".join(self.mix.weights),
                        fix="leave them out: they weigh the sources of a side against each other, both sides have as many steps")
        if not self.apart and self.task_select is None and (idle := changed(self, ("language_layers", "language_parts"))):
            raise Unfit(f"`method: joint` moves what either side owns, so {', '.join(idle)} would do nothing", fix="leave them out")
        if self.retain.replay:
            raise Unfit("replay belongs to one side", found=", ".join(self.retain.replay),
                        fix="name these examples among `task_data` or `language_data`")
        return self

    @property
    def apart(self) -> bool:
        """Whether each side has a part of its own."""
        return self.method != "joint"


# ------------------------------------------------------------------------------------------------------------ what is asked


@dataclass(frozen=True)
class Job:
    """A config made concrete: the whole task, who owns what, whose rows are whose, and how many optimiser steps in all."""

    task: Task
    parts: Parts
    sides: Sides
    steps: int

    @property
    def shapes(self) -> Shapes:
        return {key: t.shape for key, t in self.task.checkpoint.tensors.items()}


def job(config: Partition, context: Context, around: Around) -> Job:
    """Read both sides' examples and settle who owns what. Raises RecipeError and InputError as its parts do."""
    each = [gathered(specs, mix_of(config, other), config, context, around) for specs, other in
            ((config.task_data, config.language_data), (config.language_data, config.task_data))]  # fmt: skip
    both = together(each)
    sides = Sides(tuple(len(one.rows) for one in each), mixed=config.method == "joint")
    made = Task(context.model(config.model), both.rows, both.inputs, TITLES[config.method], sides=sides, gathered=both)
    parts = owned(config, context, made)
    sides = replace(sides, parts=parts.both) if config.method == "simultaneous" else sides
    hooks = (Alternate(sides),) if sides.parts else ()
    steps = max(2, config.settings().count(len(both.rows)))
    told = balance(sides.counts, shown(config, sides, steps))
    made = replace(made, selection=parts.trained, hooks=hooks, sides=sides, caveats=told)
    return Job(made, parts, sides, steps)


def labels(side: Sequence[str]) -> set[str]:
    """The labels of a side's sources."""
    return {ref.label or ref.target for ref in map(LabelledName, side)}


def mix_of(config: Partition, other: Sequence[str]) -> Mix:
    """The mixture of one side: without the weights that are of the other side's sources."""
    theirs = labels(other)
    return config.mix.model_copy(update={"weights": {k: w for k, w in config.mix.weights.items() if k not in theirs}})


def together(each: Sequence[Gathered]) -> Gathered:
    """The examples of both sides, end to end, and what is told of them; those held out are labelled by their side."""
    named = list(zip(SIDES, each, strict=True))
    return Gathered(
        [row for one in each for row in one.rows],
        tuple(replace(ref, name=f"{name} data") for name, one in named for ref in one.inputs),
        tuple(name for name, one in named for _ in one.rows), tuple(replace(e, label=name) for name, one in named for e in one.dev),
        tuple(line for one in each for line in one.lines),
        tuple(replace(t, title=f"{t.title} of the {name}") for name, one in named for t in one.tables),
        tuple(line for one in each for line in one.caveats),
        {f"{name} {key}": value for name, one in named for key, value in one.data.items()}, each[0].dev_every)  # fmt: skip


def owned(config: Partition, context: Context, made: Task) -> Parts:
    """Who owns what of this model."""
    anatomy, shapes = made.anatomy, {key: t.shape for key, t in made.checkpoint.tensors.items()}

    def picked(word: str) -> Selection:
        return selectionfile.on(selectionfile.pick(word, context.folder), anatomy, shapes)

    language = picked(config.language_select) if config.language_select is not None else (
        owners.by_words(config.language_layers, config.language_parts, anatomy, shapes))
    task = picked(config.task_select) if config.task_select is not None else None
    return owners.partition(language, task, config.outside, anatomy, shapes)


def shown(config: Partition, sides: Sides, steps: int) -> list[int | None]:
    """How many examples of each side are seen, one counted as often as it is; None where rows will hold several."""
    each = config.batch * config.accumulate
    return [None if config.packing else n * each for n in sides.steps(steps)]


def balance(counts: Sequence[int], seen: Sequence[int | None]) -> tuple[str, ...]:
    """What is to be said where one side has many more examples than the other; nothing of sides whose examples are not counted."""
    rounds = {f"the {name}'s {n:,} examples": s / n for name, n, s in zip(SIDES, counts, seen, strict=True) if s is not None}
    return uneven.told(rounds, "rounds", "both sides have as many steps")


def alone(made: Job, config: Partition, side: int) -> tuple[Task, Partition]:
    """The training of one side's expert, for `freeze` and `revert`: its rows, its share of the steps, what may move."""
    part = made.parts.both[side] if config.method == "freeze" else made.parts.trained
    rows = list(made.sides.split(made.task.rows)[side])
    title = f"{made.task.title}, the {SIDES[side]}'s expert"
    quiet = replace(made.task.gathered, lines=(), tables=(), caveats=(), data={})  # told once, of both
    task = replace(made.task, rows=rows, sides=None, selection=part, title=title, caveats=(), gathered=quiet)
    return task, config.model_copy(update={"steps": made.sides.steps(made.steps)[side]})


# ------------------------------------------------------------------------------------------------------------------- plan


def plan(config: Partition, context: Context, around: Around) -> Plan:
    made = job(config, context, around)
    shares = [f"{side.share(made.shapes):.1%}" for side in made.parts.both]
    lines = (f"{TITLES[config.method]}: {made.steps:,} steps, {' and '.join(_counted(made))}",
             *((f"of the model {shares[0]} is the task's, {shares[1]} the language's",) if config.apart else ()))
    if config.method in ("simultaneous", "joint"):
        found = plan_task(made.task, config.model_copy(update={"steps": made.steps}), context, around)
        return replace(found, lines=(*lines, *found.lines), maps=(*drawn(config, made), *found.maps))
    each = [plan_task(*alone(made, config, side), context, around) for side in (0, 1)]
    stored = sum(t.nbytes for t in made.task.checkpoint.tensors.values())
    return replace(
        each[0], lines=(*lines, *made.task.gathered.lines, *(line for one in each for line in one.lines)),
        peak_bytes=max(p.peak_bytes for p in each), disk_bytes=stored + sum(p.disk_bytes for p in each),
        read_bytes=sum(p.read_bytes for p in each), seconds=sum(p.seconds for p in each), maps=drawn(config, made),
        notes=(*made.task.caveats, *made.task.gathered.caveats, *each[0].notes))  # fmt: skip


def drawn(config: Partition, made: Job) -> tuple[LayerMap, ...]:
    """Who owns what; nothing where the examples are mixed and everything moves."""
    return (owners.owners_map(made.parts, made.task.anatomy),) if config.apart else ()


def _counted(made: Job) -> list[str]:
    counts = zip(made.sides.steps(made.steps), SIDES, made.sides.counts, strict=True)
    return [f"{n:,} of the {name}'s on {rows:,} examples" for n, name, rows in counts]


# -------------------------------------------------------------------------------------------------------------------- run


def run(config: Partition, context: Context, folder: Path, around: Around) -> Result:
    """Train; `folder/model` has both sides' parts, `selection.json` says whose is what (whole tensors)."""
    made = job(config, context, around)
    if config.method in ("simultaneous", "joint"):
        done, result = fit(made.task, config.model_copy(update={"steps": made.steps}), context, folder, around)
        runs = sidelog.by_turn(done, made.sides)
    else:
        runs, result = _experts(made, config, context, folder, around)
    if config.apart:
        named = {name: tuple(owners.entries(side, made.task.anatomy)) for name, side in zip(SIDES, made.parts.both, strict=True)}
        for place in (folder, folder / "model"):  # a verb keeps the model's folder alone
            selectionfile.write(place / selectionfile.FILE, named, {"method": "partition"})
    seen = [n if run.examples is None else run.examples for run, n in zip(runs, shown(config, made.sides, made.steps), strict=True)]
    table = sidelog.table(runs, made.parts, made.sides.counts, seen, made.shapes)
    packed = balance(made.sides.counts, seen) if config.packing else ()
    return replace(result, step="tune.partition", maps=(*drawn(config, made), *result.maps), tables=(table, *result.tables),
                   curves=(*sidelog.curves(runs), *result.curves), caveats=(*result.caveats, *packed))  # fmt: skip


def _experts(made: Job, config: Partition, context: Context, folder: Path,
             around: Around) -> tuple[list[sidelog.Run], Result]:  # fmt: skip
    """Train the two experts, put their parts together, and let one result tell of both."""
    each = [experts.expert(*alone(made, config, side), replace(context, progress=_half(context, side)),
                           folder / EXPERTS / name, around) for side, name in enumerate(SIDES)]  # fmt: skip
    base, out = made.task.checkpoint, folder / "model"
    proof = experts.put_together(base, made.parts.both, [one.path for one in each], out)
    shutil.rmtree(folder / EXPERTS)
    return [one.run for one in each], experts.told(each, SIDES, proof, made.task)


def _half(context: Context, side: int) -> Callable[..., None]:
    """Progress of the first or the second of two equal trainings."""
    def tell(done: float, total: float, text: str = "") -> None:
        context.progress(side * total + done, 2 * total, f"{SIDES[side]}: {text}")

    return tell


def partition_step(around: Around) -> Step:
    return Step("tune.partition", 1, Partition, partial(plan, around=around), partial(run, around=around), makes_model=True,
                resumable=True, probes=True)  # fmt: skip
