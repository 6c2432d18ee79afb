"""`tune neurons`: train the rows of gate and up and the columns of down of chosen FFN neurons, and nothing else.

Sparse subnetwork enhancement (arXiv 2510.13580) trains language neurons so on text of their language.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from pydantic import Field

from polygraft import selections
from polygraft.result import Result
from polygraft.step import Context, Plan, SelectRef, Step
from polygraft.tune.config import Around, Training, gather
from polygraft.tune.running import Task, plan_task, run_task


class Neurons(Training):
    """Train chosen FFN neurons: their rows of gate and up, their columns of down. All other weights stay byte for byte."""

    select: SelectRef = Field(description="the neurons: ID_OR_FILE[:NAME[+NAME]], such as the selection.json of analyze neurons")


def task(config: Neurons, context: Context, around: Around) -> Task:
    """The examples, and the neurons' rows and columns in this model."""
    rows, inputs = gather(config, context, around)
    made = Task(context.model(config.model), rows, inputs, "Neuron tuning")
    shapes = {key: t.shape for key, t in made.checkpoint.tensors.items()}
    entries = selections.pick(config.select, context.folder)
    return replace(made, selection=selections.on(entries, made.anatomy, shapes))


def plan(config: Neurons, context: Context, around: Around) -> Plan:
    return plan_task(task(config, context, around), config, context, around)


def run(config: Neurons, context: Context, folder: Path, around: Around) -> Result:
    return replace(run_task(task(config, context, around), config, context, folder, around), step="tune.neurons")


def neurons_step(around: Around) -> Step:
    return Step("tune.neurons", 1, Neurons, partial(plan, around=around), partial(run, around=around),
                makes_model=True, resumable=True)  # fmt: skip
