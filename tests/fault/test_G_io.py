"""Group G: the disk says no. The old data stays whole, the error is a ResourceError (exit 4), nothing half-written is named as done."""

from __future__ import annotations

import errno
import os
import stat
import time

import pytest

from polygraft import files
from polygraft.errors import RecipeError, ResourceError

pytestmark = pytest.mark.group("G")


class Failing(files.Ops):
    """Real system calls until the chosen one is made for the `at`-th time; then the chosen errno."""

    def __init__(self, call: str, code: int, at: int = 0):
        self.call, self.code, self.left = call, code, at

    def _run(self, name, real, *args):
        if name == self.call:
            if self.left == 0:
                raise OSError(self.code, os.strerror(self.code))
            self.left -= 1
        return real(*args)

    def __getattribute__(self, name):
        real = object.__getattribute__(self, name)
        if name in {"open", "close", "fsync", "rename", "replace", "mkdir", "unlink", "ftruncate", "write", "pwrite"}:
            return lambda *args: object.__getattribute__(self, "_run")(name, real, *args)
        return real


class Full(files.Ops):
    """A disk that takes `room` bytes and then no more; writes are short on the way."""

    def __init__(self, room: int):
        self.room = room

    def write(self, fd, data):
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        n = os.write(fd, bytes(data)[: min(self.room, 1000)])
        self.room -= n
        return n


@pytest.mark.parametrize("room", [0, 1, 7, 999, 1000, 1001, 4096, 5000, 9000, 9999])
def test_disk_full_leaves_the_old_file(tmp_path, monkeypatch, room):
    path = tmp_path / "data.json"
    path.write_text("old")
    monkeypatch.setattr(files, "OPS", Full(room))
    with pytest.raises(ResourceError) as e:
        files.write_atomic(path, b"x" * 10_000)
    assert e.value.exit_code == 4 and "10,000 bytes needed" in str(e.value) and "free" in str(e.value)
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["data.json"]


@pytest.mark.parametrize("room", [0, 999, 5000, 9999])
def test_disk_full_between_chunks_leaves_the_old_file(tmp_path, monkeypatch, room):
    (tmp_path / "f").write_text("old")
    monkeypatch.setattr(files, "OPS", Full(room))
    with pytest.raises(ResourceError, match="10,000 bytes needed"):
        files.write_atomic(tmp_path / "f", (b"x" * 1000 for _ in range(10)), 10_000)
    assert (tmp_path / "f").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_a_chunk_that_cannot_be_made_leaves_the_old_file(tmp_path):
    def chunks():
        yield b"new"
        yield memoryview(b"er")
        raise ValueError

    (tmp_path / "f").write_text("old")
    with pytest.raises(ValueError):
        files.write_atomic(tmp_path / "f", chunks())
    assert (tmp_path / "f").read_text() == "old" and len(list(tmp_path.iterdir())) == 1
    files.write_atomic(tmp_path / "f", [b"new", memoryview(b"er")])
    assert (tmp_path / "f").read_bytes() == b"newer"


def test_short_writes_are_completed(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "OPS", Full(1 << 20))
    files.write_atomic(tmp_path / "x", bytes(range(256)) * 100)
    assert (tmp_path / "x").read_bytes() == bytes(range(256)) * 100


CODES = [errno.EIO, errno.EROFS, errno.EACCES, errno.EMFILE, errno.EINTR]


@pytest.mark.parametrize("code", CODES, ids=errno.errorcode.get)
@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
def test_every_errno_leaves_the_old_file(tmp_path, monkeypatch, call, code):
    path = tmp_path / "f"
    path.write_text("old")
    monkeypatch.setattr(files, "OPS", Failing(call, code))
    with pytest.raises(ResourceError):
        files.write_atomic(path, b"new")
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("call", ["open", "mkdir", "fsync", "rename", "replace", "write"])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_commit_that_fails_is_absent_or_whole(tmp_path, monkeypatch, call, at):
    shim = Failing(call, errno.EIO, at)
    monkeypatch.setattr(files, "OPS", shim)
    out = tmp_path / "out"
    try:
        with files.commit(out) as part:
            files.write_atomic(part / "a", b"a" * 10)
            files.write_atomic(part / "b", b"b" * 10)
        failed = False
    except ResourceError:
        failed = True
    monkeypatch.setattr(files, "OPS", files.Ops())
    assert failed or shim.left > 0 or out.exists()
    if out.exists():
        assert files.verify_folder(out) == []
    assert not files.partial_path(out).exists()


@pytest.mark.parametrize("mask", [0o077, 0o022, 0o002])
def test_modes_follow_the_umask(tmp_path, mask):
    old = os.umask(mask)
    try:
        with files.commit(tmp_path / "o") as part:
            files.write_atomic(part / "x", b"1")
    finally:
        os.umask(old)
    for name in ("x", "manifest.json"):
        assert stat.S_IMODE((tmp_path / "o" / name).stat().st_mode) == 0o666 & ~mask
    assert stat.S_IMODE((tmp_path / "o").stat().st_mode) == 0o777 & ~mask


def test_clock_going_backwards_changes_nothing(tmp_path, monkeypatch):
    ticks = iter([2e9, 1e9, 5e8, 4e8, 3e8])
    monkeypatch.setattr(time, "gmtime", lambda s=None: time.struct_time((2001, 1, 1, 0, 0, int(next(ticks)) % 60, 0, 1, 0)))
    with files.commit(tmp_path / "o") as part:
        files.write_atomic(part / "x", b"1")
    assert files.verify_folder(tmp_path / "o") == []


@pytest.mark.parametrize("name", ["with space", "日本語", "نص", "a'b\"c", "e\u0301"])
def test_paths_of_the_world(tmp_path, name):
    with files.commit(tmp_path / name / name) as part:
        files.write_atomic(part / name, b"1")
    assert files.verify_folder(tmp_path / name / name) == []


def test_a_path_of_4000_characters_is_an_error_not_a_traceback(tmp_path):
    with pytest.raises(ResourceError), files.commit(tmp_path / ("x" * 4000)):
        pytest.fail("cannot be reached")


def test_relative_path_survives_chdir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    with files.commit("o") as part:
        monkeypatch.chdir(tmp_path / "elsewhere")
        files.write_atomic(part / "x", b"1")
    assert files.verify_folder(tmp_path / "o") == []


def test_output_that_is_a_dangling_link_is_refused(tmp_path):
    (tmp_path / "o").symlink_to(tmp_path / "nowhere")
    with pytest.raises(RecipeError), files.commit(tmp_path / "o"):
        pytest.fail("cannot be reached")
