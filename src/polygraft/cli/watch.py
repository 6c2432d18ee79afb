"""The verb `watch`: a scheduled check of a model against its first ancestor."""

from __future__ import annotations

from pathlib import Path

import click

from polygraft.cli.recipes import JSON, LANG, OFFLINE


@click.command()
@click.argument("model")
@click.option("--of", required=True, type=click.Path(path_type=Path), metavar="EVALUATION",
              help="What `polygraft eval --out` or the eval step of a run wrote: the same items are asked again.")
@click.option("--criteria", required=True, type=click.Path(path_type=Path), metavar="FILE",
              help="criteria.yaml: exit 6 if a `must` fails against the first ancestor.")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR",
              help="The watch's folder: history.jsonl, report.html and every check; made at first, added to afterwards.")
@click.option("--first", metavar="MODEL", help="The first ancestor, where the chain of manifests does not lead to it.")
@click.option("--paths-from", type=click.Path(path_type=Path), metavar="DIR", help="Where the evaluation's relative paths begin "
              "(default: the current folder, or the one around the evaluation that has its files).")
@OFFLINE
@LANG
@JSON
def watch(model: str, of: Path, criteria: Path, out: Path, first: str | None, paths_from: Path | None, offline: bool, lang: str,
          as_json: bool) -> int:
    """Ask MODEL, its parent and the first ancestor in its chain of manifests what an earlier evaluation asked, and add a line to
    the history of checks. Losses count from the first ancestor, so that many small ones show."""
    from polygraft.cli import show
    from polygraft.cli.progress import telling
    from polygraft.evals.verdicts.criteria import raise_failed
    from polygraft.poc import watch as watching

    task = watching.prepare(model, of, criteria, out, first=first, base=paths_from, offline=offline)
    with telling(quiet=as_json) as tell:
        result, _ = watching.run(task, language=lang, offline=offline, tell=tell)
    show.result(result, as_json)
    if not as_json:
        click.echo(f"\nreport: {out / watching.REPORT}")
    raise_failed(result.data, criteria)
    return 0
