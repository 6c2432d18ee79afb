"""Selection files: named parts of a model that one step found and another trains, prunes, edits or merges.

```json
{"polygraft": "0.4.0", "about": {"method": "lape"},
 "selections": {"sw": [{"layer": 3, "kind": "ffn", "role": "neuron", "rows": [4, 9]}],
                "chosen": [{"layer": 0, "kind": "ffn", "role": "up", "rows": null}]}}
```
A file written by hand may be the inner mapping alone. `read` and `pick` check words and numbers, `on` checks them against a model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraft import __version__, files
from polygraft.addresses import Address
from polygraft.anatomy_rules import KINDS
from polygraft.errors import InputError, RecipeError, suggestion
from polygraft.selection import Selection

if TYPE_CHECKING:
    from polygraft.anatomy import Anatomy

FILE = "selection.json"
NEURON = "neuron"
WITHIN = ("attn", "ffn", "norm")  # kinds that lie in layers
NAME = re.compile(r"[^\s:+/\\]{1,128}\Z")  # what `FILE:ONE+TWO` can hold
FIELDS = ("layer", "kind", "role", "rows", "expert")
FUSED = {"q": "attn", "k": "attn", "v": "attn", "gate": "ffn", "up": "ffn"}  # roles that some families store in one tensor


@dataclass(frozen=True, eq=False)
class Entry:
    """Part of one layer. `role` None is every role of the kind; `rows` int64, sorted and distinct, or None for all.

    Rows of role "neuron" (kind ffn) are FFN neurons: rows of gate and up, columns of down. Neurons of a mixture count through its
    experts, one after another, unless `expert` says whose they are. Rows of any other role are a matrix's output features.
    `layer` is None for what lies in no layer (embed, head, ...).
    """

    layer: int | None
    kind: str
    role: str | None = None
    rows: np.ndarray | None = None
    expert: int | None = None

    def __post_init__(self) -> None:
        rows = None if self.rows is None else np.unique(np.asarray(self.rows, dtype=np.int64))
        object.__setattr__(self, "rows", rows)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Entry):
            return NotImplemented
        return self._place == other._place and _same(self.rows, other.rows)

    def __hash__(self) -> int:
        return hash(self._place)

    @property
    def _place(self) -> tuple[Any, ...]:
        return self.layer, self.kind, self.role, self.expert

    @property
    def label(self) -> str:
        """For messages: `layer 3 ffn.neuron`."""
        at = "" if self.layer is None else f"layer {self.layer} "
        part = f"{self.kind}.{self.role}" if self.role else self.kind
        return at + part + ("" if self.expert is None else f" of expert {self.expert}")

    def to_json(self) -> dict[str, Any]:
        rows = None if self.rows is None else [int(r) for r in self.rows]
        own = {} if self.expert is None else {"expert": self.expert}
        return {"layer": self.layer, "kind": self.kind, "role": self.role, "rows": rows, **own}


Named = dict[str, tuple[Entry, ...]]


def _same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return a is b if a is None or b is None else np.array_equal(a, b)


# ---------------------------------------------------------------------------------------------------------------- the file


def write(path: Path, named: Mapping[str, Iterable[Entry]], about: Mapping[str, Any] | None = None) -> None:
    """Write a selection file: the same entries, the same bytes. Raises InputError for a name that `FILE:NAME` cannot hold."""
    lists = [f"  {_json(_name(name, path))}: [" + ",".join(f"\n   {_json(e.to_json())}" for e in entries) + "]"
             for name, entries in named.items()]
    head = f'{{\n "polygraft": {_json(__version__)},\n "about": {_json(dict(about or {}))},\n "selections": {{\n'
    files.write_atomic(path, (head + ",\n".join(lists) + "\n }\n}\n").encode())


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def read(path: Path) -> Named:
    """The named selections of a file, in its order. Raises InputError naming the entry that is not one."""
    value = files.read_json(path)
    inner = value.get("selections") if isinstance(value, dict) and "selections" in value else value
    if not isinstance(inner, dict) or not all(isinstance(v, list) for v in inner.values()):
        raise InputError("not a selection file", where=path, found=type(inner).__name__,
                         expected='{"selections": {NAME: [{"layer", "kind", "role", "rows"}, ...]}}',
                         fix="name the selection.json of an analysis, or its folder")
    return {_name(name, path): tuple(_entry(e, f"{path}: {name}[{i}]") for i, e in enumerate(entries))
            for name, entries in inner.items()}


def split(word: str) -> tuple[str, tuple[str, ...]]:
    """`FILE[:NAME[+NAME]]` as the file (or folder, or step) and the names; a colon within a path is no separator."""
    file, colon, names = word.rpartition(":")
    if not colon or "/" in names or "\\" in names:
        return word, ()
    return file, tuple(names.split("+"))


def pick(word: str, path_of: Callable[[str], Path]) -> tuple[Entry, ...]:
    """The entries that `FILE[:NAME[+NAME]]` means; `path_of` turns FILE into a path (`context.folder`), a folder's selection.json.

    Without a name the file must hold one selection. Raises InputError for the file, RecipeError for a name that it does not have.
    """
    file, names = split(word)
    path = path_of(file)
    path = path / FILE if path.is_dir() else path
    named = read(path)
    if not names and len(named) != 1:
        if not named:
            raise RecipeError("the file holds no selection", where=word, found=f"{path}: none", expected="at least one",
                              fix="make it again, with a setting that finds something")
        raise RecipeError("the file holds several selections", where=word, found=", ".join(named)[:200],
                          fix=f"name one: {file}:{next(iter(named))}")
    for name in names:
        if name not in named:
            raise RecipeError("no selection of this name", where=word, found=repr(name)[:140], fix=suggestion(name, named))
    return tuple(e for name in names or named for e in named[name])


def _name(name: str, where: object) -> str:
    if not NAME.match(name):
        raise InputError("not a name for a selection", where=where, found=repr(name)[:140],
                         expected="up to 128 characters without spaces, `:`, `+`, `/`")
    return name


def _entry(value: Any, where: str) -> Entry:
    """One entry from JSON, every word and number checked."""
    if not isinstance(value, dict):
        raise InputError("not an entry", where=where, found=repr(value)[:80], expected='{"layer", "kind", "role", "rows"}')
    for key in value:
        if key not in FIELDS:
            raise InputError("unknown field", where=where, found=key, fix=suggestion(key, FIELDS))
    layer, kind, role, expert = value.get("layer"), value.get("kind"), value.get("role"), value.get("expert")
    known = KINDS[:-1]  # `outside` is carried along, never selected
    if kind not in known:
        raise InputError("unknown kind", where=where, found=repr(kind)[:80], expected=", ".join(known))
    if role is not None and (not isinstance(role, str) or not role):
        raise InputError("not a role", where=where, found=repr(role)[:80], expected="null, or a word such as up")
    if role == NEURON and kind != "ffn":
        raise InputError("only the kind ffn has neurons", where=where, found=kind, fix='write "kind": "ffn"')
    for name, number in (("layer", layer), ("expert", expert)):
        if number is not None and not _whole(number):
            raise InputError(f"not a number of a{'n' * (name == 'expert')} {name}", where=where, found=repr(number)[:80],
                             expected="0 or more, or null")
    if kind in WITHIN and layer is None:
        raise InputError("the layer is missing", where=where, found="null", expected=f"its number, for the kind {kind}")
    rows = _rows(value.get("rows", ...), where)
    if rows is not None and role is None and kind in WITHIN:
        raise InputError("rows of which matrix?", where=where, found="role null", fix='name a role: "neuron", "up", "q" ...')
    return Entry(layer, kind, role, rows, expert)


def _whole(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 2**31


def _rows(value: Any, where: str) -> np.ndarray | None:
    if value is None:
        return None
    if value is ... or not isinstance(value, list):
        raise InputError("`rows` is missing" if value is ... else "not a list of rows", where=where,
                         found=None if value is ... else repr(value)[:80], expected="a list of row numbers, or null for all")
    if bad := [r for r in value if not _whole(r)]:
        raise InputError("not the number of a row", where=where, found=repr(bad[0])[:80], expected="0 or more")
    if len(set(value)) != len(value):
        twice = next(r for r in value if value.count(r) > 1)
        raise InputError("a row is named twice", where=where, found=twice, fix="name it once")
    return np.array(value, dtype=np.int64)


# ------------------------------------------------------------------------------------------------------------------- masks


def layers(entries: Iterable[Entry]) -> list[int]:
    """The layers in which something is selected, rising."""
    return sorted({e.layer for e in entries if e.layer is not None and (e.rows is None or len(e.rows))})


def neurons(entries: Iterable[Entry], layers: int, sizes: Sequence[int], experts: int = 0) -> np.ndarray:
    """bool [layers, widest]: the selected FFN neurons, for a model of `sizes[l]` neurons in layer l (a mixture's experts together).

    Entries of whole ffn matrices, or of rows of gate or up, mean their neurons. Raises InputError for what is no neuron of it.
    """
    mask = np.zeros((layers, max(sizes, default=0)), dtype=bool)
    for e in entries:
        if e.kind != "ffn" or (e.rows is not None and (e.role or "").rpartition(".")[2] not in (NEURON, "gate", "up")):
            raise InputError("not FFN neurons", where="selection", found=e.label, expected="kind ffn, role neuron, gate or up",
                             fix="name a selection of neurons, such as one of `analyze neurons`")
        _check_layer(e, layers)
        assert e.layer is not None
        size, first = sizes[e.layer], 0
        if e.expert is not None:
            if e.expert >= experts:
                there = f"0 to {experts - 1}" if experts else "none"
                raise InputError("no such expert in this model", where="selection", found=e.label, expected=there)
            size = size // experts
            first = e.expert * size
        mask[e.layer, first + (np.arange(size) if e.rows is None else _within(e, size))] = True
    return mask


def from_mask(mask: np.ndarray, experts: int = 0) -> tuple[Entry, ...]:
    """The entries of a mask of neurons, bool [layers, neurons]; with `experts`, an entry for each expert of equal size."""
    depth, width = np.shape(mask)
    if width % max(1, experts):
        raise InputError("experts of unequal size", where="selection", found=f"{width} neurons", expected=f"{experts} x as many")
    parts = np.asarray(mask, dtype=bool).reshape(depth, experts or 1, width // (experts or 1))
    return tuple(Entry(i, "ffn", NEURON, np.flatnonzero(part), j if experts else None)
                 for i, layer in enumerate(parts) for j, part in enumerate(layer) if part.any())


def matched(mask: np.ndarray, real: np.ndarray, seed: int | Sequence[int], avoid: np.ndarray | None = None) -> np.ndarray:
    """bool [layers, neurons]: a control, as many neurons per layer as `mask` has, drawn evenly among those outside it.

    What depth alone does cannot pass for what was found. `real` are the neurons that exist. Those in `avoid` (found for another
    language) are taken only where the layer has no others left, and those of `mask` itself only after them. The same seed draws the
    same set.
    """
    rng = np.random.default_rng(seed)
    rank = rng.random(mask.shape) + 2.0 * mask + np.where(real, 0.0, np.inf)
    if avoid is not None:
        rank += 1.0 * (avoid & ~mask)
    out = np.zeros(mask.shape, bool)
    for layer, n in enumerate(mask.sum(1)):
        out[layer, np.argsort(rank[layer], kind="stable")[:n]] = True
    return out


def _within(e: Entry, size: int) -> np.ndarray:
    assert e.rows is not None
    if len(e.rows) and e.rows[-1] >= size:
        raise InputError("a selected row is beyond the tensor", where=f"selection: {e.label}", found=int(e.rows[-1]),
                         expected=f"0 to {size - 1}", fix="was it found in another model?")
    return e.rows


def _check_layer(e: Entry, layers: int) -> None:
    if e.layer is not None and e.layer >= layers:
        raise InputError("no such layer in this model", where="selection", found=e.label, expected=f"0 to {layers - 1}",
                         fix="was it found in another model?")


# ------------------------------------------------------------------------------------------------------------ on one model

Shapes = Mapping[str, Sequence[int]]
Piece = tuple[str, int, "np.ndarray | None"]  # key, axis, rows


def on(entries: Iterable[Entry], anatomy: Anatomy, shapes: Shapes) -> Selection:
    """The tensors and rows of one model that the entries mean, whatever way its family fuses or transposes them.

    `shapes`: key -> shape, of the files. Raises InputError for a layer, role or row that the model does not have, and where neurons
    and output features of one tensor are asked for together.
    """
    rows: dict[str, list[np.ndarray | None]] = {}
    axes: dict[str, int] = {}
    for e in entries:
        _check_layer(e, anatomy.layers)
        for key, axis, piece in _pieces(e, anatomy, shapes):
            rows.setdefault(key, []).append(piece)
            if piece is not None and axes.setdefault(key, axis) != axis:
                raise InputError("rows and columns of one tensor are selected together", where=key, found=e.label,
                                 fix="select neurons, or output features, of this tensor")
    return Selection({key: _joined(parts) for key, parts in rows.items()}, axes).inside(shapes)


def whole(entries: Iterable[Entry], anatomy: Anatomy) -> set[str]:
    """The tensors that the entries select whole, for what takes each tensor as one. Raises InputError for rows."""
    keys: set[str] = set()
    for e in entries:
        _check_layer(e, anatomy.layers)
        if e.rows is not None or any(rows is not None for _, _, rows in _pieces(e, anatomy, {})):
            raise InputError("rows are selected, and here each tensor is taken whole", where="selection", found=e.label,
                             expected='"rows": null, of a part that is a tensor of its own', fix="select whole parts")
        keys.update(key for key, _, _ in _pieces(e, anatomy, {}))
    return keys


def _joined(parts: list[np.ndarray | None]) -> np.ndarray | None:
    some = [p for p in parts if p is not None]
    return np.concatenate(some) if len(some) == len(parts) else None


def _pieces(e: Entry, anatomy: Anatomy, shapes: Shapes) -> Iterable[Piece]:
    if e.role == NEURON:
        return _neurons(e, anatomy)
    keys = [k for k in anatomy.keys(layer=e.layer, kind=e.kind, role=e.role, expert=e.expert) if anatomy.parts[k].layer == e.layer]
    if keys and e.rows is None:
        return [(k, 0, None) for k in keys]
    if keys:
        return _features(e, anatomy, keys, shapes)
    if e.role in FUSED and FUSED[e.role] == e.kind and (runs := _fused(e, anatomy)):
        return _along(e, runs)
    if e.kind == "head" and anatomy.tied:
        raise RecipeError("embedding and head are one tensor in this model: neither can be selected without the other",
                          where="selection", found=e.label, expected="embed", fix='write "kind": "embed", which is both')
    roles = {p.role for p in anatomy.parts.values() if p.layer == e.layer and p.kind == e.kind and p.role}
    raise InputError("the model has no such part", where="selection", found=e.label, expected=", ".join(sorted(roles)) or None,
                     fix=suggestion(e.role or e.kind, roles) if roles else None)


def _neurons(e: Entry, anatomy: Anatomy) -> Iterator[Piece]:
    """Rows of gate and up and columns of down; a mixture's neurons count through its experts."""
    assert e.layer is not None
    blocks = [b for b in anatomy.neurons(e.layer) if e.expert in (None, b.expert)]
    if not blocks:
        raise InputError("no such expert in this model", where="selection", found=e.label)
    ends = np.cumsum([0, *(b.size for b in blocks)])
    rows = np.arange(ends[-1]) if e.rows is None else _within(e, int(ends[-1]))
    for block, start, stop in zip(blocks, ends[:-1], ends[1:], strict=True):
        own = rows[(rows >= start) & (rows < stop)] - start
        for a in (*block.gate, *block.up, *block.down):
            yield a.key, a.axis, a.start + own


def _features(e: Entry, anatomy: Anatomy, keys: list[str], shapes: Shapes) -> Iterator[Piece]:
    """Output features of a matrix and the entries of its bias; tokens of an embedding."""
    if e.role is None:  # the embedding itself, not its norm
        keys = [k for k in keys if not anatomy.parts[k].role] or keys
    if len({anatomy.parts[k].expert for k in keys}) > 1:
        raise InputError("rows of which expert?", where="selection", found=e.label, fix='say "expert": 0')
    if len({anatomy.parts[k].role for k in keys}) > 1:
        raise InputError("rows of which matrix?", where="selection", found=e.label, fix="name a role")
    turned = anatomy.traits.transposed and e.kind in ("attn", "ffn")
    for k in keys:
        axis = int(turned and len(shapes[k]) == 2)
        yield k, axis, _within(e, int(shapes[k][axis]))


def _fused(e: Entry, anatomy: Anatomy) -> list[tuple[Address, ...]]:
    """Runs of rows of one role inside the tensor that several share, in order: a head of q, k or v, or all of gate or up."""
    assert e.layer is not None
    if e.kind == "attn":
        return list(anatomy.heads(e.layer)[str(e.role)]) if anatomy.keys(layer=e.layer, role="qkv") else []
    if not anatomy.keys(layer=e.layer, kind="ffn", role="gate_up"):
        return []
    block = anatomy.neurons(e.layer)[0]
    return [block.gate if e.role == "gate" else block.up]


def _along(e: Entry, runs: list[tuple[Address, ...]]) -> Iterator[Piece]:
    """Row r of the role is row r of its runs laid end to end."""
    length = runs[0][0].stop - runs[0][0].start
    rows = np.arange(length * len(runs)) if e.rows is None else _within(e, length * len(runs))
    for i, run in enumerate(runs):
        own = rows[rows // length == i] - i * length
        for a in run:
            yield a.key, a.axis, a.start + own
