"""Rows of tensors: where FFN neurons and attention heads are, whatever way a family fuses or transposes its weights.

FFN neuron j of a layer is row j of gate and up and column j of down; its activation is act_fn(gate(x))_j, or act_fn(up(x))_j where
there is no gate. Head j is its rows of q, k and v and its columns of o.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from polygraft.errors import InputError

if TYPE_CHECKING:
    from polygraft.anatomy import Anatomy


@dataclass(frozen=True)
class Address:
    """Rows `start` to `stop` (half-open) along `axis` of the tensor `key`, as it is shaped in the file."""

    key: str
    axis: int
    start: int
    stop: int

    def at(self, j: int) -> Address:
        """The single row j of this range, counted from its start. Raises IndexError beyond it."""
        if not 0 <= j < self.stop - self.start:
            raise IndexError(f"row {j} of {self}")
        return Address(self.key, self.axis, self.start + j, self.start + j + 1)


@dataclass(frozen=True)
class Neurons:
    """The `size` FFN neurons of one layer or one expert. `gate` is empty for an ungated MLP; biases on the way in are included."""

    layer: int
    expert: int | None
    size: int
    gate: tuple[Address, ...]
    up: tuple[Address, ...]
    down: tuple[Address, ...]

    def neuron(self, j: int) -> tuple[Address, ...]:
        """Every address of neuron j."""
        return tuple(address.at(j) for address in (*self.gate, *self.up, *self.down))


def neurons(anatomy: Anatomy, layer: int) -> tuple[Neurons, ...]:
    """The neuron blocks of a layer, in order of expert. Raises InputError if the layer has no MLP or experts are stacked."""
    if anatomy.keys(layer=layer, role="experts.gate_up"):
        raise InputError("experts stacked in one tensor have no rows of their own; use the names in the files", where=anatomy.where)
    parts = [anatomy.parts[key] for key in anatomy.keys(layer=layer, kind="ffn")]
    experts = sorted({part.expert for part in parts if part.expert is not None})
    blocks = [_block(anatomy, layer, expert) for expert in experts]
    if parts and not blocks:
        blocks = [_block(anatomy, layer, None)]
    if not blocks:
        raise InputError("the layer has no feed-forward neurons", where=anatomy.where, found=f"layer {layer}")
    return tuple(blocks)


def _block(anatomy: Anatomy, layer: int, expert: int | None) -> Neurons:
    size = anatomy.sizes.ffn if expert is None else anatomy.sizes.moe_ffn
    prefix = "" if expert is None else "experts."
    inward, outward = (1, 0) if anatomy.traits.transposed else (0, 1)

    def rows(role: str, offset: int = 0) -> tuple[Address, ...]:
        keys = anatomy.keys(layer=layer, kind="ffn", role=prefix + role, expert=expert)
        return tuple(Address(k, 0 if k.endswith(".bias") else inward, offset, offset + size) for k in keys)

    gate, up = rows("gate") or rows("gate_up"), rows("up") or rows("gate_up", size)
    down_keys = anatomy.keys(layer=layer, kind="ffn", role=prefix + "down", expert=expert)
    down = tuple(Address(k, outward, 0, size) for k in down_keys if not k.endswith(".bias"))
    return Neurons(layer, expert, size, gate, up, down)


def heads(anatomy: Anatomy, layer: int) -> dict[str, tuple[tuple[Address, ...], ...]]:
    """For q and o one entry a head, for k and v one a key-value head. Raises InputError for a fused layout that is not known."""
    sizes, inward, outward = anatomy.sizes, *((1, 0) if anatomy.traits.transposed else (0, 1))
    dim = sizes.head_dim
    out = [k for k in anatomy.keys(layer=layer, kind="attn", role="o") if not k.endswith(".bias")]
    found = {"o": tuple(tuple(Address(k, outward, j * dim, (j + 1) * dim) for k in out) for j in range(sizes.heads))}
    starts = _starts(anatomy) if anatomy.keys(layer=layer, kind="attn", role="qkv") else None
    for role, count in (("q", sizes.heads), ("k", sizes.kv_heads), ("v", sizes.kv_heads)):
        keys = anatomy.keys(layer=layer, kind="attn", role="qkv" if starts else role)
        begins = starts[role] if starts else [j * dim for j in range(count)]
        found[role] = tuple(tuple(Address(k, 0 if k.endswith(".bias") else inward, b, b + dim) for k in keys) for b in begins)
    return {role: found[role] for role in "qkvo"}


def _starts(anatomy: Anatomy) -> dict[str, list[int]]:
    """First row of each head inside a fused q-k-v tensor."""
    heads, kv, dim = anatomy.sizes.heads, anatomy.sizes.kv_heads, anatomy.sizes.head_dim
    if anatomy.traits.qkv == "stacked":
        firsts = {"q": range(heads), "k": range(heads, heads + kv), "v": range(heads + kv, heads + 2 * kv)}
    elif anatomy.traits.qkv in ("heads", "groups"):  # "heads" is "groups" with one query a group
        per = heads // kv
        at = [(j // per) * (per + 2) + j % per for j in range(heads)]
        firsts = {"q": at, "k": range(per, kv * (per + 2), per + 2), "v": range(per + 1, kv * (per + 2), per + 2)}  # type: ignore[dict-item]
    else:
        raise InputError(
            "the layout of this fused q-k-v tensor is not known", where=anatomy.where, found=anatomy.config.get("model_type")
        )
    return {role: [first * dim for first in order] for role, order in firsts.items()}
