"""The bodies, everything but the tables: did the donor's change, and the instruct model's with a share of that change added."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from polygraft.checkpoint import CHUNK, Weights
from polygraft.errors import InputError
from polygraft.floats import FLOATS, from_f32, to_f32
from polygraft.vocab.propagation.trio import FROM, Trio

ELEMENTS = 1 << 20  # of a tensor that are in memory at a time
STRANGERS = 1.0  # |donor - base| / |base| of two bodies that know nothing of each other is this or more, whatever their sizes
SAMPLED = 1 << 16  # numbers of each matrix by which base and instruct model are compared
Tell = Callable[[int, int], None]


@dataclass(frozen=True)
class Moved:
    """How the donor's body differs: `names` of the tensors that do, of `total`; over these, `relative` |donor - base| / |base|."""

    names: tuple[str, ...]
    total: int
    relative: float


def moved(trio: Trio, tell: Tell = lambda done, total: None) -> Moved:
    """Compare the bodies of donor and base; reads both. A donor kept in fewer bits than the base is compared at its precision."""
    sizes = {name: trio.base.weights.tensors[key].nbytes for name, key in trio.base.body.items()}
    names, change, size, done = [], 0.0, 0.0, 0
    for name in trio.base.body:
        if not same_bytes(trio, name):
            one, two = (sum(x) for x in zip(*((np.vdot(b - a, b - a), np.vdot(a, a)) for a, b in blocks(trio, name))))
            names += [name] if one != 0 else []
            change, size = change + float(one), size + (float(two) if one != 0 else 0.0)
        done += sizes[name]
        tell(done, sum(sizes.values()))
    return Moved(tuple(names), len(sizes), float(np.sqrt(change / size)) if size else 0.0)


def same_bytes(trio: Trio, name: str) -> bool:
    """Whether base and donor have the same bytes in this tensor: most of them do, and nothing is quicker than to see that."""
    (mine, one), (theirs, two) = ((m.body[name], m.weights) for m in (trio.base, trio.donor))
    size = one.tensors[mine].nbytes
    return one.tensors[mine].dtype == two.tensors[theirs].dtype and all(
        one.read_range(mine, i, min(i + CHUNK, size)) == two.read_range(theirs, i, min(i + CHUNK, size))
        for i in range(0, size, CHUNK))


def blocks(trio: Trio, name: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """One tensor of base and donor, float32 [n] each, at the coarser precision of the two."""
    mine, theirs = trio.base.body[name], trio.donor.body[name]
    info, other = trio.base.weights.tensors[mine], trio.donor.weights.tensors[theirs]
    if info.dtype not in FLOATS or other.dtype not in FLOATS:
        raise InputError("a body in numbers that cannot be computed with", where=name, found=f"{info.dtype}; {other.dtype}",
                         expected=" or ".join(FLOATS), fix="use unquantised models")
    coarse = min((info, other), key=lambda t: t.itemsize).dtype
    for start in range(0, info.numel, ELEMENTS):
        stop = min(info.numel, start + ELEMENTS)
        a, b = trio.base.weights.f32(mine, start, stop), trio.donor.weights.f32(theirs, start, stop)
        yield (a, b) if info.dtype == other.dtype else (_as(a, coarse), _as(b, coarse))


def _as(values: np.ndarray, dtype: str) -> np.ndarray:
    return to_f32(from_f32(values, dtype), dtype)


def judge(found: Moved, share: float | None, trio: Trio) -> None:
    """Raise InputError for a donor that has nothing to do with the base, and for a changed body nobody said what to do with."""
    words = f"{len(found.names)} of {found.total} tensors differ, |donor - base| / |base| {found.relative:.3g}"
    if not found.relative < STRANGERS:  # also where it is no number
        raise InputError("the donor was not built on the base: their bodies have nothing in common", where=trio.donor.source.spec,
                         found=words, expected=f"the body of {trio.base.source.spec}", fix=FROM)
    if found.names and share is None:
        raise InputError("the donor's body was trained too", where=trio.donor.source.spec, found=f"{words}; first {found.names[0]}",
                         expected=f"the body of {trio.base.source.spec}, byte for byte",
                         fix="say what to do with that change: `body: 1` adds it to the instruct model's body, `body: 0` does not")


def check_related(trio: Trio) -> None:
    """Raise InputError for an instruct model that was not trained from the base, told by the beginning of every matrix of the body.

    Those of strangers differ by more than their own length. Numbers that are none are left to whoever computes with them.
    """
    size = far = 0.0
    for name, key in trio.base.body.items():
        other = trio.instruct.body[name]
        info, theirs = trio.base.weights.tensors[key], trio.instruct.weights.tensors[other]
        if len(info.shape) > 1 and info.dtype in FLOATS and theirs.dtype in FLOATS:
            stop = min(SAMPLED, info.numel)
            a, b = (w.f32(k, 0, stop).astype(np.float64) for w, k in ((trio.base.weights, key), (trio.instruct.weights, other)))
            with np.errstate(invalid="ignore", over="ignore"):
                size, far = size + float(a @ a), far + float((b - a) @ (b - a))
    if size and np.isfinite([size, far]).all() and (apart := float(np.sqrt(far / size))) >= STRANGERS:
        raise InputError("the instruct model was not trained from the base: their bodies have nothing in common",
                         where=trio.instruct.source.spec, found=f"|instruct - base| / |base| {apart:.3g}",
                         expected=f"a body like that of {trio.base.source.spec}", fix=FROM)


class Carried(Weights):
    """The instruct model's weights, with `share` x (donor - base) added to the tensors that differ; others are its own bytes."""

    def __init__(self, trio: Trio, names: Mapping[str, None], share: float):
        own = trio.instruct.weights
        self.path, self.config, self.tensors, self.extras = own.path, own.config, own.tensors, own.extras
        self.identity, self.warnings, self.own, self.trio, self.share = own.identity, own.warnings, own, trio, share
        self.changed = {trio.instruct.body[name]: name for name in names}

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        return self.own.read_range(key, start, stop)

    def chunks(self, key: str, size: int = 0) -> Iterator[bytes | memoryview]:
        if key not in self.changed:
            yield from (self.own.chunks(key, size) if size else self.own.chunks(key))
            return
        start, dtype = 0, self.tensors[key].dtype
        for a, b in blocks(self.trio, self.changed[key]):
            mine = self.own.f32(key, start, start + len(a)).astype(np.float64)
            mine += self.share * (b.astype(np.float64) - a)
            yield from_f32(mine.astype(np.float32), dtype)
            start += len(a)
