"""Tasks: small YAML files that say where the items lie, how they are asked and what counts as an answer; run by lm-eval.

`data/*.yaml` are the shipped ones. A task is named with its version (`mgsm@1`): a change that moves scores is a new version.
A user's own is named by the path of its file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from polygraft import languages
from polygraft.config import parse
from polygraft.errors import RecipeError, UserError, suggestion
from polygraft.evals import metrics
from polygraft.evals.governance import perturb
from polygraft.evals.items import Item
from polygraft.evals.tasks import building, rows, shapes, templates
from polygraft.evals.tasks.procedural import ProblemKind, word_problems
from polygraft.evals.tasks.schema import CHOICE, Rows, Task
from polygraft.step import DataName
from polygraft.yamltext import Document, read_document

FOLDER = Path(__file__).parent / "data"


@cache
def names() -> tuple[str, ...]:
    """The shipped tasks."""
    return tuple(sorted(p.stem for p in FOLDER.glob("*.yaml")))


class TaskFile(DataName):
    """The path of a task file as a recipe names it; the data that lie beside it belong to it."""

    def parts(self, path: Path) -> list[Path]:
        try:
            task = _read(path)
        except UserError:  # said when the step is planned; lm-eval's files are not of this kind
            return []
        return sorted({p for s in (task.source, task.examples) if s is not None for p in _beside(path.parent, s)})


def _beside(folder: Path, source: Rows) -> list[Path]:
    """The files of a source that lie in a folder, whatever the language."""
    patterns = [re.sub(r"\{\w+\}", "*", f) for f in source.files]
    return [p for f in patterns if not Path(f).is_absolute() for p in folder.glob(f) if p.is_file()]


def is_file(name: str) -> bool:
    """Whether a task is named by the path of its file."""
    return name.endswith((".yaml", ".yml"))


def load(name: str) -> Task:
    """The task of this name (with or without its version), or of this file. Raises RecipeError for what is not there or wrong."""
    tidy, plus, change = name.rpartition("+")
    if plus and not is_file(change):
        change, at, version = change.partition("@")
        return _changed(load(tidy + at + version), change)
    if is_file(name):
        return _read(Path(name))
    stem, _, version = name.partition("@")
    if stem not in names():
        raise RecipeError("no such task", found=name, expected="a task of `polygraft tasks`, or the .yaml file of your own",
                          fix=suggestion(stem, names()))
    task = _shipped(stem)
    if version not in ("", str(task.version)):
        raise RecipeError("this version of the task is not here", found=name, expected=task.name,
                          fix="use the version that is here, or the polygraft release that had the other one")
    return task


def _changed(task: Task, change: str) -> Task:
    """The task with its questions made untidy: `mgsm+typos`."""
    how = perturb.parse(change)
    kept = {tag: said for tag, said in task.languages.items() if perturb.defined(how, tag)}
    changed = task.model_copy(update={"task": f"{task.task}+{change}", "languages": kept})
    changed._changed = change
    return changed


@cache
def _shipped(stem: str) -> Task:
    return _checked(parse(Task, _document(FOLDER / f"{stem}.yaml")), FOLDER / f"{stem}.yaml")


def _document(path: Path) -> Document:
    """A task file, laid over the shipped task that it is `like`, if any. Raises RecipeError for one that is not there."""
    document = read_document(path, "task file")
    tree = document.tree
    if not isinstance(tree, dict) or not (stem := tree.get("like")):
        return document
    if stem not in names() or path == FOLDER / f"{stem}.yaml":
        raise RecipeError("no such task to be like", where=document.where(("like",)), found=str(stem),
                          expected="another task of `polygraft tasks`", fix=suggestion(str(stem), names()))
    under = {k: v for k, v in _document(FOLDER / f"{stem}.yaml").tree.items() if k not in ("task", "version", "like")}
    return replace(document, tree={**under, **tree})


def _read(path: Path) -> Task:
    document = _document(path)
    task = _checked(parse(Task, document), path)
    task._folder, task._lines = path.parent, {name: document.where((name, "files")) for name in ("source", "examples")}
    return task


def _checked(task: Task, path: Path) -> Task:
    """The task with its words, once its metrics, shapes and templates are known to be there. Raises RecipeError."""
    if not task.metrics:
        task = task.model_copy(update={"metrics": ("exact_match" if task.written else "accuracy",)})
    try:
        for name in task.metrics:
            metrics.get(name)
        for source in filter(None, (task.source, task.examples)):
            if source.shape:
                shapes.get(source.shape)
        lists = [t for t in (task.doc_to_choice, task.golds) if not isinstance(t, str)]
        single = [t for t in (task.doc_to_choice, task.golds, task.doc_to_text, task.doc_to_target, task.system, task.prefix,
                              task.description, task.id, task.stratum, task.group) if isinstance(t, str)]
        for template in [*single, *task.extra.values(), *(t for some in lists for t in some)]:
            templates.compiled(template)
    except RecipeError as e:
        raise RecipeError(e.what, where=path, found=e.found, expected=e.expected, fix=e.fix) from e
    return task.model_copy(update={"languages": _merged(_words(task.words), task.languages)}) if task.words else task


@cache
def _words(names: str) -> Mapping[str, Mapping[str, Any]]:
    """The words of a file, or of several (`a+b`), each laid over those before."""
    found: dict[str, dict[str, Any]] = {}
    for name in names.split("+"):
        for tag, said in _words_file(name).items():
            found[tag] = {**found.get(tag, {}), **said}
    return found


def _words_file(name: str) -> Mapping[str, Mapping[str, Any]]:
    path = FOLDER / "words" / f"{name}.yaml"
    if not path.is_file():
        raise RecipeError("no such file of words", found=name, fix=suggestion(name, [p.stem for p in path.parent.glob("*.yaml")]))
    return read_document(path).tree


def _merged(under: Mapping[str, Mapping[str, Any]], over: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The task's languages, each laid over the shared words; all of the shared ones when the task names none."""
    return {tag: {**under.get(tag, {}), **over.get(tag, {})} for tag in (over or under)}


def check_language(task: Task, language: str) -> None:
    """Raises RecipeError for a language that the task does not have."""
    if task._changed:
        perturb.refuse(perturb.parse(task._changed), language)
    known = task.known_languages()
    if known and language not in known:
        raise RecipeError(f"{task.task} has no such language", found=language, fix=languages.nearest(language, known))


def from_hub(task: Task) -> bool:
    """Whether the task's rows come from the hub when no data folder is named."""
    return task.source.hub is not None and (task.folder is None or not _beside(task.folder, task.source))


def items(task: Task, language: str, *, data: Path | None = None, limit: int | None = None, seed: int = 0, shots: int | None = None,
          kind: ProblemKind | None = None, offline: bool = False) -> list[Item]:
    """The task's items in one language, the first `limit` of them: the same ones, in the same order, in every language.

    `shots` worked examples (default: the task's own number) come before each. Raises InputError for data that is missing or
    damaged, RecipeError for a language or number of shots that does not exist.
    """
    check_language(task, language)
    found = _items(task, language, data, limit, seed, task.num_fewshot if shots is None else shots, kind, offline)
    return perturb.applied(found, perturb.parse(task._changed), language, seed=seed, data=data) if task._changed else found


def _items(task: Task, language: str, data: Path | None, limit: int | None, seed: int, shots: int, kind: ProblemKind | None,
           offline: bool) -> list[Item]:
    if task.source.generator:
        if shots:
            raise RecipeError("the procedural problems are asked without examples", found=f"shots: {shots}", expected="shots: 0")
        made = word_problems(language, limit or 100, seed, kind or ProblemKind())
        return [replace(i, choices=()) for i in made] if task.written else made
    words = task.words_of(language)
    found = rows.read(task.source, words, data=data, offline=offline, folder=task.folder, named=task.line("source"))
    if not shots:
        return building.build(task, language, list(enumerate(found))[:limit])
    shown = found if task.examples is None else rows.read(task.examples, words, data=data, offline=offline, folder=task.folder,
                                                          named=task.line("examples"))
    return _with_examples(task, language, found, shown, shots, limit)


def _with_examples(task: Task, language: str, found: list[rows.Row], shown: list[rows.Row], shots: int,
                   limit: int | None) -> list[Item]:
    """Items with their worked examples; rows of the asked file that are shown as examples are not asked."""
    blocks = building.blocks(task, shown, shots)
    spent = set() if task.examples else {id(r) for block in blocks.values() for r in block}
    asked = [(n, r) for n, r in enumerate(found) if id(r) not in spent][:limit]
    shared = [building.share(task, r) for _, r in asked]
    if not asked or (few := [s for s in dict.fromkeys(shared) if len(blocks.get(s, ())) < shots]):
        most = len(shown) - 1 if not asked else len(blocks.get(few[0], ()))
        about = f" ({few[0]})" if asked and few[0] else ""
        raise RecipeError("more worked examples than there are", where=task.name, found=f"shots: {shots}",
                          expected=f"at most {most}{about}")
    texts = {s: building.worked(task, language, blocks[s]) for s in dict.fromkeys(shared)}
    return [replace(item, examples=texts[s]) for item, s in zip(building.build(task, language, asked), shared)]


__all__ = ["CHOICE", "ProblemKind", "Task", "TaskFile", "check_language", "is_file", "items", "load", "names"]
