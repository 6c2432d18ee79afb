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


def neurons(anatomy, share=0.25):
    """Rows of gate and up and columns of down of some neurons."""
    rows = np.arange(0, int(anatomy.sizes.ffn * share))
    return dict.fromkeys((k for k, part in anatomy.parts.items() if part.kind == "ffn" and k.endswith("weight")), rows)


def selections(source):
    from polygraft.anatomy import Anatomy

    anatomy = Anatomy.of(source.checkpoint.config, source.checkpoint.tensors)
    rows = neurons(anatomy)
    axis = {key: 1 for key in rows if anatomy.parts[key].role == "down"}
    outs = [k for k, part in anatomy.parts.items() if part.label == "attn.o"]
    words = {k: np.arange(40, 90) for k, part in anatomy.parts.items() if part.kind in ("embed", "head")}
    return {"everything": None, "out": Selection(dict.fromkeys(outs)), "words": Selection(words), "neurons": Selection(rows, axis)}


DENSE = [(family, what) for family in ("llama", "gemma2") for what in ("everything", "out", "neurons", "words")]


@pytest.mark.parametrize(("family", "what"), [*DENSE, ("qwen3_moe", "everything"), ("qwen3_moe", "out"), ("qwen3_moe", "words")])
def test_equals_two_models(tiny, family, what):
    """Value and gradient are those that a frozen second model gives, and nothing of the trained one is touched."""
    import torch

    from polygraft.model import load
    from polygraft.tune.losses import padded
    from polygraft.tune.training import opened

    source = resolve(tiny(family))
    live, chosen = opened(Work(source, ROWS, FULL, selections(source)[what]))
    part = hook()
    part.start(live, chosen)
    assert part.loss(live.model, 0).item() == 0 and part.loss(live.model, 0) is None
    generator = torch.Generator().manual_seed(0)
    for parameter in part.trained:
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    chosen.grafts.sync()
    before = {name: p.detach().clone() for name, p in live.model.named_parameters()}
    live.model.train()
    found = part.loss(live.model, 1)
    found.backward()
    assert live.model.training and all(torch.equal(p, before[name]) for name, p in live.model.named_parameters())
    other = load(source, dtype="float32").model
    ids, mask, _ = padded([part.windows[i] for i in part.places(1)], "cpu")
    with torch.no_grad():
        start = other(input_ids=ids, attention_mask=mask).logits
    other.load_state_dict({k: v for k, v in live.model.state_dict().items() if k in other.state_dict()})
    now = other(input_ids=ids, attention_mask=mask).logits
    assert found.item() == pytest.approx(losses_oracle.kl(start.numpy(), now.detach().numpy(), mask.numpy()), rel=1e-4)
    divergence(start, now, mask).backward()
    pairs = [(p.grad, other.get_parameter(n).grad) for n, p in live.model.named_parameters() if p.requires_grad and "graft" not in n]
    pairs += [(g.held.grad, g.place.take(other.get_parameter(g.place.live).grad)) for g in chosen.grafts.all]
    assert len(pairs) == len(part.trained)
    for ours, theirs in pairs:
        scale = max(theirs.abs().max().item(), 1e-6) if theirs is not None else 1.0
        assert (ours is None and theirs is None) or (ours - theirs).abs().max().item() < 1e-4 * scale


def test_a_pending_graph_keeps_its_gradient(tiny):
    """The examples' forward pass came before the exchange, its backward pass comes after: the gradient is what it would be without."""
    import torch

    from polygraft.tune.training import opened

    source = resolve(tiny("llama"))
    ids, grads = torch.arange(4, 20)[None], []
    for with_kl in (False, True):
        live, chosen = opened(Work(source, ROWS, FULL, selections(source)["neurons"]))
        part = hook()
        part.start(live, chosen)
        for parameter in part.trained:
            parameter.data += 0.05
        chosen.grafts.sync()
        loss = live.model(input_ids=ids, labels=ids).loss
        if with_kl:
            part.loss(live.model, 0)
        loss.backward()
        grads.append([p.grad for p in part.trained])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def same(a, b):
    return all((b / f.name).read_bytes() == f.read_bytes() for f in a.glob("*.safetensors"))


class Cut(Exception):
    pass


def cut(done, total, text=""):
    if done == 3:
        raise Cut


@pytest.mark.parametrize("settings", [FULL, LORA, dataclasses.replace(FULL, dtype="bf16")], ids=["full", "lora", "bf16"])
def test_holds_back_and_resumes_exactly(tiny, tmp_path, settings):
    source, settings = resolve(tiny("llama")), dataclasses.replace(settings, steps=4)
    chosen = selections(source)["neurons"] if settings.dtype == "bf16" else None
    free, held = (hook(weight, settings) for weight in (0.0, 30.0))
    train(Work(source, ROWS, settings, chosen, hooks=(free,)), tmp_path / "free")
    whole = train(Work(source, ROWS, settings, chosen, hooks=(held,)), tmp_path / "a")
    assert free.values[0][1] == held.values[0][1] == 0 and held.values[-1][1] < 0.8 * free.values[-1][1]
    with pytest.raises(Cut):
        train(Work(source, ROWS, settings, chosen, hooks=(hook(30.0, settings),)), tmp_path / "b", cut)
    again = hook(30.0, settings)
    second = train(Work(source, ROWS, settings, chosen, hooks=(again,)), tmp_path / "b")
    assert second.resumed == 2 and same(whole.path, second.path) and again.values == held.values and second.losses == whole.losses
    assert not (tmp_path / "b" / STATE).exists()
    assert len(again.said().curves[0].x) == 4 and "30" in again.said().summary[0]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_added_once_however_a_step_is_divided(tiny, tmp_path, family):
    """The same examples in two passes of two and in one of four: the same weights within rounding. (gpt2 divides its own loss.)"""
    from polygraft.checkpoint import Checkpoint

    source = resolve(tiny(family, **({"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0} if family == "gpt2" else {})))
    rows = [{"prompt": f"{a}+{b}=", "completion": str(a + b)} for a in range(2, 6) for b in range(4)]  # answers of equal length
    found = []
    for batch, accumulate in ((4, 1), (2, 2)):
        settings = dataclasses.replace(FULL, steps=3, batch=batch, accumulate=accumulate, save_every=0, clip=1e9)
        done = train(Work(source, rows[:4], settings, hooks=(hook(5.0, settings),)), tmp_path / f"{batch}")
        made = Checkpoint.open(done.path)
        found.append(np.concatenate([made.f32(k) for k in made.tensors]))
    start = np.concatenate([source.checkpoint.f32(k) for k in source.checkpoint.tensors])
    assert np.abs(found[0] - start).max() > 1e-3
    assert np.abs(found[0] - found[1]).mean() < 0.01 * np.abs(found[0] - start).mean()  # a gradient of 0 has a sign, to AdamW


def test_every_so_many_steps_and_text_too_short(tiny, tmp_path):
    source = resolve(tiny("llama"))
    seldom = hook(every=4)
    train(Work(source, ROWS, FULL, hooks=(seldom,)), tmp_path)
    assert [step for step, _ in seldom.values] == [0, 4]
    n = len(seldom.windows)
    assert sorted([i for turn in range(n) for i in seldom.places(turn)][:n]) == list(range(n))
    with pytest.raises(InputError, match="long enough"):
        train(Work(source, ROWS, FULL, hooks=(StartKL(1.0, [{"text": "a"}], FULL),)), tmp_path / "short")
