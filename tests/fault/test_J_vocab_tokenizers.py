"""Group J for vocabularies: broken and hostile tokenizers are refused by every verb that reads one, with what was found; odd ones that
are legal come out whole."""

from __future__ import annotations

import copy
import json
import random
import shutil
from pathlib import Path

import pytest

import tiny as make
from polygraft import cli
from polygraft.errors import UserError
from polygraft.tokenfile import LONGEST, Vocabulary
from polygraft.vocab.pieces import decompose
from polygraft.vocab.tokenizer import trim
from polygraft.vocab.tokenizer.folder import read_tokenizer
from test_tokenfile import byte_level, sentencepiece

pytestmark = pytest.mark.group("J")

ROWS = 448
LINES = ["the cat sat on the mat and the dog sat on the log", "a naïve café, 123 times"] * 12
FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def added(i, content, special=True):
    return {"id": i, "content": content, "special": special, **FLAGS}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A model folder whose tokenizer is sound, and a text."""
    root = tmp_path_factory.mktemp("good")
    make.model("llama", vocab_size=ROWS, layers=1).save_pretrained(root / "model")
    byte_level(400).save(str(root / "model/tokenizer.json"))
    (root / "model/tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    (root / "text.txt").write_text("\n".join(LINES))
    return root


def broken(good, out, change):
    """A copy of the model whose tokenizer.json was changed: `change(tree)` returns nothing, or what to write instead."""
    shutil.copytree(good / "model", out)
    path = out / "tokenizer.json"
    tree = json.loads(path.read_text())
    instead = change(tree)
    if isinstance(instead, bytes):
        path.write_bytes(instead)
    else:
        path.write_text(json.dumps(tree if instead is None else instead))
    return out


def verbs(good, bad, out):
    """Every verb that reads a tokenizer, given the bad one where it reads one first."""
    model, text = str(good / "model"), f"en={good / 'text.txt'}"
    return {
        "trim": ["vocab", "trim", bad, "--corpus", text, "--out", out],
        "extend": ["vocab", "extend", bad, "--corpus", text, "--size", "4", "--out", out],
        "train": ["vocab", "train", bad, "--corpus", text, "--size", "300", "--out", out],
        "assess": ["vocab", "assess", bad, "--corpus", text, "--sizes", "4", "--out", out],
        "tokenizer": ["analyze", "tokenizer", bad, "--corpus", text, "--out", out],
        "init": ["vocab", "init", model, "--tokenizer", bad, "--out", out],
        "propagate": ["vocab", "propagate", "--base", model, "--instruct", model, "--donor", bad, "--mode", "overlap", "--out", out],
    }


VERBS = tuple(verbs(Path(), Path(), ""))
BAD = {
    "two tokens of one id": (lambda t: t["model"]["vocab"].update(twice=5), "id 5 is"),
    "one token of two ids": (lambda t: t["added_tokens"].append(added(999, "<s>")), "0 and 999"),
    "a key twice": (lambda t: json.dumps(t).replace('"<s>": 0', '"<s>": 0, "<s>": 1', 1).encode(), "'<s>' is given twice"),
    "a list": (lambda t: [t], "not a tokenizer"),
    "cut short": (lambda t: json.dumps(t).encode()[:-200], "not valid JSON"),
    "a byte-order mark": (lambda t: b"\xef\xbb\xbf" + json.dumps(t).encode(), "not valid JSON"),
    "no model": (lambda t: t.pop("model") and None, "not a tokenizer"),
    "no vocabulary": (lambda t: t["model"].update(vocab=None), "not a tokenizer"),
    "an empty vocabulary": (lambda t: t.update(added_tokens=[], model=t["model"] | {"vocab": {}, "merges": []}), "0 tokens"),
    "merges of unknown tokens": (lambda t: t["model"]["merges"].append(["zz", "zz"]), "no 'zz'"),
    "merges that make no token": (lambda t: t["model"]["merges"].append(["t", "x"]), "no 'tx'"),
    "a merge of three": (lambda t: t["model"]["merges"].append(["a", "b", "c"]), "two tokens"),
    "a token of a million characters": (lambda t: t["model"]["vocab"].update({"a" * 10**6: 500}), f"{10**6:,} characters"),
    "ids that are no numbers": (lambda t: t["model"]["vocab"].update(x="7"), "'7'"),
    "ids that are fractions": (lambda t: t["model"]["vocab"].update(x=7.5), "7.5"),
    "an id below zero": (lambda t: t["model"]["vocab"].update(x=-1), "-1"),
    "an id beyond any memory": (lambda t: t["model"]["vocab"].update(x=2**40), f"{2**40:,}"),
    "a vocabulary of word pieces": (lambda t: t["model"].update(type="WordPiece"), "WordPiece"),
    "marked ends of words": (lambda t: t["model"].update(end_of_word_suffix="</w>"), "inside of words"),
    "what the library does not know": (lambda t: t.update(pre_tokenizer={"type": "Sideways"}), "library cannot read"),
}


def said(capsys, args):
    code = cli.run([str(a) for a in args])
    captured = capsys.readouterr()
    return code, captured.err + captured.out


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("case", BAD)
def test_refused(case, verb, good, tmp_path, capsys):
    change, words = BAD[case]
    bad = broken(good, tmp_path / "bad", change)
    code, told = said(capsys, verbs(good, bad, tmp_path / "out")[verb])
    assert code == 3, told
    assert words in told and "found:" in told and "Traceback" not in told
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("verb", VERBS)
def test_no_tokenizer_at_all(verb, good, tmp_path, capsys):
    bad = broken(good, tmp_path / "bad", lambda t: None)
    (bad / "tokenizer.json").unlink()
    code, told = said(capsys, verbs(good, bad, tmp_path / "out")[verb])
    assert code == 3 and "tokenizer.json" in told and "Traceback" not in told and not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", ["trim", "propagate"])
def test_ids_beyond_the_embedding_are_refused_with_both_values(verb, good, tmp_path, capsys):
    bad = broken(good, tmp_path / "bad", lambda t: t["added_tokens"].append(added(ROWS + 7, "<far>")))
    code, told = said(capsys, verbs(good, bad, tmp_path / "out")[verb])
    assert code == 3 and str(ROWS + 7) in told and str(ROWS) in told and not (tmp_path / "out").exists()


def test_a_missing_special_token_is_refused_by_name(good, tmp_path, capsys):
    """The model's config names `</s>`, which the new tokenizer lacks."""
    (tmp_path / "new").mkdir()
    byte_level(400, specials=("<s>",)).save(str(tmp_path / "new/tokenizer.json"))
    code, told = said(capsys, verbs(good, tmp_path / "new", tmp_path / "out")["init"])
    assert code == 3 and "'</s>'" in told and "token_id" in told and not (tmp_path / "out").exists()


BESIDE = {
    "tokenizer_config.json is a list": ("tokenizer_config.json", "[]"),
    "tokenizer_config.json is cut short": ("tokenizer_config.json", '{"bos_token": '),
    "added tokens that are a list": ("tokenizer_config.json", '{"added_tokens_decoder": [1]}'),
    "added tokens without content": ("tokenizer_config.json", '{"added_tokens_decoder": {"5": {}}}'),
    "added tokens whose ids are words": ("tokenizer_config.json", '{"added_tokens_decoder": {"x": {"content": "<x>"}}}'),
    "added tokens on other tokens": ("tokenizer_config.json", '{"added_tokens_decoder": {"5": {"content": "<x>"}}}'),
    "generation_config.json is a list": ("generation_config.json", "[1]"),
    "generation_config.json names an id that is nowhere": ("generation_config.json", '{"eos_token_id": 4000}'),
}


@pytest.mark.parametrize("case", BESIDE)
def test_what_stands_beside_it_is_refused_too(case, good, tmp_path, capsys):
    name, text = BESIDE[case]
    bad = broken(good, tmp_path / "bad", lambda t: None)
    (bad / name).write_text(text)
    code, told = said(capsys, verbs(good, bad, tmp_path / "out")["trim"])
    assert code == 3 and name.split(".")[0] in told and "Traceback" not in told, told
    assert not (tmp_path / "out").exists()


ODD = {
    "a NUL in a token": lambda t: t["model"]["vocab"].update({"a\0b": 420}),
    "holes between ids": lambda t: t["model"]["vocab"].update(far=440),
    "an added token that shadows text": lambda t: t["added_tokens"].append(added(420, "cat", special=False)),
    "an added token of white space": lambda t: t["added_tokens"].append(added(420, "  ", special=False)),
    "a token of the longest length": lambda t: t["model"]["vocab"].update({"b" * LONGEST: 420}),
    "no merges": lambda t: t["model"].update(merges=[]),
    "half a surrogate pair": lambda t: json.dumps(t).replace('"<s>": 0', '"<s>": 0, "\\ud800": 421', 1).encode(),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_and_legal(case, good, tmp_path, capsys):
    """It is trimmed to a tokenizer without holes that cuts the text as before, or refused in a sentence."""
    bad = broken(good, tmp_path / "bad", ODD[case])
    code, told = said(capsys, verbs(good, bad, tmp_path / "out")["trim"])
    assert "Traceback" not in told and code in (0, 3, 5), told
    if code:
        assert "found:" in told and not (tmp_path / "out").exists()
        return
    old, new = Vocabulary.open(bad), Vocabulary.open(tmp_path / "out")
    assert not new.holes
    for line in LINES[:2]:
        a, b = (v.tokenizer.encode(line, add_special_tokens=False).tokens for v in (old, new))
        assert a == b


JUNK = (None, -1, 7, 2**40, 1.5, True, "x", "", [], {}, ["a"], {"a": 1}, "\ud800", "▁", [["a", 1]], {"type": "ByteLevel"})
MUTANTS = 120


def places(tree, at=()):
    """Some of all places in a tree: enough of long lists to break them."""
    yield at
    inner = list(tree)[:12] if isinstance(tree, dict) else range(min(len(tree), 4)) if isinstance(tree, list) else ()
    for key in inner:
        yield from places(tree[key], (*at, key))


def replaced(tree, at, value):
    if not at:
        return value
    inner = tree
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    return tree


@pytest.mark.parametrize("kind", ["bytes", "bpe", "unigram"])
def test_any_broken_place_is_refused_or_harmless(kind, tmp_path, record_property):
    """Whatever stands at any place of a tokenizer.json: it is refused in words, or read, trimmed and cut into old tokens."""
    record_property("cases", MUTANTS)
    core = byte_level(300) if kind == "bytes" else sentencepiece(kind)
    core.save(str(tmp_path / "tokenizer.json"))
    old, source, rng = Vocabulary.open(tmp_path), core.to_str(), random.Random(kind)
    refused = 0
    for n in range(MUTANTS):
        tree = json.loads(source)
        for _ in range(1 + n % 2):
            tree = replaced(tree, rng.choice(list(places(tree))), copy.deepcopy(rng.choice(JUNK)))
        (tmp_path / "tokenizer.json").write_text(json.dumps(tree))
        try:
            made = read_tokenizer(tmp_path).vocabulary
            if made.kind in ("BPE", "Unigram"):
                assert trim.without(made, trim.closed(made, range(0, made.size, 2))).tree["model"]
            assert len(decompose(old, made)) == made.size
        except UserError as e:
            refused += 1
            assert "nan" not in e.render() and e.exit_code == 3
    assert refused > MUTANTS // 2
