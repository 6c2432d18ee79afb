"""What vocabularies ask of training and evaluation: blocks of plain text, bits per byte, a short pretraining, copies."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import tiny as make
from polygraft.checkpoint import Checkpoint
from polygraft.errors import InputError
from polygraft.evals.callback import WATCHERS
from polygraft.evals.items import Item, Response
from polygraft.evals.metrics.copying import copy_length, matched
from polygraft.model import load
from polygraft.sources import resolve
from polygraft.step import Context
from polygraft.steps import AROUND
from polygraft.tune import examples
from polygraft.tune.config import Around as Training
from polygraft.tune.embeddings import Embeddings, embeddings_step, new_tokens
from polygraft.tune.settings import Settings
from polygraft.tune.tokenised import cut, held, prepare, spans

TEXT = "one two three four\nfive six seven\neight nine ten eleven twelve\n\nthirteen fourteen"


class Characters:
    """A tokenizer of code points."""

    is_fast, eos_token_id, name_or_path = True, 0, "characters"

    def __call__(self, text, add_special_tokens=True, return_offsets_mapping=False):
        return {"input_ids": [ord(c) for c in text], "offset_mapping": [(i, i + 1) for i in range(len(text))]}

    def decode(self, ids):
        return "".join(map(chr, ids))


@given(st.text(alphabet="ab\n", max_size=60), st.integers(2, 12))
def test_blocks_lose_nothing_and_begin_after_a_line_break_where_one_fits(text, limit):
    ids = [ord(c) for c in text]
    found = spans(ids, limit, Characters())
    assert all(b - a <= limit for a, b in found) and found[0][0] == 0
    assert all(b == c for (_, b), (c, _) in pairwise(found))  # end to end
    assert len(ids) - found[-1][1] <= 1  # all but one token alone
    for (a, b), (c, _) in pairwise(found):
        assert b == c and (text[b - 1] == "\n" or "\n" not in text[a + 1 : a + limit])


def test_a_long_text_goes_on_in_further_rows():
    row, tokenizer = {"text": TEXT}, Characters()
    rows, notes = prepare([row], tokenizer, Settings(length=24, blocks=True))
    assert "".join(tokenizer.decode(r) for r in rows["input_ids"]) == TEXT + "\0" and not notes
    plain, notes = prepare([row], tokenizer, Settings(length=24))
    assert len(plain) == 1 and "cut there" in notes[0]
    chat = {"prompt": "ab\n" * 20, "completion": "ab\n" * 20}  # an example is no text: it is cut as ever
    whole = examples.tokenize(chat, tokenizer, 1000)
    assert len(cut(whole, chat, tokenizer, Settings(length=70, blocks=True), 70)) == 1


@given(st.text(alphabet="aя\n世", min_size=2, max_size=60), st.integers(2, 12))
def test_bytes_of_held_text_are_those_of_its_scored_tokens(text, limit):
    parts, size = held({"text": text}, Characters(), Settings(blocks=True), limit)
    scored = [c for part in parts for c in part["input_ids"][1:]]
    assert size == sum(len(chr(c).encode()) for c in scored)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make.folder(tmp_path_factory.mktemp("around"), "llama")


def test_a_pretraining_learns_the_rows_that_it_is_given_and_keeps_nothing(folder):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    texts, told = [TEXT] * 8, ["five six seven\neight nine ten", "one two three"]
    found = AROUND.pretrain(folder, texts, told, rows=None, steps=12, every=6, lr=0.05, batch=4, length=32, device="cpu")
    assert len(found.losses) == 12 and sorted(found.nats) == [0, 6, 12]
    assert found.nats[12].sum() < 0.9 * found.nats[0].sum()
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    idle = AROUND.pretrain(folder, texts, told, rows=np.array([make.VOCAB - 1]), steps=3, lr=0.05, batch=4, length=32, device="cpu")
    np.testing.assert_allclose(idle.nats[0], found.nats[0])  # the same texts, the same model


def test_its_nats_are_those_of_all_tokens_but_each_first_one(folder):
    import torch

    told, live = ["five six seven\neight nine ten", "one two three"], load(folder, dtype="float32")
    found = AROUND.pretrain(folder, [TEXT], told, rows=None, steps=1, batch=1, length=64, device="cpu")
    for text, nats, size in zip(told, found.nats[0], found.bytes, strict=True):
        ids = live.tokenizer(text)["input_ids"]
        with torch.no_grad():
            logits = live.model(torch.tensor([ids])).logits[0].double().numpy()
        logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        assert size == len(text.encode()) - 1  # one token is one byte here
        assert nats == pytest.approx(-sum(logs[i, token] for i, token in enumerate(ids[1:])), rel=1e-5)


def test_copies_are_scored_as_the_shipped_tasks_score_them(folder):
    live = load(folder, dtype="float32")
    for kind in ("sentence", "paragraph"):
        for chat in (False, True):
            [copy] = AROUND.copies(live, "ru", kind, ["Привет, мир"], chat)
            response = Response(text=copy.text, tokens=copy.tokens, gold_tokens=copy.source_tokens, finished=copy.finished)
            item = Item("x", "ru", "", golds=("Привет, мир",))
            top, _ = copy_length(item, response)
            assert copy.scores["copy length"] == top
            assert copy.scores["copy reliability"] == float(matched("Привет, мир", copy.text.strip()) >= 0.99)


def longer(folder, out):
    """The same model with two more tokens, and rows for them."""
    import shutil

    shutil.copytree(folder, out)
    tree = json.loads((out / "tokenizer.json").read_text())
    tree["model"]["vocab"] |= {"on": make.VOCAB, "ee": make.VOCAB + 1}
    tree["model"]["merges"] = [["o", "n"], ["e", "e"]]
    (out / "tokenizer.json").write_text(json.dumps(tree))
    config = json.loads((out / "config.json").read_text()) | {"vocab_size": make.VOCAB + 2}
    (out / "config.json").write_text(json.dumps(config))
    tensors = load_file(out / "model.safetensors")
    for key in [k for k, t in tensors.items() if t.shape[0] == make.VOCAB]:
        tensors[key] = np.concatenate([tensors[key], tensors[key][:2]])
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    return out


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_only_new_rows_move(family, tmp_path):
    base = make.folder(tmp_path, family)
    model = longer(base, tmp_path / "longer")
    (tmp_path / "text.txt").write_text("one three seven\n" * 8)
    step = embeddings_step(Training({}, WATCHERS))
    config = step.config(model="model", base="base", rows=("new",), data=("text.txt",), blocks=True, steps=2, batch=4, length=16,
                         lr=0.05, save_every=0, device="cpu", answer_only=False)
    places = {"model": model, "base": base}
    context = Context(lambda ref: resolve(places[ref]), lambda ref: tmp_path / ref)
    assert f"Tokens: 2 of {make.VOCAB + 2:,}" in " ".join(step.plan(config, context).lines)
    step.run(config, context, tmp_path / "out")
    before, after = (load_file(f / "model.safetensors") for f in (model, tmp_path / "out" / "model"))
    moved = {k: np.flatnonzero((before[k] != after[k]).reshape(len(before[k]), -1).any(1)).tolist()
             for k in before if not np.array_equal(before[k], after[k])}
    assert moved and all(rows == [make.VOCAB, make.VOCAB + 1] for rows in moved.values())


def test_new_rows_need_a_base_and_new_tokens(tmp_path):
    base = make.folder(tmp_path, "llama") / "tokenizer.json"
    with pytest.raises(InputError, match="no token that its base lacks"):
        new_tokens(base, base, make.VOCAB)
    for fields in ({"rows": ("new",)}, {"base": "m"}):
        with pytest.raises(ValueError, match="base"):
            Embeddings(model="m", data=("a.txt",), **fields)


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3"])
def test_a_body_moves_by_the_rank_and_no_more(family, tmp_path):
    folder = make.folder(tmp_path, family)
    (tmp_path / "text.txt").write_text("one three seven\n" * 8)
    step = embeddings_step(Training({}, WATCHERS))
    config = step.config(model="m", rows=("70-80",), body=2, data=("text.txt",), blocks=True, steps=3, batch=4, length=16, lr=0.02,
                         save_every=0, device="cpu")
    context = Context(lambda ref: resolve(folder), lambda ref: tmp_path / ref)
    planned, result = step.plan(config, context), step.run(config, context, tmp_path / "out")
    count = dict(result.tables[0].rows)["trained parameters"]
    assert f"{count:,} trained parameters" in planned.lines[0] and any("rank 2" in line for line in result.summary)
    before, after = Checkpoint.open(folder), Checkpoint.open(tmp_path / "out" / "model")
    ranks = {}
    for key, info in before.tensors.items():
        change = (after.f32(key) - before.f32(key)).reshape(info.shape).astype(np.float64)
        if before.read(key) != after.read(key):
            ranks[key] = np.linalg.matrix_rank(change, tol=1e-5) if change.ndim == 2 else 1
    body = [key for key in ranks if ".0." in key or ".1." in key]
    assert body and all(1 <= ranks[key] <= 2 for key in body)
    assert all("emb" in key or "wte" in key or "head" in key for key in set(ranks) - set(body))
    assert load(tmp_path / "out" / "model").model is not None
