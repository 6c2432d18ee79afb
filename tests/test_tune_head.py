"""The loss at the head on a CPU: against TRL's function and float64, with caps, scales, biases, masks and unequal weights."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polygraft.tune import head


def values(n, width, vocab, seed, bias, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    hidden, weight = torch.randn(n, width, generator=g), torch.randn(vocab, width, generator=g)
    b = torch.randn(vocab, generator=g) if bias else None
    labels = torch.randint(vocab, (n,), generator=g)
    return [x if x is None else x.to(dtype).requires_grad_() for x in (hidden, weight, b)], labels


def reference(tensors, labels, coefficients, scale, cap):
    """sum(c * log p(label)) in float64, by autograd over whole logits."""
    h, w, b = (None if x is None else x.detach().double().requires_grad_() for x in tensors)
    logits = (h @ w.T + (0 if b is None else b)) * scale
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    logp = logits.log_softmax(1)
    picked = logp.gather(1, labels[:, None])[:, 0]
    (picked * coefficients).sum().backward()
    return picked, -(logp.exp() * logp).sum(1), logits.argmax(1) == labels, [None if x is None else x.grad for x in (h, w, b)]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9), st.integers(1, 5), st.integers(2, 11), st.booleans(), st.sampled_from([None, 3.0]),
       st.sampled_from([1.0, 0.25]), st.booleans(), st.integers(1, 40), st.integers(0, 99))  # fmt: skip
def test_log_probabilities_and_gradients_equal_the_formula(n, width, vocab, bias, cap, scale, equal, chunk, seed):
    tensors, labels = values(n, width, vocab, seed, bias)
    coefficients = torch.full((n,), 0.5) if equal else torch.linspace(-1, 2, n)
    before, head.CHUNK = head.CHUNK, chunk  # so that chunks are a few rows
    try:
        found = head._function().apply(*tensors, labels, scale, cap, True)
        (found[0] * coefficients).sum().backward()
    finally:
        head.CHUNK = before
    logp, entropy, top, grads = reference(tensors, labels, coefficients, scale, cap)
    torch.testing.assert_close(found[0].double(), logp, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[1].double(), entropy, rtol=1e-4, atol=1e-5)
    assert (found[2] == top).all()
    for mine, theirs in zip((t.grad if t is not None else None for t in tensors), grads, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            torch.testing.assert_close(mine.double(), theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("cap", [None, 2.0])
@pytest.mark.parametrize("frozen", [False, True])
def test_within_it_trl_s_head_gives_the_same_and_skips_what_has_no_label(cap, frozen):
    from trl.trainer import utils

    (hidden, weight, _), _ = values(12, 4, 9, 1, False)
    labels = torch.tensor([[-100, 1, -100, 3, 4, 5, -100], [-100, -100, -100, 8, 0, -100, 2]])
    flat, mask = labels[:, 1:].reshape(-1), labels[:, 1:].reshape(-1) != -100
    told = []
    for ours in (False, True):
        h, w = hidden.detach().clone().requires_grad_(), weight.detach().clone().requires_grad_(not frozen)
        theirs = utils._ChunkedLogProbFunction
        if ours:
            with head.in_place_of_trl(labels):
                out = utils._ChunkedLogProbFunction.apply(h, w, None, flat.clamp(min=0), 1.0, 4, cap, 0.5, ("entropy", "is_top1"))
            assert utils._ChunkedLogProbFunction is theirs
        else:
            out = theirs.apply(h, w, None, flat.clamp(min=0), 1.0, 4, cap, 0.5, ("log_probs", "entropy", "is_top1"))
        kept = [torch.where(mask, x, torch.zeros_like(x)) for x in (out[0], out[1], out[4])]
        (kept[0].sum() / 3).backward()
        told.append([*kept, h.grad, w.grad])
    for a, b in zip(*told, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b)


def test_a_batch_without_labels_has_a_zero_that_can_go_backward():
    from trl.trainer import utils

    (hidden, weight, _), _ = values(4, 3, 7, 2, False)
    with head.in_place_of_trl(torch.full((2, 3), -100)):
        out = utils._ChunkedLogProbFunction.apply(hidden, weight, None, torch.zeros(4, dtype=torch.int64), 1.0, 4, None, 1.0, ())
    out[0].sum().backward()
    assert not hidden.grad.any() and not weight.grad.any()


def test_bfloat16_by_autocast_stays_near_float32():
    tensors, labels = values(6, 8, 20, 3, True)
    with torch.autocast("cpu", torch.bfloat16):
        found = head._function().apply(*tensors, labels, 1.0, None, True)
    found[0].sum().backward()
    logp, *_, grads = reference(tensors, labels, torch.ones(6), 1.0, None)
    torch.testing.assert_close(found[0].double(), logp, rtol=0.05, atol=0.1)
    torch.testing.assert_close(tensors[0].grad.double(), grads[0], rtol=0.1, atol=0.1)
