"""Rows and columns that are trained while the rest of their tensor stays: a gradient and optimiser state for the subset alone.

A graft is a float32 parameter `held` with the selected rows (or columns) of one tensor, `place` says where they lie. The tensor
itself takes no gradient; it always holds the rounded current values, so that the forward pass is the plain model's own. What is
trained is exactly what training the whole tensor and keeping only the selected rows' updates would give, weight decay included,
because AdamW acts on each element by itself. (Neuron-limited tuning, arXiv 2510.13580, trains such rows and columns by masking
whole gradients.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from polygraft.errors import InputError
from polygraft.model import inside
from polygraft.tune.gradients import Grafted, shown, use

if TYPE_CHECKING:
    import numpy as np
    import torch

    from polygraft.model import Live

SUFFIX = "_graft"  # a graft of a module's `weight` is its parameter `weight_graft0`; decay rules that go by names still apply


def itself(whole: Any) -> Any:
    """The part of a live parameter that a file tensor fills, where it fills all of it."""
    return whole


@dataclass(frozen=True)
class Place:
    """Where a graft lies: the file tensor, the live parameter that holds it, the file's axis, the sorted rows (None: all)."""

    key: str
    live: str
    axis: int
    rows: Any  # torch.Tensor int64 on the model's device, or None
    part: Callable[[Any], Any] = itself  # from the live parameter's tensor to the file tensor's part of it, as a view

    def take(self, whole: torch.Tensor) -> torch.Tensor:
        """The selected rows of a tensor that is shaped like the live parameter, as a copy."""
        part = self.part(whole)
        return part.clone() if self.rows is None else part.index_select(self.axis, self.rows)

    def put(self, whole: torch.Tensor, held: torch.Tensor) -> None:
        """Write the rows into the live parameter's tensor, rounded to its dtype."""
        part = self.part(whole)
        if self.rows is None:
            part.copy_(held)
        else:
            part.index_copy_(self.axis, self.rows, held.to(part.dtype))


@dataclass(frozen=True)
class Graft:
    """One trained subset: its place, and the parameter that is trained, float32 [as the tensor, but only the selected rows]."""

    place: Place
    held: Any  # torch.nn.Parameter
    name: str  # its name among the model's parameters


@dataclass(frozen=True)
class Grafts:
    """All grafts of one model. Call `sync` after every change of what they hold: the forward pass reads the tensors."""

    model: Any
    all: tuple[Graft, ...]
    head: tuple[Any, Grafted] = (None, {})

    def shown(self) -> AbstractContextManager[None]:
        """Within, the output head's weights lead to their grafts wherever they are read (a fused loss reads them by itself)."""
        return shown(*self.head) if self.head[1] else nullcontext()

    def sync(self) -> None:
        """Write every graft's values into its tensor."""
        import torch

        with torch.no_grad():
            for graft in self.all:
                graft.place.put(self.model.get_parameter(graft.place.live).data, graft.held)


def graft(live: Live, wanted: Iterable[tuple[str, int, np.ndarray | None]], values: Callable[[str], Any]) -> Grafts:
    """Give the model a graft for each of `wanted`: (file key, axis, rows or None for all of it), no row of a tensor twice.

    `values(key)` gives the file tensor as float32 (so that a model held in bfloat16 starts from the file's exact values). Raises
    InputError for a tensor that is no parameter of the live model.
    """
    return at(live.model, (_place(live, key, axis, rows) for key, axis, rows in wanted), values)


def at(model: Any, places: Iterable[Place], values: Callable[[str], Any]) -> Grafts:
    """Give the model a graft at each of these places. `values` as of `graft`."""
    by_live: dict[str, list[Place]] = {}
    for place in places:
        by_live.setdefault(place.live, []).append(place)
    made = {name: _attached(model, name, same, values) for name, same in by_live.items()}
    grafts = Grafts(model, tuple(g for grafts in made.values() for g in grafts), _lead(model, made))
    grafts.sync()
    return grafts


def live_parameter(live: Live, key: str) -> str:
    """The name of the live parameter that file tensor `key` fills. Raises InputError where there is none to train."""
    part, name = live.anatomy.parts[key], live.anatomy.live_name(key)
    if part.label == "head" and live.anatomy.tied:
        found = live.model.get_input_embeddings().weight
        name = next(n for n, p in live.model.named_parameters() if p is found)
    try:
        live.model.get_parameter(name or "")
    except AttributeError:
        name = None
    if name is None:
        raise InputError("this tensor cannot be trained: it is no parameter of the model", where=key)
    return name


def _place(live: Live, key: str, axis: int, rows: np.ndarray | None) -> Place:
    import torch

    name = live_parameter(live, key)
    where = live.model.get_parameter(name).device
    index = None if rows is None else torch.as_tensor(rows, dtype=torch.int64, device=where)
    return Place(key, name, axis, index, partial(inside, live.anatomy, key))


def _attached(model: Any, name: str, places: list[Place], values: Callable[[str], Any]) -> list[Graft]:
    """The grafts of one tensor, as parameters beside it; the tensor itself takes no gradient any more."""
    import torch

    whole = model.get_parameter(name)
    whole.requires_grad_(False)
    home, _, own = name.rpartition(".")
    module, made = model.get_submodule(home), []
    for i, place in enumerate(places):
        value = values(place.key).to(whole.device, torch.float32)
        rows = value if place.rows is None else value.index_select(place.axis, place.rows)
        held = torch.nn.Parameter(rows.clone())
        module.register_parameter(f"{own}{SUFFIX}{i}", held)
        made.append(Graft(place, held, f"{home}.{own}{SUFFIX}{i}".lstrip(".")))
    return made


def _lead(model: Any, made: Mapping[str, list[Graft]]) -> tuple[Any, Grafted]:
    """Have every module that reads a grafted tensor (tied ones too) lead its gradient to the grafts. Gives the head and its own."""
    tensors = {id(model.get_parameter(name)): grafts for name, grafts in made.items()}
    head = model.get_output_embeddings()
    found: dict[str, list[Graft]] = {}
    for module in model.modules():
        own = module.named_parameters(recurse=False)
        if grafted := {attribute: tensors[id(p)] for attribute, p in own if id(p) in tensors}:
            use(module, grafted)
            found |= grafted if module is head else {}
    return head, found
