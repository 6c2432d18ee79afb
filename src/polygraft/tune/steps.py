"""The steps of training: one verb a module, one trainer for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from polygraft.step import Step
from polygraft.tune.config import Around
from polygraft.tune.examples import Generator
from polygraft.tune.neurons import neurons_step
from polygraft.tune.sft import sft_step
from polygraft.tune.slam import slam_step
from polygraft.watching import Watchers


def steps(generators: Mapping[str, Generator], watchers: Watchers) -> tuple[Step, ...]:
    """All steps of training, with the named generators that `data` may call, and what scores while training."""
    around = Around(generators, watchers)
    made = (sft_step(around), neurons_step(around), slam_step(around))
    return tuple(replace(step, parallel=True) for step in made)  # processes share a training (see `processes`)
