"""Selective tuning on every family: the gradient of a subset is the full gradient's, and what is written is what was trained."""

from __future__ import annotations

import numpy as np
import pytest

from polygraft.anatomy import Anatomy
from polygraft.checkpoint import Checkpoint
from polygraft.selection import Selection
from polygraft.selections import Entry, on
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


def opened(path, dtype="float32"):
    from polygraft.model import load

    return load(path, dtype=dtype), Checkpoint.open(path)


def logits_of(live):
    import torch

    return live.model(input_ids=torch.arange(4, 100).reshape(4, 24) % 60 + 4).logits


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_subset_has_the_full_gradients_rows(tiny, family, kind):
    import torch

    from polygraft.model import inside

    path = tiny(family)
    plain, checkpoint = opened(path)
    selection = pick(kind, plain.anatomy, checkpoint)
    live, _ = opened(path)
    chosen = choose(live, selection, checkpoint)
    before, after = logits_of(plain), logits_of(live)
    assert torch.equal(before, after), "the forward pass is the plain model's"
    for logits in (before, after):
        logits.float().log_softmax(-1)[..., 7].mean().backward()
    shapes = {key: t.shape for key, t in checkpoint.tensors.items()}
    assert chosen.trainable == selection.count(shapes) // (2 if twice(plain, selection) else 1)
    for graft in chosen.grafts.all:
        full = plain.model.get_parameter(graft.place.live).grad
        want = inside(plain.anatomy, graft.place.key, full)
        want = want if graft.place.rows is None else want.index_select(graft.place.axis, graft.place.rows)
        assert torch.allclose(graft.held.grad, want, rtol=1e-4, atol=1e-6 * float(want.abs().max() + 1)), graft.name
        assert float(want.abs().max()) > 0
    held = {id(g.held) for g in chosen.grafts.all}
    for name, parameter in live.model.named_parameters():
        if id(parameter) not in held and parameter.requires_grad:
            assert torch.allclose(parameter.grad, plain.model.get_parameter(name).grad, rtol=1e-4, atol=1e-6)
        elif id(parameter) not in held:
            assert parameter.grad is None


def twice(live, selection) -> bool:
    """Whether the files keep a tied embedding as two tensors, and both are selected."""
    return live.anatomy.tied and sum(live.anatomy.parts[k].label in ("embed", "head") for k in selection.rows) == 2


@pytest.mark.parametrize("kind", KINDS[:3])
@pytest.mark.parametrize("family", FAMILIES)
def test_trained_written_proved_and_reloaded(tiny, tmp_path, family, kind):
    import torch

    base = resolve(tiny(family))
    selection = pick(kind, Anatomy.of(base.checkpoint.config, base.checkpoint.tensors), base.checkpoint)
    settings = Settings(method="full", steps=2, batch=2, lr=1e-2, length=32, save_every=0, device="cpu", weight_decay=0.1)
    seen = {}

    class Keep(Hook):
        def start(self, live, chosen):
            seen["live"] = live

    done = train(Work(base, ROWS, settings, selection, hooks=(Keep(),)), tmp_path)
    shapes = {k: t.shape for k, t in base.checkpoint.tensors.items()}
    assert done.proof.selected == selection.count(shapes) and done.proof.changed > 0.5 * done.proof.selected
    assert done.proof.moved == len(selection)
    live, _ = opened(done.path)
    trained = seen["live"]
    trained.model.eval()
    with torch.no_grad():
        assert torch.equal(logits_of(live), logits_of(trained))
