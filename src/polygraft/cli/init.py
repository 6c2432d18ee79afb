"""`polygraft init`: a commented recipe for a goal, on standard output or into a file. Imports nothing slow."""

from __future__ import annotations

from pathlib import Path
from string import Template

import click

FOLDER = Path(__file__).parent / "goals"
GOALS = {
    "swap": "two experts exist: graft them, compare with soup, evaluate",
    "experts": "train both experts from one base, then graft and evaluate",
    "eval": "score models you have, with intervals and paired tests",
    "delta": "see what fine-tuning changed, layer by layer",
    "neurons": "find a language's neurons and layers, edit the neurons, see what that changes",
    "slam": "a model that reasons in English learns to read a language by a few layers",
    "partition": "a task and a language at once, each in a part of the model that is its own",
    "tune-neurons": "train a language's neurons and nothing else, beside random ones",
    "vocabulary": "give an instruct model a vocabulary that fits a language, from plain text",
}


@click.command(epilog="\b\nGoals:\n" + "\n".join(f"  {k:14}{v}" for k, v in GOALS.items()))
@click.argument("goal")
@click.option("--model", default="org/base-model", show_default=True, help="A folder, org/name[@revision] or demo:smollm2.")
@click.option("--lang", default="sw", show_default=True, help="The target language, as a BCP-47 tag.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write it here instead of printing it.")
def init(goal: str, model: str, lang: str, out: Path | None) -> int:
    """Print a commented recipe for GOAL."""
    from polygraft.errors import RecipeError, suggestion
    from polygraft.languages import check, name

    if goal not in GOALS:
        raise RecipeError("no such goal", where="GOAL", found=goal, fix=suggestion(goal, GOALS))
    tag = check(lang)
    if goal == "slam" and tag == "en":
        raise RecipeError("SLAM leads from other languages to English", where="--lang", found=lang, fix="name another language")
    text = Template((FOLDER / f"{goal}.yaml").read_text(encoding="utf-8"))
    file = out.name if out else f"{goal}-{tag}.yaml"
    filled = text.substitute(model=quoted(model), lang=tag, language=name(tag), slug=tag.lower(), file=file, task=_task(tag),
                             langs=", ".join(dict.fromkeys(("en", tag))), find=_texts(tag, "find"), read=_texts(tag, "read"))
    if out is None:
        click.echo(filled, nl=False)
        return 0
    if out.exists():
        raise RecipeError("the file exists", where=out, fix="name another file")
    from polygraft.files import write_atomic

    write_atomic(out, filled.encode())
    click.echo(f"wrote {out}; next: polygraft plan {out}", err=True)
    return 0


def _task(tag: str) -> str:
    """What shows whether mathematics reached a language: MGSM where it has it, else the suite that is made for any language."""
    from polygraft.evals import tasks

    return "mgsm" if tag in tasks.load("mgsm").known_languages() else f'"darumeru:{tag}"'


def _texts(tag: str, kind: str) -> str:
    """Lines of corpora by language: what belongs to a language shows beside others only, in several scripts."""
    return "\n".join(f"      {g}: texts/{g}.{kind}.txt" for g in dict.fromkeys(("en", "es", "ru", tag)))


def quoted(text: str) -> str:
    """A YAML scalar that reads back as this text whatever it holds."""
    plain = text.replace("/", "").replace("-", "").replace(".", "").replace("_", "").replace("@", "").replace(":", "").isalnum()
    return text if plain and not text[0].isdigit() else "'" + text.replace("'", "''") + "'"
