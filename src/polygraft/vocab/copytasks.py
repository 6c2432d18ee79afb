"""Copy tasks from any text: sentences and paragraphs, none of them in a given evaluation text, and words that ask for a copy.

Calibration on copies of text is the cheapest large gain that LEP found (arXiv 2412.21140, table 4). The words are ours, as are the
rules by which text is cut; they are others than those of the evaluation's copy tasks, so that those still ask something new.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Literal

Kind = Literal["sentence", "paragraph"]
LENGTHS: dict[Kind, tuple[int, int]] = {"sentence": (40, 300), "paragraph": (300, 1200)}  # characters, both ends included
LETTERS = 0.6  # share of letters, marks and spaces below which a line is a table or code, not prose
RUN = 32  # letters and digits in a row that no copy task may share with the evaluation's text
SENTENCE = re.compile(r"\S.*?(?:[.!?…]+[\"»”’)\]]*(?=\s|$)|[。！？]+[”」』）]*|$)")
ASK = {  # own wording, not checked by native speakers; each must have a place for the text
    "en": ("Copy the following text exactly as it is:\n\n{}", "Write out this text again without any change.\n\n{}",
           "{}\n\nGive back the text above, character by character."),
    "ru": ("Перепиши следующий текст в точности как есть:\n\n{}", "Выпиши этот текст ещё раз без изменений.\n\n{}",
           "{}\n\nВоспроизведи текст выше символ в символ."),
    "de": ("Schreibe den folgenden Text genau so ab:\n\n{}", "{}\n\nGib den Text oben unverändert wieder."),
    "es": ("Copia el siguiente texto exactamente como está:\n\n{}", "{}\n\nEscribe otra vez el texto de arriba sin cambios."),
    "fr": ("Recopie le texte suivant exactement :\n\n{}", "{}\n\nÉcris de nouveau le texte ci-dessus sans le modifier."),
    "sw": ("Nakili maandishi yafuatayo kama yalivyo:\n\n{}", "{}\n\nAndika tena maandishi ya hapo juu bila kubadilisha."),
    "zh": ("请原样抄写下面的文字：\n\n{}", "{}\n\n请一字不差地写出上面的文字。"),
    "ja": ("次の文章をそのまま書き写してください。\n\n{}", "{}\n\n上の文章を一字一句変えずに書いてください。"),
    "ar": ("انسخ النص التالي كما هو تمامًا:\n\n{}", "{}\n\nاكتب النص أعلاه مرة أخرى دون أي تغيير."),
    "hi": ("नीचे दिए गए पाठ को ज्यों का त्यों लिखें:\n\n{}", "{}\n\nऊपर दिए गए पाठ को बिना बदलाव के फिर से लिखें।"),
    "tr": ("Aşağıdaki metni olduğu gibi yaz:\n\n{}", "{}\n\nYukarıdaki metni hiç değiştirmeden yeniden yaz."),
}


def asked(text: str, language: str, seed: int = 0) -> str:
    """A request to copy the text, in the language's words (English where there are none), chosen by the text's hash."""
    ways = ASK.get(language.partition("-")[0], ASK["en"])
    return ways[int(_hash(text, seed)[:8], 16) % len(ways)].format(text)


def _hash(text: str, seed: int) -> str:
    return hashlib.sha256(f"copy/{seed}/{text}".encode("utf-8", "surrogatepass")).hexdigest()


def folded(text: str) -> str:
    """Letters and digits alone, case-folded: what two texts share whatever stands between."""
    return "".join(c for c in unicodedata.normalize("NFC", text).casefold() if c.isalnum())


def prose(text: str) -> bool:
    """Whether it is mostly words."""
    kept = sum(unicodedata.category(c)[0] in "LMZ" for c in text)
    return kept >= LETTERS * len(text)


def pieces(document: str, kind: Kind) -> Iterator[str]:
    """Sentences, or runs of whole sentences of one paragraph (a line), of LENGTHS characters."""
    low, high = LENGTHS[kind]
    for line in (" ".join(raw.split()) for raw in document.split("\n")):
        begun: int | None = None  # where a run of sentences begins that is too short yet
        for found in SENTENCE.finditer(line):
            start = found.start() if begun is None or kind == "sentence" or found.end() - begun > high else begun
            text = line[start : found.end()]
            done = low <= len(text) <= high and prose(text)
            if done:
                yield text
            begun = None if done or len(text) > high else start


class Overlap:
    """The evaluation's texts; `of(text)` says whether a text shares RUN letters in a row with one of them, or is in one."""

    def __init__(self, texts: Iterable[str]):
        self.whole = [folded(t) for t in texts]
        self.runs = {t[i : i + RUN] for t in self.whole for i in range(len(t) - RUN + 1)}

    def of(self, text: str) -> bool:
        found = folded(text)
        if len(found) < RUN:
            return any(found in t for t in self.whole)
        return any(found[i : i + RUN] in self.runs for i in range(len(found) - RUN + 1))


def tasks(documents: Iterable[str], kind: Kind, count: int, overlap: Overlap, seed: int) -> tuple[list[str], int, int]:
    """(at most `count` texts to copy, each once, chosen by their hash; how many there were; how many the evaluation has)."""
    found: dict[str, str] = {}
    kept_out = 0
    for document in documents:
        for text in pieces(document, kind):
            found.setdefault(folded(text), text)
    chosen: list[str] = []
    for text in sorted(found.values(), key=lambda t: _hash(t, seed)):
        if len(chosen) == count:
            break
        if overlap.of(text):
            kept_out += 1
        else:
            chosen.append(text)
    return chosen, len(found), kept_out
