"""Texts of the world in corpora: 22 languages through every file form, and every kind of broken text named by file and line."""

from __future__ import annotations

import gzip
import json
import lzma
import tracemalloc
import unicodedata
from pathlib import Path

import pytest

from polygraft.data import open_corpus
from polygraft.errors import InputError

WORLD = {
    "en": "It is 3:05.", "es": "¿Cuántos?", "fr": "Noël, l’été", "de": "Straße 1.234,5", "ru": "Ёлка", "sw": "Habari ya asubuhi",
    "ja": "十二個の林檎", "zh": "一共多少钱？", "ko": "안녕하세요", "th": "๐๑๒ กำ", "bn": "০১২ টাকা ক্‌ষ", "te": "౦౧౨ క్ష",
    "ar": "٠١٢ يَوْم abc", "fa": "می‌خواهم ۴۵", "he": "שָׁלוֹם (12)", "hi": "1,00,000 क्ष", "ta": "க்ஷ ௩", "am": "ሰላም፡", "my": "မြန်မာ",
    "ka": "გამარჯობა", "tr": "İıĞğ", "vi": "Tiếng Việt",
}  # fmt: skip
FORMS = {
    ".txt": lambda t: t.encode() + b"\n",
    ".txt.gz": lambda t: gzip.compress(t.encode()),
    ".txt.xz": lambda t: lzma.compress(t.encode() + b"\r\n"),
    ".jsonl": lambda t: json.dumps({"text": t}).encode(),
    ".jsonl.xz": lambda t: lzma.compress(json.dumps({"text": t}, ensure_ascii=False).encode()),
}


@pytest.mark.group("K")
@pytest.mark.parametrize("language", WORLD)
def test_text_comes_back_as_it_was(tmp_path, language):
    """Composed and decomposed, with marks, joiners and both directions: no form may normalise or lose anything."""
    for form, make in FORMS.items():
        for text in {WORLD[language], unicodedata.normalize("NFD", WORLD[language]), f"\u200f{WORLD[language]}\u200d x"}:
            path = tmp_path / f"c{form}"
            path.write_bytes(make(text))
            assert list(open_corpus(language, path).documents()) == [text]


READ: dict[str, tuple[str, bytes, list[str]]] = {
    "byte-order mark": ("a.txt", b"\xef\xbb\xbfone\ntwo\n", ["one", "two"]),
    "byte-order mark before JSON": ("a.jsonl", b'\xef\xbb\xbf{"text": "one"}\n', ["one"]),
    "mark inside the text stays": ("a.txt", "a\n\ufeffb\n".encode(), ["a", "\ufeffb"]),
    "CRLF": ("a.txt", b"one\r\ntwo\r\n", ["one", "two"]),
    "CRLF in JSON lines": ("a.jsonl", b'{"text": "a"}\r\n{"text": "b"}\r\n', ["a", "b"]),
    "empty lines": ("a.txt", b"\n\none\n \t\n\ntwo\n\n", ["one", "two"]),
    "empty lines in JSON lines": ("a.jsonl", b'\n{"text": "a"}\n  \n{"text": ""}\n{"text": "b"}\n', ["a", "b"]),
    "no newline at the end": ("a.txt", b"one\ntwo", ["one", "two"]),
    "only CRLF differs": ("a.txt", b"a\rb\n", ["a\rb"]),
    "line separators are text": ("a.txt", "a\u2028b\x85c\x0bd\n".encode(), ["a\u2028b\x85c\x0bd"]),
    "a line of 1 MB": ("a.txt", b"x" * (1 << 20) + b"\ny\n", ["x" * (1 << 20), "y"]),
    "a pair of escaped surrogates": ("a.jsonl", b'{"text": "\\ud834\\udd1e"}', ["𝄞"]),
    "two gzip members": ("a.txt.gz", gzip.compress(b"one\n") + gzip.compress(b"two\n"), ["one", "two"]),
    "two xz streams": ("a.txt.xz", lzma.compress(b"one\n") + lzma.compress(b"two\n"), ["one", "two"]),
}


@pytest.mark.group("K")
@pytest.mark.parametrize("case", READ)
def test_read(tmp_path, case):
    name, data, expected = READ[case]
    (tmp_path / name).write_bytes(data)
    assert list(open_corpus("en", tmp_path / name).documents()) == expected


REFUSED: dict[str, tuple[str, bytes, str]] = {
    "empty file": ("a.txt", b"", "a.txt: the corpus holds no text"),
    "only blank lines": ("a.txt", b"\n \n\n", "a.txt: the corpus holds no text"),
    "only empty texts": ("a.jsonl", b'{"text": ""}\n', "a.jsonl: the corpus holds no text"),
    "not UTF-8": ("a.txt", b"ok\nok\nna\xefve\n", "a.txt:3: not UTF-8"),
    "UTF-16": ("a.txt", "hello".encode("utf-16"), "a.txt: the text is UTF-16"),
    "NUL": ("a.txt", b"one\nt\0o\n", "a.txt:2: a NUL character"),
    "NUL in JSON": ("a.jsonl", b'{"text": "a\\u0000"}\n', "a.jsonl:1: a NUL character"),
    "lone surrogate in UTF-8": ("a.txt", b"\xed\xa0\x80\n", "a.txt:1: not UTF-8"),
    "lone surrogate in JSON": ("a.jsonl", b'{"text": "a"}\n\n{"text": "\\ud800"}\n', "a.jsonl:3: half a surrogate pair"),
    "broken JSON": ("a.jsonl", b'{"text": "a"}\n{"text": "b"\n', "a.jsonl:2: not valid JSON"),
    "not an object": ("a.jsonl", b'["a"]\n', "a.jsonl:1: a line that is not an object"),
    "no text field": ("a.jsonl", b'{"body": "a"}\n', "a.jsonl:1: no text under `text`"),
    "text is a number": ("a.jsonl", b'{"text": 5}\n', "a.jsonl:1: no text under `text`"),
    "key given twice": ("a.jsonl", b'{"text": "a", "text": "b"}\n', "a.jsonl:1: not valid JSON"),
    "deep JSON": ("a.jsonl", b"[" * 200_000, "a.jsonl:1: not valid JSON"),
    "gzip cut short": ("a.txt.gz", gzip.compress(b"one\n" * 5000)[:-20], "the compressed file is damaged"),
    "gzip flipped": ("a.txt.gz", gzip.compress(b"one\n" * 50)[:-6] + b"\0" * 6, "the compressed file is damaged"),
    "not gzip": ("a.jsonl.gz", b'{"text": "a"}\n', "the compressed file is damaged"),
    "xz cut short": ("a.txt.xz", lzma.compress(b"one\n" * 5000)[:-20], "the compressed file is damaged"),
    "not xz": ("a.txt.xz", b"one\n", "the compressed file is damaged"),
}


@pytest.mark.group("K")
@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_file_and_line(tmp_path, case):
    name, data, words = REFUSED[case]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError) as e:
        list(open_corpus("en", tmp_path / name).documents())
    assert words in str(e.value) and "\0" not in str(e.value) and len(str(e.value)) < 1000


@pytest.mark.group("K")
def test_a_folder_and_a_fifo_are_not_corpora(tmp_path):
    import os

    (tmp_path / "d.txt").mkdir()
    os.mkfifo(tmp_path / "f.txt")
    for name in ("d.txt", "f.txt"):
        with pytest.raises(InputError, match="no such corpus"):
            open_corpus("en", tmp_path / name)


@pytest.mark.group("O")
def test_a_large_corpus_is_streamed(tmp_path):
    """50 MB unpacked out of a small file: memory stays at a few megabytes."""
    path: Path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress((b"a line of text " * 700 + b"\n") * 5000, 1))
    tracemalloc.start()
    count = sum(1 for _ in open_corpus("en", path).documents())
    assert count == 5000 and tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


@pytest.mark.group("K")
def test_a_line_without_end_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    from polygraft import data

    monkeypatch.setattr(data, "MAX_LINE", 1000)
    (tmp_path / "a.txt").write_bytes(b"ok\n" + b"x" * 5000)
    with pytest.raises(InputError, match=r"a.txt:2: a line longer than any document"):
        list(open_corpus("en", tmp_path / "a.txt").documents())
