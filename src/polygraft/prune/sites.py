"""Where pruned matrices read: matrices of one layer that share an input share its statistics (q, k, v; gate and up)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from polygraft.anatomy import Anatomy
from polygraft.errors import InputError

if TYPE_CHECKING:
    import torch

POINTS = {"q": "input.qkv", "k": "input.qkv", "v": "input.qkv", "qkv": "input.qkv", "o": "input.o",
          "gate": "input.ffn", "up": "input.ffn", "gate_up": "input.ffn", "down": "down",
          "shared.gate": "input.ffn", "shared.up": "input.ffn", "shared.down": "shared"}  # fmt: skip


@dataclass(frozen=True, order=True)
class Site:
    """The input of matrices of one layer: the tap `point` that sees it, and the expert that they belong to (-1: none)."""

    layer: int
    point: str
    expert: int = -1


def sites(anatomy: Anatomy, shapes: Mapping[str, Sequence[int]], layer: int) -> dict[Site, tuple[str, ...]]:
    """The matrices of one layer that can be pruned, by the site of their input: keys of the file, in its order.

    Linear weights alone, a mixture's shared experts among them: no embedding, head, norm, bias, router.

    Raises InputError where there is none.
    """
    found: dict[Site, tuple[str, ...]] = {}
    for key in anatomy.keys(layer=layer):
        part = anatomy.parts[key]
        point = POINTS.get(part.role.removeprefix("experts."))
        if point is None or part.kind not in ("attn", "ffn") or len(shapes[key]) < 2:
            continue
        site = Site(layer, point, -1 if part.expert is None else part.expert)
        found[site] = (*found.get(site, ()), key)
    if not found:
        raise InputError("the layer has no matrix that can be pruned", where=anatomy.where, found=f"layer {layer}")
    return found


def oriented(weight: torch.Tensor, anatomy: Anatomy) -> torch.Tensor:
    """A file's matrix as [out, in], as a view: gpt2 stores [in, out]."""
    return weight.T if anatomy.traits.transposed else weight
