"""What keeps pruning's memory small changes nothing: work in pieces, files written while they are made, freed memory given back."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polygraft import arrays
from polygraft.errors import StepFailed
from polygraft.evals.quality import identify
from polygraft.prune import engine
from polygraft.prune.engine import Work, layer_file, prune, told_file
from polygraft.prune.masks import METHODS, Options, pattern
from polygraft.prune.masks.pattern import Pattern, smallest
from polygraft.sources import resolve


def job(path, method="wanda"):
    g = torch.Generator().manual_seed(0)
    batches = [{"input_ids": torch.randint(4, 260, (2, 12), generator=g)} for _ in range(3)]
    maker, gram = METHODS[method]
    return Work(resolve(str(path)), batches, [torch.ones(2, 12)] * 3, maker(Pattern(0.5), Options()), gram, "float32")


@pytest.mark.parametrize("method", ["wanda", "magnitude", "sparsegpt"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
def test_work_in_pieces_gives_the_same_files(tiny, tmp_path, monkeypatch, family, method):
    whole = prune(job(tiny(family), method), tmp_path / "whole")
    for module, name in ((engine, "PIECE"), (pattern, "AT_ONCE"), (sys.modules["polygraft.prune.masks.sparsegpt"], "PIECE")):
        monkeypatch.setattr(module, name, 100)
    pieces = prune(job(tiny(family), method), tmp_path / "pieces")
    for i in range(2):
        assert (tmp_path / "whole" / layer_file(i)).read_bytes() == (tmp_path / "pieces" / layer_file(i)).read_bytes()
    assert {k: m.zeros for k, m in whole.items()} == {k: m.zeros for k, m in pieces.items()}
    assert [m.error for m in whole.values()] == pytest.approx([m.error for m in pieces.values()], rel=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 40), st.integers(0, 10**6))
def test_the_smallest_of_a_few_groups_at_a_time_are_those_of_all(groups, size, at_once, seed):
    g = torch.Generator().manual_seed(seed)
    score = torch.randint(0, 4, (groups, size), generator=g).float()  # with ties
    counts = torch.randint(0, size + 1, (groups,), generator=g)
    naive = torch.zeros_like(score, dtype=torch.bool)
    for row, n in enumerate(counts.tolist()):
        naive[row, np.argsort(score[row].numpy(), kind="stable")[:n]] = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pattern, "AT_ONCE", at_once)
        assert torch.equal(smallest(score, counts), naive)


def test_a_layer_whose_account_is_gone_is_made_again_and_leftovers_go(tiny, tmp_path):
    first = prune(job(tiny("llama")), tmp_path)
    before = (tmp_path / layer_file(1)).read_bytes()
    (tmp_path / told_file(1)).unlink()
    (tmp_path / f".{layer_file(1)}.1-1.tmp").write_bytes(b"half")
    assert prune(job(tiny("llama")), tmp_path) == first
    assert (tmp_path / layer_file(1)).read_bytes() == before and not list(tmp_path.glob(".*"))


def test_arrays_are_written_while_they_are_made_in_their_order(tmp_path):
    made = [bytes([i] * n) for i, n in enumerate((3, 2, 0, 4))]
    arrays.write_bytes(tmp_path / "a.safetensors", {"z": 5, "empty": 0, "a": 4}, made)
    found = arrays.Arrays(tmp_path / "a.safetensors")
    assert list(found) == ["z", "empty", "a"]
    assert found["z"].tolist() == [0, 0, 0, 1, 1] and found["a"].tolist() == [3] * 4 and found["empty"].size == 0


@pytest.mark.parametrize("made", [[], [b"123"], [b"123456"]])
def test_other_bytes_than_announced_are_no_file(tmp_path, made):
    with pytest.raises(StepFailed, match="announced"):
        arrays.write_bytes(tmp_path / "a.safetensors", {"a": 4}, made)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_freed_memory_goes_back():
    """Every second of ten arrays of 20 MB goes, and so does its memory, which lies between what stays."""
    code = """
import numpy as np
from pathlib import Path
from polygraft.allocator import return_freed
def resident(): return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20
return_freed()
del (first := [np.ones(20 << 17)])[0]
held = [np.ones(20 << 17) for _ in range(10)]
before = resident()
del held[::2]
print(before - resident())
"""
    gone = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert 95 <= gone <= 105


def test_languages_are_told_after_the_model_was_forgotten():
    text = "Watoto wanacheza mpira katika uwanja wa shule kila siku baada ya masomo yao ya jioni."
    before = identify.identify(text)
    identify.forget()
    identify._identify.cache_clear()
    assert identify.identify(text) == before and before.tag == "sw"
