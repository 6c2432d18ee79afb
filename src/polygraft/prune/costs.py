"""What pruning a model would take, from headers: memory, disk and time, and every matrix that the pattern does not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from polygraft.anatomy import Anatomy
from polygraft.blocks import LIMIT, block_bytes
from polygraft.checkpoint import Weights
from polygraft.meter import LIBRARIES
from polygraft.prune.config import Calibrating, Masking
from polygraft.prune.masks import METHODS
from polygraft.prune.sites import Site, sites

FLOPS = 3e10  # multiplications and additions a second: two cores
HELD = 6  # tensors as wide as the feed-forward part that a layer holds while it runs, about


@dataclass(frozen=True)
class Extent:
    """What a pruning takes and touches: matrices by key as (out, in), and by layer those of each site."""

    matrices: dict[str, tuple[int, int]]
    layers: tuple[dict[Site, tuple[str, ...]], ...]

    @classmethod
    def of(cls, weights: Weights, anatomy: Anatomy) -> Extent:
        """From headers. Raises InputError for a layer without a matrix."""
        shapes = {key: t.shape for key, t in weights.tensors.items()}
        found = tuple(sites(anatomy, shapes, i) for i in range(anatomy.layers))
        turned = anatomy.traits.transposed
        return cls({key: (s[1], s[0]) if turned else (s[0], s[1]) for layer in found for keys in layer.values() for key in keys
                    for s in [shapes[key]]}, found)  # fmt: skip

    @cached_property
    def sizes(self) -> dict[str, int]:
        return {key: out * width for key, (out, width) in self.matrices.items()}

    def grams(self) -> list[list[int]]:
        """Of every layer, the width of each site's input."""
        return [[self.matrices[keys[0]][1] for keys in layer.values()] for layer in self.layers]


def stored(weights: Weights, extent: Extent) -> list[int]:
    """Of every layer, bytes of its pruned tensors and masks as a file."""
    each = {key: weights.tensors[key].nbytes + n // 8 for key, n in extent.sizes.items()}
    return [sum(each[key] for keys in layer.values() for key in keys) for layer in extent.layers]


def states(config: Calibrating, weights: Weights, anatomy: Anatomy) -> int:
    """Bytes of the hidden states of all the text."""
    return config.samples * config.seq_len * anatomy.sizes.hidden * width(config, weights) if config.corpus else 0


def width(config: Calibrating, weights: Weights) -> int:
    """Bytes of a number while the model computes, at most."""
    return {"float32": 4, "auto": 4}.get(config.dtype, 2)


def peak(config: Masking, weights: Weights, anatomy: Anatomy, extent: Extent) -> int:
    """Resident bytes: a layer, what lies outside of layers, states, sums of one layer, and one pass or one matrix' work."""
    gram = METHODS[config.method][1] or config.swaps > 0
    largest = max(extent.sizes.values()) * 4
    times = 1 + len(config.corpus) if config.objective == "worst" else 1  # each language's by themselves, too
    sums = times * max(sum(4 * n * n for n in widths) for widths in extent.grams()) if gram else 0
    solving = (1 + times) * 4 * max(n for widths in extent.grams() for n in widths) ** 2 + 2 * largest if gram else 0
    passing = HELD * min(config.samples, config.rows) * config.seq_len * max(anatomy.sizes.ffn, 4 * anatomy.sizes.hidden) * 4
    held = block_bytes(weights, anatomy, "float32" if width(config, weights) == 4 else config.dtype)
    scores = 2 * largest  # scores, masks, and the order of some rows
    return LIBRARIES + held + min(states(config, weights, anatomy), LIMIT) + sums + max(
        solving, scores, passing if config.corpus else 0)  # fmt: skip


def disk(config: Masking, weights: Weights, anatomy: Anatomy, extent: Extent) -> int:
    """Bytes at the busiest moment: finished layers, the model made of them, and states that memory has no room for."""
    whole, done = sum(t.nbytes for t in weights.tensors.values()), sum(stored(weights, extent))
    return whole + done + sum(extent.sizes.values()) // 8 + max(0, states(config, weights, anatomy) - LIMIT)


def seconds(config: Masking, extent: Extent) -> float:
    """Wall time on two cores, about: every layer runs twice, sums are made between, and the method works on each matrix."""
    tokens, weights = config.samples * config.seq_len if config.corpus else 0, sum(extent.sizes.values())
    gram = METHODS[config.method][1] or config.swaps > 0
    sums = sum(n * n for widths in extent.grams() for n in widths) * tokens if gram else 0
    solve = sum(out * n * n for out, n in extent.matrices.values()) if config.method == "sparsegpt" else 30 * weights
    return (2 * weights * tokens + sums + solve) / FLOPS


def unfit(config: Masking, matrices: Mapping[str, Sequence[int]]) -> None:
    """Raise InputError for the first matrix whose inputs do not divide into the pattern's groups."""
    for key, (_, width) in matrices.items():
        config.asked.check(key, width)
