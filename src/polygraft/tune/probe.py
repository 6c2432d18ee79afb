"""A training foretold from a few of its own steps: the real model, the real examples, on this machine; nothing is kept.

Steps differ in the tokens that they hold, so the heaviest, the lightest and a middling one are run, after one that is not counted,
which makes the optimiser's state. Seconds are a line in the padded tokens of a step; the peak is that of the heaviest step. Where
the steps of two sides take turns, each moves other weights, and so each side's own steps are run and make a line of their own.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polygraft import ranks
from polygraft.meter import measured
from polygraft.ranks import Ranks
from polygraft.tune.hooks import Hook

if TYPE_CHECKING:
    from polygraft.model import Live
    from polygraft.tune.chosen import Chosen
    from polygraft.tune.sides import Sides
    from polygraft.tune.training import Work

STEPS = 4  # that `chosen_steps` gives
DISK = 200e6  # bytes a second that are written with their digest and read back, on a modest disk


@dataclass(frozen=True)
class Probe:
    """What a few steps showed. `steps`: padded tokens of every step of the training, `tokens`: all of them without padding;
    `loading`: seconds before the first step; `training`: of all optimiser steps; `peak`: resident bytes, `device`: bytes on a
    GPU."""

    loading: float
    training: float
    steps: tuple[int, ...]
    tokens: int
    peak: int
    device: int = 0

    def seconds(self, written: int) -> float:
        """Seconds of the whole, where so many bytes are written on the way and at the end."""
        return self.loading + self.training + written / DISK


def probe(work: Work) -> Probe:
    """Run four steps of a training (of each side), three of which are timed. Raises as training does. No tracker hears of it."""
    from polygraft.model import device_for

    with ranks.joined(ranks.device(device_for(work.settings.device))) as here, measured() as meter:
        found = _probe(replace(work, watched=None, settings=replace(work.settings, save_every=0, report_to="none")), here)
    return replace(found, peak=meter.cost.peak_bytes)


def _probe(work: Work, here: Ranks) -> Probe:
    import torch

    from polygraft.model import quiet
    from polygraft.tune import training

    begun, stamps = time.monotonic(), list[float]()
    ready = training.prepared(work)
    lengths = [len(ids) for ids in ready.data["input_ids"]]
    passes, each = work.settings.batch, work.settings.batch * work.settings.accumulate
    steps = padded(lengths, passes, work.settings.accumulate, work.settings.packing)
    own = turns(work.sides, len(steps))
    picked = [mine[i] for mine in own for i in chosen_steps([steps[j] for j in mine])]
    rows = [row for step in picked for row in range(step * each, (step + 1) * each)]
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with quiet(), tempfile.TemporaryDirectory(prefix="polygraft-") as scratch:
        some = replace(ready, data=ready.data.select(rows), steps=len(picked))
        work = replace(work, hooks=tuple(At(hook, picked) for hook in work.hooks if not hook.reads))
        trainer = training.trainer_for(work, some, Path(scratch), lambda *_: stamps.append(time.monotonic()), here)
        loading = time.monotonic() - begun
        trainer.train()
    device = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    taken, seconds = [0.0, *(b - a for a, b in pairwise(stamps))], 0.0
    for at, mine in zip(range(1, len(picked), STEPS), own, strict=True):  # a side's first step makes its optimiser's state
        fixed, rate = line([steps[i] for i in picked[at : at + STEPS - 1]], taken[at : at + STEPS - 1])
        seconds += fixed * len(mine) + rate * sum(steps[i] for i in mine)
    return Probe(loading, seconds, tuple(steps), sum(lengths), 0, device)


def turns(sides: Sides | None, steps: int) -> list[list[int]]:
    """The steps that each side moves its own weights in; all of them where nothing takes turns."""
    every = range(steps)
    if sides is None or not sides.parts:
        return [list(every)]
    own = [[step for step in every if sides.turn(step) == side] for side in range(len(sides.counts))]
    return [mine for mine in own if mine]


class At(Hook):
    """A hook in a training of which only some steps are run: before each it is told which step of the whole it is. What it adds to
    the loss it adds as in the first steps, which are all different ones."""

    def __init__(self, hook: Hook, steps: Sequence[int]):
        self.hook, self.steps = hook, steps

    def start(self, live: Live, chosen: Chosen | None) -> None:
        self.hook.start(live, chosen)

    def before(self, step: int) -> None:
        self.hook.before(self.steps[step])

    def loss(self, model: Any, step: int) -> Any:
        return self.hook.loss(model, step)


def padded(lengths: Sequence[int], batch: int, accumulate: int, packing: bool) -> list[int]:
    """Tokens of each optimiser step as the model sees them: a pass is as long as its longest row (packed rows lie end to end)."""
    passes = [lengths[i : i + batch] for i in range(0, len(lengths), batch)]
    tokens = [sum(p) if packing else max(p) * len(p) for p in passes]
    return [sum(tokens[i : i + accumulate]) for i in range(0, len(tokens), accumulate)]


def chosen_steps(tokens: Sequence[int]) -> list[int]:
    """The steps to run: a middling one to warm up, the heaviest, the lightest, the middling one again."""
    order = sorted(range(len(tokens)), key=lambda i: (tokens[i], i))
    middle = order[len(order) // 2]
    return [middle, order[-1], order[0], middle]


def line(tokens: Sequence[int], seconds: Sequence[float]) -> tuple[float, float]:
    """Least squares of seconds = fixed + rate x tokens with neither below zero; proportional where all steps are about as long."""
    n, mean_x, mean_y = len(tokens), sum(tokens) / len(tokens), sum(seconds) / len(seconds)
    spread = sum((x - mean_x) ** 2 for x in tokens)
    if spread < n * (0.1 * mean_x) ** 2:
        return 0.0, mean_y / mean_x
    rate = sum((x - mean_x) * (y - mean_y) for x, y in zip(tokens, seconds)) / spread
    fixed = mean_y - rate * mean_x
    if rate <= 0:
        return mean_y, 0.0
    if fixed < 0:
        return 0.0, sum(x * y for x, y in zip(tokens, seconds)) / sum(x * x for x in tokens)
    return fixed, rate


def said(found: Probe) -> tuple[str, ...]:
    """What was measured, in sentences."""
    speed = found.tokens / found.training
    lines = [f"measured: {found.training / len(found.steps):.2f} s a step, {speed:,.0f} tokens a second, "
             f"{found.loading:.0f} s before the first step"]
    return (*lines, *([f"GPU memory {found.device / 2**30:.1f} GiB"] if found.device else []))

