"""tune partition: who owns what, whose examples a step sees, what it moves, and what is written."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny as make
from oracle import partition_oracle
from polygraft import selectionfile
from polygraft.anatomy import Anatomy
from polygraft.checkpoint import Checkpoint
from polygraft.evals.callback import WATCHERS
from polygraft.model import load_folder
from polygraft.result import Result
from polygraft.selection import Selection
from polygraft.selectionfile import Entry
from polygraft.sources import resolve
from polygraft.step import Context
from polygraft.tune import examples, experts, owners, partition
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


def context_of(model, **more) -> Context:
    return Context(model=lambda ref: resolve(model), data=lambda ref: ref, step_id="t", **more)


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


@settings(max_examples=12, deadline=None)
@given(data=st.data(), outside=st.sampled_from(["task", "language", "none"]))
def test_every_parameter_has_one_owner_or_none(tiny, data, outside):
    _, anatomy, shapes = opened(tiny("llama", layers=4))
    chosen = data.draw(st.sets(st.integers(0, 3), min_size=1, max_size=3))
    mask = np.zeros((4, make.FFN), bool)
    mask[sorted(chosen), : data.draw(st.integers(1, make.FFN))] = True
    language = selectionfile.on(selectionfile.from_mask(mask), anatomy, shapes)
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
    some = selectionfile.on([Entry(1, "ffn", "neuron", np.arange(5)), Entry(0, "attn")], anatomy, shapes)
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


def reference(folder, parts, c):
    """The oracle's run: gradients of the mean loss over a step's answer tokens, from torch, on the values that it is given."""
    live = load_folder(folder, dtype="float32")
    sides = Sides((len(TASK), len(LANGUAGE)))
    each = c.batch * c.accumulate
    places = sides.places(sides.counts, c.steps, each, c.seed)
    tokens = [examples.tokenize(row, live.tokenizer, c.length) for row in TASK + LANGUAGE]
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
    masks = [{k: mask(part, k, v.shape) for k, v in start.items() if k in part} for part in parts]
    rates = [c.lr * (1 - i / c.steps) for i in range(c.steps)]  # linear, no warm-up
    decayed = {k for k, v in start.items() if v.ndim > 1}
    return partition_oracle.trained(start, masks, gradient, rates, c.weight_decay, c.clip, decayed)


def mask(part, key, shape):
    rows, axis = part.rows[key], part.axis.get(key, 0)
    inside = np.ones(shape[axis]) if rows is None else np.isin(np.arange(shape[axis]), rows).astype(float)
    return np.broadcast_to(inside.reshape([-1 if i == axis else 1 for i in range(len(shape))]), shape)


@pytest.fixture
def neurons(folder, tmp_path):
    """A selection file with some neurons of every layer, as `sw`, and the whole attention of layer 1, as `attn`."""
    rows = np.random.default_rng(0).random((4, make.FFN)) < 0.3
    selectionfile.write(tmp_path / "found.json", {"sw": selectionfile.from_mask(rows), "attn": [Entry(1, "attn")]})
    return tmp_path / "found.json"


@pytest.mark.parametrize("more", [
    {"clip": 0.3}, {"clip": 1e9, "accumulate": 2, "batch": 1, "language_parts": ["ffn"]},
    {"clip": 0.3, "language_select": ":sw+attn"}])
def test_simultaneous_is_two_optimisers_on_one_moving_model(folder, context, neurons, tmp_path, more):
    if "language_select" in more:
        more = more | {"language_select": f"{neurons}{more['language_select']}"}
    c = config(steps=6, warmup=0.0, weight_decay=0.1, lr=3e-3, **more)
    parts = job(c, context, AROUND).parts
    assert bool(parts.task.rows.keys() & parts.language.rows.keys()) == ("language_select" in more)
    result = STEP.run(c, context, tmp_path / "out")
    expected = reference(folder, parts.both, c)
    found, start = values(tmp_path / "out" / "model"), values(folder)
    for key in found:
        np.testing.assert_allclose(found[key], expected[key], rtol=2e-4, atol=2e-6, err_msg=key)
        assert np.abs(expected[key] - start[key]).max() > 1e-3, key
    assert result.maps[0].labels.get("2") == ("rows of each" if "language_select" in more else None)


def test_a_step_moves_its_own_side_only(folder, tmp_path):
    """In the other's step a side stays what it was to the bit, strong weight decay or not."""
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
        for key in anatomy.parts:
            same = torch.equal(seen[step][anatomy.live_name(key)], seen[step + 1][anatomy.live_name(key)])
            assert same == (key not in made.parts.both[side].rows), (step, key)


@pytest.mark.parametrize("family", make.FAMILIES)
def test_every_family_trains_two_sides(tiny, family, tmp_path):
    folder = tiny(family)
    c = config(steps=2, language_parts=["attn"], outside="language")
    result = STEP.run(c, context_of(folder), tmp_path)
    before, after = Checkpoint.open(folder), Checkpoint.open(tmp_path / "model")
    owned = dict(zip(result.tables[0].columns, zip(*result.tables[0].rows, strict=True), strict=True))["parameters owned"]
    anatomy = Anatomy.of(before.config, before.tensors)
    moved = [k for k in before.tensors if before.read(k) != after.read(k)]
    live = [k for k in before.tensors if anatomy.live_name(k) is not None]
    assert sum(owned) == sum(before.tensors[k].numel for k in live)
    assert {anatomy.parts[k].kind for k in moved} >= {"attn", "ffn", "embed"} and set(moved) <= set(live)
    load_folder(tmp_path / "model")


@pytest.mark.parametrize("family", make.MOE)
def test_experts_that_lie_in_one_stacked_tensor_may_have_two_owners(tiny, family, tmp_path):
    c = config(steps=2, language_parts=["up"], weight_decay=0.5)  # gate and up of all experts are one parameter of the live model
    STEP.run(c, context_of(tiny(family)), tmp_path)
    before, after = Checkpoint.open(tiny(family)), Checkpoint.open(tmp_path / "model")
    anatomy = Anatomy.of(before.config, before.tensors)
    for key, part in anatomy.parts.items():
        if part.role in ("experts.gate", "experts.up", "experts.down"):
            assert before.read(key) != after.read(key)


# ------------------------------------------------------------------------------------------------------ freeze and revert


def alone(folder, out, rows, select, steps):
    """One side's expert as `tune sft` trains it."""
    from polygraft.tune.settings import Settings
    from polygraft.tune.training import Work, train

    s = Settings(method="full", steps=steps, batch=2, length=32, lr=1e-2, device="cpu")
    return Checkpoint.open(train(Work(resolve(folder), rows, s, select), out).path)


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """whole("freeze") -> (config, context, folder, result): a run of six steps with neurons of the language, made once."""
    made = {}
    root = tmp_path_factory.mktemp("whole")
    rows = np.random.default_rng(0).random((4, make.FFN)) < 0.3
    selectionfile.write(root / "found.json", {"sw": selectionfile.from_mask(rows)})
    context = context_of(tiny("llama", layers=4))

    def run(method):
        c = config(method=method, steps=6, save_every=1, language_select=f"{root / 'found.json'}", outside="none")
        if method not in made:
            made[method] = STEP.run(c, context, root / method)
        return c, context, root / method, made[method]

    return run


@pytest.mark.parametrize("method", ["freeze", "revert"])
def test_what_is_put_together_are_parts_of_two_experts(folder, whole, tmp_path, method):
    c, context, out, result = whole(method)
    parts = job(c, context, AROUND).parts
    trained = [parts.task, parts.language] if method == "freeze" else [parts.trained, parts.trained]
    each = [alone(folder, tmp_path / str(i), (TASK, LANGUAGE)[i], trained[i], 3) for i in (0, 1)]
    start, found = values(folder), values(out / "model")
    for key, value in start.items():
        expected = value.copy()
        for part, expert in zip(parts.both, each, strict=True):
            if key in part:
                theirs = expert.f32(key).astype(np.float64).reshape(value.shape)
                expected = np.where(mask(part, key, value.shape) > 0, theirs, expected)
        np.testing.assert_array_equal(found[key], expected, err_msg=key)
    assert sorted(p.name for p in out.iterdir()) == ["model", "selection.json"]
    assert result.data.keys() >= {"task", "language"} and len(result.curves) >= 2


@pytest.mark.parametrize(("method", "cut"), [("simultaneous", 3), ("revert", 5)])
def test_a_run_that_was_cut_goes_on_to_the_same_bytes(whole, tmp_path, method, cut):
    c, context, out, result = whole(method)
    with pytest.raises(Cut):
        STEP.run(c, replace(context, progress=cut_at(cut)), tmp_path)
    again = STEP.run(c, context, tmp_path)
    one, two = Checkpoint.open(out / "model"), Checkpoint.open(tmp_path / "model")
    assert all(one.read(k) == two.read(k) for k in one.tensors)
    assert again.curves == result.curves and again.tables[0] == result.tables[0]
    seen = again.data if method == "simultaneous" else again.data["language"]
    assert seen["resumed_at"] > 0


def test_an_expert_of_another_job_or_a_damaged_one_is_trained_again(whole, tmp_path):
    c, context, out, _ = whole("freeze")
    kept = tmp_path / "experts" / "task" / "model" / "model.safetensors"
    for rate in (5e-2, c.lr):
        with pytest.raises(Cut):
            STEP.run(c.model_copy(update={"lr": rate}), replace(context, progress=cut_at(4)), tmp_path)
    raw = bytearray(kept.read_bytes())
    raw[-1] ^= 1
    kept.write_bytes(raw)
    STEP.run(c, context, tmp_path)
    one, two = Checkpoint.open(out / "model"), Checkpoint.open(tmp_path / "model")
    assert all(one.read(k) == two.read(k) for k in one.tensors)


def test_an_expert_is_known_by_the_content_of_what_it_read(folder, tmp_path):
    kept, watched = tmp_path / "kept.txt", tmp_path / "watched.txt"
    at = Context(model=lambda ref: resolve(folder), data=lambda ref: tmp_path / ref)

    def key(say="one\ntwo\n", see="some text", **more):
        kept.write_text(say)
        watched.write_text(see)
        c = config(method="freeze", retain={"text": "kept.txt"}, watch={"corpora": {"en": "watched.txt"}}, **more)
        return experts._key(*partition.alone(job(c, at, AROUND), c, 0), at, AROUND)

    same = key()
    assert same == key(save_every=7) and len({same, key(say="one\nthree\n"), key(see="other text"), key(lr=2e-2), key(seed=3)}) == 5


# ------------------------------------------------------------------------------------------------------------ what is told


@pytest.mark.parametrize("method", METHODS)
def test_plan_and_result_agree(context, tmp_path, method):
    c = config(method=method, mix={"dev": 0.3}, steps=5)
    plan, result = STEP.plan(c, context), STEP.run(c, context, tmp_path)
    assert "5 steps, 3 of the task's on" in plan.lines[0] and "2 of the language's on" in plan.lines[0]
    sides = {row[0]: dict(zip(result.tables[0].columns, row, strict=True)) for row in result.tables[0].rows}
    assert [side["seen"] for side in sides.values()] == [6, 4]
    assert (plan.maps[0] == result.maps[0]) and plan.maps[0].scale == ("sequential" if method == "joint" else "categorical")
    if method != "joint":
        stored = Checkpoint.open(tmp_path / "model").tensors.values()
        assert sum(side["parameters owned"] for side in sides.values()) == sum(t.numel for t in stored)
        assert [len(curve.x) for curve in result.curves[:2]] == [3, 2]
        chosen = selectionfile.read(tmp_path / "selection.json")
        assert list(chosen) == ["task", "language"]
    total = sum(dict(t.rows)["tokens seen"] for t in result.tables if t.title.startswith("Training"))
    assert method == "joint" or total == sum(side["tokens seen"] for side in sides.values())
    held = next(t for t in result.tables if t.title.startswith("Held-out") or "held" in t.title.lower())
    assert {"task", "language"} <= {str(row[0]) for row in held.rows}
    assert Result.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_both_sides_learn(folder, tmp_path):
    few = partition_step(Around({"task": lambda _: TASK[:3], "language": lambda _: LANGUAGE[:3]}, WATCHERS))
    result = few.run(config(steps=60, lr=2e-2, outside="none", save_every=0), context_of(folder), tmp_path)
    for row in result.tables[0].rows:
        side = dict(zip(result.tables[0].columns, row, strict=True))
        assert side["loss, last tenth"] < 0.6 * side["loss, first tenth"], side


def test_the_files_parts_are_those_that_were_trained(folder, context, tmp_path):
    STEP.run(config(language_layers=["1", "3"]), context, tmp_path)
    _, anatomy, shapes = opened(folder)
    parts = job(config(language_layers=["1", "3"]), context, AROUND).parts
    for name, side in zip(owners.SIDES, parts.both, strict=True):
        entries = selectionfile.pick(f"{tmp_path}:{name}", context.folder)
        assert selectionfile.pick(f"{tmp_path / 'model'}:{name}", context.folder) == entries
        assert selectionfile.on(entries, anatomy, shapes).normal(shapes) == side


def test_unbalanced_data_are_counted(context):
    c = config(language_data=["language:2"], steps=8)
    (said,) = job(c, context, AROUND).task.caveats
    assert "uneven: 4 rounds of the language's 2 examples, 0.5 of the task's 16 examples" in said
    assert said in STEP.plan(c, context).notes
    assert balance((16, 10), [8, 8]) == balance((16, 2), [None, None]) == ()


@pytest.mark.parametrize("method", METHODS)
def test_packed_examples_are_counted_one_by_one(context, tmp_path, method):
    """All examples of a side fit into one row: of one row a step each is seen once a step; of mixed rows nobody knows whose they are."""
    c = config(method=method, language_data=["language:4"], packing=True, batch=1, steps=4, length=512)
    result = STEP.run(c, context, tmp_path)
    seen = [dict(zip(result.tables[0].columns, row, strict=True)) for row in result.tables[0].rows]
    expected = [(None, None)] * 2 if method == "joint" else [(32, 2.0), (8, 2.0)]
    assert [(side["seen"], side["times round"]) for side in seen] == expected
    assert "rounds" not in str(STEP.plan(c, context).notes)


def test_packed_sides_of_unequal_length_are_told_when_it_is_known(context, tmp_path):
    c = config(language_data=["language:2"], packing=True, batch=1, steps=4, length=64)
    assert job(c, context, AROUND).task.caveats == ()
    result = STEP.run(c, context, tmp_path)
    assert any("rounds of the language's 2 examples" in line for line in result.caveats)


def test_weights_of_a_mixture_are_those_of_a_side(context):
    c = config(task_data=["a=task:", "b=task:"], mix={"weights": {"a": 3, "b": 1}, "examples": 8})
    assert job(c, context, AROUND).sides.counts == (8, 8)
