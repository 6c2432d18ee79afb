"""One writer at a time in a run folder: the kernel's lock, and a note that says who holds it."""

from __future__ import annotations

import fcntl
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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


@contextmanager
def lock(folder: Path) -> Iterator[str | None]:
    """Hold a run folder for one writer. Yields a sentence when an earlier holder was cut off, else None.

    The kernel's lock decides; the note in `run.lock` says who holds it, and decides where a file system's locks do nothing.
    Raises ResourceError when another run holds it, or when only a person can know whether one does.
    """
    folder = Path(folder)
    with resource_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(folder / "run.lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield _acquire(fd, folder / "run.lock")
        with suppress(OSError):
            os.ftruncate(fd, 0)  # a note left behind means a run that was killed
    except BaseException as e:
        if not isinstance(e, _Held):
            with suppress(OSError):
                os.ftruncate(fd, 0)
        raise
    finally:
        os.close(fd)


class _Held(ResourceError):
    """Another run holds the folder: its note must stay."""


def _acquire(fd: int, path: Path) -> str | None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        raise _held(path, _read_note(fd) or {}) from e
    left = _read_note(fd)
    if left:
        _check_gone(left, path)
    os.ftruncate(fd, 0)
    os.pwrite(fd, canonical(_holder()), 0)
    return None if left is None else f"An earlier run ({_who(left)}) was cut off; what it finished is kept."


def _held(path: Path, holder: dict[str, Any]) -> _Held:
    return _Held("another run is at work in this folder", where=path.parent, found=_who(holder),
                 fix="wait for it, stop it, or give this run another name")


def _check_gone(holder: dict[str, Any], path: Path) -> None:
    """The kernel gave us the lock, but whoever left a note may be at work all the same: some file systems' locks do nothing."""
    if holder["host"] != platform.node():
        raise _Held("a run on another machine may still be at work in this folder", where=path.parent, found=_who(holder),
                    fix=f"if it is not, delete {path} and run again")
    if holder.get("boot") == _boot_id() and holder.get("born") and _born(holder["pid"]) == holder["born"]:
        raise _held(path, holder)
