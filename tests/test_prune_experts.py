"""Taking out experts: REAP as defined, the right ones go, the model that stays computes what it did with them forbidden."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import tiny as tinymodels
from oracle.smaller_oracle import reap
from polygraft.blocks import Blocks
from polygraft.checkpoint import Checkpoint
from polygraft.errors import InputError
from polygraft.model import load
from polygraft.prune import experts
from polygraft.prune.experts import measured, scores, staying, without
from polygraft.prune.pruning import anatomy_of, read
from polygraft.prune.reshaped import write
from polygraft.recipe import plan_step, run_step
from polygraft.sources import resolve
from polygraft.step import Context
from polygraft.steps import TABLE
from pruned import foreign

STEP = next(s for s in TABLE if s.name == "prune.experts")
BATCH = {"input_ids": torch.randint(4, 260, (2, 12), generator=torch.Generator().manual_seed(0))}


@pytest.fixture
def corpora(tmp_path):
    return foreign(tmp_path)


def config(model, corpora, **more):
    fields = {"model": str(model), "corpus": corpora, "samples": 4, "seq_len": 24, "dtype": "float32", "experts": 1} | more
    return STEP.config(**fields)


def text_of(model, corpora):
    source = resolve(str(model))
    return source, read(config(model, corpora), Context(model=resolve, data=Path), source, None)


@pytest.mark.parametrize("family", tinymodels.MOE)
def test_saliency_is_that_of_the_formula_over_the_whole_model(tiny, corpora, family):
    source, text = text_of(tiny(family), corpora)
    with Blocks.open(source, dtype="float32") as blocks:
        found = measured(blocks, text, lambda *_: None)
    live, layer = load(source, dtype="float32"), 1
    module = live.model.model.layers[layer].mlp.experts
    live.model.set_experts_implementation("eager")
    seen = []
    module.register_forward_pre_hook(lambda _m, args: seen.append([a.detach().double().numpy() for a in args]))
    gate, up = module.gate_up_proj.detach().double().chunk(2, dim=1)
    down = module.down_proj.detach().double().numpy()
    for language in ("en", "sw"):
        x, chosen, gates = [], [], []
        for batch, weights, of in zip(text.batches, text.weighing, text.of):
            if of == language:
                with torch.no_grad():
                    live.model(**batch)
                some, counted = seen.pop(), weights.reshape(-1).numpy() > 0
                for kept, value in zip((x, chosen, gates), some):
                    kept.append(value[counted])
        expected = reap(np.concatenate(x), np.concatenate(gates), np.concatenate(chosen).astype(int), gate.numpy(), up.numpy(), down,
                        lambda v: v / (1 + np.exp(-v)))
        np.testing.assert_allclose(experts.mean(found.sums[language], found.chosen[language])[layer], expected, rtol=1e-4)


@pytest.mark.parametrize("family", tinymodels.MOE)
def test_what_stays_computes_as_with_the_others_forbidden(tiny, tmp_path, family):
    source = resolve(str(tiny(family)))
    anatomy = anatomy_of(source)
    kept = {0: (0, 2), 1: (1, 2)}
    write(without(source.weights, anatomy, kept), tmp_path / "model", BATCH, {})
    after, live = load(tmp_path / "model", dtype="float32"), load(source, dtype="float32")
    assert after.anatomy.sizes.experts == 2
    for layer, stay in kept.items():
        router = live.model.model.layers[layer].mlp.gate
        gone = [j for j in range(tinymodels.EXPERTS) if j not in stay]
        with torch.no_grad():
            bias = torch.zeros(tinymodels.EXPERTS).index_fill(0, torch.tensor(gone), -1e30)
        real = torch.nn.functional.linear

        def forbidding(hidden, _router=router, _bias=bias, _real=real):
            flat = hidden.reshape(-1, _router.hidden_dim)
            logits = _real(flat, _router.weight) + _bias
            probs = torch.nn.functional.softmax(logits.float(), dim=-1)
            top, index = torch.topk(probs, _router.top_k, dim=-1)
            if getattr(_router, "norm_topk_prob", True):
                top = top / top.sum(dim=-1, keepdim=True)
            return logits, top, index

        router.forward = forbidding
    with torch.no_grad():
        torch.testing.assert_close(after.model(**BATCH).logits, live.model(**BATCH).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", tinymodels.MOE)
def test_bytes_of_what_stays_are_as_they_were(tiny, tmp_path, family):
    source = resolve(str(tiny(family)))
    anatomy = anatomy_of(source)
    write(without(source.weights, anatomy, {0: (1, 2), 1: (0, 2)}), tmp_path / "model", BATCH, {})
    model = Checkpoint.open(tmp_path / "model")
    down = {part.expert: key for key, part in anatomy.parts.items() if part.layer == 0 and part.role == "experts.down"}
    router = next(k for k, p in anatomy.parts.items() if p.layer == 0 and p.role == "router")
    assert model.read(down[0]) == source.weights.read(down[1]) and model.read(down[1]) == source.weights.read(down[2])
    assert down[2] not in model.tensors
    np.testing.assert_array_equal(model.f32(router).reshape(2, -1), source.weights.f32(router).reshape(3, -1)[1:])


def test_an_expert_that_one_language_needs_stays_when_that_language_is_asked_for():
    """en sends ten times as many tokens; expert 2 matters to sw alone, and is tenth-rate in the mean."""
    chosen = {"en": np.array([[100.0, 100.0, 10.0]]), "sw": np.array([[10.0, 5.0, 10.0]])}
    sums = {"en": np.array([[200.0, 190.0, 1.0]]), "sw": np.array([[10.0, 5.0, 30.0]])}
    assert staying(scores(sums, chosen, "mean")[0], 1) == (0, 1)
    assert 2 in staying(scores(sums, chosen, "worst")[0], 1)


@given(arrays(np.float64, (2, 5), elements=st.floats(0, 10)), st.integers(1, 4))
def test_as_many_stay_as_should_and_none_that_counts_less(score, n):
    stay = staying(score[0], n)
    gone = set(range(5)) - set(stay)
    assert len(stay) == 5 - n and max(score[0][list(gone)]) <= min(score[0][list(stay)])


def test_of_equals_the_lower_number_goes():
    assert staying(np.zeros(4), 2) == (2, 3)


def test_an_expert_that_no_token_chose_goes_first():
    score = scores({"sw": np.array([[0.0, 3.0]])}, {"sw": np.array([[0.0, 5.0]])}, "mean")
    assert score.tolist() == [[0.0, 0.6]]


def test_the_step_writes_a_model_and_says_what_each_language_loses(tiny, tmp_path, corpora):
    result = run_step(STEP, config(tiny("mixtral"), corpora, evaluate=corpora, documents=6), tmp_path / "out")
    model = resolve(str(tmp_path / "out"))
    assert anatomy_of(model).sizes.experts == 2 and (tmp_path / "out" / "manifest.json").exists()
    assert set(result.data["harm"]) == {"en", "sw"} and result.data["parameters"]["after"] < result.data["parameters"]["before"]
    for g in ("en", "sw"):
        assert 0 <= result.data["lost"][g][0] <= 1
    assert [t.title for t in result.tables][:2] == ["What the experts that went carried", "What every language lost"]


@pytest.mark.parametrize(("family", "more", "said"), [("llama", {}, "no mixture of experts"), ("mixtral", {"experts": 2}, "every token takes"),
                                                      ("mixtral", {"experts": 9}, "every token takes")])  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_read(tiny, tmp_path, corpora, family, more, said):
    planned = plan_step(STEP, config(tiny(family), corpora, **more))
    assert any(said in str(e) for e in planned.errors)
    with pytest.raises(InputError, match=said):
        run_step(STEP, config(tiny(family), corpora, **more), tmp_path / "out")
    assert not (tmp_path / "out").exists()
