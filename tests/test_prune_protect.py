"""Protected weights: they stay, all matrices together are as sparse as asked, and `auto` finds what a language leans on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tiny as tinymodels
from oracle.pruning_protect_oracle import naive_needed, naive_top
from polygraft import selectionfile
from polygraft.anatomy import Anatomy
from polygraft.errors import InputError, RecipeError
from polygraft.prune.calibration import assembled, drawn
from polygraft.prune.config import Masking
from polygraft.prune.costs import Extent
from polygraft.prune.engine import Overlay, Work, prune
from polygraft.prune.languages import Reading
from polygraft.prune.masks import METHODS, Options
from polygraft.prune.masks.pattern import Pattern
from polygraft.prune.protect import Protection, auto, halved, needed, norms, protection, selected
from polygraft.selectionfile import Entry
from polygraft.sources import resolve
from polygraft.step import Context
from test_prune_calibration import corpus

HALF = Pattern(0.5)


def parts(path):
    source = resolve(str(path))
    weights = source.weights
    anatomy = Anatomy.of(weights.config, weights.tensors)
    return source, anatomy, Extent.of(weights, anatomy), {k: t.shape for k, t in weights.tensors.items()}


def pruned(source, stays, folder, pattern=HALF, method="magnitude", extent=None):
    g = torch.Generator().manual_seed(0)
    batches = [{"input_ids": torch.randint(4, 260, (2, 12), generator=g)}]
    maker, gram = METHODS[method]
    options = Options(by_key=stays.sparsities(extent, pattern), protected=stays.of)
    done = prune(Work(source, batches, [torch.ones(2, 12)], maker(pattern, options), gram, "float32"), folder)
    after = Overlay(source.weights, folder, 2)
    keep = {k: np.unpackbits(m, bitorder="little")[: extent.sizes[k]].astype(bool).reshape(source.weights.tensors[k].shape)
            for k, m in after.masks.items()}  # fmt: skip
    return done, keep


@pytest.mark.parametrize("family", tinymodels.FAMILIES)
@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
def test_protected_neurons_stay_in_every_family_and_all_is_as_sparse_as_asked(tiny, tmp_path, family, method):
    source, anatomy, extent, shapes = parts(tiny(family))
    stays = selected([Entry(0, "ffn", "neuron", np.array([0, 3, 7])), Entry(1, "attn", "o")], anatomy, extent, shapes)
    done, keep = pruned(source, stays, tmp_path, method=method, extent=extent)
    masks = {key: stays.of(key) for key in extent.matrices}
    held = [key for key, mask in masks.items() if mask is not None]
    assert any(".1." in k for k in held) and any(".0." in k for k in held)
    for key in held:
        mask = masks[key].numpy()
        assert mask.shape == extent.matrices[key] and mask.sum() == stays.counts[key]
        stored = keep[key].T if anatomy.traits.transposed else keep[key]
        assert stored[mask].all()
    zeros, size = sum(m.zeros for m in done.values()), sum(extent.sizes.values())
    assert abs(zeros / size - 0.5) < 0.01  # counts of rows are whole numbers


def test_a_neuron_is_rows_of_gate_and_up_and_a_column_of_down(tiny):
    _, anatomy, extent, shapes = parts(tiny("llama"))
    stays = selected([Entry(0, "ffn", "neuron", np.array([5]))], anatomy, extent, shapes)
    for role in ("gate", "up"):
        mask = stays.of(f"model.layers.0.mlp.{role}_proj.weight").numpy()
        assert mask[5].all() and mask.sum() == mask.shape[1]
    mask = stays.of("model.layers.0.mlp.down_proj.weight").numpy()
    assert mask[:, 5].all() and mask.sum() == mask.shape[0]
    assert stays.of("model.layers.1.mlp.up_proj.weight") is None


def test_a_selection_without_a_pruned_weight_is_refused_and_so_is_too_much(tiny):
    _, anatomy, extent, shapes = parts(tiny("llama"))
    with pytest.raises(InputError, match="no weight that pruning touches"):
        selected([Entry(0, "norm")], anatomy, extent, shapes)
    most = selected([Entry(i, kind) for i in (0, 1) for kind in ("attn", "ffn")], anatomy, extent, shapes)
    with pytest.raises(RecipeError, match="too much is protected"):
        most.sparsities(extent, HALF)


def reading(path, folder, tmp_path):
    tokenizer = tinymodels.tokenizer()
    found = {"sw": drawn(corpus(tmp_path, "sw", letters="abc"), tokenizer, 3, 16, 0),
             "ru": drawn(corpus(tmp_path, "ru", letters="яжшщ"), tokenizer, 3, 16, 0)}  # fmt: skip
    text = assembled(found, tokenizer, 2)
    return Reading.calibrated(resolve(str(path)), text, "float32")


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
def test_auto_protects_what_some_language_needs_most(tiny, tmp_path, family):
    source, anatomy, extent, _ = parts(tiny(family))
    found = norms(reading(tiny(family), tmp_path, tmp_path), tmp_path)
    assert found.keys() == extent.matrices.keys()
    stays = auto(found, source.weights, anatomy, extent, HALF)
    for key, (out, width) in extent.matrices.items():
        w = source.weights.f32(key).reshape(source.weights.tensors[key].shape).astype(np.float64)
        w = w.T if anatomy.traits.transposed else w
        mask = stays.of(key).numpy()
        assert mask.shape == (out, width) and (mask.sum(1) == width - int(width * 0.75)).all() and mask.sum() == stays.counts[key]
        expected = naive_needed(w, found[key])
        np.testing.assert_allclose(needed(torch.from_numpy(w).float(), found[key]).numpy(), expected, rtol=1e-5)
        assert (mask == naive_top(expected.astype(np.float32), width - int(width * 0.75))).mean() > 0.999
    done, keep = pruned(source, stays, tmp_path / "p", extent=extent)
    assert all((keep[k].T if anatomy.traits.transposed else keep[k])[stays.of(k).numpy()].all() for k in keep)
    zeros, size = sum(m.zeros for m in done.values()), sum(extent.sizes.values())
    assert abs(zeros / size - 0.5) < 0.02


def test_what_one_language_alone_needs_is_found_beside_a_language_that_reads_louder():
    w, quiet, loud = torch.ones(4, 16), np.full(16, 1e-3), np.full(16, 10.0)
    quiet[3], loud[9] = 1.0, 100.0  # inputs that carry a row in one language
    best = needed(w, np.stack([quiet, loud])).numpy()
    assert set(np.argsort(-best[0], kind="stable")[:2]) == {3, 9}


def test_norms_are_those_of_each_language_alone_and_are_kept(tiny, tmp_path):
    both = reading(tiny("llama"), tmp_path, tmp_path)
    found = norms(both, tmp_path / "kept")
    at = [i for i, g in enumerate(both.of) if g == "ru"]
    alone = Reading(both.source, [both.batches[i] for i in at], [both.weighing[i] for i in at], ["ru"] * len(at), "float32")
    for key, x in norms(alone, tmp_path / "alone").items():
        np.testing.assert_allclose(x[0], found[key][1], rtol=1e-6)
    broken = Reading(both.source, [], [], [], "float32")
    assert norms(broken, tmp_path / "kept").keys() == found.keys()  # from the file: nothing is read


def test_half_of_what_stays():
    assert halved(Pattern(0.5)).sparsity == 0.75 and halved(Pattern(0.9)).sparsity == pytest.approx(0.95)
    assert str(halved(Pattern.of(None, "4:8"))) == "2:8"
    with pytest.raises(RecipeError, match="one of a group"):
        halved(Pattern.of(None, "1:4"))


def test_from_words_a_selection_file_and_auto(tiny, tmp_path):
    source, _, extent, _ = parts(tiny("llama"))
    selectionfile.write(tmp_path / "s.json", {"sw": [Entry(0, "attn", "q")]})
    context = Context(model=None, data=lambda ref: tmp_path / ref, folder=lambda ref: tmp_path / ref)
    paths = {"sw": str(corpus(tmp_path, "sw").path), "en": str(corpus(tmp_path, "en", seed=1).path)}
    config = Masking(model="m", corpus=paths, calibrate={"sw": 1}, samples=4, seq_len=16, protect="s.json:sw", dtype="float32")
    stays = protection(config, context, source, extent, lambda c: None, tmp_path)
    assert set(stays.counts) == {"model.layers.0.self_attn.q_proj.weight"}
    assert not protection(config.model_copy(update={"protect": None}), context, source, extent, lambda c: None, tmp_path).words
    asked = []

    def text(c):
        asked.append(c.calibrate)
        from polygraft.prune.calibration import calibration

        return calibration(c, context, tinymodels.tokenizer())

    stays = protection(config.model_copy(update={"protect": "auto"}), context, source, extent, text, tmp_path / "f")
    assert asked == [None] and isinstance(stays, Protection) and len(stays.counts) == len(extent.matrices)  # a share of 0 counts too
    with pytest.raises(RecipeError, match="nothing to see"):
        protection(config.model_copy(update={"protect": "auto"}), context, source, extent, lambda c: None, tmp_path)
