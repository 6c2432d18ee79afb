"""What the rules judge: figures of change for every layer, or for attention and FFN of every layer, summed from `analyze delta`'s.

Only weight matrices of attention and FFN count, as in arXiv 2601.22620 (q, k, v, o, gate, up, down there). A mixture's experts of
one role count as one matrix (ours), so that its FFN does not outvote its attention by their number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Literal

import numpy as np

from polygraft.analysis.delta.change import Change, Pair
from polygraft.analysis.delta.measure import Changes
from polygraft.anatomy import Anatomy

By = Literal["layer", "part"]
Shapes = Mapping[str, Sequence[int]]
MODULES = ("attn", "ffn")


@dataclass(frozen=True)
class Units:
    """Figures of every unit, float64 [layers, columns]; columns are ("layer",) or ("attn", "ffn"). NaN: not defined there.

    `size`: [2, layers, columns], how much each expert (task, language) changed the unit: of a layer the sum of its matrices'
    relative Frobenius norms |W_e - W_0| / |W_0|, of a module the root of the sum of their squares (arXiv 2601.22620).
    `cosine`, `conflict`: of the two changes, over all entries of the unit. `entries`: how many both changed.
    """

    by: By
    columns: tuple[str, ...]
    size: np.ndarray
    cosine: np.ndarray
    conflict: np.ndarray
    entries: np.ndarray

    @property
    def layers(self) -> int:
        return int(self.size.shape[1])


def units(delta: Changes, by: By, shapes: Shapes) -> Units:
    """The figures of two experts' changes, `delta.names` being the task and the language expert.

    `shapes`: of every tensor, to tell matrices from biases and gains. A matrix that is all zero in the base has no relative
    change and is left out.
    """
    columns = ("layer",) if by == "layer" else MODULES
    shape = (delta.anatomy.layers, len(columns))
    size, cosine, conflict, entries = np.zeros((2, *shape)), np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape)
    for layer in range(shape[0]):
        for column, name in enumerate(columns):
            keys = matrices(delta, layer, MODULES if by == "layer" else (name,), shapes)
            pair = reduce(add, (delta.pairs[k] for group in keys for k in group), Pair())
            for expert in range(2):
                size[expert, layer, column] = _size([reduce(add, (delta.changes[k][expert] for k in group)) for group in keys], by)
            cosine[layer, column] = _or_nan(pair.cosine)
            conflict[layer, column] = _or_nan(pair.conflict)
            entries[layer, column] = pair.both
    return Units(by, columns, size, cosine, conflict, entries)


def matrices(delta: Changes, layer: int, modules: Iterable[str], shapes: Shapes) -> list[list[str]]:
    """Keys of the weight matrices of these modules of a layer, those of one role (a mixture's experts) together."""
    groups: dict[str, list[str]] = {}
    for module in modules:
        for key in delta.anatomy.keys(layer=layer, kind=module):
            if key in delta.changes and len(shapes[key]) > 1:
                groups.setdefault(delta.anatomy.parts[key].label, []).append(key)
    return list(groups.values())


def _size(changes: list[Change], by: By) -> float:
    ratios = [r for r in (c.relative_frobenius for c in changes) if r is not None]
    return float(np.sum(ratios)) if by == "layer" else float(np.sqrt(np.sum(np.square(ratios))))


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def norm_owner(anatomy: Anatomy, key: str) -> str:
    """The module that a norm inside a layer belongs to: "attn", "ffn", or "both" where one norm feeds the two side by side.

    A norm after attention is attention's own where the FFN has norms besides it (Gemma 2, OLMo 2), else the one that the FFN reads.
    """
    part = anatomy.parts[key]
    roles = {anatomy.parts[k].role for k in anatomy.keys(layer=part.layer, kind="norm")}
    if part.role == "post_attn":
        return "attn" if roles & {"pre_ffn", "post_ffn"} else "ffn"
    if part.role in ("pre_ffn", "post_ffn"):
        return "ffn"
    if part.role == "input" and not roles & {"post_attn", "pre_ffn", "post_ffn"}:
        return "both"
    return "attn"
