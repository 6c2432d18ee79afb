"""What a training moves, as parameters of the live model: everything, whole tensors, rows of tensors, or an adapter.

Every way of training reduces to a `Selection` over the tensors of the file: its whole tensors take gradients themselves, its rows
become grafts, the rest is held in the type that is computed in and takes no gradient. Layers under the lowest selected one then
run without a graph, because nothing below it asks for one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from polygraft.errors import InputError, RecipeError
from polygraft.selection import Selection
from polygraft.tune.grafts import Grafts, graft, live_parameter

if TYPE_CHECKING:
    from polygraft.anatomy import Anatomy
    from polygraft.checkpoint import Checkpoint
    from polygraft.model import Live


def everything(checkpoint: Checkpoint) -> Selection:
    """Every tensor of the file, whole."""
    return Selection(dict.fromkeys(checkpoint.tensors))


def checked(selection: Selection, anatomy: Anatomy, checkpoint: Checkpoint) -> Selection:
    """The selection in normal form for these tensors, if it can be trained.

    Raises RecipeError where it selects nothing, or one side of tied embeddings that the file keeps as two tensors.
    """
    shapes = {key: t.shape for key, t in checkpoint.tensors.items()}
    found = selection.normal(shapes)
    if not found.rows:
        raise RecipeError("the selection is empty: nothing would be trained", where=checkpoint.path, expected="at least one row",
                          fix="see `polygraft inspect` for the parts of the model")
    embed, head = (_sole(anatomy, label) for label in ("embed", "head"))
    if anatomy.tied and embed and head and (embed in found or head in found):
        both = embed in found and head in found
        if not both or not _alike(found, embed, head):
            raise RecipeError("embedding and head are one tensor in this model, and only one of them is selected",
                              where=checkpoint.path, found=embed if embed in found else head,
                              fix="select both (kinds `embed` and `head`), or neither")
    return found


def _sole(anatomy: Anatomy, label: str) -> str | None:
    return next((key for key, part in anatomy.parts.items() if part.label == label and key.endswith(".weight")), None)


def _alike(selection: Selection, a: str, b: str) -> bool:
    import numpy as np

    one, two = selection.rows[a], selection.rows[b]
    return one is two if one is None or two is None else np.array_equal(one, two)


@dataclass(frozen=True)
class Chosen:
    """The parameters that training moves. `trainable` counts elements of the file (a tied tensor once)."""

    selection: Selection
    grafts: Grafts
    trainable: int

    def value(self, key: str) -> Any:
        """The trained values of file tensor `key` as float32: all of it, or the selected rows."""
        for g in self.grafts.all:
            if g.place.key == key:
                return g.held.detach()
        return None


def choose(live: Live, selection: Selection, checkpoint: Checkpoint) -> Chosen:
    """Freeze the model but for the selection, whose parameters become float32 with the file's exact values."""
    import torch

    def values(key: str) -> Any:
        return torch.from_numpy(checkpoint.f32(key)).reshape(checkpoint.tensors[key].shape)

    wanted = {k: r for k, r in selection.rows.items() if live.anatomy.live_name(k) is not None}
    if live.anatomy.tied and (head := _sole(live.anatomy, "head")) in wanted and _sole(live.anatomy, "embed") in wanted:
        del wanted[str(head)]  # one tensor, trained once
    live.model.requires_grad_(False)
    names = {key: live_parameter(live, key) for key in wanted}
    whole = _whole(live, wanted, names)
    for name in sorted({names[key] for key in whole}):
        parameter = live.model.get_parameter(name)
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    _fill(live, whole, values)
    some = {k: (selection.axis.get(k, 0), rows) for k, rows in wanted.items() if k not in whole}
    grafts = graft(live, some, values)
    trainable = sum(p.numel() for p in live.model.parameters() if p.requires_grad)
    return Chosen(selection, grafts, trainable)


def _whole(live: Live, wanted: dict[str, Any], names: dict[str, str]) -> set[str]:
    """The keys that are selected whole, of live parameters all of whose file tensors are."""
    entire = {key for key, rows in wanted.items() if rows is None}
    return {key for key in entire if len(live.anatomy.file_keys(names[key])) == sum(names[k] == names[key] for k in entire)}


def _fill(live: Live, keys: set[str], values: Callable[[str], Any]) -> None:
    from polygraft.model import view

    for key in sorted(keys):
        target = view(live.model, live.anatomy, key)
        if target is None:
            raise InputError("this tensor cannot be trained: it is no parameter of the model", where=key)
        target.copy_(values(key))


def size(checkpoint: Checkpoint) -> int:
    """Elements of all tensors of the file."""
    return sum(math.prod(t.shape) for t in checkpoint.tensors.values())
