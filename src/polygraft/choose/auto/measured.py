"""What both experts changed, by `analyze delta`'s reader of their files against the base, and refused where that tells nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from operator import add

import numpy as np

from polygraft.adapter import MergedView
from polygraft.analysis.delta.measure import Changes, compute
from polygraft.anatomy import Anatomy
from polygraft.checkpoint import Weights
from polygraft.choose.auto.units import MODULES, Shapes, matrices
from polygraft.errors import InputError
from polygraft.floats import FLOATS
from polygraft.sources import Source


class Widened(Weights):
    """Weights of any number format as float32, so that an adapter's W + s B A is not rounded to that of W when it is measured."""

    def __init__(self, inner: Weights):
        self.inner = inner
        self.path, self.config, self.extras = inner.path, inner.config, inner.extras
        self.identity, self.warnings = inner.identity, inner.warnings
        self.tensors = {k: replace(t, dtype="F32", start=0, end=4 * t.numel) if t.dtype in FLOATS else t
                        for k, t in inner.tensors.items()}  # fmt: skip

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        if self.inner.info(key).dtype not in FLOATS:
            return self.inner.read_range(key, start, stop)
        first = start // 4
        return self.inner.f32(key, first, -(-stop // 4)).tobytes()[start - 4 * first : stop - 4 * first]


def exact(source: Source) -> Weights:
    """The source's weights, an adapter's change unrounded."""
    if source.adapter is None or source.base is None:
        return source.weights
    return MergedView(Widened(exact(source.base)), source.adapter)


def measure(
    anatomy: Anatomy, names: Sequence[str], sources: Sequence[Source], progress: Callable[..., None] = lambda *a: None
) -> Changes:
    """Both experts' changes; sources and names are task, language, base. Raises InputError where they do not say anything."""
    task, language, base = sources
    shapes = {k: t.shape for k, t in base.weights.tensors.items()}
    found = compute(anatomy, base.weights, [(names[0], exact(task)), (names[1], exact(language))], top=0.0, progress=progress)
    refuse(found, shapes)
    return found


def refuse(delta: Changes, shapes: Shapes) -> None:
    """Raise InputError for an expert that equals the base where layers are chosen, and for two experts that are the same."""
    keys = [k for layer in range(delta.anatomy.layers) for group in matrices(delta, layer, MODULES, shapes) for k in group]
    for i, (name, role) in enumerate(zip(delta.names, ("task", "language"))):
        changes = [delta.changes[k][i] for k in keys]
        if not any(c.abs_delta for c in changes):
            outside = any(c[i].abs_delta for c in delta.changes.values())
            said = "in every weight matrix of its layers" if outside else "in every tensor"
            raise InputError(f"the {role} expert equals the base {said}, so its change says nothing about layers", where=name,
                             fix="is this the base that it was trained from, and the expert after its training?")
        if not any(c.abs_delta and c.abs_base for c in changes):
            raise InputError(f"the {role} expert changed only matrices that are 0 in the base: there is no relative change",
                             where=name, fix="name the base that it was trained from")
    pair = [delta.pairs[k] for k in keys]
    if all(p.dot == p.square_a == p.square_b for p in pair):
        raise InputError("the two experts changed the base alike in every layer: there is nothing to choose between",
                         where=" and ".join(delta.names), fix="name two different experts")


def cell_sizes(delta: Changes, shapes: Shapes) -> dict[tuple[str, int], np.ndarray]:
    """(part, layer) -> relative Frobenius norm of each expert's change, float64 [2]; without what is all zero in the base."""
    found = {}
    for layer in range(delta.anatomy.layers):
        for group in matrices(delta, layer, MODULES, shapes):
            sizes = [reduce(add, (delta.changes[k][i] for k in group)).relative_frobenius for i in range(2)]
            if all(s is not None for s in sizes):
                found[delta.anatomy.parts[group[0]].label, layer] = np.array(sizes, dtype=np.float64)
    return found
