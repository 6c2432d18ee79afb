"""How much memory a training needs on one device, by formula from shapes.

Weights, gradients and AdamW's two moments are exact. Activations are what torch's graph of a decoder layer keeps for its backward
pass (counted in transformers' modules with scaled-dot-product attention, in the manner of Korthikanti et al. 2022, arXiv
2205.05198, section 4.1), in the layers from the lowest trained one upwards: below it there is no graph.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from polygraft.meter import LIBRARIES
from polygraft.tune import extras
from polygraft.tune.head import CHUNK

if TYPE_CHECKING:
    from polygraft.anatomy import Anatomy, Sizes
    from polygraft.tune.settings import Settings

TRAINER = 250 << 20  # bytes of trl, peft, datasets and accelerate, and of what the allocator holds back, beyond LIBRARIES
ROWS, COLUMNS = 4096, 32768  # tokens and words whose logits are in memory at once on a GPU (trl's chunked log-probabilities)
COPIES = 3  # float32 copies of a chunk of logits on a CPU (`head`): as they come, exponentials, a cap's slope


@dataclass(frozen=True)
class Memory:
    """Bytes of one process while an optimiser step is at its largest."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    libraries: int = LIBRARIES + TRAINER

    def rows(self) -> tuple[tuple[str, int], ...]:
        return tuple((f.name, getattr(self, f.name)) for f in fields(self))

    @property
    def total(self) -> int:
        return sum(value for _, value in self.rows())


def need(anatomy: Anatomy, s: Settings, shapes: Mapping[str, Sequence[int]], trained: Mapping[str, int], tokens: int,
         length: int) -> Memory:
    """The memory of a training. shapes: of every tensor of the file; trained: trained elements by key (of an adapter: its pair's);
    tokens: of one forward pass, with padding; length: of one of its rows."""
    some, sizes = sum(trained.values()), anatomy.sizes
    return Memory(
        weights=weights(s, shapes, trained), gradients=4 * some, optimizer=extras.BYTES[s.optimizer] * some,
        activations=activations(anatomy, s, trained, tokens, length),
        logits=logits(sizes.vocab, tokens) + 4 * sum(n for key, n in trained.items() if is_head(anatomy, key)),
    )  # fmt: skip


def logits(vocab: int, tokens: int) -> int:
    """Bytes of the logits that exist at once, on whichever kind of device needs more."""
    return 4 * max(COPIES * min(tokens * vocab, CHUNK), min(tokens, ROWS) * min(vocab, COLUMNS))


def is_head(anatomy: Anatomy, key: str) -> bool:
    """Whether a tensor's gradient comes from the head: it is formed whole before it is added."""
    return anatomy.parts[key].label == ("embed" if anatomy.tied else "head")


def weights(s: Settings, shapes: Mapping[str, Sequence[int]], trained: Mapping[str, int]) -> int:
    """Bytes of the weights as they are held, and of the copies in which autocast computes.

    float32, but for the frozen rest of a part or an adapter that is trained in bfloat16; trained rows lie beside their tensor.
    """
    sizes = {key: math.prod(shape) for key, shape in shapes.items()}
    total, some = sum(sizes.values()), sum(trained.values())
    whole = {key for key, n in trained.items() if n == sizes[key]} if s.method == "full" else set()
    beside = sum(n for key, n in trained.items() if key not in whole)
    part = s.dtype == "bf16" and (s.method == "lora" or some < total)
    moved = sum(sizes[key] for key in whole)
    held = 2 * (total - moved) + 4 * moved if part else 4 * total
    cast = moved + (beside if s.method == "lora" else 0) if part else total + beside  # a graft is read where its tensor is
    casts = 2 * cast if s.dtype == "bf16" else 0
    return held + 4 * beside + casts


def lowest(anatomy: Anatomy, trained: Iterable[str]) -> int:
    """The lowest layer that has a graph: the one with the lowest trained tensor (the embedding lies below all layers)."""
    parts = [anatomy.parts[key] for key in trained]
    if any(p.layer is None and p.kind in ("embed", "position") for p in parts):
        return 0
    return min((p.layer for p in parts if p.layer is not None), default=anatomy.layers)


def activations(anatomy: Anatomy, s: Settings, trained: Iterable[str], tokens: int, length: int) -> int:
    """Bytes that the graph of one forward pass keeps, and of a layer's gradients on the way back."""
    kinds: dict[int, set[str]] = {}
    for key in trained:
        part = anatomy.parts[key]
        if part.layer is not None:
            kinds.setdefault(part.layer, set()).add(part.kind)
    z, wide = anatomy.sizes, 2 if s.dtype == "bf16" else 4
    mask = wide * length  # which every layer makes anew, a row for each token
    layers = [kept(z, kinds.get(i, set()), wide) + mask for i in range(lowest(anatomy, trained), anatomy.layers)]
    if not layers:
        return 0
    back = wide * (3 * max(z.ffn, z.moe_ffn) + 2 * z.hidden)  # gradients of gate, up and their product, and of the stream
    whole = 4 * z.hidden * len(layers) + max(layers) if s.recompute else sum(layers)
    return tokens * (whole + back)


def kept(z: Sizes, trained: set[str], wide: int) -> int:
    """Bytes a token that one layer's graph keeps; trained: the kinds of its parts that move (`attn`, `ffn`, `norm`)."""
    heads = z.heads * z.head_dim  # to which keys and values are repeated
    norms = 4 * z.hidden * (2 + 2 * ("norm" in trained))  # what each norm reads, and what it scales where the scale is trained
    reads = wide * z.hidden * (("attn" in trained) + ("ffn" in trained))  # what q, k, v and gate, up read, where they are trained
    attention = wide * heads * (4 + ("attn" in trained))  # q, k, v, what attention gives; the same as `o` reads it
    experts = 2 if z.experts else 1  # that a token goes through
    ffn = wide * experts * (z.moe_ffn if z.experts else z.ffn) * (3 + ("ffn" in trained))  # gate, its activation, up; their product
    return norms + reads + attention + ffn
