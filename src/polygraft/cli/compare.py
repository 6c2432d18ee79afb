"""The verb `compare`: finished evaluations side by side, without a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from polygraft.cli.recipes import JSON, LANG

if TYPE_CHECKING:
    from polygraft.evals.findings import Findings
    from polygraft.evals.verdicts.criteria import Criteria
    from polygraft.evals.verdicts.folders import Evaluated
    from polygraft.result import Result


@click.command()
@click.argument("evaluations", nargs=-1, required=True, metavar="FOLDER[#MODEL]|NAME=F1,F2,F3 ...")
@click.option("--reference", metavar="NAME", help="The model or method that the others are compared with (default: the first).")
@click.option("--criteria", type=click.Path(path_type=Path), metavar="FILE", help="criteria.yaml: exit 6 if a `must` fails.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Write result.json and report.html there.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Seed of the bootstrap.")
@LANG
@JSON
def compare(evaluations: tuple[str, ...], reference: str | None, criteria: Path | None, out: Path | None, seed: int,
            lang: str, as_json: bool) -> int:
    """Compare finished evaluations on the items that they share: better, worse or not distinguishable from the first.

    FOLDER is what `polygraft eval --out` wrote, or a run that has an evaluation; FOLDER#MODEL is one model of several in it.
    NAME=F1,F2,F3 are the trainings (seeds) of one method, at least three: then the verdicts are about methods."""
    from polygraft.cli import show
    from polygraft.evals.verdicts import criteria as demands

    asked = demands.read(criteria) if criteria is not None else None
    models, methods, folders = gather(evaluations)
    if out is not None:
        check_out(out, folders)
    found, notes = findings(models, methods, seed, chosen(reference, list(methods or models)))
    result = as_result(found, notes, asked, folders)
    if out is not None:
        write(result, out, lang)
    show.result(result, as_json)
    demands.raise_failed(result.data, criteria)
    return 0


# --------------------------------------------------------------------------------------------------------------- reading


def gather(words: tuple[str, ...]) -> tuple[dict[str, Evaluated], dict[str, tuple[str, ...]], list[Path]]:
    """(models by label, methods by name (every lone model is one of its own; empty where nobody names a method), folders read)."""
    from polygraft.errors import RecipeError

    given = [(name, [m for part in parts for m in read(part, one=bool(name))]) for name, parts in map(split, words)]
    everyone = [m for _, members in given for m in members]
    names = labels(everyone)
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise RecipeError("the same model twice", where="command line", found=twice)
    methods: dict[str, tuple[str, ...]] = {}
    left = iter(names)
    for name, members in given:
        mine = tuple(next(left) for _ in members)
        methods |= {name: mine} if name else {label: (label,) for label in mine}
    if len(methods) < 2:
        raise RecipeError("nothing to compare with", where="command line", found=", ".join(methods) or "no model",
                          expected="at least two models or methods", fix="name another folder; NAME=F1,F2,F3 are the trainings of "
                          "one method (at least three)")
    named = any(name for name, _ in given)
    return dict(zip(names, everyone)), methods if named else {}, list(dict.fromkeys(m.folder for m in everyone))


def split(word: str) -> tuple[str, list[str]]:
    """`name=A,B,C` as (name, folders); a path as ("", [path])."""
    name, equals, rest = word.partition("=")
    if not equals or Path(word.partition("#")[0]).exists() or not name or "/" in name:
        return "", [word]
    return name, [p for p in rest.split(",") if p]


def read(word: str, one: bool) -> list[Evaluated]:
    """The models that one word names. `one`: it must be a single one. Raises InputError."""
    from polygraft.errors import InputError
    from polygraft.evals.verdicts import folders

    place, _, model = (word, "", "") if Path(word).exists() else word.rpartition("#") if "#" in word else (word, "", "")
    found = [m for folder in evaluations(Path(place)) for m in folders.read_evaluation(folder)]
    if model:
        return [folders.pick(found, model)]
    if one and len(found) > 1:
        raise InputError("several models in one evaluation", where=word, found=", ".join(m.label for m in found),
                         fix=f"name one: {word}#{found[0].label}")
    return found


def evaluations(path: Path) -> list[Path]:
    """The evaluation folders that a path stands for: itself, or those of a run's latest steps."""
    from polygraft.errors import InputError
    from polygraft.store import RunFolder, read_result

    if not (path / "run.json").is_file():
        return [path]
    found = [f for f in RunFolder(path).folders() if read_result(f).step.startswith("eval@")]
    if not found:
        raise InputError("no finished evaluation in this run", where=path, fix="run a recipe with an eval step")
    return found


def labels(models: list[Evaluated]) -> list[str]:
    """Short names: the model's own where that is unique, else with its folder."""
    ways = [[m.label for m in models], [f"{m.folder.resolve().name}#{m.label}" for m in models],
            [f"{m.folder}#{m.label}" for m in models]]
    return [next((w for names, w in zip(ways, said) if names.count(w) == 1), said[-1]) for said in zip(*ways)]


# --------------------------------------------------------------------------------------------------------------- writing


def chosen(reference: str | None, names: list[str]) -> str:
    """The name of the reference: the first, or the one asked for. Raises RecipeError with the nearest name."""
    from polygraft.errors import RecipeError, suggestion

    if reference is not None and reference not in names:
        raise RecipeError("the reference is none of what is compared", where="--reference", found=reference,
                          fix=suggestion(reference, names))
    return reference or names[0]


def findings(models: dict[str, Evaluated], methods: dict[str, tuple[str, ...]], seed: int,
             reference: str) -> tuple[Findings, list[str]]:
    """What the shared items say, and what had to be left out."""
    from polygraft.evals.findings import Findings
    from polygraft.evals.verdicts import folders, seeds, suites

    if methods:
        seeds.check(methods)
    asked, notes = folders.shared(models, methods[reference][0] if methods else reference)
    groups = suites.united(s for m in models.values() for s in m.suites)
    named = tuple(dict.fromkeys(t for m in models.values() for t in m.named))
    found = Findings(asked, reference, seed, groups, named, methods)
    return found, [*notes, *suites.notes(groups, found.measures, "not in all of these evaluations")]


def as_result(found: Findings, notes: list[str], asked: Criteria | None, folders: list[Path]) -> Result:
    """The comparison as a result: tables, sentences, and the verdict of the criteria."""
    from polygraft.evals.verdicts import criteria
    from polygraft.files import MANIFEST, sha256_file
    from polygraft.result import InputRef, Result

    inputs = tuple(InputRef(f.name, str(f), identity=sha256_file(f / MANIFEST)) for f in folders)
    result = Result("compare@1", "compare", f"Comparison of {', '.join(found.comparison.names)}", summary=found.summary(),
                    tables=found.tables(), caveats=(*found.caveats(), *notes), inputs=inputs,
                    data=found.data() | {"left_out": notes})
    return result if asked is None else criteria.judged(result, asked, found.demanded())


def check_out(out: Path, folders: list[Path]) -> None:
    """The output must be new, and neither in, over nor around what is compared."""
    from polygraft.errors import RecipeError
    from polygraft.files import refuse_overlap

    refuse_overlap(out, folders)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RecipeError("the output exists", where=out, fix="name a folder that does not exist yet")


def write(result: Result, out: Path, language: str = "en") -> None:
    """result.json and report.html (in `language`), whole or absent."""
    from polygraft import __version__
    from polygraft.files import commit, write_atomic
    from polygraft.report import Meta, render
    from polygraft.store import write_result

    with commit(out, {"polygraft": __version__, "kind": "comparison"}) as part:
        write_result(part, result)
        write_atomic(part / "report.html", render([result], Meta(name=result.title, language=language)).encode())
