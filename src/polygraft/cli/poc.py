"""`polygraft poc`: methods that apply to a base and a language, each at equal budget, and one decision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


def _command() -> click.Command:
    """The command, its flags made from the config's fields."""
    from polygraft.cli.fields import parameter, typeable
    from polygraft.poc.config import Poc
    from polygraft.report.strings import LANGUAGES

    own = [
        click.Option(["--out"], type=click.Path(path_type=Path), required=True, metavar="DIR",
                     help="the run folder; the same command goes on in it"),
        click.Option(["--plan", "plan_only"], is_flag=True, help="only say what would be done, needed and refused"),
        click.Option(["--offline"], is_flag=True, help="never touch the network"),
        click.Option(["--report-lang"], type=click.Choice(list(LANGUAGES)), default="en", show_default=True,
                     help="language of the report and of the meeting page"),
        click.Option(["--json", "as_json"], is_flag=True, help="print JSON, for programs"),
    ]
    params = [*(parameter(path, field) for path, field in typeable(Poc.model_fields)), *own]
    return click.Command("poc", params=params, callback=run, help=Poc.__doc__)


def run(**given: Any) -> int:
    """Plan or run from the words of a command line."""
    from polygraft.cli.fields import gather
    from polygraft.cli.progress import telling
    from polygraft.config import parse
    from polygraft.poc import stages
    from polygraft.poc.config import Poc
    from polygraft.poc.report import MEETING, headline
    from polygraft.report.write import NAME

    config, out = parse(Poc, gather(Poc.model_fields, given)), given["out"]
    out = Path(out.absolute())
    if given["plan_only"]:
        return show_plan(stages.plan(config, out, offline=given["offline"]), given["as_json"])
    with telling(quiet=given["as_json"]) as tell:
        decision = stages.run(config, out, offline=given["offline"], language=given["report_lang"], tell=tell)
    if given["as_json"]:
        click.echo(json.dumps(decision.to_json(), ensure_ascii=False, indent=1))
        return 0
    click.echo("\n".join(headline(decision)))
    click.echo(f"\nreport: {out / NAME}\nfor the meeting: {out / MEETING}\nrecipe: {out / 'poc.yaml'}")
    return 0


def show_plan(planned: Any, as_json: bool) -> int:
    """What the stage would do, and which methods it leaves out."""
    from polygraft.cli import recipes
    from polygraft.planning import raise_all

    if as_json:
        body = recipes.plan_json(planned.run) | {"stage": planned.stage, "sizes": vars(planned.sizes), "equal": planned.equal.text,
                                                 "left_out": {m: reason.text for m, (_, reason) in planned.out.items()}}
        click.echo(json.dumps(body, indent=1, ensure_ascii=False))
    else:
        recipes.show_plan(planned.run)
        click.echo(f"\n{planned.stage} stage. {planned.equal.text}")
        for m, (_, reason) in planned.out.items():
            click.echo(f"  without {m}: {reason.text}")
    raise_all(planned.run.errors)
    return 0


poc = _command()
