"""GGUF files, dequantised once into a safetensors folder in the cache; afterwards they are like any other model.

The conversion runs transformers' own loader in a child process, so that whoever plans or merges never imports torch.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from polygraft import files
from polygraft.errors import InputError
from polygraft.header import open_plain

CONVERTER = 1  # a new number whenever the converted bytes change
# llama.cpp names the way text is cut before merging; transformers' conversion forgets the digit rule of these.
SINGLE_DIGITS = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")


def cache_root() -> Path:
    """Where converted and downloaded models are kept: $POLYGRAFT_CACHE, else ~/.cache/polygraft."""
    return Path(os.environ.get("POLYGRAFT_CACHE") or Path.home() / ".cache" / "polygraft")


def converted(sha256: str) -> Path:
    """The folder that the GGUF file of this digest is, or will be, converted into."""
    return cache_root() / "gguf" / f"{sha256}-{CONVERTER}"


@contextmanager
def only_one(folder: Path) -> Iterator[int]:
    """Processes that want the same cached folder wait for one another. Gives the descriptor that holds the lock."""
    with files.resource_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        fd = files.OPS.open(str(folder.with_name(folder.name + ".lock")), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        files.OPS.close(fd)


def convert(gguf: Path, sha256: str | None = None) -> Path:
    """The safetensors folder of a GGUF file (bf16), made on first use. Raises InputError when it cannot be read or converted."""
    gguf = Path(gguf).resolve()
    sha256 = sha256 or file_digest(gguf)
    out = converted(sha256)
    if (out / files.MANIFEST).exists():
        return out
    with only_one(out) as lock:
        if (out / files.MANIFEST).exists():
            return out
        _check_magic(gguf)
        manifest: dict[str, Any] = {
            "kind": "gguf",
            "inputs": [{"name": gguf.name, "spec": gguf.name, "identity": f"gguf:{sha256}"}],
        }
        with files.commit(out, manifest) as part:
            _run_child(gguf, part, lock)
    return out


def file_digest(gguf: Path) -> str:
    """SHA-256 of a plain file, remembered for as long as its path, inode, size and times stay the same."""
    os.close(open_plain(gguf))
    state = gguf.stat()
    note = cache_root() / "gguf" / "seen" / f"{files.digest(str(gguf))[:24]}.json"
    now = {"path": str(gguf), "size": state.st_size, "mtime_ns": state.st_mtime_ns,
           "ctime_ns": state.st_ctime_ns, "inode": state.st_ino}
    if note.exists() and isinstance(known := files.read_json(note), dict) and {k: known.get(k) for k in now} == now:
        return str(known["sha256"])
    sha256 = files.sha256_file(gguf)
    with files.resource_errors(note):
        note.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(note, now | {"sha256": sha256})
    return sha256


def _check_magic(gguf: Path) -> None:
    fd = open_plain(gguf)
    try:
        head = os.pread(fd, 8, 0)
    finally:
        os.close(fd)
    if head[:4] != b"GGUF" or int.from_bytes(head[4:8], "little") not in (2, 3):
        raise InputError(
            "not a GGUF file of version 2 or 3", where=gguf, found=repr(head), fix="get the file again from its source"
        )


def _run_child(gguf: Path, folder: Path, lock: int) -> None:
    """The child keeps the lock too: should this process be killed, the next one waits until the child has ended."""
    with tempfile.TemporaryFile() as log:
        code = "import sys; from polygraft.gguf import child; child(sys.argv[1], sys.argv[2])"
        quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", code, str(gguf), str(folder)],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=os.environ | quiet,
            check=False,
            pass_fds=(lock,),
        )
        log.seek(0)
        said = log.read()[-4000:].decode("utf-8", "replace").strip().splitlines()
    if done.returncode:
        reason = (
            "it was stopped, probably for want of memory"
            if done.returncode < 0
            else (said[-1] if said else f"exit {done.returncode}")
        )
        raise InputError(
            "transformers could not convert this GGUF file",
            where=gguf,
            found=reason[:300],
            fix="use the model's safetensors release, or a GGUF of an architecture that transformers reads",
        )


# ------------------------------------------------------------------------------------------------------ in the child process


def child(gguf: str, folder: str) -> None:
    """Dequantise `gguf` into `folder` as bfloat16 safetensors, config and tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source, out = Path(gguf), Path(folder)
    torch.set_num_threads(min(4, os.cpu_count() or 1))
    model = AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    repair(tokenizer, pre_tokenizer_name(source))
    tokenizer.save_pretrained(out)
    config = files.read_json(out / "config.json")
    files.write_json(out / "config.json", {k: v for k, v in config.items() if not k.endswith("_name_or_path")})
    for file in files.list_files(out):
        file.chmod(0o666 & ~_umask())  # the library saves weights for their owner only


def pre_tokenizer_name(gguf: Path) -> str:
    """The file's `tokenizer.ggml.pre`, or nothing."""
    from gguf import GGUFReader

    field = GGUFReader(gguf).get_field("tokenizer.ggml.pre")
    return str(field.contents()) if field else ""


def repair(tokenizer: Any, name: str) -> None:
    """Put back the rule that every digit stands alone, where the file's tokenizer has it and the conversion lost it."""
    from tokenizers import pre_tokenizers

    core = tokenizer.backend_tokenizer
    if name in SINGLE_DIGITS and "Digits" not in repr(core.pre_tokenizer):
        core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), core.pre_tokenizer])


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
