"""Which arrays a reading gathers, with dtypes and shapes: known from the model's shapes before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from polygraft import edits
from polygraft.analysis.reading.bins import BINS
from polygraft.analysis.reading.config import Wanted
from polygraft.errors import InputError, RecipeError, suggestion

if TYPE_CHECKING:
    from polygraft.anatomy import Anatomy

ROLES = {"qkv": "input.qkv", "o": "input.o", "ffn": "input.ffn", "down": "down"}  # role -> the tap at the matrices' input
Shapes = dict[str, tuple[str, tuple[int, ...]]]


def experts(anatomy: Anatomy) -> int:
    """How many experts the layers have, 0 for a dense model."""
    return anatomy.sizes.experts if anatomy.keys(role="experts.down") else 0


def points(wanted: Wanted) -> tuple[str, ...]:
    """The taps that are needed. Raises RecipeError for an unknown role."""
    for role in (*wanted.norms, *wanted.grams):
        if role not in ROLES:
            raise RecipeError("unknown input of a matrix", found=role, fix=suggestion(role, ROLES))
    found = ["act"]
    found += ["residual", "input.layer"] if wanted.residual else []
    found += ["attention"] if wanted.attention else []
    return (*found, *(ROLES[r] for r in ROLES if r in (*wanted.norms, *wanted.grams)))


def shapes(anatomy: Anatomy, wanted: Wanted) -> Shapes:
    """name -> (dtype, shape) of every array of one language: see `activity.NAMES`. InputError for what cannot be had."""
    layers, hidden, g = anatomy.layers, anatomy.sizes.hidden, wanted.groups
    widest = max(edits.sizes(anatomy), default=0)
    found: Shapes = {"positive": ("int64", (layers, widest)), "sum": ("float64", (layers, widest)),
                     "square": ("float64", (layers, widest))}  # fmt: skip
    if wanted.histogram:
        found["histogram"] = ("int32", (layers, widest, BINS))
    if wanted.percentile:
        if experts(anatomy):
            raise InputError("percentiles of windows are not taken in a mixture, whose experts see parts of a window",
                             where=anatomy.where, fix="choose another method, such as pooled-90p")
        found["window.percentile"] = ("float64", (layers, widest))
    if wanted.residual:
        found |= {"residual": ("float64", (layers + 1, hidden)), "square.residual": ("float64", (layers + 1,))}
    if wanted.attention:
        found |= {"attention": ("float64", (layers, hidden)), "attention.positive": ("int64", (layers, hidden))}
    if g:
        found |= {"group.tokens": ("int64", (g,)), "group.positive": ("int32", (g, layers, widest)),
                  "group.sum": ("float32", (g, layers, widest))}  # fmt: skip
        found |= {f"group.{n}": ("float32", (g, *found[n][1])) for n in ("residual", "attention") if n in found}
    sizes = anatomy.sizes
    widths = {"qkv": hidden, "o": sizes.heads * sizes.head_dim, "ffn": hidden, "down": sizes.ffn}
    for layer in range(layers):
        found |= {f"input.{r}.{layer}": ("float64", (widths[r],)) for r in wanted.norms}
        found |= {f"gram.{r}.{layer}": ("float32", (widths[r], widths[r])) for r in wanted.grams}
    return found


def nbytes(found: Shapes) -> int:
    """Bytes of these arrays."""
    return sum(int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize for kind, shape in found.values())
