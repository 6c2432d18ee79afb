"""`tune lora`: an adapter on some parts, some layers, or what a selection says down to single neurons."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from polygraft import selectionfile
from polygraft.errors import RecipeError
from polygraft.selection import Selection
from polygraft.step import Context, SelectRef, Step
from polygraft.tune import adapters, parts
from polygraft.tune.config import Adapter, Around, Training
from polygraft.tune.parts import Listed
from polygraft.tune.running import Task, begin, share_map, tuning_step

if TYPE_CHECKING:
    from polygraft.anatomy import Anatomy
    from polygraft.selection import Shapes

REACHED = "What the merged adapter can change"


class Lora(Adapter, Training):
    """LoRA on chosen parts, layers or neurons. Merged, the adapter changes what was chosen and nothing else."""

    parts: Listed = Field((), description="what gets an adapter: attn, ffn, q, k, v, o, gate, up, down (default: attn and ffn)",
                          json_schema_extra={"metavar": "A,B,..."})
    layers: Listed = Field((), description="in which layers, from 0: 0-5, 28- (default: all)",
                           json_schema_extra={"metavar": "A-B,..."})
    select: SelectRef | None = Field(None, description="only what a selection has of them, down to single neurons: "
                                     "ID_OR_FILE[:NAME[+NAME]]")
    attention: tuple[Literal["q", "k", "v", "o"], ...] = Field(
        (), description="beside the selection, these attention matrices whole, in all of `layers`: q, k, v, o")

    @property
    def way(self) -> Literal["lora", "full"]:
        return "lora"


def task(config: Lora, context: Context, around: Around) -> Task:
    """The examples, and the matrices, rows and columns that get an adapter."""
    made = begin(config, context, around, "LoRA tuning")
    shapes = {key: t.shape for key, t in made.checkpoint.tensors.items()}
    selection, left = chosen(config, context, made.anatomy, shapes)
    found = adapters.slots(made.anatomy, shapes, selection)
    reach, total = sum(slot.reach for slot in found), sum(prod(shape) for shape in shapes.values())
    told = (f"{len(found)} matrices get an adapter of rank {config.r}; merged, it can change {reach:,} parameters "
            f"({reach / total:.2%} of the model).")
    reached = share_map(made.anatomy, made.checkpoint, {slot.key: slot.reach for slot in found})
    return replace(made, selection=selection, caveats=left, planned=(told,), maps=(replace(reached, title=REACHED),))


def chosen(config: Lora, context: Context, anatomy: Anatomy, shapes: Shapes) -> tuple[Selection, tuple[str, ...]]:
    """What gets an adapter, and what is left out. Raises RecipeError where nothing remains, or where LoRA cannot lie on it."""
    layers = parts.layers(config.layers, anatomy)
    if config.select is None:
        if config.attention:
            raise RecipeError("`attention` stands beside a selection, and there is none", where="attention",
                              fix="name it under `parts`")
        if config.parts:
            return adapters.fitted(parts.select(config.parts, layers, anatomy, shapes), anatomy, shapes)[0], ()
        able = Selection(dict.fromkeys(adapters.adaptable(anatomy, shapes)))
        return parts.within(layers, anatomy) & able, adapters.left_out(anatomy)
    selection = selectionfile.on(selectionfile.pick(config.select, context.folder), anatomy, shapes) & parts.within(layers, anatomy)
    if config.parts:
        selection = selection & parts.select(config.parts, layers, anatomy, shapes)
    if not selection.rows:
        raise RecipeError("the selection has nothing in these parts and layers: nothing would be trained", where=config.select,
                          expected="at least one row", fix="see its entries, and `polygraft inspect` for the parts of the model")
    if config.attention:
        selection = selection | parts.select([f"attn.{role}" for role in config.attention], layers, anatomy, shapes)
    return adapters.fitted(selection, anatomy, shapes)


def lora_step(around: Around) -> Step:
    return tuning_step("tune.lora", Lora, task, around)
