"""What a piece of work costs this process: wall time, peak resident memory, bytes read and written."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from polygraft.result import Cost

_PROC = Path("/proc/self")
LIBRARIES = 450 << 20  # bytes that Python takes with torch and transformers imported, before any model: for plans


@dataclass
class Meter:
    """`cost` is filled in when the measured block ends."""

    cost: Cost = field(default_factory=Cost)


def peak_resident() -> int:
    """The high-water mark of resident memory in bytes: since the last reset where the kernel can tell, else of the process."""
    with suppress(OSError):
        for line in (_PROC / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _reset_peak() -> None:
    with suppress(OSError):
        (_PROC / "clear_refs").write_text("5")


def _traffic() -> tuple[int, int]:
    """Bytes that read and write calls moved, cached or not."""
    with suppress(OSError, KeyError, ValueError):
        rows = dict(line.split(": ") for line in (_PROC / "io").read_text().splitlines())
        return int(rows["rchar"]), int(rows["wchar"])
    return 0, 0


@contextmanager
def measured() -> Iterator[Meter]:
    """`with measured() as m: work()`; then `m.cost`, also when the work raised."""
    _reset_peak()
    meter, start, (read, written) = Meter(), time.monotonic(), _traffic()
    try:
        yield meter
    finally:
        r, w = _traffic()
        meter.cost = Cost(time.monotonic() - start, peak_resident(), r - read, w - written)


def memory_limit() -> int | None:
    """Bytes of memory that this process may use at most: the machine's, or its control group's if that is less."""
    limits = []
    with suppress(OSError, ValueError, AttributeError):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # "max" is no number
            limits.append(int(Path(name).read_text()))
    return min(limits) if limits else None
