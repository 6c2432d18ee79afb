"""Several processes, predictions and extras: shares of a step, what the first process tells, memory and time foretold, refusals."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from oracle import forecast_oracle
from polygraft.anatomy import Anatomy
from polygraft.checkpoint import Checkpoint
from polygraft.errors import RecipeError
from polygraft.ranks import Ranks
from polygraft.result import Estimate
from polygraft.selection import Selection
from polygraft.sources import resolve
from polygraft.tune import extras, memory, prediction, probe, processes
from polygraft.tune.settings import Settings
from polygraft.tune.training import Work, train
from polygraft.watching import Reading
from test_ranks import Meeting
from tiny import FAMILIES

SHIPPED = Path(__file__).parents[1] / "recipes" / "accelerate"
ROWS = [{"prompt": f"{a}+{b}=", "completion": str(a + b) * (1 + a)} for a in range(4) for b in range(5)]
PLAIN = Settings(method="full", steps=4, batch=4, lr=1e-3, save_every=2, length=32, device="cpu", weight_decay=0.1)

# ------------------------------------------------------------------------------------------------------------ several processes


@given(batch=st.integers(1, 12), accumulate=st.integers(1, 12), size=st.integers(1, 6))
def test_processes_share_a_step_equally_or_not_at_all(batch: int, accumulate: int, size: int):
    s = Settings(batch=batch, accumulate=accumulate)
    if accumulate % size and batch % size:
        with pytest.raises(RecipeError, match="shared equally"):
            processes.dealt(s, size)
        return
    rows, passes = processes.dealt(s, size)
    assert rows * passes * size == batch * accumulate and rows <= batch and passes <= accumulate


def everywhere(size: int, work) -> list:
    """What `work(Ranks)` gives in each of several processes, which here are threads."""
    meeting, found = Meeting(size), [None] * size

    def one(rank: int) -> None:
        found[rank] = work(meeting.ranks(rank))

    threads = [threading.Thread(target=one, args=(r,)) for r in range(size)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return found


@pytest.mark.parametrize("value", ["", "états/步", None, 0, {"a": [1.5, None, "ü"]}, [], False])
def test_every_process_hears_what_the_first_says(value):
    assert everywhere(3, lambda here: processes.from_first(here, value if here.rank == 0 else "not asked")) == [value] * 3
    assert processes.from_first(Ranks(), value) == value


def test_only_the_first_process_scores_and_all_know_the_scores():
    calls = []

    class Watcher:
        job = ""

        def read(self, model, tokenizer, step):
            calls.append(step)
            return Reading(step, 0.0, {"t/en/acc": Estimate(0.5, 0.25, 0.75, 8)}, 0.5, ("too low",))

    found = everywhere(2, lambda here: processes.OneReader(Watcher(), here).read(None, None, 7))
    assert calls == [7] and found[0] == found[1] and found[0].scores["t/en/acc"] == Estimate(0.5, 0.25, 0.75, 8)


@pytest.mark.group("J")
@pytest.mark.parametrize(("told", "fields", "said"), [
    ({"ACCELERATE_USE_DEEPSPEED": "true"}, {}, "DeepSpeed is not installed"),
    ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, {"gpu": False}, "over GPUs"),
    ({"ACCELERATE_USE_FSDP": "1"}, {}, "first version"),
    ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, {"rows": True}, "rows and columns cannot"),
    ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, {"watched": True}, "scores are not taken"),
    ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, {"save_every": 5}, "no training state"),
], ids=["deepspeed-missing", "no-gpu", "fsdp1", "rows", "watched", "state"])  # fmt: skip
def test_shards_are_refused_where_they_cannot_be_right(monkeypatch, told, fields, said):
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    how = {"gpu": True, "rows": False, "watched": False} | fields
    s = Settings(save_every=how.pop("save_every", 0))
    with pytest.raises(RecipeError, match=said) as refused:
        processes.check_shards(s, **how)
    assert refused.value.fix


def test_shards_are_let_through_where_they_are_right(monkeypatch):
    processes.check_shards(Settings(), gpu=False, rows=True, watched=True)  # no shards
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    processes.check_shards(Settings(save_every=0), gpu=True, rows=False, watched=False)


@pytest.mark.parametrize(("name", "kind"), [("ddp", "MULTI_GPU"), ("fsdp2", "FSDP"), ("zero2", "DEEPSPEED"), ("zero3", "DEEPSPEED")])
def test_shipped_launcher_files_are_accelerates(name: str, kind: str):
    from accelerate.commands.config.config_args import load_config_from_file

    found = load_config_from_file(str(SHIPPED / f"{name}.yaml"))
    assert found.distributed_type.value == kind and found.num_processes == 2
    if kind == "FSDP":
        assert found.fsdp_config["fsdp_version"] == 2
    if kind == "DEEPSPEED":
        path = SHIPPED.parents[1] / found.deepspeed_config["deepspeed_config_file"]
        assert json.loads(path.read_text())["zero_optimization"]["stage"] == int(name[-1])


def call(folder: Path, processes: int, out: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line in so many processes of torchrun, or in this one's child."""
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    command = [sys.executable, *start, "-m", "polygraft", "tune", *words, "--steps", "4", "--batch", "4", "--lr", "1e-3", "--length", "32",
               "--device", "cpu", "--save-every", "2", "--out", str(folder / out)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=folder)


@pytest.mark.slow
@pytest.mark.parametrize("words", [
    ("sft", "--method", "full", "--weight-decay", "0.1"), ("sft", "--method", "lora", "--accumulate", "2"),
    ("neurons", "--select", "chosen.json", "--accumulate", "3"),
], ids=["whole", "lora", "neurons"])  # fmt: skip
def test_two_processes_train_what_one_trains(tiny, tmp_path: Path, words: tuple[str, ...]):
    from polygraft.selectionfile import Entry, write

    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    write(tmp_path / "chosen.json", {"all": [Entry(i, "ffn", "neuron", np.array([1, 5, 6])) for i in range(2)]})
    words = (*words, str(tiny("llama")), "--data", "rows.jsonl")
    one, two = call(tmp_path, 1, "one", *words), call(tmp_path, 2, "two", *words)
    assert one.returncode == two.returncode == 0, one.stderr + two.stderr
    assert two.stdout.count("the same as a recipe") == 1  # the first process speaks for both
    name = "adapter_model.safetensors" if "lora" in words else "model.safetensors"
    a, b = tensors(tmp_path / "one" / name), tensors(tmp_path / "two" / name)
    start = tensors(tiny("llama") / name) if "lora" not in words else {}
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_allclose(a[key], b[key], rtol=0, atol=2e-5, err_msg=key)  # steps of 1e-3
    if start:
        moved = {k for k in a if not np.array_equal(a[k], start[k])}
        assert moved == {k for k in b if not np.array_equal(b[k], start[k])} and moved


@pytest.mark.slow
def test_shards_become_whole_again_where_they_are_written(tmp_path: Path):
    """torch's fully_shard over gloo; accelerate offers it on GPUs alone."""
    for processes_, name in ((1, "one"), (2, "two")):
        start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if processes_ > 1 else []
        command = [sys.executable, *start, str(Path(__file__).parent / "shards.py"), str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stderr
    one, two, start = tensors(tmp_path / "one"), tensors(tmp_path / "two"), dict(tiny_model().named_parameters())
    assert one.keys() == two.keys()
    for key in one:
        np.testing.assert_allclose(one[key], two[key], rtol=0, atol=2e-5, err_msg=key)
        assert not np.array_equal(one[key], start[key].detach().numpy())


def tiny_model():
    import tiny as make

    return make.model("llama", seed=1)


def tensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(path)


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
    small, large = (prediction.predicted(replace(work, settings=replace(PLAIN, steps=n)), trained, False) for n in (4, 40))
    assert large.seconds == pytest.approx(10 * small.seconds) and large.peak == small.peak and prediction.GUESS in small.notes
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
    a, b = (tensors(d.path / "model.safetensors") for d in (first, again))
    assert all(np.array_equal(a[k], b[k]) for k in a)
