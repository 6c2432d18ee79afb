"""Results and plans as a terminal shows them."""

from __future__ import annotations

import json
from typing import Any

import click

from polygraft.result import Cell, Estimate, Result, Table


def size(n: float) -> str:
    """1,234,567 bytes as `1.2 MB` (decimal units, as disks are sold)."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(n) < 1000:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


def duration(seconds: float) -> str:
    """Seconds as a person says them: `0.4 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {s} s"


def cell(value: Cell) -> str:
    """One table cell: an estimate with its interval and verdict, numbers to four figures."""
    if value is None:
        return "-"
    if isinstance(value, Estimate):
        text = f"{number(value.value)}{value.unit}"
        if value.low is not None and value.high is not None:
            text += f" [{number(value.low)}, {number(value.high)}]"
        return f"{text} {value.verdict}".rstrip()
    return number(value) if isinstance(value, float) else str(value)


def number(x: float) -> str:
    return f"{x:.4g}" if abs(x) < 1e5 else f"{x:,.0f}"


def printable(text: str) -> str:
    """Without control characters: model output and file names must not drive the terminal."""
    return "".join(c if c in "\n\t" or (ord(c) >= 32 and not 0x7F <= ord(c) < 0xA0 and c not in BIDI) else "\N{REPLACEMENT CHARACTER}" for c in text)


BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def table(t: Table) -> None:
    """Print a table, at most 60 rows of it."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(title=printable(t.title), box=SIMPLE, title_justify="left", title_style="bold")
    for i, name in enumerate(t.columns):
        grid.add_column(Text(printable(name)), justify="left" if i == 0 else "right")
    for row in t.rows[:60]:
        grid.add_row(*(Text(printable(cell(c))) for c in row))
    Console().print(grid)
    if len(t.rows) > 60:
        click.echo(f"  ... {len(t.rows) - 60} more rows; --json has them all")
    if t.note:
        click.echo(f"  {printable(t.note)}\n")


def result(r: Result, as_json: bool) -> None:
    """Print a result: sentences, tables, layer maps, caveats, cost; or the whole value as JSON."""
    if as_json:
        click.echo(json.dumps(r.to_json(), ensure_ascii=False, indent=1))
        return
    from polygraft.report import layermap

    for line in r.summary:
        click.echo(printable(line))
    for t in r.tables:
        table(t)
    for m in r.maps:
        click.echo(layermap.text(m) + "\n")
    for line in r.caveats:
        click.echo(click.style("note: ", bold=True) + printable(line))
    if r.cost.seconds:
        click.echo(f"{duration(r.cost.seconds)}, peak memory {size(r.cost.peak_bytes)}"
                   + (f", read {size(r.cost.read_bytes)}, wrote {size(r.cost.written_bytes)}" if r.cost.written_bytes else ""))


def plan(p: Any, title: str = "") -> None:
    """Print what one step would do, need and fail at."""
    from polygraft.report import layermap

    if title:
        click.echo(click.style(title, bold=True))
    for line in p.lines:
        click.echo(f"  {printable(line)}")
    for m in p.maps:
        click.echo("\n".join("  " + x for x in layermap.text(m).splitlines()))
    needs = [f"memory {size(p.peak_bytes)}" if p.peak_bytes else "", f"disk {size(p.disk_bytes)}" if p.disk_bytes else "",
             f"reads {size(p.read_bytes)}" if p.read_bytes else "", f"about {duration(p.seconds)}" if p.seconds else ""]
    if any(needs):
        click.echo("  needs: " + ", ".join(n for n in needs if n))
    for line in p.notes:
        click.echo(f"  note: {printable(line)}")
    for line in p.problems:
        click.echo(click.style("  problem: ", fg="red") + printable(line).replace("\n", "\n    "))
