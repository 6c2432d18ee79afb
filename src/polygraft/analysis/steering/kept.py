"""What the model said under each condition, kept in the step's folder: a study that was cut goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from polygraft import files
from polygraft.analysis.steering.bench import Bench
from polygraft.edits import at_work
from polygraft.errors import UserError

FOLDER = "kept"


class Cost(NamedTuple):
    """What a document cost."""

    nats: float
    tokens: int
    bytes: int


class Kept:
    """Answers and nats by the digest of `about` (the model, its numbers), of the edits at work and of what was asked."""

    def __init__(self, folder: Path, about: Sequence[str]):
        self.folder, self.about, self.used = folder, list(about), set[Path]()
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, live: Any, asked: Sequence[Any], compute: Callable[[], list[Any]]) -> list[Any]:
        """What `compute` gives, or gave before."""
        work = at_work(live.model).digest
        path = self.folder / f"{files.digest([*self.about, work, *asked])[:32]}.json"
        self.used.add(path)
        try:
            found: list[Any] = files.read_json(path)["found"]
        except (UserError, KeyError, TypeError):  # not there, or broken
            found = compute()
            if all(isfinite(x) for cost in found if not isinstance(cost, str) for x in cost):
                files.write_json(path, {"edits": work, "found": found})
        return found

    def clear(self) -> None:
        """Remove what another study left here."""
        for path in set(self.folder.iterdir()) - self.used:
            path.unlink()
        if not self.used:
            self.folder.rmdir()


def keeping(bench: Bench, kept: Kept) -> Bench:
    """The bench whose nats and answers are kept; an evaluation keeps its answers itself."""
    def nats(live: Any, documents: Sequence[str]) -> list[Cost]:
        found = kept(live, ["nats", *documents], lambda: [[s.nats, s.tokens, s.bytes] for s in bench.nats(live, documents)])
        return [Cost(*cost) for cost in found]

    def write(live: Any, prompts: Sequence[str], max_tokens: int, chat: bool) -> list[str]:
        return kept(live, ["answers", max_tokens, chat, *prompts], lambda: list(bench.write(live, prompts, max_tokens, chat)))

    return replace(bench, nats=nats, write=write)
