"""Group F: a pruning that is killed at any moment goes on behind its last finished layer, and ends in the same bytes."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from polygraft import files
from polygraft.files import partial_path
from polygraft.prune import engine
from polygraft.recipe import run_step
from pruned import STEP, configured

FORK = multiprocessing.get_context("fork")
LAYERS = 6


def work(model: Path, root: Path, out: Path, told: Path, **more) -> None:
    """The verb; a byte is told for every layer that is pruned (not for those that are taken up)."""
    real = engine.prune_layer

    def telling(*args):
        found = real(*args)
        with told.open("ab", buffering=0) as f:
            f.write(b".")
        return found

    engine.prune_layer = telling
    try:
        run_step(STEP, configured(model, root, method="sparsegpt", **more), out)
    finally:
        engine.prune_layer = real


def killed(model: Path, root: Path, out: Path, told: Path, after: int, moment: float) -> None:
    """In a process of its own, killed `moment` seconds after so many layers were pruned."""
    child = FORK.Process(target=work, args=(model, root, out, told))
    child.start()
    while child.is_alive() and told.stat().st_size < after:
        time.sleep(0.001)
    time.sleep(moment)
    os.kill(child.pid, signal.SIGKILL)
    child.join()


def content(out: Path) -> dict[str, str]:
    manifest = files.read_json(out / "manifest.json")
    return {name: entry["sha256"] for name, entry in manifest["files"].items() if name != "result.json"} | manifest["tensors"]


def survives(tiny, root: Path, round_: int) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a forked process has none of its parent's threads
    try:
        model, rng, told = tiny("llama", layers=LAYERS), random.Random(round_), root / "told"
        told.write_bytes(b"")
        work(model, root, root / "whole", root / "first")
        for _ in range(3):
            killed(model, root, root / "cut", told, min(LAYERS, told.stat().st_size + rng.randrange(3)), rng.uniform(0, 0.02))
            assert not (root / "cut").exists() or files.verify_folder(root / "cut") == []
        work(model, root, root / "cut", told)
    finally:
        torch.set_num_threads(threads)
    assert content(root / "cut") == content(root / "whole") and files.verify_folder(root / "cut") == []
    assert (root / "first").stat().st_size == LAYERS and told.stat().st_size <= LAYERS + 3, "a kill costs one layer at most"
    assert not partial_path(root / "cut").exists()


@pytest.mark.group("F")
@pytest.mark.parametrize("round_", range(3))
def test_a_killed_pruning_ends_in_the_same_bytes(tiny, tmp_path: Path, round_: int):
    survives(tiny, tmp_path, round_)


@pytest.mark.slow
@pytest.mark.group("F")
@pytest.mark.parametrize("round_", range(3, 40))
def test_a_pruning_killed_at_many_moments_ends_in_the_same_bytes(tiny, tmp_path: Path, round_: int):
    survives(tiny, tmp_path, round_)


class Stopped(Exception):
    """In the place of a power cut, where the test goes on."""


def stopped_after(monkeypatch, layers: int) -> list[int]:
    """Let so many layers be pruned, then stop; gives what was pruned."""
    real, seen = engine.prune_layer, list[int]()

    def stops(*args):
        if len(seen) == layers:
            raise Stopped
        seen.append(args[2].layer)
        return real(*args)

    monkeypatch.setattr(engine, "prune_layer", stops)
    return seen


@pytest.mark.group("F")
def test_layers_that_are_done_are_taken_up(tiny, tmp_path, monkeypatch):
    model, config = tiny("llama", layers=LAYERS), configured(tiny("llama", layers=LAYERS), tmp_path)
    stopped_after(monkeypatch, 4)
    with pytest.raises(Exception, match="Stopped"):
        run_step(STEP, config, tmp_path / "out")
    monkeypatch.undo()
    seen = stopped_after(monkeypatch, 99)
    run_step(STEP, config, tmp_path / "out")
    run_step(STEP, configured(model, tmp_path), tmp_path / "whole")
    assert seen[:2] == [4, 5] and content(tmp_path / "out") == content(tmp_path / "whole")


@pytest.mark.group("F")
@pytest.mark.parametrize("changed", [{"sparsity": 0.6}, {"seed": 1}, {"method": "ria"}, {"calibrate": {"sw": 1.0}}, "corpus", "model"], ids=str)
def test_layers_of_other_work_are_not(tiny, tmp_path, monkeypatch, changed):
    """What is left of a run with another sparsity, seed, text or model is pruned again, not taken for this one's."""
    stopped_after(monkeypatch, 1)
    with pytest.raises(Exception, match="Stopped"):
        run_step(STEP, configured(tiny("llama"), tmp_path), tmp_path / "out")
    monkeypatch.undo()
    more = changed if isinstance(changed, dict) else {}
    config = configured(tiny("llama", seed=3) if changed == "model" else tiny("llama"), tmp_path, **more)
    if changed == "corpus":
        (tmp_path / "sw.txt").write_text("maneno mengine kabisa, ambayo hayakuwepo hapo awali\n" * 60)
    seen = stopped_after(monkeypatch, 99)
    run_step(STEP, config, tmp_path / "out")
    assert seen == [0, 1]


@pytest.mark.group("F")
def test_details_may_change_between_the_runs(tiny, tmp_path, monkeypatch):
    """How many windows are read together says how the work is done: finished layers are taken up."""
    stopped_after(monkeypatch, 1)
    with pytest.raises(Exception, match="Stopped"):
        run_step(STEP, configured(tiny("llama"), tmp_path), tmp_path / "out")
    monkeypatch.undo()
    seen = stopped_after(monkeypatch, 99)
    run_step(STEP, configured(tiny("llama"), tmp_path, batch=1), tmp_path / "out")
    assert seen == [1]


@pytest.mark.group("F")
@pytest.mark.parametrize("name", ["layer.0.safetensors", "work"])
def test_a_damaged_leftover_is_made_again(tiny, tmp_path, monkeypatch, name):
    stopped_after(monkeypatch, 1)
    with pytest.raises(Exception, match="Stopped"):
        run_step(STEP, configured(tiny("llama"), tmp_path), tmp_path / "out")
    monkeypatch.undo()
    path = partial_path(tmp_path / "out") / "layers" / name
    path.write_bytes(path.read_bytes()[:40])
    seen = stopped_after(monkeypatch, 99)
    run_step(STEP, configured(tiny("llama"), tmp_path), tmp_path / "out")
    assert seen == [0, 1] and files.verify_folder(tmp_path / "out") == []
