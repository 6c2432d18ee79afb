"""Texts of the world as alignment pairs: none is changed, and what is no pair is refused by file and line, or left out and counted."""

from __future__ import annotations

import gzip
import json
import unicodedata
from pathlib import Path

import pytest

from polygraft import languages
from polygraft.errors import UserError
from polygraft.step import Context
from polygraft.tune import translation
from polygraft.tune.translation import Alignment

WORLD = {
    "es": "¿Cuántos?", "fr": "Noël, l’été", "de": "Straße 1.234,5", "ru": "Ёлка", "sw": "Habari ya asubuhi", "ja": "十二個の林檎",
    "zh": "一共多少钱？", "ko": "안녕하세요", "th": "๐๑๒ กำ", "bn": "০১২ টাকা ক্‌ষ", "te": "౦౧౨ క్ష", "ar": "٠١٢ يَوْم abc", "fa": "می‌خواهم ۴۵",
    "he": "שָׁלוֹם (12)", "hi": "1,00,000 क्ष", "ta": "க்ஷ ௩", "am": "ሰላም፡", "my": "မြန်မာ", "ka": "გამარჯობა", "tr": "İıĞğ",
    "vi": "Tiếng Việt", "zh-Hant": "一共多少錢？",
}  # fmt: skip


def rows_of(made: translation.Aligned) -> list[dict]:
    return [e.row for e in made.examples]


def gathered(folder: Path, language: str = "sw", **more) -> translation.Aligned:
    return translation.gather(Alignment(pairs={language: "p.jsonl"}, **more), Context(model=str, data=lambda ref: folder / ref), 0)


@pytest.mark.group("K")
@pytest.mark.parametrize("language", WORLD)
def test_text_is_asked_as_it_was(tmp_path, language):
    texts = sorted({WORLD[language], unicodedata.normalize("NFD", WORLD[language]), f"\u200f{WORLD[language]}\u200d {{x}} %s"})
    rows = [{language: t, "en": f"{i} {t[::-1]}"} for i, t in enumerate(texts)]
    (tmp_path / "p.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(json.dumps(r, ensure_ascii=i % 2 == 0).encode() for i, r in enumerate(rows)))
    made = gathered(tmp_path, language)
    name = languages.name(language)
    assert [r["messages"][0]["content"] for r in rows_of(made)] == [f"Translate the following sentences from {name} to English. {t}" for t in texts]
    assert [r["messages"][1]["content"] for r in rows_of(made)] == [r["en"] for r in rows]


REFUSED = {
    "not JSON": (b'{"sw": "a", "en": "b"}\n{"sw"', r"p\.jsonl:2"),
    "a list": (b"[1]", "not an object"),
    "not UTF-8": (b'{"sw": "\xff", "en": "b"}', r"p\.jsonl:1"),
    "UTF-16": ('{"sw": "a", "en": "b"}'.encode("utf-16"), "UTF-16"),
    "a NUL": (b'{"sw": "a\\u0000", "en": "b"}', "NUL"),
    "half a surrogate pair": (b'{"sw": "a\\ud834", "en": "b"}', "surrogate"),
    "no source": (b'{"swa": "a", "en": "b"}', "no such column"),
    "no English": (b'{"sw": "a", "fr": "b"}', "(?s)no such column.*`english`"),
    "a number for a text": (b'{"sw": 3, "en": "b"}', "`sw` is not text"),
    "null for English": (b'{"sw": "a", "en": null}', "`en` is not text"),
    "the same number twice": (b'{"i": 1, "sw": "a", "en": "b"}\n{"i": 1, "sw": "c", "en": "d"}', "same number"),
    "a negative number": (b'{"i": -1, "sw": "a", "en": "b"}', "not the number of a question"),
    "a truth value for a number": (b'{"i": true, "sw": "a", "en": "b"}', "not the number of a question"),
    "a text for a number": (b'{"i": "q7", "sw": "a", "en": "b"}', "not the number of a question"),
    "an empty file": (b"", "no pairs"),
    "only blank lines": (b"\n \n\n", "no pairs"),
    "every source empty": (b'{"sw": " ", "en": "b"}', "(?s)no pair of Swahili is left.*one side empty"),
    "every pair untranslated": (b'{"sw": "3 x 4", "en": "3 x 4 "}', "(?s)no pair of Swahili.*both sides alike"),
    "a key twice": (b'{"sw": "a", "sw": "c", "en": "b"}', "twice"),
}


@pytest.mark.group("K")
@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_place(tmp_path, case):
    content, message = REFUSED[case]
    (tmp_path / "p.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=message) as e:
        gathered(tmp_path)
    assert "p.jsonl" in str(e.value)


FILES = {"missing": None, "cut gzip": gzip.compress(b'{"sw": "a", "en": "b"}\n' * 99)[:-9], "no gzip at all": b"plain"}


@pytest.mark.group("K")
@pytest.mark.parametrize("case", FILES)
def test_a_file_that_cannot_be_read(tmp_path, case):
    if (content := FILES[case]) is not None:
        (tmp_path / "p.jsonl.gz").write_bytes(content)
    with pytest.raises(UserError, match=r"p\.jsonl\.gz"):
        translation.gather(Alignment(pairs={"sw": "p.jsonl.gz"}), Context(model=str, data=lambda ref: tmp_path / ref), 0)


@pytest.mark.group("K")
@pytest.mark.parametrize("name", ["p.csv", "p", "p.parquet"])
def test_another_kind_of_file(tmp_path, name):
    (tmp_path / name).write_bytes(b"a,b\n")
    with pytest.raises(UserError, match="not a file of questions"):
        translation.gather(Alignment(pairs={"sw": name}), Context(model=str, data=lambda ref: tmp_path / ref), 0)


def test_what_is_left_out_is_counted(tmp_path):
    rows = [("a", "b"), ("a", "b"), ("", "c"), ("d", ""), ("e", "e"), ("f", "g")]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"sw": s, "en": e}) + "\n" for s, e in rows))
    (count,) = gathered(tmp_path).counts
    assert (count.rows, count.used, count.again, count.empty, count.same) == (6, 2, 1, 2, 1)
    assert gathered(tmp_path).table().columns == ("language", "rows", "pairs", "one side empty", "both sides alike", "said before")
