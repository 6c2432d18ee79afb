"""Nats per parallel sentence: what the same content costs in each language, whatever the tokenizer.

Bits per byte compare models within a language; bytes per character differ 1 to 4 times between scripts. The sentences of a
parallel corpus say the same, so nats a sentence compare across languages too. Whole documents are resampled, since sentences of
one text resemble each other.
"""

from __future__ import annotations

from polygraft.evals.metrics.base import Metric
from polygraft.evals.metrics.likelihood import gold_nats

METRICS = (
    Metric("nats per sentence", "nats", "all nats over all sentences of a parallel corpus, lower is better; comparable across "
           "tokenizers and languages; bootstrap intervals over documents", gold_nats, higher_is_better=False, group="sum"),
)
