"""News of a run on the terminal: a bar with time left where a person watches, plain lines in a log."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from polygraft.report.escape import one_line
from polygraft.report.numbers import duration

QUIET_SECONDS = 30.0  # a log hears of a long step this often


@contextmanager
def telling(quiet: bool = False) -> Iterator[Any]:
    """A `tell(event)` for `recipe.run`; everything goes to standard error, so that `--json` output stays clean."""
    if quiet:
        yield lambda event: None
    elif sys.stderr.isatty():
        with _bar() as tell:
            yield tell
    else:
        yield _Lines()


class _Lines:
    """One line per start and end, and one every half minute between."""

    def __init__(self) -> None:
        self.said = 0.0

    def __call__(self, event: Any) -> None:
        if event.kind == "progress":
            if event.seconds - self.said < QUIET_SECONDS:
                return
            self.said = event.seconds
            left = ", ".join(filter(None, (f"{100 * event.done / max(event.total, 1e-9):.0f} %", _left(event))))
            click.echo(f"  {left} {one_line(event.text, 60)}", err=True)
            return
        self.said = 0.0
        click.echo(_sentence(event), err=True)


def _left(event: Any) -> str:
    if event.total > 0 and event.done >= event.total:
        return "finishing"  # what is read, scored and written at the end is not counted
    return f"about {duration(event.eta)} left" if event.eta is not None else ""


def _sentence(event: Any) -> str:
    head = f"[{event.index + 1}/{event.count}] " if event.count > 1 and event.kind != "note" else ""
    return head + one_line(event.text) + (f" in {duration(event.seconds)}" if event.kind == "done" else "")


@contextmanager
def _bar() -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.text import Text

    columns = (TextColumn("{task.fields[head]}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[left]}"),
               TextColumn("{task.fields[note]}", markup=False))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None, head="", left="", note="", visible=False)

        def tell(event: Any) -> None:
            if event.kind == "progress":
                progress.update(task, completed=event.done, total=event.total, left=_left(event), note=one_line(event.text, 40))
                return
            if event.kind == "start":
                progress.reset(task, total=None, head=Text(f"{event.step}").plain, left="", note="", visible=True)
            elif event.kind in ("done", "skip"):
                progress.update(task, visible=False)
            progress.console.print(Text(_sentence(event)))

        yield tell
