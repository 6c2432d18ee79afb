"""Group F: a reading that is killed at any moment goes on where it was written last, and ends in the same bytes."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from polygraft import model as live_models
from polygraft.analysis.reading.config import Wanted
from polygraft.analysis.reading.passing import How, gather
from polygraft.windows import Stream

FORK = multiprocessing.get_context("fork")
WANTED = Wanted(histogram=True, groups=4, residual=True, attention=True)
HOW = How(window=16, rows=2, every=0.0)  # written after every batch


def streams() -> dict[str, Stream]:
    draw, starts = np.random.default_rng(0), np.arange(0, 721, 40)
    return {g: Stream(g, draw.integers(4, 260, 720, dtype=np.int32), starts, np.diff(starts), 1) for g in ("sw", "en")}


def reading(net, folder: Path, told: Path | None = None) -> None:
    def progress(done: float, total: float, text: str) -> None:
        if told is not None:
            with told.open("ab", buffering=0) as f:
                f.write(b".")
                time.sleep(0.002)

    gather(net, streams(), WANTED, folder, progress, HOW)


def killed(net, folder: Path, told: Path, after: int, moment: float) -> int:
    """Read in a process of its own, killed `moment` seconds after it told of `after` batches; how many it told of."""
    told.write_bytes(b"")
    child = FORK.Process(target=reading, args=(net, folder, told))
    child.start()
    while child.is_alive() and told.stat().st_size < after:
        time.sleep(0.001)
    time.sleep(moment)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    return told.stat().st_size


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.endswith(".tmp")}


def survives(tiny, tmp_path: Path, round_: int) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a forked process has none of its parent's threads
    try:
        net, rng = live_models.load_folder(tiny("llama")), random.Random(round_)
        reading(net, tmp_path / "whole", tmp_path / "told")
        batches, done = (tmp_path / "told").stat().st_size, 0
        for _ in range(3):
            done += killed(net, tmp_path / "cut", tmp_path / "told", rng.randrange(1, batches // 3), rng.uniform(0, 0.01))
        (tmp_path / "told").write_bytes(b"")
        reading(net, tmp_path / "cut", tmp_path / "told")
    finally:
        torch.set_num_threads(threads)
    assert content(tmp_path / "cut") == content(tmp_path / "whole")
    assert (tmp_path / "told").stat().st_size <= batches - (done - 3), "each kill cost one batch at most"


@pytest.mark.group("F")
@pytest.mark.parametrize("round_", range(2))
def test_a_killed_reading_ends_in_the_same_bytes(tiny, tmp_path: Path, round_: int):
    survives(tiny, tmp_path, round_)


@pytest.mark.slow
@pytest.mark.group("F")
@pytest.mark.parametrize("round_", range(2, 40))
def test_a_reading_killed_at_many_moments_ends_in_the_same_bytes(tiny, tmp_path: Path, round_: int):
    survives(tiny, tmp_path, round_)
