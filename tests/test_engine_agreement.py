"""The same requests through lm-eval's own hf backend: every item of every kind is answered alike by both."""

import numpy as np
import pytest

import tiny as make
from polygraft.evals.asking import Asker
from polygraft.evals.engines.hf import Scorer
from polygraft.evals.lm import lm_class

FAMILIES = ("llama", "qwen2", "bloom")  # bloom is read in padded rows, the others as branches of a trie
NATS, NEAR = 1e-3, 1e-4  # what likelihoods may differ by; best and second choice nearer than NEAR may come out either way
LONGEST = 512
QUESTIONS = [f"Q: {a} apples and {b} pears: how many {what}?\nA:" for a in range(2, 6) for b in (3, 7)
             for what in ("fruits", "légumes", "梨")]
OPTIONS = (" none", " 7", " 12", " as many as before")


@pytest.fixture(scope="module", params=FAMILIES)
def both(request):
    """(lm-eval's model, ours) around the same weights in float32."""
    from lm_eval.models.huggingface import HFLM

    more = {} if request.param == "bloom" else {"max_position_embeddings": LONGEST}
    model, tokenizer = make.model(request.param, layers=2, seed=7, **more), make.tokenizer()
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8, device="cpu", max_length=LONGEST)
    ours = lm_class()(Asker(Scorer(model, tokenizer, batch_tokens=192, max_length=LONGEST)))
    return theirs, ours


def asked(kind, arguments):
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, given, i) for i, given in enumerate(arguments)]


def likelihoods(both, pairs):
    theirs, ours = (lm.loglikelihood(asked("loglikelihood", pairs)) for lm in both)
    return theirs, ours


def questions(shots):
    block = "".join(q + OPTIONS[i % 4] + "\n\n" for i, q in enumerate(QUESTIONS[:shots]))
    return [[(block + q, option) for option in OPTIONS] for q in QUESTIONS[shots:]]


def minimal_pairs():
    return [[("", f"The {a} that the {b}s see {verb}.") for verb in ("runs", "run")] for a in ("dog", "été", "кот")
            for b in ("cat", "fox")]


@pytest.mark.parametrize(("kind", "items"), [("0-shot", questions(0)), ("5-shot", questions(5)), ("minimal pairs", minimal_pairs())])
def test_choices(both, kind, items, record_property):
    theirs, ours = likelihoods(both, [pair for item in items for pair in item])
    assert [nats for nats, _ in ours] == pytest.approx([nats for nats, _ in theirs], abs=NATS)
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]
    table = [np.reshape([nats for nats, _ in found], (len(items), -1)) for found in (theirs, ours)]
    best, second = np.sort(table[0], axis=1)[:, -1], np.sort(table[0], axis=1)[:, -2]
    near = best - second < NEAR
    record_property("near_ties", int(near.sum()))
    assert near.sum() <= len(items) // 10, "so many near-ties that nothing would be compared"
    assert np.array_equal(table[0].argmax(axis=1)[~near], table[1].argmax(axis=1)[~near])


def written(both, prompts, stops):
    options = {"until": stops, "max_gen_toks": 24, "do_sample": False}
    theirs, ours = (lm.generate_until(asked("generate_until", [(p, dict(options)) for p in prompts])) for lm in both)
    assert ours == theirs
    return ours


def test_written_answers(both):
    """Greedy, cut before the first of several stop strings: one that comes in an answer, and some that may never come."""
    prompts = [*QUESTIONS[:8], QUESTIONS[0] + OPTIONS[1] + "\n\n" + QUESTIONS[1]]
    free = written(both, prompts, ["\n\n", "Q:"])
    stop = free[0][5:7]
    assert stop and written(both, prompts, ["\n\n", stop, "Q:"])[0] == free[0].partition(stop)[0]


def test_whole_documents(both):
    """Shorter than the context, as long as it, and so long that windows are needed."""
    texts = ["a", "ein Satz, dann noch einer", "梨 and apples " * 20, "x" * LONGEST, "y" * (LONGEST + 1), " ".join(QUESTIONS * 2)]
    theirs, ours = (lm.loglikelihood_rolling(asked("loglikelihood_rolling", [(t,) for t in texts])) for lm in both)
    assert ours == pytest.approx(theirs, abs=NATS)
