"""Written answers: greedy ones against one-at-a-time decoding, for every family; stops, limits, draws."""

import pytest

import tiny as make
from oracle import bpb_oracle as oracle
from polygraft.evals.engines import batches
from polygraft.evals.engines.base import Decoding
from polygraft.evals.engines.hf import Scorer


@pytest.fixture(scope="module")
def scorer():
    return Scorer(make.model("llama", layers=2, seed=3), make.tokenizer(), batch_tokens=64)



def test_generation_is_greedy_and_independent_of_the_batch(scorer):
    prompts = ["one", "a much longer prompt than the first", "two"]
    alone = []
    for p in prompts:
        ids = scorer.encode_prompt(p)
        for _ in range(6):
            ids.append(int(oracle.logits(scorer.model, ids)[-1].argmax()))
            if ids[-1] == scorer.eos:
                break
        alone.append(scorer.tokenizer.decode(ids[len(scorer.encode_prompt(p)):], skip_special_tokens=True))
    out = {}
    scorer.generate(prompts, Decoding(6), out.update)
    assert [out[i].text for i in range(3)] == alone


def test_generation_stops_before_a_stop_string(scorer):
    whole, cut = {}, {}
    scorer.generate(["one", "three"], Decoding(12), whole.update)
    stop = whole[0].text[3]
    scorer.generate(["one", "three"], Decoding(12, (stop,)), cut.update)
    assert cut[0].text == whole[0].text.split(stop)[0]
    assert cut[1].text == whole[1].text.split(stop)[0]
    assert cut[0].finished and not whole[0].finished


def test_cut_takes_the_first_of_several():
    assert batches.cut("a b c", ["c", " b"]) == "a"
    assert batches.cut("abc", ["", "x"]) == "abc"


