"""Answers in the texts of the world: 22 languages through everything that may happen to a text on its way, and every script's digits."""

from __future__ import annotations

import unicodedata

import pytest

from hard_answers import MORE
from oracle import numeral_oracle
from polygraft.evals import answers

# language: its zero, an answer as it writes one, and the gold
WORLD = {
    "en": ("0", "The answer is 1,234.5 apples.", "1234.5"), "es": ("0", "La respuesta es 1.234,5 kg.", "1234.5"),
    "fr": ("0", "La réponse est 1\u202f234,5 €.", "1234.5"), "de": ("0", "Die Antwort lautet 1.234,5 €.", "1234.5"),
    "ru": ("0", "Ответ: 1 234,5 ₽.", "1234.5"), "sw": ("0", "Jibu ni 1,234.5 tu.", "1234.5"), "ja": ("０", "答えは12個です。", "12"),
    "zh": ("０", "答案是十二个。", "12"), "ko": ("0", "답은 12개입니다.", "12"), "th": ("๐", "คำตอบคือ ๑๒ ลูก", "12"), "bn": ("০", "উত্তর হল ১২টি।", "12"),
    "te": ("౦", "సమాధానం ౧౨.", "12"), "ar": ("٠", "الجواب هو ١٢ تفاحة.", "12"), "fa": ("۰", "جواب ۱۲ است.", "12"), "he": ("0", "התשובה היא 12.", "12"),
    "hi": ("०", "उत्तर ₹१,००,००० है।", "100000"), "ta": ("௦", "விடை: ௧௨", "12"), "am": ("0", "መልሱ 12 ነው።", "12"), "my": ("၀", "အဖြေမှာ ၁၂ ဖြစ်သည်။", "12"),
    "ka": ("0", "პასუხი: 12 ვაშლი", "12"), "tr": ("0", "Cevap: 12 elma", "12"), "vi": ("0", "Đáp số: 12 quả táo", "12"),
}  # fmt: skip
WAYS = {
    "as it is": lambda t: t,
    "decomposed": lambda t: unicodedata.normalize("NFD", t),
    "joiners and marks between words": lambda t: t.replace(" ", " \u200d\u200c\u200b"),
    "both directions": lambda t: f"\u202b(abc {t} )\u202c\u200e",
    "byte-order mark and CRLF": lambda t: f"\ufeff{t}\r\n",
    "NUL and half a character": lambda t: f"\x00\ud83d {t}\x00\udc00",
    "after a long line": lambda t: "x" * 50_000 + f"\n{t}",
    "before the next question": lambda t: f"{t}\n\nQuestion: Tom has 5 and 6.\nThe answer is 77.",
}


@pytest.mark.group("K")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("language", WORLD)
def test_an_answer_is_found_whatever_happens_to_the_text(language, way):
    _, text, gold = WORLD[language]
    assert answers.correct(WAYS[way](text), gold)
    assert not answers.correct(WAYS[way](text), "77")


@pytest.mark.group("K")
@pytest.mark.parametrize("language", WORLD)
def test_signs_decimals_and_nothing(language):
    zero = WORLD[language][0]
    for text, gold in (("-37", "-37"), ("= 1048576 !", "1048576"), ("12.5", "12.5"), ("(3/4)", "0.75"), ("20%", "0.2"), ("12 - 5", "5")):
        assert answers.correct(numeral_oracle.native(text, zero), gold)
    assert not answers.correct(numeral_oracle.native("-37", zero), "37") and not answers.correct("", "0")


@pytest.mark.group("K")
@pytest.mark.parametrize("zero", numeral_oracle.zeros(), ids=lambda c: unicodedata.name(c).split(" DIGIT")[0].lower())
def test_every_scripts_digits(zero):
    for text, gold in (("= 1048576 !", "1048576"), ("-37", "-37"), ("12.5", "12.5")):
        assert answers.correct(numeral_oracle.native(text, zero), gold)


@pytest.mark.group("K")
@pytest.mark.parametrize("language", MORE)
def test_hard_cases(language):
    wrong = [(text, gold, answers.answer(text)) for text, gold, right in MORE[language] if answers.correct(text, gold) is not right]
    assert not wrong


ODD = [  # text, gold, right?
    ("12 + 7 = 19", "19", True), ("The total is 19 apples.", "19", True), ("19.", "19", True), ("It is 19, not 20", "19", False),
    ("so 2,125 dollars", "2,125", True), ("2125", "2,125", True), ("2.125 Euro", "2,125", True), ("2\u202f125 €", "2125", True),
    ("2'125 Franken", "2125", True), ("१,००,००० रुपये", "100000", True), ("1.234.567,89", "1234567.89", True), ("1,234,567.89", "1234567.89", True),
    ("0.125", "125", False), ("0,125", "0.125", True), ("-5", "-5", True), ("\u22125 °C", "-5", True), ("－５", "-5", True), ("12 - 5", "5", True),
    ("12-5", "5", True), ("(12) -5", "5", True), ("= -5", "-5", True), ("-5", "5", False), ("$18", "18", True), ("\\boxed{18}", "18", True),
    ("18%", "18", True), ("**18**", "18", True), ("18\x00", "18", True), ("18\r\n", "18", True), ("\ufeff18", "18", True), ("no number", "1", False),
    ("", "1", False), ("", "0", False), ("\ud83d 18", "18", True), ("100 000 and 5", "5", True), ("2020 150", "150", True), ("1.5.2", "1.5", False),
    ("007", "7", True), ("12 apples, 7 pears", "7", True), ("二十", "20", True), ("(5)", "-5", False), ("3:4", "4", False), ("𝟏𝟐", "12", True),
]  # fmt: skip


@pytest.mark.group("K")
@pytest.mark.parametrize(("text", "gold", "right"), ODD, ids=[f"{i} {ascii(t)[:20]}" for i, (t, *_) in enumerate(ODD)])
def test_odd_ways_of_writing(text, gold, right):
    assert answers.correct(text, gold) is right
