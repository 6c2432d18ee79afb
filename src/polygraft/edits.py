"""Edits of a running model at the points where it is read: neurons set, scaled, shifted; the residual stream shifted or projected.

One masked operation for each layer and point, whatever the number of edited neurons. Neurons are edited where they are measured: at
the output of the activation function (`taps`, point "act"). Counters prove that every edited point saw every token once.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraft import arrays, files
from polygraft.errors import InputError, StepFailed
from polygraft.taps import Passing, Taps

if TYPE_CHECKING:
    import torch

    from polygraft.anatomy import Anatomy
    from polygraft.model import Live

FILE, VALUES = "edits.json", "edits.safetensors"
POINTS = ("act", "residual")
OPS = ("set", "scale", "add", "atleast", "project", "keep")
POSITIONS = ("all", "prompt", "generated")
ORTHONORMAL = 1e-3  # how far B B^T may be from the identity

# Which tokens of the coming passes the model wrote itself: bool [batch, tokens] for one pass, or how many columns are prompt for a
# generation; None where nobody said. Whoever runs the model publishes it; only edits of prompt or generated positions ask.
GENERATED: ContextVar[torch.Tensor | int | None] = ContextVar("GENERATED", default=None)
ACTIVE: ContextVar[tuple[applied, ...]] = ContextVar("ACTIVE", default=())


@dataclass(frozen=True, eq=False)
class Edit:
    """One change of the value x at a point of a layer.

    point: "act" (x: FFN neurons, a mixture's experts one after another) or "residual" (x: the stream after the layer, [hidden]).
    op: "set" x = v, "scale" x = v x, "add" x = x + v, "atleast" x = max(x, v), on `rows` of x (int64 [k], None = all) with v
    float32 [k] or [1]; on the residual stream also "project" x - B^T B x and "keep" B^T B x with v = B, float32 [r, hidden],
    orthonormal rows. positions: "all" tokens, those of the "prompt", or those that the model "generated".
    Raises InputError for anything else.
    """

    point: str
    layer: int
    op: str
    rows: np.ndarray | None
    values: np.ndarray
    positions: str = "all"

    def __post_init__(self) -> None:
        for name, known in (("point", POINTS), ("op", OPS), ("positions", POSITIONS)):
            if getattr(self, name) not in known:
                raise self._wrong(f"no such {name}", getattr(self, name), ", ".join(known))
        object.__setattr__(self, "values", np.asarray(self.values, np.float32))
        if not np.isfinite(self.values).all():
            raise self._wrong("a value to write is not a finite number", "NaN, Inf or beyond float32", "finite numbers")
        if self.rows is not None:
            object.__setattr__(self, "rows", np.asarray(self.rows, np.int64).reshape(-1))
            if len(np.unique(self.rows)) != len(self.rows) or (len(self.rows) and self.rows.min() < 0):
                raise self._wrong("a row is negative or named twice", len(self.rows), "each row once, counted from 0")
        self._check_projection() if self.op in ("project", "keep") else self._check_values()

    def _check_values(self) -> None:
        object.__setattr__(self, "values", self.values.reshape(-1))
        if self.rows is not None and self.values.size not in (1, len(self.rows)):
            raise self._wrong("not one value for each row", f"{self.values.size} values", f"1 or {len(self.rows)}")

    def _check_projection(self) -> None:
        if self.point != "residual" or self.rows is not None or self.values.ndim != 2:
            raise self._wrong("a projection is of the whole residual stream", f"{self.point}, values {list(self.values.shape)}",
                              "point residual, no rows, values [directions, hidden]")
        square = self.values.astype(np.float64) @ self.values.T
        if np.abs(square - np.eye(len(square))).max(initial=0) > ORTHONORMAL:
            raise self._wrong("the directions of a projection are not orthonormal", "another matrix",
                              "rows of length 1 at right angles")

    def _wrong(self, what: str, found: Any, expected: str) -> InputError:
        return InputError(what, where=f"edit of {self.point}, layer {self.layer}", found=found, expected=expected)

    def to_json(self) -> dict[str, Any]:
        """Everything but the arrays."""
        return {"point": self.point, "layer": self.layer, "op": self.op, "positions": self.positions}


@dataclass(frozen=True, eq=False)
class Edits:
    """Edits in the order in which they are made; `a + b` makes those of a first. Equal digests edit alike."""

    edits: tuple[Edit, ...] = ()

    def __add__(self, other: Edits) -> Edits:
        return Edits(self.edits + other.edits)

    @property
    def off(self) -> bool:
        """Whether nothing is edited."""
        return not self.edits

    @property
    def positional(self) -> bool:
        """Whether a token's place in the prompt or in the answer decides what is edited."""
        return any(e.positions != "all" for e in self.edits)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of every edit in order; the digest of nothing for no edits."""
        total = hashlib.sha256()
        for e in self.edits:
            rows = None if e.rows is None else hashlib.sha256(e.rows.astype("<i8").tobytes()).hexdigest()
            value = [list(e.values.shape), hashlib.sha256(e.values.astype("<f4").tobytes()).hexdigest()]
            total.update(files.digest([e.to_json(), rows, value]).encode())
        return total.hexdigest()

    def at(self, positions: str) -> Edits:
        """The same edits at other positions."""
        return Edits(tuple(Edit(e.point, e.layer, e.op, e.rows, e.values, positions) for e in self.edits))

    def save(self, folder: Path) -> None:
        """Write edits.json and edits.safetensors into an existing folder."""
        tables: dict[str, np.ndarray] = {}
        for i, e in enumerate(self.edits):
            tables[f"values.{i}"] = e.values
            if e.rows is not None:
                tables[f"rows.{i}"] = e.rows
        arrays.write(folder / VALUES, tables)
        files.write_json(folder / FILE, {"edits": [e.to_json() for e in self.edits], "digest": self.digest})

    @classmethod
    def load(cls, folder: Path) -> Edits:
        """The inverse of `save`. Raises InputError where the files do not fit together."""
        told, tables = files.read_json(folder / FILE), arrays.Arrays(folder / VALUES)
        try:
            made = cls(tuple(Edit(rows=tables.get(f"rows.{i}"), values=tables[f"values.{i}"], **e)
                             for i, e in enumerate(told["edits"])))
            same = made.digest == told["digest"]
        except (KeyError, TypeError) as error:
            raise InputError("not a list of edits", where=folder / FILE, found=str(error)[:200],
                             fix="make it again with `polygraft steer`") from None
        if not same:
            raise InputError("the edits and their values do not belong together", where=folder / FILE, found=made.digest[:12],
                             expected=str(told["digest"])[:12], fix="copy both files again")
        return made


def at_work(model: Any) -> Edits:
    """The edits under which this transformers model runs now, in order; none outside `applied`."""
    return sum((run.edits for run in ACTIVE.get() if run.model is model), Edits())


# ------------------------------------------------------------------------------------------------- what is done at one point


@dataclass(frozen=True, eq=False)
class Stage:
    """One operation on x [..., width] at some positions: "set" (x = b where a is 0), "affine" (a x + b), "atleast" (max(x, b)),
    "project" or "keep" (by a [r, width])."""

    kind: str
    positions: str
    a: np.ndarray
    b: np.ndarray


def stages(edits: Iterable[Edit], width: int) -> list[Stage]:
    """As few operations as do the same as these edits of one point, one after another: all that set, scale or add become one.

    Raises InputError for a row beyond the point's width.
    """
    out: list[Stage] = []
    for e in edits:
        if e.op in ("project", "keep"):
            if e.values.shape[1] != width:
                raise e._wrong("the directions are of another width", e.values.shape[1], str(width))
            out.append(Stage(e.op, e.positions, e.values, np.zeros(0)))
            continue
        rows = np.arange(width) if e.rows is None else e.rows
        if len(rows) and rows.max() >= width:
            raise e._wrong("an edited row is beyond the layer", int(rows.max()), f"0 to {width - 1}")
        if e.values.size not in (1, len(rows)):
            raise e._wrong("not one value for each row", f"{e.values.size} values", f"1 or {len(rows)}")
        if e.op == "atleast":
            floor = np.full(width, -np.inf)
            floor[rows] = e.values
            out.append(Stage("atleast", e.positions, np.zeros(0), floor))
        else:
            before = out.pop() if out and out[-1].kind in ("set", "affine") and out[-1].positions == e.positions else None
            out.append(_affine(e, rows, width, before))
    return out


def _affine(e: Edit, rows: np.ndarray, width: int, before: Stage | None) -> Stage:
    a = np.ones(width) if before is None else before.a.copy()
    b = np.zeros(width) if before is None else before.b.copy()
    if e.op == "set":
        a[rows], b[rows] = 0, e.values
    elif e.op == "scale":
        a[rows], b[rows] = a[rows] * e.values, b[rows] * e.values
    else:
        b[rows] += e.values
    only_set = bool(((a == 0) | ((a == 1) & (b == 0))).all())
    return Stage("set" if only_set else "affine", e.positions, a, b)


class Ready:
    """The stages of one point of one layer as tensors, made when a first value of a device, dtype and slice passes."""

    def __init__(self, found: list[Stage]):
        self.stages, self.made = found, dict[Any, list[tuple[str, str, Any, Any]]]()

    def tensors(self, like: torch.Tensor, part: slice) -> list[tuple[str, str, Any, Any]]:
        import torch

        key = (like.device, like.dtype, part.start)
        if key not in self.made:
            def tensor(x: np.ndarray, dtype: Any = like.dtype) -> Any:
                return torch.as_tensor(x[..., part], device=like.device).to(dtype)

            first = {"set": torch.bool, "project": _wide(like.dtype), "keep": _wide(like.dtype)}
            self.made[key] = [(s.kind, s.positions, tensor(s.a, first.get(s.kind, like.dtype)), tensor(s.b)) for s in self.stages]
        return self.made[key]

    def __call__(self, value: torch.Tensor, part: slice, written: Any) -> torch.Tensor:
        """The edited value. `written`: True, False, or bool [..., 1] over the value's tokens: which of them the model wrote."""
        import torch

        for kind, positions, a, b in self.tensors(value, part):
            where = True if positions == "all" else written if positions == "generated" else _not(written)
            if where is not False:
                edited = _done(kind, value, a, b)
                value = edited if where is True else torch.where(where, edited, value)
        return value


def _wide(dtype: Any) -> Any:
    import torch

    return torch.promote_types(dtype, torch.float32)


def _not(written: Any) -> Any:
    return not written if isinstance(written, bool) else ~written


def _done(kind: str, x: Any, a: Any, b: Any) -> Any:
    """One stage; projections are computed in float32 at least, all else in x's own dtype."""
    import torch

    if kind == "set":
        return x.where(a, b)
    if kind == "affine":
        return torch.addcmul(b, x, a)
    if kind == "atleast":
        return x.maximum(b)
    wide = x.to(a.dtype)
    inside = (wide @ a.T) @ a
    return (inside if kind == "keep" else wide - inside).to(x.dtype)


# --------------------------------------------------------------------------------------------------------- a model under edits


class applied:
    """`with applied(live, edits): live.model(...)` runs every pass inside the block under the edits.

    `passes` and `tokens` count what passed; each edited point must see each token once a pass (once for each expert it chose), or
    leaving the block raises StepFailed. A pass that broke off (memory) does not count. Raises InputError for an edit that does not
    fit the model, or, in a pass, where edits ask for prompt or generated positions and nobody published them.
    """

    def __init__(self, live: Live, edits: Edits):
        self.model, self.anatomy, self.edits = live.model, live.anatomy, edits
        self.sizes = sizes(live.anatomy)
        self.ready = {site: Ready(stages((e for e in edits.edits if (e.point, e.layer) == site), self._width(*site)))
                      for site in sorted({(e.point, e.layer) for e in edits.edits})}
        self.passes, self._written, self._column = 0, None, 0
        self._finished, self._before = True, (0, Counter[tuple[str, int]]())
        self.taps = Taps(live.model, live.anatomy, self._edited, points=sorted({p for p, _ in self.ready}),
                         layers=sorted({i for _, i in self.ready}))
        self.taps.sites = [site for site in self.taps.sites if site[:2] in self.ready]
        self._hooks: list[Any] = []

    @property
    def tokens(self) -> int:
        return self.taps.tokens

    def __enter__(self) -> applied:
        self._token = ACTIVE.set((*ACTIVE.get(), self))
        if self.ready:
            backbone = _backbone(self.model, self.anatomy)
            self._hooks = [backbone.register_forward_pre_hook(self._start, with_kwargs=True),
                           backbone.register_forward_hook(self._end)]
            self.taps.__enter__()
            self._hooks.append(self.model.get_input_embeddings().register_forward_hook(self._place))
        return self

    def __exit__(self, kind: Any, *rest: Any) -> None:
        ACTIVE.reset(self._token)
        for hook in self._hooks:
            hook.remove()
        if self.ready:
            self._forget_broken()
            self.taps.__exit__(kind, *rest)

    def _width(self, point: str, layer: int) -> int:
        if not 0 <= layer < self.anatomy.layers:
            raise InputError("no such layer", where=f"edit of {point}", found=layer, expected=f"0 to {self.anatomy.layers - 1}")
        if point == "residual":
            return self.anatomy.sizes.hidden
        return self.sizes[layer]

    def _edited(self, p: Passing) -> torch.Tensor:
        written: Any = self._written
        if written is not None and not isinstance(written, bool):
            flat = written.reshape(-1) if p.tokens is None else written.reshape(-1)[p.tokens]
            written = flat.reshape(*p.value.shape[:-1], 1)
        part = slice(0, None) if p.expert is None else slice(p.expert * p.value.shape[-1], (p.expert + 1) * p.value.shape[-1])
        return self.ready[p.point, p.layer](p.value, part, written)

    def _start(self, _module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        self._forget_broken()
        self._finished, self._before = False, (self.taps.tokens, self.taps.seen.copy())
        cache = kwargs.get("past_key_values")
        self._column = 0 if cache is None else int(cache.get_seq_length())

    def _end(self, *_: Any) -> None:
        self._finished = True
        self.passes += 1

    def _forget_broken(self) -> None:
        if not self._finished:
            self.taps.tokens, self.taps.seen = self._before
            self._finished = True

    def _place(self, _module: Any, _inputs: Any, output: torch.Tensor) -> None:
        """Which tokens of this pass the model wrote, if an edit asks."""
        if self.edits.positional:
            self._written = _written(GENERATED.get(), output, self._column)


def _written(told: Any, embedded: Any, column: int) -> Any:
    import torch

    batch, tokens = embedded.shape[:2]
    if isinstance(told, int):
        if told <= column or told >= column + tokens:
            return told <= column
        told = (torch.arange(column, column + tokens, device=embedded.device) >= told).expand(batch, tokens)
    if told is None or tuple(told.shape) != (batch, tokens):
        raise StepFailed("edits ask which tokens are prompt, and this pass was not told", where="edits.GENERATED",
                         found="nothing" if told is None else f"{list(told.shape)} for {[batch, tokens]} tokens",
                         expected="bool [batch, tokens], or the prompt's columns",
                         fix="edit all positions, or run the model inside `told(...)`")  # fmt: skip
    return told.to(embedded.device)


@contextlib.contextmanager
def told(generated: torch.Tensor | int) -> Iterator[None]:
    """Publish which tokens of the coming passes the model wrote: `with told(prompt_columns): model.generate(...)`."""
    token = GENERATED.set(generated)
    try:
        yield
    finally:
        GENERATED.reset(token)


def sizes(anatomy: Anatomy) -> tuple[int, ...]:
    """Neurons of each layer at the point "act", a mixture's experts one after another."""
    size = anatomy.sizes
    return tuple(size.experts * size.moe_ffn if anatomy.keys(layer=i, role="experts.down") else size.ffn
                 for i in range(anatomy.layers))


def _backbone(model: Any, anatomy: Anatomy) -> Any:
    """The module whose call is one pass: what holds the list of layers (some heads do not call their `base_model`)."""
    name = anatomy.live_name(anatomy.keys(layer=0, kind="attn")[0]) or ""
    return model.get_submodule(name.partition(".0.")[0].rpartition(".")[0])
