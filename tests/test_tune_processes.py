"""Several processes: shares of a step, what the first process tells, shards, and trainings that are those of one process."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from polygraft.errors import RecipeError
from polygraft.ranks import Ranks
from polygraft.result import Estimate
from polygraft.tune import processes
from polygraft.tune.examples import order
from polygraft.tune.settings import Settings
from polygraft.watching import Reading
from test_ranks import Meeting

SHIPPED = Path(__file__).parents[1] / "recipes" / "accelerate"
ROWS = [{"prompt": f"{a}+{b}=", "completion": str(a + b) * (1 + a)} for a in range(4) for b in range(5)]


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
    ("neurons", "--select", "chosen.json", "--accumulate", "3"), ("embeddings", "--rows", "0-99"),
], ids=["whole", "lora", "neurons", "embeddings"])  # fmt: skip
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
@pytest.mark.parametrize("place", [8, 11], ids=["first", "second"])
def test_a_loss_that_breaks_in_one_process_ends_both(tiny, tmp_path: Path, place: int):
    """Of the third step's examples, two of each process, the first or the last has a word whose embedding is not a number."""
    base = shutil.copytree(tiny("llama"), tmp_path / "base")
    held = tensors(base / "model.safetensors")
    rows = held["model.embed_tokens.weight"] = held["model.embed_tokens.weight"].copy()
    rows[json.loads((base / "tokenizer.json").read_text())["model"]["vocab"]["z"]] = np.nan
    save_file(held, base / "model.safetensors", metadata={"format": "pt"})
    places = order(len(ROWS), 16, 0)
    lines = [{"prompt": "z", "completion": "1"} if i == places[place] else row for i, row in enumerate(ROWS)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    done = call(tmp_path, 2, "out", "sft", "--method", "full", str(base), "--data", "rows.jsonl")
    assert done.returncode != 0 and not (tmp_path / "out").exists()
    said = done.stderr.split("Traceback")[0]  # torchrun's own of a process that failed
    one, other = sorted(i + 1 for i in places[place // 2 * 2 :][:2])
    assert "the loss is not a number any more" in said and f"examples {one}, {other} of {len(ROWS)}" in said, done.stderr
    assert "gloo" not in done.stderr, done.stderr  # no process was left alone
    kept = re.search(r"the state after step 2 is kept in ([^\s,]+)", said)
    assert kept is not None, said
    state = tensors(Path(kept[1]) / "state.safetensors")
    assert all(np.isfinite(v).all() for k, v in state.items() if not k.endswith("embed_tokens.weight"))


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
