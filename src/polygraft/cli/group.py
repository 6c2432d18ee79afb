"""Groups of verbs: looked up in a table and imported when called; some are a verb themselves, beside those that they hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

OWN = ""  # the entry of a group that stands for the group's name alone: `polygraft prune MODEL`
Load = Callable[[str], click.Command]


def words(name: str, table: dict, about: dict[str, str]) -> str:
    """The line of one entry in a list of verbs: what it does, and which verbs a group holds."""
    entry = table[name]
    return f"{about[name]} {' | '.join(v for v in entry if v != OWN)}" if isinstance(entry, dict) else entry[1]


class Verbs(click.Group):
    """A group whose commands are looked up in a table (see `cli.VERBS`) and imported when needed."""

    def __init__(self, table: dict, load: Load, about: dict[str, str], **kwargs):
        super().__init__(**kwargs)
        self.table, self.load, self.about = table, load, about

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in self.table if name != OWN]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        entry = self.table.get(name)
        if entry is None:
            return None
        if isinstance(entry, dict):
            kind = VerbItself if OWN in entry else Verbs
            return kind(entry, self.load, self.about, name=name, help=self.about[name])
        return self.load(entry[0])

    def resolve_command(self, ctx: click.Context, args: list[str]):
        from polygraft.errors import suggestion

        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as e:
            raise click.UsageError(f"no verb `{args[0]}`: {suggestion(args[0], self.list_commands(ctx))}", ctx) from e

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, words(name, self.table, self.about)) for name in self.list_commands(ctx)])


class VerbItself(Verbs):
    """A group that is a verb too: unless the first word is one of its verbs, all words are those of its own command."""

    def make_context(self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra) -> click.Context:
        verbs = [name for name in self.table if name != OWN]
        if args and args[0] in verbs:
            return super().make_context(info_name, args, parent, **extra)
        if args:
            _refuse_slip(args[0], verbs)
        own = self.load(self.table[OWN][0])
        held = "".join(f"\n\n{self.name} {v}: {words(v, self.table, self.about)}" for v in verbs)
        own.epilog = f"Verbs of their own:{held}" if held else None
        return own.make_context(info_name, args or ["--help"], parent, **extra)


def _refuse_slip(word: str, verbs: list[str]) -> None:
    """A word that is nearly one of the verbs and no path here was meant to be it."""
    from polygraft.errors import did_you_mean

    near = did_you_mean(word, verbs)
    if near and "/" not in word and not Path(word).exists():
        raise click.UsageError(f"no verb `{word}`: did you mean `{near}`? A model of this name is written `./{word}`")
