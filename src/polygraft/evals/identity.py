"""Which model answered: one digest of every byte that decides its answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from polygraft import files, gguf
from polygraft.sources import Source

READ = {".safetensors", ".json", ".jinja", ".model", ".txt", ".tiktoken"}  # weights, config, tokenizer, chat template
NOT_READ = {files.MANIFEST, "result.json", "LICENSE.txt", "NOTICE.txt", "trainer_state.json", "all_results.json"}
SMALL = 1 << 20  # bytes from which it pays to remember a file's digest


def model_digest(source: Source) -> str:
    """SHA-256 (hex) of a model's weights, config, tokenizer and chat template, and of its base if it is an adapter.

    The name and place of the folder do not matter, so a copy is the same model. A large file is hashed once, and again when its
    size, times or inode change. Raises InputError when a file cannot be read.
    """
    parts = [_folder_digest(s.path) for s in (source.base, source) if s is not None]
    return files.digest(parts)


class Printable(Protocol):
    """What can be printed as JSON that decides it wholly, as a merge's Profile."""

    def to_json(self) -> dict[str, Any]: ...


def of_profile(sources: Sequence[Source], profile: Printable, donor: int = 0) -> str:
    """What names a merge that is in memory only: its sources' bytes, in the profile's order, and the profile.

    donor: the source whose config and tokenizer it has. Raises InputError when a source's file cannot be read.
    """
    return "profile:" + files.digest([[model_digest(s) for s in sources], donor, profile.to_json()])


def of_training(job: str, step: int) -> str:
    """What names a model that is being trained: `job` stands for all that decides the training (its digest), `step` for how far."""
    return f"training:{job}:{step}"


def _folder_digest(folder: Path) -> list[list[str]]:
    places = [p for pattern in ("*", "additional_chat_templates/*") for p in sorted(folder.glob(pattern))]
    found = [p for p in places if p.suffix in READ and p.name not in NOT_READ and p.is_file()]
    return [[p.relative_to(folder).as_posix(), _file_digest(p.resolve())] for p in found]


def _file_digest(path: Path) -> str:
    return gguf.file_digest(path) if path.stat().st_size >= SMALL else files.sha256_file(path)
