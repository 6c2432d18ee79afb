"""Likelihoods against one-at-a-time float64 ones, for every family: branches of a trie, padded batches, whole documents."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny as make
from oracle import bpb_oracle as oracle
from oracle import stats_oracle
from polygraft.errors import InputError, ResourceError
from polygraft.evals import bpb
from polygraft.evals.engines import batches, tree
from polygraft.evals.engines.base import Decoding
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
    """Also: the batch size changes nothing, down to one token at a time."""
    one = Scorer(scorer.model, scorer.tokenizer, batch_tokens=batch_tokens)
    for (context, answer), (nats, _) in zip(pairs, scored(one, pairs), strict=True):
        want = oracle.continuation(scorer.model, *scorer.encode_pair(context, answer))[0] if answer else 0.0
        assert nats == pytest.approx(want, abs=2e-3)


@pytest.mark.parametrize("family", make.FAMILIES)
def test_which_families_read_branches(family):
    """Bloom places tokens by their column (ALiBi), so it must be found out and read in rows of its own."""
    scorer = Scorer(make.model(family, layers=2, seed=1), make.tokenizer())
    assert scorer.branches.exact(100) == (family != "bloom"), scorer.branches.why
    scored(scorer, PAIRS[:3])
    assert bool(scorer.notes) == (family == "bloom")


@pytest.mark.parametrize("family", ["llama", "bloom"])
def test_one_request_a_time_and_all_at_once_agree(family):
    scorer = Scorer(make.model(family, layers=2, seed=1), make.tokenizer(), batch_tokens=64)
    for pair, value in zip(PAIRS, scored(scorer, PAIRS)):
        assert scored(scorer, [pair])[0] == (pytest.approx(value[0], abs=1e-4), value[1])


def test_what_is_asked_together_is_computed_once(scorer):
    """Four options of one question after a long beginning: the model reads each token of the trie once."""
    scored(scorer, PAIRS[:1])  # the model has been tried
    read = []
    hook = scorer.model.model.layers[0].register_forward_pre_hook(
        lambda module, given, more: read.append((more.get("hidden_states") if not given else given[0]).shape[:2]), with_kwargs=True)
    try:
        scored(scorer, [("a beginning " * 8 + question, answer) for question in ("Q1 ", "Q2 ") for answer in (" A", " B", " C", " D")])
    finally:
        hook.remove()
    bytes_once = len("a beginning " * 8 + "Q") + 2 * len("1 ")  # the space that ends a context begins the answer
    assert all(rows == 1 for rows, _ in read)
    assert sum(n for _, n in read) == pytest.approx(bytes_once, abs=2)


def test_a_context_that_does_not_fit_loses_its_beginning(scorer):
    small = Scorer(scorer.model, scorer.tokenizer, max_length=15)  # and one token more that is predicted, not read
    long = "abcdefgh" * 10
    assert scored(small, [(long, "xyz")])[0][0] == pytest.approx(scored(scorer, [(long[-13:], "xyz")])[0][0], abs=1e-3)


@pytest.mark.parametrize("family", ["mistral", "phi3", "gemma2", "gemma3"])
def test_an_attention_window_is_kept_and_shared(family):
    """One kind of layer that sees a window, or two kinds of layers: sequences longer than the window are read as branches, too."""
    model = make.model(family, layers=2, seed=1, sliding_window=12, **({"layer_types": ["sliding_attention", "full_attention"]}
                                                                        if family == "gemma3" else {}))
    scorer = Scorer(model, make.tokenizer(), batch_tokens=20)
    pairs = [("a context of some length", " 12 + 7 = 19"), ("a context of some length", " 12 - 7 = 5"), ("a", " b")]
    for (context, answer), (nats, _) in zip(pairs, scored(scorer, pairs)):
        assert nats == pytest.approx(oracle.continuation(model, *scorer.encode_pair(context, answer))[0], abs=2e-3)
    assert scorer.branches.exact(60) and not scorer.notes


def test_angles_that_change_with_the_longest_sequence_are_not_shared():
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    scorer = Scorer(make.model("llama", layers=2, seed=1, rope_parameters=rope, max_position_embeddings=24), make.tokenizer())
    assert scorer.branches.exact(24) and not scorer.branches.exact(25)


def test_a_model_whose_branches_are_wrong_is_read_in_rows_of_its_own(scorer, monkeypatch):
    monkeypatch.setattr(tree.Trie, "visible", lambda self, path, start, stop: np.tri(stop - start, len(path) + stop - start, len(path)) > 0)
    wrong = Scorer(scorer.model, scorer.tokenizer)
    for (context, answer), (nats, _) in zip(PAIRS, scored(wrong, PAIRS)):
        want = oracle.continuation(scorer.model, *scorer.encode_pair(context, answer)) if answer else (0.0, True)
        assert nats == pytest.approx(want[0], abs=2e-3)
    assert "off by" in wrong.notes[0] and len(wrong.notes) == 1


@pytest.mark.parametrize("together", [True, False])
def test_logits_that_are_not_numbers_name_the_request(together):
    import torch

    model = make.model("llama", layers=2, seed=1)
    with torch.no_grad():
        model.get_input_embeddings().weight[make.tokenizer()("!", add_special_tokens=False)["input_ids"][0]] = float("nan")
    scorer = Scorer(model, make.tokenizer())
    scorer.branches._short = together
    with pytest.raises(InputError, match="for request 1"):
        scored(scorer, [("good", " one"), ("bad!", " two"), ("fine", " three")])
    with pytest.raises(InputError, match="for request 1"):
        scorer.generate(["good", "bad!"], Decoding(3), lambda found: None)


@pytest.mark.parametrize("family", ["llama", "bloom"])
def test_memory_that_runs_out_halves_the_batches(family, monkeypatch):
    import torch

    scorer = Scorer(make.model(family, layers=2, seed=1), make.tokenizer(), batch_tokens=400)
    quiet = scored(scorer, PAIRS)
    whole = scorer.model.forward

    def small(*args, **kwargs):
        if kwargs["input_ids"].numel() > 70:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(*args, **kwargs)

    monkeypatch.setattr(scorer.model, "forward", small)
    assert [x[0] for x in scored(scorer, PAIRS)] == pytest.approx([x[0] for x in quiet], abs=1e-3)
    assert scorer.batch_tokens < 200 and any("memory ran out" in n for n in scorer.notes)
    monkeypatch.setattr(scorer.model, "forward", lambda *a, **k: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory")))
    with pytest.raises(ResourceError, match="does not hold one batch"):
        scored(scorer, PAIRS)


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


def test_gathered_with_equal_logits_and_with_logits_of_minus_infinity():
    import torch

    logits = torch.tensor([[1.0, 3.0, 3.0, -math.inf], [0.0, 0.0, 0.0, 0.0]])
    nats, greedy = batches.gathered(logits, np.array([0, 0, 0, 1, 1]), np.array([1, 2, 3, 0, 3]))
    assert greedy.tolist() == [True, False, False, True, False]  # of equal logits the first is written
    e = -math.log(2 + math.exp(-2))
    assert np.allclose(nats, [e, e, -math.inf, -math.log(4), -math.log(4)])


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


