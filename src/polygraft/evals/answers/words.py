"""Words around numbers: what announces an answer or the next question, signs, shares, scales, and number words up to twenty.

All languages are read at once: models answer in another language than they were asked in, and the words rarely collide.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from unicodedata import normalize


def _split(row: str) -> list[str]:
    """Words between bars, composed as cleaned text is."""
    return [normalize("NFC", word.strip()) for word in row.split("|")]


def _table(rows: Mapping[Any, str]) -> dict[str, Any]:
    """word -> the row it is in."""
    return {word: key for key, row in rows.items() for word in _split(row)}


# After these the answer comes, if not at once: the first number of the sentence, else of what follows.
MARKERS = _table({
    "am": "መልሱ",
    "ar": "الجواب هو | الإجابة هي | الاجابة هي | الناتج هو | الجواب النهائي هو",
    "bn": "উত্তর হল | উত্তর হলো | উত্তর হচ্ছে",
    "cs": "odpověď je",
    "de": "Antwort ist | Antwort lautet | Ergebnis ist | Ergebnis lautet | Lösung ist | Lösung lautet",
    "el": "απάντηση είναι",
    "en": "answer is | answer would be",
    "es": "respuesta es | respuesta final es | resultado es",
    "et": "vastus on",
    "fa": "پاسخ برابر است با | جواب برابر است با",
    "fi": "vastaus on",
    "fr": "réponse est | réponse finale est | résultat est",
    "he": "התשובה היא",
    "hi": "उत्तर है | उत्तर होगा | जवाब है",
    "id": "jawabannya adalah | jawaban adalah | jawaban akhirnya adalah",
    "it": "risposta è | risposta finale è | risultato è",
    "ja": "答えは | 回答は | 解答は | 正解は | 答えが",
    "ka": "პასუხია",
    "ko": "답은 | 정답은",
    "my": "အဖြေမှာ | အဖြေက",
    "nl": "antwoord is",
    "pl": "odpowiedź to | odpowiedzią jest",
    "pt": "resposta é | resposta final é | resultado é",
    "ro": "răspunsul este",
    "ru": "ответом является | ответ равен | ответ составляет",
    "sv": "svaret är",
    "sw": "jibu ni | jibu la mwisho ni | jibu sahihi ni",
    "ta": "விடை என்பது",
    "te": "సమాధానం ఏమిటంటే",
    "th": "คำตอบคือ | คำตอบสุดท้ายคือ | คำตอบ คือ",
    "tr": "cevap şudur",
    "vi": "đáp án là | câu trả lời là | đáp số là",
    "zh": "答案是 | 答案为 | 答案為 | 答案就是 | 结果是 | 结果为",
    "any": "\\boxed{",
})  # fmt: skip

# Labels: the number must follow at once and be the only one on its line, because solutions begin with the same words.
LABELS = _table({
    "am": "መልስ",
    "ar": "الجواب | الإجابة | الاجابة | الناتج",
    "bn": "উত্তর",
    "de": "Antwort | Ergebnis | Lösung",
    "en": "answer | result",
    "es": "respuesta | resultado",
    "fa": "پاسخ | جواب",
    "fr": "réponse | résultat",
    "he": "תשובה | התשובה",
    "hi": "उत्तर | जवाब",
    "id": "jawaban",
    "it": "risposta | risultato",
    "ja": "答え | 答 | 回答 | 解答",
    "ka": "პასუხი",
    "ko": "정답 | 답 | 답변",
    "my": "အဖြေ",
    "pl": "odpowiedź",
    "pt": "resposta | resultado",
    "ru": "ответ",
    "sw": "jibu",
    "ta": "விடை | பதில்",
    "te": "సమాధానం | జవాబు",
    "th": "คำตอบ | ตอบ",
    "tr": "cevap | sonuç",
    "uk": "відповідь",
    "vi": "đáp án | đáp số | trả lời",
    "zh": "答案 | 解答",
    "any": "####",
})  # fmt: skip

# A line that begins with one of these and a colon asks the next question: what follows answers something else.
QUESTIONS = _split("Question | Q | Problem | Frage | Aufgabe | Pregunta | Problema | Задача | Вопрос | Swali | প্রশ্ন | "
                   "ప్రశ్న | โจทย์ | คำถาม | 問題 | 質問 | 问题 | 题目 | 問 | 问 | प्रश्न | सवाल | السؤال | سؤال | سوال | "
                   "پرسش | שאלה | 질문 | 문제 | Pergunta | Domanda | Soru | Câu hỏi | Bài toán | Pertanyaan | Soal | "
                   "கேள்வி | வினா | ጥያቄ | မေးခွန်း | კითხვა | Instruction | Human | User")

MINUS = _split("minus | negative | moins | menos | meno | минус | hasi | eksi | âm | سالب | ناقص | منفی | מינוס | ऋण | "
               "ऋणात्मक | ঋণাত্মক | మైనస్ | ลบ | マイナス | 마이너스 | 负 | 負")

PERCENT = _split("percent | per cent | Prozent | por ciento | por cento | per cento | pour cent | процента | процентов | "
                 "процент | persen | phần trăm | प्रतिशत | फीसदी | শতাংশ | శాతం | เปอร์เซ็นต์ | パーセント | 퍼센트 | "
                 "في المئة | بالمئة | درصد")
PERCENT_BEFORE = _split("asilimia | yüzde | ร้อยละ")

HALF = _split("and a half | and one half | einhalb | y media | y medio | e meia | e meio | e mezza | e mezzo | et demie | "
              "et demi | с половиной | na nusu | ครึ่ง")
HALF_BEFORE = _split("साढ़े | সাড়ে")

# The number before may also count these: 5 million.
SCALES = _table({
    10**2: "hundred | ร้อย",
    10**3: ("thousand | tausend | mil | mille | тысяча | тысячи | тысяч | हजार | हज़ार | হাজার | వేలు | వేల | พัน | "
            "nghìn | ngàn | ribu | bin | ألف | آلاف | هزار"),
    10**4: "หมื่น",
    10**5: "lakh | लाख | লাখ | লক্ষ | లక్షలు | లక్షల | లక్ష | แสน",
    10**6: ("million | millions | Million | Millionen | millón | millones | milhão | milhões | milioni | milione | "
            "миллион | миллиона | миллионов | ล้าน | triệu | juta | milyon | مليون | میلیون"),
    10**7: "crore | करोड़ | কোটি | కోట్లు | కోట్ల | కోటి",
    10**9: ("billion | billions | Milliarde | Milliarden | milliard | milliards | миллиард | миллиарда | миллиардов | "
            "tỷ"),
})  # fmt: skip

# and these the number after: elfu 5.
SCALES_BEFORE = _table({
    10**3: "elfu",
    10**5: "laki",
    10**6: "milioni",
})  # fmt: skip

# Number words, read only right after a marker or label; articles (un, ein, una) are left out.
NUMBERS = _table({
    0: "null | zero | cero | zéro | ゼロ | ноль | нуль | sifuri",
    1: "eins | one | uno | ひとつ | один | одна | moja",
    2: "zwei | two | dos | deux | ふたつ | два | две | mbili",
    3: "drei | three | tres | trois | みっつ | три | tatu",
    4: "vier | four | cuatro | quatre | よっつ | четыре | nne",
    5: "fünf | five | cinco | cinq | いつつ | пять | tano",
    6: "sechs | six | seis | むっつ | шесть | sita",
    7: "sieben | seven | siete | sept | ななつ | семь | saba",
    8: "acht | eight | ocho | huit | やっつ | восемь | nane",
    9: "neun | nine | nueve | neuf | ここのつ | девять | tisa",
    10: "zehn | ten | diez | dix | とお | десять | kumi",
    11: "elf | eleven | once | onze | одиннадцать | kumi na moja",
    12: "zwölf | twelve | doce | douze | двенадцать | kumi na mbili",
    13: "dreizehn | thirteen | trece | treize | тринадцать | kumi na tatu",
    14: "vierzehn | fourteen | catorce | quatorze | четырнадцать | kumi na nne",
    15: "fünfzehn | fifteen | quince | quinze | пятнадцать | kumi na tano",
    16: "sechzehn | sixteen | dieciséis | seize | шестнадцать | kumi na sita",
    17: "siebzehn | seventeen | diecisiete | dix-sept | семнадцать | kumi na saba",
    18: "achtzehn | eighteen | dieciocho | dix-huit | восемнадцать | kumi na nane",
    19: "neunzehn | nineteen | diecinueve | dix-neuf | девятнадцать | kumi na tisa",
    20: "zwanzig | twenty | veinte | vingt | двадцать | ishirini",
})  # fmt: skip
# words with which a number word goes on, and is more than twenty or no number at all: "one hundred", "vingt et un", "one of"
MORE = _split("hundred | thousand | million | cent | mille | mil | et | y | na | of | сто | тысяч | сотен")
