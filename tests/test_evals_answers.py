"""Numbers in the answers of the world: digits, separators, signs, and which number is the answer."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polygraft.evals import answers

DIGITS = {
    "ascii": "0123456789", "full-width": "０１２３４５６７８９", "arabic-indic": "٠١٢٣٤٥٦٧٨٩", "persian": "۰۱۲۳۴۵۶۷۸۹", "devanagari": "०१२३४५६७८९",
    "bengali": "০১২৩৪৫৬৭৮৯", "gurmukhi": "੦੧੨੩੪੫੬੭੮੯", "gujarati": "૦૧૨૩૪૫૬૭૮૯", "tamil": "௦௧௨௩௪௫௬௭௮௯", "telugu": "౦౧౨౩౪౫౬౭౮౯",
    "kannada": "೦೧೨೩೪೫೬೭೮೯", "malayalam": "൦൧൨൩൪൫൬൭൮൯", "thai": "๐๑๒๓๔๕๖๗๘๙", "lao": "໐໑໒໓໔໕໖໗໘໙", "tibetan": "༠༡༢༣༤༥༦༧༨༩",
    "myanmar": "၀၁၂၃၄၅၆၇၈၉", "khmer": "០១២៣៤៥៦៧៨៩",
}

ANSWERS = [  # text, gold, right?
    ("12 + 7 = 19", "19", True), ("The total is 19 apples.", "19", True), ("19.", "19", True), ("It is 19, not 20", "19", False),
    ("so 2,125 dollars", "2,125", True), ("2125", "2,125", True), ("2.125 Euro", "2,125", True), ("2\u202f125 €", "2125", True),
    ("2 125 рублей", "2125", True), ("2'125 Franken", "2125", True), ("1,00,000 रुपये", "100000", True), ("१,००,००० रुपये", "100000", True),
    ("1.234.567,89", "1234567.89", True), ("1,234,567.89", "1234567.89", True), ("١٬٢٣٤٫٥", "1234.5", True), ("3,5 kg", "3.5", True),
    ("3.50", "3.5", True), ("0.125", "125", False), ("0,125", "0.125", True), ("-5", "-5", True), ("\u22125 °C", "-5", True),
    ("－５", "-5", True), ("12 - 5", "5", True), ("12-5", "5", True), ("(12) -5", "5", True), ("= -5", "-5", True), ("-5", "5", False),
    ("答えは12個です。", "12", True), ("উত্তর হল ১২।", "12", True), ("คำตอบคือ ๑๒", "12", True), ("సమాధానం ౧౨.", "12", True),
    ("الجواب ١٢", "12", True), ("\u200f١٢\u200f تفاحة", "12", True), ("$18", "18", True), ("\\boxed{18}", "18", True), ("18%", "18", True),
    ("**18**", "18", True), ("18\x00", "18", True), ("18\r\n", "18", True), ("\ufeff18", "18", True), ("no number", "1", False), ("", "1", False),
    ("\ud83d 18", "18", True), ("100 000 and 5", "5", True), ("2020 150", "150", True), ("1.5.2", "1.5", False), ("007", "7", True),
    ("12 apples, 7 pears", "7", True), ("二十", "20", True),
]


@pytest.mark.group("K")
@pytest.mark.parametrize(("text", "gold", "right"), ANSWERS, ids=[ascii(t)[:24] for t, *_ in ANSWERS])
def test_answers_are_read_as_written(text, gold, right):
    assert answers.correct(text, gold) is right


@pytest.mark.group("K")
@pytest.mark.parametrize("digits", DIGITS.values(), ids=DIGITS)
def test_every_scripts_digits(digits):
    native = str.maketrans("0123456789", digits)
    assert answers.correct("= 1048576 !".translate(native), "1048576")
    assert answers.correct("-37".translate(native), "-37")
    assert answers.correct("12.5".translate(native), "12.5")


@pytest.mark.parametrize(("text", "markers", "found"), [
    ("The answer is 18. That is 3 more.", ["The answer is"], "18"),
    ("the answer is 17. No: The answer is 18. Check: 2 * 9.", ["The answer is"], "18"),
    ("Die Antwort lautet 29 und 30", ["Die Antwort ist", "Die Antwort lautet"], "29"),
    ("We have 5. The answer is", ["The answer is"], "5"),
    ("Ответ — 11.", ["Ответ —"], "11"), ("答えは39個。余りは2", ["答えは"], "39"), ("nothing", ["x"], None), ("4 and 5", [], "5"),
])
def test_the_number_after_the_last_marker_answers(text, markers, found):
    assert answers.answer(text, markers) == found


@settings(deadline=None)
@given(st.integers(-(10**9), 10**9), st.sampled_from([",", ".", " ", "\u00a0", "\u202f", "'", "\u066c"]))
def test_grouped_whole_numbers_keep_their_value(n, mark):
    assert Decimal(n) in answers.readings(f"{n:,}".replace(",", mark))


@settings(deadline=None)
@given(st.decimals(-10**6, 10**6, places=2, allow_nan=False), st.sampled_from([".", ",", "\u066b"]))
def test_two_decimals_keep_their_value(x, mark):
    assert answers.readings(str(x).replace(".", mark)) == {x}


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_read_without_error(text):
    found = answers.answer(text)
    assert found is None or isinstance(answers.readings(found), frozenset)


def test_a_megabyte_of_digits_is_read_in_time():
    assert answers.correct("1 " * 300_000 + "x" * 400_000 + " 42", "42")
