"""Hub data sets at a commit: what a branch stands at is asked once, and every row of an evaluation comes from there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from polygraft.evals.tasks import rows
from polygraft.evals.tasks.schema import Rows, Task
from polygraft.result import InputRef

TIMEOUT = 10.0  # seconds without an answer
COMMIT = re.compile(r"[0-9a-f]{40}$")

Commit = Callable[[str, str], str]


def commit(path: str, revision: str) -> str:
    """The commit of a data set that a branch, tag or commit names. Raises InputError when the hub does not say."""
    if COMMIT.match(revision):
        return revision
    with rows.fetching(path):
        from huggingface_hub import HfApi

        return str(HfApi().dataset_info(path, revision=revision, timeout=TIMEOUT).sha)


def pinned(task: Task, language: str, *, data: Path | None, shots: int,
           commit: Commit = commit) -> tuple[Task, tuple[InputRef, ...]]:
    """The task with its hub data sets at their commits, and what these are; unchanged where its files are on this machine.

    `commit` is asked for every source: give one that remembers. Raises InputError.
    """
    made: dict[str, Rows] = {}
    refs: list[InputRef] = []
    for field in ("source", "examples") if shots else ("source",):
        source: Rows | None = getattr(task, field)
        if data is not None or source is None or source.hub is None:
            continue
        if rows.find(source, task.words_of(language), None, task.folder):
            continue
        asked = source.hub.revision or "main"
        at = commit(source.hub.path, asked)
        made[field] = source.model_copy(update={"hub": source.hub.model_copy(update={"revision": at})})
        refs.append(InputRef("hub data", f"{source.hub.path}@{asked}", at, f"hub:datasets/{source.hub.path}@{at}"))
    return task.model_copy(update=made) if made else task, tuple(dict.fromkeys(refs))
