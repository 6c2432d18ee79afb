"""What is said of an answer without a gold one: its language and script, loops, refusals, endings."""

from __future__ import annotations

import lzma
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polygraft.evals import metrics
from polygraft.evals.items import Item, Response
from polygraft.evals.metrics.quality import METRICS
from polygraft.evals.quality import ending, identify, overview, prose, repetition, script

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
SAID = {  # own sentences
    "en": "The children walked to school together because the bus was late again.",
    "de": "Die Kinder gingen zusammen zur Schule, weil der Bus wieder Verspätung hatte.",
    "es": "Los niños caminaron juntos a la escuela porque el autobús llegó tarde otra vez.",
    "fr": "Les enfants sont allés à l'école ensemble parce que le bus était encore en retard.",
    "ru": "Дети вместе пошли в школу, потому что автобус снова опоздал на полчаса.",
    "uk": "Діти разом пішли до школи, тому що автобус знову запізнився на пів години.",
    "sw": "Watoto walitembea pamoja kwenda shuleni kwa sababu basi lilichelewa tena.",
    "ja": "バスがまた遅れたので、子どもたちは一緒に歩いて学校へ行きました。",
    "zh": "因为公共汽车又晚点了，孩子们一起走路去学校，路上还唱着歌。",
    "ko": "버스가 또 늦어서 아이들은 함께 걸어서 학교에 갔습니다.",
    "th": "เด็ก ๆ เดินไปโรงเรียนด้วยกันเพราะรถเมล์มาสายอีกแล้ว",
    "hi": "बच्चे एक साथ पैदल स्कूल गए क्योंकि बस फिर से देर से आई थी।",
    "bn": "বাসটি আবার দেরি করায় শিশুরা একসাথে হেঁটে স্কুলে গিয়েছিল।",
    "te": "బస్సు మళ్ళీ ఆలస్యం కావడంతో పిల్లలు కలిసి నడుచుకుంటూ బడికి వెళ్ళారు.",
    "ta": "பேருந்து மீண்டும் தாமதமானதால் குழந்தைகள் ஒன்றாக நடந்து பள்ளிக்குச் சென்றனர்.",
    "ar": "مشى الأطفال معًا إلى المدرسة لأن الحافلة تأخرت مرة أخرى هذا الصباح.",
    "fa": "بچه‌ها با هم پیاده به مدرسه رفتند چون اتوبوس دوباره دیر کرده بود.",
    "he": "הילדים הלכו יחד לבית הספר כי האוטובוס שוב איחר הבוקר.",
    "tr": "Otobüs yine geciktiği için çocuklar okula birlikte yürüyerek gittiler.",
    "vi": "Bọn trẻ cùng nhau đi bộ đến trường vì xe buýt lại đến muộn.",
    "ka": "ბავშვები ერთად წავიდნენ სკოლაში, რადგან ავტობუსმა ისევ დააგვიანა.",
    "my": "ဘတ်စ်ကားနောက်ကျသောကြောင့် ကလေးများ ကျောင်းသို့ အတူတူ လမ်းလျှောက်သွားကြသည်။",
}  # fmt: skip


def score(name, text, language="en", prompt="", **more):
    m = metrics.get(name)
    columns = np.array(m.score(Item("1", language, prompt), Response(text=text, **more)), float)
    return float(m.value(columns)) if columns.any() else None


# ------------------------------------------------------------------------------------------------------------- language


@pytest.mark.parametrize("language", SAID)
def test_languages_are_told(language):
    assert identify.identify(SAID[language]).tag == language
    assert score("language fidelity", SAID[language], language) == 1.0
    assert score("script fidelity", SAID[language], language) > 0.9
    for other in ("en", "ja", "ru"):
        if other != language:
            assert score("language fidelity", SAID[language], other) == 0.0


HARD = {
    "a few words": ("hello there", "und"),
    "digits and signs": ("12 + 30 = 42 €, 100 % ✓ 3.14", "und"),
    "nothing": ("", "und"),
    "romanised Hindi": ("mujhe hindi mein baat karni hai aur aap kaise ho bhai", "hi-Latn"),
    "Japanese in kanji and kana": ("東京大学は日本の大学です。", "ja"),
    "kanji alone, too few to tell": ("東京都庁", "und"),
    "Chinese": ("我爱北京天安门，天安门上太阳升起来了", "zh"),
    "Serbian in Cyrillic": ("Данас је леп дан и сви људи у граду шетају поред реке.", "sr"),
    "code is no English": ("```python\nfor item in the_list_of_things:\n    print(item, 'and so on and on')\n```", "und"),
    "answer around code": (SAID["de"] + "\n```\nreturn the_result_of_this_function(value)\n```\n", "de"),
    "an address is no English": ("https://example.com/this/is/a/long/english/path/of/many/words", "und"),
    "katakana alone": ("コンピューターシステム", "ja"),
    "Tigrinya is not Amharic": ("ኣብዚ ሰሙን እዚ ቈልዑ ናብ ቤት ትምህርቲ ኸይዶም ኣይፈልጡን፣ ንሕና ግን ቀልጢፍና ኣኼባ ክንገብር ኢና", "ti"),
    "Sindhi is not Pashto": ("ٻارَ گڏجي اسڪول ويا ڇو ته بس وري دير سان آئي هئي ۽ ڏاڍو مينهن پئي پيو", "sd"),
}


@pytest.mark.parametrize("case", HARD)
def test_hard_cases(case):
    text, tag = HARD[case]
    assert identify.identify(text).tag == tag


def test_near_languages_pass_for_each_other_and_no_others_do():
    latin = "Danas je lep dan i svi ljudi u gradu šetaju pored reke i pričaju o tome."
    assert identify.family(identify.identify(latin).tag) == identify.family("sr")
    for language in ("sr", "sr-Latn", "hr", "bs"):
        assert score("language fidelity", latin, language) == 1.0
    assert score("script fidelity", latin, "sr") == 0.0 and score("script fidelity", latin, "sr-Latn") == 1.0
    assert score("language fidelity", latin, "sl") == 0.0


def test_a_language_that_was_never_taught_is_judged_by_its_script_alone():
    bemba = "Abana balile pamo ku sukulu pantu basi yacelele na kabili muli uyu mulungu."
    assert score("language fidelity", bemba, "bem") is None  # nobody here can say
    assert score("language fidelity", SAID["ru"], "bem") == 0.0
    assert score("language fidelity", SAID["en"], "bem") == 0.0
    assert score("language fidelity", HARD["Tigrinya is not Amharic"][0], "ti") == 1.0
    assert score("language fidelity", "ልጆቹ አብረው ወደ ትምህርት ቤት ሄዱ ምክንያቱም አውቶቡሱ ዘገየ", "ti") is None


def test_romanised_hindi_is_not_what_was_asked_and_candidates_narrow():
    text = HARD["romanised Hindi"][0]
    assert score("language fidelity", text, "hi") == 0.0 and score("script fidelity", text, "hi") == 0.0
    assert identify.identify(SAID["de"], ["de", "nl"]).tag == "de"
    assert identify.identify(SAID["ja"], ["en", "de"]).tag == "und"


def test_lines_of_an_answer():
    text = f"{SAID['sw']}\n\n1. 42\n{SAID['en']}\n{SAID['sw']}\n```\nreturn to_the_caller(of_this_function)\n```"
    assert metrics.get("line fidelity").score(Item("1", "sw", ""), Response(text=text)) == (2, 3)
    assert score("line fidelity", "12\n34", "sw") is None


def test_a_translation_is_in_the_language_asked_into():
    into = Item("1", "sw", "", extra={"answer_language": "en"})
    assert metrics.get("language fidelity").score(into, Response(text=SAID["en"])) == (1.0, 1.0)
    assert prose.answer_language(into) == "en"


@pytest.mark.real
@pytest.mark.parametrize("language", ["sw", "te", "bn", "ja", "zh", "ar", "fa", "am", "my"])
def test_sentences_of_the_news(language):
    """No sentence of NTREX is taken for another language; at most 6 % are left open, and no three in a row are."""
    code = {"sw": "swa", "te": "tel", "bn": "ben", "ja": "jpn", "zh": "zho-CN", "ar": "arb", "fa": "fas", "am": "amh", "my": "mya"}[language]
    path = SHARED / "ntrex128" / f"{code}.txt.xz"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    lines = lzma.decompress(path.read_bytes()).decode().split("\n")[:120]
    said = [identify.spoken(line, language) for line in lines]
    assert said.count(False) <= 1 and said.count(None) <= 7
    assert all(identify.spoken(" ".join(lines[i:i + 3]), language) for i in range(0, 120, 3))


# --------------------------------------------------------------------------------------------------------------- script


def test_letters_count_and_nothing_else():
    assert script.letters("東京 hello Привет ｶﾅ क्षि 12 … 🎉 e\u0301") == {"Hani": 6, "Latn": 6, "Cyrl": 6, "Kana": 6, "Deva": 4}
    assert script.letters("\ud800 \x00 ٣") == {}
    assert script.share("12", "en") is None
    assert script.share("Αθήνα", "el") == 1.0 and script.share("Athina", "el") == 0.0
    assert script.expected("sr") == ("Cyrl",) and "Latn" in script.possible("sr") and script.expected("sr-Latn") == ("Latn",)


# ----------------------------------------------------------------------------------------------------------- repetition


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from("abc"), max_size=30))
def test_duplicates_are_those_of_the_definition(words):
    grams = [tuple(words[i:i + 4]) for i in range(len(words) - 3)]
    wanted = sum(g in grams[:i] for i, g in enumerate(grams))
    assert repetition.duplicates(" ".join(words)) == (wanted, len(grams))


@settings(max_examples=100, deadline=None)
@given(st.text("abcdefgh ", min_size=3, max_size=60), st.integers(5, 30), st.integers(0, 40), st.text("xyz", max_size=50))
def test_a_planted_loop_is_found(unit, times, cut, before):
    text = before + unit * times + unit[: cut % len(unit)]
    found, n = repetition.loop(text)
    if len(unit * times) >= repetition.REPEATED + 3 * len(unit) and any(c.isalnum() for c in unit.rstrip()) and len(unit.strip()) == len(unit):
        assert n >= repetition.TIMES and found.strip() and (found * 40).find(unit) >= 0
    assert (found == "") == (n == 0)


@pytest.mark.parametrize(("text", "stuck"), [
    ("The answer is 42. " * 9, 1), ("好的，" * 30, 1), ("a" * 60, 1), ("I went home and the answer is 42. the answer", 0),
    ("ha ha ha ha", 0), ("-" * 200, 0), ("| a | b |\n|---|---|\n| 1 | 2 |", 0), ("", 0), ("x = 1\n" * 300, 1),
])
def test_stuck(text, stuck):
    assert score("stuck", text) == stuck


def test_repetition_and_copies():
    assert score("repetition", "one two three") is None
    assert score("repetition", "one two three four five six") == 0.0
    assert score("repetition", "a b c d " * 10) == pytest.approx(33 / 37)
    assert score("repetition", "好的好的好的好的") == pytest.approx(3 / 5)
    assert score("copied", "tell me how to bake bread", prompt="Please tell me how to bake bread today") == 1.0
    assert score("copied", "first you need some good flour", prompt="Please tell me how to bake bread") == 0.0


# -------------------------------------------------------------------------------------------------------------- endings

REFUSALS = ["I'm sorry, but I can’t help with that.", "Ich kann Ihnen dabei leider nicht helfen.", "Lo siento, pero no puedo ayudarte.",
            "Je ne peux pas répondre à cette question.", "Я не могу помочь с этим.", "Siwezi kukusaidia na hilo.", "申し訳ありませんが、お手伝いできません。",
            "很抱歉，我无法回答这个问题。", "मैं इसमें आपकी मदद नहीं कर सकता।", "لا أستطيع مساعدتك في ذلك.", "Maaf, saya tidak dapat membantu.",
            "As an AI language model, I have no opinion."]  # fmt: skip
ANSWERS = ["You can't go wrong with bread.", "Kama una njaa, kula mkate.", "Sprich leise und höre zu.", "私は学生です。", "Asai is a river.",
           "Musiwezi", "यह एक अच्छा प्रश्न है।", "x" * 400 + " I cannot"]  # fmt: skip


def test_refusals():
    assert [score("refusal", t) for t in REFUSALS] == [1.0] * len(REFUSALS)
    assert [score("refusal", t) for t in ANSWERS] == [0.0] * len(ANSWERS)
    assert set(ending.phrases()) >= {"en", "es", "de", "fr", "ru", "sw", "ja", "zh", "hi", "ar", "te", "bn", "th"}


@pytest.mark.parametrize(("text", "finished", "cut"), [
    ("It is 42.", False, 0), ("It is", False, 1), ("It is", True, 0), ("हाँ।", False, 0), ("そうです。」", False, 0), ("เพราะ", False, 0),
    ("**Done!**", False, 0), ("```\nx = 1\n```", False, 0), ("因为", False, 1),
])
def test_truncated(text, finished, cut):
    assert score("truncated", text, finished=finished) == cut


def test_empty():
    assert [score("empty", t) for t in ("", " \n\t\u200b\u200f", ".", "x", "🎉")] == [1, 1, 0, 0, 0]


# ------------------------------------------------------------------------------------------------------------- together


def test_many_answers_in_seconds_and_a_megabyte():
    """Bounds far above what it takes, for busy machines: what must not happen is a square of the length."""
    texts = [f"{SAID[k]} {i}" for i in range(6) for k in SAID]
    start = time.perf_counter()
    for m in METRICS:
        for text in texts:
            m.score(Item("1", "sw", "a prompt of some words"), Response(text=text))
    assert time.perf_counter() - start < 10
    for text in ("word and other words\n" * 20_000, "a" * 400_000, "`<\\(" * 50_000):
        start = time.perf_counter()
        for m in METRICS:
            m.score(Item("1", "en", text), Response(text=text))
        assert time.perf_counter() - start < 20, text[:10]


def test_overviews_are_one_row_a_model():
    def row(i, text):
        return {"id": i, "output": text, "tokens": 3, "finished": True, "scores": {}}

    found = {"base": [row("1", SAID["en"]), row("2", "ni")], "sw": [row("1", SAID["sw"]), row("2", "")]}
    [table] = overview.tables([("open-prompts", "sw", found)])
    assert [r[:3] for r in table.rows] == [("open-prompts", "sw", "base"), ("open-prompts", "sw", "sw")]
    assert [r[3].value for r in table.rows] == [0.0, 100.0] and table.rows[0][3].n == 1

    def choice(n, **scores):
        return {"id": str(n), "choices": ["a", "b"], "gold": 0, "choice_nats": [0.5, 9.0] if n else [9.0, 0.5], "scores": scores}

    sure = [{"m": [choice(n, **{name: [1.0, 1.0]}) for n in range(4)]} for name in ("accuracy", "likelihood gap")]
    [table] = overview.tables([("xcopa", "sw", sure[0]), ("bias-age", "sw", sure[1])])
    assert table.rows[0][:3] == ("xcopa", "sw", "m") and [round(c.value) for c in table.rows[0][3:5]] == [75, 25]
    assert overview.tables([]) == ()
