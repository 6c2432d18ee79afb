"""Taps: read and edit a running model at exact points, and prove that every point was passed.

Points: "act" (output of the MLP's activation function: the FFN neurons), "down" (input of the down projection: act(gate) * up),
"residual" (output of a decoder layer), "attention" (output of attention's o projection: what attention adds to the stream, but for
families that put a norm behind it, gemma 2 and 3 and olmo2, what goes into that norm). "input.qkv", "input.o", "input.ffn" are the
inputs of those matrices (of a mixture's router and experts too), "input.layer" of a decoder layer: the stream before it; "shared":
what the down projection of a mixture's shared expert reads.
A tap that does not fire once per layer, pass and token is an error, never a silent zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from polygraft.errors import InputError, StepFailed

if TYPE_CHECKING:
    import torch

    from polygraft.anatomy import Anatomy

POINTS = ("act", "down", "residual", "attention", "input.qkv", "input.o", "input.ffn", "input.layer", "shared")
INPUTS = ("down", "shared", *(p for p in POINTS if p.startswith("input.")))  # seen before the module runs, the others after it
ACTIVATIONS = ("act_fn", "act", "activation_fn", "gelu_impl")


@dataclass(frozen=True)
class Passing:
    """What a tap saw: `value` is [batch, tokens, width] ([tokens, width] for experts and for opt's flattened MLP).

    `expert` and `tokens` are set in a mixture: the rows of `value` belong to those flat token positions, which chose that expert.
    """

    point: str
    layer: int
    value: torch.Tensor
    expert: int | None = None
    tokens: torch.Tensor | None = None


Observer = Callable[[Passing], "torch.Tensor | None"]


class Taps:
    """`with Taps(model, anatomy, observe, points=["act"]): model(...)`. A tensor that `observe` returns replaces the value.

    `layers` are those to tap (all). Leaving the block checks the counts. Raises InputError where a point cannot be found in this
    model, StepFailed where it was not passed as often as it must be.
    """

    def __init__(self, model: Any, anatomy: Anatomy, observe: Observer, *, points: Iterable[str] = ("act",),
                 layers: Iterable[int] | None = None):
        self.model, self.anatomy, self.observe = model, anatomy, observe
        self.points = tuple(points)
        within = tuple(range(anatomy.layers) if layers is None else layers)
        self.tokens = 0
        self.seen: Counter[tuple[str, int]] = Counter()
        self.sites = [(p, i, *_site(model, anatomy, p, i)) for p in self.points for i in within]
        ids = [id(module) for point, _, module, _ in self.sites if point == "act"]
        if len(set(ids)) != len(ids):
            raise InputError("layers share one activation module, so they cannot be told apart", where=anatomy.where)
        self._removers: list[Any] = []
        self._eager: Any = None

    def __enter__(self) -> Taps:
        if any(experts is not None for *_, experts in self.sites):  # the grouped kernels mix experts: one after another instead
            self._eager = self.model.config._experts_implementation
            self.model.set_experts_implementation("eager")
        embedding = self.model.get_input_embeddings()
        self._removers = [embedding.register_forward_hook(self._count_tokens)]
        for point, layer, module, experts in self.sites:
            self._removers += self._attach(point, layer, module, experts)
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        for remover in self._removers:
            remover.remove()
        if self._eager is not None:
            self.model.set_experts_implementation(self._eager)
        if kind is None:
            self.check()

    def check(self) -> None:
        """Every point of every layer saw every token once (once for each expert that the token chose)."""
        for point, layer, _, experts in self.sites:
            expected = self.tokens * (1 if experts is None else _chosen(self.anatomy))
            if (found := self.seen[point, layer]) != expected:
                where = f"tap {point}, layer {layer}"
                raise StepFailed(
                    "the tap did not see each token once", where=where, found=f"{found} tokens", expected=f"{expected}"
                )

    def _count_tokens(self, _module: Any, _inputs: Any, output: torch.Tensor) -> None:
        self.tokens += output.numel() // output.shape[-1]

    def _pass(
        self, point: str, layer: int, value: torch.Tensor, expert: int | None = None, tokens: Any = None
    ) -> torch.Tensor | None:
        self.seen[point, layer] += value.numel() // value.shape[-1]
        return self.observe(Passing(point, layer, value, expert, tokens))

    def _attach(self, point: str, layer: int, module: Any, experts: Any) -> list[Any]:
        if experts is not None:
            return self._attach_experts(layer, module, experts)
        if point in INPUTS:

            def enters(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
                value = self._pass(point, layer, args[0] if args else kwargs["hidden_states"])
                return None if value is None else _entering(args, kwargs, value)

            return [module.register_forward_pre_hook(enters, with_kwargs=True)]
        return [module.register_forward_hook(lambda _m, _a, out: _replaced(out, self._pass(point, layer, _first(out))))]

    def _attach_experts(self, layer: int, module: Any, experts: Any) -> list[Any]:
        queue: list[tuple[int, Any]] = []

        def routed(_module: Any, args: tuple[Any, ...]) -> None:
            chosen = args[1]  # (tokens, k): the eager loop visits the experts that were chosen, in rising order
            queue[:] = [(int(e), _rows_of(chosen, e)) for e in chosen.unique()]

        def fired(_module: Any, _args: Any, out: torch.Tensor) -> torch.Tensor | None:
            expert, tokens = queue.pop(0)
            return self._pass("act", layer, out, expert, tokens)

        return [experts.register_forward_pre_hook(routed), module.register_forward_hook(fired)]


def _rows_of(chosen: torch.Tensor, expert: torch.Tensor) -> torch.Tensor:
    """Token positions in the order in which the expert gets them: by rank of choice, then by position."""
    import torch

    return torch.where((chosen == expert).T)[1]


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def _replaced(output: Any, value: Any) -> Any:
    if value is None:
        return None
    return (value, *output[1:]) if isinstance(output, tuple) else value


def _entering(args: tuple[Any, ...], kwargs: dict[str, Any], value: Any) -> tuple[Any, Any]:
    return ((value, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": value})


def _chosen(anatomy: Anatomy) -> int:
    return int(anatomy.config["num_experts_per_tok"])


def _site(model: Any, anatomy: Anatomy, point: str, layer: int) -> tuple[Any, Any]:
    """The module to hook for a point of a layer, and the experts module where the layer is a mixture."""
    if point not in POINTS:
        raise InputError("unknown tap", found=point, expected=", ".join(POINTS))
    if point in ("residual", "input.layer"):
        return layer_module(model, anatomy, layer), None
    if point not in ("act", "down"):
        return _matrix(model, anatomy, point, layer), None
    mixture = anatomy.keys(layer=layer, role="experts.down")
    keys = mixture or [k for k in anatomy.keys(layer=layer, kind="ffn", role="down") if not k.endswith(".bias")]
    if not keys:
        raise InputError("the layer has no feed-forward part to tap", where=anatomy.where, found=f"layer {layer}")
    name = anatomy.live_name(keys[0]) or ""
    if mixture and point == "down":
        raise InputError("experts compute their down projection without a module of its own, so it cannot be tapped",
                         where=f"layer {layer}", fix='tap "act" instead')  # fmt: skip
    if point == "down":
        return model.get_submodule(name.rpartition(".")[0]), None
    owner = model.get_submodule(name.rpartition(".")[0] if mixture else name.rpartition(".")[0].rpartition(".")[0])
    return _activation(owner, layer), owner if mixture else None


def _matrix(model: Any, anatomy: Anatomy, point: str, layer: int) -> Any:
    """The module whose input or output a point is: the first of those that share it."""
    kind, roles = {
        "attention": ("attn", ("o",)), "input.o": ("attn", ("o",)), "input.qkv": ("attn", ("q", "qkv")),
        "input.ffn": ("ffn", ("router", "gate", "gate_up", "up")), "shared": ("ffn", ("shared.down",)),
    }[point]  # fmt: skip
    for role in roles:
        for key in anatomy.keys(layer=layer, kind=kind, role=role):
            if name := anatomy.live_name(key):
                return model.get_submodule(name.rpartition(".")[0])
    raise InputError("the layer has no such matrix to tap", where=anatomy.where, found=f"{point}, layer {layer}",
                     expected=", ".join(f"{kind}.{r}" for r in roles))


def _activation(owner: Any, layer: int) -> Any:
    found = [child for name, child in owner.named_children() if name in ACTIVATIONS]
    if len(found) != 1:
        expected = "one of " + ", ".join(ACTIVATIONS)
        raise InputError(
            "the MLP has no activation module to tap", where=f"layer {layer}", found=type(owner).__name__, expected=expected
        )
    return found[0]


def layer_module(model: Any, anatomy: Anatomy, layer: int) -> Any:
    """The decoder layer as a module of the live model."""
    name = anatomy.live_name(anatomy.keys(layer=layer, kind="attn")[0]) or ""
    head, _, _ = name.partition(f".{layer}.")
    return model.get_submodule(f"{head}.{layer}")
