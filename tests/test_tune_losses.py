"""Losses of held-out examples: equal to the formula, training undisturbed, differences with a verdict."""

from __future__ import annotations

import numpy as np
import pytest

from oracle import losses_oracle
from polygraft import stats
from polygraft.tune import losses
from polygraft.tune.losses import Losses
from tiny import FAMILIES

ROWS = [{"input_ids": [1, *range(5, 5 + n)], "labels": [-100, *(i if i % 3 else -100 for i in range(5, 5 + n))]} for n in (2, 7, 3, 12)]


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_formula_of_each_row_alone(tiny, family):
    import torch

    from polygraft.model import load

    model = load(tiny(family), dtype="float32").model
    model.train()
    state = torch.get_rng_state()
    read = losses.measure(model, ROWS, batch=3)
    assert torch.equal(torch.get_rng_state(), state) and model.training
    model.eval()
    for row, nats, tokens in zip(ROWS, read.nats, read.tokens, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([row["input_ids"]])).logits[0].double().numpy()
        wanted, n = losses_oracle.nats(logits, row["labels"])
        assert tokens == n and nats == pytest.approx(wanted, rel=1e-4)
    assert read.mean == pytest.approx(read.nats.sum() / read.tokens.sum())


def test_differences_of_planted_losses():
    """What rose is told from what fell and from noise; the value is the difference of all nats over all tokens."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 50, 80)
    before = Losses(tokens * rng.uniform(2, 3, 80), tokens)
    rose, fell = Losses(before.nats + 0.3 * tokens, tokens), Losses(before.nats - 0.3 * tokens, tokens)
    noise = Losses(before.nats + tokens * rng.normal(0, 0.3, 80), tokens)
    up, down, even, same = losses.differences([before] * 4, [rose, fell, noise, before])
    assert (up.verdict, down.verdict, even.verdict, same.verdict) == (stats.WORSE, stats.BETTER, stats.UNCLEAR, stats.UNCLEAR)
    assert up.value == pytest.approx(0.3) and up.low == pytest.approx(0.3) and (same.value, same.low, same.high) == (0, 0, 0)
    assert even.low < even.value < even.high and even.value == pytest.approx((noise.nats - before.nats).sum() / tokens.sum())
    told = losses.value(before)
    assert told.low < told.value < told.high and told.value == before.mean and told.n == 80


def test_one_example_proves_nothing():
    (only,) = losses.differences([Losses(np.array([9.0]), np.array([3]))], [Losses(np.array([3.0]), np.array([3]))])
    assert only.value == -2 and only.verdict == stats.UNCLEAR
