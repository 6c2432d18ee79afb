"""Stand-ins: a model built without weights, whose own forward is followed while something else is called for its layers.

Masks, positions and whatever else a family hands to a layer are made by its own code; parameters are read into it one by one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polygraft.anatomy import Anatomy
from polygraft.errors import InputError
from polygraft.model import Live, device_for, load_tokenizer, quiet

if TYPE_CHECKING:
    import torch

    from polygraft.checkpoint import Weights
    from polygraft.sources import Source

PIECE = 1 << 20  # elements of a tensor that are read and converted at a time: 4 MB


class Reached(BaseException):
    """Carries a value out of a forward that need not go on."""

    def __init__(self, value: Any):
        self.value = value


def stop(value: Any) -> None:
    """End the forward that this is called within, with this value."""
    raise Reached(value)


def hidden_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The hidden state among what a layer is called with. Raises InputError for a layer that shares state with others."""
    shared = [name for name, value in kwargs.items() if isinstance(value, dict | list)]
    if shared or not (args or "hidden_states" in kwargs):
        raise InputError("layers of this family share more than the hidden state, so they cannot be run one at a time",
                         found=", ".join(shared) or "no hidden state", fix="read this model in memory")
    return args[0] if args else kwargs["hidden_states"]


def with_hidden(args: tuple[Any, ...], kwargs: dict[str, Any], hidden: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a layer is called with, with this hidden state among it."""
    return ((hidden, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": hidden})


def layer_list(model: Any, anatomy: Anatomy) -> Any:
    """The list that the model's decoder layers stand in."""
    name = anatomy.live_name(anatomy.keys(layer=0, kind="attn")[0]) or ""
    return model.get_submodule(name.partition(".0.")[0])


def places(model: Any, names: Iterable[str]) -> Iterator[tuple[Any, str]]:
    """Every (module, name) that a parameter stands at: a tied one stands at two."""
    ids = {id(model.get_parameter(name)) for name in names}
    for module in model.modules():
        for name, p in module._parameters.items():
            if p is not None and id(p) in ids:
                yield module, name


@contextlib.contextmanager
def instead(modules: Any, act: Callable[..., Any]) -> Iterator[None]:
    """Within: `act(number, args, kwargs)` is called in the place of each module of the list, and its hooks are not."""
    import torch

    real = dict(modules._modules)
    for name, module in real.items():
        stand: Any = torch.nn.Module()
        for plain, value in vars(module).items():  # such as `attention_type`, which some loops read
            if isinstance(value, str | int) and not plain.startswith("_"):
                setattr(stand, plain, value)
        stand.forward = lambda *args, _number=int(name), **kwargs: act(_number, args, kwargs)
        modules._modules[name] = stand
    try:
        yield
    finally:
        modules._modules.update(real)


def unfilled(source: Source, *, dtype: str = "auto", device: str = "cpu") -> Live:
    """A source as a live model whose parameters lie on the meta device; buffers are as the family computes them.

    Raises InputError where transformers cannot build it.
    """
    weights, place = source.weights, device_for(device)
    folder = source.base.path if source.adapter is not None and source.base is not None else source.path
    anatomy = Anatomy.of(weights.config, weights.tensors, where=source.path)
    with quiet():
        model = _skeleton(folder, weights, dtype)
        tokenizer = load_tokenizer(source.path) or load_tokenizer(folder)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = buffer.to(place)
    return Live(model, tokenizer, anatomy, place)


def _skeleton(folder: Path, weights: Weights, dtype: str) -> Any:
    """The model in eval mode with parameters on the meta device and buffers as the family computes them."""
    import torch
    import transformers
    from accelerate import init_empty_weights

    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        wanted = getattr(torch, dtype) if dtype != "auto" else config.dtype or _own_dtype(weights)
        with init_empty_weights(include_buffers=False):
            make: Any = transformers.AutoModelForCausalLM.from_config
            model = make(config, dtype=wanted).eval()
        model.tie_weights()  # once more: laying parameters on the meta device parts those that are one
        return model
    except (ValueError, OSError, KeyError, RuntimeError) as error:
        first = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError("transformers cannot build this model", where=folder, found=first) from None


def _own_dtype(weights: Weights) -> torch.dtype:
    """The dtype of the first tensor of real numbers, as transformers takes it where config.json names none."""
    import torch

    known = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
    return next((known[t.dtype] for t in weights.tensors.values() if t.dtype in known), torch.float32)


def read(weights: Weights, key: str, target: torch.Tensor) -> None:
    """Fill a live view with a tensor of the files, a piece at a time, converted to the live dtype."""
    import torch

    shape = weights.info(key).shape
    if tuple(target.shape) != tuple(shape):
        raise InputError("a tensor of another shape than config.json says", where=weights.path, found=f"{key}: {list(shape)}",
                         expected=f"{list(target.shape)}")
    flat = target.view(-1)
    for start in range(0, n := flat.numel(), PIECE):
        stop = min(start + PIECE, n)
        flat[start:stop].copy_(torch.from_numpy(weights.f32(key, start, stop)))


def empty_parameter(like: Any, device: str) -> Any:
    """A parameter of this shape and dtype that is not trained; its values are whatever was there."""
    import torch

    return torch.nn.Parameter(torch.empty(like.shape, dtype=like.dtype, device=device), requires_grad=False)
