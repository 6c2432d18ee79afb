"""Word problems made here, as items: the right solution first among the choices, then wrong ones."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from polygraft.config import Strict
from polygraft.evals.items import Item
from polygraft.evals.tasks import problems


class ProblemKind(Strict):
    """Which procedural problems: how many steps, which operations, which split, and beside how many wrong solutions."""

    steps: tuple[int, ...] = Field(default=(1,), description="word problems of so many steps")
    operations: str = Field(default="+-*/", description="operations that word problems may need")
    split: Literal["train", "dev", "test"] = Field(default="test", description="splits share no template, name or number")
    wrong: int = Field(default=2, ge=0, le=2, description="wrong solutions that the right one must beat; 0: it must be what the "
                       "model would write (greedily), which is the cheapest to score")


def word_problems(language: str, n: int, seed: int, kind: ProblemKind) -> list[Item]:
    """n problems with their gold solution (`target` 0) and at most `kind.wrong` wrong ones as choices."""
    drawn = problems.generate(language, n, seed=seed, split=kind.split, steps=kind.steps, operations=kind.operations)
    return [Item(p.id, language, problems.prompt(p), (p.solution, *wrong_solutions(p)[: kind.wrong]), 0, (str(p.answer),))
            for p in drawn]


def wrong_solutions(problem: Any) -> tuple[str, ...]:
    """A solution whose last step takes another operation (and computes it rightly), and one that only miscalculates.

    The first tells whether the question was understood, the second whether the sum was done.
    """
    *before, last = problem.solution.split("\n")
    x, sign, y, _, result = last.split(" ")
    a, b = int(x), int(y)
    other = f"{max(a, b)} - {min(a, b)} = {abs(a - b)}" if sign == "+" else f"{a} + {b} = {a + b}"
    miss = next((d for d in problem.distractors if d != int(other.rsplit(" ", 1)[1])), problem.answer + 1)
    wrong = [other] if other.rsplit(" ", 1)[1] != result else []
    return tuple("\n".join([*before, w]) for w in [*wrong, f"{a} {sign} {b} = {miss}"])
