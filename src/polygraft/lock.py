"""One writer at a time in a run folder, or of one output: the kernel's lock, and a note that says who holds it."""

from __future__ import annotations

import fcntl
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polygraft.errors import ResourceError
from polygraft.files import canonical, now, resource_errors


def _boot_id() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _born(pid: int) -> str:
    """When a process started, in the kernel's ticks; "" if there is none. Tells a process from a later one with its number."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""


def _holder() -> dict[str, Any]:
    pid = os.getpid()
    return {"pid": pid, "born": _born(pid), "boot": _boot_id(), "host": platform.node(), "since": now()}


def _who(holder: dict[str, Any]) -> str:
    return f"process {holder['pid']} on {holder['host']}, since {holder.get('since')}" if holder else "a process that left no name"


def _read_note(fd: int) -> dict[str, Any] | None:
    """Who left a note: None if nobody did, {} if it cannot be understood."""
    text = os.pread(fd, 4096, 0)
    if not text:
        return None
    try:
        note = json.loads(text)
    except ValueError:
        return {}
    known = isinstance(note, dict) and isinstance(note.get("pid"), int) and isinstance(note.get("host"), str)
    return note if known else {}


@dataclass(frozen=True)
class _Lock:
    """The file that is locked, what it stands for, and what to say of it."""

    file: Path
    held: Path
    what: str
    fix: str


def _of_run(folder: Path) -> _Lock:
    return _Lock(folder / "run.lock", folder, "at work in this folder", "wait for it, stop it, or give this run another name")


def _of_output(out: Path) -> _Lock:
    return _Lock(out.with_name(out.name + ".lock"), out, "making this output", "wait for it, stop it, or name another output")


@contextmanager
def lock(folder: Path) -> Iterator[str | None]:
    """Hold a run folder for one writer. Yields a sentence when an earlier holder was cut off, else None.

    The kernel's lock decides; the note in `run.lock` says who holds it, and decides where a file system's locks do nothing.
    Raises ResourceError when another run holds it, or when only a person can know whether one does.
    """
    with _holding(_of_run(Path(folder))) as cut_off:
        yield cut_off


@contextmanager
def lock_output(out: Path) -> Iterator[str | None]:
    """The same for what a single step makes: the lock is the file `<out>.lock`, which is gone afterwards."""
    mine = _of_output(Path(out))
    with _holding(mine) as cut_off:
        try:
            yield cut_off
        finally:
            with suppress(OSError):
                mine.file.unlink()


def refuse_held(out: Path) -> None:
    """Raise Held where a note says that another run makes this output; nothing is created or locked."""
    mine = _of_output(Path(out))
    try:
        fd = os.open(mine.file, os.O_RDONLY)
    except OSError:
        return  # nobody has begun, or what is wrong with the place is told when it is written to
    try:
        if left := _read_note(fd):
            _check_gone(left, mine)
    finally:
        os.close(fd)


@contextmanager
def _holding(mine: _Lock) -> Iterator[str | None]:
    fd = _opened(mine)
    try:
        note = _acquire(fd, mine)
        os.ftruncate(fd, 0)
        os.pwrite(fd, canonical(_holder()), 0)
        try:
            yield note
        finally:
            with suppress(OSError):
                os.ftruncate(fd, 0)  # a note left behind means a run that was killed
    finally:
        os.close(fd)


def _opened(mine: _Lock) -> int:
    with resource_errors(mine.held):
        mine.file.parent.mkdir(parents=True, exist_ok=True)
        return os.open(mine.file, os.O_RDWR | os.O_CREAT, 0o666)


class Held(ResourceError):
    """Another run is at work there: nothing of it may be touched."""


def _acquire(fd: int, mine: _Lock) -> str | None:
    """Lock an open file. Returns what is to be said of an earlier holder; raises Held."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        raise _held(mine, _read_note(fd) or {}) from e
    if not _still(fd, mine.file):  # whoever held it was done between our opening and our locking, and took the file away
        raise _held(mine, {})
    left = _read_note(fd)
    if left:
        _check_gone(left, mine)
    return None if left is None else f"An earlier run ({_who(left)}) was cut off; what it finished is kept."


def _still(fd: int, path: Path) -> bool:
    """Whether an open file is the one that has this name now."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except OSError:
        return False


def _held(mine: _Lock, holder: dict[str, Any]) -> Held:
    return Held(f"another run is {mine.what}", where=mine.held, found=_who(holder), fix=mine.fix)


def _check_gone(holder: dict[str, Any], mine: _Lock) -> None:
    """The kernel gave us the lock, but whoever left a note may be at work all the same: some file systems' locks do nothing."""
    if holder["host"] != platform.node():
        raise Held(f"a run on another machine may still be {mine.what}", where=mine.held, found=_who(holder),
                   fix=f"if it is not, delete {mine.file} and run again")
    if holder.get("boot") == _boot_id() and holder.get("born") and _born(holder["pid"]) == holder["born"]:
        raise _held(mine, holder)
