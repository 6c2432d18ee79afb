"""Models on the Hugging Face hub, as read-only snapshots in the hub's own cache: safetensors, JSON and tokenizer files only.

`snapshot` downloads; `headers` opens a model by its small files and the first bytes of its tensor files, whatever its size.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from polygraft.checkpoint import Checkpoint, RemoteCheckpoint
from polygraft.errors import InputError
from polygraft.folder import CONVERT, PICKLES, find_shards
from polygraft.header import Header, header_bytes
from polygraft.header import parse as parse_header
from polygraft.redact import redact

ID = re.compile(r"^(?P<repo>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@(?P<revision>[\w][\w./-]{0,120}))?$")
SMALL = [
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "vocab.*",
    "merges.txt",
    "*.model",
    "tekken.json",
    "adapter_config.json",
    "README.md",  # the card, which says the licence
]
WANTED = ["*.safetensors", *SMALL]
UNWANTED = ["original/*", "consolidated*", "onnx/*", "*/*"]
WINDOW = 64 << 10  # bytes asked for at once: the whole header of most files
TIMEOUT = 10.0  # seconds without an answer
RETRIES = 2  # after a busy answer
AT_ONCE = 8  # headers fetched side by side


def parse(spec: str) -> tuple[str, str] | None:
    """(repository, revision) of `org/name[@revision]`, or None when it is not such a name."""
    m = ID.match(spec)
    return None if m is None or ".." in spec else (m["repo"], m["revision"] or "main")


def identity(repo: str, commit: str) -> str:
    """What names the weights of one commit, downloaded or not."""
    return f"hub:{repo}@{commit}"


def cache() -> Path:
    """Where downloads go."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def snapshot(spec: str, *, offline: bool = False, weights: bool = True) -> tuple[Path, str]:
    """(folder, commit) of a hub model; without `weights`, of its small files only.

    Raises InputError when there is none, it is gated, the hub does not answer, or `offline` and not in the cache.
    """
    from huggingface_hub import snapshot_download

    repo, revision = parse(spec) or (spec, "main")
    with _told(spec), nullcontext() if weights else _no_bars():
        path = Path(
            snapshot_download(
                repo,
                revision=revision,
                allow_patterns=WANTED if weights else SMALL,
                ignore_patterns=UNWANTED,
                local_files_only=offline,
            )
        )
    if weights and not any(path.glob("*.safetensors")):
        raise InputError("this repository has no safetensors", where=spec, fix=CONVERT)
    return path, path.name


def headers(spec: str, path: Path, commit: str) -> Checkpoint:
    """A hub model from its small files in `path` and the headers of its tensor files; the real one if all of it is in the cache.

    Judged by the rules for local folders. Raises InputError.
    """
    repo, _ = parse(spec) or (spec, "")
    if _complete(path):
        return Checkpoint.open(path, identity=identity(repo, commit))
    with _told(spec):
        sizes = _listing(repo, commit)
    if not any(name.endswith(".safetensors") for name in sizes):
        pickles = sorted(name for name in sizes if name.endswith(PICKLES))
        raise InputError(
            "this repository has no safetensors", where=spec, found=", ".join(pickles[:3]) or None, fix=CONVERT
        )

    def read(names: list[str]) -> dict[str, Header]:
        with _told(spec), ThreadPoolExecutor(AT_ONCE) as pool:
            return dict(zip(names, pool.map(lambda n: _header(repo, commit, n, sizes.get(n, 0)), names), strict=True))

    try:
        return RemoteCheckpoint.of(path, sizes, read, identity(repo, commit))
    except InputError as e:
        where = str(e.where).replace(str(path), f"{repo}@{commit[:12]}")
        raise InputError(e.what, where=where, found=e.found, expected=e.expected, fix=e.fix) from e


def _complete(path: Path) -> bool:
    with suppress(InputError):
        find_shards(path)
        return True
    return False


def _listing(repo: str, commit: str) -> dict[str, int]:
    """Names and sizes of a model's files, without those that `snapshot` leaves out; pickles are kept, to be named."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import filter_repo_objects

    info = HfApi().model_info(repo, revision=commit, files_metadata=True, timeout=TIMEOUT)
    sizes = {s.rfilename: s.size or 0 for s in info.siblings or ()}
    wanted = [*WANTED, *(f"*{ending}" for ending in PICKLES)]
    return {name: sizes[name] for name in filter_repo_objects(sizes, allow_patterns=wanted, ignore_patterns=UNWANTED)}


def _header(repo: str, commit: str, name: str, size: int) -> Header:
    """The header of one file on the hub, parsed as strictly as a local one. Raises InputError, or what the client raises."""
    where = Path(f"{repo}@{commit[:12]}") / name
    window = _fetch(repo, commit, name, WINDOW, 0) if size else b""

    def read(count: int, position: int) -> bytes:
        part = window[position : position + count]
        return part if len(part) == count or len(window) == size else _fetch(repo, commit, name, count, position)

    raw = header_bytes(read, size, where)
    tensors, metadata = parse_header(raw, size, where)
    return Header(tensors, metadata, raw, size, 0, 0)


def _fetch(repo: str, commit: str, name: str, count: int, position: int) -> bytes:
    """Bytes of a file on the hub, and never more, whatever the server sends."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_stream_backoff

    url, got = hf_hub_url(repo, name, revision=commit), bytearray()
    ask = {**build_hf_headers(), "Range": f"bytes={position}-{position + count - 1}", "Accept-Encoding": "identity"}
    with http_stream_backoff("GET", url, max_retries=RETRIES, headers=ask, timeout=TIMEOUT) as answer:
        hf_raise_for_status(answer)
        if answer.status_code != 206:
            raise OSError(f"{name}: the server does not send parts of files")
        for chunk in answer.iter_raw():
            got += chunk
            if len(got) >= count:
                break
    return bytes(got[:count])


@contextmanager
def _no_bars() -> Iterator[None]:
    """Small files come without progress bars."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


@contextmanager
def _told(spec: str) -> Iterator[None]:
    """Whatever goes wrong with the hub, as an InputError that says what to do."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repo, revision = parse(spec) or (spec, "main")
    try:
        yield
    except GatedRepoError as e:
        raise InputError(
            "this model asks you to accept its licence first",
            where=spec,
            fix=f"accept it on the page of {repo}, then `hf auth login`",
        ) from e
    except RevisionNotFoundError as e:
        raise InputError(
            "the model has no such revision", where=spec, found=revision, fix="name a branch, a tag or a commit"
        ) from e
    except RepositoryNotFoundError as e:
        raise InputError(
            "no such model on the hub, or it is private", where=spec, fix="check the name; for a private model `hf auth login`"
        ) from e
    except (OSError, ValueError, HTTPError) as e:
        cause = e.__cause__ if isinstance(e, LocalEntryNotFoundError) else e
        if cause is None or isinstance(cause, OfflineModeIsEnabled):
            raise InputError(
                "no folder of this name here, and not in the hub's cache",
                where=spec,
                fix="check the path, or download it first: hf download " + repo,
            ) from e
        raise _no_answer(spec, cause) from e


def _no_answer(spec: str, cause: BaseException) -> InputError:
    said = str(redact(str(cause))).strip().partition("\n")[0][:200] or type(cause).__name__
    if getattr(getattr(cause, "response", None), "status_code", None) in (401, 403):
        return InputError("the hub refused", where=spec, found=said, fix="`hf auth login` with a token that may read this model")
    fix = "check the path or the network; what is in the cache can be used with --offline"
    return InputError("no folder of this name here, and the hub could not be reached", where=spec, found=said, fix=fix)
