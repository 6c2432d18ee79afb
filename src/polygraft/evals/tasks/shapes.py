"""Shapes: small pure functions from rows to rows, for files that are not one question a row. A task file names one in `shape:`.

Each takes the file's rows (dicts) and the language's words (with `language` and `code`), and returns rows that templates can read.
A row that lacks what a shape needs raises KeyError or TypeError, which the reader turns into an error naming the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from polygraft.errors import RecipeError, suggestion
from polygraft.evals.tasks import shapes_darumeru, shapes_governance, shapes_parallel, shapes_understanding

Row = dict[str, Any]
Shape = Callable[[list[Row], Mapping[str, Any]], list[Row]]


def mgsm_exemplars(rows: list[Row], words: Mapping[str, Any]) -> list[Row]:
    """MGSM's exemplars.json, or its `train` rows on the hub: question and solution in the language, without the prompt's labels.

    `english` is the English solution of the same problem, `number` its answer.
    """
    if "MGSM_EXEMPLARS" in rows[0]:
        [book] = rows
        shown, english = book["MGSM_EXEMPLARS"][words["language"]], book["MGSM_EXEMPLARS"].get("en", {})
        numbers = book.get("EXEMPLAR_NUMBER_ANSWERS") or [None] * len(shown)
        found = [(e["q"], e["a"], english.get(n, {}).get("a"), k) for (n, e), k in zip(shown.items(), numbers, strict=True)]
    else:  # one configuration a language, in one order of problems
        own, en = ([r for r in rows if r["part"] == part] for part in (words["code"], "en"))
        found = [(r["question"], r["answer"], e["answer"], r["answer_number"]) for r, e in zip(own, en, strict=True)]
    return [{"question": q.removeprefix(words["question"]), "solution": a.removeprefix(words["answer"]).strip(),
             "english": told if told is None else told.removeprefix("Step-by-Step Answer:").strip(), "number": number}
            for q, a, told, number in found]


SHAPES: dict[str, Shape] = {"mgsm_exemplars": mgsm_exemplars, **shapes_parallel.SHAPES, **shapes_darumeru.SHAPES,
                            **shapes_understanding.SHAPES, **shapes_governance.SHAPES}


def get(name: str) -> Shape:
    """The shape of this name. Raises RecipeError with the nearest."""
    if name not in SHAPES:
        raise RecipeError("no such shape of rows", found=name, fix=suggestion(name, SHAPES))
    return SHAPES[name]
