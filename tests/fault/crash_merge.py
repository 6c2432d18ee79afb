"""A merge that is killed again and again; run as a process of its own, without torch. Prints what was found, as JSON.

`crash_merge.py kills ROOT ROUNDS` sends SIGKILL at random moments; `crash_merge.py calls ROOT` dies at every system call in turn;
`crash_merge.py errors ROOT` lets every system call in turn fail. After each, the same merge must finish with the same digests.
"""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from polygraft import files, merge
from polygraft.errors import ResourceError
from polygraft.merge import direct  # imported now, so that every child starts warm

OUT = "out"
CALLS = ("open", "write", "pwrite", "fsync", "close", "rename", "replace", "mkdir", "ftruncate")


def swap(root: Path) -> None:
    assert direct
    merge.swap(task=root / "task", language=root / "language", bottom=1, top=1, transition=1, shard_bytes=15_000, out=root / OUT)


def digests(root: Path) -> dict:
    manifest = files.read_json(root / OUT / "manifest.json")
    return {"tensors": manifest["tensors"], "files": {n: f["sha256"] for n, f in manifest["files"].items()}}


def clear(root: Path) -> None:
    import shutil

    for path in (root / OUT, root / f"{OUT}.partial"):
        shutil.rmtree(path, ignore_errors=True)


def state(root: Path) -> str:
    """absent, complete or torn."""
    if not (root / OUT).exists():
        return "absent"
    return "complete" if files.verify_folder(root / OUT) == [] else "torn"


class Counting(files.Ops):
    """Every system call counted; at the n-th something happens."""

    def __init__(self, n: int, happen):
        self.n, self.happen, self.count = n, happen, 0
        for name in CALLS:
            setattr(self, name, self._wrap(getattr(files.Ops(), name)))

    def _wrap(self, call):
        def counted(*args):
            self.count += 1
            if self.count == self.n:
                self.happen()
            return call(*args)

        return counted


def child(root: Path, ops: files.Ops | None = None) -> int:
    """The merge in a forked process; its id."""
    pid = os.fork()
    if pid == 0:
        try:
            files.OPS = ops or files.OPS
            swap(root)
        finally:
            os._exit(0)
    return pid


def again(root: Path, wanted: dict, found: dict[str, int]) -> None:
    """Judge what the crash left, then run the same merge: it must finish, leave nothing else and give the same digests."""
    left = state(root)
    found[left] = found.get(left, 0) + 1
    if left == "absent":
        swap(root)
    names = sorted(p.name for p in root.iterdir())
    same = state(root) == "complete" and digests(root) == wanted and names == ["language", OUT, "task"]
    found["same"] = found.get("same", 0) + same
    clear(root)


def kills(root: Path, rounds: int, wanted: dict, seconds: float) -> dict[str, int]:
    found: dict[str, int] = {}
    moments = random.Random(0)
    for _ in range(rounds):
        pid = child(root)
        time.sleep(moments.uniform(0, 1.3 * seconds))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        again(root, wanted, found)
    return found


def calls(root: Path, wanted: dict, total: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for n in range(1, total + 1):
        os.waitpid(child(root, Counting(n, lambda: os._exit(9))), 0)
        again(root, wanted, found)
    return found


def fail() -> None:
    raise OSError(errno.EIO, "Input/output error")


def errors(root: Path, wanted: dict, total: int) -> dict[str, int]:
    found: dict[str, int] = {}
    healthy = files.OPS
    for n in range(1, total + 1):
        files.OPS = Counting(n, fail)
        try:
            swap(root)
        except ResourceError:
            found["named"] = found.get("named", 0) + 1
        finally:
            files.OPS = healthy
        again(root, wanted, found)
    return found


def main() -> None:
    what, root = sys.argv[1], Path(sys.argv[2])
    counting = Counting(0, fail)
    files.OPS = counting
    swap(root)
    files.OPS = files.Ops()
    wanted = digests(root)
    clear(root)
    start = time.perf_counter()
    os.waitpid(child(root), 0)
    seconds = time.perf_counter() - start
    clear(root)
    if what == "kills":
        found = kills(root, int(sys.argv[3]), wanted, seconds)
    else:
        found = {"calls": calls, "errors": errors}[what](root, wanted, counting.count)
    print(json.dumps({"found": found, "calls": counting.count, "heavy": sorted({"torch", "transformers"} & set(sys.modules))}))


if __name__ == "__main__":
    main()
