"""Selective tuning on every family: the gradient of a subset is the full gradient's, and what is written is what was trained."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest

from polygraft.anatomy import Anatomy
from polygraft.checkpoint import Checkpoint
from polygraft.model import load
from polygraft.selection import Selection
from polygraft.selectionfile import Entry, on
from polygraft.sources import resolve
from polygraft.tune.chosen import checked, choose
from polygraft.tune.hooks import Hook
from polygraft.tune.settings import Settings
from polygraft.tune.training import Work, train
from tiny import FAMILIES, VOCAB

ROWS = [{"prompt": f"{a}+{b}=", "completion": str(a + b)} for a in range(4) for b in range(5)]
KINDS = ("neurons", "up and down", "embedding", "heads")


def pick(kind: str, anatomy: Anatomy, checkpoint: Checkpoint) -> Selection:
    """10 % of the neurons of the last layer; up and down of one layer; embedding rows (and the head's); rows of q, k, v and o."""
    rng = np.random.default_rng(0)
    last = anatomy.layers - 1
    if kind == "neurons":
        count = sum(block.size for block in anatomy.neurons(last))
        found = [Entry(last, "ffn", "neuron", np.sort(rng.choice(count, max(2, count // 10), replace=False)))]
    elif kind == "up and down":
        roles = {part.role for part in anatomy.parts.values() if part.kind == "ffn"}
        up = "up" if roles.isdisjoint({"experts.up"}) else "experts.up"
        found = [Entry(0, "ffn", up, None), Entry(0, "ffn", up.replace("up", "down"), None)]
    elif kind == "embedding":
        rows = np.sort(rng.choice(VOCAB, 20, replace=False))
        found = [Entry(None, "embed", None, rows)]
        if any(part.label == "head" for part in anatomy.parts.values()):
            found.append(Entry(None, "head", None, rows))
    else:
        found = [Entry(last, "attn", role, np.arange(3, 7)) for role in "qkvo"]
    shapes = {key: t.shape for key, t in checkpoint.tensors.items()}
    return checked(on(found, anatomy, shapes), anatomy, checkpoint)


def logits_of(live):
    import torch

    return live.model(input_ids=torch.arange(4, 100).reshape(4, 24) % 60 + 4).logits


def backward(live):
    logits = logits_of(live)
    logits.float().log_softmax(-1)[..., 7].mean().backward()
    return logits


@pytest.fixture(scope="module")
def whole(tiny):
    """Of a family: the model, its files, its logits and every full gradient, read once."""
    known = {}

    def of(family):
        if family not in known:
            live = load(tiny(family), dtype="float32")
            plain = dataclasses.replace(live, model=copy.deepcopy(live.model))
            logits = backward(plain)
            known[family] = live, Checkpoint.open(tiny(family)), logits, {n: p.grad for n, p in plain.model.named_parameters()}
        return known[family]

    return of


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_subset_has_the_full_gradients_rows(whole, family, kind):
    import torch

    plain, checkpoint, before, gradients = whole(family)
    selection = pick(kind, plain.anatomy, checkpoint)
    live = dataclasses.replace(plain, model=copy.deepcopy(plain.model))
    chosen = choose(live, selection, checkpoint)
    assert torch.equal(before, backward(live)), "the forward pass is the plain model's"
    shapes = {key: t.shape for key, t in checkpoint.tensors.items()}
    assert chosen.trainable == selection.count(shapes) // (2 if twice(plain, selection) else 1)
    for graft in chosen.grafts.all:
        want = graft.place.take(gradients[graft.place.live])
        assert torch.allclose(graft.held.grad, want, rtol=1e-4, atol=1e-6 * float(want.abs().max() + 1)), graft.name
        assert float(want.abs().max()) > 0
    held = {id(g.held) for g in chosen.grafts.all}
    for name, parameter in live.model.named_parameters():
        if id(parameter) not in held and parameter.requires_grad:
            assert torch.allclose(parameter.grad, gradients[name], rtol=1e-4, atol=1e-6)
        elif id(parameter) not in held:
            assert parameter.grad is None


def twice(live, selection) -> bool:
    """Whether the files keep a tied embedding as two tensors, and both are selected."""
    return live.anatomy.tied and sum(live.anatomy.parts[k].label in ("embed", "head") for k in selection.rows) == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_trained_written_proved_and_reloaded(tiny, tmp_path, family):
    """Neurons of one layer, up and down of another and rows of the embedding, in one training of two steps."""
    import torch

    base = resolve(tiny(family))
    anatomy = Anatomy.of(base.checkpoint.config, base.checkpoint.tensors)
    one, two, three = (pick(kind, anatomy, base.checkpoint) for kind in KINDS[:3])
    selection = one | two | three
    settings = Settings(method="full", steps=2, batch=2, lr=1e-2, length=32, save_every=0, device="cpu", weight_decay=0.1)
    seen = {}

    class Keep(Hook):
        def start(self, live, chosen):
            seen["live"] = live

    done = train(Work(base, ROWS, settings, selection, hooks=(Keep(),)), tmp_path)
    shapes = {k: t.shape for k, t in base.checkpoint.tensors.items()}
    assert done.proof.selected == selection.count(shapes) and done.proof.changed > 0.9 * done.proof.selected
    assert done.proof.moved == len(selection)
    live, trained = load(done.path, dtype="float32"), seen["live"]
    trained.model.eval()
    with torch.no_grad():
        assert torch.equal(logits_of(live), logits_of(trained))
