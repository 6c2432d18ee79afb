"""Every error a person can cause names where, what was found and expected, and how to mend it.

Exit codes: 0 ok, 1 our bug, 2 what was typed (recipe, flags), 3 an input missing or refused, 4 resources, 5 a step failed,
6 done, but criteria are not met, 130 interrupted.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

LISTED = 60  # words that an error lists


class UserError(Exception):
    """A fault that the user can mend. Rendered as one sentence and up to three labelled lines, never as a traceback."""

    exit_code = 3

    def __init__(self, what: str, *, where: object = None, found: Any = None, expected: Any = None, fix: str | None = None):
        self.what, self.where, self.found, self.expected, self.fix = what, where, found, expected, fix
        super().__init__(self.render())

    def render(self) -> str:
        head = f"{_visible(self.where)}: {self.what}" if self.where is not None else self.what
        pairs = (("found", self.found), ("expected", self.expected), ("fix", self.fix))
        return "\n".join([head, *(f"  {name}: {value}" for name, value in pairs if value is not None)])

    def __reduce__(self):  # keyword-only arguments do not survive the default pickling between worker processes
        return _rebuild, (type(self), self.what, self.__dict__)


def _visible(where: object) -> str:
    """A place on one line: a file's name may hold newlines and terminal codes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(where))


def _rebuild(cls: type[UserError], what: str, state: dict) -> UserError:
    error = cls(what)
    error.__dict__.update(state)
    error.args = (error.render(),)
    return error


class RecipeError(UserError):
    """What was typed is wrong: a recipe, a flag, a value."""

    exit_code = 2


class InputError(UserError):
    """An input is missing or refused: a model folder, a tensor file, a corpus."""

    exit_code = 3


class ResourceError(UserError):
    """The machine lacks something: disk, memory, permission to write."""

    exit_code = 4


class StepFailed(UserError):
    """A step of a recipe began and could not finish."""

    exit_code = 5


class CriteriaFailed(UserError):
    """Everything was done and written, and a model does not meet what criteria.yaml demands."""

    exit_code = 6


def did_you_mean(word: str, choices: Iterable[str]) -> str | None:
    """The nearest known word, or None when nothing is near enough to be a likely slip."""
    by_folded = {c.casefold(): c for c in choices}
    near = difflib.get_close_matches(word.casefold(), list(by_folded), n=1, cutoff=0.6)
    return by_folded[near[0]] if near else None


def suggestion(word: str, choices: Iterable[str]) -> str:
    """`did you mean `x`?` or the list of what is known (of many the first): a ready `fix` line."""
    known = sorted(choices)
    near = did_you_mean(word, known)
    more = f" and {len(known) - LISTED:,} more" if len(known) > LISTED else ""
    return f"did you mean `{near}`?" if near else "known: " + ", ".join(known[:LISTED]) + more
