"""The verbs that work on recipes and on what they leave: plan, run, report, verify."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

RECIPE = click.argument("recipe", type=click.Path(path_type=Path))
SET = click.option("--set", "sets", multiple=True, metavar="A.B=VALUE", help="Change a value: `steps.swap.bottom=6`. Repeatable.")
ROOT = click.option("--root", default="runs", type=click.Path(path_type=Path), show_default=True, help="Where run folders live.")
OFFLINE = click.option("--offline", is_flag=True, help="Never touch the network: hub models must be in the cache.")
LANG = click.option("--lang", default="en", show_default=True, type=click.Choice(["en", "ja"]), help="Language of the report.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


@click.command()
@RECIPE
@SET
@ROOT
@OFFLINE
@JSON
@click.option("--probe", is_flag=True, help="Do a few steps of each training on this machine to measure time and memory.")
@click.option("--resolved", is_flag=True, help="Print the recipe with every default written out, and stop.")
def plan(recipe: Path, sets: tuple[str, ...], root: Path, offline: bool, as_json: bool, probe: bool, resolved: bool) -> int:
    """Say what RECIPE will do, what it needs, what is done already, and every reason why it would fail. Reads headers only."""
    from polygraft import recipe as engine
    from polygraft.planning import raise_all
    from polygraft.steps import TABLE

    read = engine.read_recipe(recipe, TABLE, sets)
    if resolved:
        click.echo(engine.resolved(read), nl=False)
        return 0
    planned = engine.plan(read, root, offline=offline, probe=probe)
    if as_json:
        click.echo(json.dumps(plan_json(planned), indent=1, ensure_ascii=False))
    else:
        show_plan(planned)
    raise_all(planned.errors)
    return 0


def show_plan(planned: Any) -> None:
    """The plan of a recipe, step by step, then the totals."""
    from polygraft.cli import show
    from polygraft.planning import LATER
    from polygraft.report.numbers import duration, size

    if planned.recipe.question:
        click.echo(planned.recipe.question + "\n")
    for i, step in enumerate(planned.steps, 1):
        state = "done already" if step.cached else step.why
        show.plan(step.plan, f"{i}. {step.id} ({step.use}): {state}")
    for note in planned.notes:
        click.echo(note)
    todo = sum(not s.cached for s in planned.steps)
    later = sum(not s.cached and any(n.startswith(LATER) for n in s.plan.notes) for s in planned.steps)
    if planned.errors and not planned.seconds:
        click.echo(f"\n{todo} of {len(planned.steps)} steps to do in {planned.folder}; needs are told when these are mended")
        return
    click.echo(f"\n{todo} of {len(planned.steps)} steps to do in {planned.folder}: about {duration(planned.seconds)}, peak memory "
               f"{size(planned.peak_bytes)}, disk {size(planned.disk_bytes)}, reads {size(planned.read_bytes)}"
               + (f", downloads {size(planned.download_bytes)}" if planned.download_bytes else "")
               + (f", and what {later} of them need that can be planned only later" if later else ""))


def plan_json(planned: Any) -> dict[str, Any]:
    """The same as a JSON value."""
    from polygraft.result import encode

    steps = [{"id": s.id, "use": s.use, "key": s.key, "cached": s.cached, "why": s.why, "lines": list(s.plan.lines),
              "notes": list(s.plan.notes), "peak_bytes": s.plan.peak_bytes, "disk_bytes": s.plan.disk_bytes,
              "read_bytes": s.plan.read_bytes, "seconds": s.plan.seconds, "maps": encode(s.plan.maps)} for s in planned.steps]
    return {"recipe": planned.recipe.name, "folder": str(planned.folder), "steps": steps, "peak_bytes": planned.peak_bytes,
            "disk_bytes": planned.disk_bytes, "read_bytes": planned.read_bytes, "seconds": planned.seconds,
            "downloads": planned.downloads,
            "problems": [str(e) for e in planned.errors]}


@click.command()
@RECIPE
@SET
@ROOT
@OFFLINE
@LANG
@JSON
def run(recipe: Path, sets: tuple[str, ...], root: Path, offline: bool, lang: str, as_json: bool) -> int:
    """Do what RECIPE says and write its report. The same command again resumes, and skips what is unchanged."""
    from polygraft import recipe as engine
    from polygraft.steps import TABLE

    run_recipe(engine.read_recipe(recipe, TABLE, sets), root, offline=offline, as_json=as_json, lang=lang)
    return 0


def run_recipe(read: Any, root: Path, *, offline: bool, as_json: bool, lang: str = "en") -> Path:
    """Run a recipe with progress, write and name its report in `lang`; the results are printed. Returns the report's path."""
    from polygraft import recipe as engine
    from polygraft.cli import show
    from polygraft.cli.progress import telling
    from polygraft.cli.verb import refuse_unmet
    from polygraft.report import write

    with telling() as tell:
        done = engine.run(read, root, offline=offline, tell=tell)
    path = write(done.folder, lang)
    if as_json:
        results = [r.to_json() for r in done.results]
        click.echo(json.dumps({"folder": str(done.folder), "report": str(path), "ran": done.ran, "skipped": done.skipped,
                               "results": results}, ensure_ascii=False, indent=1))
    else:
        told: set[str] = set()
        for r in done.results:
            show.headline(r, told)
        click.echo(f"\nreport: {path}")
    refuse_unmet(done.results)
    return path


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@LANG
def report(folder: Path, lang: str) -> int:
    """Write the report of a run folder again, from the results that its steps left."""
    from polygraft.report import write

    click.echo(f"report: {write(folder, lang)}")
    return 0


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@JSON
def verify(folder: Path, as_json: bool) -> int:
    """Compare DIR (a model, a step or a whole run) with its manifest. Exits 3 if anything is missing, extra or altered."""
    from polygraft.errors import InputError
    from polygraft.files import MANIFEST, verify_folder
    from polygraft.store import verify_run

    run_folder = not (folder / MANIFEST).is_file() and (folder / "steps").is_dir()
    problems = verify_run(folder) if run_folder else verify_folder(folder)
    if as_json:
        click.echo(json.dumps({"folder": str(folder), "problems": [{"file": p.file, "what": p.what} for p in problems]}, indent=1))
    elif not problems:
        click.echo(f"{folder}: every file is what its manifest says")
    if problems:
        lines = "\n".join(f"  {p.file}: {p.what}" for p in problems)
        raise InputError(f"{len(problems)} {'file differs' if len(problems) == 1 else 'files differ'} from the manifest\n{lines}",
                         where=folder, fix="make it again with the command that made it, or restore the files")
    return 0
