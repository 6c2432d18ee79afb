"""Training data as the world writes them: what is read as it stands, and what is refused by file and line."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from polygraft.errors import InputError
from polygraft.tune import examples

ROW = {"text": "Habari ya asubuhi"}
LINE = json.dumps(ROW).encode()
WORLD = ["Straße", "Ёлка", "十二個の林檎", "๐๑๒ กำ", "০১২ ক্‌ষ", "می‌خواهم ۴۵", "שָׁלוֹם (12)", "1,00,000 क्ष", "İıĞğ", "e\u0301", "\u200fعربي abc", "𝄞"]


def load(tmp_path: Path, data: bytes, name: str = "d.jsonl") -> list[dict]:
    (tmp_path / name).write_bytes(data)
    return examples.load(name, {}, lambda ref: tmp_path / ref)


@pytest.mark.group("K")
@pytest.mark.parametrize("text", WORLD)
def test_no_text_is_changed(tmp_path, text):
    rows = [{"text": text}, {"completion": text, "prompt": text},
            {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text}]}]
    for ascii_only in (True, False):
        assert load(tmp_path, "\n".join(json.dumps(r, ensure_ascii=ascii_only) for r in rows).encode()) == rows


READ = {
    "byte-order mark": b"\xef\xbb\xbf" + LINE,
    "CRLF": LINE + b"\r\n",
    "blank lines between": b"\n \n" + LINE + b"\n\n\t\n",
    "other keys beside": json.dumps(ROW | {"id": 3, "meta": {"a": None}}).encode(),
    "escapes": LINE.replace(b"a", b"\\u0061"),
}


@pytest.mark.group("K")
@pytest.mark.parametrize("case", READ)
def test_read_as_it_stands(tmp_path, case):
    assert load(tmp_path, READ[case]) == [ROW]


@pytest.mark.group("K")
def test_kinds_may_stand_in_one_file(tmp_path):
    rows = [{"text": "a"}, {"instruction": "b", "output": "c"}, {"prompt": "d", "completion": "e"}, {"question": "f", "answer": "g"}]
    found = load(tmp_path, "\n".join(map(json.dumps, rows)).encode())
    assert [sorted(r) for r in found] == [["text"], ["messages"], ["completion", "prompt"], ["messages"]]


REFUSED: dict[str, tuple[str, bytes, str]] = {
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
}


@pytest.mark.group("K")
@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_file_and_line(tmp_path, case):
    name, data, words = REFUSED[case]
    with pytest.raises(InputError) as e:
        load(tmp_path, data, name)
    assert words in str(e.value) and "\0" not in str(e.value) and len(str(e.value)) < 1200


@pytest.mark.group("K")
def test_a_pipe_and_a_folder_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "f.jsonl")
    (tmp_path / "g.jsonl").mkdir()
    for name in ("f.jsonl", "g.jsonl", "none.jsonl"):
        with pytest.raises(InputError):
            examples.load(name, {}, lambda ref: tmp_path / ref)


@pytest.mark.group("K")
def test_a_line_without_end_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    from polygraft import data

    monkeypatch.setattr(data, "MAX_LINE", 1000)
    with pytest.raises(InputError, match=r"d\.jsonl:2: a line longer"):
        load(tmp_path, LINE + b"\n" + b"x" * 5000)
