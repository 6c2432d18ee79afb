"""Trimming a model: every family, tied and untied, with padded rows and ids that move; rows, other tensors and scores bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

import tiny
from polygraft.checkpoint import Checkpoint
from polygraft.data import open_corpus
from polygraft.errors import StepFailed, UserError
from polygraft.sources import resolve
from polygraft.step import Context
from polygraft.tokenfile import Vocabulary
from polygraft.vocab import trim
from polygraft.vocab.tokenizer import sentencefile
from reload import assert_reloads
from test_tokenfile import byte_level, sentencepiece
from test_vocab_sentencefile import as_tokenizer, trained

CONTEXT = Context(resolve, Path, step_id="trim")
ROWS = 448  # more than any tokenizer here has tokens
TEXT = [f"the cat sat on the mat and the dog sat on the log, {i} times" for i in range(40)]


def with_tokenizer(out: Path, core, end: str = "</s>", first: str = "<s>") -> None:
    """A tokenizer's files whose control tokens the model's config names."""
    out.mkdir(parents=True, exist_ok=True)
    core.save(str(out / "tokenizer.json"))
    (out / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": first, "eos_token": end}))
    (out / "chat_template.jinja").write_text(tiny.CHAT)


def folder(root: Path, family: str, core=None, **more) -> Path:
    """A tiny model with a tokenizer whose end token lies behind all others, so that its id moves."""
    core = core or byte_level(400)
    core.add_special_tokens(["<|endoftext|>"])
    ids = {"bos_token_id": core.token_to_id("<s>"), "eos_token_id": core.token_to_id("<|endoftext|>"), "pad_token_id": core.token_to_id("</s>")}
    out = root / family
    if not out.exists():
        tiny.model(family, vocab_size=ROWS, **ids, **more).save_pretrained(out)
        with_tokenizer(out, core, "<|endoftext|>")
    return out


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "en.txt"
    path.write_text("\n".join(TEXT))
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


def config(model: Path, text: Path, **more):
    return trim.Trim(model=str(model), corpus={"en": str(text)}, **more)


def trimmed(model: Path, text: Path, out: Path, **more):
    return trim.run(config(model, text, **more), CONTEXT, out)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_family_scores_as_before_bit_for_bit(family, root, text, tmp_path):
    import torch

    source = folder(root, family)
    result = trimmed(source, text, tmp_path)
    assert_reloads(tmp_path / "model")
    old, new = Vocabulary.open(source), Vocabulary.open(tmp_path / "model")
    kept = [old.by_name[new.names[i]] for i in range(new.size)]
    assert result.data["rows"] == {"before": ROWS, "after": len(kept)} and len(kept) < old.size
    before, after = Checkpoint.open(source), Checkpoint.open(tmp_path / "model")
    assert after.config["vocab_size"] == len(kept) and new.names[after.config["eos_token_id"]] == "<|endoftext|>"
    for key, tensor in before.tensors.items():
        if tensor.shape[0] == ROWS:
            rows = np.frombuffer(before.read(key), np.uint8).reshape(ROWS, -1)[kept]
            assert after.read(key) == rows.tobytes(), key
        else:
            assert after.read(key) == before.read(key), key
    import transformers as hf

    ids = old.tokenizer.encode(TEXT[0], add_special_tokens=False).ids
    scores = []
    for place, tokens in ((source, ids), (tmp_path / "model", [kept.index(i) for i in ids])):
        net = hf.AutoModelForCausalLM.from_pretrained(place, local_files_only=True).eval()
        with torch.no_grad():
            scores.append(net(torch.tensor([tokens])).logits)
    assert torch.equal(scores[0][..., kept], scores[1])


def test_a_head_bias_and_a_stored_tied_head_follow(root, text, tmp_path):
    source = folder(root, "gpt2")
    tensors = load_file(source / "model.safetensors")
    embedding = tensors["transformer.wte.weight"]
    tensors["lm_head.weight"] = embedding.copy()
    tensors["lm_head.bias"] = np.arange(ROWS, dtype=np.float32)
    copy = tmp_path / "source"
    copy.mkdir()
    for path in source.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    trimmed(copy, text, tmp_path / "out")
    made = load_file(tmp_path / "out/model/model.safetensors")
    kept = made["lm_head.bias"].astype(int)
    assert (np.diff(kept) > 0).all() and len(kept) < ROWS
    assert (made["lm_head.weight"] == embedding[kept]).all() and (made["transformer.wte.weight"] == embedding[kept]).all()


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_sentencepiece_vocabularies(kind, root, text, tmp_path):
    source = folder(root / kind, "llama", sentencepiece(kind, 400))
    result = trimmed(source, text, tmp_path)
    old, new = Vocabulary.open(source), Vocabulary.open(tmp_path / "model")
    assert new.size < old.size
    for line in TEXT:
        a, b = (v.tokenizer.encode(line, add_special_tokens=False).tokens for v in (old, new))
        assert a == b
    assert result.data["held"]["en"]["same"] == result.data["held"]["en"]["documents"] == len(TEXT) // trim.EVERY


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_the_file_of_sentencepiece_is_trimmed_too(kind, root, text, tmp_path):
    data = trained(kind, unk_id=0, bos_id=1, eos_id=2)
    source = folder(root / f"model-{kind}", "llama", Tokenizer.from_str(as_tokenizer(data, kind)))
    (source / "tokenizer.model").write_bytes(data)
    (source / "merges.txt").write_text("of older programs")
    result = trimmed(source, text, tmp_path)
    new = Vocabulary.open(tmp_path / "model")
    pieces = sentencefile.pieces((tmp_path / "model/tokenizer.model").read_bytes(), "tokenizer.model")
    assert pieces == [new.names[i] for i in range(len(pieces))] and len(pieces) < 340
    assert "Left out, since they hold the old vocabulary: merges.txt." in result.summary
    check = next(row for row in result.tables[3].rows if row[0] == "llama.cpp: pre-tokenizer")
    assert check[2] == "yes" and "11 of 11 texts cut alike" in check[1]
    (source / "tokenizer.model").write_bytes(trained(kind, unk_id=2, bos_id=1, eos_id=0))  # ids that are not those of tokenizer.json
    trimmed(source, text, tmp_path / "again")
    assert not (tmp_path / "again/model/tokenizer.model").exists()


def test_the_tokenizer_lies_beside_the_model_too(root, text, tmp_path):
    trimmed(folder(root, "llama"), text, tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / "tokenizer" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()
    assert (tmp_path / "model/chat_template.jinja").read_text() == tiny.CHAT


def test_generation_config_moves_with_its_tokens(root, text, tmp_path):
    source = folder(root, "llama")
    trimmed(source, text, tmp_path)
    old, new = Vocabulary.open(source), Vocabulary.open(tmp_path / "model")
    was, now = (json.loads((p / "generation_config.json").read_text()) for p in (source, tmp_path / "model"))
    assert {k: old.names[v] for k, v in was.items() if k.endswith("_id")} == {k: new.names[v] for k, v in now.items() if k.endswith("_id")}


def test_an_ordinary_token_that_a_config_names_stays(root, text, tmp_path):
    source = folder(root / "named", "llama")
    unused = Vocabulary.open(source).by_name["Ñģ"]  # a merge of Cyrillic bytes
    generation = source / "generation_config.json"
    generation.write_text(json.dumps(json.loads(generation.read_text()) | {"suppress_tokens": [unused]}))
    trimmed(source, text, tmp_path)
    now = json.loads((tmp_path / "model/generation_config.json").read_text())
    assert [Vocabulary.open(tmp_path / "model").names[i] for i in now["suppress_tokens"]] == ["Ñģ"]


def test_scripts_multiples_and_ways_to_choose(root, text, tmp_path):
    source = folder(root, "llama")
    sizes = {}
    for name, how in {"used": {}, "scripts": {"keep_scripts": True}, "top": {"keep_top": 5}, "coverage": {"coverage": 0.5},
                      "often": {"min_count": 30}, "multiple": {"multiple": 64}}.items():
        sizes[name] = trimmed(source, text, tmp_path / name, **how).data["rows"]["after"]
    assert sizes["top"] < sizes["used"] < sizes["scripts"] < Vocabulary.open(source).size
    assert sizes["coverage"] < sizes["often"] < sizes["used"] and sizes["multiple"] % 64 == 0 and sizes["multiple"] - sizes["used"] < 64
    latin = Vocabulary.open(tmp_path / "scripts/model")
    assert not [n for n in latin.names.values() if latin.bytes_of(n).decode("utf-8", "ignore").strip() and "Ð" in n and len(n) > 2]


def test_fewer_tokens_than_text_needs_are_told(root, text, tmp_path):
    result = trimmed(folder(root, "llama"), text, tmp_path, keep_top=5)
    held = result.data["held"]["en"]
    assert held["same"] == 0 and held["gone"] > 0 and held["after"] > held["before"]
    assert "0 of 4 held-out documents" in result.summary[1] and "+" in result.summary[1]


def test_too_little_text_to_hold_some_out_is_told(root, tmp_path):
    short = tmp_path / "en.txt"
    short.write_text("the cat\n")
    assert "too few documents" in trimmed(folder(root, "llama"), short, tmp_path / "out").summary[1]


def test_another_cut_of_the_same_tokens_stops_the_step(text, tmp_path):
    """What cannot happen by design is looked for all the same: here the merges are gone and the tokens are not."""
    byte_level(400).save(str(tmp_path / "tokenizer.json"))
    old = Vocabulary.open(tmp_path)
    (tmp_path / "new").mkdir()
    merged = old.tree | {"model": old.model | {"merges": []}}
    (tmp_path / "new/tokenizer.json").write_text(json.dumps(merged))
    with pytest.raises(StepFailed, match="although no token of it is gone"):
        trim.compared(old, Vocabulary.open(tmp_path / "new"), np.arange(old.size), open_corpus("en", text))


def test_the_plan_reads_headers(root, text):
    planned = trim.plan(config(folder(root, "llama"), text), CONTEXT)
    assert f"{ROWS:,} rows" in planned.lines[0] and planned.disk_bytes > 0


def test_two_ways_to_choose_are_one_too_many(text):
    with pytest.raises(ValidationError, match="different ways to choose"):
        config(Path("m"), text, keep_top=5, coverage=0.9)


def test_tokens_beyond_the_embedding_are_refused_with_both(root, text, tmp_path):
    source = folder(root / "short", "llama", byte_level(400))
    tree = json.loads((source / "tokenizer.json").read_text())
    tree["added_tokens"].append({"id": ROWS + 3, "content": "<far>", "special": True, "single_word": False, "lstrip": False,
                                 "rstrip": False, "normalized": False})
    (source / "tokenizer.json").write_text(json.dumps(tree))
    with pytest.raises(UserError) as e:
        trimmed(source, text, tmp_path)
    assert str(ROWS + 3) in e.value.render() and f"{ROWS}" in e.value.render() and not (tmp_path / "model").exists()
