"""Rows and columns that are trained while the rest of their tensor stays: a gradient and optimiser state for the subset alone.

A graft is a float32 parameter `held` with the selected rows (or columns) of one tensor, `place` says where they lie. The tensor
itself takes no gradient; it always holds the rounded current values, so that the forward pass is the plain model's own. What is
trained is exactly what training the whole tensor and keeping only the selected rows' updates would give, weight decay included,
because AdamW acts on each element by itself. (Neuron-limited tuning, arXiv 2510.13580, trains such rows and columns by masking
whole gradients.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from polygraft.errors import InputError
from polygraft.model import inside

if TYPE_CHECKING:
    import numpy as np
    import torch

    from polygraft.model import Live

SUFFIX = "_graft"  # a graft of a module's `weight` is its parameter `weight_graft0`; decay rules that go by names still apply


@dataclass(frozen=True)
class Place:
    """Where a graft lies: the file tensor, the live parameter that holds it, the file's axis, the sorted rows (None: all)."""

    key: str
    live: str
    axis: int
    rows: Any  # torch.Tensor int64 on the model's device, or None
    part: Callable[[Any], Any]  # from the live parameter's tensor to the file tensor's part of it, as a view

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

    def sync(self) -> None:
        """Write every graft's values into its tensor."""
        import torch

        with torch.no_grad():
            for graft in self.all:
                graft.place.put(self.model.get_parameter(graft.place.live).data, graft.held)


def graft(live: Live, wanted: Mapping[str, tuple[int, np.ndarray | None]], values: Callable[[str], Any]) -> Grafts:
    """Give the model a graft for each of `wanted`: file key -> (axis, rows or None for all of it).

    `values(key)` gives the file tensor as float32 (so that a model held in bfloat16 starts from the file's exact values). Raises
    InputError for a tensor that is no parameter of the live model.
    """
    by_live: dict[str, list[Place]] = {}
    for key, (axis, rows) in wanted.items():
        place = _place(live, key, axis, rows)
        by_live.setdefault(place.live, []).append(place)
    made: list[Graft] = []
    for name, places in by_live.items():
        made += _attach(live.model, name, places, values)
    grafts = Grafts(live.model, tuple(made))
    grafts.sync()
    return grafts


def live_parameter(live: Live, key: str) -> str:
    """The name of the live parameter that file tensor `key` fills. Raises InputError where there is none to train."""
    part, name = live.anatomy.parts[key], live.anatomy.live_name(key)
    if part.label == "head" and live.anatomy.tied:
        found = live.model.get_input_embeddings().weight
        name = next(n for n, p in live.model.named_parameters() if p is found)
    if name is None or name not in dict(live.model.named_parameters()):
        raise InputError("this tensor cannot be trained: it is no parameter of the model", where=key)
    return name


def _place(live: Live, key: str, axis: int, rows: np.ndarray | None) -> Place:
    import torch

    name = live_parameter(live, key)
    where = live.model.get_parameter(name).device
    index = None if rows is None else torch.as_tensor(rows, dtype=torch.int64, device=where)
    return Place(key, name, axis, index, partial(inside, live.anatomy, key))


def _attach(model: Any, name: str, places: list[Place], values: Callable[[str], Any]) -> list[Graft]:
    """Make the parameters of one tensor's grafts, and have every module that uses the tensor (tied ones too) use them."""
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
    for user in model.modules():
        for attribute, parameter in user.named_parameters(recurse=False):
            if parameter is whole:
                _use(user, attribute, [g.place for g in made], [g.held for g in made])
    return made


def _use(module: Any, attribute: str, places: list[Place], held: list[Any]) -> None:
    """Let a module compute with the grafts in its graph: a Linear's rows or columns directly, all else through its forward."""
    import torch

    plain = isinstance(module, torch.nn.Linear) and type(module).forward is torch.nn.Linear.forward and len(places) == 1
    if plain and attribute == "weight" and "forward" not in module.__dict__ and places[0].rows is not None:
        module.forward = partial(_linear, module, places[0], held[0])
        return
    module.forward = partial(_through, module, module.forward, attribute, places, held)


def _through(module: Any, forward: Callable[..., Any], attribute: str, places: list[Place], held: list[Any], *args: Any,
             **kwargs: Any) -> Any:  # fmt: skip
    """The module's forward pass, with the tensor standing for its grafts."""
    whole = module._parameters[attribute]
    del module._parameters[attribute]
    module.__dict__[attribute] = _standing().apply(whole, places, *held)
    try:
        return forward(*args, **kwargs)
    finally:
        del module.__dict__[attribute]
        module._parameters[attribute] = whole


def _linear(module: Any, place: Place, held: Any, x: Any) -> Any:
    return _rows_linear().apply(x, module.weight, module.bias, held, place)


_made: dict[str, Any] = {}


def _standing() -> Any:
    """The autograd function that shows the tensor as it is and leads its gradient's rows to the grafts."""
    import torch

    class Standing(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, whole: Any, places: Iterable[Place], *held: Any) -> Any:
            ctx.places, ctx.dtypes = places, [h.dtype for h in held]
            return whole.view_as(whole)

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            return None, None, *(p.take(grads[0]).to(d) for p, d in zip(ctx.places, ctx.dtypes, strict=True))

    return _made.setdefault("standing", Standing)


def _rows_linear() -> Any:
    """y = x W^T + b, whose backward pass forms the gradient of the selected rows (or columns) of W and of nothing else in W."""
    import torch

    class RowsLinear(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, weight: Any, bias: Any, held: Any, place: Place) -> Any:
            kind = x.device.type
            dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
            x_in, w = x.to(dtype), weight.to(dtype)
            ctx.place, ctx.dtypes, ctx.biased = place, (x.dtype, held.dtype), bias is not None and bias.requires_grad
            ctx.save_for_backward(x_in if place.axis == 0 else x_in.index_select(-1, place.rows), w)
            return torch.nn.functional.linear(x_in, w, None if bias is None else bias.to(dtype))

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            seen, weight = ctx.saved_tensors
            grad, place = grads[0], ctx.place
            out = grad.index_select(-1, place.rows) if place.axis == 0 else grad
            rows = out.flatten(0, -2).T @ seen.flatten(0, -2)
            back = (grad @ weight.to(grad.dtype)).to(ctx.dtypes[0]) if ctx.needs_input_grad[0] else None
            bias = grad.flatten(0, -2).sum(0) if ctx.biased else None
            return back, None, bias, rows.to(ctx.dtypes[1]), None

    return _made.setdefault("linear", RowsLinear)
