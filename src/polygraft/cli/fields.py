"""Flags from a step's config: one typed object says what a step takes, the command line only fills it.

A field's `json_schema_extra` may say how it is typed: `{"argument": True}` for a positional one, `{"flag": "--corpus"}` for another
name, `{"metavar": "LANG=PATH"}` for what stands behind it, `{"hidden": True}` for what only a recipe sets. The fields of a config
inside a config are flags of their own: `problems.steps` is `--problems-steps`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import click
from pydantic import AfterValidator, BaseModel
from pydantic.fields import FieldInfo

from polygraft.errors import RecipeError
from polygraft.step import DataName, FolderName, LabelledName, ModelName, SelectName
from polygraft.yamltext import Document, scalar

PATHS = ("PATH", "FILE[:NAME]")
Path = tuple[str, ...]  # where a field is: ("problems", "steps")


def typeable(fields: Mapping[str, FieldInfo], at: Path = ()) -> Iterator[tuple[Path, FieldInfo]]:
    """Every field that a command line can set, with its place."""
    for name, field in fields.items():
        if extra(field).get("hidden"):
            continue
        if shape(field.annotation) == "nested":
            yield from typeable(inner(field.annotation).model_fields, (*at, name))
        else:
            yield (*at, name), field


def inner(annotation: Any) -> Any:
    """The annotation without `| None` and `Annotated`."""
    while get_origin(annotation) in (Union, UnionType):
        rest = [a for a in get_args(annotation) if a is not NoneType]
        if len(rest) != 1:
            return annotation
        annotation = rest[0]
    return inner(get_args(annotation)[0]) if hasattr(annotation, "__metadata__") else annotation


def extra(field: FieldInfo) -> dict[str, Any]:
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def flag(path: Path, field: FieldInfo) -> str:
    return str(extra(field).get("flag", "--" + "-".join(path).replace("_", "-")))


def shape(annotation: Any) -> str:
    """How a field is typed on a command line: "switch", "list", "map", "nested" or "value"."""
    kind = inner(annotation)
    origin = get_origin(kind)
    if kind is bool:
        return "switch"
    if origin in (list, tuple, set, frozenset):
        return "list"
    if origin is dict:
        return "map"
    return "nested" if isinstance(kind, type) and issubclass(kind, BaseModel) else "value"


def holds_text(annotation: Any) -> bool:
    """True where what was typed stays text, so that a folder may be called `7`."""
    kind = inner(annotation)
    parts = [kind] if not get_args(kind) else [inner(a) for a in get_args(kind) if a is not Ellipsis]
    if get_origin(kind) is Literal:
        return all(isinstance(a, str) for a in get_args(kind))
    return str in parts[-1:]


def parameter(path: Path, field: FieldInfo) -> click.Parameter:
    """The click parameter of one config field."""
    kind, name = shape(field.annotation), "_".join(path)
    if extra(field).get("argument"):
        many, shown = kind == "list", name.upper().rstrip("S")
        return click.Argument([name], nargs=-1 if many else 1, required=field.is_required(), metavar=shown + "..." * many)
    if kind == "switch":
        on = flag(path, field)
        return click.Option([f"{on}/--no-{on[2:]}", name], default=None, help=describe(field))
    many = kind in ("list", "map")
    return click.Option([flag(path, field), name], multiple=many, required=False, help=describe(field), metavar=metavar(field))


def metavar(field: FieldInfo) -> str:
    """What stands behind a flag in `--help`."""
    kind = inner(field.annotation)
    if given := extra(field).get("metavar"):
        return str(given)
    if get_origin(kind) is Literal:
        return "|".join(str(a) for a in get_args(kind))
    if shape(field.annotation) == "map":
        return "NAME=VALUE"
    one = _refers(field) or {int: "N", float: "X"}.get(kind)
    if shape(field.annotation) == "list":
        return one if one in PATHS else f"{one},..." if one else "A,B,..."
    return one or "TEXT"


def _refers(field: FieldInfo) -> str | None:
    """MODEL, PATH or FILE[:NAME] for a field that names models, data or what a step wrote."""
    return _found(field.annotation, *field.metadata)


def _found(*places: Any) -> str | None:
    names = {ModelName: "MODEL", DataName: "PATH", LabelledName: "PATH", FolderName: "PATH", SelectName: "FILE[:NAME]"}
    for place in places:
        if isinstance(place, AfterValidator) and place.func in names:
            return names[place.func]
        if found := _found(*get_args(place), *getattr(place, "__metadata__", ())):
            return found
    return None


def describe(field: FieldInfo) -> str:
    """The field's description with its default or that it is needed."""
    text = (field.description or "").strip()
    if field.is_required():
        return f"{text}  [required]"
    default = field.get_default(call_default_factory=True)  # type: ignore[call-arg]
    empty = default is None or default in ((), [], {}, "")
    if isinstance(default, bool):
        default = "yes" if default else "no"
    return text if empty else f"{text}  [default: {', '.join(map(str, default)) if isinstance(default, list | tuple) else default}]"


def typed(text: str, field: FieldInfo, where: str) -> Any:
    """One typed word as a value, by the rules of recipe files."""
    if holds_text(field.annotation):
        return text
    try:
        return scalar(text)
    except ValueError as e:
        raise RecipeError("a number that is too large", where=where, found=text[:40]) from e


def gather(fields: Mapping[str, FieldInfo], given: Mapping[str, Any]) -> Document:
    """What was typed, as the document that a recipe would hold; each place is named by its flag."""
    document = Document({}, "command line", {(): "command line"})
    for path, field in typeable(fields):
        value = given.get("_".join(path))
        if value is None or value == ():
            continue
        where = path[-1].upper().rstrip("S") if extra(field).get("argument") else flag(path, field)
        document.lines[path] = where
        place = document.tree
        for name in path[:-1]:
            place = place.setdefault(name, {})
        place[path[-1]] = _value(value, field, where)
    return document


def _value(value: Any, field: FieldInfo, where: str) -> Any:
    kind = shape(field.annotation)
    if kind == "switch":
        return value
    if kind == "list":
        split = [value] if isinstance(value, str) else list(value)
        if not extra(field).get("argument") and _refers(field) not in PATHS:  # a comma may be part of a path
            split = [w for v in split for w in v.split(",") if w]
        return [typed(w, field, where) for w in split]
    if kind == "map":
        if _refers(field) not in PATHS:  # a comma may be part of a path
            value = [w for v in value for w in v.split(",") if w]
        pairs = [_pair(v, field, where) for v in value]
        if twice := next((name for i, (name, _) in enumerate(pairs) if name in dict(pairs[:i])), None):
            raise RecipeError("named twice, and only one of them could be used", where=where, found=twice,
                              fix="name each once; several files of one language can be joined into one")
        return dict(pairs)
    return typed(value, field, where)


def _pair(text: str, field: FieldInfo, where: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise RecipeError("not a pair", where=where, found=text[:80], expected="NAME=VALUE",
                          fix=f"for example {where} sw=texts/sw.txt")
    return name, typed(value, field, where)
