"""Who owns what: the parts of one model that a task and a language each have to themselves.

Partition [C] of arXiv 2505.18356: at 32 layers, the bottom 6 and the top 2 are the language's and all the rest is the task's. Other
partitions name layers, kinds of parts (attention, FFN) or a selection that an analysis wrote, down to single neurons.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from polygraft.anatomy_rules import KINDS
from polygraft.errors import RecipeError
from polygraft.maps import Cell, layer_map
from polygraft.selection import Selection, Shapes
from polygraft.selectionfile import WITHIN, Entry
from polygraft.tune import parts

if TYPE_CHECKING:
    from polygraft.anatomy import Anatomy
    from polygraft.result import LayerMap

SIDES = ("task", "language")
BOTTOM, TOP, LAYERS = 6, 2, 32  # the published partition and the depth that it was published for
Owner = Literal["task", "language", "none"]
LABELS = {"0": "task", "1": "language", "2": "rows of each", "3": "nobody"}


@dataclass(frozen=True)
class Parts:
    """What each side owns; what neither does stays as it is."""

    task: Selection
    language: Selection

    @property
    def both(self) -> tuple[Selection, Selection]:
        return self.task, self.language

    @property
    def trained(self) -> Selection:
        return self.task | self.language


def published(layers: int) -> list[int]:
    """The language's layers of partition [C], scaled to this depth and rounded (half to even); at least the lowest."""
    bottom, top = max(1, round(BOTTOM * layers / LAYERS)), round(TOP * layers / LAYERS)
    return sorted({*range(min(bottom, layers)), *range(layers - top, layers)})


def by_words(layers: Sequence[str], kinds: Sequence[str], anatomy: Anatomy, shapes: Shapes) -> Selection:
    """The language's part from words: these kinds of parts (all, where none is named) of these layers.

    Without a word for layers they are all, where parts are named, and else the published ones. Raises RecipeError for a word.
    """
    chosen = parts.layers(layers, anatomy) if layers or kinds else published(anatomy.layers)
    return parts.select(kinds, chosen, anatomy, shapes) if kinds else parts.within(chosen, anatomy)


def partition(language: Selection, task: Selection | None, outside: Owner, anatomy: Anatomy, shapes: Shapes) -> Parts:
    """The language's part, and the task's: what is named, or the rest of the layers. `outside` owns what lies in no layer, unless
    the language's selection or the task's has it.

    Raises RecipeError for an empty side, sides that overlap, and tied embeddings with an owner each.
    """
    movable = {key for key, part in anatomy.parts.items() if anatomy.live_name(key) is not None}
    layered = {key for key in movable if anatomy.parts[key].kind in WITHIN and anatomy.parts[key].layer is not None}
    around = Selection(dict.fromkeys(movable - layered))
    if task is None:
        task = Selection(dict.fromkeys(layered)).difference(language, shapes)
        if outside == "task":
            task = task | around.difference(language, shapes)
    if outside == "language":
        language = language | around.difference(task, shapes)
    language, task = (Selection({k: r for k, r in s.rows.items() if k in movable}, s.axis).normal(shapes) for s in (language, task))
    return _checked(Parts(task, language), anatomy, shapes)


def _checked(made: Parts, anatomy: Anatomy, shapes: Shapes) -> Parts:
    for name, side in zip(SIDES, made.both, strict=True):
        if not side.rows:
            raise RecipeError(f"the {name}'s part is empty: its examples would train nothing", where="partition",
                              fix="leave some layers or parts to either side")
    if shared := sorted((made.task & made.language).rows):
        raise RecipeError("the two parts overlap, and each parameter has one owner", where="partition",
                          found=f"{len(shared)} tensors, such as {shared[0]}", fix="take them out of one of the selections")
    ends = [key for key, part in anatomy.parts.items() if part.label in ("embed", "head") and key.endswith(".weight")]
    if anatomy.tied and len(ends) > 1 and any(_some(side, ends[0]) != _some(side, ends[1]) for side in made.both):
        raise RecipeError("embedding and head are one tensor in this model, and the parts take them apart", where="partition",
                          found=", ".join(ends), fix="give both to one side: `outside`, or both kinds in its selection")
    return made


def _some(side: Selection, key: str) -> list[int] | str | None:
    rows = side.rows.get(key, "")
    return rows.tolist() if isinstance(rows, np.ndarray) else rows


def owners_map(made: Parts, anatomy: Anatomy) -> LayerMap:
    """Who owns what, as a categorical map."""
    cells: dict[Cell, float | None] = {}
    for key, part in anatomy.parts.items():
        if anatomy.live_name(key) is None:
            continue
        owner = {(True, False): 0, (False, True): 1, (True, True): 2}.get((key in made.task, key in made.language), 3)
        before = cells.get((part.label, part.layer))
        cells[part.label, part.layer] = float(owner if before is None or before == owner else 2)
    used = {str(int(v)) for v in cells.values() if v is not None}
    return layer_map(anatomy, cells, "Who owns what", scale="categorical", labels={k: v for k, v in LABELS.items() if k in used})


def entries(side: Selection, anatomy: Anatomy) -> Iterator[Entry]:
    """The side's tensors as entries of a selection file; rows of tensors have no place there and are left out."""
    for key, rows in side.rows.items():
        part = anatomy.parts[key]
        if rows is None and part.kind in KINDS[:-1]:
            yield Entry(part.layer, part.kind, part.role or None, None, part.expert)
