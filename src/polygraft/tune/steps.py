"""The steps of training: one verb a module, one trainer for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from polygraft.step import Step
from polygraft.tune.config import Around, Evaluated
from polygraft.tune.embeddings import embeddings_step
from polygraft.tune.examples import Generator
from polygraft.tune.lora import lora_step
from polygraft.tune.neurons import neurons_step
from polygraft.tune.partition import partition_step
from polygraft.tune.sft import sft_step
from polygraft.tune.slam import slam_step
from polygraft.watching import Watchers


def steps(generators: Mapping[str, Generator], watchers: Watchers, held: Evaluated) -> tuple[Step, ...]:
    """All steps of training, with the named generators that `data` may call, what scores while training, and the items of
    evaluations that must not be trained on."""
    around = Around(generators, watchers, held)
    made = (sft_step(around), lora_step(around), neurons_step(around), embeddings_step(around), slam_step(around))
    shared = tuple(replace(step, parallel=True, probes=True) for step in made)  # processes share a training (see `processes`)
    return *shared, partition_step(around)
