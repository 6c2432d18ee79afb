"""The steps of vocabularies."""

from __future__ import annotations

from polygraft.step import Step
from polygraft.vocab.around import Around
from polygraft.vocab.metrics.steps import STEPS as METRICS


def steps(around: Around) -> tuple[Step, ...]:
    """All of them; `around` is what training and evaluation do for them."""
    return (*METRICS,)
