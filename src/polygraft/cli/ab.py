"""The verbs `ab write` and `ab read`: a blind comparison of two models' answers by people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from polygraft.cli.recipes import JSON

if TYPE_CHECKING:
    from polygraft.evals.governance.sheet import Pair
    from polygraft.evals.verdicts.folders import Evaluated


@click.command()
@click.argument("a", metavar="FOLDER[#MODEL]")
@click.argument("b", metavar="FOLDER[#MODEL]")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="SHEET.csv",
              help="The sheet; its key goes to SHEET.key.json.")
@click.option("--task", "tasks", multiple=True, metavar="TASK",
              help="Only this task's answers (repeatable; default: all that were written).")
@click.option("--limit", type=click.IntRange(min=1), metavar="N",
              help="At most N questions of each task and language, drawn by the seed.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Seed of the order, the sides and --limit.")
def write(a: str, b: str, out: Path, tasks: tuple[str, ...], limit: int | None, seed: int) -> int:
    """Write the answers of two models to the same questions side by side, without names, for a person to choose from.

    A and B are what `polygraft eval --out` wrote (FOLDER#MODEL where it has several models). The key says which side was whose:
    keep it away from whoever fills in the sheet."""
    from polygraft.cli.compare import labels, read
    from polygraft.errors import RecipeError
    from polygraft.evals.governance import sheet
    from polygraft.files import write_atomic, write_json

    key_path = out.with_suffix(".key.json")
    for path in (out, key_path):
        if path.exists():
            raise RecipeError("there is a file of this name already, and it may hold choices", where=path, fix="name another --out")
    models = [read(word, one=True)[0] for word in (a, b)]
    pairs = paired(*models, tasks=tasks, limit=limit, seed=seed)
    names = labels(models)
    text, key = sheet.make(pairs, (names[0], names[1]), seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(key_path, key)
    write_atomic(out, text.encode("utf-8-sig", "replace"))  # the mark tells spreadsheets that it is UTF-8
    click.echo(f"{len(key['rows'])} questions in {out}; {len(key['same'])} more were answered alike and count as ties.\n"
               f"Fill in the last column (left, right or tie), then: polygraft ab read {out} --key {key_path}")
    return 0


@click.command(name="read")
@click.argument("filled", metavar="SHEET.csv", type=click.Path(path_type=Path))
@click.option("--key", type=click.Path(path_type=Path), metavar="FILE", help="The key (default: SHEET.key.json beside the sheet).")
@JSON
def read_(filled: Path, key: Path | None, as_json: bool) -> int:
    """Read a filled sheet: wins, ties and losses per language, with exact sign tests."""
    from polygraft.cli import show
    from polygraft.errors import InputError
    from polygraft.evals.governance import preferred, sheet
    from polygraft.files import read_json

    key_path = key or filled.with_suffix(".key.json")
    for path, what in ((filled, "the sheet"), (key_path, "the key")):
        if not path.is_file():
            raise InputError(f"{what} is not here", where=path, fix="name the files that `polygraft ab write` wrote")
    kept = read_json(key_path)
    judged = sheet.read(filled.read_bytes(), kept, filled)
    show.result(preferred.result(judged, (kept["a"], kept["b"])), as_json)
    return 0


def paired(a: Evaluated, b: Evaluated, *, tasks: tuple[str, ...], limit: int | None, seed: int) -> list[Pair]:
    """The written answers of two models to the same questions. Raises InputError where there are none, and names the tasks."""
    from polygraft.errors import InputError, RecipeError, suggestion
    from polygraft.evals.governance.sheet import Pair
    from polygraft.evals.records import chosen
    from polygraft.evals.verdicts.folders import aligned

    written = [k for k, rows in a.records.items() if k in b.records and all("output" in r for r in rows)]
    known = {name for task, _ in written for name in (task, task.partition("@")[0])}
    if unknown := [t for t in tasks if t not in known]:
        raise RecipeError("no written answers of this task in both evaluations", found=unknown[0],
                          fix=suggestion(unknown[0], known))
    out = []
    for task, language in written:
        if tasks and not {task, task.partition("@")[0]} & set(tasks):
            continue
        rows, _ = aligned({"a": a.records[task, language], "b": b.records[task, language]})
        ids = [str(r["id"]) for r in rows["a"]]
        for i in chosen(ids, limit or len(ids), seed):
            one, other = rows["a"][i], rows["b"][i]
            out.append(Pair(task, language, ids[i], str(one.get("prompt", "")), str(one["output"]), str(other["output"])))
    if not out:
        raise InputError("no written answers to the same questions", where=f"{a.folder} and {b.folder}",
                         expected="a task that is answered in writing, such as open-prompts, in both", fix="evaluate both with one")
    return out
