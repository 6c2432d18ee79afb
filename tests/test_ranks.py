"""Several processes that share a reading count what one counts; blocks give the arrays that memory gives; only the first speaks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polygraft import arrays, ranks
from polygraft import model as live_models
from polygraft.analysis.reading.config import Wanted
from polygraft.analysis.reading.passing import How, gather
from polygraft.blocks import Blocks
from polygraft.errors import InputError, RecipeError
from polygraft.ranks import Ranks
from polygraft.windows import Stream

WANTED = Wanted(histogram=True, groups=3, residual=True, attention=True, norms=("qkv", "ffn"), grams=("o",))
HOW = How(window=16, rows=2)


def stream(language: str, tokens: int, seed: int, documents: int = 7) -> Stream:
    draw = np.random.default_rng(seed)
    starts = np.concatenate([[0], np.sort(draw.integers(0, tokens, documents - 1)), [tokens]])
    return Stream(language, draw.integers(4, 260, tokens, dtype=np.int32), starts, np.diff(starts), 1)


STREAMS = {"sw": stream("sw", 200, 0), "en": stream("en", 200, 1)}


class Meeting:
    """Threads in the place of processes: `sum` of each waits for all and gives every one the same total."""

    def __init__(self, size: int):
        self.size, self.parts = size, dict[int, np.ndarray]()
        self.barrier = threading.Barrier(size, timeout=60)

    def ranks(self, rank: int) -> Ranks:
        def total(value: np.ndarray) -> np.ndarray:
            self.parts[rank] = value.copy()
            self.barrier.wait()
            found = np.sum([self.parts[r] for r in range(self.size)], axis=0, dtype=value.dtype)
            self.barrier.wait()
            return found

        return Ranks(rank, self.size, total)


def together(size: int, folders: list[Path], model: Path) -> None:
    """The reading by `size` processes, each with a model of its own."""
    meeting, failed, nets = Meeting(size), list[BaseException](), [live_models.load_folder(model) for _ in range(size)]

    def work(rank: int) -> None:
        try:
            gather(nets[rank], STREAMS, WANTED, folders[rank], how=replace(HOW, ranks=meeting.ranks(rank)))
        except BaseException as e:
            failed.append(e)
            meeting.barrier.abort()

    threads = [threading.Thread(target=work, args=(r,)) for r in range(size)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed, failed


def same(one: Path, other: Path, language: str, tolerance: float = 0.0) -> None:
    a, b = (arrays.Arrays(f / f"activity.{language}.safetensors") for f in (one, other))
    assert set(a) == set(b)
    for name in a:
        if not tolerance or a[name].dtype.kind in "iu":
            assert np.array_equal(a[name], b[name]), name
        else:
            np.testing.assert_allclose(a[name], b[name], rtol=tolerance, atol=tolerance * np.abs(a[name]).max(), err_msg=name)


@pytest.mark.parametrize("size", [2, 9])  # 7 batches: with 9, two processes have none
def test_processes_together_count_what_one_counts(tiny, tmp_path: Path, size: int):
    model = tiny("llama")
    gather(live_models.load_folder(model), STREAMS, WANTED, tmp_path / "alone", how=HOW)
    folders = [tmp_path / str(r) for r in range(size)]
    together(size, folders, model)
    for language in STREAMS:
        same(tmp_path / "alone", folders[0], language, 1e-6)
        for folder in folders[1:]:
            same(folders[0], folder, language)


def test_processes_go_on_with_the_languages_that_the_first_has(tiny, tmp_path: Path):
    model, folders = tiny("llama"), [tmp_path / "a", tmp_path / "b"]
    together(2, folders, model)
    before = {p.name: p.read_bytes() for p in folders[0].iterdir()}
    (folders[0] / "activity.en.safetensors").unlink()
    together(2, [folders[0], tmp_path / "new"], model)
    assert before == {p.name: p.read_bytes() for p in folders[0].iterdir()} == {p.name: p.read_bytes() for p in
                                                                               (tmp_path / "new").iterdir()}  # fmt: skip


@pytest.mark.parametrize("family", ["llama", "mixtral", "opt"])  # gated, of experts, with flattened tokens: blocks have their own tests
def test_a_reading_block_by_block_is_that_in_memory(tiny, tmp_path: Path, family: str):
    wanted = Wanted(histogram=True, groups=3, residual=True, attention=True)
    gather(live_models.load_folder(tiny(family)), STREAMS, wanted, tmp_path / "memory", how=HOW)
    with Blocks.open(tiny(family), spill=tmp_path / "states", limit=5000) as blocks:
        gather(blocks, STREAMS, wanted, tmp_path / "blocks", how=HOW)
    for language in STREAMS:
        same(tmp_path / "memory", tmp_path / "blocks", language)


# ------------------------------------------------------------------------------------------------------------------ arithmetic


@given(st.integers(1, 5), st.lists(st.integers(), max_size=20))
def test_every_item_is_dealt_once(size: int, items: list[int]):
    dealt = [list(Ranks(r, size).mine(items)) for r in range(size)]
    back = [dealt[i % size][i // size] for i in range(len(items))]
    assert back == items and sum(map(len, dealt)) == len(items)


def test_sums_are_wide_and_come_back_narrow():
    seen = []

    def doubled(value: np.ndarray) -> np.ndarray:
        seen.append(value.dtype)
        return value * 2

    two = Ranks(0, 2, doubled)
    found = two.total({"b": np.array([2**24 + 1], np.int32), "a": np.array([0.1], np.float32)})
    assert found["b"].dtype == np.int32 and found["b"][0] == 2**25 + 2
    assert found["a"].dtype == np.float32 and found["a"][0] == np.float32(0.1) * 2
    assert seen == [np.float64, np.int64]  # in the order of names, the same in every process
    with pytest.raises(InputError, match="too large for its array"):
        two.total({"n": np.array([2**30], np.int32)})


@pytest.mark.parametrize(("rank", "size"), [("", ""), ("0", "1"), ("x", "-1")])
def test_alone_without_torchrun(monkeypatch, rank: str, size: str):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    with ranks.joined() as here:
        assert (here.rank, here.size, ranks.size() <= 1) == (0, 1, True)
        value = np.arange(3)
        assert here.total({"v": value})["v"] is value
        here.wait()


def test_each_process_has_its_own_accelerator(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert [ranks.device(d) for d in ("cuda", "cuda:0", "cpu")] == ["cuda:1", "cuda:0", "cpu"]
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert ranks.device("cuda") == "cuda"


def test_what_cannot_be_shared_is_refused(monkeypatch, tmp_path: Path, tiny):
    from polygraft.analysis.delta.steps import STEPS, Delta
    from polygraft.recipe import run_step

    config = Delta(base=str(tiny("llama")), models=(str(tiny("llama", seed=1)),))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match="runs in one process"):
        run_step(next(s for s in STEPS if s.name == "analyze.delta"), config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------------------- real processes


@pytest.mark.slow
def test_two_processes_of_torchrun_write_once_and_count_what_one_counts(tiny, tmp_path: Path):
    torch.manual_seed(0)
    for language in ("sw", "en"):
        lines = ("".join(chr(97 + c) for c in torch.randint(0, 26, (30,)).tolist()) for _ in range(40))
        (tmp_path / f"{language}.txt").write_text("\n".join(lines) + "\n")
    words = ["-m", "polygraft", "analyze", "activity", str(tiny("llama")), "--window", "32", "--batch", "2",
             *(w for g in ("sw", "en") for w in ("--corpus", f"{g}={tmp_path / g}.txt"))]  # fmt: skip
    env = os.environ | {"OMP_NUM_THREADS": "1"}

    def call(*start: str, out: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *start, *words, "--out", str(tmp_path / out)], capture_output=True, text=True, env=env)

    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    alone, two = call(out="alone"), call(*torchrun, out="two")
    assert alone.returncode == two.returncode == 0, alone.stderr + two.stderr
    for language in ("sw", "en"):
        same(tmp_path / "alone" / "activity", tmp_path / "two" / "activity", language, 1e-6)
    said = [[line for line in r.stdout.splitlines() if "peak memory" not in line] for r in (alone, two)]
    assert said[0] == said[1]
    again = call(*torchrun, out="two")
    assert again.returncode == 0 and again.stderr.count("nothing changed") == 1
    assert json.loads((tmp_path / "two" / "result.json").read_text())["data"]["tokens"]
