"""The user's own evaluation file as a task that `eval` can ask: a task file as it is, or rows whose columns say what they are."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polygraft.data import objects
from polygraft.errors import InputError
from polygraft.evals import tasks
from polygraft.files import canonical, digest, sha256_file
from polygraft.recipetext import dump

QUESTIONS, CHOICES, ANSWERS = ("question", "prompt", "text"), ("choices", "options"), ("answer", "gold", "label", "completion")
NUMBER = re.compile(r"[-−]?[0-9][0-9.,]*%?\Z")
WRITTEN = 32  # new tokens of an answer to a question without choices
ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.xz")


@dataclass(frozen=True)
class Target:
    """The task that decides: the files to write for it (relative name -> bytes), the task file among them, and its items."""

    files: dict[str, bytes]
    task: str
    title: str
    metric: str
    items: int


def target(path: Path, language: str) -> Target:
    """The user's evaluation, checked: at least one item in this language. Raises RecipeError or InputError with its line."""
    if tasks.is_file(path.name):
        return _of_task_file(path, language)
    if not path.name.endswith(ENDINGS):
        raise InputError("not an evaluation file", where=path, found=path.suffix or "no ending",
                         expected="a task file (.yaml), or .jsonl with a question and an answer a line",
                         fix="see `polygraft tasks` and docs/tasks.md for task files")
    return _of_rows(path)


def _of_task_file(path: Path, language: str) -> Target:
    """The file and what lies beside it, in a folder that is named by their content."""
    task = tasks.load(str(path))
    found = tasks.items(task, language, offline=True)
    parts = {p.relative_to(path.parent).as_posix(): p for p in (path, *tasks.TaskFile(path).parts(path))}
    folder = f"target-{digest({name: sha256_file(p) for name, p in parts.items()})[:12]}"
    return Target({f"{folder}/{name}": p.read_bytes() for name, p in parts.items()}, f"{folder}/{path.name}", task.task,
                  task.metrics[0], len(found))


def _of_rows(path: Path) -> Target:
    rows = [_row(row, where) for where, row in objects(path)]
    if not rows:
        raise InputError("the evaluation has no rows", where=path, expected="one question with its answer a line")
    kinds = {"choices" in r for r in rows}
    if len(kinds) > 1:
        n = next(i for i, r in enumerate(rows) if ("choices" in r) != ("choices" in rows[0]))
        raise InputError("some questions have choices and others do not", where=f"{path}:{n + 1}", expected="one kind in one file")
    if len({r["question"] for r in rows}) < len(rows):
        seen = [r["question"] for r in rows]
        n = next(i for i, q in enumerate(seen) if q in seen[:i])
        raise InputError("a question that was asked before", where=f"{path}:{n + 1}", found=seen[n][:60],
                         fix="remove one: the same item twice makes intervals too narrow")
    data = b"".join(canonical(r) + b"\n" for r in rows)
    name = f"target-{digest(rows)[:12]}"
    task = _task(rows, f"{name}.jsonl")
    files = {f"{name}.jsonl": data, f"{name}.yaml": dump(task).encode()}
    return Target(files, f"{name}.yaml", "target", task["metrics"][0], len(rows))


def _task(rows: Sequence[dict[str, Any]], file: str) -> dict[str, Any]:
    """The task file of such rows. A question that ends with a sign that asks for the answer is left as it is."""
    common = {"task": "target", "source": {"files": [file]}, "doc_to_text": "{{question}}"}
    if "choices" in rows[0]:
        return common | {"output_type": "multiple_choice", "doc_to_choice": "choices", "doc_to_target": "{{answer}}",
                         "metrics": ["accuracy"]}
    numbers = all(NUMBER.match(r["answer"]) for r in rows)
    return common | {"output_type": "generate_until", "golds": ["{{answer}}"], "target_delimiter": "\n",
                     "metrics": ["numbers.accuracy" if numbers else "exact_match"],
                     "generation": {"max_gen_toks": WRITTEN, "until": ["\n\n"]}}


def _row(row: dict[str, Any], where: str) -> dict[str, Any]:
    """question, choices and the place of the right one; or question and answer. Raises InputError naming what is missing."""
    question = _text(row, QUESTIONS, where, "a question")
    choices = next((row[c] for c in CHOICES if row.get(c) is not None), None)
    if choices is None:
        return {"question": question, "answer": _text(row, ANSWERS, where, "an answer")}
    if not (isinstance(choices, list) and len(choices) > 1 and all(isinstance(c, str) and c.strip() for c in choices)):
        raise InputError("choices that are no list of two texts or more", where=where, found=json.dumps(choices)[:80])
    if len(set(choices)) < len(choices):
        raise InputError("two choices are alike", where=where, found=json.dumps(choices, ensure_ascii=False)[:80])
    answer = next((row[c] for c in ANSWERS if row.get(c) is not None), None)
    return {"question": question, "choices": choices, "answer": _place(answer, choices, where)}


def _text(row: dict[str, Any], names: Sequence[str], where: str, what: str) -> str:
    value = next((row[n] for n in names if row.get(n) is not None), None)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"the row has not {what}", where=where, found=f"columns {', '.join(row) or 'none'}",
                         expected=f"text in one of {', '.join(names)}")
    return value.strip()


def _place(answer: Any, choices: Sequence[str], where: str) -> int:
    """The place of the right choice, from 0: given as such, as a letter, or as the choice itself."""
    if isinstance(answer, str) and answer in choices:
        return list(choices).index(answer)
    if isinstance(answer, str) and len(answer) == 1 and answer.upper().isascii() and answer.isalpha():
        answer = ord(answer.upper()) - ord("A")
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(choices):
        return answer
    raise InputError("the answer is none of the choices", where=where, found=json.dumps(answer, ensure_ascii=False)[:60],
                     expected=f"0 to {len(choices) - 1}, A to {chr(64 + len(choices))}, or one of the choices")
