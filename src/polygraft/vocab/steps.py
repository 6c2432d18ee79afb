"""The steps of vocabularies."""

from __future__ import annotations

from polygraft.step import Step
from polygraft.vocab.around import Around
from polygraft.vocab.assess.steps import STEPS as ASSESS
from polygraft.vocab.calibrate import calibrate_step
from polygraft.vocab.gate import gate_step
from polygraft.vocab.init.steps import init_step
from polygraft.vocab.metrics.steps import STEPS as METRICS
from polygraft.vocab.propagation.steps import STEPS as PROPAGATE
from polygraft.vocab.tokenizer.steps import STEPS as TOKENIZERS
from polygraft.vocab.trim import STEP as TRIM


def steps(around: Around) -> tuple[Step, ...]:
    """All of them; `around` is what training and evaluation do for them."""
    return (*METRICS, *ASSESS, *TOKENIZERS, TRIM, init_step(around), *PROPAGATE, calibrate_step(around), gate_step(around))
