"""From a verb's config to a Plan and a Result: what is trained on what, its cost, and what the training did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from polygraft.anatomy import Anatomy
from polygraft.checkpoint import Checkpoint
from polygraft.errors import InputError
from polygraft.maps import Cell, layer_map
from polygraft.result import InputRef, LayerMap, Result, Table
from polygraft.selection import Selection
from polygraft.step import Context, Plan, Step
from polygraft.tune import extras, packing, processes, retain
from polygraft.tune.adapters import slots
from polygraft.tune.broken import diverged
from polygraft.tune.chosen import checked, everything, size
from polygraft.tune.config import Around, Training, Tuning, gather, watching
from polygraft.tune.data.devloss import DevLoss
from polygraft.tune.data.gathering import NOTHING, Gathered
from polygraft.tune.hooks import Hook
from polygraft.tune.prediction import FLOPS, predicted
from polygraft.tune.sides import Sides
from polygraft.tune.start import Start
from polygraft.tune.training import Trained, Watched, Work, train
from polygraft.watching import Log, told


@dataclass(frozen=True)
class Task(Start):
    """What a verb has made of its config: the examples, what may move (None: everything, or for LoRA every linear layer), and its
    own part in the loop and in the report. `sides`: the rows are those of several sides, end to end. `title` begins the result's:
    "SLAM", "Full tuning". Plan and result tell the `summary`, the plan alone what is `planned`."""

    inputs: tuple[InputRef, ...]
    title: str
    selection: Selection | None = None
    hooks: tuple[Hook, ...] = ()
    sides: Sides | None = None
    summary: tuple[str, ...] = ()
    planned: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    maps: tuple[LayerMap, ...] = ()
    caveats: tuple[str, ...] = ()
    data: Mapping[str, Any] | None = None
    gathered: Gathered = NOTHING  # what became of the data that were named


def begin(config: Training, context: Context, around: Around, title: str) -> Task:
    """A task on the examples that `data` and `mix` say, everything else still to be chosen."""
    found = gather(config, context, around)
    return Task(context.model(config.model), found.rows, found.inputs, title, gathered=found)


def tuning_step(name: str, config: type[Tuning], task: Callable[[Any, Context, Around], Task], around: Around) -> Step:
    """The step of a verb that says no more than its task does: one training of what `task(config, context, around)` chooses."""

    def plan(asked: Tuning, context: Context) -> Plan:
        return plan_task(task(asked, context, around), asked, context, around)

    def run(asked: Tuning, context: Context, folder: Path) -> Result:
        return replace(run_task(task(asked, context, around), asked, context, folder, around), step=name)

    return Step(name, 1, config, plan, run, makes_model=True, resumable=True)


def trained_sizes(task: Task, config: Tuning) -> tuple[dict[str, int], LayerMap]:
    """Trained parameters by tensor, and their share of each part of each layer. Raises RecipeError for an empty selection."""
    checkpoint, anatomy = task.checkpoint, task.anatomy
    shapes = {key: t.shape for key, t in checkpoint.tensors.items()}
    if config.way == "lora":
        s = config.settings()
        selection = None if task.selection is None else checked(task.selection, anatomy, checkpoint)
        trained = {slot.key: slot.parameters(s.r) for slot in slots(anatomy, shapes, selection, s.targets)}
    else:
        selection = everything(checkpoint) if task.selection is None else checked(task.selection, anatomy, checkpoint)
        trained = {k: Selection({k: r}, selection.axis).count(shapes) for k, r in selection.rows.items()}
        trained |= {key: n for hook in task.hooks for key, n in hook.lean.items()}
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


def plan_task(task: Task, config: Tuning, context: Context, around: Around) -> Plan:
    """Steps, memory and a rough time, from headers and the examples' text."""
    s, checkpoint, kept = config.settings(), task.checkpoint, retain.begin(config, task, context, around)
    task = kept.task
    trained, shares = trained_sizes(task, config)
    total, some = size(checkpoint), sum(trained.values())
    if not some:
        raise InputError("no layer has one of these names", where=task.source.spec, found=", ".join(getattr(config, "targets", ())),
                         fix="see `polygraft inspect`")  # fmt: skip
    refused(task, config)
    cost = predicted(work_of(task, config, kept), trained, context.probe)
    stored = sum(t.nbytes for t in checkpoint.tensors.values())
    if not context.probe:  # which measures what keeps the model, too
        more = kept.bytes(checkpoint.config, some, shares.layers)
        cost = replace(cost, peak=cost.peak + more, seconds=cost.seconds + kept.flops(total, cost.steps) / FLOPS)
    share = f"{some:,} trained parameters ({some / total:.2%})"
    head = f"{len(task.rows):,} examples, {cost.about}{cost.steps:,} steps of {s.batch * s.accumulate}, {share}"
    lines = (head, *task.gathered.lines, *cost.lines)
    notes = (*cost.notes, *task.gathered.caveats, *task.caveats)
    wrong = tuple(around.watchers.faults(config.watch, context)) if config.watch.wanted else ()
    return Plan((*lines, *kept.lines(), *task.summary, *task.planned), cost.peak, cost.disk, stored, cost.seconds,
                (shares, *task.maps), wrong, notes, like=task.source if s.method == "full" else None)  # fmt: skip


def refused(task: Task, config: Tuning) -> None:
    """Raise what the training would raise before its first step, as far as headers tell."""
    s = config.settings()
    extras.check(s)
    if s.packing:
        packing.check_known(task.checkpoint.config)
    shapes = {key: t.shape for key, t in task.checkpoint.tensors.items()}
    selection = None if task.selection is None else checked(task.selection, task.anatomy, task.checkpoint)
    if s.method == "lora":
        rows = any(slot.reach < prod(slot.size) for slot in slots(task.anatomy, shapes, selection, s.targets))
    else:
        rows = selection is not None and any(r is not None for r in selection.rows.values())
    processes.check_shards(s, gpu=True, rows=rows, watched=config.watch.wanted or config.retain.stop is not None)


def work_of(task: Task, config: Tuning, kept: retain.Retention, watched: Watched | None = None) -> Work:
    """The training that a task is, with what keeps the model from forgetting."""
    dev = [DevLoss(g.dev, g.dev_every, config.settings()) for g in (task.gathered,) if g.dev]
    hooks = (*dev, *kept.hooks(dev), *task.hooks)
    named = ", ".join(ref.spec for ref in task.inputs if ref.name.endswith(("data", "pairs"))) or None
    return Work(task.source, task.rows, config.settings(), task.selection, watched, hooks, task.sides, named)


def run_task(task: Task, config: Tuning, context: Context, folder: Path, around: Around) -> Result:
    """Train; the adapter or model lies in `folder/model`."""
    return fit(task, config, context, folder, around)[1]


def fit(task: Task, config: Tuning, context: Context, folder: Path, around: Around) -> tuple[Trained, Result]:
    """What the training did, and its result, for a verb that says more of it."""
    kept = retain.begin(config, task, context, around)
    watched = watching(config.watch, context, folder, around.watchers) if config.watch.wanted else None
    task, watched = kept.task, kept.watched(watched, config.watch.every)
    work = work_of(task, config, kept, watched)
    done = train(work, folder, context.progress)
    log = watched.log if watched else Log(1)
    data: dict[str, Any] = dict(task.data or {}) | ({"watch": log.to_json()} if watched else {})
    if watched and config.watch.criteria is not None:  # decides the exit code, as an evaluation's do
        failed = [reason for reason in log.readings[-1].failed if not kept.is_bound(reason)]
        data["criteria"] = {"passed": not failed, "reasons": failed}
    speed = round(done.tokens / max(done.seconds, 1e-9), 1)
    data |= {"seconds": round(done.seconds, 1), "tokens_per_second": speed, "resumed_at": done.resumed, "steps": done.steps}
    more = [task.gathered.said(), *(hook.said() for hook in work.hooks), kept.said(done)]
    for one in more:
        data |= one.data
    return done, Result(
        step="", id=context.step_id, title=f"{task.title} of {config.model}",
        summary=(*said(done, task, config.model), *task.summary, *(line for m in more for line in m.summary),
                 *(told(log, done.steps, done.planned, done.seconds - log.seconds) if watched else ())),
        tables=(done.table(), *((done.proof.table(),) if done.proof else ()), *task.tables, *(t for m in more for t in m.tables),
                *((log.table(),) if watched else ())),
        maps=(trained_sizes(task, config)[1], *task.maps),
        curves=(done.curve(), *(c for m in more for c in m.curves), *log.curves()),
        inputs=(task.source.ref(config.model), *task.inputs), data=data,
        caveats=("a falling training loss says that the examples were learnt, not that the model is better",
                 *diverged(done.losses, task.anatomy.sizes.vocab), *(done.proof.caveats if done.proof else ()),
                 *task.caveats, *(line for m in more for line in m.caveats), *done.notes),
    )  # fmt: skip


def rounds(read: int, there: int) -> str:
    """`80 of 6,442 examples read`, or `40 examples read 1.2 times round`."""
    return f"{read:,} of {there:,} examples read" if read < there else f"{there:,} examples read {read / there:.3g} times round"


def said(done: Trained, task: Task, model: str) -> tuple[str, ...]:
    """What the training did, in sentences."""
    first, last = done.ends()
    kept = done.proof.sentence if done.proof else ""
    return tuple(line for line in (
        f"{task.title} of {model}: {done.steps:,} steps, {rounds(done.read, done.examples)}.",
        f"{done.trainable:,} trained parameters, {done.trainable / done.total:.2%} of the model.", kept,
        f"Loss {first:.3f} in the first tenth of the steps, {last:.3f} in the last.") if line)
