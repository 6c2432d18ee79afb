"""The vLLM engine on a module with vLLM's interface: the numbers and texts of the model in memory. It has not met vLLM itself here."""

import sys

import pytest

import fakevllm
import tiny as make
from polygraft.errors import InputError
from polygraft.evals.engines import vllm
from polygraft.evals.engines.base import Decoding
from polygraft.evals.engines.hf import Scorer
from test_served import PAIRS, same, scored, written


@pytest.fixture(scope="module")
def scorer():
    return Scorer(make.model("llama", layers=2, seed=3), make.tokenizer(), batch_tokens=64)


@pytest.fixture
def engine(scorer, monkeypatch, tmp_path):
    inner = Scorer(scorer.model, scorer.tokenizer, batch_tokens=64)
    monkeypatch.setitem(sys.modules, "vllm", fakevllm.module(inner))
    return vllm.start(tmp_path, scorer.tokenizer, dtype="bfloat16", seed=3)


def test_likelihoods_documents_and_answers_are_as_in_memory(engine, scorer, monkeypatch):
    monkeypatch.setattr(vllm, "AT_ONCE", 3)
    pairs = [*PAIRS, ("", "start")]
    same(scored(engine, pairs), scored(scorer, pairs))
    prompts, how = ["one", "a longer prompt", "", "x" * 300], Decoding(6, ("\n", ""))
    assert written(engine, prompts[:3], how) == written(scorer, prompts[:3], how)
    assert engine.max_length == 126 and written(engine, prompts[3:], how)[0].tokens <= 6
    for got, want in zip(engine.documents(["twelve apples", "短い文"], 24, 8), scorer.documents(["twelve apples", "短い文"], 24, 8)):
        assert got.nats == pytest.approx(want.nats, abs=1e-3) and got.bytes == want.bytes


def test_sampling_is_seeded(engine, scorer):
    how = Decoding(6, (), 0.8, 0.9, 7)
    assert written(engine, ["one", "two"], how) == written(scorer, ["one", "two"], how)


def test_a_batch_is_all_that_a_cut_costs(engine, monkeypatch):
    monkeypatch.setattr(vllm, "AT_ONCE", 2)
    batches = []
    engine.generate(["a", "b", "c", "d", "e"], Decoding(2), lambda found: batches.append([i for i, _ in found]))
    assert batches == [[0, 1], [2, 3], [4]]


def test_the_model_is_started_from_its_folder(engine, tmp_path):
    assert sys.modules["vllm"].LLM.made == [{"model": str(tmp_path), "tokenizer": str(tmp_path), "dtype": "bfloat16", "seed": 3}]


def test_without_vllm_the_way_to_get_it_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(InputError, match=r"polygraft\[vllm\]"):
        vllm.start(tmp_path, None)


def test_a_model_that_vllm_cannot_run(scorer, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "vllm", fakevllm.module(scorer, ValueError("Model architectures ['X'] are not supported\nmore")))
    with pytest.raises(InputError, match="not supported") as e:
        vllm.start(tmp_path, scorer.tokenizer)
    assert "more" not in str(e.value)


def test_likelihoods_that_are_not_numbers_are_refused(engine):
    whole = engine.llm.logprobs
    engine.llm.logprobs = lambda ids, n: [t and {k: type(x)(logprob=float("nan")) for k, x in t.items()} for t in whole(ids, n)]
    with pytest.raises(InputError, match="not numbers"):
        scored(engine)
