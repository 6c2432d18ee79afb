"""Methods of pruning: from a pattern and options to the function that the engine calls once for every site.

`METHODS[name]` is (maker, whether it needs products of inputs); `maker(pattern, options) -> Method`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from polygraft.prune.engine import Method, Pruned
from polygraft.prune.masks import scores
from polygraft.prune.masks.pattern import Pattern
from polygraft.prune.masks.sparsegpt import sparsegpt
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
    damping: float = 0.01  # SparseGPT: share of the Hessian's mean diagonal

    def asked(self, key: str, w: torch.Tensor, pattern: Pattern) -> Pattern:
        """The pattern of one matrix. Raises InputError where its inputs do not divide into groups."""
        pattern.check(key, w.shape[1])
        return pattern.at(self.by_key[key], self.protected is not nothing) if key in self.by_key else pattern

    def staying(self, key: str, w: torch.Tensor) -> torch.Tensor | None:
        """Its protected weights, where the matrix is."""
        found = self.protected(key)
        return None if found is None else found.to(w.device)


Maker = Callable[[Pattern, Options], Method]


def each(function: Callable[..., Pruned]) -> Maker:
    """A maker for a method that looks at one matrix at a time."""

    def maker(pattern: Pattern, options: Options) -> Method:
        def method(ws: Mapping[str, torch.Tensor], moments: Moments) -> dict[str, Pruned]:
            return {k: function(w, moments, options.asked(k, w, pattern), options.staying(k, w)) for k, w in ws.items()}

        return method

    return maker


def together(pattern: Pattern, options: Options) -> Method:
    """SparseGPT: all matrices of a site at once."""

    def method(ws: Mapping[str, torch.Tensor], moments: Moments) -> dict[str, Pruned]:
        patterns = {k: options.asked(k, w, pattern) for k, w in ws.items()}
        return sparsegpt(ws, moments, patterns, {k: options.staying(k, w) for k, w in ws.items()}, options.damping)

    return method


METHODS: dict[str, tuple[Maker, bool]] = {
    "magnitude": (each(scores.magnitude), False),
    "wanda": (each(scores.wanda), False),
    "wanda-variant": (each(scores.wanda_variant), False),
    "ria": (each(scores.ria), False),
    "sparsegpt": (together, True),
}
