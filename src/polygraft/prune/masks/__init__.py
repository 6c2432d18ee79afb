"""Methods of pruning: from a pattern and options to the function that the engine calls once for every site.

`make(name, pattern, options) -> (Method, whether it needs products of inputs)`. `METHODS[name]` is (maker, needs products).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from polygraft.errors import RecipeError, suggestion
from polygraft.prune.engine import Method, Pruned
from polygraft.prune.masks import scores, swaps
from polygraft.prune.masks.pattern import Pattern
from polygraft.prune.masks.sparsegpt import BLOCK, sparsegpt
from polygraft.prune.statistics import Moments

if TYPE_CHECKING:
    import torch

Protected = Callable[[str], "torch.Tensor | None"]  # a key's weights that stay: bool [out, in], or None


def nothing(_key: str) -> torch.Tensor | None:
    return None


@dataclass(frozen=True)
class Options:
    """What methods may be told beside the pattern."""

    by_key: Mapping[str, float] = field(default_factory=dict)  # the sparsity of single matrices; the others have the pattern's
    protected: Protected = nothing
    power: float = 0.5  # RIA: of the input's norm
    damping: float = 0.01  # SparseGPT: share of the Hessian's mean diagonal
    block: int = BLOCK  # SparseGPT: columns
    swaps: int = 0  # at most so many in every row, after a method that leaves weights as they are

    def asked(self, key: str, w: torch.Tensor, pattern: Pattern) -> Pattern:
        """The pattern of one matrix. Raises InputError where its inputs do not divide into groups."""
        pattern.check(key, w.shape[1])
        return pattern.at(self.by_key[key], self.protected is not nothing) if key in self.by_key else pattern


Maker = Callable[[Pattern, Options], Method]


def each(function: Callable[..., Pruned], **names: str) -> Maker:
    """A maker for a method that looks at one matrix at a time; `names`: its arguments that are options."""

    def maker(pattern: Pattern, options: Options) -> Method:
        more = {argument: getattr(options, name) for argument, name in names.items()}

        def method(ws: Mapping[str, torch.Tensor], moments: Moments) -> dict[str, Pruned]:
            return {k: function(w, moments, options.asked(k, w, pattern), options.protected(k), **more) for k, w in ws.items()}

        return method

    return maker


def together(pattern: Pattern, options: Options) -> Method:
    """SparseGPT: all matrices of a site at once."""

    def method(ws: Mapping[str, torch.Tensor], moments: Moments) -> dict[str, Pruned]:
        patterns = {k: options.asked(k, w, pattern) for k, w in ws.items()}
        return sparsegpt(ws, moments, patterns, {k: options.protected(k) for k in ws}, options.damping, options.block)

    return method


METHODS: dict[str, tuple[Maker, bool]] = {
    "magnitude": (each(scores.magnitude), False),
    "wanda": (each(scores.wanda), False),
    "wanda-variant": (each(scores.wanda_variant), False),
    "ria": (each(scores.ria, power="power"), False),
    "sparsegpt": (together, True),
}


def make(name: str, pattern: Pattern, options: Options) -> tuple[Method, bool]:
    """The method of that name, refined by swaps if options say so, and whether it needs products of inputs. Raises RecipeError."""
    if name not in METHODS:
        raise RecipeError("no such method of pruning", where="method", found=name, fix=suggestion(name, METHODS))
    maker, gram = METHODS[name]
    if not options.swaps:
        return maker(pattern, options), gram
    if name == "sparsegpt":
        raise RecipeError("swaps refine masks of weights that stay as they are; sparsegpt changes weights", where="swaps",
                          found=f"{options.swaps} with {name}", fix="wanda or ria with swaps, or sparsegpt without")  # fmt: skip
    return swaps.refined(maker(pattern, options), pattern, options.swaps, options.protected), True
