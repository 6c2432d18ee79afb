"""`tune neurons`: train the rows of gate and up and the columns of down of chosen FFN neurons, and nothing else.

Sparse subnetwork enhancement (arXiv 2510.13580) trains language neurons so on text of their language. A training of as many random
neurons in every layer (`random`) tells what choosing them was good for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from polygraft import selectionfile
from polygraft.errors import RecipeError
from polygraft.result import Table
from polygraft.step import Context, SelectRef, Step
from polygraft.tune import parts
from polygraft.tune.config import Around, Training
from polygraft.tune.running import Task, begin, tuning_step

if TYPE_CHECKING:
    from polygraft.anatomy import Anatomy
    from polygraft.selection import Selection, Shapes


class Neurons(Training):
    """Train chosen FFN neurons: their rows of gate and up, their columns of down. All other weights stay byte for byte."""

    select: SelectRef = Field(description="the neurons: ID_OR_FILE[:NAME[+NAME]], such as the selection.json of analyze neurons")
    parts: tuple[Literal["gate", "up", "down"], ...] = Field((), description="which of the neurons' matrices move: gate, up, down "
                                                             "(default: all that the model has)")
    random: int | None = Field(None, ge=0, description="a control: as many other neurons in every layer, drawn with this seed")


def task(config: Neurons, context: Context, around: Around) -> Task:
    """The examples, and the neurons' rows and columns in this model."""
    made = begin(config, context, around, "Neuron tuning" if config.random is None else "Tuning of random neurons")
    shapes = {key: t.shape for key, t in made.checkpoint.tensors.items()}
    mask, real = found(config, context, made.anatomy)
    selection = rows_of(mask, config.parts, made.anatomy, shapes)
    return replace(made, selection=selection, summary=(told(config, mask, real),), tables=(by_layer(mask, real),),
                   data={"neurons": int(mask.sum()), "neurons_of": int(real.sum())})


def told(config: Neurons, mask: np.ndarray, real: np.ndarray) -> str:
    """Which neurons, how many, where."""
    some, total = int(mask.sum()), int(real.sum())
    moved = f" ({', '.join(config.parts)} alone)" if config.parts else ""
    drawn = "" if config.random is None else " Drawn at random: as many in each layer as the selection has, and none of its own."
    return f"Neurons{moved}: {some:,} of {total:,} ({some / total:.2%}), in {mask.any(1).sum()} of {len(mask)} layers.{drawn}"


def found(config: Neurons, context: Context, anatomy: Anatomy) -> tuple[np.ndarray, np.ndarray]:
    """The neurons that are trained, and those that there are, bool [layers, neurons]. Raises for an empty or foreign selection."""
    entries = selectionfile.pick(config.select, context.folder)
    sizes = [sum(block.size for block in anatomy.neurons(layer)) for layer in range(anatomy.layers)]
    real = np.arange(max(sizes)) < np.asarray(sizes)[:, None]
    mask = selectionfile.neurons(entries, anatomy.layers, sizes, anatomy.sizes.experts)
    if not mask.any():
        raise RecipeError("no neuron is selected: nothing would be trained", where=config.select, found="none",
                          expected="at least one neuron", fix="name another selection, or find neurons with another setting")
    if config.random is None:
        return mask, real
    if (crowded := np.flatnonzero(2 * mask.sum(1) > real.sum(1))).size:
        raise RecipeError("there are not as many other neurons to draw", where=f"random, layer {crowded[0]}",
                          found=f"{mask[crowded[0]].sum()} of {sizes[crowded[0]]} selected", expected="at most half of a layer",
                          fix="select fewer neurons, or compare with another selection")
    return selectionfile.matched(mask, real, config.random), real


def rows_of(mask: np.ndarray, matrices: Sequence[str], anatomy: Anatomy, shapes: Shapes) -> Selection:
    """The neurons' rows and columns, of all their matrices or of some. Raises RecipeError for a matrix that the model lacks."""
    blocks = [block for layer in range(anatomy.layers) for block in anatomy.neurons(layer)]
    have = [name for name in ("gate", "up", "down") if any(getattr(block, name) for block in blocks)]
    if lacking := next((name for name in matrices if name not in have), None):
        raise RecipeError("this model's neurons have no such part", where="parts", found=lacking, expected=", ".join(have),
                          fix=f"leave `{lacking}` out")
    experts = anatomy.sizes.experts if any(p.expert is not None for p in anatomy.parts.values()) else 0
    whole = selectionfile.on(selectionfile.from_mask(mask, experts), anatomy, shapes)
    return whole & parts.select(matrices, np.flatnonzero(mask.any(1)), anatomy, shapes) if matrices else whole


def by_layer(mask: np.ndarray, real: np.ndarray) -> Table:
    """How many neurons of each layer are trained."""
    counts = enumerate(zip(mask.sum(1), real.sum(1), strict=True))
    rows = tuple((layer, int(n), int(of), f"{n / of:.2%}") for layer, (n, of) in counts if n)
    return Table("Neurons by layer", ("layer", "trained", "of", "share"), rows, "layers without a trained neuron are left out")


def neurons_step(around: Around) -> Step:
    return tuning_step("tune.neurons", Neurons, task, around)
