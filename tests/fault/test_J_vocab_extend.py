"""Group J for tokenizers that are made: what cannot be extended or trained is refused with both values, and nothing is left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tiny
from polygraft import cli
from test_tokenfile import byte_level, sentencepiece

pytestmark = pytest.mark.group("J")
TEXT = "the cat sat on the mat\n" * 40


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model folder with a byte-level tokenizer, and a text."""
    root = tmp_path_factory.mktemp("model")
    found = tiny.folder(root)
    byte_level().save(str(found / "tokenizer.json"))
    return found


def with_tokenizer(model: Path, out: Path, content: str | None) -> Path:
    """The model with another tokenizer.json, or none."""
    out.mkdir()
    for p in model.iterdir():
        if p.name != "tokenizer.json":
            (out / p.name).write_bytes(p.read_bytes())
    if content is not None:
        (out / "tokenizer.json").write_text(content)
    return out


def word_level() -> str:
    tree = json.loads(byte_level().to_str())
    tree["model"] = {"type": "WordLevel", "vocab": {"<s>": 0, "</s>": 1, "<unk>": 2}, "unk_token": "<unk>"}
    return json.dumps(tree)


def ghost() -> str:
    tree = json.loads(byte_level().to_str())
    tree["added_tokens"].append(tree["added_tokens"][0] | {"id": 999})
    return json.dumps(tree)


TOKENIZERS = {
    "Unigram has no merges": ("extend", lambda: sentencepiece("unigram").to_str(), 3, ("only a BPE", "Unigram", "vocab train")),
    "a word a token": ("extend", word_level, 3, ("only a BPE", "WordLevel")),
    "a word a token, trained": ("train", word_level, 3, ("cannot be trained anew", "WordLevel")),
    "no tokenizer": ("extend", lambda: None, 3, ("tokenizer.json",)),
    "a token with two ids": ("train", ghost, 3, ("duplicates", "999")),
    "not JSON": ("extend", lambda: "{", 3, ("tokenizer.json", "not valid JSON")),
}
OPTIONS = {
    "no such script": ("extend", ["--script", "cyrilic"], 2, ("no such script", "cyrilic", "CYRILLIC")),
    "more kept than there are": ("extend", ["--keep", "99999"], 2, ("cannot be kept", "99999", "never dropped")),
    "fewer kept than can be": ("extend", ["--keep", "3"], 2, ("cannot be kept", "found: 3")),
    "no new tokens": ("extend", ["--size", "0"], 2, ("--size", "at least 1")),
    "no room beside the bytes": ("train", ["--size", "257"], 2, ("no room", "257", "more than 258")),
    "a share of what is not read": ("extend", ["--share", "sw=1"], 2, ("share",)),
    "a share of nothing": ("extend", ["--share", "en=0"], 2, ("share",)),
    "nothing is frequent enough": ("extend", ["--min-count", "100000"], 5, ("no pair of tokens to merge", "--min-count")),
}


def refused(verb, model, text, out, extra, code, words, capfd):
    size = [] if "--size" in extra else ["--size", "300"]
    assert cli.run(["vocab", verb, str(model), "--corpus", f"en={text}", *size, *extra, "--out", str(out)]) == code
    said = capfd.readouterr().err
    assert all(word in said for word in words), said
    assert "Traceback" not in said and not out.exists()


@pytest.mark.parametrize("case", TOKENIZERS)
def test_tokenizers_that_cannot_be_the_start(case, model, tmp_path, capfd):
    verb, content, code, words = TOKENIZERS[case]
    bad = with_tokenizer(model, tmp_path / "bad", content())
    text = tmp_path / "en.txt"
    text.write_text(TEXT)
    refused(verb, bad, text, tmp_path / "out", [], code, words, capfd)


@pytest.mark.parametrize("case", OPTIONS)
def test_options_that_cannot_be(case, model, tmp_path, capfd):
    verb, extra, code, words = OPTIONS[case]
    text = tmp_path / "en.txt"
    text.write_text(TEXT)
    refused(verb, model, text, tmp_path / "out", extra, code, words, capfd)


@pytest.mark.parametrize(("content", "words"), [
    (b"", ("holds no text",)), (b"ok\n\xff\xfe\n", ("en.txt:2", "not UTF-8")), (b"a\0b\n", ("en.txt:1", "NUL")),
], ids=["empty", "not UTF-8", "NUL"])  # fmt: skip
@pytest.mark.parametrize("verb", ["extend", "train"])
def test_text_that_is_none(verb, content, words, model, tmp_path, capfd):
    text = tmp_path / "en.txt"
    text.write_bytes(content)
    refused(verb, model, text, tmp_path / "out", [], 3, words, capfd)
