"""Texts of the world in corpora and training examples: read as they stand, or refused by file and line."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import tracemalloc
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from polygraft import data
from polygraft.data import open_corpus
from polygraft.errors import InputError
from polygraft.tune import examples

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
ROW = {"text": "Habari ya asubuhi"}
LINE = json.dumps(ROW).encode()


def corpus(path: Path) -> list[str]:
    return list(open_corpus("en", path).documents())


def training(path: Path) -> list[dict]:
    return examples.load(path.name, {}, lambda ref: path.parent / ref)


READERS = {"corpus": corpus, "training": training}


def read(reader: str, path: Path, content: bytes) -> list[Any]:
    path.write_bytes(content)
    return READERS[reader](path)


def each(table: dict[str, dict[str, Any]]) -> Any:
    """One test for every case of every reader."""
    named = [(reader, *case) for reader, cases in table.items() for case in cases.values()]
    ids = [f"{reader}-{name}" for reader, cases in table.items() for name in cases]
    return pytest.mark.parametrize(("reader", "name", "content", "expected"), named, ids=ids)


# ----------------------------------------------------------------------------------------------------------- read as it stands


def variants(language: str) -> set[str]:
    """Composed and decomposed, with marks, joiners and both directions: nothing may normalise or lose any of them."""
    text = WORLD[language]
    return {text, unicodedata.normalize("NFD", text), f"\u200f{text}\u200d x"}


@pytest.mark.group("K")
@pytest.mark.parametrize("language", WORLD)
def test_text_of_a_corpus_comes_back_as_it_was(tmp_path, language):
    for form, make in FORMS.items():
        for text in variants(language):
            assert read("corpus", tmp_path / f"c{form}", make(text)) == [text]


@pytest.mark.group("K")
@pytest.mark.parametrize("language", WORLD)
def test_text_of_an_example_comes_back_as_it_was(tmp_path, language):
    for text in variants(language):
        rows = [{"text": text}, {"completion": text, "prompt": text},
                {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text}]}]
        for ascii_only in (True, False):
            lines = "\n".join(json.dumps(r, ensure_ascii=ascii_only) for r in rows)
            assert read("training", tmp_path / "d.jsonl", lines.encode()) == rows


READ: dict[str, dict[str, tuple[str, bytes, list[Any]]]] = {
    "corpus": {
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
    },
    "training": {
        "byte-order mark": ("d.jsonl", b"\xef\xbb\xbf" + LINE, [ROW]),
        "CRLF": ("d.jsonl", LINE + b"\r\n", [ROW]),
        "blank lines between": ("d.jsonl", b"\n \n" + LINE + b"\n\n\t\n", [ROW]),
        "other keys beside": ("d.jsonl", json.dumps(ROW | {"id": 3, "meta": {"a": None}}).encode(), [ROW]),
        "escapes": ("d.jsonl", LINE.replace(b"a", b"\\u0061"), [ROW]),
    },
}


@pytest.mark.group("K")
@each(READ)
def test_read(tmp_path, reader, name, content, expected):
    assert read(reader, tmp_path / name, content) == expected


@pytest.mark.group("K")
def test_kinds_may_stand_in_one_file(tmp_path):
    rows = [{"text": "a"}, {"instruction": "b", "output": "c"}, {"prompt": "d", "completion": "e"}, {"question": "f", "answer": "g"}]
    found = read("training", tmp_path / "d.jsonl", "\n".join(map(json.dumps, rows)).encode())
    assert [sorted(r) for r in found] == [["text"], ["messages"], ["completion", "prompt"], ["messages"]]


# ----------------------------------------------------------------------------------------------------------------------- refused


REFUSED: dict[str, dict[str, tuple[str, bytes, str]]] = {
    "corpus": {
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
    },
    "training": {
        "UTF-16": ("d.jsonl", json.dumps(ROW).encode("utf-16"), "UTF-16"),
        "Latin-1": ("d.jsonl", LINE + b'\n{"text": "na\xefve"}', "d.jsonl:2: not UTF-8"),
        "NUL": ("d.jsonl", b'{"text": "a\\u0000b"}', "d.jsonl:1: a NUL character"),
        "NUL in an answer": ("d.jsonl", b'{"instruction": "a", "output": "b\\u0000"}', "d.jsonl:1: a NUL character"),
        "half a surrogate pair": ("d.jsonl", LINE + b'\n{"prompt": "a", "completion": "\\ud800"}', "d.jsonl:2: half a surrogate pair"),
        "half a pair in a message": ("d.jsonl", b'{"messages": [{"role": "assistant", "content": "\\udc00"}]}', "d.jsonl:1: half a surrogate"),
        "a key twice": ("d.jsonl", b'{"text": "a", "text": "b"}', "d.jsonl:1: not a JSON line"),
        "a line cut short": ("d.jsonl", LINE + b"\n" + LINE[:9], "d.jsonl:2: not a JSON line"),
        "one array over many lines": ("d.json", b"[\n" + LINE + b"\n]", "jq -c"),
        "one array in one line": ("d.json", b"[" + LINE + b"]", "jq -c"),
        "deep JSON": ("d.jsonl", b"[" * 100_000, "d.jsonl:1: not a JSON line"),
        "a number": ("d.jsonl", b"3", "d.jsonl:1: not an example"),
        "unknown columns": ("d.jsonl", b'{"chosen": "a", "rejected": "b"}', "d.jsonl:1: not an example"),
        "text that is a list": ("d.jsonl", b'{"text": ["a"]}', "d.jsonl:1: `text` is not text"),
        "no answer": ("d.jsonl", b'{"messages": [{"role": "assistant", "content": ""}]}', "d.jsonl:1: no assistant message"),
        "a question that is none": ("d.jsonl", b'{"question": null, "answer": "3"}', "d.jsonl:1: not a message"),
        "empty": ("d.jsonl", b"", "no examples"),
        "blank": ("d.jsonl", b" \n\n", "no examples"),
        "gzip cut short": ("d.jsonl.gz", gzip.compress(LINE * 4000)[:-9], "the compressed file is damaged"),
        "not gzip": ("d.jsonl.gz", LINE, "the compressed file is damaged"),
        "not xz": ("d.jsonl.xz", LINE, "the compressed file is damaged"),
    },
}


@pytest.mark.group("K")
@each(REFUSED)
def test_refused_with_file_and_line(tmp_path, reader, name, content, expected):
    with pytest.raises(InputError) as e:
        read(reader, tmp_path / name, content)
    assert expected in str(e.value) and "\0" not in str(e.value) and len(str(e.value)) < 1200


@pytest.mark.group("K")
@pytest.mark.parametrize(("reader", "words"), [("corpus", "no such corpus"), ("training", "a folder, where|not a plain file|file is missing")])
def test_a_pipe_and_a_folder_are_not_waited_for(tmp_path, reader, words):
    os.mkfifo(tmp_path / "f.jsonl")
    (tmp_path / "g.jsonl").mkdir()
    for name in ("f.jsonl", "g.jsonl", "none.jsonl"):
        with pytest.raises(InputError, match=words):
            READERS[reader](tmp_path / name)


@pytest.mark.group("K")
@pytest.mark.parametrize(("reader", "name", "first"), [("corpus", "a.txt", b"ok"), ("training", "d.jsonl", LINE)], ids=READERS)
def test_a_line_without_end_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch, reader, name, first):
    monkeypatch.setattr(data, "MAX_LINE", 1000)
    with pytest.raises(InputError, match=rf"{name}:2: a line longer than any document"):
        read(reader, tmp_path / name, first + b"\n" + b"x" * 5000)


@pytest.mark.group("O")
def test_a_large_corpus_is_streamed(tmp_path):
    """50 MB unpacked out of a small file: memory stays at a few megabytes."""
    path: Path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress((b"a line of text " * 700 + b"\n") * 5000, 1))
    tracemalloc.start()
    count = sum(1 for _ in open_corpus("en", path).documents())
    assert count == 5000 and tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
