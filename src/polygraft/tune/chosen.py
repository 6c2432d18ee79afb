"""What a training moves, as parameters of the live model: everything, whole tensors, rows of tensors, or an adapter.

Every way of training reduces to a `Selection` over the tensors of the file: its whole tensors take gradients themselves, its rows
become grafts, the rest is held in the type that is computed in and takes no gradient. Layers under the lowest selected one then
run without a graph, because nothing below it asks for one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from polygraft.anatomy import Anatomy
from polygraft.errors import InputError, RecipeError
from polygraft.floats import FLOATS
from polygraft.selection import Selection
from polygraft.tune.grafts import Graft, Grafts, graft, live_parameter

if TYPE_CHECKING:
    import torch

    from polygraft.checkpoint import Checkpoint
    from polygraft.model import Live


def everything(checkpoint: Checkpoint) -> Selection:
    """Every tensor of the file that is a parameter of the model, whole. Raises RecipeError where one cannot be trained."""
    anatomy = Anatomy.of(checkpoint.config, checkpoint.tensors, where=checkpoint.path)
    own = [key for key in checkpoint.tensors if anatomy.live_name(key) is not None]
    return checked(Selection(dict.fromkeys(own)), anatomy, checkpoint)


def checked(selection: Selection, anatomy: Anatomy, checkpoint: Checkpoint) -> Selection:
    """The selection in normal form for these tensors, if it can be trained.

    Raises RecipeError where it selects nothing, one side of tied embeddings that the file keeps as two tensors, a buffer (a table
    of angles, a mask), or a tensor whose numbers are no floating-point ones of 16 bits or more.
    """
    shapes = {key: t.shape for key, t in checkpoint.tensors.items()}
    found = selection.normal(shapes)
    if not found.rows:
        raise RecipeError("the selection is empty: nothing would be trained", where=checkpoint.path, expected="at least one row",
                          fix="see `polygraft inspect` for the parts of the model")
    for key in found.rows:
        _trainable(key, anatomy, checkpoint)
    embed, head = (_sole(anatomy, label) for label in ("embed", "head"))
    if anatomy.tied and embed and head and (embed in found or head in found):
        both = embed in found and head in found
        if not both or not _alike(found, embed, head):
            raise RecipeError("embedding and head are one tensor in this model, and only one of them is selected",
                              where=checkpoint.path, found=embed if embed in found else head,
                              fix="select both (kinds `embed` and `head`), or neither")
    return found


def _trainable(key: str, anatomy: Anatomy, checkpoint: Checkpoint) -> None:
    where, dtype = f"{checkpoint.path}: {key}", checkpoint.tensors[key].dtype
    if anatomy.live_name(key) is None:
        raise RecipeError("a buffer cannot be trained: the model computes it, or does not read it", where=where,
                          fix="select weights: attn, ffn, norm, embed or head")  # fmt: skip
    if dtype not in FLOATS:
        raise RecipeError("quantised numbers cannot be trained", where=where, found=dtype, expected=" or ".join(FLOATS),
                          fix="use an unquantised copy of the model (its original bf16 or fp16 release)")  # fmt: skip


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
    same: Mapping[str, str] = field(default_factory=dict)  # a file tensor that is another one's tensor in the model: a tied head

    def value(self, live: Live, key: str) -> torch.Tensor:
        """The trained values of the selected file tensor `key`, float32 on the model's device: all of it, or the selected rows."""
        from polygraft.model import view

        if mine := [g for g in self.grafts.all if g.place.key == self.same.get(key, key)]:
            return joined(mine)
        found = view(live.model, live.anatomy, key)
        assert found is not None, key  # `checked` lets no buffer through
        return found.detach().float()


def choose(live: Live, selection: Selection, checkpoint: Checkpoint, parts: Sequence[Selection] = ()) -> Chosen:
    """Freeze the model but for the selection, whose parameters become float32 with the file's exact values.

    `parts`: disjoint parts of the selection, all of it, that take turns in training: no parameter holds weights of two of them.
    """
    import torch

    def values(key: str) -> Any:
        return torch.from_numpy(checkpoint.f32(key)).reshape(checkpoint.tensors[key].shape)

    wanted, same = dict(selection.rows), {}
    embed, head = (_sole(live.anatomy, label) for label in ("embed", "head"))
    if live.anatomy.tied and embed in wanted and head in wanted:
        same[str(head)] = str(embed)
        del wanted[str(head)]  # one tensor, trained once
    live.model.requires_grad_(False)
    names = {key: live_parameter(live, key) for key in wanted}
    owners = {name: [p for p in parts if any(key in p and names[key] == name for key in wanted)] for name in set(names.values())}
    whole = {key for key in _whole(live, wanted, names) if len(owners[names[key]]) < 2}
    exact = {key for key in whole if live.model.get_parameter(names[key]).dtype == torch.float32}
    for name in sorted({names[key] for key in whole}):
        parameter = live.model.get_parameter(name)
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    _fill(live, whole - exact, values)
    some = [(key, part.axis.get(key, 0), part.rows[key]) for key in wanted if key not in whole
            for part in (owners[names[key]] or [selection]) if key in part]  # fmt: skip
    grafts = graft(live, some, values)
    trainable = sum(p.numel() for p in live.model.parameters() if p.requires_grad)
    return Chosen(selection, grafts, trainable, same)


def joined(grafts: Sequence[Graft]) -> torch.Tensor:
    """The values of one file tensor's grafts, their rows in rising order."""
    import torch

    values = [g.held.detach() for g in grafts]
    if len(grafts) == 1:
        return values[0]
    order = torch.cat([g.place.rows for g in grafts]).argsort()
    return torch.cat(values, grafts[0].place.axis).index_select(grafts[0].place.axis, order)


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
