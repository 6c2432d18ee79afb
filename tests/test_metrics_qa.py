"""Answers to questions in any script, and classes from a summed confusion matrix."""

import math
import unicodedata

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from oracle import qa_oracle
from polygraft.evals import metrics
from polygraft.evals.items import Item, Response
from polygraft.evals.metrics import labels, qa


def asked(*golds, language="en", **more):
    return Item("1", language, "?", golds=golds, **more)


def wrote(text):
    return Response(text=text)


# ---------------------------------------------------------------------------------------------------------------- answers


WORDS = st.lists(st.sampled_from(["the", "The", "a", "cat", "Cats", "dog", "don't", "U.S.", "4,000", "-", "an", "x", "  "]), max_size=8)


@given(WORDS, WORDS)
@example(["cat", "cat", "dog"], ["cat", "dog", "dog"])
def test_english_scores_as_squad(gold, answer):
    gold, answer = " ".join(gold), " ".join(answer)
    if not qa_oracle.squad_words(gold) or not qa_oracle.squad_words(answer):
        return  # SQuAD lets nothing match nothing; tested below
    item, response = asked(gold), wrote(answer)
    assert qa.exact_match(item, response) == (float(qa_oracle.squad_words(gold) == qa_oracle.squad_words(answer)), 1.0)
    assert qa.f1(item, response)[0] == pytest.approx(qa_oracle.squad_f1(gold, answer), abs=1e-12)


@pytest.mark.parametrize(("language", "gold", "answer"), [
    ("sw", "Mwaka wa 1999", "mwaka wa 1999."), ("ru", "«Зенит»", "зенит"), ("fi", "Suomen tasavalta", "tasavalta"),
    ("ar", "القاهرة", "في القاهرة"), ("ar", "البيت الأبيض", "بيت أبيض"), ("ko", "서울특별시", "서울 특별시"), ("te", "హైదరాబాదు", "హైదరాబాదు!"),
    ("en", "the White House", "White House, the"), ("id", "Jakarta Pusat", "Pusat Jakarta"),
])  # fmt: skip
def test_spaced_languages_score_as_lm_eval_scores_tydiqa(language, gold, answer):
    utils = pytest.importorskip("lm_eval.tasks.tydiqa.utils")
    item, response = asked(gold, language=language), wrote(answer)
    assert qa.exact_match(item, response)[0] == utils.exact_match_score(answer, gold, language)
    assert qa.f1(item, response)[0] == pytest.approx(utils.f1_score(answer, gold, language))


@pytest.mark.parametrize(("language", "gold", "answer", "match", "f1"), [
    ("de", "die Stadt Berlin", "Berlin", 0, 2 / 3), ("de", "das Haus", "Haus.", 1, 1), ("es", "los Estados Unidos", "Estados Unidos", 1, 1),
    ("vi", "những con mèo", "con mèo", 1, 1), ("fr", "l’homme", "homme", 1, 1), ("it", "dell'arte", "arte", 1, 1),
    ("en", "l'homme", "homme", 0, 0),  # French articles are French only
    ("hi", "१९४७ में", "1947 में", 1, 1), ("bn", "১৯৭১", "1971", 1, 1), ("ar", "١٩٩٢", "1992", 1, 1), ("fa", "۱۳۵۷", "1357", 1, 1),
    ("my", "၁၉၄၈", "1948", 1, 1), ("th", "๒๕๔๗", "2547", 1, 1), ("zh", "136 次", "136次", 1, 1), ("zh", "卡万·肖特", "卡万肖特", 1, 1),
    ("zh", "四次", "四", 0, 2 / 3), ("ja", "小笠原諸島", "小笠原諸島を除く", 0, 10 / 13), ("th", "กรุงเทพ", "กรุงเทพฯ", 0, None),
    ("km", "ភ្នំពេញ", "ភ្នំពេញ។", 1, 1), ("lo", "ວຽງຈັນ", "ວຽງຈັນ ", 1, 1), ("ru", "Ёлка", "ёлка", 1, 1), ("el", "ΟΔΟΣ", "οδός", 0, 0),
    ("el", "ΟΔΟΣ", "οδος", 1, 1), ("tr", "İSTANBUL", "istanbul", 1, 1), ("tr", "ISPARTA", "ısparta", 1, 1),
    ("de", "STRASSE", "Straße", 1, 1), ("zh", "ＡＢＣ１２", "abc12", 1, 1), ("fa", "دانش‌آموز", "دانشآموز", 1, 1),
    ("he", "תל־אביב", "תל אביב", 0, 0), ("es", "¿qué?", "qué", 1, 1), ("am", "አዲስ፡አበባ", "አዲስአበባ", 1, 1),
])  # fmt: skip
def test_script_aware(language, gold, answer, match, f1):
    item, response = asked(gold, language=language), wrote(answer)
    assert qa.exact_match(item, response)[0] == match
    if f1 is not None:
        assert qa.f1(item, response)[0] == pytest.approx(f1)
    else:
        assert 0.5 < qa.f1(item, response)[0] < 1


def test_the_best_gold_counts():
    item = asked("Leonard Howell", "Howell", "L. P. Howell")
    assert qa.exact_match(item, wrote("howell"))[0] == 1
    assert qa.f1(item, wrote("Leonard P. Howell"))[0] == pytest.approx(4 / 5)
    both = metrics.get("mean of f1 and exact_match")
    assert both.value(np.array(both.score(item, wrote("Leonard P. Howell")))) == pytest.approx(0.4)


@pytest.mark.parametrize(("gold", "answer", "match"), [
    ("The The", "the the", 1), ("The The", "", 0), ("The The", "who", 0), ("+", "+", 1), ("+", "", 0), ("+", "-", 0), ("?!", " ?! ", 1),
])  # fmt: skip
def test_answers_of_nothing_but_articles_or_signs_are_taken_as_they_are(gold, answer, match):
    item = asked(gold)
    assert (qa.exact_match(item, wrote(answer))[0], qa.f1(item, wrote(answer))[0]) == (match, match)


@pytest.mark.parametrize("text", ["", " ", "\n", "\u200b", "\ufeff", "\u202e", "\x00"])
def test_an_empty_answer_scores_nothing(text):
    assert (qa.exact_match(asked("x"), wrote(text)), qa.f1(asked("x"), wrote(text))) == ((0.0, 1.0), (0.0, 1.0))


@given(st.text(max_size=30), st.sampled_from(["en", "fr", "ar", "tr", "zh", "th", "hi", "zh-Hant", ""]))
def test_scores_are_defined_for_any_text(text, language):
    item = asked(text, "y", language=language)
    for form in ("NFC", "NFD"):
        twin = unicodedata.normalize(form, text)
        assert qa.tokens(twin, language) == qa.tokens(text, language)
    if text.strip():
        assert qa.exact_match(item, wrote(text)) == (1.0, 1.0) and qa.f1(item, wrote(text))[0] == pytest.approx(1)
    assert 0 <= qa.f1(item, wrote(text + " z"))[0] <= 1


# ---------------------------------------------------------------------------------------------------------------- classes


def summed(pairs, classes):
    """Sums of the columns of choice items with these (right, given) classes."""
    total = np.zeros(classes * (classes + 1))
    for right, given_ in pairs:
        nats = [-2.0] * classes
        nats[given_] = -1.0
        total += labels.cells(Item("1", "en", "?", choices=("x",) * classes, target=right), Response(nats=tuple(nats)))
    return total


PAIRS = st.integers(2, 5).flatmap(lambda k: st.tuples(st.just(k), st.lists(st.tuples(*[st.integers(0, k - 1)] * 2), min_size=1,
                                                                           max_size=30)))


@settings(deadline=None)  # the first example waits for sklearn
@given(PAIRS)
@example((2, [(0, 0), (0, 0)]))  # one class only: no correlation to speak of
@example((2, [(0, 1), (1, 0)]))
@example((3, [(0, 0), (1, 1), (2, 2)]))
def test_class_metrics_against_naive_ones_and_sklearn(found):
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    classes, pairs = found
    right, given_ = [a for a, _ in pairs], [b for _, b in pairs]
    sums = summed(pairs, classes)
    values = {name: float(metrics.get(name).value(sums)) for name in ("mcc", "macro_f1", "mean of acc and mcc",
                                                                      "mean of acc and macro_f1")}
    assert values["mcc"] == pytest.approx(qa_oracle.mcc(right, given_), abs=1e-9)
    assert values["macro_f1"] == pytest.approx(qa_oracle.macro_f1(right, given_, classes), abs=1e-12)
    if len(set(right)) > 1:
        assert values["mcc"] == pytest.approx(matthews_corrcoef(right, given_), abs=1e-9)
    assert values["macro_f1"] == pytest.approx(f1_score(right, given_, average="macro", zero_division=0), abs=1e-12)
    accuracy = accuracy_score(right, given_)
    assert values["mean of acc and mcc"] == pytest.approx((accuracy + values["mcc"]) / 2)
    assert values["mean of acc and macro_f1"] == pytest.approx((accuracy + values["macro_f1"]) / 2)


def test_values_of_many_sums_at_once_and_of_none():
    one, other = summed([(0, 0), (1, 1), (1, 0)], 2), summed([(0, 1)], 2)
    for name in ("mcc", "macro_f1", "mean of acc and mcc", "mean of acc and macro_f1"):
        value = metrics.get(name).value
        assert value(np.stack([one, other, np.zeros(6)])).tolist() == [value(one), value(other), 0.0]
        assert all(math.isfinite(x) for x in value(np.zeros((3, 4, 6))).ravel())


def test_a_planted_bias_shows_in_mcc_and_not_in_accuracy():
    sums = summed([(1, 1)] * 70 + [(0, 1)] * 30, 2)  # always "acceptable": RuCoLA's share of acceptable sentences is 70 %
    assert float(labels.share_right(labels.matrix(sums).reshape(sums.shape))) == pytest.approx(0.7)
    assert float(metrics.get("mcc").value(sums)) == 0.0
    assert float(metrics.get("macro_f1").value(sums)) == pytest.approx((2 * 70 / 170) / 2)


@pytest.mark.parametrize(("text", "place"), [
    ("1", 1), ("0", 0), (" 1.", 1), ("Ответ: 1", 1), ("10", None), ("", None), ("0 или 1", 0), ("да", None), ("１", 1), ("١", 1),
])  # fmt: skip
def test_the_first_label_in_a_written_answer_counts(text, place):
    assert labels.named(["0", "1"], text) == place
    item = asked("1", language="ru", extra={"labels": ["0", "1"]})
    assert metrics.get("labels.accuracy").score(item, wrote(text)) == (float(place == 1), 1.0)
    assert metrics.get("mcc").parse(item, wrote(text)) == (None if place is None else str(place))


def test_the_longer_of_two_labels_and_labels_of_several_words():
    assert labels.named(["positive", "not positive"], "It is not positive.") == 1
    assert labels.named(["含意", "矛盾", "中立"], "答えは矛盾です") == 1
    assert labels.named(["нет", "нет ответа"], "Нет ответа") == 1


def test_an_answer_without_a_label_is_wrong_and_of_no_class():
    item = asked("0", extra={"labels": ["0", "1"]})
    assert labels.cells(item, wrote("?")) == [0, 0, 1, 0, 0, 0]
    sums = np.array(labels.cells(item, wrote("?"))) + labels.cells(asked("1", extra={"labels": ["0", "1"]}), wrote("1"))
    assert float(metrics.get("macro_f1").value(sums)) == pytest.approx(0.5)
    assert float(labels.share_right(sums)) == 0.5


@pytest.mark.parametrize(("item", "says"), [
    (asked("0"), "extra"), (asked("0", extra={"labels": "01"}), "extra"), (asked("0", extra={"labels": ["0"]}), "extra"),
    (asked("2", extra={"labels": ["0", "1"]}), "one of 0, 1"), (asked(extra={"labels": ["0", "1"]}), "one of"),
])  # fmt: skip
def test_items_without_classes_are_refused(item, says):
    assert says in (labels.fault(item) or "")
    assert labels.fault(Item("1", "en", "?", choices=("a", "b"))) is None


def test_length_weighs():
    item = Item("1", "ja", "?", choices=("はい", "いいえ、そうではありません"), target=1)
    response = Response(nats=(-3.0, -8.0))
    assert metrics.get("acc_norm").score(item, response) == (1.0, 1.0)  # -1.5 and -0.62 a character
    assert metrics.get("acc_bytes").score(item, response) == (1.0, 1.0)
    mixed = Item("1", "ja", "?", choices=("abcdef", "はい"), target=1)
    assert metrics.get("acc_norm").score(mixed, Response(nats=(-6.0, -3.0)))[0] == 0.0  # -1 and -1.5 a character
    assert metrics.get("acc_bytes").score(mixed, Response(nats=(-6.0, -3.0)))[0] == 1.0  # -1 and -0.5 a byte
    assert metrics.get("acc_norm").score(mixed, Response(nats=(-3.0, -1.0)))[0] == 0.0  # a tie is not a win


def test_a_tie_is_wrong_in_the_confusion_matrix():
    for target in (0, 1):
        item = Item("1", "en", "?", choices=("a", "b"), target=target)
        assert labels.answered(item, Response(nats=(-1.0, -1.0))) == (target, 1 - target, 2)
