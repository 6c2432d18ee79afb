"""Group K for vocabularies: text that `vocab calibrate` and `vocab gate` read, broken or odd: refused by file and line, or whole."""

from __future__ import annotations

import json

import pytest

import tiny as make
from polygraft import cli

pytestmark = pytest.mark.group("K")

LINE = "Предложение говорит о том, что дом стоит у реки и виден издалека."
BROKEN = {
    "empty": ("text.txt", b"", "no text"),
    "white space": ("text.txt", b" \n\t\n", "no text"),
    "not UTF-8": ("text.txt", LINE.encode("koi8-r"), "not UTF-8"),
    "NUL": ("text.txt", f"{LINE}\0".encode(), "NUL"),
    "half a pair": ("text.jsonl", b'{"text": "\\ud83e and so on"}', "surrogate"),
    "not JSON": ("text.jsonl", b'{"text": "a', "text.jsonl:1"),
    "a list": ("text.jsonl", b'["a"]', "not an object"),
    "no text field": ("text.jsonl", b'{"body": "a"}', "no text under"),
    "another kind": ("text.csv", b"a,b", "kind of file"),
    "no prose": ("text.txt", b"1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10 | 11 | 12 | 13\n", "to copy"),
    "short lines": ("text.txt", "да\nнет\n".encode(), "to copy"),
}
PROMPTS = {
    "no prompt": (b'{"output": "x"}', "prompts.jsonl:1: no prompt"),
    "an empty one": (b'{"prompt": " "}', "no prompt"),
    "only an assistant": (b'{"messages": [{"role": "assistant", "content": "x"}]}', "no prompt"),
    "messages of text": (b'{"messages": ["x"]}', "no prompt"),
    "a number": (b'{"prompt": 5}', "no prompt"),
    "nothing": (b"\n", "no prompts"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make.folder(tmp_path_factory.mktemp("model"), "llama")


def refused(capsys, code, words, *argv):
    assert cli.run(list(map(str, argv))) == code
    error = capsys.readouterr().err
    assert words in " ".join(error.split()) and "Traceback" not in error


@pytest.mark.parametrize("case", BROKEN)
def test_a_text_that_cannot_be_read(case, model, tmp_path, capsys):
    name, content, words = BROKEN[case]
    path, out = tmp_path / name, tmp_path / "out"
    path.write_bytes(content)
    refused(capsys, 3, words, "vocab", "calibrate", "--corpus", f"ru={path}", "--out", out)
    refused(capsys, 3, words, "vocab", "gate", model, "--start", model, "--corpus", f"ru={path}", "--out", out)
    assert not out.exists()


@pytest.mark.parametrize("case", PROMPTS)
def test_prompts_that_cannot_be_asked(case, model, tmp_path, capsys):
    content, words = PROMPTS[case]
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(content)
    refused(capsys, 3, words, "vocab", "calibrate", "--model", model, "--prompts", f"ru={path}", "--plan")


@pytest.mark.parametrize(("argv", "code", "words"), [
    ((), 2, "nothing to make examples of"),
    (("--prompts", "ru=p.jsonl"), 2, "need the `model`"),
    (("--corpus", "xxyyzz=t.txt"), 2, "xxyyzz"),
    (("--corpus", "t.txt"), 2, "corpus"),
    (("--corpus", "ru=absent.txt"), 3, "absent.txt"),
    (("--corpus", "ru=t.txt", "--sentences", "-1"), 2, "at least 0"),
])
def test_words_that_mean_nothing(argv, code, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.txt").write_text(LINE)
    refused(capsys, code, words, "vocab", "calibrate", *argv)


@pytest.mark.parametrize("text", [
    "\u202e" + LINE, LINE.replace("дом", "до\u0301м"), LINE.replace(" ", "\u00a0"), LINE.replace(" ", " 🦙 "), "Ὁ οἶκος " * 9 + ".",
    "यह घर नदी के किनारे है और दूर से दिखाई देता है।", "这座房子坐落在河边，从很远的地方就能看到它，房前有一棵大树，树下坐着一位老人，正在看书。"])  # fmt: skip
def test_odd_text_comes_out_whole(text, tmp_path):
    (tmp_path / "t.jsonl").write_text(json.dumps({"text": text}))
    out = tmp_path / "out"
    assert cli.run(["vocab", "calibrate", "--corpus", f"ru={tmp_path / 't.jsonl'}", "--out", str(out)]) == 0
    rows = [json.loads(line) for line in (out / "calibration.jsonl").read_text(encoding="utf-8").splitlines()]
    [asked, answered] = rows[0]["messages"]
    assert answered["content"] in asked["content"] and answered["content"] == " ".join(text.split())
