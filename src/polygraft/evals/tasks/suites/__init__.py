"""Suites: named groups of tasks with an average, such as `darumeru` (the published 17 datasets) or `darumeru:sw` (any language).

A suite is a YAML file of this folder. One that is made for any language is NAME-any.yaml and asked for as NAME:LANGUAGE.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field

from polygraft import languages
from polygraft.config import Strict, parse
from polygraft.errors import InputError, RecipeError, suggestion
from polygraft.evals import tasks
from polygraft.evals.tasks import rows
from polygraft.evals.tasks.schema import Task
from polygraft.yamltext import read_document

FOLDER = Path(__file__).parent
ANY = "-any"
UNNAMED = "{}: asked as en: name --langs, or `languages:` in the file"


class Shots(Strict):
    """Worked examples before each item: for models asked in plain text, and for those asked through a chat template."""

    plain: int = Field(ge=0, description="base models")
    chat: int = Field(ge=0, description="chat models")


class Part(Strict):
    """One dataset of a suite."""

    group: str = Field(description="what it is averaged with in a column of its own")
    task: str = Field(description="a shipped task")
    language: str = Field("", description="its language (default: the suite's)")
    score: str = Field(description="the metric that is its score")
    limit: int | None = Field(None, ge=1, description="items asked at most")
    shots: int | None = Field(None, ge=0, description="worked examples at most")
    optional: bool = Field(False, description="left out where the language or the data folder does not have it")
    average: bool = Field(True, description="counts in the average")
    without: tuple[str, ...] = Field((), description="languages for which it makes no sense")


class Suite(Strict):
    """One suite file."""

    suite: str
    version: int = Field(ge=1, description="a change that moves scores is a new version")
    shots: Shots
    parts: tuple[Part, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Entry:
    """One task in one language as it is asked: with so many worked examples (None: as the task says), so many items at most."""

    task: Task
    language: str
    shots: int | None = None
    limit: int | None = None


@dataclass(frozen=True)
class Expanded:
    """A suite as it is asked: its parts, with what is asked for them."""

    name: str
    asked: tuple[tuple[Part, Entry], ...]


def names() -> tuple[str, ...]:
    """The shipped suites: `darumeru`, `darumeru:LANGUAGE`."""
    return tuple(sorted(p.stem.removesuffix(ANY) + (":LANGUAGE" if p.stem.endswith(ANY) else "") for p in FOLDER.glob("*.yaml")))


def is_suite(word: str) -> bool:
    """Whether a word names a suite and not a task."""
    name = word.partition("@")[0].partition(":")[0]
    return any(name == n.partition(":")[0] for n in names())


def load(word: str) -> tuple[Suite, str]:
    """(suite, language or "") of `darumeru`, `darumeru@1`, `darumeru:sw` or `darumeru:sw@1`. Raises RecipeError."""
    stem, _, version = word.partition("@")
    name, colon, language = stem.partition(":")
    file = FOLDER / f"{name}{ANY if colon else ''}.yaml"
    if not is_suite(word) or not file.is_file():
        raise RecipeError("no such suite", found=word, fix=suggestion(word, names()))
    suite = _read(file)
    if version not in ("", str(suite.version)):
        raise RecipeError("this version of the suite is not here", found=word, expected=f"{stem}@{suite.version}",
                          fix="use the version that is here, or the polygraft release that had the other one")
    return suite, languages.check(language) if colon else ""


@cache
def _read(file: Path) -> Suite:
    return parse(Suite, read_document(file))


def expand(word: str, *, data: Path | None = None, chat: bool = False, shots: int | None = None,
           limit: int | None = None) -> Expanded:
    """What a suite asks. `shots` (for both presets) and `limit` are the evaluation's own; a part may have less of either.

    Raises RecipeError where a part that is not optional lacks the language.
    """
    suite, language = load(word)
    preset = suite.shots.chat if chat else suite.shots.plain
    asked: list[tuple[Part, Entry]] = []
    for part in suite.parts:
        tag, task = part.language or language, tasks.load(part.task)
        if tag in part.without or any((e.task.name, e.language) == (task.name, tag) for _, e in asked):
            continue
        if part.optional and not (tag in task.known_languages() and _found(task, tag, data)):
            continue
        tasks.check_language(task, tag)
        count = preset if shots is None else shots
        asked.append((part, Entry(task, tag, count if part.shots is None else min(part.shots, count),
                                  min(filter(None, (part.limit, limit)), default=None))))
    stem = word.partition("@")[0].partition(":")[0] + (f":{language}" if language else "")
    return Expanded(f"{stem}@{suite.version}", tuple(asked))


def _found(task: Task, language: str, data: Path | None) -> bool:
    return not _lacks(task, language, data)


def _lacks(task: Task, language: str, data: Path | None) -> str:
    """The file of the task in this language that the data folder, where one is named, does not have; "" when it has all."""
    try:
        for source in filter(None, (task.source, task.examples) if data is not None else ()):
            rows.find(source, task.words_of(language), data)
    except InputError as e:
        return str(e.expected)
    return ""


def lacking(word: str, *, data: Path | None = None) -> Iterator[tuple[Part, str, str]]:
    """(part, language, why) of every part that is left out or cannot be asked: the task has no such language, or the data folder no
    such file. Raises RecipeError for what is no suite."""
    suite, language = load(word)
    for part in suite.parts:
        tag, task = part.language or language, tasks.load(part.task)
        if tag in part.without:
            continue
        if tag not in (task.known_languages() or (tag,)):
            yield part, tag, f"the task has no {languages.name(tag)}"
        elif file := _lacks(task, tag, data):
            yield part, tag, f"the data folder has no {file}"


def split(word: str) -> tuple[Task, str]:
    """The task of `xcopa` or `xcopa:sw`, and the language named with it, or "". Raises RecipeError for what is not there."""
    name, colon, language = word.rpartition(":") if not tasks.is_file(word) else (word, "", "")
    task = tasks.load(name if colon else word)
    if colon:
        language = languages.check(language)
        tasks.check_language(task, language)
    return task, language if colon else ""


def planned(words: Sequence[str], langs: Sequence[str], *, data: Path | None = None, chat: bool = False, shots: int | None = None,
            limit: int | None = None) -> Iterator[Entry]:
    """Everything that tasks and suites ask, each task in a language once. Raises RecipeError when they disagree on the shots."""
    seen: dict[tuple[str, str], Entry] = {}
    for word in words:
        if is_suite(word):
            found = [e for _, e in expand(word, data=data, chat=chat, shots=shots, limit=limit).asked]
        else:
            task, own = split(word)
            found = [Entry(task, language, shots, limit) for language in ([own] if own else langs)]
        for entry in found:
            before = seen.setdefault((entry.task.name, entry.language), entry)
            if before.task != entry.task:
                raise RecipeError("two tasks have one name", where=word, found=entry.task.name,
                                  fix="change `task:` in one of the files")
            if before.shots != entry.shots or before.limit != entry.limit:
                raise RecipeError("one task is asked in two ways", where=word, found=f"{entry.task.name} {entry.language} with "
                                  f"{entry.shots} and {before.shots} shots, limit {entry.limit} and {before.limit}",
                                  fix="leave it out beside the suite, or evaluate them apart")
    yield from seen.values()


def repeated(words: Sequence[str], langs: Sequence[str], **how: Any) -> tuple[str, ...]:
    """One sentence for each task that is named again, or in a suite too; it is asked once. Options are those of `planned`."""
    seen: set[tuple[str, str]] = set()
    twice: dict[str, None] = {}
    for word in words:
        found = {(e.task.name, e.language) for e in planned([word], langs, **how)}
        twice |= dict.fromkeys(f"{task} {language}" for task, language in sorted(found & seen))
        seen |= found
    return tuple(f"{name} is named twice, and asked once." for name in twice)


__all__ = ["UNNAMED", "Entry", "Expanded", "Part", "Suite", "expand", "is_suite", "load", "names", "planned", "repeated", "split"]
