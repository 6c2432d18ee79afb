"""Templates of task files: Jinja2 in a sandbox, where a missing column, an empty cell or a list is an error and never text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from polygraft.errors import InputError, RecipeError, suggestion

LONGEST = 1_000_000  # characters of a rendered text
STEPS = 10_000  # of all loops, in one rendering: nested loops multiply
BARE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*\Z")
METHODS = {  # of text, in templates; none makes much out of little
    "strip", "lstrip", "rstrip", "lower", "upper", "capitalize", "title", "casefold", "split", "rsplit", "splitlines",
    "partition", "rpartition", "replace", "removeprefix", "removesuffix", "startswith", "endswith", "find", "rfind", "index",
    "count", "isdigit", "isdecimal", "isspace", "join",
}
FILTERS = {
    "trim", "lower", "upper", "capitalize", "title", "join", "first", "last", "length", "count", "int", "float", "round",
    "string", "list", "sort", "reverse", "unique", "default", "d", "abs", "sum", "min", "max", "select", "reject", "map",
    "selectattr", "rejectattr", "items", "dictsort",
}


class _TooLong(Exception):
    pass


class _TooManySteps(Exception):
    pass


@cache
def _guard() -> Any:
    """What a template's syntax tree goes through."""
    from jinja2 import nodes
    from jinja2.visitor import NodeTransformer

    class Guard(NodeTransformer):
        """Counts the steps of loops, and keeps out what makes much out of little."""

        def generic_visit(self, node: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(node, nodes.Macro | nodes.CallBlock | nodes.Block | nodes.With | nodes.AssignBlock):
                raise _refused(f"`{type(node).__name__.lower()}`", node.lineno)
            if isinstance(node, nodes.Assign) and any(node.find_all((nodes.List, nodes.Tuple, nodes.Dict, nodes.Concat))):
                raise _refused("`set` of more than a value", node.lineno)
            return super().generic_visit(node, *args, **kwargs)

        def visit_For(self, node: Any) -> Any:
            if node.recursive or any(inner.find(nodes.For) for inner in node.find_all(nodes.For)):
                raise _refused("loops in loops in loops", node.lineno)
            node = self.generic_visit(node)
            node.iter = nodes.Filter(node.iter, "_counted", [], [], None, None, lineno=node.lineno)
            return node

    return Guard()


@cache
def _environment() -> Any:
    from jinja2 import StrictUndefined, pass_context
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    @pass_context
    def counted(context: Any, found: Any) -> Iterator[Any]:
        for x in found:
            context.steps = getattr(context, "steps", 0) + 1
            if context.steps > STEPS:
                raise _TooManySteps
            yield x

    class Environment(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"+", "*", "**", "%"})

        def _parse(self, *args: Any) -> Any:
            return _guard().visit(super()._parse(*args))

        def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
            if isinstance(obj, str | bytes):
                return attr in METHODS
            return super().is_safe_attribute(obj, attr, value)

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "+" and isinstance(left, str) and isinstance(right, str) and len(left) + len(right) <= LONGEST:
                return left + right
            if operator == "**" or not all(isinstance(x, int | float) and abs(x) < 1e9 for x in (left, right)):
                raise TypeError(f"`{operator}` of these is not computed here")
            return super().call_binop(context, operator, left, right)

        def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
            name, text = getattr(obj, "__name__", ""), getattr(obj, "__self__", None)
            if name == "join" and isinstance(text, str):
                return joined(args[0], text)
            if name == "replace" and isinstance(text, str) and (len(text) + 1) * max(len(str(a)) for a in args) > 10 * LONGEST:
                raise _TooLong
            return super().call(context, obj, *args, **kwargs)

    env = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False, finalize=_plain)
    env.filters = {k: v for k, v in env.filters.items() if k in FILTERS}
    env.filters |= {"_counted": counted, "join": joined}
    env.globals = {"range": env.globals["range"]}
    return env


def _refused(what: str, line: int) -> RecipeError:
    return RecipeError(f"{what} is not used in templates of tasks", where=f"line {line} of the template",
                       expected="columns, `if`, `set`, and `for` at most two deep", fix="give the rows the text, or use `shape:`")


def joined(found: Iterable[Any], between: str = "", attribute: str | None = None) -> str:
    """The filter and method `join`, within LONGEST characters."""
    parts = [str(x if attribute is None else x[attribute]) for x in found]
    if len(between) * len(parts) + sum(map(len, parts)) > LONGEST:
        raise _TooLong
    return between.join(parts)


def _plain(value: Any) -> Any:
    """What a place of a template becomes: whole floats lose their `.0`; what is not text, number or truth value is refused."""
    from jinja2 import Undefined

    if isinstance(value, float) and value.is_integer():
        return int(value)
    if value is None or not isinstance(value, str | int | float | Undefined):
        raise TypeError("nothing" if value is None else f"a {'list' if isinstance(value, list | tuple) else type(value).__name__}")
    return value


@cache
def compiled(template: str) -> Any:
    """The template, ready. Raises RecipeError for text that is no template."""
    from jinja2 import TemplateError

    try:
        return _environment().from_string(template)
    except (TemplateError, RecursionError) as e:
        raise RecipeError("not a template", found=template[:200], expected=f"Jinja2: {e}",
                          fix="`{{column}}` puts in a column") from e


@cache
def columns(template: str) -> frozenset[str]:
    """The names of columns that a template (or bare name) reads."""
    if BARE.match(template):
        return frozenset({template})
    from jinja2 import meta

    return frozenset(meta.find_undeclared_variables(_environment().parse(template))) - {"w", "language", "range"}


def render(template: str, fields: Mapping[str, Any], where: object, *, name: str = "") -> str:
    """The template with the fields put in. Raises InputError naming place, column and template."""
    from jinja2 import TemplateError, UndefinedError

    if "{" not in template:
        return template
    try:
        parts, size = [], 0
        for part in compiled(template).generate(fields):
            parts.append(part)
            size += len(part)
            if size > LONGEST:
                raise _TooLong
        return "".join(parts)
    except UndefinedError as e:
        raise _missing(str(e), fields, where, name) from e
    except _TooLong as e:
        raise InputError(f"`{name}` makes a text that is too long", where=where, expected=f"at most {LONGEST:,} characters") from e
    except _TooManySteps as e:
        raise RecipeError(f"the loops of `{name}` take too many steps", where=where, found=template[:80],
                          expected=f"at most {STEPS:,} for one row", fix="loop over less") from e
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, MemoryError, RecursionError) as e:
        raise InputError(f"`{name}` cannot be made from this row", where=where, found=str(e)[:200],
                         expected=f"what {template[:80]!r} needs", fix="look at the row, and at the template") from e


def _missing(said: str, fields: Mapping[str, Any], where: object, name: str) -> InputError:
    found = re.search(r"'([^']+)' is undefined|has no (?:attribute|element) '?([^']+)'?", said)
    word = (found[1] or found[2]) if found else said
    known = [str(k) for k in fields if k not in ("w", "language")]
    return InputError(f"`{name}` needs a column that the row does not have", where=where, found=word,
                      expected="one of " + ", ".join(known[:20]), fix=suggestion(word, known))


def value(expression: str, fields: Mapping[str, Any], where: object, *, name: str = "") -> Any:
    """A bare name (`answers`, `w.markers`) as the value itself, anything else as a rendered template."""
    if not BARE.match(expression):
        return render(expression, fields, where, name=name)
    found: Any = fields
    for part in expression.split("."):
        if not isinstance(found, Mapping) or part not in found:
            raise _missing(f"'{part}' is undefined", found if isinstance(found, Mapping) else {}, where, name)
        found = found[part]
    return found
