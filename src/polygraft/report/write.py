"""A run folder's report: read what its steps left, write `report.html` and, for tables too long for a page, CSV files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from polygraft.errors import InputError, UserError
from polygraft.files import MANIFEST, read_json, resource_errors, write_atomic
from polygraft.report.html import page
from polygraft.report.views import Meta
from polygraft.result import Result
from polygraft.store import RunFolder, read_result
from polygraft.yamltext import parse_document

NAME = "report.html"
ANSWER = "answer.json"  # what came of the whole run, told by who ran it: a Result that goes above those of the steps
CSV_FOLDER = "report-tables"


def write(run_folder: Path, language: str = "en") -> Path:
    """Write the report of a run as it is now, in one of `strings.LANGUAGES`; also while it runs: steps without a result are named
    as missing.

    Raises InputError where the folder is not a run or a result cannot be read, ResourceError where it cannot be written.
    """
    run = RunFolder(Path(run_folder))
    folders = run.folders()
    results = [read_result(f) for f in folders]
    meta = replace(describe(run.path, [r.id for r in results], folders), language=language)
    text, tables = page([*results, *answer(run.path)], meta)
    for name, csv in tables.items():
        with resource_errors(run.path):
            (run.path / CSV_FOLDER).mkdir(exist_ok=True)
        write_atomic(run.path / CSV_FOLDER / name, csv.encode())
    write_atomic(run.path / NAME, text.encode())
    return run.path / NAME


def answer(path: Path) -> list[Result]:
    """What came of the whole run, where it says so. Raises InputError for a file that is no result."""
    if not (path / ANSWER).is_file():
        return []
    try:
        return [Result.from_json(read_json(path / ANSWER))]
    except (TypeError, KeyError, AttributeError) as e:
        raise InputError("not a result", where=path / ANSWER, found=str(e)[:120]) from e


def describe(path: Path, ids: list[str], folders: list[Path]) -> Meta:
    """What the run folder says about itself: recipe, versions, times, and which steps have no result yet."""
    index = read_json(path / "run.json")
    recipe = read_text(path / "recipe.yaml")
    manifests = [read_json(f / MANIFEST) for f in folders]
    versions: dict[str, str] = {}
    for m in manifests:
        versions |= {str(k): str(v) for k, v in (m.get("versions") or {}).items()}
    name, question = said(recipe)
    return Meta(name=name or path.absolute().name, question=question, recipe=recipe, versions=versions,
                started=first(manifests, "started", min), finished=first(manifests, "finished", max),
                folders={i: f"steps/{f.name}" for i, f in zip(ids, folders)},
                missing=tuple(row["id"] for row in index["steps"] if row["id"] not in ids), csv_folder=CSV_FOLDER)


def first(manifests: list[dict[str, Any]], key: str, pick: Any) -> str:
    """The earliest or latest time among the steps' manifests."""
    return pick([str(m[key]) for m in manifests if m.get(key)], default="")


def read_text(path: Path) -> str:
    """A text file, or "" where there is none; bytes that are not UTF-8 become replacement characters."""
    try:
        return path.read_bytes().decode("utf-8", "replace") if path.is_file() else ""
    except OSError as e:
        raise InputError("cannot be read", where=path, found=e.strerror, fix="check its permissions") from e


def said(recipe: str) -> tuple[str, str]:
    """The name and the question of a recipe; empty where the text cannot be read, which is no reason to have no report."""
    try:
        top = parse_document(recipe, "recipe.yaml").tree
    except UserError:
        return "", ""
    return (str(top.get("name") or ""), str(top.get("question") or "")) if isinstance(top, dict) else ("", "")
