"""Configs that refuse what they do not know: pydantic models, and their errors as `file:line: path: message`.

Everything wrong with a text is reported at once, with what was found, what was expected and, for a slip of the keyboard, the word
that was probably meant.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from polygraft.errors import RecipeError, did_you_mean, suggestion
from polygraft.yamltext import Document, Place, parse_document

M = TypeVar("M", bound=BaseModel)


class Strict(BaseModel):
    """A config: frozen, every key known, defaults validated like values that were typed."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


def changed(config: BaseModel, names: Iterable[str]) -> list[str]:
    """Those of these fields that are not as they are when nothing is said, each in backquotes: for one that would do nothing."""
    fields = type(config).model_fields
    return [f"`{name}`" for name in names
            if getattr(config, name) != fields[name].get_default(call_default_factory=True)]  # type: ignore[call-arg]


class Unfit(ValueError):
    """What a validator raises of values that do not go together: said as any other fault, with what to do about it."""

    def __init__(self, what: str, *, found: str | None = None, expected: str | None = None, fix: str | None = None):
        super().__init__(what)
        self.found, self.expected, self.fix = found, expected, fix


@dataclass(frozen=True)
class Fault:
    """One thing wrong with what was typed."""

    where: str
    what: str
    found: str | None = None
    expected: str | None = None
    fix: str | None = None

    def error(self) -> RecipeError:
        return RecipeError(self.what, where=self.where, found=self.found, expected=self.expected, fix=self.fix)


def raise_faults(faults: Iterable[Fault]) -> None:
    """Raise one RecipeError that tells every fault; return when there is none."""
    errors = [f.error() for f in dict.fromkeys(faults)]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise RecipeError(f"{len(errors)} problems\n" + "\n".join(e.render() for e in errors))


# ------------------------------------------------------------------------------------------------------------- validation


def parse(model: type[M], document: Document, at: Place = (), *, drop: tuple[str, ...] = ()) -> M:
    """The value at `at` as a `model`. Types are taken strictly: "3" is not a number. Raises RecipeError with all faults."""
    value, faults = try_parse(model, document, at, drop=drop)
    raise_faults(faults)
    assert value is not None
    return value


def filled(kind: type[M], fields: Mapping[str, Any]) -> M:
    """A config from the arguments of a Python function. Raises RecipeError naming each field that is wrong."""
    try:
        return kind(**fields)
    except ValidationError as e:
        told = [": ".join(filter(None, (".".join(map(str, x["loc"])), x["msg"].removeprefix("Value error, ")))) for x in e.errors()]
        unknown = next((str(x["loc"][0]) for x in e.errors() if x["type"] == "extra_forbidden"), None)
        fix = suggestion(unknown, kind.model_fields) if unknown else None
        raise RecipeError("; ".join(told), where=kind.__name__.lower(), fix=fix) from e


def try_parse(model: type[M], document: Document, at: Place = (), *, drop: tuple[str, ...] = ()) -> tuple[M | None, list[Fault]]:
    """`parse` for a caller that goes on collecting faults. `drop` names keys that are not the model's."""
    tree = lookup(document.tree, at)
    if not isinstance(tree, dict):
        return None, [Fault(document.where(at), label_of(at) + "not a mapping", describe(tree), "keys with values (`key: value`)")]
    tree = {k: v for k, v in tree.items() if k not in drop}
    try:
        return model.model_validate_json(json.dumps(tree), strict=True), []
    except ValidationError as e:
        return None, _faults(e, model, tree, document, at)


def _line(where: str) -> int:
    tail = where.rpartition(":")[2]
    return int(tail) if tail.isdecimal() else 0


def lookup(tree: Any, path: Place) -> Any:
    for name in path:
        tree = tree[name]
    return tree


def _faults(e: ValidationError, model: type[BaseModel], tree: Any, document: Document, at: Place) -> list[Fault]:
    """Pydantic's errors in words; the branches of a union that all failed at one place become one fault."""
    grouped: dict[Place, list[Any]] = {}
    for error in e.errors(include_url=False):
        grouped.setdefault(_place(tree, error), []).append(error)
    deeper = [p for p in grouped if any(q != p and q[: len(p)] == p for q in grouped)]
    faults = [_fault(place, errors, model, tree, document, at) for place, errors in grouped.items() if place not in deeper]
    return sorted(faults, key=lambda f: _line(f.where))


def _place(tree: Any, error: Any) -> Place:
    """Pydantic's `loc` without the names of union branches, which stand for nothing that was typed."""
    place: list[str | int] = []
    loc = error["loc"]
    for i, name in enumerate(loc):
        last = i == len(loc) - 1
        if (isinstance(tree, dict) and name in tree) or (isinstance(tree, list) and isinstance(name, int) and name < len(tree)):
            tree = tree[name]
            place.append(name)
        elif last and error["type"] == "missing":
            place.append(name)
    return tuple(place)


def _fault(place: Place, errors: list[Any], model: type[BaseModel], tree: Any, document: Document, at: Place) -> Fault:
    path, first = (*at, *place), errors[0]
    where, label = document.where(path), label_of(_unnamed(path, document))
    if first["type"] == "missing":
        what = f"{label_of(path[:-1])}`{place[-1]}` is missing"
        return Fault(where, what, expected=_field_words(model, place), fix=f"add `{place[-1]}:`")
    if first["type"] == "extra_forbidden":
        here = next((e["loc"][:-1] for e in errors), ())
        choices = _known_keys(model, here)
        return Fault(where, f"{label_of(path[:-1])}unknown key `{place[-1]}`", fix=suggestion(str(place[-1]), choices))
    value = lookup(tree, place)
    if raised := [e["ctx"]["error"] for e in errors if e["type"] == "value_error"]:
        return _raised(where, label, raised, value if errors[0]["loc"][-1:] != ("[key]",) else place[-1])
    expected = " or ".join(dict.fromkeys(_expected(e) for e in errors)) or None
    fix = None
    literals = [w for e in errors if e["type"] in ("literal_error", "enum") for w in _quoted(e["ctx"]["expected"])]
    if literals and isinstance(value, str) and (near := did_you_mean(value, literals)):
        fix = f"did you mean `{near}`?"
    return Fault(where, label + "not what is expected here", describe(value), expected, fix)


def _raised(where: str, label: str, raised: list[ValueError], value: Any) -> Fault:
    """What validators have said of a value; of one with keys, those are shown that they named."""
    what, first = "; ".join(map(str, raised)), next((e for e in raised if isinstance(e, Unfit)), Unfit(""))
    return Fault(where, label + what, first.found or _shown(value, what), first.expected, first.fix)


def _shown(value: Any, what: str) -> str:
    """The values of the keys that stand in backquotes in `what`, else the value in words."""
    named = list(dict.fromkeys(re.findall(r"`(\w+)`", what)))
    if not named or not isinstance(value, Mapping):
        return describe(value)
    given = ", ".join(f"`{k}` {_short(value[k])}" for k in named if k in value)
    return given or ("none of them" if len(named) > 1 else "nothing")


def _short(value: Any) -> str:
    """A value as it was written, about."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:60] + "..."


def _unnamed(path: Place, document: Document) -> Place:
    """As much of a place as its `where` does not say: a command line's names the flag, and entries of a list say what they are."""
    words = (document.lines.get(path[:n]) for n in range(len(path) + 1))
    flag = next((n for n, word in enumerate(words) if n and isinstance(word, str) and not word.startswith("--set ")), 0)
    return path if not flag else tuple(name for name in path[flag:] if isinstance(name, str))


def _quoted(text: str) -> list[str]:
    return [w for w in text.replace(" or ", ", ").replace("'", "").split(", ") if w]


def label_of(path: Place) -> str:
    """`steps[0].bottom: `, or nothing at the top."""
    text = ""
    for name in path:
        text += f"[{name}]" if isinstance(name, int) else f".{name}" if text else str(name)
    return text + ": " if text else ""


_WORDS = {
    "int": "a whole number", "float": "a number", "string": "text", "bool": "true or false", "list": "a list", "tuple": "a list",
    "dict": "a mapping (`key: value`)", "model": "a mapping (`key: value`)", "path": "a path", "none": "nothing", "set": "a list",
    "frozen_set": "a list",
}
_LIMITS = {
    "greater_than": ("more than", "gt"), "greater_than_equal": ("at least", "ge"), "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"), "multiple_of": ("a multiple of", "multiple_of"),
}


def _expected(error: Any) -> str:
    """One pydantic error type in plain words."""
    kind, context = error["type"], error.get("ctx", {})
    if kind in ("literal_error", "enum"):
        return "one of " + ", ".join(_quoted(context["expected"]))
    if kind in _LIMITS:
        words, name = _LIMITS[kind]
        return f"{words} {context[name]}"
    if kind in ("too_short", "string_too_short"):
        return f"at least {context.get('min_length')} {'characters' if kind.startswith('string') else 'entries'}"
    if kind in ("too_long", "string_too_long"):
        return f"at most {context.get('max_length')} {'characters' if kind.startswith('string') else 'entries'}"
    if kind == "string_pattern_mismatch":
        return f"text like /{context['pattern']}/"
    if kind == "finite_number":
        return "a finite number"
    stem = kind.removesuffix("_type").removesuffix("_parsing").removesuffix("_from_float").removesuffix("_attributes")
    return _WORDS.get(stem, error["msg"])


def describe(value: Any) -> str:
    """A value in words, short and on one line: for `found:`."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"the number {str(value)[:60]}"
    if isinstance(value, str):
        return "empty text" if not value else f"text {json.dumps(value[:60], ensure_ascii=False)}{'...' if len(value) > 60 else ''}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, Mapping):
        return "a mapping with " + (", ".join(f"`{k}`" for k in list(value)[:5]) or "no keys")
    return type(value).__name__


def _models_at(annotation: Any) -> list[type[BaseModel]]:
    """Every config class inside an annotation: `list[A | B]` -> A, B."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for a in get_args(annotation) for m in _models_at(a)]


def _known_keys(model: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    """The keys that a config knows at a place below `model`."""
    models: list[type[BaseModel]] = [model]
    for name in loc:
        fields = [m.model_fields[name] for m in models if name in m.model_fields]
        named = [m for m in models if m.__name__ == name]  # a branch of a union
        models = [m for f in fields for m in _models_at(f.annotation)] if fields else named or models
    return sorted({k for m in models for k in m.model_fields})


def _field_words(model: type[BaseModel], place: Place) -> str | None:
    """What a missing field is, from its description or, for a choice, its choices."""
    models: list[type[BaseModel]] = [model]
    for name in place[:-1]:
        fields = [m.model_fields[str(name)] for m in models if str(name) in m.model_fields]
        models = [x for f in fields for x in _models_at(f.annotation)] if fields else models
    known = next((m.model_fields[str(place[-1])] for m in models if str(place[-1]) in m.model_fields), None)
    if known is None:
        return None
    if get_origin(known.annotation) is Literal:
        return "one of " + ", ".join(str(a) for a in get_args(known.annotation))
    return known.description


# -------------------------------------------------------------------------------------------------------------- overrides


def override(document: Document, settings: Iterable[str]) -> Document:
    """Apply `--set a.b=value`: values are read by the rules of the file. `steps.<id>.field`, `steps.0.field`, `models.name`.

    Raises RecipeError for a setting without `=`, a place that does not exist, or a value that is not YAML. Keys unknown to a step
    are left for `parse` to refuse, with the setting as their place.
    """
    tree, lines = json.loads(json.dumps(document.tree)), dict(document.lines)
    for setting in settings:
        where = f"--set {setting}"
        path, equals, text = setting.partition("=")
        if not equals or not path.strip():
            raise RecipeError("not a setting", where=where, expected="--set path.to.key=value")
        place = _assign(tree, path.strip().split("."), _value(text, where), where)
        for old in [p for p in lines if p[: len(place)] == place]:
            del lines[old]
        lines[place] = where
    return Document(tree, document.file, lines)


def _value(text: str, where: str) -> Any:
    """The value of a setting, read by the rules of the file; nothing after `=` is nothing."""
    if not text.strip():
        return None
    try:
        return parse_document(text, where).tree
    except RecipeError as e:
        raise RecipeError("the value is not YAML", where=where, found=e.found or e.what, fix="put it in quotes") from e


def _assign(tree: Any, names: list[str], value: Any, where: str) -> Place:
    """Put `value` at the place that `names` describe, and return it."""
    place: list[str | int] = []
    for i, name in enumerate(names):
        key = _step_into(tree, name, where, last=i == len(names) - 1)
        place.append(key)
        if i == len(names) - 1:
            tree[key] = value
        else:
            tree = tree[key]
    return tuple(place)


def _step_into(tree: Any, name: str, where: str, *, last: bool) -> str | int:
    if isinstance(tree, list):
        known = {str(x["id"]): i for i, x in enumerate(tree) if isinstance(x, dict) and "id" in x}
        index = known.get(name, int(name) if name.isdecimal() and name.isascii() else None)
        if index is None or index >= len(tree):
            raise RecipeError(f"no entry `{name}`", where=where, expected=f"a position below {len(tree)}, or an id",
                              fix=suggestion(name, known) if known else None)
        return index
    if not isinstance(tree, dict):
        raise RecipeError(f"`{name}` has no place here", where=where, found=describe(tree), expected="a mapping or a list")
    if not last and name not in tree:
        raise RecipeError(f"no key `{name}`", where=where, fix=suggestion(name, tree))
    return name
