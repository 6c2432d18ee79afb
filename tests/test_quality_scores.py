"""chrF, BLEU, calibration error and likelihood gaps: functions of summed columns, against naive oracles and sacrebleu."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle import chrf_oracle, ece_oracle
from polygraft.evals import metrics
from polygraft.evals.items import Item, Response
from polygraft.evals.metrics import calibration, translation

VOCABULARY = ["the", "a", "cat", "dog", "sat", "on", "mat", "ran", "over", "big"]
WORDS = st.lists(st.sampled_from(VOCABULARY), max_size=8).map(" ".join)
SENTENCE = st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=8).map(" ".join)
NATS = st.lists(st.integers(-400, 0).map(lambda n: n / 10), min_size=2, max_size=5)


def total(name, pairs, language="en"):
    """A metric over (text, reference) pairs."""
    m = metrics.get(name)
    return float(m.value(np.sum([m.score(Item("1", language, "", golds=(r,)), Response(text=t)) for t, r in pairs], axis=0)))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(WORDS, SENTENCE), min_size=1, max_size=5))
def test_sums_give_the_corpus_scores_of_the_papers(pairs):
    texts, references = zip(*pairs)
    assert total("chrF", pairs) == pytest.approx(chrf_oracle.chrf(texts, references), abs=1e-9)
    assert total("BLEU", pairs) == pytest.approx(chrf_oracle.bleu(texts, references), abs=1e-9)


TEXTS = {
    "en": [("The cat sat on the mat, didn't it?", "The cat sat on a mat, did it not?"), ("", "Nothing was said."), ("Yes.", "Yes, of course it is.")],
    "ja": [("猫がマットの上に座った。", "猫はマットに座っていた。"), ("はい", "はい、そうです。")],
    "zh": [("猫坐在垫子上。", "那只猫坐在了垫子上。"), ("我有3个苹果", "我有三个苹果。")],
    "th": [("แมวนั่งบนเสื่อ", "แมวตัวนั้นนั่งบนเสื่อ")],
    "ar": [("جلست القطة على السجادة", "القطة جلست فوق السجادة.")],
}


@pytest.mark.parametrize("language", TEXTS)
def test_equal_to_sacrebleus_corpus_scores(language):
    from sacrebleu.metrics import BLEU, CHRF

    texts, references = zip(*TEXTS[language])
    tokenizer = {"ja": "char", "th": "char", "zh": "zh"}.get(language, "13a")
    assert translation.tokenizer(language) == tokenizer
    assert total("chrF", TEXTS[language], language) == pytest.approx(CHRF().corpus_score(texts, [references]).score, abs=1e-9)
    assert total("BLEU", TEXTS[language], language) == pytest.approx(BLEU(tokenize=tokenizer).corpus_score(texts, [references]).score, abs=1e-9)
    assert f"version:{__import__('sacrebleu').__version__}" in metrics.get("chrF").meaning


def test_several_references_as_sacrebleu_has_them():
    from sacrebleu.metrics import BLEU, CHRF

    item, text = Item("1", "en", "", golds=("the cat sat on the mat", "a cat was sitting on mats")), "the cat was sitting on the mat"
    for name, theirs in (("chrF", CHRF()), ("BLEU", BLEU())):
        m = metrics.get(name)
        ours = float(m.value(np.array(m.score(item, Response(text=text)))))
        assert ours == pytest.approx(theirs.corpus_score([text], [[g] for g in item.golds]).score, abs=1e-9)


def test_values_of_many_resamples_at_once():
    """Sums [..., k] of any shape, zeros included: what the bootstrap asks for."""
    for name in ("chrF", "BLEU", "calibration error"):
        m = metrics.get(name)
        k = {"chrF": 18, "BLEU": 10, "calibration error": 30}[name]
        rng = np.random.default_rng(0)
        sums = rng.integers(0, 9, (4, 3, k)).astype(float)
        sums[0, 0] = 0
        many = m.value(sums)
        assert many.shape == (4, 3) and np.isfinite(many).all() and many[0, 0] == 0
        assert many[2, 1] == pytest.approx(float(m.value(sums[2, 1])))


def test_an_item_without_reference_counts_nothing():
    for name in ("chrF", "BLEU"):
        assert not any(metrics.get(name).score(Item("1", "en", ""), Response(text="anything")))


# ---------------------------------------------------------------------------------------------------------- calibration


def items(draws):
    return [(tuple(n), t % len(n)) for n, t in draws]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(NATS, st.integers(0, 9)), min_size=1, max_size=30))
def test_calibration_error_is_that_of_the_bins(draws):
    for name, wanted in (("calibration error", ece_oracle.ece), ("brier", ece_oracle.brier)):
        m = metrics.get(name)
        columns = [m.score(Item("1", "en", "", choices=("x",) * len(n), target=t), Response(nats=n)) for n, t in items(draws)]
        assert float(m.value(np.sum(columns, axis=0))) == pytest.approx(wanted(items(draws)), abs=1e-9)


def test_planted_calibration():
    """Right as often as it is sure: no error. Always sure, right half of the time: half."""
    rng, m = np.random.default_rng(1), metrics.get("calibration error")

    def error(confidence, accuracy, n=4000):
        odds = np.log(confidence / (1 - confidence))
        columns = []
        for _ in range(n):
            right = rng.random() < accuracy
            columns.append(m.score(Item("1", "en", "", target=0 if right else 1), Response(nats=(-1.0, -1.0 - odds))))
        return float(m.value(np.sum(columns, axis=0)))

    assert error(0.75, 0.75) < 0.03
    assert error(0.99, 0.5) == pytest.approx(0.49, abs=0.03)
    table = calibration.reliability(np.sum([m.score(Item("1", "en", "", target=0), Response(nats=(-1.0, -3.0)))] * 3, axis=0), "t")
    assert [r[:2] for r in table.rows] == [("0.8 to 0.9", 3)] and table.rows[0][4] == pytest.approx(100 * (1 - 1 / (1 + np.exp(-2))))


def test_edges_of_calibration():
    m = metrics.get("calibration error")
    assert not any(m.score(Item("1", "en", ""), Response(nats=(-1.0,), greedy=(True,))))  # one choice says nothing
    tie = m.score(Item("1", "en", ""), Response(nats=(-2.0, -2.0)))
    assert float(m.value(np.array(tie))) == 0.5  # a tie is not a win
    far = m.score(Item("1", "en", ""), Response(nats=(-1.0, -1e5)))
    assert float(m.value(np.array(far))) == 0.0 and np.isfinite(far).all()


# ------------------------------------------------------------------------------------------------------ likelihood gaps


def gap(name, *rows):
    m = metrics.get(name)
    return float(m.value(np.sum([m.score(Item("1", "en", ""), Response(nats=r)) for r in rows], axis=0)))


def test_gaps_of_two_and_of_four():
    assert gap("likelihood gap", (-3.0, -5.0), (-5.0, -3.0)) == 2.0
    assert gap("likelihood lean", (-3.0, -5.0), (-5.0, -3.0)) == 0.0
    assert gap("likelihood lean", (-5.0, -3.0), (-5.0, -3.0)) == 2.0  # its size; the sign has a table of its own
    # the first name is commoner by 4 nats and the first adjective by 3: neither is a bias
    assert gap("likelihood gap", (-10.0, -14.0, -13.0, -17.0)) == 0.0
    # and beyond that, the first name goes with the first adjective by 1.5
    assert gap("likelihood gap", (-10.0, -15.5, -13.0, -17.0)) == 1.5
    assert gap("likelihood gap", (-1.0,)) == 0.0 and gap("likelihood gap", (-1.0, -2.0, -3.0)) == 0.0
