"""Metrics of likelihood: what a right answer costs, and what a text costs a byte."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from polygraft.evals.items import Item, Response
from polygraft.evals.metrics.base import Metric, mean


def gold_nats(item: Item, response: Response) -> Sequence[float]:
    """(minus the log-likelihood of the right choice, 1)."""
    return (-response.nats[item.target], 1.0)


def text_nats(item: Item, response: Response) -> Sequence[float]:
    """(nats that a document cost, the UTF-8 bytes that they were spent on, from `extra`)."""
    return (-response.nats[0], float(item.extra["bytes"]))


def bits_per_byte(sums: np.ndarray) -> np.ndarray:
    """(nats, bytes) [..., 2] -> nats / (ln 2 x bytes) [...]; no bytes is 0."""
    return mean(sums) / math.log(2)


NATS = Metric("nats", "nats", "what the gold solution costs, in nats an item: the finer score, lower is better; bootstrap "
              "intervals over items", gold_nats, higher_is_better=False)
BITS = Metric("bits per byte", "bits/byte", "nats / (ln 2 x UTF-8 bytes), lower is better; compare within a language only; "
              "bootstrap intervals over documents", text_nats, bits_per_byte, higher_is_better=False, averages=False)
METRICS = (NATS, BITS)
