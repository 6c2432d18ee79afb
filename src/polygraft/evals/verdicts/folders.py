"""Finished evaluations read again: records from their folders, lined up item by item."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from polygraft.errors import InputError, suggestion
from polygraft.evals.findings import Asked
from polygraft.evals.verdicts import suites as suite_results
from polygraft.files import MANIFEST, plain_name, read_json, verify_folder

Row = dict[str, Any]
Key = tuple[str, str]  # (task@version, language)
KEYS = ("file", "task", "language", "model")


@dataclass(frozen=True)
class Evaluated:
    """One model of one evaluation: its label there, its records by task and language, and the suites and tasks asked for."""

    folder: Path
    label: str
    records: dict[Key, list[Row]]
    suites: tuple[suite_results.Composition, ...] = ()
    named: tuple[str, ...] = ()


def read_evaluation(folder: Path) -> list[Evaluated]:
    """Every model of a finished evaluation's folder. Raises InputError where it is none, or was altered."""
    folder = Path(folder)
    if not (folder / MANIFEST).is_file() or not (folder / "result.json").is_file():
        raise InputError("not a finished evaluation", where=folder, expected="what `polygraft eval --out` writes",
                         fix="name the folder of an evaluation, or a run that has one")
    if problems := verify_folder(folder):
        raise InputError(f"a file is not what its manifest says: {problems[0].file}: {problems[0].what}", where=folder,
                         fix="evaluate again")
    data = data_of(folder)
    groups = suite_results.from_data(data.get("suites", []), folder / "result.json")
    settings = data.get("settings")
    named = settings.get("tasks") if isinstance(settings, dict) else None
    found: dict[str, dict[Key, list[Row]]] = {}
    for row in index(data, folder):
        records = read_records(plain_name(folder / "samples", row["file"].removeprefix("samples/"), ".jsonl"))
        found.setdefault(str(row["model"]), {})[str(row["task"]), str(row["language"])] = records
    return [Evaluated(folder, label, records, groups, tuple(map(str, named or ()))) for label, records in found.items()]


def data_of(folder: Path) -> dict[str, Any]:
    """The `data` of an evaluation's result."""
    result = read_json(folder / "result.json")
    step = str(result.get("step", "")) if isinstance(result, dict) else ""
    if not step.startswith("eval@"):
        raise InputError("not the result of an evaluation", where=folder, found=step[:80] or "no step", fix="name an evaluation")
    return result["data"] if isinstance(result.get("data"), dict) else {}


def index(data: Mapping[str, Any], folder: Path) -> list[dict[str, str]]:
    """Which file holds whose records of what: {file, task, language, model}."""
    rows = data.get("records")
    if not isinstance(rows, list) or not rows or not all(
            isinstance(r, dict) and all(isinstance(r.get(k), str) for k in KEYS) for r in rows):
        raise InputError("the evaluation does not say which records it has", where=folder / "result.json",
                         fix="it was made by another version of polygraft: evaluate again")
    return rows


def pick(models: Sequence[Evaluated], label: str) -> Evaluated:
    """The model of this label. Raises InputError with the nearest labels."""
    for model in models:
        if model.label == label:
            return model
    raise InputError(f"no model `{label}`", where=models[0].folder, fix=suggestion(label, [m.label for m in models]))


def read_records(path: Path) -> list[Row]:
    """The records of one file, one a line. Raises InputError naming the line that is not one."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as e:
        raise InputError("cannot be read", where=path, found=e.strerror) from e
    rows: list[Row] = []
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("scores"), dict) or not {"id", "prompt_sha256_16"} <= set(row):
            raise InputError("not a record", where=f"{path}:{number}", expected="a JSON object with id, prompt_sha256_16, scores")
        if str(row["id"]) in seen:
            raise InputError("two records of one item", where=f"{path}:{number}", found=str(row["id"])[:80])
        seen.add(str(row["id"]))
        rows.append(row)
    return rows


# ------------------------------------------------------------------------------------------------------------- pairing


def shared(models: Mapping[str, Evaluated], reference: str) -> tuple[list[Asked], list[str]]:
    """The records of every task and language on the items that all its models share, and what was left out, in sentences.

    Items are the same where task@version, language, id and the hash of what was sent agree. Where only the template or the worked
    examples differ, but the question, the choices, the gold and the number of examples are the same, items are still paired and it
    is said. Raises InputError where a model shares nothing with the reference.
    """
    found: list[Asked] = []
    notes: list[str] = []
    paired: set[str] = set()
    reasons: list[str] = []
    keys = list(dict.fromkeys(k for m in models.values() for k in m.records))
    versions = {task.partition("@")[0]: {t for t, _ in keys if t.partition("@")[0] == task.partition("@")[0]} for task, _ in keys}
    for key in keys:
        task, language = key
        there = {name: m.records[key] for name, m in models.items() if key in m.records}
        if len(there) == 1 and len(models) > 1:
            reasons.append(f"{task} {language} is only in {next(iter(there))}")
            continue
        rows, said = aligned(there)
        (notes if rows[next(iter(rows))] else reasons).extend(f"{task} {language}: {s}" for s in said)
        if not rows[next(iter(rows))]:
            continue
        paired |= there.keys() if reference in there else set()
        bare = task.partition("@")[0]
        found.append(Asked(task if len(versions[bare]) > 1 else bare, language, rows))
    alone = [n for n in models if n not in paired]
    if alone and len(models) > 1:
        other = next((n for n in alone if n != reference), alone[0])
        raise InputError("no item in common with the reference", where=other, found="; ".join(reasons)[:600] or "no records",
                         expected=f"the same tasks, versions, languages, shots and items as {reference}",
                         fix="evaluate both with the same settings")
    return found, notes + reasons


def aligned(rows: Mapping[str, list[Row]]) -> tuple[dict[str, list[Row]], list[str]]:
    """The rows of each model on the items that all have, in the first one's order, and what was left out or differs."""
    strict, loose = common(rows, sent), common(rows, asked)
    kept, said = (strict, []) if len(strict) >= len(loose) else (loose, [
        f"{len(loose) - len(strict)} items were sent in other words to some models (another template, or other worked examples)"])
    most = max(len(r) for r in rows.values())
    if not kept:
        return {name: [] for name in rows}, [why_nothing(rows)]
    if most > len(kept):
        said = [f"{most - len(kept)} of {most} items are left out: not all of {', '.join(rows)} were asked them alike", *said]
    same = sent if kept is strict else asked
    places = {name: {same(r): r for r in found} for name, found in rows.items()}
    return {name: [places[name][k] for k in kept] for name in rows}, said


def common(rows: Mapping[str, list[Row]], same: Callable[[Row], Any]) -> list[Any]:
    """The keys that all models have, in the first one's order."""
    first, *others = [[same(r) for r in found] for found in rows.values()]
    sets = [set(o) for o in others]
    return [k for k in first if k is not None and all(k in s for s in sets)]


def sent(row: Row) -> Any:
    return row["id"], row["prompt_sha256_16"]


def asked(row: Row) -> Any:
    """The question itself; None for records that do not hold it."""
    if "prompt" not in row:
        return None
    return row["id"], row["prompt"], row.get("shots"), json.dumps([row.get("choices"), row.get("gold")])


def field_of(name: str, row: Row) -> Any:
    return row["id"], row.get(name)


def why_nothing(rows: Mapping[str, list[Row]]) -> str:
    """In what the items of models that share none differ."""
    if not common(rows, lambda r: r["id"]):
        return "other item ids"
    for name, what in (("shots", "other numbers of worked examples"), ("prompt", "other questions under the same ids")):
        if not common(rows, partial(field_of, name)):
            values = {m: sorted({str(r.get(name)) for r in found})[:3] for m, found in rows.items()}
            return what + (f" ({', '.join(f'{m}: {v[0]}' for m, v in values.items())})" if name == "shots" else "")
    return "other texts under the same ids"
