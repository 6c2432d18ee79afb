"""Copying, summaries and exams against naive oracles, and what each must not reward."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle import copy_oracle, rouge_oracle
from polygraft.evals import metrics
from polygraft.evals.items import Item, Response
from polygraft.evals.metrics import copying, exams, summaries
from polygraft.evals.metrics.base import LONGEST

SOURCE = "Mtoto alikwenda sokoni asubuhi, akanunua matunda mengi, kisha akarudi nyumbani kabla ya jua kuzama."


def copy_item(text=SOURCE, language="sw"):
    return Item("1", language, "", golds=(text,))


def score(name, item, response):
    m = metrics.get(name)
    return float(m.value(np.array(m.score(item, response), float)))


# -------------------------------------------------------------------------------------------------------------- copying


@settings(max_examples=150, deadline=None)
@given(st.text("abc ", max_size=14), st.text("abc ", max_size=14))
def test_matched_characters_are_those_of_the_naive_blocks(reference, text):
    wanted = copy_oracle.matching(reference, text) / len(reference) if reference else 0.0
    assert copying.matched(reference, text) == pytest.approx(wanted, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=1, max_size=300), st.integers(0, 300))
def test_a_copy_that_stops_early_is_worth_its_length(reference, stop):
    assert copying.matched(reference, reference) == 1.0
    assert copying.matched(reference, reference[:stop]) == pytest.approx(min(stop, len(reference)) / len(reference))


@pytest.mark.parametrize(("text", "reliable", "same"), [
    (SOURCE, 1, 1),
    (f"  {SOURCE}\n", 1, 1),
    (SOURCE[: len(SOURCE) // 2], 0, 0),  # divided by the answer's length it would count as copied: the published defect
    (SOURCE[:10], 0, 0),
    (SOURCE + " Na kisha wakala.", 1, 0),
    (SOURCE.replace("sokoni", "shambani"), 0, 0),
    ("", 0, 0),
    (SOURCE[::-1], 0, 0),
])
def test_what_counts_as_a_copy(text, reliable, same):
    assert score("copy reliability", copy_item(), Response(text=text)) == reliable
    assert score("identical copy", copy_item(), Response(text=text)) == same


@pytest.mark.parametrize(("written", "source", "wanted"), [(30, 30, 1.0), (60, 30, 0.5), (15, 30, 0.5), (128, 300, 1.0), (0, 30, 0.0)])
def test_length_in_tokens_is_the_smaller_over_the_larger_and_long_sources_are_capped(written, source, wanted):
    response = Response(text="x" if written else "", tokens=written, gold_tokens=source)
    assert score("copy length", copy_item(), response) == pytest.approx(wanted)


def test_old_small_pieces_show_in_tokens_and_not_in_characters():
    response = Response(text=SOURCE, tokens=60, gold_tokens=20)
    assert score("copy length", copy_item(), response) == pytest.approx(1 / 3)
    assert score("copy characters", copy_item(), response) == 1.0
    assert score("symbols per token", copy_item(), response) == pytest.approx(len(SOURCE) / 60)


def test_an_answer_cut_by_the_limit_was_not_asked_for_the_rest():
    cut = SOURCE[:40].strip()
    assert score("copy characters", copy_item(), Response(text=cut, finished=False)) == 1.0
    assert score("copy characters", copy_item(), Response(text=cut)) == pytest.approx(len(cut) / len(SOURCE))


def test_composed_and_decomposed_characters_are_the_same():
    assert score("identical copy", copy_item("Café"), Response(text="Cafe\u0301")) == 1.0


def test_a_huge_answer_is_compared_in_no_time():
    start = time.process_time()
    for text in ("x" * 1_000_000, SOURCE * 10_000, "ab" * 500_000):
        score("copy reliability", copy_item(SOURCE * 20), Response(text=text))
    assert time.process_time() - start < 5


# ------------------------------------------------------------------------------------------------------------ summaries


WORDS = st.lists(st.sampled_from(["кот", "сидит", "на", "окне", "und", "liest", "Ein", "42"]), max_size=12).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(WORDS, WORDS, st.sampled_from([1, 2]))
def test_rouge_is_that_of_counting(reference, answer, n):
    assert summaries.rouge(reference, answer, n) == pytest.approx(rouge_oracle.rouge(reference, answer, n), abs=1e-12)


def test_rouge_is_rouge_scores_own_in_english():
    rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")
    pairs = [("The cat sat on the mat.", "A cat is on the mat, on the mat"), ("one two three", "three two one"), ("a b", "c d")]
    for reference, answer in pairs:
        theirs = rouge_scorer.RougeScorer(["rouge1", "rouge2"]).score(reference, answer)
        for n in (1, 2):
            assert summaries.rouge(reference, answer, n) == pytest.approx((theirs[f"rouge{n}"].fmeasure, theirs[f"rouge{n}"].recall))


def test_every_script_has_words_where_the_usual_tokenizer_sees_nothing():
    assert summaries.words("Кот, СИДИТ") == ["кот", "сидит"]
    assert summaries.words("हिन्दी में") == ["हिन्दी", "में"]
    assert summaries.words("猫が好き。") == ["猫", "が", "好", "き"]
    assert summaries.words("ก็ดี abc") == ["ก็", "ดี", "abc"]
    assert summaries.words("… —") == []
    item = Item("1", "ru", "", golds=("Кот сидит на окне",))
    assert score("rouge-1/2", item, Response(text="кот сидит на окне!")) == 1.0
    assert score("rouge-1/2", item, Response(text="")) == 0.0


def test_the_paper_says_recall_which_long_answers_win():
    item = Item("1", "ru", "", golds=("Кот сидит",))
    long = Response(text="Кот сидит " + "и смотрит в окно " * 20)
    assert score("rouge-1/2 recall", item, long) == 1.0
    assert score("rouge-1/2", item, long) < 0.1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([-1.0, -2.0, -3.5]), min_size=2, max_size=9), st.data())
def test_r_precision_is_that_of_sorting(nats, data):
    relevant = data.draw(st.sets(st.integers(0, len(nats) - 1), min_size=1))
    item = Item("1", "ru", "", choices=tuple("s" for _ in nats), extra={"relevant": sorted(relevant)})
    assert score("r-precision", item, Response(nats=tuple(nats))) == pytest.approx(copy_oracle.r_precision(nats, relevant))


def test_a_text_without_important_sentences_counts_for_nothing():
    item = Item("1", "ru", "", choices=("a", "b"), extra={"relevant": []})
    assert summaries.r_precision(item, Response(nats=(-1.0, -2.0))) == (0.0, 0.0)


# ---------------------------------------------------------------------------------------------------------------- exams


@pytest.mark.parametrize(("kind", "task", "answer", "text", "wanted"), [
    ("multiple_choice", "1", "1,3", "3, 1", 1), ("multiple_choice", "1", "1,3", "1,3,4", 0), ("multiple_choice", "1", "1,3", "1", 0),
    ("multiple_choice", "16", "2,4", "2", 1), ("multiple_choice", "16", "2,4", "2,4", 2), ("multiple_choice", "16", "2,4", "2,3,4", 1),
    ("multiple_choice", "16", "2,4", "1,3,5,6", 0), ("matching", "26", "4,9,3,8", "4, 9, 3, 8", 4), ("matching", "26", "4,9,3,8", "4,3", 0),
    ("matching", "26", "4,9,3,8", "4,9,8,3", 2), ("text", "2", "поэтому,потому", "Поэтому.", 1), ("text", "2", "поэтому", "так", 0),
    ("text", "2", "поэтому", "", 0),
])
def test_points_of_the_exam(kind, task, answer, text, wanted):
    assert exams.points(kind, task, answer, text) == wanted


def test_the_grade_is_the_mean_over_variants_of_their_points_out_of_34():
    rows = [("a", 3, 2), ("a", 3, 1), ("a", 3, 0), ("b", 2, 2), ("b", 2, 2)]  # variant, its parts, points
    columns = np.array([[p / 34, 1 / parts] for _, parts, p in rows])
    got = metrics.get("grade").value(columns.sum(0))
    assert float(got) == pytest.approx(np.mean([3 / 34, 4 / 34]))
    item = Item("1", "ru", "", golds=("4,9",), extra={"type": "matching", "id_task": "26", "in_variant": 3})
    assert exams.grade(item, Response(text="4, 9")) == pytest.approx((2 / 34, 1 / 3))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("pqrst"), st.booleans()), min_size=1, max_size=40))
def test_category_accuracy_is_the_mean_of_means(rows):
    subjects, right = [s for s, _ in rows], [float(r) for _, r in rows]
    category = {"p": 0, "q": 0, "r": 1, "s": 3, "t": 3}
    items = [Item(str(i), "ru", "", choices=("A", "B"), extra={"category": category[s], "in_subject": subjects.count(s)})
             for i, s in enumerate(subjects)]
    columns = [exams.by_category(i, Response(nats=(-1.0, -2.0) if r else (-2.0, -1.0))) for i, r in zip(items, right)]
    got = float(exams.category_mean(np.sum(columns, axis=0)))
    assert got == pytest.approx(copy_oracle.subject_then_category(right, subjects, category))


def test_nothing_summed_is_nought_and_never_nan():
    for name in ("category accuracy", "grade", "symbols per token", "copy length", "r-precision", "nats per sentence"):
        m = metrics.get(name)
        k = 8 if name == "category accuracy" else 2
        assert m.value(np.zeros((3, k))).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("name", ["rouge-1/2", "chrF", "BLEU"])
def test_an_answer_of_a_megabyte_is_compared_as_far_as_any_task_lets_a_model_write(name):
    metric, item = metrics.get(name), Item("1", "en", "p", golds=("a short summary of a long text",))
    endless = "a summary, and more " * 50_000
    assert list(metric.score(item, Response(text=endless))) == list(metric.score(item, Response(text=endless[:LONGEST])))
    assert list(metric.score(item, Response(text=endless[:LONGEST - 100]))) != list(metric.score(item, Response(text=endless)))
