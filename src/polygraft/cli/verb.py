"""A verb that runs one step: its flags come from the step's config, and it prints the recipe that it ran."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from polygraft.cli.fields import gather, parameter, typeable
from polygraft.config import parse
from polygraft.errors import RecipeError

PROBE = click.Option(["--probe"], is_flag=True, help="with --plan: do a few steps here to measure time and memory")
COMMON = [
    click.Option(["--out"], type=click.Path(path_type=Path), metavar="DIR", help="output folder: it must not exist, or be empty"),
    click.Option(["--plan", "plan_only"], is_flag=True, help="only say what would be done, needed and refused"),
    PROBE,
    click.Option(["--recipe", "recipe_only"], is_flag=True, help="only print this command as a recipe"),
    click.Option(["--force"], is_flag=True, help="move an old output aside instead of refusing"),
    click.Option(["--offline"], is_flag=True, help="never touch the network"),
    click.Option(["--json", "as_json"], is_flag=True, help="print JSON, for programs"),
]


def step_command(name: str) -> click.Command:
    """The command of a step of the table."""
    from polygraft.steps import TABLE

    step = next(s for s in TABLE if s.name == name)
    fields = sorted(typeable(step.config.model_fields), key=lambda x: (not x[1].is_required(), shared(step.config, x[0][0])))

    def callback(**given: Any) -> int:
        return run_verb(step, given)

    common = [o for o in COMMON if o is not PROBE or step.probes]
    params = [*(parameter(path, field) for path, field in fields), *common]
    return click.Command(name.rpartition(".")[2].replace("_", "-"), params=params, callback=callback, help=step.config.__doc__)


def shared(config: type, name: str) -> int:
    """How many classes above `config` have the field too: `--help` tells what is particular first."""
    return sum(name in getattr(c, "model_fields", ()) for c in config.__mro__)


def run_verb(step: Any, given: dict[str, Any]) -> int:
    """Plan or run a step from the words of a command line."""
    from polygraft import ranks
    from polygraft import recipe as engine
    from polygraft.cli import show
    from polygraft.cli.progress import telling
    from polygraft.files import list_files, partial_path
    from polygraft.lock import Held

    config = parse(step.config, gather(step.config.model_fields, given))
    text = engine.one_step_recipe(step, config)
    if given["recipe_only"]:
        click.echo(text, nl=False)
        return 0
    if step.probes and given["probe"] and not given["plan_only"]:
        raise RecipeError("`--probe` measures for a plan, and would do nothing here", where="--probe",
                          fix="add --plan, or leave --probe out")
    if given["plan_only"]:
        return plan_verb(step, config, given)
    out, scratch = given["out"], None
    if out is not None and out.resolve() == Path.cwd():
        raise RecipeError("the output would replace the current folder", where="--out", fix="name a new folder inside it")
    if out is None:
        if step.makes_model or step.asks_folder(config):
            raise RecipeError("`--out` is missing", where="command line", expected="a folder for the model", fix="add --out DIR")
        scratch = Path(tempfile.mkdtemp(prefix="polygraft-"))
        out = scratch / "result"
    try:
        with telling(quiet=given["as_json"] or ranks.rank() > 0) as tell:
            heard = tell if scratch is None else lambda event: tell(event) if event.kind != "done" else None
            result = engine.run_step(step, config, out, offline=given["offline"], force=given["force"], tell=heard)
    except BaseException as e:
        if scratch is None and not isinstance(e, Held) and list_files(partial_path(out)):
            click.echo(f"what was done until now is kept in {partial_path(out)}: the same command goes on from there", err=True)
        raise
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
    if ranks.rank():
        return 0  # the first process speaks for all
    show.result(result, given["as_json"])
    if not given["as_json"]:
        click.echo("\nthe same as a recipe:\n" + "".join(f"  {line}\n" for line in text.splitlines()), nl=False)
    refuse_unmet([result])
    return 0


def refuse_unmet(results: Iterable[Any]) -> None:
    """Raise CriteriaFailed (exit 6) when an evaluation's criteria do not hold; everything is written by then."""
    from polygraft.evals.verdicts.criteria import raise_failed

    for result in results:
        raise_failed(result.data, result.id or result.step)


def plan_verb(step: Any, config: Any, given: dict[str, Any]) -> int:
    """Print what the step would do; fail with every reason why it would."""
    from polygraft import ranks
    from polygraft import recipe as engine
    from polygraft.cli import show
    from polygraft.files import refuse_taken
    from polygraft.planning import raise_all
    from polygraft.result import encode

    planned = engine.plan_step(step, config, offline=given["offline"], probe=step.probes and given["probe"])
    if ranks.rank():
        return 0  # the first process speaks for all
    if given["as_json"]:
        said = ("lines", "notes", "peak_bytes", "disk_bytes", "read_bytes", "seconds", "maps")
        body = {"use": planned.use, **{k: encode(getattr(planned.plan, k)) for k in said}}
        body["problems"] = [str(e) for e in planned.errors]
        click.echo(json.dumps(body, indent=1, ensure_ascii=False))
    else:
        show.plan(planned.plan, planned.use)
    raise_all(planned.errors)
    if given["out"] is not None and not given["force"]:
        refuse_taken(given["out"])
    return 0
