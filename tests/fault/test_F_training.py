"""Group F, training: `kill -9` at a random moment, then the same call again, until it finishes. The bytes are those of a quiet run."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from pathlib import Path

import pytest

from polygraft.sources import resolve

ROWS = [{"prompt": f"{a}+{b}=", "completion": str(a + b)} for a in range(4) for b in range(5)]


def job(base: str, folder: Path) -> None:
    """One training in a process of its own, saving after every second step."""
    import torch

    from polygraft.tune.settings import Settings
    from polygraft.tune.training import Work, train

    torch.set_num_threads(1)  # a forked child has none of its parent's worker threads
    train(Work(resolve(base), ROWS, Settings(r=2, steps=12, batch=4, lr=1e-2, save_every=2, length=32, device="cpu")), folder)


def attempt(base: str, folder: Path, seconds: float | None) -> int:
    """Run the job and kill it after so many seconds; its exit code."""
    child = multiprocessing.get_context("fork").Process(target=job, args=(base, folder))
    child.start()
    child.join(seconds)
    if child.is_alive():
        os.kill(child.pid, signal.SIGKILL)
        child.join()
    return child.exitcode


@pytest.mark.slow
@pytest.mark.group("F")
@pytest.mark.parametrize("round_", range(20))
def test_killed_training_ends_with_the_same_bytes(tiny, tmp_path, quiet_run, round_):
    base, wanted, seconds = quiet_run
    rng = random.Random(round_)
    kills = 0
    for _ in range(2):
        kills += attempt(base, tmp_path, rng.uniform(0.2, 1.0) * seconds) == -signal.SIGKILL
        model = tmp_path / "model" / "adapter_config.json"
        assert not model.exists() or (tmp_path / "model" / "adapter_model.safetensors").read_bytes() == wanted
    assert attempt(base, tmp_path, None) == 0
    assert (tmp_path / "model" / "adapter_model.safetensors").read_bytes() == wanted
    assert {p.name for p in tmp_path.iterdir()} == {"model"}


@pytest.fixture(scope="module")
def quiet_run(tiny, tmp_path_factory):
    """The base, the bytes of an undisturbed run and the seconds that one takes."""
    import time

    import peft  # noqa: F401  imported before the children are forked, so that they spend their time training
    import trl  # noqa: F401

    base, folder = str(tiny("llama")), tmp_path_factory.mktemp("quiet")
    assert attempt(base, folder, None) == 0
    begun = time.monotonic()
    assert attempt(base, tmp_path_factory.mktemp("again"), None) == 0
    return base, (folder / "model" / "adapter_model.safetensors").read_bytes(), time.monotonic() - begun
