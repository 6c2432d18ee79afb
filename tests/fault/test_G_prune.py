"""Group G: the disk says no while a model is pruned. Nothing is named as done, exit 4, and the same command ends in the same bytes."""

from __future__ import annotations

import errno
import os

import pytest

from polygraft import files
from polygraft.errors import ResourceError
from polygraft.recipe import run_step
from pruned import STEP, configured, tensors

CALLS = ("open", "write", "pwrite", "fsync", "close", "rename", "replace", "mkdir", "ftruncate")


class Failing(files.Ops):
    """Real system calls, counted; the `at`-th of one kind fails. A `close` that fails has closed, as on Linux."""

    def __init__(self, call: str = "", at: int = -1, code: int = errno.ENOSPC):
        self.made = dict.fromkeys(CALLS, 0)
        for name in CALLS:
            setattr(self, name, self._wrap(name, getattr(files.Ops(), name), call, at, code))

    def _wrap(self, name, real, call, at, code):
        def counted(*args):
            self.made[name] += 1
            if name == call and self.made[name] == at:
                if name == "close":
                    real(*args)
                raise OSError(code, os.strerror(code))
            return real(*args)

        return counted


def moments(made: int) -> list[int]:
    """The first and last times that a call is made, and some between."""
    return sorted({1, made // 2, made} & set(range(1, made + 1)))


@pytest.mark.group("G")
@pytest.mark.parametrize("call", CALLS)
def test_a_system_call_that_fails_leaves_nothing_half_written(tiny, tmp_path, monkeypatch, call):
    config = configured(tiny("llama"), tmp_path)
    counting = Failing()
    monkeypatch.setattr(files, "OPS", counting)
    run_step(STEP, config, tmp_path / "whole")
    for at in moments(counting.made[call]):
        out = tmp_path / f"out{at}"
        with monkeypatch.context() as patch:
            patch.setattr(files, "OPS", Failing(call, at))
            with pytest.raises(ResourceError) as e:
                run_step(STEP, config, out)
        assert e.value.exit_code == 4
        assert not out.exists() or files.verify_folder(out) == []  # the last rename was made: only telling so failed
        run_step(STEP, config, out)
        assert files.verify_folder(out) == []
        assert {k: v.tobytes() for k, v in tensors(out).items()} == {k: v.tobytes() for k, v in tensors(tmp_path / "whole").items()}


@pytest.mark.group("G")
def test_states_that_find_no_room_are_a_lack_of_resources(tiny, tmp_path, monkeypatch):
    """Hidden states that memory may not hold go to files; a full disk there says so."""
    from polygraft import spill
    from polygraft.blocks import Blocks

    def full(fd, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    real = Blocks.open
    monkeypatch.setattr(Blocks, "open", lambda *a, **k: real(*a, **{**k, "limit": 1000}))
    run_step(STEP, configured(tiny("llama"), tmp_path), tmp_path / "spilled")
    monkeypatch.setattr(spill, "write_all", full)
    with pytest.raises(ResourceError, match="states"):
        run_step(STEP, configured(tiny("llama"), tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists() and files.verify_folder(tmp_path / "spilled") == []


@pytest.mark.group("G")
def test_too_little_room_is_told_before_anything_is_read(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "free_space", lambda path: 1000)
    monkeypatch.setattr("polygraft.planning.free_space", lambda path: 1000, raising=False)
    with pytest.raises(ResourceError):
        run_step(STEP, configured(tiny("llama"), tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()
