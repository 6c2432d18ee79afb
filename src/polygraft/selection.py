"""Selection: a set of (tensor, rows). What was found, is trained, protected or pruned; closed under the operations of sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from polygraft.addresses import Address
from polygraft.errors import InputError

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True, eq=False)
class Selection:
    """`rows[key]` is None for the whole tensor, or a sorted array of distinct int64 indices along `axis[key]` (default 0).

    A key without rows is not kept. Where an operation must know how long a tensor is, `shapes` (key -> shape) has to be given.
    """

    rows: dict[str, np.ndarray | None] = field(default_factory=dict)
    axis: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        clean = {k: None if r is None else np.unique(np.asarray(r, dtype=np.int64)) for k, r in self.rows.items()}
        if bad := [k for k, r in clean.items() if r is not None and len(r) and r[0] < 0]:
            raise InputError("a row is negative", where=bad[0], found=int(clean[bad[0]][0]))  # type: ignore[index]
        kept = {k: r for k, r in sorted(clean.items()) if r is None or len(r)}
        object.__setattr__(self, "rows", kept)
        object.__setattr__(self, "axis", {k: a for k, a in sorted(self.axis.items()) if a and kept.get(k) is not None})

    @classmethod
    def of(cls, addresses: Iterable[Address]) -> Selection:
        """The rows that a collection of addresses covers."""
        rows: dict[str, list[np.ndarray]] = {}
        axis: dict[str, int] = {}
        for a in addresses:
            if axis.setdefault(a.key, a.axis) != a.axis:
                raise InputError("one tensor is selected along two axes", where=a.key, found=f"axes {axis[a.key]} and {a.axis}")
            rows.setdefault(a.key, []).append(np.arange(a.start, a.stop))
        return cls({key: np.concatenate(parts) for key, parts in rows.items()}, axis)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Selection):
            return NotImplemented
        same = self.rows.keys() == other.rows.keys() and self.axis == other.axis
        return same and all(_equal(rows, other.rows[key]) for key, rows in self.rows.items())

    def __len__(self) -> int:
        return len(self.rows)

    def __contains__(self, key: str) -> bool:
        return key in self.rows

    def __or__(self, other: Selection) -> Selection:
        """Union."""
        axis = self._axes(other)
        keys = self.rows.keys() | other.rows.keys()
        return Selection({k: _union(self.rows.get(k, _NONE), other.rows.get(k, _NONE)) for k in keys}, axis)

    def __and__(self, other: Selection) -> Selection:
        """Intersection."""
        axis = self._axes(other)
        return Selection({k: _common(self.rows[k], other.rows[k]) for k in self.rows.keys() & other.rows.keys()}, axis)

    def difference(self, other: Selection, shapes: Shapes | None = None) -> Selection:
        """What is in this and not in the other. `shapes` is needed where rows are taken from a whole tensor."""
        axis = self._axes(other)
        left: dict[str, np.ndarray | None] = {}
        for key, rows in self.rows.items():
            taken = other.rows.get(key, _NONE)
            if taken is None:
                continue
            if rows is None and len(taken):
                rows = np.arange(_length(key, axis.get(key, 0), shapes))
            left[key] = rows if rows is None else np.setdiff1d(rows, taken, assume_unique=True)
        return Selection(left, axis)

    def inverse(self, shapes: Shapes) -> Selection:
        """Everything in `shapes` that is not selected."""
        return Selection(dict.fromkeys(shapes)).difference(self.inside(shapes), shapes)

    def normal(self, shapes: Shapes) -> Selection:
        """The same set with fully listed tensors written as whole, so that equal sets compare equal."""
        inside = self.inside(shapes)
        full = {k: _length(k, inside.axis.get(k, 0), shapes) for k in inside.rows}
        return Selection({k: None if r is not None and len(r) == full[k] else r for k, r in inside.rows.items()}, inside.axis)

    def inside(self, shapes: Shapes) -> Selection:
        """This selection, after checking that every key and row exists. Raises InputError naming the first that does not."""
        for key, rows in self.rows.items():
            n = _length(key, self.axis.get(key, 0), shapes)
            if rows is not None and rows[-1] >= n:
                raise InputError("a selected row is beyond the tensor", where=key, found=int(rows[-1]), expected=f"0 to {n - 1}")
        return self

    def count(self, shapes: Shapes) -> int:
        """How many parameters are selected."""
        total = 0
        for key, rows in self.inside(shapes).rows.items():
            size, n = int(np.prod(shapes[key], dtype=np.int64)), _length(key, self.axis.get(key, 0), shapes)
            total += size if rows is None else size // n * len(rows)
        return total

    def share(self, shapes: Shapes) -> float:
        """The selected part of all parameters in `shapes`, 0 to 1; 0 where there are none."""
        total = sum(int(np.prod(shape, dtype=np.int64)) for shape in shapes.values())
        return self.count(shapes) / total if total else 0.0

    def to_json(self) -> dict[str, Any]:
        """Runs [start, stop) for each key, or null for a whole tensor."""
        rows = {k: None if r is None else _runs(r) for k, r in self.rows.items()}
        return {"rows": rows, "axis": dict(self.axis)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Selection:
        """The inverse of `to_json`. Raises InputError for another shape of value."""
        try:
            rows = {k: None if r is None else [i for a, b in r for i in range(a, b)] for k, r in value["rows"].items()}
            return cls(
                {k: None if r is None else np.array(r, dtype=np.int64) for k, r in rows.items()}, dict(value.get("axis", {}))
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError("not a selection", found=str(error), expected='{"rows": {key: null | [[start, stop], ...]}}') from None

    def _axes(self, other: Selection) -> dict[str, int]:
        for key in self.rows.keys() & other.rows.keys():
            both_partial = self.rows[key] is not None and other.rows[key] is not None
            if both_partial and self.axis.get(key, 0) != other.axis.get(key, 0):
                found = f"axes {self.axis.get(key, 0)} and {other.axis.get(key, 0)}"
                raise InputError("one tensor is selected along two axes", where=key, found=found)
        return self.axis | other.axis


_NONE = np.empty(0, dtype=np.int64)


def _equal(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return a is b if a is None or b is None else np.array_equal(a, b)


def _union(a: np.ndarray | None, b: np.ndarray | None) -> np.ndarray | None:
    return None if a is None or b is None else np.union1d(a, b)


def _common(a: np.ndarray | None, b: np.ndarray | None) -> np.ndarray | None:
    if a is None or b is None:
        return b if a is None else a
    return np.intersect1d(a, b, assume_unique=True)


def _length(key: str, axis: int, shapes: Shapes | None) -> int:
    if shapes is None or key not in shapes:
        raise InputError("the shape of a selected tensor is not known", where=key)
    shape = shapes[key]
    if axis >= max(1, len(shape)):
        raise InputError("the tensor has no such axis", where=key, found=axis, expected=f"shape {list(shape)}")
    return int(shape[axis]) if len(shape) else 1


def _runs(rows: np.ndarray) -> list[list[int]]:
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    return [[int(run[0]), int(run[-1]) + 1] for run in np.split(rows, breaks)]
