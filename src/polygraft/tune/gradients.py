"""How a module computes while only some rows of its tensors are trained: its own forward pass, and a gradient of those rows alone.

y = x W^T + b needs dL/dW[rows] = (dL/dy)[:, rows]^T x, and for columns (dL/dy)^T x[:, cols]: a product as small as the subset. Of
an embedding the backward pass has one gradient for each token read, from which the selected rows are summed. Any other module
(stacked experts) forms the gradient of its whole tensor for a moment, of which the rows are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from polygraft.tune.grafts import Graft, Place

Grafted = Mapping[str, "Sequence[Graft]"]  # by the name of a module's parameter: the grafts that lie in it


def use(module: Any, grafted: Grafted) -> None:
    """Let `module` compute with these grafts in its graph."""
    import torch

    forward, rest = module.forward, dict(grafted)
    turned = _orientation(module)
    if turned is not None and "weight" in rest:
        forward = partial(_product, module, forward, rest.pop("weight"), turned)
    if isinstance(module, torch.nn.Embedding):
        forward = partial(_by_token, module, forward)
    module.forward = partial(_through, module, forward, rest) if rest else forward


def _orientation(module: Any) -> bool | None:
    """Whether a module that is nothing but a product holds its weight as [in, out]; None for every other module."""
    import torch
    from transformers.pytorch_utils import Conv1D

    for kind, turned in ((torch.nn.Linear, False), (Conv1D, True)):
        if isinstance(module, kind) and type(module).forward is kind.forward and "forward" not in module.__dict__:
            return turned
    return None


@contextmanager
def shown(module: Any, grafted: Grafted) -> Iterator[None]:
    """Within, these parameters of the module are read as tensors of the same values that lead their gradient to the grafts."""
    before = {name: module.__dict__[name] for name in grafted if name in module.__dict__}
    for name, grafts in grafted.items():
        module.__dict__[name] = _standing().apply(module._parameters[name], [g.place for g in grafts], *(g.held for g in grafts))
    try:
        yield
    finally:
        for name in grafted:
            del module.__dict__[name]
        module.__dict__.update(before)


def _through(module: Any, forward: Callable[..., Any], grafted: Grafted, *args: Any, **kwargs: Any) -> Any:
    import torch

    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    with shown(module, grafted):
        return forward(*args, **kwargs)


def _by_token(module: Any, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """An embedding's own forward pass, whose gradient comes as one row for each token read, not as the whole table.

    `sparse` is not left on the module: DistributedDataParallel would expect it of the grafts' own gradients, which are dense.
    """
    before, module.sparse = module.sparse, True
    try:
        return forward(*args, **kwargs)
    finally:
        module.sparse = before


def _product(module: Any, forward: Callable[..., Any], grafts: Sequence[Graft], turned: bool, x: Any) -> Any:
    import torch

    if not torch.is_grad_enabled():
        return forward(x)
    places = [g.place for g in grafts]
    return _rows_product().apply(x, module.weight, module.bias, places, turned, *(g.held for g in grafts))


@cache
def _standing() -> Any:
    """The autograd function that shows a tensor as it is and leads its gradient's rows to the grafts."""
    import torch

    class Standing(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, whole: Any, places: Sequence[Place], *held: Any) -> Any:
            ctx.places, ctx.dtypes = places, [h.dtype for h in held]
            return whole.view_as(whole)

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            wanted = zip(ctx.places, ctx.dtypes, ctx.needs_input_grad[2:], strict=True)
            return None, None, *(_taken(place, grads[0], dtype) if needed else None for place, dtype, needed in wanted)

    return Standing


def _taken(place: Place, grad: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A place's rows of the gradient of its whole tensor, which may be an embedding's: sparse [V, H], a row for each token."""
    import torch

    if not grad.is_sparse:
        return place.take(grad).to(dtype)
    if place.axis or place.rows is None:
        return place.take(grad.to_dense()).to(dtype)
    tokens, values = grad._indices()[0], grad._values()
    at = torch.searchsorted(place.rows, tokens).clamp_(max=len(place.rows) - 1)
    chosen = place.rows[at] == tokens
    return values.new_zeros(len(place.rows), values.shape[1], dtype=dtype).index_add_(0, at[chosen], values[chosen].to(dtype))


@cache
def _rows_product() -> Any:
    """y = x W^T + b (or x W + b, turned), whose backward pass forms the gradient of the selected rows or columns of W alone."""
    import torch

    class RowsProduct(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, weight: Any, bias: Any, places: Sequence[Place], turned: bool, *held: Any) -> Any:
            kind = x.device.type
            dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
            seen, w = x.to(dtype), (weight.T if turned else weight).to(dtype)
            ctx.places, ctx.turned = places, turned
            ctx.dtypes = x.dtype, None if bias is None else bias.dtype, [h.dtype for h in held]
            inputs = [_inputs(p, seen, turned) if h.requires_grad else None for p, h in zip(places, held, strict=True)]
            ctx.save_for_backward(w if x.requires_grad else None, *inputs)
            return torch.nn.functional.linear(seen, w, None if bias is None else bias.to(dtype))

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            (weight, *inputs), grad = ctx.saved_tensors, grads[0]
            flat = grad.flatten(0, -2)
            back = (grad @ weight).to(ctx.dtypes[0]) if ctx.needs_input_grad[0] else None
            bias = flat.sum(0).to(ctx.dtypes[1]) if ctx.needs_input_grad[2] else None
            each = zip(ctx.places, inputs, ctx.dtypes[2], ctx.needs_input_grad[5:], strict=True)
            held = (_rows(place, flat, seen, ctx.turned).to(dtype) if needed else None for place, seen, dtype, needed in each)
            return back, None, bias, None, None, *held

    return RowsProduct


def _inputs(place: Place, x: torch.Tensor, turned: bool) -> torch.Tensor:
    """What of a product's inputs [..., in] a place's gradient needs: all for rows of outputs, the selected ones for columns."""
    return x if place.axis == int(turned) or place.rows is None else x.index_select(-1, place.rows)


def _rows(place: Place, grad: torch.Tensor, seen: torch.Tensor, turned: bool) -> torch.Tensor:
    """The gradient of a place, from that of the outputs [tokens, out] and the inputs that `_inputs` kept."""
    out = grad.index_select(-1, place.rows) if place.axis == int(turned) and place.rows is not None else grad
    return seen.flatten(0, -2).T @ out if turned else out.T @ seen.flatten(0, -2)
