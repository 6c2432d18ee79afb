"""From rows to items: templates rendered, right answers found, and everything that cannot be an item refused by its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from polygraft.errors import InputError, RecipeError
from polygraft.evals import metrics
from polygraft.evals.items import Item, Response
from polygraft.evals.tasks.rows import Row
from polygraft.evals.tasks.schema import Task
from polygraft.evals.tasks.templates import BARE, columns, render, value

LONGEST_ANSWER = 100_000  # characters of a choice or a gold; nothing that a model is asked to write is longer


def build(task: Task, language: str, rows: Iterable[tuple[int, Row]]) -> list[Item]:
    """One item a row; rows come with their numbers. Raises InputError for a row that is no item, or an id given twice."""
    words = task.words_of(language)
    out: list[Item] = []
    seen: dict[str, str] = {}
    checks = [m.fault for m in map(metrics.get, task.metrics) if m.fault is not None]
    for number, row in rows:
        item = _item(task, row, words, f"{language}-{number:04d}")
        if item.id in seen:
            raise InputError("two rows have one id", where=row.where, found=item.id, expected=f"another id than {seen[item.id]}",
                             fix="make `id:` name a column that differs, or leave it out")
        for wrong in filter(None, (check(item) for check in checks)):
            found = ", ".join(item.golds)[:80] or "nothing"
            raise InputError("the right answer is not of the kind that the metric reads", where=row.where, found=found,
                             expected=wrong, fix="mend the row, or choose another metric")
        if not out:
            _tried(task, item)
        seen[item.id] = row.where
        out.append(item)
    return out


def _tried(task: Task, item: Item) -> None:
    """Score made-up answers: a metric that cannot read this kind of answer says so before a model is asked.

    Raises RecipeError naming it.
    """
    n, kind = len(item.choices), "written answers" if task.written else "choices"
    wrong = Response(tuple(-1e9 if i == item.target else -1.0 - i / 8 for i in range(n)), (False,) * n)
    right = Response(tuple(-1e-9 if i == item.target else -1.0 - i / 8 for i in range(n)), (True,) * n)
    turned = [Response(tuple(-1.0 - (i + k) % n for i in range(n)), (False,) * n) for k in range(min(n, 8))]
    answers = (Response(text=item.golds[0] if item.golds else "text"),) if task.written else (wrong, right, *turned)
    for name in task.metrics:
        try:
            scored = [list(metrics.get(name).score(item, a)) for a in answers]
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as e:
            raise RecipeError(f"the metric `{name}` cannot score the {kind} of this task", where=task.name,
                              found=f"{type(e).__name__}: {e}", expected="a metric of " + kind,
                              fix="choose another in `metrics:`, or give it what it needs in `extra:`") from e
        if len(scored) > 1 and not item.extra and all(s == scored[0] for s in scored):  # with extra, a first row may be one of ties
            raise RecipeError(f"the metric `{name}` cannot score the choices of this task", where=task.name,
                              found="the same score for any answer", expected="a metric of choices", fix="choose another")


def worked(task: Task, language: str, rows: Iterable[Row]) -> tuple[tuple[str, str], ...]:
    """(asked, answered) of each row as a worked example."""
    words = task.words_of(language)
    out = []
    for row in rows:
        fields = _fields(row, words)
        asked = _text(task.doc_to_text, fields, row, "doc_to_text")
        if task.written and task.doc_to_target:
            out.append((asked, render(task.doc_to_target, fields, row.where, name="doc_to_target")))
        else:
            item = _item(task, row, words, "")
            out.append((asked, item.golds[0] if task.written else item.choices[item.target]))
    return tuple(out)


def blocks(task: Task, rows: Sequence[Row], shots: int) -> dict[str, list[Row]]:
    """The first `shots` rows, or those of each value of the field that an example must share with its question (`same:`)."""
    out: dict[str, list[Row]] = {}
    for row in rows:
        block = out.setdefault(share(task, row), [])
        if len(block) < shots:
            block.append(row)
    return out


def share(task: Task, row: Row) -> str:
    """What the row's worked examples share with it, "" where all rows have the same examples."""
    name = (task.examples or task.source).same
    return _text(name, row.fields, row, "same") if name else ""


def _fields(row: Row, words: Mapping[str, Any]) -> dict[str, Any]:
    return {**row.fields, "w": words, "language": words["language"]}


def _item(task: Task, row: Row, words: Mapping[str, Any], id: str) -> Item:
    fields = _fields(row, words)

    def text(template: str, name: str) -> str:
        return _text(template, fields, row, name)

    asked = [str(row.fields[c]) for c in columns(task.doc_to_text) if c in row.fields]
    if asked and not any(a.strip() for a in asked):
        raise InputError("the question is empty", where=row.where, found=", ".join(sorted(columns(task.doc_to_text))) + ": nothing",
                         expected="text", fix="mend or remove the row")
    choices = _several(task.doc_to_choice, fields, row, "doc_to_choice")
    target = 0 if task.written else _target(task, choices, fields, row)
    if task.folder and not task.written and choices.count(choices[target]) > 1:  # published data stay as they are: never right
        raise InputError("another choice is the right one word for word: a tie, which nobody can win", where=row.where,
                         found=f"{choices[target]!r} {choices.count(choices[target])} times"[:120], expected="choices that differ",
                         fix="mend or remove the row")
    return Item(
        text(task.id, "id") if task.id else id, words["language"], text(task.doc_to_text, "doc_to_text"), choices,
        target, _several(task.golds, fields, row, "golds"),
        stratum=text(task.stratum, "stratum") if task.stratum else "", group=text(task.group, "group") if task.group else "",
        headline=text(task.description, "description") if task.description else "",
        extra={k: value(v, fields, row.where, name=f"extra.{k}") for k, v in task.extra.items()})


def _text(template: str, fields: Mapping[str, Any], row: Row, name: str) -> str:
    """A rendered template, or a bare column's text."""
    if BARE.match(template) and template in fields:
        template = "{{ " + template + " }}"
    return _readable(render(template, fields, row.where, name=name), row, name)


def _readable(text: str, row: Row, name: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as e:
        raise InputError(f"`{name}` holds half of a character", where=row.where, expected="text that UTF-8 can hold",
                         found=f"U+{ord(text[e.start]):04X} (a lone surrogate)", fix="mend the row") from e
    return text


def _several(given: Sequence[str] | str, fields: Mapping[str, Any], row: Row, name: str) -> tuple[str, ...]:
    """Choices or golds: templates, one template, or the list in a column. In a list "A" is a letter, whatever the columns."""
    found = value(given, fields, row.where, name=name) if isinstance(given, str) else [
        render(t, fields, row.where, name=f"{name}[{i}]") for i, t in enumerate(given)]
    if not isinstance(given, str) and not given:
        return ()
    texts = list(found) if isinstance(found, list | tuple) else [found]
    wrong = next((t for t in texts if not isinstance(t, str | int | float) or isinstance(t, bool)), None)
    if not texts or wrong is not None:
        raise InputError(f"`{name}` is not text", where=row.where, found="an empty list" if not texts else type(wrong).__name__,
                         expected="text, a number, or a list of them", fix="mend the row")
    texts = [_readable(str(int(t)) if isinstance(t, float) and t.is_integer() else str(t), row, name) for t in texts]
    if name == "doc_to_choice" and (len(texts) < (2 if isinstance(given, str) else 1) or not all(texts)):
        raise InputError("the choices are not two or more texts", where=row.where, found=str(texts)[:80],
                         expected="at least two, none empty", fix="mend the row")
    if name == "golds" and not any(t.strip() for t in texts):
        raise InputError("the right answer is empty", where=row.where, expected="text", fix="mend or remove the row")
    if long := [t for t in texts if len(t) > LONGEST_ANSWER]:
        raise InputError(f"`{name}` is too long for an answer", where=row.where, found=f"{len(long[0]):,} characters",
                         expected=f"at most {LONGEST_ANSWER:,}", fix="mend or remove the row")
    return tuple(texts)


def _target(task: Task, choices: Sequence[str], fields: Mapping[str, Any], row: Row) -> int:
    found = _text(task.doc_to_target, fields, row, "doc_to_target").strip()
    if task.labels:
        if found not in task.labels:
            raise InputError("the right answer is not one of the labels", where=row.where, found=found[:80] or "nothing",
                             expected="one of " + ", ".join(task.labels), fix="mend the row, or add it to `labels:`")
        place = task.labels[found]
    elif found.isascii() and found.isdecimal():
        place = int(found)
    else:
        raise InputError("the right answer is not the place of a choice", where=row.where, found=found[:80] or "nothing",
                         expected=f"a whole number from 0 to {len(choices) - 1}",
                         fix="map what the data says to places with `labels:`")
    if not 0 <= place < len(choices):
        raise InputError("the right answer is none of the choices", where=row.where, found=str(place),
                         expected=f"from 0 to {len(choices) - 1}",
                         fix="mend the row; does the data count from 1? then use `labels:`")
    return place
