"""tune partition: who owns what, whose examples a step sees, what it moves, and what is written."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import partition_oracle

import tiny as make
from polygraft import selections
from polygraft.anatomy import Anatomy
from polygraft.checkpoint import Checkpoint
from polygraft.errors import InputError, RecipeError
from polygraft.evals.callback import WATCHERS
from polygraft.model import load_folder
from polygraft.result import Result
from polygraft.selection import Selection
from polygraft.selections import Entry
from polygraft.sources import resolve
from polygraft.step import Context
from polygraft.tune import examples, owners
from polygraft.tune.config import Around
from polygraft.tune.partition import Partition, balance, job, partition_step
from polygraft.tune.sides import Sides

TASK = [{"prompt": f"{a}+{b}=", "completion": str(a + b)} for a in range(4) for b in range(4)]
LANGUAGE = [{"text": f"word {i} " + "abcdefgh"[i % 8] * (3 + i)} for i in range(10)]
DATA = {"task": lambda spec: TASK, "language": lambda spec: LANGUAGE[: int(spec or 10)]}
AROUND = Around(DATA, WATCHERS)
STEP = partition_step(AROUND)
FAST = {"model": "m", "task_data": ["task:"], "language_data": ["language:"], "steps": 4, "batch": 2, "length": 32, "lr": 1e-2,
        "device": "cpu"}  # fmt: skip
METHODS = ("simultaneous", "freeze", "revert", "joint")


def config(**more) -> Partition:
    return Partition(**(FAST | more))


def context_of(folder, **more) -> Context:
    return Context(model=lambda ref: resolve(folder), data=lambda ref: ref, step_id="t", **more)


@pytest.fixture
def folder(tiny):
    return tiny("llama", layers=4)


@pytest.fixture
def context(folder):
    return context_of(folder)


def opened(folder):
    checkpoint = Checkpoint.open(folder)
    return checkpoint, Anatomy.of(checkpoint.config, checkpoint.tensors), {k: t.shape for k, t in checkpoint.tensors.items()}


def values(folder):
    checkpoint = Checkpoint.open(folder)
    return {k: checkpoint.f32(k).astype(np.float64).reshape(t.shape) for k, t in checkpoint.tensors.items()}


class Cut(Exception):
    pass


def cut_at(step):
    def progress(done, total, text=""):
        if done == step:
            raise Cut

    return progress


# ------------------------------------------------------------------------------------------------------------- who owns what


@pytest.mark.parametrize(("layers", "bottom", "top"), [(32, 6, 2), (30, 6, 2), (64, 12, 4), (16, 3, 1), (4, 1, 0), (2, 1, 0), (1, 1, 0)])
def test_the_published_partition_scales_with_the_depth(layers, bottom, top):
    assert owners.published(layers) == [*range(bottom), *range(layers - top, layers)]


@settings(max_examples=30, deadline=None)
@given(data=st.data(), outside=st.sampled_from(["task", "language", "none"]))
def test_every_parameter_has_one_owner_or_none(tiny, data, outside):
    checkpoint, anatomy, shapes = opened(tiny("llama", layers=4))
    chosen = data.draw(st.sets(st.integers(0, 3), min_size=1, max_size=3))
    mask = np.zeros((4, make.FFN), bool)
    mask[sorted(chosen), : data.draw(st.integers(1, make.FFN))] = True
    language = selections.on(selections.from_mask(mask), anatomy, shapes)
    parts = owners.partition(language, None, outside, anatomy, shapes)
    total = sum(int(np.prod(s)) for s in shapes.values())
    around = Selection({k: None for k, p in anatomy.parts.items() if p.layer is None})
    assert not (parts.task & parts.language).rows
    assert parts.task.count(shapes) + parts.language.count(shapes) == total - (around.count(shapes) if outside == "none" else 0)
    assert (parts.language & around).count(shapes) == (around.count(shapes) if outside == "language" else 0)


@pytest.mark.parametrize("family", make.FAMILIES)
@pytest.mark.parametrize("words", [{}, {"kinds": ["attn"]}, {"kinds": ["ffn"], "layers": ["1"]}])
def test_words_mean_the_same_in_every_family(tiny, family, words):
    _, anatomy, shapes = opened(tiny(family))
    language = owners.by_words(words.get("layers", ()), words.get("kinds", ()), anatomy, shapes)
    parts = owners.partition(language, None, "task", anatomy, shapes)
    kinds = set(words.get("kinds", ("attn", "ffn", "norm")))
    layers = {0, 1} if "kinds" in words and "layers" not in words else {1} if words else {0}
    for key, part in anatomy.parts.items():
        if anatomy.live_name(key) is not None:
            mine = part.layer in layers and part.kind in kinds
            assert (key in parts.language, key in parts.task) == (mine, not mine), key


def test_the_map_says_who_owns_what(folder):
    _, anatomy, shapes = opened(folder)
    some = selections.on([Entry(1, "ffn", "neuron", np.arange(5)), Entry(0, "attn")], anatomy, shapes)
    drawn = owners.owners_map(owners.partition(some, None, "none", anatomy, shapes), anatomy)
    row = dict(zip(drawn.rows, drawn.values, strict=True))
    assert row["attn.q"] == (1.0, 0.0, 0.0, 0.0) and row["ffn.up"] == (0.0, 2.0, 0.0, 0.0)
    assert drawn.scale == "categorical" and set(drawn.outside.values()) == {3.0}
    assert drawn.labels == {"0": "task", "1": "language", "2": "rows of each", "3": "nobody"}


# ------------------------------------------------------------------------------------------------------- whose step it is


@settings(max_examples=60, deadline=None)
@given(counts=st.tuples(st.integers(1, 9), st.integers(1, 9)), steps=st.integers(2, 9), batch=st.integers(1, 4), seed=st.integers(0, 3))
def test_all_ways_see_the_same_examples_as_often(counts, steps, batch, seed):
    apart, mixed = Sides(counts), Sides(counts, mixed=True)
    places = apart.places(counts, steps, batch, seed)
    assert sorted(mixed.places(counts, steps, batch, seed)) == sorted(places) and len(places) == steps * batch
    for side, n in enumerate(apart.steps(steps)):
        mine = [p for step in range(side, steps, 2) for p in places[step * batch : (step + 1) * batch]]
        assert [p - side * counts[0] for p in mine] == examples.order(counts[side], n * batch, seed)


# --------------------------------------------------------------------------------------------------------- what is trained


def reference(folder, parts, s, rows, steps, accumulate=1):
    """The oracle's run: gradients of the mean loss over a step's answer tokens, from torch, on the values that it is given."""
    live = load_folder(folder, dtype="float32")
    sides = Sides((len(TASK), len(LANGUAGE)))
    each = s["batch"] * accumulate
    places = sides.places(sides.counts, steps, each, 0)
    tokens = [examples.tokenize(row, live.tokenizer, s["length"]) for row in rows]
    names = {k: live.anatomy.live_name(k) for k in live.anatomy.parts}

    def gradient(now, step):
        with torch.no_grad():
            for k, v in now.items():
                live.model.get_parameter(names[k]).copy_(torch.from_numpy(v))
        live.model.zero_grad()
        total, count = 0.0, 0
        for i in places[step * each : (step + 1) * each]:
            ids, labels = (torch.tensor([tokens[i][n]]) for n in ("input_ids", "labels"))
            logits = live.model(input_ids=ids).logits[:, :-1].flatten(0, 1)
            total = total + torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), reduction="sum")
            count += int((labels[:, 1:] != examples.IGNORE).sum())
        (total / count).backward()
        return {k: live.model.get_parameter(n).grad.double().numpy() for k, n in names.items()}

    start = values(folder)
    rates = [s["lr"] * (1 - i / steps) for i in range(steps)]  # linear, no warm-up
    decayed = {k for k, v in start.items() if v.ndim > 1}
    return partition_oracle.trained(start, [set(p.rows) for p in parts], gradient, rates, s["weight_decay"], s["clip"], decayed)


@pytest.mark.parametrize("more", [{"clip": 1e9}, {"clip": 0.3}, {"clip": 0.3, "accumulate": 2, "batch": 1, "language_parts": ["ffn"]}])
def test_simultaneous_is_two_optimisers_on_one_moving_model(folder, context, tmp_path, more):
    c = config(steps=6, warmup=0.0, weight_decay=0.1, lr=3e-3, **more)
    parts = job(c, context, AROUND).parts
    STEP.run(c, context, tmp_path)
    expected = reference(folder, parts.both, c.model_dump(), TASK + LANGUAGE, 6, c.accumulate)
    found, start = values(tmp_path / "model"), values(folder)
    for key in found:
        np.testing.assert_allclose(found[key], expected[key], rtol=2e-4, atol=2e-6, err_msg=key)
        assert np.abs(expected[key] - start[key]).max() > 1e-3, key


def test_a_step_moves_its_own_side_only(folder, tmp_path):
    """After two of 2 n steps only ... each side is what it was before the other's step, to the bit."""
    c = config(steps=3, weight_decay=0.5, schedule="constant", warmup=0.0)
    seen = []
    from polygraft.tune.hooks import Hook
    from polygraft.tune.training import Work, train

    class Look(Hook):
        def start(self, live, chosen):
            self.live = live

        def before(self, step):
            seen.append({n: p.detach().clone() for n, p in self.live.model.named_parameters()})

        def end(self, model, step):
            self.before(step)

    made = job(c, context_of(folder), AROUND)
    train(Work(made.task.source, made.task.rows, c.settings(), made.task.selection, None, (*made.task.hooks, Look()), made.sides), tmp_path)
    anatomy = made.task.anatomy
    for step, side in enumerate((0, 1, 0)):
        for key, part in anatomy.parts.items():
            same = torch.equal(seen[step][anatomy.live_name(key)], seen[step + 1][anatomy.live_name(key)])
            assert same == (key not in made.parts.both[side].rows), (step, key)
