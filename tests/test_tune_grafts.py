"""Rows and columns trained by themselves: the same weights as masked training of whole tensors, at the subset's cost."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oracle.adamw_oracle import adamw
from polygraft.checkpoint import Checkpoint
from polygraft.errors import RecipeError
from polygraft.model import inside, load
from polygraft.selection import Selection
from polygraft.selectionfile import Entry, on
from polygraft.sources import resolve
from polygraft.tune import state
from polygraft.tune.chosen import choose, everything
from polygraft.tune.hooks import Hook
from polygraft.tune.output import after
from polygraft.tune.packing import check_apart, mixed
from polygraft.tune.settings import Settings
from polygraft.tune.training import STATE, Work, train
from tiny import FAMILIES, FFN

ROWS = [{"prompt": f"{a}+{b}=", "completion": str(a + b)} for a in range(4) for b in range(5)]
FAST = Settings(method="full", steps=4, batch=4, lr=1e-2, save_every=0, length=32, device="cpu", weight_decay=0.1)
IDS = torch.randint(4, 260, (3, 4, 16), generator=torch.Generator().manual_seed(1))  # steps, examples, tokens


def shapes_of(checkpoint):
    return {key: t.shape for key, t in checkpoint.tensors.items()}


def neurons(live, checkpoint, share=0.25, layers=(0, 1), seed=0):
    """A selection of so many FFN neurons of each layer."""
    rng, count = np.random.default_rng(seed), max(1, round(share * FFN))
    found = [Entry(layer, "ffn", "neuron", np.sort(rng.choice(FFN, count, replace=False))) for layer in layers]
    return on(found, live.anatomy, shapes_of(checkpoint))


def loss_of(model, ids):
    logits = model(input_ids=ids).logits
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def mask_of(selection, key, shape):
    mask, rows = np.zeros(shape, bool), selection.rows[key]
    mask[... if rows is None else (slice(None),) * selection.axis.get(key, 0) + (rows,)] = True
    return mask


@pytest.fixture(scope="module")
def opened(tiny):
    return load(tiny("llama"), dtype="float32"), Checkpoint.open(tiny("llama"))


def fresh(live):
    return dataclasses.replace(live, model=copy.deepcopy(live.model))


# ---------------------------------------------------------------------------------------------------------------- exactness


@pytest.mark.parametrize(("lr", "clip"), [(1e-3, None), (1e-2, 0.5), (1e-1, None), (1e-1, 0.05)])
def test_steps_of_adamw_are_those_of_masked_whole_tensors(opened, lr, clip):
    """Three steps with weight decay, in float64: every trained element equals the formula's, every other one stays."""
    live, checkpoint = opened
    chosen_live, plain = fresh(live), fresh(live).model.double()
    selection = neurons(live, checkpoint)
    chosen = choose(chosen_live, selection, checkpoint)
    model = chosen_live.model.double()
    keys = list(selection.rows)
    names = [live.anatomy.live_name(key) for key in keys]
    step = iter(IDS)

    def gradients(weights):
        plain.zero_grad()
        with torch.no_grad():
            for name, value in zip(names, weights):
                plain.get_parameter(name).copy_(torch.from_numpy(value))
        loss_of(plain, next(step)).backward()
        return [plain.get_parameter(name).grad.numpy() for name in names]

    start = [plain.get_parameter(name).detach().numpy().copy() for name in names]
    rates = [lr, lr / 2, lr / 3]
    want = adamw(start, gradients, [mask_of(selection, k, w.shape) for k, w in zip(keys, start)], lr=rates, decay=0.1, clip=clip)
    held = [g.held for g in chosen.grafts.all]
    optimizer = torch.optim.AdamW(held, lr=lr, weight_decay=0.1)
    for ids, rate in zip(IDS, rates):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss_of(model, ids).backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(held, clip)
        optimizer.step()
        chosen.grafts.sync()
    for name, first, value in zip(names, start, want):
        found = model.get_parameter(name).detach().numpy()
        np.testing.assert_allclose(found, value, rtol=1e-9, atol=1e-12)
        assert (value != first).mean() > 0.2 and (found == first).any()


def test_torch_on_whole_tensors_gives_the_same(opened):
    """The same against torch's own AdamW on whole tensors, float32, with what is not selected put back after each step."""
    live, checkpoint = opened
    one, two = fresh(live), fresh(live)
    selection = neurons(live, checkpoint)
    chosen = choose(one, selection, checkpoint)
    keys = {key: live.anatomy.live_name(key) for key in selection.rows}
    masks = {key: torch.from_numpy(mask_of(selection, key, checkpoint.tensors[key].shape)) for key in keys}
    whole = {key: two.model.get_parameter(name) for key, name in keys.items()}
    first = {key: p.detach().clone() for key, p in whole.items()}
    ours = torch.optim.AdamW([g.held for g in chosen.grafts.all], lr=1e-2, weight_decay=0.1)
    theirs = torch.optim.AdamW(whole.values(), lr=1e-2, weight_decay=0.1)
    for ids in IDS:
        for model, optimizer in ((one.model, ours), (two.model, theirs)):
            model.zero_grad()
            loss_of(model, ids).backward()
            optimizer.step()
        chosen.grafts.sync()
        with torch.no_grad():
            for key, p in whole.items():
                p.copy_(torch.where(masks[key], p, first[key]))
    for key, name in keys.items():
        assert torch.allclose(one.model.get_parameter(name), whole[key], rtol=1e-4, atol=1e-5), key


@st.composite
def selected(draw, shapes):
    """Rows, columns or all of a few tensors."""
    rows, axis = {}, {}
    for key in draw(st.lists(st.sampled_from(sorted(shapes)), min_size=1, max_size=5, unique=True)):
        axis[key] = draw(st.integers(0, len(shapes[key]) - 1))
        n = shapes[key][axis[key]]
        rows[key] = draw(st.one_of(st.none(), st.lists(st.integers(0, n - 1), min_size=1, max_size=n, unique=True)))
    return Selection(rows, axis)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_selection_has_the_rows_of_the_full_gradient(opened, data):
    """One row, all rows, columns, norms, the embedding: the same forward pass, the gradient's rows, and only they change."""
    live, checkpoint = opened
    selection = data.draw(selected(shapes_of(checkpoint))).normal(shapes_of(checkpoint))
    one, two = fresh(live), fresh(live)
    chosen = choose(one, selection, checkpoint)
    left, right = loss_of(one.model, IDS[0]), loss_of(two.model, IDS[0])
    assert torch.equal(left, right)
    left.backward()
    right.backward()
    for graft in chosen.grafts.all:
        want = graft.place.take(two.model.get_parameter(graft.place.live).grad)
        assert torch.allclose(graft.held.grad, want, rtol=1e-3, atol=1e-6)
    assert chosen.trainable == selection.count(shapes_of(checkpoint))
    with torch.no_grad():
        for p in one.model.parameters():
            if p.requires_grad:
                p.add_(1.0)
    for key, info in checkpoint.tensors.items():
        before, now = (np.frombuffer(raw, "<f4").reshape(info.shape) for raw in (checkpoint.read(key), after(one, checkpoint, chosen, key)))
        changed = mask_of(selection, key, info.shape) if key in selection else np.zeros(info.shape, bool)
        assert ((before != now) == changed).all()


def test_a_head_that_a_fused_loss_reads_by_itself_leads_to_its_graft(opened):
    live, checkpoint = opened
    one = fresh(live)
    chosen = choose(one, Selection({"lm_head.weight": [3, 9]}), checkpoint)
    hidden = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    with chosen.grafts.shown():
        (hidden @ one.model.lm_head.weight.T).logsumexp(-1).sum().backward()
    full = one.model.lm_head.weight.detach().clone().requires_grad_(True)
    (hidden @ full.T).logsumexp(-1).sum().backward()
    assert torch.allclose(chosen.grafts.all[0].held.grad, full.grad[[3, 9]], atol=1e-6)
    assert one.model.get_parameter("lm_head.weight").grad is None


# --------------------------------------------------------------------------------------------------------------------- cost


def bytes_of(optimizer) -> int:
    """Bytes of gradients and of optimiser state."""
    states = sum(v.nbytes for slots in optimizer.state.values() for v in slots.values() if torch.is_tensor(v))
    return states + sum(p.grad.nbytes for group in optimizer.param_groups for p in group["params"] if p.grad is not None)


def stepped(live, selection, checkpoint) -> tuple[int, int]:
    """Trained elements, and bytes of gradients and state after a step; nothing else in the model has a gradient."""
    one = fresh(live)
    chosen = choose(one, selection, checkpoint)
    trained = [p for p in one.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    loss_of(one.model, IDS[0]).backward()
    assert all(p.grad is None for p in one.model.parameters() if not p.requires_grad)
    optimizer.step()
    return chosen.trainable, bytes_of(optimizer)


def test_gradients_and_state_are_those_of_the_subset(tiny):
    """4 bytes of gradient and 8 of state for each trained element; 1 % of the neurons costs at most 3 % of the full FFN."""
    path = tiny("llama", intermediate_size=1600)
    live, checkpoint = load(path, dtype="float32"), Checkpoint.open(path)
    ffn = Selection({key: None for key, part in live.anatomy.parts.items() if part.kind == "ffn"})
    one = on([Entry(layer, "ffn", "neuron", np.arange(5, 21)) for layer in (0, 1)], live.anatomy, shapes_of(checkpoint))
    some, cost = stepped(live, one, checkpoint)
    everything_, full = stepped(live, ffn, checkpoint)
    assert some == everything_ // 100 and 12 * some <= cost <= 12 * some + 100
    assert cost <= 0.03 * full


LAYERS = "model.layers.{}.mlp.{}_proj.weight"
HALVES = Selection({LAYERS.format(0, "up"): [1, 7], LAYERS.format(1, "down"): [3, 4, 40]}, {LAYERS.format(1, "down"): 1})


def to_bfloat16(x):
    """Bits of float32 values rounded to the nearest bfloat16, ties to even."""
    bits = np.ascontiguousarray(x, "<f4").view("<u4")
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")


def test_bf16_rows_take_steps_in_float32_and_are_rounded_once(tiny):
    """Steps far below a bfloat16 step add up in what is held as the formula says; the tensor has them rounded, and all else as it was."""
    path = tiny("llama", dtype="bfloat16")
    live, checkpoint = load(path, dtype="bfloat16"), Checkpoint.open(path)
    chosen = choose(live, HALVES, checkpoint)
    held, rates, seen = [g.held for g in chosen.grafts.all], [1e-6, 2e-6, 4e-6, 3e-6], []
    start = [h.detach().double().numpy() for h in held]
    optimizer = torch.optim.AdamW(held, weight_decay=0.1)
    for i, rate in enumerate(rates):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss_of(live.model, IDS[i % len(IDS)]).backward()
        seen.append([h.grad.numpy().copy() for h in held])
        optimizer.step()
        chosen.grafts.sync()
    given = iter(seen)
    want = adamw(start, lambda _: next(given), [np.ones(x.shape, bool) for x in start], lr=rates, decay=0.1)
    for graft, value, first in zip(chosen.grafts.all, want, start):
        np.testing.assert_allclose(graft.held.detach().numpy(), value, rtol=3e-7, atol=1e-9)
        key, axis = graft.place.key, graft.place.axis
        now = live.model.get_parameter(graft.place.live).detach().view(torch.uint16).numpy()
        rows = HALVES.rows[key]
        assert np.array_equal(np.take(now, rows, axis), to_bfloat16(graft.held.detach().numpy()))
        before = np.frombuffer(checkpoint.read(key), "<u2").reshape(now.shape)
        assert np.array_equal(np.delete(now, rows, axis), np.delete(before, rows, axis))
        assert (value != first).all() and (np.take(now, rows, axis) == np.take(before, rows, axis)).any()


def test_bf16_rows_go_on_after_a_cut_to_the_same_bytes(tiny, tmp_path):
    """A state keeps what is held, in float32, not what the tensors show of it."""
    class Cut(Exception):
        pass

    def cut(step, *_):
        if step == 3:
            raise Cut

    work = Work(resolve(tiny("llama", dtype="bfloat16")), ROWS, dataclasses.replace(FAST, dtype="bf16", lr=1e-4, save_every=2), HALVES)
    whole = train(work, tmp_path / "whole")
    with pytest.raises(Cut):
        train(work, tmp_path / "cut", cut)
    kept = state.tensors(state.latest(tmp_path / "cut" / STATE, work.job), "weight.")
    assert all(v.dtype == torch.float32 and not torch.equal(v, v.bfloat16().float()) for v in kept.values())
    done = train(work, tmp_path / "cut")
    assert done.resumed == 2 and done.losses == whole.losses and done.proof == whole.proof
    assert (done.path / "model.safetensors").read_bytes() == (whole.path / "model.safetensors").read_bytes()


@pytest.mark.parametrize("recompute", [False, True])
def test_layers_below_the_lowest_selected_one_have_no_graph(tiny, tmp_path, recompute):
    """In the trainer itself: hidden states carry a gradient from the selected layer on, not before."""
    base = resolve(tiny("llama", layers=4))
    seen: dict[int, list[bool]] = {}

    class Look(Hook):
        def start(self, live, chosen):
            for i, layer in enumerate(live.model.model.layers):
                layer.register_forward_pre_hook(lambda _, args, i=i: seen.setdefault(i, []).append(args[0].requires_grad))

    live = load(base.path)
    selection = on([Entry(2, "ffn", "neuron", np.arange(4))], live.anatomy, shapes_of(base.checkpoint))
    train(Work(base, ROWS, dataclasses.replace(FAST, steps=1, recompute=recompute), selection, hooks=(Look(),)), tmp_path)
    assert not any(seen[0] + seen[1] + seen[2]) and seen[3][0]


def test_what_is_frozen_is_held_in_what_is_computed_in(tiny, tmp_path):
    """bf16: the trained rows in float32, all the rest bfloat16, also after training; the written rows are the held ones, rounded."""
    base = resolve(tiny("llama", dtype="bfloat16"))
    kept = {}

    class Keep(Hook):
        def start(self, live, chosen):
            kept["live"], kept["chosen"] = live, chosen

    selection = neurons(load(base.path), base.checkpoint)
    done = train(Work(base, ROWS, dataclasses.replace(FAST, dtype="bf16"), selection, hooks=(Keep(),)), tmp_path)
    held = {id(g.held) for g in kept["chosen"].grafts.all}
    for name, p in kept["live"].model.named_parameters():
        assert p.dtype == (torch.float32 if id(p) in held else torch.bfloat16), name
    made = Checkpoint.open(done.path)
    for g in kept["chosen"].grafts.all:
        value = torch.from_numpy(made.f32(g.place.key)).reshape(made.tensors[g.place.key].shape)
        assert torch.equal(g.place.take(value) if g.place.part(value) is value else value, g.held.detach().bfloat16().float())


# --------------------------------------------------------------------------------------------------------- the trainer's ways


@pytest.fixture(scope="module")
def work(tiny):
    base = resolve(tiny("llama"))
    return Work(base, ROWS, FAST, neurons(load(base.path), base.checkpoint))


@pytest.fixture(scope="module")
def plain_run(work, tmp_path_factory):
    return train(work, tmp_path_factory.mktemp("plain"))


def values(done):
    checkpoint = Checkpoint.open(done.path)
    return {key: checkpoint.f32(key) for key in checkpoint.tensors}


def test_accumulation_takes_the_steps_of_one_large_batch(work, plain_run, tmp_path):
    done = train(dataclasses.replace(work, settings=dataclasses.replace(FAST, batch=2, accumulate=2)), tmp_path)
    assert done.losses == pytest.approx(plain_run.losses, rel=1e-4)
    for key, value in values(done).items():
        np.testing.assert_allclose(value, values(plain_run)[key], atol=2e-3)


def test_recomputed_activations_give_the_same_bytes(work, plain_run, tmp_path):
    done = train(dataclasses.replace(work, settings=dataclasses.replace(FAST, recompute=True)), tmp_path)
    assert done.losses == plain_run.losses
    assert all(np.array_equal(value, values(plain_run)[key]) for key, value in values(done).items())


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_examples_do_not_see_each_other(tiny, family):
    """What a packed row gives for each example is what it gives alone, or the model is refused before training."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    model = load(tiny(family), dtype="float32").model
    lengths, ids = [5, 9, 3], IDS.flatten()[:17].tolist()
    batch = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)([{"input_ids": ids, "seq_lengths": lengths}])
    batch.pop("labels")
    with torch.no_grad():
        together = model(**batch, use_cache=False).logits[0]
        alone = [model(input_ids=torch.tensor([part.tolist()])).logits[0] for part in torch.tensor(ids).split(lengths)]
    if torch.allclose(together, torch.cat(alone), atol=1e-4):
        assert mixed(model) < 1e-4
        check_apart(model)
    else:
        assert family in ("opt", "falcon", "bloom")
        with pytest.raises(RecipeError, match="read each other"):
            check_apart(model)


def test_everything_trains_everything(opened):
    live, checkpoint = opened
    one = fresh(live)
    chosen = choose(one, everything(checkpoint), checkpoint)
    assert chosen.trainable == sum(t.numel for t in checkpoint.tensors.values()) and not chosen.grafts.all
    assert inside(live.anatomy, "lm_head.weight", one.model.lm_head.weight).requires_grad
