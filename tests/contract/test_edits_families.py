"""Edits do in every family what their definition says: against activation modules put in by hand, and against edited weights."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

import tiny as make
from oracle import edits_oracle
from polygraft import addresses, model, taps
from polygraft.edits import Edit, Edits, applied, told

DENSE = [f for f in make.FAMILIES if f not in make.MOE]
IDS = torch.randint(4, 260, (2, 11), generator=torch.Generator().manual_seed(3))


LOADED: dict[str, model.Live] = {}  # by family; never run, only copied


def live_of(tiny, family, dtype="float32"):
    """A copy of its own of the family's model, so that a test may change it."""
    if family not in LOADED:
        LOADED[family] = model.load(tiny(family, layers=3))
        if family in make.MOE:
            LOADED[family].model.set_experts_implementation("eager")  # the grouped kernels do not compute in float64
    return replace(LOADED[family], model=copy.deepcopy(LOADED[family].model).to(getattr(torch, dtype)))


def width(live, layer=0):
    return sum(block.size for block in addresses.neurons(live.anatomy, layer))


def logits(live, **more):
    with torch.inference_mode():
        return live.model(input_ids=IDS, **more).logits


def some(live, op, seed=0, share=0.5):
    """Random neurons of layers 0 and 2 with random values."""
    rng = np.random.default_rng(seed)
    out = []
    for layer in (0, 2):
        rows = np.flatnonzero(rng.random(width(live, layer)) < share)
        out.append(Edit("act", layer, op, rows, rng.normal(size=len(rows))))
    return Edits(tuple(out))


@pytest.mark.parametrize("family", DENSE)
def test_neurons_are_edited_as_if_the_activation_module_did_it(tiny, family):
    live = live_of(tiny, family, "float64")
    work = some(live, "set") + some(live, "scale", 1) + some(live, "add", 2) + some(live, "atleast", 3)
    with applied(live, work) as run:
        ours = logits(live)
    assert run.passes == 1 and run.tokens == IDS.numel()
    for layer in (0, 2):
        site, _ = taps._site(live.model, live.anatomy, "act", layer)
        owner = next(m for m in live.model.modules() if site in m.children())
        name = next(n for n, child in owner.named_children() if child is site)
        setattr(owner, name, edits_oracle.activation(site, [e for e in work.edits if e.layer == layer]))
    torch.testing.assert_close(ours, logits(live), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("op", ["set", "scale"])
@pytest.mark.parametrize("family", make.FAMILIES)
def test_to_silence_or_scale_neurons_is_to_scale_their_columns_on_the_way_out(tiny, family, op):
    live = live_of(tiny, family, "float64")
    work = some(live, op)
    if op == "set":
        work = Edits(tuple(Edit("act", e.layer, "set", e.rows, np.zeros(1)) for e in work.edits))
    before = logits(live)
    with applied(live, work):
        ours = logits(live)
    assert not torch.allclose(ours, before)
    for e in work.edits:
        blocks = addresses.neurons(live.anatomy, e.layer)
        for k, row in enumerate(e.rows):
            block, j = blocks[row // blocks[0].size], int(row % blocks[0].size)
            for at in block.down:
                model.rows(live.model, live.anatomy, at.at(j)).mul_(float(e.values[k]) if op == "scale" else 0.0)
    torch.testing.assert_close(ours, logits(live), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", make.FAMILIES)
def test_the_stream_is_edited_and_left_alone_afterwards(tiny, family):
    live = live_of(tiny, family, "float64")
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(make.HIDDEN, 3)))[0].T
    work = Edits((Edit("residual", 1, "add", None, np.arange(make.HIDDEN) / 20), Edit("residual", 1, "project", None, basis)))
    before = logits(live)
    with applied(live, work):
        ours = logits(live)
    module = taps.layer_module(live.model, live.anatomy, 1)
    plain = module.forward

    def forward(*args, **kwargs):
        out = plain(*args, **kwargs)
        first = out[0] if isinstance(out, tuple) else out
        wanted = torch.from_numpy(edits_oracle.edited(first.numpy(), work.edits))
        return (wanted, *out[1:]) if isinstance(out, tuple) else wanted

    module.forward = forward
    expected = logits(live)
    del module.forward
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6)  # the directions are float32, and so not quite orthonormal
    assert torch.equal(logits(live), before)


@pytest.mark.parametrize("family", make.FAMILIES)
def test_positions_hold_with_a_cache_and_without(tiny, family):
    """Greedy writing under edits of the prompt or of what was generated: with the cache as by whole passes under the mask."""
    live = live_of(tiny, family, "float64")
    for positions in ("prompt", "generated"):
        work = some(live, "add").at(positions)
        with applied(live, work), told(IDS.shape[1]), torch.inference_mode():
            out = live.model.generate(input_ids=IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=5, do_sample=False,
                                      pad_token_id=0, eos_token_id=None, output_logits=True, return_dict_in_generate=True)
        mask = (torch.arange(out.sequences.shape[1] - 1) >= IDS.shape[1]).expand(2, -1)
        with applied(live, work), told(mask), torch.inference_mode():
            whole = live.model(input_ids=out.sequences[:, :-1], use_cache=False).logits[:, IDS.shape[1] - 1:]
        torch.testing.assert_close(torch.stack(out.logits, 1), whole.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", make.FAMILIES)
def test_half_precision_is_near_double(tiny, family):
    edited, plain = [], []
    for dtype in ("bfloat16", "float64"):
        live = live_of(tiny, family, dtype)
        plain.append(logits(live).double())
        with applied(live, some(live, "set")):
            edited.append(logits(live).double())
    own = (plain[0] - plain[1]).abs().mean()
    assert (edited[0] - edited[1]).abs().mean() <= 3 * own + 1e-3  # no worse than bfloat16 itself
