"""The verbs that look at models without making anything: inspect and ask."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from polygraft.cli.recipes import JSON, OFFLINE

DTYPE = click.option("--dtype", default="auto", show_default=True, type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
                     help="Type to compute in; auto: the checkpoint's, or float32 where a CPU has no bfloat16.")  # fmt: skip
DEVICE = click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1 ...; auto: a GPU where there is one.")
BASE = click.option("--base", metavar="MODEL", help="What an adapter lies on.")


@click.command()
@click.argument("model")
@click.option("--check", is_flag=True, help="Load it, perturb every tensor and see that the logits change.")
@BASE
@click.option("--rows", type=click.Path(path_type=Path), metavar="FILE", help="YAML list of anatomy rows for unknown tensors.")
@OFFLINE
@JSON
def inspect(model: str, check: bool, base: str | None, rows: Path | None, offline: bool, as_json: bool) -> int:
    """Show MODEL's anatomy: layers, sizes, kinds, tied weights, dtype. MODEL is a folder, org/name[@revision], a .gguf file, an
    adapter folder (with --base) or demo:smollm2. Reads headers only, unless --check."""
    from polygraft import inspection
    from polygraft.cli import show
    from polygraft.cli.progress import telling
    from polygraft.recipe import Event
    from polygraft.sources import resolve

    extra = read_rows(rows) if rows else ()
    source = resolve(model, offline=offline, base=base, headers_only=not check)
    with telling(quiet=as_json or not check) as tell:
        tell(Event("start", f"Perturbing each tensor of {model}", "check", 0, 1))
        def progress(done: float, total: float, text: str = "") -> None:
            tell(Event("progress", text, "check", 0, 1, done, total))

        result = inspection.inspect(source, check=check, extra=extra, progress=progress)
    show.result(result, as_json)
    return 0


def read_rows(path: Path) -> Any:
    """Anatomy rows from a YAML file: a list of {match, kind, role}."""
    from polygraft.errors import RecipeError
    from polygraft.yamltext import read_document

    rows = read_document(path, "custom anatomy file").tree
    if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
        raise RecipeError("not a list of anatomy rows", where=path, expected="- {match: regex, kind: ffn, role: up}")
    return rows


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL... PROMPT")
@BASE
@click.option("--system", metavar="TEXT", help="A system message, for models with a chat template.")
@click.option("--plain", is_flag=True, help="Continue the prompt as it is, without the chat template.")
@click.option("--max-tokens", default=256, show_default=True, type=click.IntRange(1), metavar="N", help="Stop an answer here.")
@DTYPE
@DEVICE
@OFFLINE
@JSON
def ask(models: tuple[str, ...], as_json: bool, **options: Any) -> int:
    """Ask one or more MODELs the PROMPT (the last word, in quotes) and print their greedy answers side by side."""
    from polygraft.ask import ask as put

    if len(models) < 2:
        raise click.UsageError('name at least one model and then the prompt: polygraft ask MODEL "How are you?"')
    answers = put(models[:-1], models[-1], **options)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(a) for a in answers], ensure_ascii=False, indent=1))
    else:
        side_by_side(answers)
    return 0


def side_by_side(answers: list[Any]) -> None:
    """Columns where the terminal is wide enough for them, blocks otherwise."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from polygraft.report.escape import clean
    from polygraft.report.numbers import duration

    console = Console()
    notes = [f"{a.tokens} tokens, {duration(a.seconds)}{'' if a.complete else ', cut off'}" for a in answers]
    if console.width // len(answers) >= 36 and len(answers) > 1:
        grid = Table(show_lines=False, expand=True)
        for a, note in zip(answers, notes):
            grid.add_column(Text(f"{clean(a.model)}\n{note}"), ratio=1)
        grid.add_row(*(Text(clean(a.text)) for a in answers))
        console.print(grid)
        return
    for a, note in zip(answers, notes):
        console.print(Text(f"{clean(a.model)} ({note})", style="bold"))
        console.print(Text(clean(a.text) + "\n"))
