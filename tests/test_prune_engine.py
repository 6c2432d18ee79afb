"""Pruning block by block: every family, exact bytes of what stays, statistics as hooks on the whole model give them, resuming."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import tiny as tinymodels
from polygraft.model import load
from polygraft.prune.engine import Overlay, Pruned, Work, layer_file, prune
from polygraft.prune.sites import oriented
from polygraft.prune.statistics import Moments
from polygraft.sources import resolve


def smallest(ws, stats):
    """Half of every row away, by |W| times the norm of the input."""
    norms, found = torch.from_numpy(stats.norms).float(), {}
    for key, w in ws.items():
        order = (w.abs() * norms).argsort(dim=1, stable=True)
        found[key] = Pruned(torch.ones_like(w, dtype=torch.bool).scatter_(1, order[:, : w.shape[1] // 2], False))
    return found


def texts(rows=2, width=12, count=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [{"input_ids": torch.randint(4, 260, (rows, width), generator=g)} for _ in range(count)]


def job(path, method=smallest, batches=None, weighing=None, gram=True):
    batches = texts() if batches is None else batches
    weighing = [torch.ones(b["input_ids"].shape) for b in batches] if weighing is None else weighing
    return Work(resolve(str(path)), batches, weighing, method, gram, "float32")


@pytest.mark.parametrize("family", tinymodels.FAMILIES)
def test_every_family_is_pruned_by_half_and_what_stays_keeps_its_bytes(tiny, tmp_path, family):
    work = job(tiny(family))
    done = prune(work, tmp_path)
    before, after = work.source.weights, Overlay(work.source.weights, tmp_path, 2)
    assert set(after.masks) == set(done) and len(done) >= 8
    for key, module in done.items():
        info = before.tensors[key]
        keep = np.unpackbits(after.masks[key], bitorder="little")[: info.numel].astype(bool)
        a, b = np.frombuffer(before.read(key), np.float32), np.frombuffer(after.read(key), np.float32)
        assert (a[keep] == b[keep]).all() and not b[~keep].any()
        assert module.zeros == (~keep).sum() and module.sparsity == 0.5 and 0 < module.error < 1
    for key in before.tensors.keys() - done.keys():
        assert before.read(key) == after.read(key)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "mixtral"])
def test_the_first_layer_s_moments_are_those_of_hooks_on_the_whole_model(tiny, tmp_path, family):
    found: dict[str, Moments] = {}

    def noted(ws, stats):
        found.update(dict.fromkeys(ws, stats))
        return smallest(ws, stats)

    batches = texts()
    weighing = [torch.rand(b["input_ids"].shape, generator=torch.Generator().manual_seed(i)) for i, b in enumerate(batches)]
    work = job(tiny(family), noted, batches, weighing)
    prune(work, tmp_path)
    live = load(work.source, dtype="float32")
    keys = [k for k in found if live.anatomy.parts[k].layer == 0 and live.anatomy.parts[k].expert is None]
    assert keys
    for key in keys:
        naive = np.zeros((found[key].gram.shape[0],) * 2)
        module = live.model.get_submodule(live.anatomy.live_name(key).removesuffix(".weight"))
        seen = []
        hook = module.register_forward_pre_hook(lambda _m, args, seen=seen: seen.append(args[0].detach()))
        with torch.no_grad():
            for batch in batches:
                live.model(**batch)
        hook.remove()
        for x, w in zip(seen, weighing, strict=True):
            x = x.reshape(-1, x.shape[-1]).double().numpy()
            naive += (x * w.reshape(-1, 1).double().numpy()).T @ x
        np.testing.assert_allclose(found[key].gram, naive, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found[key].squares, np.diag(naive), rtol=1e-5, atol=1e-6)
        assert found[key].tokens == pytest.approx(sum(float(w.double().sum()) for w in weighing))


def test_a_layer_read_for_its_statistics_alone_is_not_computed_to_the_end(tiny, tmp_path, monkeypatch):
    real, calls = torch.nn.Linear.forward, []

    def counted(self, x):
        calls.append(self.in_features)
        return real(self, x)

    monkeypatch.setattr(torch.nn.Linear, "forward", counted)
    work = job(tiny("llama"))
    done = prune(work, tmp_path)
    ffn = work.source.weights.config["intermediate_size"]
    assert calls.count(ffn) == len(work.batches)  # of two layers the first, for what the second gets
    assert len(done) == 14 and all(0 < m.error < 1 for m in done.values())


def test_without_errors_the_same_weights_go(tiny, tmp_path):
    for gram in (False, True):
        a, b = (prune(replace(job(tiny("llama"), gram=gram), judged=j), tmp_path / f"{gram}{j}") for j in (True, False))
        assert all(m.error > 0 for m in a.values()) and all(m.error is None for m in b.values())
        assert {k: m.zeros for k, m in a.items()} == {k: m.zeros for k, m in b.items()}
        one, two = (Overlay(job(tiny("llama")).source.weights, tmp_path / f"{gram}{j}", 2) for j in (True, False))
        assert all(one.read(key) == two.read(key) for key in a)


def test_what_a_token_of_no_weight_is_changes_nothing(tiny, tmp_path):
    batches, weighing = texts(count=1), [torch.ones(2, 12)]
    weighing[0][:, 8:] = 0
    other = [{"input_ids": batches[0]["input_ids"].clone()}]
    other[0]["input_ids"][:, 8:] = 7  # behind all that counts: causal attention does not see it
    a = prune(job(tiny("llama"), batches=batches, weighing=weighing), tmp_path / "a")
    b = prune(job(tiny("llama"), batches=other, weighing=weighing), tmp_path / "b")
    assert [m.error for m in a.values()] == pytest.approx([m.error for m in b.values()])
    for i in range(2):
        assert (tmp_path / "a" / layer_file(i)).read_bytes() == (tmp_path / "b" / layer_file(i)).read_bytes()


def test_a_run_that_was_stopped_goes_on_and_gives_the_same(tiny, tmp_path):
    class Stopped(Exception):
        pass

    calls = []

    def stops(ws, stats):
        calls.append(1)
        if len(calls) > 6:
            raise Stopped
        return smallest(ws, stats)

    with pytest.raises(Stopped):
        prune(job(tiny("llama"), stops), tmp_path / "a")
    assert (tmp_path / "a" / layer_file(0)).exists() and not (tmp_path / "a" / layer_file(1)).exists()
    resumed, whole = prune(job(tiny("llama")), tmp_path / "a"), prune(job(tiny("llama")), tmp_path / "b")
    assert resumed == whole
    for i in range(2):
        assert (tmp_path / "a" / layer_file(i)).read_bytes() == (tmp_path / "b" / layer_file(i)).read_bytes()


def test_pruned_layers_feed_the_next_ones(tiny, tmp_path):
    """The second layer's statistics are those of a model whose first layer is pruned already."""
    kept: dict[str, Moments] = {}

    def noted(ws, stats):
        kept.update(dict.fromkeys(ws, stats))
        return smallest(ws, stats)

    work = job(tiny("llama"), noted)
    prune(work, tmp_path)
    live, after = load(work.source, dtype="float32"), Overlay(work.source.weights, tmp_path, 2)
    key = "model.layers.1.self_attn.q_proj.weight"
    with torch.no_grad():
        for name in after.masks:
            if ".0." in name:
                live.model.get_parameter(name).copy_(torch.from_numpy(after.f32(name)).reshape(live.model.get_parameter(name).shape))
        squares = torch.zeros(32, dtype=torch.float64)
        module = live.model.get_submodule(key.removesuffix(".weight"))
        module.register_forward_pre_hook(lambda _m, args: [squares.add_(args[0].double().square().sum((0, 1))), None][1])
        for batch in work.batches:
            live.model(**batch)
    np.testing.assert_allclose(kept[key].squares, squares.numpy(), rtol=1e-5)


def test_conv1d_is_pruned_by_outputs():
    w = torch.arange(6.0).reshape(2, 3)
    anatomy = type("A", (), {"traits": type("T", (), {"transposed": True})})
    assert oriented(w, anatomy).shape == (3, 2)


@pytest.mark.parametrize("width", [1, 191, 192, 193, 500])
def test_products_are_those_of_all_inputs_with_all(width):
    x = torch.randn(40, width, generator=torch.Generator().manual_seed(0))
    moments = Moments.empty(width, True)
    moments.add(x[:30])
    moments.add(x[30:])
    naive = x.double().numpy().T @ x.double().numpy()
    np.testing.assert_allclose(moments.gram, naive, atol=1e-4)
    assert (moments.gram[:192, 192:] == moments.gram[192:, :192].T).all()
