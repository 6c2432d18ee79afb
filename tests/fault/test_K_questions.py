"""Group K, text of the world: an answer to a question is the same answer in other digits, forms, directions and punctuation."""

import unicodedata

import pytest

from polygraft.evals.items import Item, Response
from polygraft.evals.metrics.qa import exact_match, f1

GOLDS = {  # a gold with a number in each language, written with its native digits where it has them
    "ar": "سنة ١٩٩٢", "as": "১৯৪৭ চন", "bn": "১৯৭১ সালে", "de": "1990 Köln", "el": "το 1821", "en": "1,000 years", "es": "año 1492",
    "fa": "سال ۱۳۵۷", "fr": "été 1789", "gu": "૧૯૬૦ માં", "hi": "१९४७ में", "ja": "１９４５年", "km": "ឆ្នាំ១៩៥៣", "ko": "1948년", "my": "၁၉၄၈ ခုနှစ်",
    "pa": "੧੯੪੭ ਵਿੱਚ", "ru": "ёлка 1917", "sw": "mwaka 1964", "ta": "௧௯௪௭ ஆண்டு", "te": "౧౯౫౬ లో", "th": "ปี ๒๕๔๗", "ur": "سنہ ۱۹۴۷", "vi": "năm 1975",
    "zh": "２００８年",
}  # fmt: skip
TWINS = {
    "ASCII digits": lambda s: "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in s),
    "composed": lambda s: unicodedata.normalize("NFC", s),
    "decomposed": lambda s: unicodedata.normalize("NFD", s),
    "marks of direction": lambda s: f"\u200f{s}\u200e",
    "byte order mark": lambda s: "\ufeff" + s,
    "joiners between words": lambda s: s.replace(" ", " \u200d"),
    "spaces without breaks": lambda s: s.replace(" ", "\u00a0") + "\u3000",
    "line ends of Windows": lambda s: s + "\r\n",
    "quotes and a full stop": lambda s: f"«{s}»。",
}


@pytest.mark.group("K")
@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("language", GOLDS)
def test_the_same_answer(language, twin):
    gold = GOLDS[language]
    item, response = Item("1", language, "?", golds=(gold,)), Response(text=TWINS[twin](gold))
    assert (exact_match(item, response), f1(item, response)) == ((1.0, 1.0), (1.0, 1.0))


@pytest.mark.group("K")
@pytest.mark.parametrize("language", GOLDS)
def test_another_number_is_another_answer(language):
    gold = GOLDS[language]
    digit = next(c for c in gold if c.isdecimal())
    other = gold.replace(digit, str((unicodedata.decimal(digit) + 1) % 10), 1)
    assert exact_match(Item("1", language, "?", golds=(gold,)), Response(text=other)) == (0.0, 1.0)
