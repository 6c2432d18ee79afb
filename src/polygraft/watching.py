"""Scores that are taken while a model is trained: what is asked for, what is read, and the trainer's callback that reads it.

Nothing here knows how a score is made: a `Watcher` does (`polygraft.evals.callback` has one), so that training and evaluation
need not know each other.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field

from polygraft.config import Strict
from polygraft.errors import UserError
from polygraft.result import Curve, Estimate, Table
from polygraft.step import Context, DataRef


class Watch(Strict):
    """What is scored while a model is trained, how often, and what the scores decide."""

    tasks: tuple[str, ...] = Field(default=(), description="tasks and suites to score while training, such as blimp:en")
    langs: tuple[str, ...] = Field(default=("en",), description="languages of these tasks")
    corpora: dict[str, DataRef] = Field(default_factory=dict, description="texts whose bits per byte are measured, by language",
                                        json_schema_extra={"metavar": "LANG=PATH"})
    data: DataRef | None = Field(default=None, description="folder with the tasks' files")
    every: int = Field(default=200, ge=1, description="optimiser steps between two checks; the untrained model is checked first")
    items: int = Field(default=200, ge=1, description="items in a check, shared by all tasks and languages, always the same")
    shots: int | None = Field(default=None, ge=0, description="worked examples before each item (default: as each task says)")
    chat: bool = Field(default=False, description="ask through the model's chat template")
    time_budget: str | None = Field(
        default=None, description="time for all checks together, such as 10m: where the first check shows that they would take "
        "more, the next ones come less often")
    criteria: DataRef | None = Field(
        default=None, description="criteria.yaml: training stops when a `must` fails; losses are counted from step 0")
    best: str | None = Field(
        default=None, description="TASK/LANGUAGE/METRIC: keep the weights of the step with the best value of it")

    @property
    def wanted(self) -> bool:
        return bool(self.tasks or self.corpora)


@dataclass(frozen=True)
class Reading:
    """One check. scores: estimates by `task/language/metric`; better: the value of `Watch.best`, signed so that more is better;
    failed: why training should stop."""

    step: int
    seconds: float
    scores: dict[str, Estimate]
    better: float | None = None
    failed: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Reading:
        scores = {name: Estimate(**e) for name, e in row["scores"].items()}
        return cls(row["step"], row["seconds"], scores, row["better"], tuple(row["failed"]))


class Watcher(Protocol):
    """Scores a model that is being trained, always on the same items. `job` is set to the digest of what decides the training."""

    job: str

    def read(self, model: Any, tokenizer: Any, step: int) -> Reading: ...


@dataclass(frozen=True)
class Watchers:
    """Where watchers come from. faults: what is wrong with a watch, told before training; make: a watcher for one training, whose
    folder may keep what a resumed training needs; seconds: the length of `10m`."""

    faults: Callable[[Watch, Context], Sequence[UserError]]
    make: Callable[[Watch, Context, Path], Watcher]
    seconds: Callable[[str], float]


@dataclass
class Log:
    """Every reading of one training, in order."""

    every: int
    budget: float | None = None
    readings: list[Reading] = field(default_factory=list)
    note: str = ""
    chosen: str = "the best value watched for"  # why the best reading's weights are kept

    def due(self, step: int, last: int) -> bool:
        """Whether a check belongs after this step: every so many, and at the end."""
        return not any(r.step == step for r in self.readings) and (step % self.every == 0 or step == last)

    def spread(self, last: int) -> None:
        """After the first check: check less often where its time says that the budget would not do. One check is always made at
        the end."""
        if self.budget is None or not self.readings:
            return
        cost = max(self.readings[0].seconds, 1e-3)
        checks = max(1, int(self.budget / cost) - 1)
        if (wide := -(-last // checks)) > self.every:
            self.note = f"checked every {wide} steps instead of {self.every}, to keep to the time budget"
            self.every = wide

    def add(self, reading: Reading) -> bool:
        """Keep a reading; True when it is the best of those that are known."""
        known = [r.better for r in self.readings if r.better is not None]
        self.readings.append(reading)
        return reading.better is not None and all(reading.better > b for b in known)

    @property
    def best(self) -> Reading | None:
        """The earliest of the best readings."""
        rated = [r for r in self.readings if r.better is not None]
        return max(rated, key=lambda r: (r.better, -r.step)) if rated else None

    @property
    def seconds(self) -> float:
        return sum(r.seconds for r in self.readings)

    def to_json(self) -> dict[str, Any]:
        return {"every": self.every, "note": self.note, "readings": [r.to_json() for r in self.readings]}

    def take(self, row: Mapping[str, Any]) -> None:
        """Go on from what a training state kept."""
        self.every, self.note = row["every"], row["note"]
        self.readings = [Reading.from_json(r) for r in row["readings"]]

    def curves(self) -> tuple[Curve, ...]:
        """One chart for every task and metric, languages as series."""
        charts: dict[tuple[str, str], dict[str, tuple[float | None, ...]]] = {}
        units: dict[tuple[str, str], str] = {}
        for name, first in self.readings[0].scores.items() if self.readings else ():
            task, language, metric = name.split("/", 2)
            found = tuple(r.scores[name].value if name in r.scores else None for r in self.readings)
            charts.setdefault((task, metric), {})[language] = found
            units[task, metric] = first.unit
        x = tuple(float(r.step) for r in self.readings)
        return tuple(Curve(f"{task}: {metric} while training", x, series, "step", units[task, metric])
                     for (task, metric), series in charts.items())

    def table(self) -> Table:
        """The first, the best and the last reading of every score."""
        steps = list(dict.fromkeys(r.step for r in (self.readings[0], self.best or self.readings[-1], self.readings[-1])))
        shown = [next(r for r in self.readings if r.step == s) for s in steps]
        rows = tuple((name, *(r.scores.get(name) for r in shown)) for name in self.readings[0].scores)
        return Table("Watched scores", ("score", *(f"step {s}" for s in steps)), rows,
                     f"{len(self.readings)} checks of the same items; 95 % intervals of single scores, not of differences")


@contextlib.contextmanager
def undisturbed(model: Any) -> Iterator[None]:
    """Whatever is done inside, training goes on as if it had not been: modes of modules and random numbers are put back."""
    import numpy as np
    import torch

    modes = [(m, m.training) for m in model.modules()]
    python, numbers = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)
        for module, mode in modes:
            module.training = mode


def trainer_callback(watcher: Watcher, log: Log, tokenizer: Any = None, keep: Callable[[int], None] | None = None) -> Any:
    """A transformers TrainerCallback that reads at the start, every `log.every` steps and at the end.

    Values go into the trainer's log (`watch/task/language/metric`), failed criteria stop the training, and `keep(step)` is called
    at each new best (without `keep`, the trainer is asked to save a checkpoint). tokenizer: for a trainer without
    `processing_class`.
    """
    from transformers import TrainerCallback

    class Watching(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **found: Any) -> None:
            if not log.readings:
                self._read(state, control, found)
                log.spread(state.max_steps)

        def on_step_end(self, args: Any, state: Any, control: Any, **found: Any) -> None:
            if log.due(state.global_step, state.max_steps):
                self._read(state, control, found)

        def _read(self, state: Any, control: Any, found: Mapping[str, Any]) -> None:
            begun = time.monotonic()
            model, words = found["model"], found.get("processing_class") or tokenizer
            with undisturbed(model):
                reading = watcher.read(model, words, state.global_step)
            seconds = reading.seconds or round(time.monotonic() - begun, 3)
            reading = Reading(reading.step, seconds, reading.scores, reading.better, reading.failed)
            values = {f"watch/{name}": e.value for name, e in reading.scores.items()}
            state.log_history.append({**values, "watch/seconds": reading.seconds, "step": state.global_step})
            if log.add(reading):
                if keep is not None:
                    keep(state.global_step)
                elif state.global_step:
                    control.should_save = True
            if reading.failed and state.global_step:
                control.should_training_stop = True

    return Watching()


def told(log: Log, trained: int, planned: int, training_seconds: float) -> tuple[str, ...]:
    """What the checks did, in sentences."""
    share = log.seconds / max(training_seconds, 1e-9)
    out = [f"Watched in {len(log.readings)} checks, {log.seconds:.0f} s: {share:.1%} on top of the training's own time."]
    out += [log.note[0].upper() + log.note[1:] + "."] if log.note else []
    if log.readings[-1].failed and trained < planned:
        out.append(f"Stopped at step {trained} of {planned}: {'; '.join(log.readings[-1].failed)}.")
    if (best := log.best) is not None:
        out.append(f"The weights of step {best.step} were kept: {log.chosen}.")
    return tuple(out)
