"""Taking out layers: influence as defined, the right layers go, every family loads with the layers that stay, config and all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import tiny as tinymodels
from oracle.smaller_oracle import block_influence, turned
from polygraft.blocks import Blocks
from polygraft.checkpoint import Checkpoint
from polygraft.errors import InputError, StepFailed
from polygraft.model import load
from polygraft.prune import shallower
from polygraft.prune.depth import lowest, measured, together
from polygraft.prune.harm import said
from polygraft.prune.pruning import anatomy_of, read
from polygraft.prune.reshaped import proved, renumbered, write
from polygraft.recipe import plan_step, run_step
from polygraft.sources import resolve
from polygraft.step import Context
from polygraft.steps import TABLE
from pruned import foreign

STEP = next(s for s in TABLE if s.name == "prune.depth")

BATCH = {"input_ids": torch.randint(4, 260, (2, 12), generator=torch.Generator().manual_seed(0))}


@pytest.fixture
def corpora(tmp_path):
    return foreign(tmp_path)


def config(model, corpora, **more):
    fields = {"model": str(model), "corpus": corpora, "samples": 4, "seq_len": 24, "dtype": "float32", "layers": 2} | more
    return STEP.config(**fields)


def hidden_without(live, removed):
    """Logits of the live model whose removed layers hand on what they get."""
    from polygraft.taps import Taps

    entered = {}

    def skip(passing):
        if passing.point == "input.layer":
            entered[passing.layer] = passing.value
            return None
        return entered[passing.layer]

    with torch.no_grad(), Taps(live.model, live.anatomy, skip, points=("input.layer", "residual"), layers=removed):
        return live.model(**BATCH).logits


@pytest.mark.parametrize("family", tinymodels.FAMILIES)
def test_every_family_computes_what_it_computed_with_its_layers_skipped(tiny, tmp_path, family):
    source = resolve(str(tiny(family, layers=6)))
    anatomy, live = anatomy_of(source), load(source, dtype="float32")
    removed = (1, 2, 4)
    smaller = shallower.without(source.weights, anatomy, removed, shallower.of_live(live.model))
    write(smaller, tmp_path / "model", BATCH, {})
    after = load(tmp_path / "model", dtype="float32")
    assert after.anatomy.layers == 3
    with torch.no_grad():
        logits = after.model(**BATCH).logits
    torch.testing.assert_close(logits, hidden_without(live, removed), rtol=1e-5, atol=1e-5)
    model = Checkpoint.open(tmp_path / "model")
    for key, old in smaller.names.items():
        assert model.read(key) == source.weights.read(old)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "opt", "mixtral"])
def test_influence_is_that_of_the_formula_on_the_whole_model(tiny, corpora, family):
    source = resolve(str(tiny(family, layers=4)))
    text = read(config(source.spec, corpora), Context(model=resolve, data=Path), source, None)
    with Blocks.open(source, dtype="float32") as blocks:
        found = measured(blocks, text, 2, lambda *_: None)
    live = load(source, dtype="float32")
    for language in ("en", "sw"):
        states: list[list[np.ndarray]] = [[] for _ in range(5)]
        for batch, weights, of in zip(text.batches, text.weighing, text.of):
            if of == language:
                seen = []
                with torch.no_grad(), taps_of(live, seen):
                    live.model(**batch)
                counted = weights.reshape(-1).numpy() > 0
                for i, value in enumerate(seen):
                    states[i].append(value.reshape(-1, value.shape[-1])[counted].double().numpy())
        h = [np.concatenate(s) for s in states]
        np.testing.assert_allclose(found.influence[language], [block_influence(h[i], h[i + 1]) for i in range(4)], rtol=1e-4)
        np.testing.assert_allclose(found.turned[language], [turned(h[i], h[i + 2]) for i in range(3)], rtol=1e-4)


def taps_of(live, seen):
    """The stream at every border between layers: before the first, behind each."""
    from polygraft.taps import Taps

    def keep(passing):
        if passing.point == "residual" or passing.layer == 0:
            seen.append(passing.value.detach().clone())

    return Taps(live.model, live.anatomy, keep, points=("input.layer", "residual"))


def test_layers_that_do_nothing_are_found_and_taking_them_out_changes_nothing(tmp_path, corpora):
    """Layers 1 and 3 of five add nothing to the stream."""
    folder = tinymodels.folder(tmp_path, "llama", layers=5)
    idle(folder, (1, 3))
    result = run_step(STEP, config(folder, corpora, evaluate=corpora, documents=4), tmp_path / "out")
    assert result.data["removed"] == [1, 3]
    for harm in result.data["harm"].values():
        assert harm["after"] == pytest.approx(harm["before"], rel=1e-5)
    assert max(v[i] for v in result.data["influence"].values() for i in (1, 3)) < 1e-6
    neighbours = run_step(STEP, config(folder, corpora, how="neighbours"), tmp_path / "next")
    first, second = neighbours.data["removed"]
    assert second == first + 1 and anatomy_of(resolve(str(tmp_path / "next"))).layers == 3


def idle(folder, layers):
    """Make these layers of a llama hand on what they get."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    for i in layers:
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            tensors[f"model.layers.{i}.{name}.weight"][:] = 0
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def test_a_layer_stays_for_the_one_language_that_needs_it():
    """Layer 1 matters to sw alone; en has nine times the text."""
    each, tokens = {"en": [0.5, 0.01, 0.2], "sw": [0.5, 0.6, 0.2]}, {"en": 900, "sw": 100}
    assert lowest(together(each, tokens, "mean"), 1) == (1,)
    assert lowest(together(each, tokens, "worst"), 1) == (2,)
    assert lowest(np.zeros(4), 2) == (0, 1)


def config_of(**more):
    return {"model_type": "qwen3_moe", "num_hidden_layers": 4, **more}


def test_what_a_config_says_of_layers_follows_them(tiny):
    anatomy = anatomy_of(resolve(str(tiny("qwen3", layers=4))))
    told = {"layer_types": ["a", "b", "c", "d"]}
    new = shallower.shortened(config_of(layer_types=list("abcd"), mlp_only_layers=[0, 3], max_window_layers=3, eos_token_id=[1, 2, 3, 4]),
                              anatomy, [0, 2, 3], told)  # fmt: skip
    assert new["num_hidden_layers"] == 3 and new["layer_types"] == ["a", "c", "d"] and new["mlp_only_layers"] == [0, 2]
    assert new["max_window_layers"] == 2 and new["eos_token_id"] == [1, 2, 3, 4]
    nested = shallower.shortened({"text_config": {"num_hidden_layers": 4}, "vision_config": {"num_hidden_layers": 9}}, anatomy, [1])
    assert nested == {"text_config": {"num_hidden_layers": 1}, "vision_config": {"num_hidden_layers": 9}}


def test_mixtures_in_every_other_layer_are_named_one_by_one(tiny, tmp_path):
    source = resolve(str(tiny("qwen3_moe", layers=4, decoder_sparse_step=2)))
    anatomy, live = anatomy_of(source), load(source, dtype="float32")
    write(shallower.without(source.weights, anatomy, (0,), shallower.of_live(live.model)), tmp_path / "model", BATCH, {})
    after = load(tmp_path / "model", dtype="float32")
    with torch.no_grad():
        torch.testing.assert_close(after.model(**BATCH).logits, hidden_without(live, (0,)), rtol=1e-5, atol=1e-5)


def test_lists_that_are_too_short_and_counting_rules_are_refused(tiny):
    anatomy = anatomy_of(resolve(str(tiny("llama", layers=4))))
    with pytest.raises(InputError, match="shorter than there are layers"):
        shallower.shortened({"num_hidden_layers": 4, "layer_types": ["a"]}, anatomy, [0])
    with pytest.raises(InputError, match="by counting"):
        shallower.shortened({"num_hidden_layers": 4, "moe_layer_freq": 2}, anatomy, [0])


@pytest.mark.parametrize(("more", "said"), [({"layers": 4}, "no layer would be left"), ({"layers": 9}, "no layer would be left")])
def test_what_cannot_be_is_refused_before_anything_is_read(tiny, tmp_path, corpora, more, said):
    planned = plan_step(STEP, config(tiny("llama", layers=4), corpora, **more))
    assert any(said in str(e) for e in planned.errors)
    with pytest.raises(InputError, match=said):
        run_step(STEP, config(tiny("llama", layers=4), corpora, **more), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_attention_that_is_scaled_by_the_layer_s_number_is_refused(tiny):
    anatomy = anatomy_of(resolve(str(tiny("gpt2", scale_attn_by_inverse_layer_idx=True))))
    assert "number of its layer" in str(shallower.fault(anatomy, 1))


def test_keys_are_renumbered_once():
    assert renumbered("model.layers.3.mlp.experts.3.w1.weight", 3, 1) == "model.layers.1.mlp.experts.3.w1.weight"
    assert renumbered("transformer.h.10.attn.c_attn.bias", 10, 9) == "transformer.h.9.attn.c_attn.bias"
    with pytest.raises(InputError, match="does not hold the layer's number"):
        renumbered("odd.key", 0, 0)


def test_a_smaller_model_that_computes_no_numbers_is_not_given_out(tmp_path):
    folder = tinymodels.folder(tmp_path, "llama")
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"][:] = np.inf
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(StepFailed, match="finite"):
        proved(folder, BATCH)


@pytest.mark.parametrize(("added", "words"), [
    ({"en": 0.0, "sw": 0.0}, "no language shows a loss"), ({"en": -20.0, "sw": 0.0}, "no language shows a loss"),
    ({"en": 0.0, "sw": 20.0}, "; sw loses ("), ({"en": 30.0, "sw": 20.0}, "en loses most"),
])  # fmt: skip
def test_only_a_language_whose_loss_is_told_from_chance_is_named(added, words):
    rng = np.random.default_rng(0)
    before = {g: np.stack([rng.normal(100, 5, 40), np.full(40, 50.0)], 1) for g in added}
    after = {g: b + np.stack([rng.normal(added[g], 3, 40), np.zeros(40)], 1) for g, b in before.items()}
    after = {g: a - [[(a - before[g])[:, 0].mean() - added[g], 0]] for g, a in after.items()}  # exactly so much, on average
    assert words in said(before, after)[0]
