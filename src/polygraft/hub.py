"""Models on the Hugging Face hub, as read-only snapshots in the hub's own cache: safetensors, JSON and tokenizer files only."""

from __future__ import annotations

import re
from pathlib import Path

from polygraft.errors import InputError
from polygraft.folder import CONVERT

ID = re.compile(r"^(?P<repo>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@(?P<revision>[\w][\w./-]{0,120}))?$")
WANTED = [
    "*.safetensors",
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
]
UNWANTED = ["original/*", "consolidated*", "onnx/*", "*/*"]


def parse(spec: str) -> tuple[str, str] | None:
    """(repository, revision) of `org/name[@revision]`, or None when it is not such a name."""
    m = ID.match(spec)
    return None if m is None or ".." in spec else (m["repo"], m["revision"] or "main")


def snapshot(spec: str, *, offline: bool = False) -> tuple[Path, str]:
    """(folder, commit) of a hub model. Raises InputError when there is none, it is gated, or `offline` and not in the cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    repo, revision = parse(spec) or (spec, "main")
    try:
        path = Path(
            snapshot_download(repo, revision=revision, allow_patterns=WANTED, ignore_patterns=UNWANTED, local_files_only=offline)
        )
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
    except LocalEntryNotFoundError as e:
        raise InputError(
            "no folder of this name here, and not in the hub's cache",
            where=spec,
            fix="check the path, or download it first: hf download " + repo,
        ) from e
    except (OSError, ValueError) as e:
        raise InputError(
            "the hub could not be reached",
            where=spec,
            found=str(e).splitlines()[0][:200] if str(e) else type(e).__name__,
            fix="check the network; what is in the cache can be used with --offline",
        ) from e
    if not any(path.glob("*.safetensors")):
        raise InputError("this repository has no safetensors", where=spec, fix=CONVERT)
    return path, path.name
