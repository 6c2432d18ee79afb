"""KL to the start model: the formula, its gradient, zero before the first step, exact with every way of training, resumed exactly."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from oracle import losses_oracle
from polygraft.errors import InputError
from polygraft.selection import Selection
from polygraft.sources import resolve
from polygraft.tune.kl import StartKL, divergence
from polygraft.tune.settings import Settings
from polygraft.tune.training import STATE, Work, train

TEXT = [{"text": f"the {a} of the {b} is not to be forgotten"} for a in ("cat", "house", "river") for b in ("man", "sea", "old king")]
ROWS = [{"prompt": f"{a}+{b}=", "completion": str(a + b)} for a in range(4) for b in range(5)]
FULL = Settings(method="full", steps=6, batch=4, lr=3e-3, save_every=2, length=32, device="cpu")
LORA = dataclasses.replace(FULL, method="lora", r=4, lr=1e-2)


def hook(weight=1.0, settings=FULL, **options):
    return StartKL(weight, TEXT, settings, count=3, length=16, **options)


def test_divergence_equals_the_formula():
    import torch

    generator = np.random.default_rng(1)
    start, now, mask = generator.normal(0, 3, (2, 5, 7)), generator.normal(0, 3, (2, 5, 7)), np.array([[1] * 5, [1, 1, 0, 0, 0]])
    found = divergence(*(torch.tensor(x) for x in (start, now, mask))).item()
    assert found == pytest.approx(losses_oracle.kl(start, now, mask), rel=1e-5)
    assert divergence(torch.tensor(start), torch.tensor(start), torch.tensor(mask)).item() == 0


def test_gradient_by_finite_differences():
    import torch

    start, now = (torch.randn(1, 3, 5, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    mask, bump = torch.tensor([[1, 1, 0]]), torch.zeros(1, 3, 5)
    now.requires_grad_(True)
    divergence(start, now, mask).backward()
    for place in [(0, 0, 1), (0, 1, 4), (0, 2, 2)]:
        bump.zero_()[place] = 1e-3
        both = [losses_oracle.kl(start.numpy(), (now.detach() + s * bump).numpy(), mask.numpy()) for s in (1, -1)]
        assert now.grad[place].item() == pytest.approx((both[0] - both[1]) / 2e-3, abs=1e-4)
