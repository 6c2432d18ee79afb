"""Numbers in the answers of the world: how they are written, which of them is the answer, and that any text is read in one pass."""

import sys
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hard_answers import HARD
from oracle import numeral_oracle
from polygraft.evals import answers
from polygraft.evals.answers import han
from polygraft.evals.items import Item, Response
from polygraft.evals.metrics import numbers


@pytest.mark.parametrize("language", HARD)
def test_hard_cases(language):
    wrong = [(text, gold, answers.answer(text)) for text, gold, right in HARD[language] if answers.correct(text, gold) is not right]
    assert not wrong and len(HARD[language]) >= 12


# ---------------------------------------------------------------------------------------------------- which number answers


@pytest.mark.parametrize(("text", "markers", "found"), [
    ("The answer is 18. That is 3 more.", ["The answer is"], "18"),
    ("the answer is 17. No: The answer is 18. Check: 2 * 9.", ["The answer is"], "18"),
    ("Die Antwort lautet 29 und 30", [], "29"), ("We have 5. The answer is", [], "5"), ("Ответ — 11.", [], "11"),
    ("答えは39個。余りは2", [], "39"), ("nothing", ["x"], None), ("4 and 5", [], "5"), ("Kq zwy 7, not 8.", ["kq ZWY"], "7"),
    ("The answer is:\n\n**18**\n\nHope that helps with all 3!", [], "18"), ("Answer: 18\n\nCheck: 9 * 2 = 18, 3 left", [], "18"),
    ("Answer: 16 - 3 = 13 eggs. She sells 12 of them.", [], "12"), ("#### 1. Count the eggs: 16\n#### 2. Sell 9", [], "9"),
    ("The answer is once again 12", [], "12"), ("The answer is one of many. So 7", [], "7"), ("The answer is twenty-one", [], None),
    ("Question: 3 apples?\nAnswer: 7", [], "7"), ("7 eggs\n\n### Instruction:\nCount 9", [], "7"), ("It is 7.<|im_end|>", [], "7"),
    ("Answer: 3 × 4 = 12", [], "12"), ("The answer is 12, because 24 / 2 = 12", [], "12"), ("The answer is 12/05/2020", [], "12/05/2020"),
    ("It costs $5 at 3:30", [], "5"), ("x = -5", [], "-5"), ("COVID-19", [], "19"), ("pages 3–5", [], "5"), ("答案是：小明一共有三只", [], "三"),
    ("答案是一万零一亿。", [], "一万零一亿"), ("12: 5", [], "5"),
])  # fmt: skip
def test_the_number_that_answers(text, markers, found):
    assert answers.answer(text, markers) == found


def test_the_last_number_of_all_is_a_metric_of_its_own():
    item = Item("1", "en", "?", golds=("18",))
    text = Response(text="The answer is 18, not 17")
    assert (numbers.right(item, text), numbers.parsed(item, text)) == ((1.0, 1.0), "18")
    assert (numbers.last_right(item, text), numbers.last_parsed(item, text)) == ((0.0, 1.0), "17")
    nothing = Item("2", "en", "?", golds=("0",)), Response()
    assert numbers.last_right(*nothing) == numbers.right(*nothing) == (0.0, 1.0) and numbers.last_parsed(*nothing) is None
    assert numbers.last_right(Item("3", "en", "?", golds=("-5",)), Response(text="so -5")) == (1.0, 1.0)
    assert numbers.fault(item) is None and numbers.fault(Item("4", "en", "?", golds=("five eggs",))) == "a number"


@pytest.mark.parametrize(("written", "values"), [
    ("1.234", {"1.234", "1234"}), ("1,00,000", {"100000"}), ("20%", {"20", "0.2"}), ("5‰", {"5", "0.005"}), ("3/4", {"0.75"}), ("5/0", set()),
    ("2 1/2", {"2.5"}), ("½", {"0.5"}), ("1⅛", {"1.125"}), ("-½", {"-0.5"}), (".5", {"0.5"}), ("3:30", set()), ("1.2.3", set()), ("", set()),
    ("twelve", {"12"}), ("apples", set()), ("$18", {"18"}), ("百分之二十", {"20", "0.2"}), ("5 million", {"5", "5000000"}), ("12 apples", set()),
    ("1" * 101, set()), ("1٬234٫5", {"1234.5"}), ("1，5", set()), ("0,125", {"0.125"}), ("三万", {"30000"}), ("万万", set()), ("minus 5", {"-5"}),
    ("1.5e3", {"1500"}), ("2e-2", {"0.02"}), ("1e999", set()),
])  # fmt: skip
def test_readings(written, values):
    assert answers.readings(written) == {Fraction(v) for v in values}


def test_values_without_end_are_compared_to_a_thousandth_and_others_exactly():
    assert answers.correct("about 0.333", "1/3") and answers.correct("1/3", "0.3333333333333333") and answers.correct("33.33", "100/3")
    assert not answers.correct("0.34", "1/3") and not answers.correct("1000.5", "1000") and not answers.correct("0.9999", "1")


# ------------------------------------------------------------------------------------------------------------- properties


@settings(deadline=None)
@given(st.integers(-(10**9), 10**9), st.sampled_from([",", ".", " ", "\u00a0", "\u202f", "'", "\u066c"]))
def test_grouped_whole_numbers_keep_their_value(n, mark):
    assert Decimal(n) in answers.readings(f"{n:,}".replace(",", mark))


@settings(deadline=None)
@given(st.decimals(-10**6, 10**6, places=2, allow_nan=False), st.sampled_from([".", ",", "\u066b"]))
def test_two_decimals_keep_their_value(x, mark):
    assert answers.readings(str(x).replace(".", mark)) == {x}


@settings(deadline=None)
@given(st.integers(0, 10**12 - 1))
def test_chinese_numerals_keep_their_value(n):
    written = numeral_oracle.han(n)
    assert n in han.whole(written) and n in answers.readings(written.translate(numeral_oracle.FINANCIAL))
    assert answers.correct(f"答案是{written}个。", str(n))


@settings(deadline=None)
@given(st.integers(-999, 999), st.integers(1, 999), st.sampled_from(numeral_oracle.zeros()))
def test_fractions_in_any_digits_keep_their_value(a, b, zero):
    assert answers.readings(numeral_oracle.native(f"{a}/{b}", zero)) == {Fraction(a, b)}


@settings(deadline=None)
@given(st.text(max_size=80) | st.text("0123456789.,'/: -–%½三十万点分之半一 $\\{}frac答は=+\n", max_size=80))
def test_any_text_is_read_without_error_and_what_is_found_reads_alike(text):
    found = answers.find(text)
    assert found is None or found.text == answers.answer(text)
    if found and found.values and not found.weak:
        assert answers.correct(text, str(min(found.values)))


# ------------------------------------------------------------------------------------------------------------- complexity

ENDLESS = {
    "digits": "1", "numbers": "1 ", "groups": "111 ", "commas": "1,", "slashes": "1/", "colons": "1:", "numerals": "十万", "fractions": "一分之",
    "markers": "the answer is ", "answered": "the answer is 5 ", "labels": "Answer: ", "labelled": "Answer: 5 ", "questions": "\nQuestion: ",
    "blank lines": "\n", "frac": "\\frac{1}{", "powers": "^{-", "minus": "- ", "minus words": "minus ", "number words": "twelve ", "units": "1万 ",
    "sums": "1+", "equations": "the answer is 1=", "quotes": "> ", "vulgar": "1 ½", "stars": "answer**", "backslashes": "\\", "halves": "2 x and a ",
}  # fmt: skip


@pytest.mark.parametrize("pattern", ENDLESS.values(), ids=ENDLESS)
def test_work_grows_as_the_text_does(pattern):
    def calls(size: int) -> int:
        count = 0

        def counted(frame, event, argument):
            nonlocal count
            count += event in ("call", "c_call")

        text = pattern * (size // len(pattern))
        sys.setprofile(counted)
        try:
            answers.correct(text, "7")
        finally:
            sys.setprofile(None)
        return count

    calls(200)  # what is computed once
    assert calls(8000) < 5 * calls(2000) + 500


@pytest.mark.parametrize("text", ["1 " * 20_000 + "x" * 900_000 + " 42", "4" * 1_000_000 + " 42", "\n" * 1_000_000 + "42",
                                  "a" + "\u0301\u0323" * 500_000 + " 42", "the answer is " * 70_000 + "42", "二" * 1_000_000 + " 42"])
def test_a_megabyte_is_read_in_one_pass(text):
    assert answers.correct(text, "42")
