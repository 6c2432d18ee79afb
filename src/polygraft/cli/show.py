"""Results and plans as a terminal shows them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from polygraft.report.escape import clean
from polygraft.report.numbers import duration, fixed, number, size, spread
from polygraft.result import Cell, Estimate, Result, Table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as Grid

ROWS = 60  # of a table that a terminal shows
PROSE = 60  # a cell of more characters is text, which begins at the left
CAVEATS = 5  # of one part of a run
MAPS = 3  # layer maps that a terminal shows of one result


def cell(value: Cell) -> str:
    """One table cell: an estimate with its interval and verdict, other numbers to a few digits."""
    if isinstance(value, Estimate):
        places = spread(value.value, value.low, value.high)
        text = f"{fixed(value.value, places)}{value.unit if value.unit in ('', '%') else ' ' + value.unit}"
        if value.low is not None and value.high is not None:
            text += f" [{fixed(value.low, places)}, {fixed(value.high, places)}]"
        return f"{text} {value.verdict}".rstrip()
    return clean(value) if isinstance(value, str) else number(value)


def table(t: Table) -> None:
    """Print a table, at most 60 rows of it; one that is too wide for the terminal is printed on its side, in pieces."""
    from rich.console import Console

    console = Console()
    rows = [[cell(c) for c in row] for row in t.rows[:ROWS]]
    whole = grid(t.title, [t.columns, *rows])
    if fits(whole, console) or len(t.columns) < 3:
        console.print(whole)
    else:
        title = t.title
        while rows:
            k = next((k for k in range(len(rows), 1, -1) if fits(grid("", aside(t, rows[:k])), console)), 1)
            console.print(grid(title, aside(t, rows[:k])))
            rows, title = rows[k:], ""
    if len(t.rows) > ROWS:
        click.echo(f"  ... {len(t.rows) - ROWS} more rows; --json has them all")
    if t.note:
        click.echo(f"  {clean(t.note)}\n")


def aside(t: Table, rows: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """Heads and rows of a table with rows as columns."""
    return list(zip(t.columns, *rows))


def grid(title: str, lines: Sequence[Sequence[str]]) -> Grid:
    """A table for the terminal: its heads, then its rows. Lines break between words."""
    from rich.box import SIMPLE
    from rich.table import Table as Grid
    from rich.text import Text

    heads, *rows = lines
    out = Grid(title=clean(title) or None, box=SIMPLE, title_justify="left", title_style="bold")
    for i, name in enumerate(heads):
        prose = any(len(row[i]) > PROSE for row in rows)
        out.add_column(Text(clean(name)), justify="left" if i == 0 or prose else "right", overflow="fold")
    for row in rows:
        out.add_row(*map(Text, row))
    return out


def fits(drawn: Grid, console: Console) -> bool:
    """Whether the terminal is wide enough for every word of a table."""
    from rich.measure import Measurement

    return Measurement.get(console, console.options.update(max_width=10_000), drawn).minimum <= console.width


def result(r: Result, as_json: bool) -> None:
    """Print a result: sentences, tables, layer maps, caveats, cost; or the whole value as JSON."""
    if as_json:
        click.echo(json.dumps(r.to_json(), ensure_ascii=False, indent=1))
        return
    from polygraft.report import layermap

    for line in r.summary:
        click.echo(clean(line))
    for t in r.tables:
        table(t)
    for m in r.maps[:MAPS]:
        click.echo(layermap.text(m) + "\n")
    if len(r.maps) > MAPS:
        rest = "; ".join(clean(m.title) for m in r.maps[MAPS:])
        click.echo(f"more layer maps, with --json or in a recipe's report: {rest}")
    for line in r.caveats:
        click.echo(click.style("note: ", bold=True) + clean(line))
    if r.cost.seconds:
        click.echo(f"{duration(r.cost.seconds)}, peak memory {size(r.cost.peak_bytes)}"
                   + (f", read {size(r.cost.read_bytes)}, wrote {size(r.cost.written_bytes)}" if r.cost.written_bytes else ""))


def headline(r: Result, told: set[str]) -> None:
    """A result as one part of a run: its title, sentences, tables and caveats, but those `told` before; the report has the rest."""
    click.echo("\n" + click.style(clean(r.title or r.id), bold=True))
    for line in r.summary:
        click.echo("  " + clean(line))
    for t in r.tables:
        if len(t.rows) <= 16:
            table(t)
    new = [line for line in r.caveats if line not in told]
    told.update(new)
    for line in new[:CAVEATS]:
        click.echo(click.style("  note: ", bold=True) + clean(line))
    if len(new) > CAVEATS:
        click.echo(f"  {len(new) - CAVEATS} more notes are in the report")


def plan(p: Any, title: str = "") -> None:
    """Print what one step would do and need; the verb then raises whatever it would fail at."""
    from polygraft.report import layermap

    if title:
        click.echo(click.style(title, bold=True))
    for line in p.lines:
        click.echo(f"  {clean(line)}")
    for m in p.maps:
        click.echo("\n".join("  " + x for x in layermap.text(m).splitlines()))
    needs = [f"memory {size(p.peak_bytes)}" if p.peak_bytes else "", f"disk {size(p.disk_bytes)}" if p.disk_bytes else "",
             f"reads {size(p.read_bytes)}" if p.read_bytes else "", f"about {duration(p.seconds)}" if p.seconds else ""]
    if any(needs):
        click.echo("  needs: " + ", ".join(n for n in needs if n))
    for line in p.notes:
        click.echo(f"  note: {clean(line)}")
