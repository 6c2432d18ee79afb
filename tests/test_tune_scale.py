"""What a training will need and take, foretold by formula and by a probe; optional extras and their refusals."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from oracle import forecast_oracle
from polygraft.anatomy import Anatomy
from polygraft.checkpoint import Checkpoint
from polygraft.errors import RecipeError
from polygraft.selection import Selection
from polygraft.sources import resolve
from polygraft.tune import extras, memory, prediction, probe
from polygraft.tune.settings import Settings
from polygraft.tune.training import Work, train
from tiny import FAMILIES

ROWS = [{"prompt": f"{a}+{b}=", "completion": str(a + b) * (1 + a)} for a in range(4) for b in range(5)]
PLAIN = Settings(method="full", steps=4, batch=4, lr=1e-3, save_every=2, length=32, device="cpu", weight_decay=0.1)

# --------------------------------------------------------------------------------------------------------------------- forecasts

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=40)


@given(LENGTHS, st.integers(1, 5), st.integers(1, 4))
def test_padded_tokens_are_the_rectangles_of_a_step(lengths: list[int], batch: int, accumulate: int):
    assert probe.padded(lengths, batch, accumulate, packing=False) == forecast_oracle.padded(lengths, batch, accumulate)
    assert sum(probe.padded(lengths, batch, accumulate, packing=True)) == sum(lengths)


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=30))
def test_the_heaviest_and_the_lightest_step_are_probed(tokens: list[int]):
    middle, heavy, light, again = probe.chosen_steps(tokens)
    assert tokens[heavy] == max(tokens) and tokens[light] == min(tokens) and middle == again
    assert tokens[light] <= tokens[middle] <= tokens[heavy]


@given(st.lists(st.integers(1, 10**5), min_size=3, max_size=3, unique=True), st.floats(0, 10), st.floats(1e-6, 1))
def test_a_line_is_found_again(tokens: list[int], fixed: float, rate: float):
    assume(np.std(tokens) > 0.15 * np.mean(tokens))
    seconds = [fixed + rate * n for n in tokens]
    assert np.allclose(probe.line(tokens, seconds), (fixed, rate), rtol=1e-6, atol=1e-6 * max(seconds))


@given(st.lists(st.tuples(st.integers(1, 10**5), st.floats(1e-3, 1e3)), min_size=3, max_size=3))
def test_a_line_never_foretells_less_than_nothing(points: list[tuple[int, float]]):
    tokens, seconds = [x for x, _ in points], [y for _, y in points]
    fixed, rate = probe.line(tokens, seconds)
    assert fixed >= 0 and rate >= 0 and fixed + rate * min(tokens) > 0 and math.isfinite(fixed + rate)
    best = forecast_oracle.line(tokens, seconds)
    if np.std(tokens) > 0.15 * np.mean(tokens) and min(best) > 1e-9:
        assert np.allclose((fixed, rate), best, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_probe_measures_and_leaves_nothing(tiny, tmp_path: Path, method: str, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    work = Work(resolve(tiny("llama")), ROWS, replace(PLAIN, method=method, r=2))
    found = probe.probe(work)
    done = train(work, tmp_path / "out")
    assert len(found.steps) == done.steps == 4 and found.tokens == done.tokens <= sum(found.steps)
    assert found.training > 0 and found.loading > 0 and found.peak > 50 << 20 and found.seconds(0) < found.seconds(10**9)
    assert not list(tmp_path.glob("polygraft-*"))


def test_a_plan_measures_where_it_is_asked_to(tiny, tmp_path: Path):
    from polygraft import recipe
    from polygraft.steps import TABLE

    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    step = next(s for s in TABLE if s.name == "tune.sft")
    config = step.config(model=str(tiny("llama")), data=[str(tmp_path / "rows.jsonl")], steps=3, batch=2, length=32, device="cpu")
    guess, seen = (recipe.plan_step(step, config, folder=tmp_path, probe=probing) for probing in (False, True))
    assert not guess.errors and not seen.errors and guess.key == seen.key
    assert prediction.GUESS in guess.plan.notes and any(line.startswith("memory of a process") for line in guess.plan.lines)
    assert prediction.GUESS not in seen.plan.notes and any(line.startswith("measured: ") for line in seen.plan.lines)
    assert seen.plan.seconds > 0 and seen.plan.disk_bytes == guess.plan.disk_bytes
    assert [s.name for s in TABLE if s.probes] == [s.name for s in TABLE if s.name.startswith("tune.")]


ALONE = """
import json, sys
from pathlib import Path
from polygraft import recipe
from polygraft.steps import TABLE
what, words, out = sys.argv[1:]
step = next(s for s in TABLE if s.name == "tune.sft")
config = step.config(**json.loads(words))
if what == "probe":
    plan = recipe.plan_step(step, config, probe=True).plan
    print(json.dumps([plan.peak_bytes, plan.seconds]))
else:
    result = recipe.run_step(step, config, Path(out))
    print(json.dumps([result.cost.peak_bytes, result.data["seconds"]]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_probe_foretells_what_the_training_takes(tiny, tmp_path: Path, method: str):
    """Each in a process of its own. Seconds have room for a machine that does other things at the same time."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": "river " * (20 + 7 * i)}) + "\n" for i in range(24)))
    words = {"model": str(tiny("llama", hidden_size=256, intermediate_size=1024, num_hidden_layers=6)), "method": method, "steps": 24,
             "batch": 8, "length": 512, "device": "cpu", "save_every": 0, "data": [str(tmp_path / "rows.jsonl")]}
    found = []
    for what in ("probe", "run"):
        command = [sys.executable, "-c", ALONE, what, json.dumps(words), str(tmp_path / "out")]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout.splitlines()[-1]))
    (peak, seconds), (taken, took) = found
    assert peak == pytest.approx(taken, rel=0.15) and 0.4 < seconds / took < 2.5, found


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_gradients_and_state_are_counted_exactly(tiny, family: str):
    """Against the live model: what is held, what has a gradient, and AdamW's two moments of it."""
    import torch

    from polygraft.tune.training import prepared

    checkpoint = Checkpoint.open(tiny(family, dtype="bfloat16"))
    shapes = {key: t.shape for key, t in checkpoint.tensors.items()}
    anatomy = Anatomy.of(checkpoint.config, checkpoint.tensors)
    keys = [k for k, p in anatomy.parts.items() if p.kind == "attn" and p.layer == 1 and len(shapes[k]) == 2 and k.endswith("weight")]
    trained = {k: math.prod(shapes[k]) for k in keys}
    s = replace(PLAIN, dtype="bf16")
    ready = prepared(Work(resolve(tiny(family, dtype="bfloat16")), ROWS, s, Selection(dict.fromkeys(keys))))
    held = {p.data_ptr(): p for p in ready.live.model.parameters()}.values()
    some = sum(p.numel() for p in held if p.requires_grad)
    need = memory.need(anatomy, s, shapes, trained, 10, 10)
    live = sum(math.prod(shapes[k]) for k in shapes if anatomy.live_name(k) is not None or anatomy.parts[k].label == "head")
    stored = sum(math.prod(shape) for shape in shapes.values())
    beyond = 2 * (stored - sum(p.numel() for p in held))  # buffers, and the second name of a tied tensor
    assert some == sum(trained.values()) and live <= stored
    assert need.gradients == 4 * some and need.optimizer == 8 * some
    assert need.weights == sum(p.nbytes for p in held) + 2 * some + beyond  # autocast's copies
    assert all(p.dtype == (torch.float32 if p.requires_grad else torch.bfloat16) for p in held)


def test_memory_follows_what_is_trained(tiny):
    checkpoint = Checkpoint.open(tiny("llama", layers=4))
    anatomy, shapes = Anatomy.of(checkpoint.config, checkpoint.tensors), {k: t.shape for k, t in checkpoint.tensors.items()}
    everything = {k: math.prod(shape) for k, shape in shapes.items()}
    top = {k: n for k, n in everything.items() if anatomy.parts[k].layer == 3}

    def need(trained, tokens=64, **more):
        return memory.need(anatomy, replace(PLAIN, **more), shapes, trained, tokens, 16)

    assert need(top).activations < need(everything).activations / 3  # no graph below layer 3
    assert need(everything, recompute=True).activations < need(everything).activations
    assert need(everything, tokens=128).activations == 2 * need(everything).activations
    assert need(everything, optimizer="sgd").optimizer == 0 < need(everything, optimizer="adamw8bit").optimizer
    assert memory.lowest(anatomy, [k for k, p in anatomy.parts.items() if p.kind == "embed"]) == 0
    assert memory.lowest(anatomy, []) == 4 and memory.activations(anatomy, PLAIN, [], 64, 16) == 0
    assert sum(n for _, n in need(top).rows()) == need(top).total


def test_a_guess_grows_with_the_work(tiny):
    work = Work(resolve(tiny("llama")), ROWS, PLAIN)
    trained = {k: t.numel for k, t in work.checkpoint.tensors.items()}
    small, middle, large = (prediction.predicted(replace(work, settings=replace(PLAIN, steps=n)), trained, False) for n in (4, 22, 40))
    assert large.seconds - middle.seconds == pytest.approx(middle.seconds - small.seconds) and middle.seconds > small.seconds
    assert small.seconds > prediction.START and large.peak == small.peak and prediction.GUESS in small.notes
    top = {k: n for k, n in trained.items() if ".layers.1." in k}
    assert prediction.flops(work, top) < prediction.flops(work, trained)
    assert small.disk == sum(t.nbytes for t in work.checkpoint.tensors.values()) + 12 * sum(trained.values())


# ------------------------------------------------------------------------------------------------------------------------ extras


@pytest.mark.group("J")
@pytest.mark.parametrize(("fields", "said"), [({"optimizer": "adamw8bit"}, "bitsandbytes"), ({"liger": True}, "liger"),
                                              ({"report_to": "wandb"}, "wandb"), ({"report_to": "trackio"}, "trackio")])
def test_an_extra_that_is_missing_is_named(monkeypatch, fields, said):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match="not installed") as refused:
        extras.check(replace(PLAIN, **fields))
    assert said in refused.value.fix
    extras.check(PLAIN)


def test_liger_wants_a_gpu(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: name)
    monkeypatch.setattr(extras, "_gpu", lambda: False)
    with pytest.raises(RecipeError, match="GPU"):
        extras.check_gpu(replace(PLAIN, liger=True))


@pytest.mark.parametrize("optimizer", ["sgd", "adafactor"])
def test_other_optimisers_train_and_resume(tiny, tmp_path: Path, optimizer: str):
    work = Work(resolve(tiny("llama")), ROWS, replace(PLAIN, optimizer=optimizer, lr=1e-2))
    first = train(work, tmp_path / "a")

    def cut(done, total, text=""):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(work, tmp_path / "b", cut)
    again = train(work, tmp_path / "b")
    assert again.resumed == 2 and again.losses == first.losses
    a, b = (load_file(d.path / "model.safetensors") for d in (first, again))
    assert all(np.array_equal(a[k], b[k]) for k in a)
