"""The only place that opens files for writing, renames and fsyncs: an output is absent or complete, never torn.

Every system call goes through `OPS`, which fault tests replace to make any one of them fail.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from polygraft import __version__
from polygraft.errors import InputError, RecipeError, ResourceError

MANIFEST = "manifest.json"
CHUNK = 4 << 20
SMALL = 64 << 20  # data files up to this size are known by their content, larger ones by size and time


class Ops:
    """The system calls that writing needs. Tests subclass this to inject a fault at any one of them."""

    open = staticmethod(os.open)
    close = staticmethod(os.close)
    fsync = staticmethod(os.fsync)
    rename = staticmethod(os.rename)
    replace = staticmethod(os.replace)
    mkdir = staticmethod(os.mkdir)
    unlink = staticmethod(os.unlink)
    ftruncate = staticmethod(os.ftruncate)

    def write(self, fd: int, data: memoryview | bytes) -> int:
        return os.write(fd, data)

    def pwrite(self, fd: int, data: memoryview | bytes, offset: int) -> int:
        return os.pwrite(fd, data, offset)


OPS = Ops()


def canonical(obj: Any) -> bytes:
    """The one JSON text of a value: sorted keys, no spaces, UTF-8. Equal values give equal bytes."""
    return json.dumps(obj, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(obj: Any) -> str:
    """SHA-256 (hex) of a JSON value."""
    return hashlib.sha256(canonical(obj)).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes, read in chunks."""
    h = hashlib.sha256()
    with Path(path).open("rb", buffering=0) as f:
        while block := f.read(CHUNK):
            h.update(block)
    return h.hexdigest()


# ---------------------------------------------------------------------------------------------------------------- names


def plain_name(root: Path, name: str, suffix: str = ".safetensors") -> Path:
    """`root / name`, only if `name` is one plain file name with this suffix.

    Judged by Windows rules on every system, so that drives, shares, `..` and both slashes are all refused.
    Raises InputError otherwise.
    """
    bad = not isinstance(name, str) or not name or "\0" in name or len(name.encode("utf-8", "surrogatepass")) > 255
    if not bad:
        w = PureWindowsPath(name)
        bad = bool(w.drive or w.root) or w.parts != (name,) or name == ".." or PurePosixPath(name).parts != (name,) or ":" in name
        bad = bad or any(ord(c) < 32 for c in name) or not name.endswith(suffix) or name == suffix
    if bad:
        raise InputError("a file name that leaves its folder or is not plain", where=root, found=repr(name)[:120],
                         expected=f"a plain name ending in {suffix}", fix="get this model again from a source you trust")
    return root / name


# --------------------------------------------------------------------------------------------------------------- writing


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write every byte; `os.write` may take fewer than it is given."""
    view = memoryview(data).cast("B")
    while view:
        view = view[OPS.write(fd, view):]


def fsync_dir(path: Path) -> None:
    """Make renames and new names in a folder survive a power cut."""
    fd = OPS.open(str(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        OPS.fsync(fd)
    finally:
        OPS.close(fd)


@contextmanager
def resource_errors(path: Path, needed: int | None = None) -> Iterator[None]:
    """Turn what the operating system says about a write into one sentence with the place and the room left."""
    try:
        yield
    except OSError as e:
        target = path if path.is_dir() else path.parent
        free = None
        with suppress(OSError):
            free = free_space(target)
        found = e.strerror or type(e).__name__
        if free is not None:
            found += f"; {free:,} bytes free"
        if needed is not None:
            found += f", {needed:,} bytes needed"
        forbidden = e.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        fix = "check who may write there" if forbidden else "free some room"
        fix += ", or write to another disk or folder"
        raise ResourceError("could not write", where=path, found=found, fix=fix) from e


def write_atomic(path: Path, data: bytes | Iterable[bytes | memoryview], size: int | None = None) -> None:
    """Replace a file by these bytes, given whole or in chunks (of `size` bytes together, for what is said of a full disk).

    A reader sees the old or the new content, also after a crash or where making a chunk fails.
    """
    path = Path(path)
    chunks, size = ([data], len(data)) if isinstance(data, bytes | bytearray | memoryview) else (data, size)
    tmp = path.with_name(f".{path.name[:200]}.{os.getpid()}-{threading.get_native_id()}.tmp")
    with resource_errors(path, size):
        try:
            fd = OPS.open(str(tmp), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            try:
                for chunk in chunks:
                    write_all(fd, chunk)
                OPS.fsync(fd)
            finally:
                OPS.close(fd)
            OPS.replace(str(tmp), str(path))
        except BaseException:
            with suppress(OSError):
                OPS.unlink(str(tmp))
            raise
        fsync_dir(path.parent)


def write_json(path: Path, obj: Any) -> None:
    """Readable JSON, atomically; NaN is refused because no other reader accepts it."""
    write_atomic(path, (json.dumps(obj, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        seen: set[str] = set()
        twice = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} is given twice")
    return out


STRICT = json.JSONDecoder(object_pairs_hook=_no_duplicates)  # made once: a corpus has a document a line


def parse_json(data: bytes, where: object) -> Any:
    """Strict JSON: UTF-8, no key twice. Raises InputError naming the place."""
    try:
        return STRICT.decode(data.decode("utf-8"))
    except (ValueError, RecursionError) as e:
        found = "brackets within brackets, deeper than can be read" if isinstance(e, RecursionError) else str(e)[:200]
        raise InputError("not valid JSON", where=where, found=found or type(e).__name__, expected="a JSON document in UTF-8",
                         fix="get the file again; a download may have stopped short") from e


def read_json(path: Path, limit: int = 64 << 20) -> Any:
    """A JSON file of at most `limit` bytes."""
    path = Path(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError("not a plain file", where=path, expected="a JSON file")
        if (size := path.stat().st_size) > limit:
            raise InputError("the file is too large to be what its name says", where=path, found=f"{size:,} bytes",
                             expected=f"at most {limit:,}")
        return parse_json(path.read_bytes(), path)
    except OSError as e:
        raise InputError("cannot be read", where=path, found=e.strerror, fix="check the path and its permissions") from e


def free_space(path: Path) -> int:
    """Bytes free for an ordinary user on the disk that holds `path` (or its nearest existing parent)."""
    s = os.statvfs(_existing(path))
    return s.f_bavail * s.f_frsize


def disk_of(path: Path) -> int:
    """The number of the disk that holds `path` (or its nearest existing parent)."""
    return _existing(path).stat().st_dev


def _existing(path: Path) -> Path:
    path = Path(path).absolute()
    while not path.exists():
        path = path.parent
    return path


# --------------------------------------------------------------------------------------------------------------- commits


def now() -> str:
    """UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def refuse_taken(out: Path) -> None:
    """`out` must not exist or must be an empty folder."""
    out = Path(out)
    try:
        out.lstat()
    except FileNotFoundError:
        return
    except OSError as e:
        raise ResourceError("cannot be used as an output", where=str(out)[:300], found=e.strerror, fix="name another folder") from e
    if out.is_symlink() or not out.is_dir():
        raise RecipeError("the output exists and is not a folder", where=out, fix="name a folder that does not exist yet")
    if any(out.iterdir()):
        raise RecipeError("the output folder is not empty", where=out,
                          fix="name a new folder, or add --force to move the old one aside")


def refuse_overlap(out: Path, inputs: Iterable[Path]) -> None:
    """The output must not be an input, lie inside one or contain one: inputs are never modified."""
    target = Path(out).resolve()
    for source in inputs:
        real = Path(source).resolve()
        if target == real or real in target.parents or target in real.parents:
            raise RecipeError("the output would touch an input", where=out, found=f"input {source}",
                              fix="write to a folder beside the inputs, not in, over or around one")


def partial_path(out: Path) -> Path:
    return out.with_name(out.name + ".partial")


@contextmanager
def commit(out: Path, manifest: dict[str, Any] | None = None, *, keep: bool = False) -> Iterator[Path]:
    """The only way an output folder comes to exist: fill the yielded `.partial`, and it becomes `out` whole.

    Files are hashed into `manifest.json`, which is written last; what the caller adds to `manifest` while the block runs is
    kept. Digests that the caller already knows may stand in `manifest["files"]`. An exception leaves no `out`; the `.partial`
    is removed unless `keep` (a step that resumes from it). A `.partial` of a killed run is cleared on entry unless `keep`.
    """
    out = Path(out).absolute()  # the block may change the working directory
    manifest = {} if manifest is None else manifest
    refuse_taken(out)
    part = partial_path(out)
    manifest.setdefault("started", now())
    with resource_errors(out):
        if part.exists() and not keep:
            shutil.rmtree(part)
        out.parent.mkdir(parents=True, exist_ok=True)
        if not part.exists():
            OPS.mkdir(str(part))
        for torn in part.rglob(".*.tmp"):  # what `write_atomic` had not finished when the run was killed
            OPS.unlink(str(torn))
    try:
        yield part
        with resource_errors(out):
            seal(part, manifest)
        arrive(part, out)
    except BaseException:
        if not (keep and list_files(part)):
            shutil.rmtree(part, ignore_errors=True)
        raise


def arrive(made: Path, out: Path) -> None:
    """Give what is finished its name. Raises ResourceError where somebody has taken the name meanwhile; it then lies beside it."""
    try:
        refuse_taken(out)
    except RecipeError as e:
        aside = out.with_name(f"{out.name}.made-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}")
        with resource_errors(aside):
            OPS.rename(str(made), str(aside))
        raise ResourceError("the name of the output was taken while this was made", where=out, found=e.what,
                            fix=f"nothing is lost: what was made is whole in {aside}; give it the name that you want") from None
    with resource_errors(out):
        if out.exists():
            out.rmdir()
        OPS.rename(str(made), str(out))
        fsync_dir(out.parent)


def seal(folder: Path, manifest: dict[str, Any]) -> None:
    """Hash and fsync every file in `folder`, then write the manifest that names them all."""
    known = manifest.get("files", {})
    files = {}
    for path in list_files(folder):
        name = path.relative_to(folder).as_posix()
        if name == MANIFEST:
            continue
        if name not in known:  # files whose digest is known were fsynced by the writer that took it
            fd = OPS.open(str(path), os.O_RDONLY)
            try:
                OPS.fsync(fd)
            finally:
                OPS.close(fd)
        files[name] = known.get(name) or {"sha256": sha256_file(path), "size": path.stat().st_size}
    for d in {p.parent for p in list_files(folder)} | {folder}:
        fsync_dir(d)
    write_json(folder / MANIFEST, {"polygraft": __version__, **manifest, "files": files, "finished": now()})


def data_identity(path: Path) -> str:
    """A file by its content (or size and time, if large); a folder by its names, and each file likewise."""
    if path.is_dir():
        return digest([[p.relative_to(path).as_posix(), data_identity(p)] for p in list_files(path)])
    if path.exists() and not path.is_file():
        raise InputError("not a plain file", where=path, fix="name a file or a folder; pipes and devices are not read")
    try:
        found = path.stat()
        return sha256_file(path) if found.st_size <= SMALL else digest([found.st_size, found.st_mtime_ns])
    except OSError as e:
        raise InputError("cannot be read", where=path, found=e.strerror, fix="check the path and its permissions") from e


def list_files(folder: Path) -> list[Path]:
    """Every file below a folder, sorted by name; symbolic links are listed, never followed."""
    found = []
    for root, _, names in os.walk(folder, followlinks=False):
        found += [Path(root) / n for n in names]
    return sorted(found)


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a folder that a manifest describes."""

    file: str
    what: str


def _altered(path: Path, sha256: str) -> str:
    """What is wrong with a file's content, "" if nothing is."""
    try:
        return "" if sha256_file(path) == sha256 else "content differs from its digest"
    except OSError as e:
        return f"cannot be read: {e.strerror}"


def verify_folder(folder: Path, *, full: bool = True) -> list[Problem]:
    """Compare a folder with its manifest: missing, extra, resized and (if `full`) altered files. Needs no torch.

    Raises InputError when there is no manifest to compare with.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        raise InputError("no manifest.json here", where=folder, expected="a folder that polygraft wrote",
                         fix="name the output folder of a run, a merge or a step")
    manifest = read_json(folder / MANIFEST)
    listed = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(listed, dict):
        raise InputError("the manifest does not list files", where=folder / MANIFEST)
    problems = []
    present = {p.relative_to(folder).as_posix(): p for p in list_files(folder)}
    for name, entry in sorted(listed.items()):
        path = present.pop(name, None)
        if path is None or path.is_symlink():
            problems.append(Problem(name, "missing"))
        elif path.stat().st_size != entry["size"]:
            problems.append(Problem(name, f"size {path.stat().st_size:,}, expected {entry['size']:,}"))
        elif full and (what := _altered(path, entry["sha256"])):
            problems.append(Problem(name, what))
    present.pop(MANIFEST, None)
    return problems + [Problem(name, "not in the manifest") for name in sorted(present)]
