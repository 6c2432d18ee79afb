"""`polygraft tasks`: what can be asked, and what a task file of one's own comes to."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from polygraft.cli.recipes import JSON, OFFLINE
from polygraft.report.escape import clean, one_line


@click.command()
@click.argument("task", required=False)
@click.option("--langs", metavar="A,B,...", help="Languages to check (default: all that the task has).")
@click.option("--data", type=click.Path(path_type=Path), metavar="DIR", help="Folder with the tasks' files (default: the hub).")
@click.option("--shots", type=click.IntRange(0), metavar="N", help="Worked examples (default: as the task says).")
@click.option("--model", metavar="MODEL", help="Show the text as this model's chat template writes it, and count its tokens.")
@OFFLINE
@JSON
def tasks(task: str | None, langs: str | None, data: Path | None, shots: int | None, model: str | None, offline: bool,
          as_json: bool) -> int:
    """List the tasks and suites; or read TASK (a name such as mgsm or xcopa:sw, or the .yaml file of your own) and show its first
    item as a model will see it. Loads no weights."""
    if task is None:
        return listing(as_json)
    from polygraft import languages
    from polygraft.evals.tasks import foreign, suites

    if suites.is_suite(task):
        return parts(task, data, as_json)
    if foreign.is_foreign(task):
        foreign.check(task, trusted=False, offline=offline)
        click.echo(f"{task}: one of lm-eval's kind; `polygraft eval MODEL --tasks {task}` runs it as lm-eval does")
        return 0
    found, own = suites.split(task)
    langs = langs or own
    wanted = [languages.check(x.strip()) for x in langs.split(",")] if langs else list(found.known_languages()) or ["en"]
    reader = tokens(model, offline) if model else None
    shown = [look(found, language, data, shots, reader, offline) for language in wanted]
    if as_json:
        click.echo(json.dumps({"task": found.name, "languages": shown}, ensure_ascii=False, indent=1))
        return 0
    click.echo(click.style(found.name, bold=True) + f": {kind(found)}, scored by {', '.join(found.metrics)}")
    if not langs and found.folder and not found.known_languages():
        click.echo(suites.UNNAMED.format(found.name))
    for row in shown:
        show(row)
    return 0


def listing(as_json: bool) -> int:
    """Every shipped task and suite, one a line."""
    from polygraft.evals import tasks as known
    from polygraft.evals.tasks import suites

    rows = [row(known.load(name)) for name in known.names()]
    if as_json:
        click.echo(json.dumps({"tasks": rows, "suites": list(suites.names())}, ensure_ascii=False, indent=1))
        return 0
    for r in rows:
        tags = r["languages"]
        said = " ".join(tags[:12]) + (f" and {len(tags) - 12} more" if len(tags) > 12 else "") or "any language"
        click.echo(f"{click.style(r['task'], bold=True)}  {r['asked']}; {', '.join(r['metrics'])}\n    {said}\n    {r['data']}")
    click.echo("suites: " + ", ".join(suites.names()))
    click.echo("NAME:LANG asks in one language; NAME+typos, +diacritics, +romanised and +mixed ask the same questions untidily.")
    click.echo("`polygraft tasks NAME` shows an item; a task of your own is a .yaml file; lm-eval:NAME is one of lm-eval's.")
    return 0


def parts(word: str, data: Path | None, as_json: bool) -> int:
    """What a suite asks, and what of it the language or the data folder lacks."""
    from polygraft.evals.tasks import suites

    found = suites.expand(word, data=data)
    rows = [{"task": e.task.name, "language": e.language, "group": part.group, "score": part.score, "shots": e.shots,
             "limit": e.limit} for part, e in found.asked]
    asked, lacking = {(e.task.task, e.language) for _, e in found.asked}, list(suites.lacking(word, data=data))
    absent = [{"task": part.task, "language": tag, "group": part.group, "why": why, "left_out": (part.task, tag) not in asked}
              for part, tag, why in lacking]
    if as_json:
        click.echo(json.dumps({"suite": found.name, "parts": rows, "lacking": absent}, ensure_ascii=False, indent=1))
        return 0
    click.echo(click.style(found.name, bold=True))
    for r in rows:
        most = f", at most {r['limit']} items" if r["limit"] else ""
        click.echo(f"  {r['group']}: {r['task']} {r['language']}, {r['score']}, {r['shots']} worked examples{most}")
    for a in absent:
        click.echo(f"  {'left out' if a['left_out'] else 'cannot be asked'}: {a['task']} {a['language']}: {a['why']}")
    return 0


def kind(task: Any) -> str:
    return "written" if task.written else "multiple choice"


def row(task: Any) -> dict[str, Any]:
    """A task as the list shows it."""
    source = task.source
    places = [*source.files, *([f"hub {source.hub.path}"] if source.hub else [])]
    return {"task": task.name, "asked": kind(task), "metrics": list(task.metrics), "languages": list(task.known_languages()),
            "data": " or ".join(places) or "made by polygraft"}


def look(task: Any, language: str, data: Path | None, shots: int | None, reader: Any, offline: bool) -> dict[str, Any]:
    """One language's items: how many, and the first as it is sent, plainly and through the chat template."""
    from polygraft.evals import metrics
    from polygraft.evals import tasks as known
    from polygraft.evals.tasks.preview import preview
    from polygraft.evals.verdicts import planning

    binary = (metrics.get(m).binary for m in task.metrics)
    found = known.items(task, language, data=data, shots=shots, offline=offline)
    out = {"language": language, "items": len(found), "seen": planning.seen(len(found), binary),
           "unit": "tokens" if reader else "bytes", "plain": dataclasses.asdict(preview(task, found[0], reader))}
    if reader is not None and getattr(reader.tokenizer, "chat_template", None) and not task.plain:
        out["chat"] = dataclasses.asdict(preview(task, found[0], reader, chat=True))
    return out


def show(found: dict[str, Any]) -> None:
    """One language's first item, with marks at the ends of what is sent: spaces and newlines count."""
    seen = f"; {found['seen']}" * bool(found["seen"])
    click.echo(f"\n{click.style(found['language'], bold=True)}: {found['items']:,} items{seen}")
    for way in ("plain", "chat"):
        if way not in found:
            continue
        p = found[way]
        size = f"{p['size']:,} {found['unit']}" + (", too long: its beginning is cut" if p["truncated"] else "")
        click.echo(f"  item {one_line(p['id'], 80)}, {way}, {p['shots']} worked examples, {size}")
        click.echo("".join(f"    | {line}\n" for line in clean(p["text"]).split("\n")), nl=False)
        for i, choice in enumerate(p["choices"]):
            click.echo(f"    {'=>' if i == p['target'] else '  '} {quoted(choice)}")
        if p["golds"]:
            click.echo("    => " + " or ".join(quoted(g) for g in p["golds"][:5]))
        if p["stops"]:
            click.echo("    ends at " + ", ".join(quoted(s) for s in p["stops"]))


def quoted(text: str) -> str:
    return clean(json.dumps(text, ensure_ascii=False))


def tokens(model: str, offline: bool) -> Any:
    """A model's tokenizer, without its weights. Raises InputError where there is none."""
    from polygraft.errors import InputError
    from polygraft.evals.tasks.preview import Tokens
    from polygraft.model import load_tokenizer
    from polygraft.sources import resolve

    source = resolve(model, offline=offline, headers_only=True)
    tokenizer = load_tokenizer(source.path)
    if tokenizer is None:
        raise InputError("the model has no tokenizer", where=model, fix="put tokenizer.json and tokenizer_config.json beside it")
    return Tokens(tokenizer, int(source.weights.config.get("max_position_embeddings") or 1 << 30))
