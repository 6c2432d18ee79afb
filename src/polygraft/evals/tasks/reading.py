"""Items of a task: questions with gold answers, from a local folder, the hub, or the procedural generator."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from polygraft.config import Strict
from polygraft.errors import InputError, RecipeError
from polygraft.evals import answers
from polygraft.evals.tasks import problems
from polygraft.files import read_json


class Source(Strict):
    """Where a task's items lie: `file` in the data folder (or its subfolder `folder`), else in the hub dataset `hub`."""

    kind: Literal["tsv", "jsonl", "problems"]
    folder: str = ""
    file: str = ""
    hub: str = ""
    exemplars: str = ""


class Labels(Strict):
    """A language's words around a question and its answer, and those after which the final number stands."""

    question: str
    answer: str
    markers: tuple[str, ...] = ()


class ProblemKind(Strict):
    """Which procedural problems: how many steps, which operations, which split, and beside how many wrong solutions."""

    steps: tuple[int, ...] = Field(default=(1,), description="word problems of so many steps")
    operations: str = Field(default="+-*/", description="operations that word problems may need")
    split: Literal["train", "dev", "test"] = Field(default="test", description="splits share no template, name or number")
    wrong: int = Field(default=2, ge=0, le=2, description="wrong solutions that the right one must beat; 0: it must be what the "
                       "model would write (greedily), which is the cheapest to score")


@dataclass(frozen=True)
class Item:
    """One question. `choices` are continuations of the prompt, the gold one first; empty for tasks that are generated."""

    id: str
    language: str
    prompt: str
    gold: str
    choices: tuple[str, ...] = ()


def load_items(source: Source, labels: Labels | None, language: str, *, data: Path | None, limit: int | None, seed: int, shots: int,
               kind: ProblemKind, offline: bool) -> list[Item]:
    """The first `limit` items of a source, prompts written out. Raises InputError or RecipeError."""
    if source.kind == "problems":
        if shots:
            raise RecipeError("the procedural problems are asked without examples", found=f"shots: {shots}", expected="shots: 0")
        return procedural(language, limit or 100, seed, kind)
    assert labels is not None
    before = exemplars(source, labels, language, data, shots)
    rows = list(_rows(source, language, data, offline))[:limit]
    return [Item(f"{language}-{n:04d}", language, f"{before}{labels.question}{question}\n{labels.answer}", gold)
            for n, (question, gold) in enumerate(rows)]


# ----------------------------------------------------------------------------------------------------------- procedural


def procedural(language: str, n: int, seed: int, kind: ProblemKind) -> list[Item]:
    """Procedural problems with their gold solution and at most `kind.wrong` wrong ones as choices."""
    drawn = problems.generate(language, n, seed=seed, split=kind.split, steps=kind.steps, operations=kind.operations)
    return [Item(p.id, language, problems.prompt(p), str(p.answer), (p.solution, *wrong_solutions(p)[: kind.wrong])) for p in drawn]


def wrong_solutions(problem: Any) -> tuple[str, ...]:
    """A solution whose last step takes another operation (and computes it rightly), and one that only miscalculates.

    The first tells whether the question was understood, the second whether the sum was done.
    """
    *before, last = problem.solution.split("\n")
    x, sign, y, _, result = last.split(" ")
    a, b = int(x), int(y)
    other = f"{max(a, b)} - {min(a, b)} = {abs(a - b)}" if sign == "+" else f"{a} + {b} = {a + b}"
    miss = next((d for d in problem.distractors if d != int(other.rsplit(" ", 1)[1])), problem.answer + 1)
    wrong = [other] if other.rsplit(" ", 1)[1] != result else []
    return tuple("\n".join([*before, w]) for w in [*wrong, f"{a} {sign} {b} = {miss}"])


# ---------------------------------------------------------------------------------------------------------------- files


def find(source: Source, language: str, data: Path | None) -> Path | None:
    """The local file of a language, or None when no data folder is named. Raises InputError when the folder lacks it."""
    if data is None:
        return None
    name = source.file.format(language=language)
    for path in (Path(data) / source.folder / name, Path(data) / name):
        if path.is_file():
            return path
    raise InputError("the task's file is not here", where=data, expected=f"{name} or {source.folder}/{name}",
                     fix=f"put the file there, or name no data folder to fetch it from {source.hub}")


def exemplars(source: Source, labels: Labels, language: str, data: Path | None, shots: int) -> str:
    """`shots` worked examples in the language, from the paper's exemplars.json. Raises when there are not so many."""
    if not shots:
        return ""
    if not source.exemplars or data is None:
        raise RecipeError("no worked examples for this task", found=f"shots: {shots}",
                          expected="shots: 0, or MGSM with a data folder that holds exemplars.json")
    path = next((p for p in (Path(data) / source.folder / source.exemplars, Path(data) / source.exemplars) if p.is_file()), None)
    if path is None:
        raise InputError("the worked examples are not here", where=data, expected=source.exemplars,
                         fix="put the file beside the task's")
    try:
        found = list(read_json(path)["MGSM_EXEMPLARS"][language].values())
        pairs = [(e["q"], e["a"]) for e in found]
    except (KeyError, TypeError, AttributeError) as e:
        raise InputError("not the worked examples of MGSM in this language", where=path, found=str(e), expected=language) from e
    if shots > len(pairs):
        raise RecipeError("more worked examples than there are", where=path, found=f"shots: {shots}",
                          expected=f"at most {len(pairs)}")
    return "".join(f"{q}\n{a}\n\n" for q, a in pairs[:shots])


def _rows(source: Source, language: str, data: Path | None, offline: bool) -> Iterator[tuple[str, str]]:
    path = find(source, language, data)
    if path is None:
        if offline:
            raise InputError(f"the task's data would come from the hub ({source.hub}), and this run is offline",
                             fix="name a folder that holds it (`data:`, `--data`)")
        yield from _hub_rows(source, language)
        return
    raw = path.read_bytes()
    try:
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as e:
        raise InputError("not readable as UTF-8 text", where=path, found=str(e)[:120], fix="get the file again") from e
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield _row(source.kind, line.rstrip("\r"), f"{path}:{number}")


def _row(kind: str, line: str, where: str) -> tuple[str, str]:
    """(question, gold) of one line. Raises InputError naming the line."""
    if kind == "tsv":
        question, tab, gold = line.rpartition("\t")
        expected = "question, tab, number"
    else:
        try:
            row = json.loads(line)
            question, tab, gold = row["question"], "\t", _plain(row["answer"])
        except (ValueError, KeyError, TypeError):
            tab, question, gold = "", "", ""
        expected = 'a JSON object with "question" and "answer"'
    if not tab or not isinstance(question, str) or not question.strip() or not answers.readings(gold.strip()):
        raise InputError("not an item of this task", where=where, found=line[:80], expected=expected)
    return question.strip(), gold.strip()


def _plain(number: Any) -> str:
    """8.0 as `8`: golds that are whole are written whole."""
    return str(int(number)) if isinstance(number, float) and number.is_integer() else str(number)


def _hub_rows(source: Source, language: str) -> Iterator[tuple[str, str]]:
    """Rows from the hub: MGSM's files as they are (its dataset script no longer loads), MSVAMP as a data set."""
    try:
        if source.kind == "tsv":
            from huggingface_hub import hf_hub_download

            path = hf_hub_download(source.hub, source.file.format(language=language), repo_type="dataset")
            for number, line in enumerate(Path(path).read_text("utf-8").splitlines(), 1):
                yield _row("tsv", line, f"{source.hub}/{Path(path).name}:{number}")
        else:
            from datasets import load_dataset

            for row in load_dataset(source.hub, language, split="test"):
                yield str(row["m_query"]).strip(), _plain(float(row["response"]))
    except InputError:
        raise
    except Exception as e:  # the hub's clients raise many kinds; all of them mean that the data did not come
        raise InputError("the task's data did not come from the hub", where=source.hub, found=f"{type(e).__name__}: {e}"[:200],
                         fix="check the network, or name a folder that holds it (`data:`, `--data`)") from e
