"""Written answers: greedy ones against one-at-a-time decoding, for every family; stops, limits, draws."""

import numpy as np
import pytest

import tiny as make
from oracle import bpb_oracle as oracle
from polygraft.evals.engines import batches, writing
from polygraft.evals.engines.base import Decoding
from polygraft.evals.engines.hf import Scorer
from polygraft.evals.engines.writing import Answer


@pytest.fixture(scope="module")
def scorer():
    return Scorer(make.model("llama", layers=2, seed=3), make.tokenizer(), batch_tokens=64)



PROMPTS = ["one", "a much longer prompt than the first", "two", "a much longer prompt than the second, which it begins like"]


def naive(scorer, prompt, limit, ends):
    """Greedy decoding, the whole sequence through the model for every token."""
    ids = scorer.encode_prompt(prompt)
    start = len(ids)
    while len(ids) < start + limit and not (len(ids) > start and ids[-1] in ends):
        ids.append(int(oracle.logits(scorer.model, ids)[-1].argmax()))
    return [t for t in ids[start:] if t not in ends]


def written(scorer, prompts, decoding):
    found = {}
    scorer.generate(prompts, decoding, found.update)
    return [found[i] for i in range(len(prompts))]


@pytest.mark.parametrize("family", make.FAMILIES)
def test_every_family_writes_what_greedy_decoding_writes(family):
    scorer = Scorer(make.model(family, layers=2, seed=1), make.tokenizer(), batch_tokens=64)
    for prompt, answer in zip(PROMPTS, written(scorer, PROMPTS, Decoding(6))):
        want = naive(scorer, prompt, 6, scorer.ends)
        assert answer.text == scorer.tokenizer.decode(want, skip_special_tokens=True)
        assert answer.tokens == 6 or (answer.finished and answer.tokens == len(want) + 1)


@pytest.mark.parametrize("batch_tokens", [1, 40, 400])
def test_many_answers_come_and_go(scorer, batch_tokens):
    """Answers of many lengths, more than are written at a time: none changes another."""
    prompts = [f"the same beginning for all of them, {'x' * (i % 5)}{i}" for i in range(24)]
    whole = written(scorer, prompts, Decoding(12))
    stops = tuple(sorted({a.text[-3:][:1] for a in whole if a.text}))[:3]
    assert len(stops) == 3
    few = Scorer(scorer.model, scorer.tokenizer, batch_tokens=batch_tokens)
    for full, answer in zip(whole, written(few, prompts, Decoding(12, stops))):
        assert answer.text == batches.cut(full.text, stops)
        assert answer.finished == (full.finished or any(s in full.text for s in stops))
        assert answer.tokens <= full.tokens


def test_prompts_that_share_nothing_have_turns_of_their_own(scorer):
    prompts = ["a" * 60 + str(i) for i in range(3)] + ["b" * 60 + str(i) for i in range(3)] + ["", "a"]
    alone = [written(scorer, [p], Decoding(5))[0] for p in prompts]
    assert written(scorer, prompts, Decoding(5)) == alone


@pytest.mark.parametrize("family", ["llama", "bloom"])
def test_generation_stops_before_a_stop_string(family):
    scorer = Scorer(make.model(family, layers=2, seed=3), make.tokenizer(), batch_tokens=64)
    whole = written(scorer, ["one", "three"], Decoding(12))
    stop = whole[0].text[3:5]
    cut = written(scorer, ["one", "three"], Decoding(12, (stop,)))
    assert [a.text for a in cut] == [a.text.split(stop)[0] for a in whole]
    assert cut[0].finished and not whole[0].finished and cut[0].tokens < whole[0].tokens == 12


@pytest.mark.parametrize("family", ["llama", "bloom"])
def test_an_end_token_ends_an_answer_and_is_not_text(family):
    model = make.model(family, layers=2, seed=3)
    scorer = Scorer(model, make.tokenizer())
    tokens = naive(scorer, "one", 6, scorer.ends)
    model.generation_config.eos_token_id = [tokens[2], 2]
    again = Scorer(model, make.tokenizer())
    answer = written(again, ["one"], Decoding(6))[0]
    first = tokens.index(tokens[2])
    assert (answer.text, answer.tokens, answer.finished) == (scorer.tokenizer.decode(tokens[:first]), first, True)


@pytest.mark.parametrize("family", ["llama", "bloom"])
def test_draws_depend_on_seed_and_prompt_alone(family):
    scorer = Scorer(make.model(family, layers=2, seed=3), make.tokenizer(), batch_tokens=64)
    warm = Decoding(8, temperature=1.5, seed=7)
    together = written(scorer, PROMPTS, warm)
    assert [written(scorer, [p], warm)[0] for p in PROMPTS] == together
    assert written(scorer, PROMPTS, Decoding(8, temperature=1.5, seed=8)) != together
    assert written(scorer, PROMPTS, Decoding(8, temperature=1.5, top_p=1e-6)) == written(scorer, PROMPTS, Decoding(8))


def test_draws_follow_the_nucleus():
    import torch

    logits = torch.tensor([[2.0, 1.0, 0.0, -9.0]])
    drawn = [writing.choose(logits, [Answer(None, (), [k], Decoding(1, temperature=2.0, top_p=0.8), 1)])[0] for k in range(2000)]
    share = np.bincount(drawn, minlength=4) / 2000
    want = np.exp([1.0, 0.5]) / np.exp([1.0, 0.5]).sum()  # 0.51 + 0.31 pass 0.8: the third one is out
    assert share[2:].sum() == 0 and np.allclose(share[:2], want, atol=0.04)


def test_a_prompt_that_does_not_fit_loses_its_beginning(scorer):
    small = Scorer(scorer.model, scorer.tokenizer, max_length=20)
    long = "abcdefgh" * 10
    assert written(small, [long], Decoding(4)) == written(scorer, [long[-16:]], Decoding(4))


def test_memory_that_runs_out_while_writing_loses_no_answer(scorer, monkeypatch):
    import torch

    one = Scorer(scorer.model, scorer.tokenizer, batch_tokens=512)
    quiet, whole, calls = written(one, PROMPTS, Decoding(6)), one.model.forward, []

    def sometimes(*args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(*args, **kwargs)

    monkeypatch.setattr(one.model, "forward", sometimes)
    assert written(one, PROMPTS, Decoding(6)) == quiet and one.batch_tokens == 256 and len(one.notes) == 1


def test_cut_takes_the_first_of_several():
    assert batches.cut("a b c", ["c", " b"]) == "a"
    assert batches.cut("abc", ["", "x"]) == "abc"


