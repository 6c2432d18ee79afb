"""From the text of a recipe to checked values and back: nothing is planned or run here.

```yaml
recipe: 1
name: math-into-spanish            # the run folder's name; default: the file's
question: Does Spanish gain?       # opens the report
models:
  base: demo:smollm2               # a path (relative to this file), org/name@revision, or a demo: name
  math: {adapter: experts/math-en, base: base}
steps:
  - id: swapped                    # later steps name it
    use: merge.swap                # or merge.swap@1
    task: math
```
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field

from polygraft.config import Fault, Strict, describe, label_of, override, raise_faults, try_parse
from polygraft.errors import RecipeError, did_you_mean, suggestion
from polygraft.step import DataName, FolderName, Name, Step
from polygraft.yamltext import Document, Place, parse_document, read_document, scalar

VERSION = 1
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")
RESERVED = ("id", "use")  # keys of a step's entry that are not its config's


class AdapterSpec(Strict):
    """A LoRA adapter folder on a base: the name of a model, or a path or hub id."""

    adapter: str
    base: str


class RecipeText(Strict):
    """The top of a recipe."""

    recipe: int
    name: str | None = None
    question: str = ""
    models: dict[str, str | AdapterSpec] = Field(default_factory=dict)
    steps: list[dict[str, Any]]


@dataclass(frozen=True)
class StepUse:
    """One entry of `steps:` with its checked config; `where` is its place in the text."""

    id: str
    step: Step
    config: BaseModel
    where: str


@dataclass(frozen=True)
class Recipe:
    """A recipe whose every word is understood. `folder` is where its relative paths begin."""

    name: str
    question: str
    folder: Path
    models: dict[str, str | AdapterSpec]
    steps: tuple[StepUse, ...]
    text: str
    file: str


def read_recipe(path: Path, table: Sequence[Step], sets: Iterable[str] = ()) -> Recipe:
    """Read and check a recipe file; `sets` are `--set` texts. Raises RecipeError with every fault, InputError if unreadable."""
    path = Path(path)
    document = read_document(path)
    return check(override(document, sets), table, path.absolute().parent, path.read_text(encoding="utf-8-sig"), path.stem)


def parse_recipe(text: str, table: Sequence[Step], folder: Path = Path(), sets: Iterable[str] = (), file: str = "recipe") -> Recipe:
    """`read_recipe` for text that is not in a file."""
    return check(override(parse_document(text, file), sets), table, Path(folder).absolute(), text, "recipe")


def check(document: Document, table: Sequence[Step], folder: Path, text: str, default_name: str) -> Recipe:
    """Understand every word of a recipe. Raises one RecipeError that tells all that is wrong."""
    _check_version(document)
    top, faults = try_parse(RecipeText, document)
    if top is None:  # unknown keys are told together with what is wrong in the steps
        top, _ = try_parse(RecipeText, document, drop=tuple(k for k in document.tree if k not in RecipeText.model_fields))
        if top is None:
            raise_faults(faults)
    assert top is not None
    name = top.name if top.name is not None else re.sub(r"[^A-Za-z0-9_-]+", "-", default_name).strip("-_") or "recipe"
    faults += _name_faults(document, top, name)
    if not top.steps:
        faults.append(Fault(document.where(("steps",)), "`steps` is empty", expected="at least one step"))
    uses = []
    for i, entry in enumerate(top.steps):
        use, more = _entry(document, i, entry, table)
        faults += more
        uses.append(use)
    faults += _reference_faults(document, folder, top, uses)
    raise_faults(faults)
    return Recipe(name, top.question, folder, dict(top.models), tuple(u for u in uses if u), text, document.file)


def _check_version(document: Document) -> None:
    """A recipe of another format is refused before anything else is said about it."""
    tree = document.tree
    if not isinstance(tree, dict):
        raise RecipeError("not a recipe", where=document.where(()), found=describe(tree), expected="`recipe: 1` and other keys")
    version = tree.get("recipe")
    if version is None:
        raise RecipeError("`recipe` is missing", where=document.where(("recipe",)), expected=f"the format's version, {VERSION}",
                          fix=f"write `recipe: {VERSION}` as the first line")
    if version is True or version != VERSION:
        newer = isinstance(version, int) and version > VERSION
        fix = "a newer polygraft is needed" if newer else f"write `recipe: {VERSION}`"
        raise RecipeError("recipe: not a version that this polygraft reads", where=document.where(("recipe",)),
                          found=describe(version), expected=str(VERSION), fix=fix)


def _name_faults(document: Document, top: RecipeText, name: str) -> list[Fault]:
    """Names become folder names and words in `--set`, so they are plain, and none is given twice."""
    named: list[tuple[str, Place, str]] = [("name", ("name",), name)]
    named += [("model", ("models", k), k) for k in top.models]
    named += [("id", ("steps", i, "id"), e["id"]) for i, e in enumerate(top.steps) if isinstance(e.get("id"), str)]
    faults, seen = [], dict[str, str]()
    for kind, place, text in named:
        where = document.where(place)
        if not NAME.match(text):
            faults.append(Fault(where, f"{kind}: not a plain name", describe(text), "letters, digits, `-` and `_`, at most 64"))
        elif kind != "name" and text.casefold() in seen:
            first = f"first at {seen[text.casefold()]}"
            faults.append(Fault(where, f"{kind}: `{text}` is taken", first, fix="choose another name"))
        elif kind != "name":
            seen[text.casefold()] = where
    return faults


def _entry(document: Document, i: int, entry: dict[str, Any], table: Sequence[Step]) -> tuple[StepUse | None, list[Fault]]:
    """One entry of `steps:`: its id, its step and that step's config."""
    place = ("steps", i)
    faults = [_reserved_fault(document, i, key, entry) for key in RESERVED if not isinstance(entry.get(key), str) or not entry[key]]
    if faults:
        return None, faults
    try:
        step = find_step(table, entry["use"])
    except RecipeError as e:
        return None, [Fault(document.where((*place, "use")), f"steps[{i}].use: {e.what}", e.found, e.expected, e.fix)]
    config, faults = try_parse(step.config, document, place, drop=RESERVED)
    return (StepUse(entry["id"], step, config, document.where(place)) if config is not None else None), faults


def _reserved_fault(document: Document, i: int, key: str, entry: dict[str, Any]) -> Fault:
    where, expected = document.where(("steps", i, key)), "a name that later steps use" if key == "id" else "the name of a step"
    if key in entry:
        return Fault(where, f"steps[{i}].{key}: not what is expected here", describe(entry[key]), expected)
    near = did_you_mean(key, entry)
    fix = f"write `{key}` for `{near}`" if near else f"add `{key}:`"
    return Fault(where, f"steps[{i}]: `{key}` is missing", f"`{near}`" if near else None, expected, fix)


def find_step(table: Sequence[Step], use: str) -> Step:
    """The step that `merge.swap@1` or `merge.swap` (its latest version) names. Raises RecipeError with what was probably meant."""
    name, at, version = use.partition("@")
    versions = {str(s.version): s for s in table if s.name == name}
    if not versions:
        raise RecipeError("no step of this name", found=use, fix=suggestion(name, {s.name for s in table}))
    if not at:
        return max(versions.values(), key=lambda s: s.version)
    if version not in versions:
        newest = max(s.version for s in versions.values())
        newer = version.isdecimal() and int(version) > newest
        raise RecipeError("no such version of this step", found=use, expected=" or ".join(f"{name}@{v}" for v in sorted(versions)),
                          fix="a newer polygraft is needed" if newer else f"did you mean `{name}@{newest}`?")
    return versions[version]


# ------------------------------------------------------------------------------------------------------------- references


def references(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Name]]:
    """Every reference in a config, with its place, however deep."""
    if isinstance(value, Name):
        yield place, value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from references(getattr(value, name), (*place, name))
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from references(item, (*place, name))
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from references(item, (*place, i))


def inside(ref: str, ids: Collection[str]) -> str | None:
    """The earlier step in whose folder a reference looks: `world` of `world/train/base.jsonl`. None of any other reference."""
    id, slash, path = ref.partition("/")
    return id if slash and path and id in ids and ".." not in path.split("/") else None


def _reference_faults(document: Document, folder: Path, top: RecipeText, uses: list[StepUse | None]) -> list[Fault]:
    """References that can be seen to lead nowhere: to a later step, to itself, to a name that nothing has."""
    faults = []
    for name, spec in top.models.items():
        base = spec.base if isinstance(spec, AdapterSpec) else None
        place: Place = ("models", name, "base")
        label = label_of(place)
        if base == name:
            faults.append(Fault(document.where(place), label + "a model cannot be its own base", fix="name its base model"))
        elif base is not None and base not in top.models and _leads_nowhere(base, folder):
            fix = suggestion(base, [m for m in top.models if m != name])
            faults.append(Fault(document.where(place), f"{label}nothing is called `{base}`", fix=fix))
    ids = [e["id"] if isinstance(e.get("id"), str) else "" for e in top.steps]
    for i, use in enumerate(uses):
        for tail, ref in references(use.config) if use else ():
            models = {} if isinstance(ref, FolderName) else top.models
            if (within := inside(ref.target, ids) is not None) or (not isinstance(ref, DataName) and ref not in models):
                place = ("steps", i, *tail)
                fault = _step_reference(document, place, ref, ids, uses)
                if not within and ref.target not in ids and _leads_nowhere(ref.target, folder):
                    known = [*models, *filter(None, ids[:i])]
                    missing = "name an earlier step or a path" if isinstance(ref, FolderName) else "add it under `models:`"
                    fix = suggestion(ref.target, known) if known else missing
                    fault = Fault(document.where(place), f"{label_of(place)}nothing is called `{ref.target}`", fix=fix)
                faults += [fault] if fault else []
    return faults


def _leads_nowhere(spec: str, folder: Path) -> bool:
    """Whether a reference can only be a name: no hub id, no scheme, no path, and nothing of that name in the recipe's folder."""
    return bool(NAME.match(spec)) and not (folder / spec).exists()


def _step_reference(document: Document, place: Place, ref: Name, ids: list[str], uses: list[StepUse | None]) -> Fault | None:
    """What is wrong with naming a step at this place."""
    whole = ref.target in ids
    id = ref.target if whole else inside(ref.target, ids)
    if id is None:
        return None
    i, j, where, label = int(place[1]), ids.index(id), document.where(place), label_of(place)
    made, folder = uses[j], isinstance(ref, FolderName)
    if j == i:
        other = "name an earlier step or a path" if folder else "name a model or an earlier step"
        return Fault(where, f"{label}a step cannot use its own output", f"`{id}`", fix=other)
    if j > i:
        return Fault(where, f"{label}`{id}` comes later", document.where(("steps", j)), fix="move that step before this one")
    if made is not None and not made.step.makes_model and not folder and whole:
        return Fault(where, f"{label}the step `{id}` makes no model", made.step.use, "a model, or a step that makes one")
    return None


# ---------------------------------------------------------------------------------------------------------------- writing


class _Dumper(yaml.SafeDumper):
    """Plain block YAML whose text reads back as the same values under our rules."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    try:
        plain = scalar(value) == value and isinstance(scalar(value), str)
    except ValueError:
        plain = False
    style = None if plain and value.isprintable() else "'" if value.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)
_Dumper.add_multi_representer(str, _text)  # references are kinds of str; a kind's own representer goes before these


def dump(value: Any) -> str:
    """YAML text of a JSON value."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def rooted(spec: str, folder: Path) -> str:
    """A path that exists relative to the recipe's folder, made absolute; anything else (hub ids, demo:, absolute) as it is."""
    if not spec or ":" in spec.split("/")[0]:
        return spec
    path = folder / Path(spec).expanduser()
    try:
        return str(path) if path.exists() else spec
    except OSError:  # a name too long to be a path
        return spec


def resolved(recipe: Recipe) -> str:
    """The recipe with every default, every version and every path written out. Running it gives the same step keys."""
    ids = [u.id for u in recipe.steps]
    names = {*recipe.models, *ids}

    def full(spec: str) -> str:
        return spec if spec in names or inside(spec, ids) is not None else rooted(spec, recipe.folder)

    models: dict[str, Any] = {
        k: full(v) if isinstance(v, str) else {"adapter": full(v.adapter), "base": full(v.base)} for k, v in recipe.models.items()
    }
    steps = [{"id": u.id, "use": u.step.use, **_with_paths(u.config, full)} for u in recipe.steps]
    head = {"recipe": VERSION, "name": recipe.name, **({"question": recipe.question} if recipe.question else {})}
    return dump({**head, **({"models": models} if models else {}), "steps": steps})


def _with_paths(config: BaseModel, full: Any) -> dict[str, Any]:
    tree = config.model_dump(mode="json")
    for place, ref in references(config):
        at: Any = tree
        for name in place[:-1]:
            at = at[name]
        at[place[-1]] = ref.at(full(ref.target))
    return tree


def one_step_recipe(step: Step, config: BaseModel, *, id: str | None = None, name: str | None = None) -> str:
    """The recipe that a verb ran: YAML to print, copy and grow. Defaults are left out."""
    own = config.model_dump(mode="json", exclude_defaults=True)
    word = step.name.rpartition(".")[2].replace("_", "-")
    return dump({"recipe": VERSION, "name": name or step.name.replace(".", "-").replace("_", "-"),
                 "steps": [{"id": id or word, "use": step.use, **own}]})
