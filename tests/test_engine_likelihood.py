"""Likelihoods against one-at-a-time float64 ones, for every family: branches of a trie, padded batches, whole documents."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny as make
from oracle import bpb_oracle as oracle
from oracle import stats_oracle
from polygraft.errors import InputError
from polygraft.evals import bpb
from polygraft.evals.engines import batches
from polygraft.evals.engines.hf import Scorer

PAIRS = [
    ("How many?", " 12 + 7 = 19"), ("How many?", " 12 - 7 = 5"), ("How many?", " 12 + 7 = 18"), ("How many?", " 12 + 7 = 19 and more"),
    ("How many?", " 12"), ("Q", "x"), ("Q", "yz"), ("", "start"), ("", "stop"), ("a longer context than the others ", "é"),
    ("trailing space ", "joined"), ("again", ""), ("How many?", "z"),
]


@pytest.fixture(scope="module")
def scorer():
    return Scorer(make.model("llama", layers=2, seed=3), make.tokenizer(), batch_tokens=64)


def scored(scorer, pairs):
    found = {}
    scorer.pairs(pairs, found.update)
    return [found[i] for i in range(len(pairs))]


@pytest.mark.parametrize("family", make.FAMILIES)
def test_likelihoods_of_every_family(family):
    scorer = Scorer(make.model(family, layers=2, seed=1), make.tokenizer(), batch_tokens=96)
    for (context, answer), (nats, greedy) in zip(PAIRS, scored(scorer, PAIRS)):
        want = oracle.continuation(scorer.model, *scorer.encode_pair(context, answer)) if answer else (0.0, True)
        assert nats == pytest.approx(want[0], abs=2e-3), (context, answer)
        assert greedy == want[1]


@pytest.mark.parametrize("family", make.FAMILIES)
def test_bits_per_byte_of_every_family(family):
    scorer = Scorer(make.model(family, layers=2, seed=1), make.tokenizer(), batch_tokens=96)
    texts = ["", "a", "twelve apples and seven pears, nineteen fruits", "短い文"]
    for text, got in zip(texts, bpb.score_documents(scorer, texts, window=24, stride=8), strict=True):
        ids = [1, *scorer.ids(text)]
        assert got.nats == pytest.approx(oracle.windowed(scorer.model, ids, 1, 24, 8), abs=2e-3)
        assert (got.bytes, got.tokens) == (len(text.encode()), len(ids) - 1)


def test_a_planted_preference_is_found():
    """With the output row of one byte raised along the hidden state, that byte is the greedy answer and beats all others."""
    import torch

    model, tokenizer = make.model("llama", layers=2, seed=3), make.tokenizer()
    scorer = Scorer(model, tokenizer)
    with torch.no_grad():
        hidden = model.model(input_ids=torch.tensor([scorer.encode_prompt("Ask me:")])).last_hidden_state[0, -1]
        model.lm_head.weight[scorer.ids("7")[0]] = hidden
    answers = scored(scorer, [("Ask me:", "7"), ("Ask me:", "8"), ("Ask me:", "77")])
    assert answers[0][1] and not answers[1][1]
    assert answers[0][0] > -0.1 and answers[0][0] > answers[1][0]


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.sampled_from(["", "a", "ab", "abc "]), st.text("abc", max_size=5)), min_size=1, max_size=8),
       st.integers(1, 40))
def test_any_mix_of_contexts_and_answers(scorer, pairs, batch_tokens):
    one = Scorer(scorer.model, scorer.tokenizer, batch_tokens=batch_tokens)
    for (context, answer), (nats, _) in zip(pairs, scored(one, pairs), strict=True):
        want = oracle.continuation(scorer.model, *scorer.encode_pair(context, answer))[0] if answer else 0.0
        assert nats == pytest.approx(want, abs=2e-3)


def test_a_context_that_does_not_fit_loses_its_beginning(scorer):
    small = Scorer(scorer.model, scorer.tokenizer, max_length=15)  # and one token more that is predicted, not read
    long = "abcdefgh" * 10
    assert scored(small, [(long, "xyz")])[0][0] == pytest.approx(scored(scorer, [(long[-13:], "xyz")])[0][0], abs=1e-3)


def test_near_the_end_of_a_sliding_window_nothing_is_shared():
    model = make.model("mistral", layers=2, seed=1, sliding_window=12)
    scorer = Scorer(model, make.tokenizer())
    pairs = [("a context of some length", " 12 + 7 = 19"), ("a context of some length", " 12 - 7 = 5")]
    for (context, answer), (nats, _) in zip(pairs, scored(scorer, pairs)):
        assert nats == pytest.approx(oracle.continuation(model, *scorer.encode_pair(context, answer))[0], abs=2e-3)


@pytest.mark.parametrize("chat", [True, False])
def test_leading_tokens_are_not_doubled(scorer, chat):
    scorer = Scorer(scorer.model, make.tokenizer(chat))
    scorer.leading = [1]  # as a tokenizer that puts BOS before every text
    assert scorer.encode_prompt("ab") == [1, *scorer.ids("ab")]
    assert scorer.encode_prompt("<s>ab") == [1, *scorer.ids("ab")]


def test_an_empty_prompt_without_bos_or_eos_is_refused(scorer):
    tokenizer = make.tokenizer()
    tokenizer.bos_token = tokenizer.eos_token = None
    with pytest.raises(InputError, match="neither BOS nor EOS"):
        Scorer(scorer.model, tokenizer).encode_prompt("")



@given(st.lists(st.integers(1, 60), max_size=30), st.integers(1, 100))
def test_batches_hold_every_item_once_within_the_budget(lengths, tokens):
    found = batches.by_length(lengths, tokens)
    assert sorted(i for b in found for i in b) == list(range(len(lengths)))
    for b in found:
        assert len(b) == 1 or max(lengths[i] for i in b) * len(b) <= tokens


def test_gathered_in_blocks_is_a_log_softmax(monkeypatch):
    import torch

    logits, ids = torch.randn(3, 5, 11) * 8, torch.randint(0, 11, (3, 5))
    monkeypatch.setattr(batches, "LOGIT_BLOCK", 20)
    nats, greedy = batches.gathered(logits.reshape(-1, 11), np.arange(15), ids.reshape(-1))
    want, ids = oracle.log_softmax(logits.numpy()).reshape(-1, 11), ids.numpy().reshape(-1)
    assert np.allclose(nats, want[np.arange(15), ids], atol=1e-5)
    assert (greedy == (want.argmax(1) == ids)).all()


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 2), st.integers(3, 20), st.integers(1, 19))
def test_windows_score_every_token_once_with_enough_context(n, context, window, stride):
    stride = min(stride, window - 1)
    context = min(context, n)
    found = bpb.windows(n, context, window, stride)
    scored_tokens = [t for start, stop, k in found for t in range(stop - k, stop)]
    assert scored_tokens == list(range(context, n))
    assert all(stop - start <= max(window, context) and (start == 0 or stop - k - start >= window - stride) for start, stop, k in found)


def test_bits_per_byte_is_nats_over_bytes():
    docs = [bpb.Scored(3.0, 4, 2), bpb.Scored(5.0, 6, 3)]
    assert bpb.bits_per_byte(docs) == pytest.approx(stats_oracle.bits_per_byte([3.0, 5.0], "x" * 10))
    with pytest.raises(ValueError):
        bpb.bits_per_byte([bpb.Scored(0.0, 0, 0)])


def test_without_bos_the_first_token_is_given_and_its_bytes_are_not_counted(scorer):
    tokenizer = make.tokenizer()
    tokenizer.bos_token = None
    one = Scorer(scorer.model, tokenizer)
    got = bpb.score_documents(one, ["abcd", "é!", "", "x"])
    assert [(d.bytes, d.tokens) for d in got] == [(3, 3), (1, 1), (0, 0), (0, 0)]  # é is two tokens: both are given
    ids = one.ids("abcd")
    assert got[0].nats == pytest.approx(oracle.windowed(scorer.model, ids, 1, 1024, 512), abs=1e-3)


