"""Training examples made of procedural problems, named in one line: `problems:en?n=2000&seed=1&operations=+-`.

The language comes first, then options: `kind` is solved (prompt and completion, the default), questions (text, no answers),
stories (text) or translation (a question, then the same question in the language `to`); `split`, `n`, `seed`, `steps` (`1,2`) and
`operations` are those of `generate`.
"""

from __future__ import annotations

from collections.abc import Iterator

from polygraft.errors import RecipeError, suggestion
from polygraft.evals.tasks.problems.generate import Problem, generate, prompt
from polygraft.evals.tasks.problems.stories import stories
from polygraft.evals.tasks.problems.text import words

DEFAULTS = {"kind": "solved", "split": "train", "n": "1000", "seed": "0", "steps": "1", "operations": "+-*/", "to": "en"}
KINDS = ("solved", "questions", "stories", "translation")


def options(spec: str) -> tuple[str, dict[str, str]]:
    """The language and every option of `en?n=2000&seed=1`. Raises RecipeError for an unknown option."""
    language, _, rest = spec.partition("?")
    given = dict(pair.partition("=")[::2] for pair in rest.split("&") if pair)
    for key in given:
        if key not in DEFAULTS:
            raise RecipeError("unknown option", where=f"problems:{spec}", found=key, fix=suggestion(key, DEFAULTS))
    return language, DEFAULTS | given


def examples(spec: str) -> Iterator[dict[str, str]]:
    """The examples that `spec` (what follows `problems:`) asks for. Raises RecipeError naming what is wrong with it."""
    language, given = options(spec)
    kind = given["kind"]
    if kind not in KINDS:
        expected = ", ".join(KINDS)
        raise RecipeError("unknown kind", where=f"problems:{spec}", found=kind, expected=expected, fix=suggestion(kind, KINDS))
    try:
        n, seed, steps = int(given["n"]), int(given["seed"]), tuple(int(s) for s in given["steps"].split(","))
    except ValueError as e:
        raise RecipeError("not a whole number", where=f"problems:{spec}", found=str(e)) from e
    if kind == "stories":
        yield from ({"text": text} for text in stories(language, n, seed, given["split"]))
        return

    def problems(tag: str) -> list[Problem]:
        return generate(tag, n, seed, given["split"], steps, given["operations"])

    if kind == "solved":
        yield from ({"prompt": prompt(p), "completion": " " + p.solution} for p in problems(language))
    elif kind == "questions":
        yield from ({"text": p.question} for p in problems(language))
    else:
        yield from (translation(p, q) for p, q in zip(problems(language), problems(given["to"]), strict=True))


def translation(source: Problem, target: Problem) -> dict[str, str]:
    """A question and the same question in the other language, each after its own label. No answer is told."""
    labels = [words(p.language)["prompt"].split("{q}")[0].rstrip() for p in (source, target)]
    return {"prompt": f"{labels[0]} {source.question}\n{labels[1]}", "completion": f" {target.question}"}


__all__ = ["examples"]
