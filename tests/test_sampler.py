"""The parallel sampler: the same paragraphs everywhere, in the script that each language is written in."""

from __future__ import annotations

import re
import unicodedata

import pytest

from polygraft.errors import RecipeError
from polygraft.evals.tasks import sampler

SCRIPTS = {"ar": "ARABIC", "de": "LATIN", "en": "LATIN", "es": "LATIN", "fr": "LATIN", "hi": "DEVANAGARI", "ru": "CYRILLIC", "sw": "LATIN"}


def sentences(text: str) -> int:
    return len(re.findall(r"[.。।](?:\s|$)|。", text))


def test_the_languages_promised():
    assert {*SCRIPTS, "ja"} <= set(sampler.languages()) and len(sampler.languages()) >= 8


@pytest.mark.parametrize("language", sampler.languages())
def test_paragraphs_are_parallel(language):
    texts = sampler.paragraphs(language)
    assert len(texts) == len(set(texts)) == len(sampler.topics()) == 15
    english = sampler.paragraphs("en")
    assert [sentences(t) for t in texts] == [sentences(t) for t in english]
    assert all(2 <= sentences(t) <= 4 for t in texts)
    assert [row for row, _ in sampler._read(language)] == sampler.topics()


@pytest.mark.parametrize("language", sampler.languages())
def test_the_text_is_clean_and_in_its_script(language):
    for text in sampler.paragraphs(language):
        assert text == text.strip() == unicodedata.normalize("NFC", text) and "  " not in text
        assert not any(unicodedata.category(c) in {"Cc", "Cf", "Co", "Cn"} for c in text)
        letters = [unicodedata.name(c).split()[0] for c in text if c.isalpha()]
        allowed = {SCRIPTS[language]} if language in SCRIPTS else {"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "IDEOGRAPHIC"}
        assert set(letters) <= allowed, (set(letters), text)


def test_an_unknown_language_is_refused():
    with pytest.raises(RecipeError, match="the sampler has no text in this language"):
        sampler.paragraphs("tlh")
