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
    """MGSM's exemplars.json: question and solution in the language, without the labels that the prompt puts before them.

    `english` is the English solution of the same problem (its label ends at the first colon), `number` its answer.
    """
    [book] = rows
    shown, english = book["MGSM_EXEMPLARS"][words["language"]], book["MGSM_EXEMPLARS"].get("en", {})
    return [{"question": e["q"].removeprefix(words["question"]), "solution": e["a"].removeprefix(words["answer"]).strip(),
             "english": english[n]["a"].partition(":")[2].strip() if n in english else None, "number": number}
            for (n, e), number in zip(shown.items(), book.get("EXEMPLAR_NUMBER_ANSWERS") or [None] * len(shown), strict=True)]


SHAPES: dict[str, Shape] = {"mgsm_exemplars": mgsm_exemplars, **shapes_parallel.SHAPES, **shapes_darumeru.SHAPES,
                            **shapes_understanding.SHAPES, **shapes_governance.SHAPES}


def get(name: str) -> Shape:
    """The shape of this name. Raises RecipeError with the nearest."""
    if name not in SHAPES:
        raise RecipeError("no such shape of rows", found=name, fix=suggestion(name, SHAPES))
    return SHAPES[name]
