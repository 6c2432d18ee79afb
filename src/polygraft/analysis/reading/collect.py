"""Collectors: what is kept of the values that taps see, added up on the model's own device.

Of every batch windows are taken one at a time (on an accelerator: the batch at once), and neurons' values some tokens at a time,
while they are in the cache. A value is widened to float32 once; sums over those tokens are products with a row of ones for each
group of documents, all other sums float64 but those of groups and Gram matrices, which are float32. Counts are exact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from polygraft import activity, edits
from polygraft.analysis.reading import bins
from polygraft.analysis.reading.config import Wanted
from polygraft.analysis.reading.shapes import ROLES, experts, shapes
from polygraft.errors import InputError, StepFailed
from polygraft.windows import Batch

if TYPE_CHECKING:
    import torch

    from polygraft.anatomy import Anatomy
    from polygraft.taps import Passing

COLUMNS = 2048  # neurons whose bins are counted together: 4 MB of a window of 512 tokens, and their counts 1 MB
AT_ONCE = 64  # tokens, on a CPU: their values stay in the cache for the three products with them
BY_POINT = {point: role for role, point in ROLES.items()}


@dataclass(frozen=True)
class Piece:
    """Tokens that are added up together: `member` float32 [groups here, tokens] is 1 where a token is of one of `groups`."""

    groups: tuple[int, ...]
    member: torch.Tensor


@dataclass
class Collector:
    """`begin(batch, groups)` before each forward; then it is the observer of the taps. `arrays()` is what was gathered."""

    anatomy: Anatomy
    wanted: Wanted
    device: str = "cpu"
    language: str = ""
    totals: dict[str, torch.Tensor] = field(default_factory=dict)
    tokens: int = 0
    seen: Counter[tuple[str, int]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        import torch

        self.needed = shapes(self.anatomy, self.wanted)
        self.totals = {n: torch.zeros(s, dtype=getattr(torch, k), device=self.device) for n, (k, s) in self.needed.items()}
        self._roles = {BY_POINT[p]: p for p in BY_POINT}
        self._table = torch.from_numpy(bins.table()).to(self.device) if self.wanted.histogram else None
        self._kept: dict[tuple[str, int], torch.Tensor] = {}
        self._pieces: list[Piece] = []
        self._shape = (0, 0)
        self._skip = 0
        self._narrow = False  # whether any value came in less than float32

    # ------------------------------------------------------------------------------------------------------------- a batch

    def begin(self, batch: Batch, groups: np.ndarray) -> None:
        """The next forward is this batch; `groups` int64 [documents] tells each document's group."""
        self._shape, self._skip = batch.ids.shape, batch.skip  # type: ignore[assignment]
        dealt = groups[batch.documents] if self.wanted.groups else np.zeros_like(batch.documents)
        rows = dealt.reshape(1, -1) if self.device.startswith("cuda") and not self.wanted.percentile else dealt
        self._pieces = [self._piece(row) for row in rows]
        self._everything: Piece | None = None
        self._dealt = dealt
        self._begun = batch

    def count(self) -> None:
        """The batch that was begun has been read: its tokens count (once, also where layers run one after another)."""
        self.tokens += self._begun.tokens
        if self.wanted.groups:
            found = np.bincount(self._dealt.ravel(), minlength=self.wanted.groups)
            self.totals["group.tokens"] += self._tensor(found)

    def _tensor(self, value: np.ndarray) -> torch.Tensor:
        import torch

        return torch.from_numpy(value).to(self.device)

    def _piece(self, dealt: np.ndarray) -> Piece:
        here = np.unique(dealt)
        return Piece(tuple(map(int, here)), self._tensor((dealt == here[:, None]).astype(np.float32)))

    def __call__(self, p: Passing) -> None:
        """Observe one point of one layer."""
        if p.point == "act":
            if p.expert is None:
                for piece, value in self._parts(p):
                    self._neurons(p.layer, 0, piece, value)
            else:
                self._routed(p)
        elif p.point in ("residual", "input.layer", "attention"):
            self._stream(p)
        if p.point in BY_POINT:
            self._input(p, BY_POINT[p.point])

    def _parts(self, p: Passing) -> list[tuple[Piece, torch.Tensor]]:
        """float32 [tokens, width] of every piece, BOS left out."""
        value = p.value.detach().reshape(*self._shape, -1)[:, self._skip :]
        self.seen[p.point, p.layer] += value.shape[0] * value.shape[1]
        rows = value.reshape(1, -1, value.shape[-1]) if len(self._pieces) == 1 else value
        return [(piece, self._wide(row)) for piece, row in zip(self._pieces, rows, strict=True)]

    def _wide(self, value: torch.Tensor) -> torch.Tensor:
        """float32, on the device of the sums (layers may lie on several)."""
        import torch

        self._narrow |= value.dtype != torch.float32
        return value.to(self.device, torch.float32)

    def _routed(self, p: Passing) -> None:
        """The tokens that chose an expert, as far as they count."""
        import torch

        assert p.tokens is not None and p.expert is not None
        width = self._shape[1]
        row, column = p.tokens // width, p.tokens % width
        counted = torch.where(column >= self._skip)[0]
        at = (row[counted] * (width - self._skip) + column[counted] - self._skip).to(self.device)
        if self._everything is None:
            self._everything = self._piece(self._dealt.reshape(-1))
        whole = self._everything
        self.seen[p.point, p.layer] += len(counted)
        value = self._wide(p.value.detach()[counted])
        self._neurons(p.layer, p.expert * value.shape[-1], Piece(whole.groups, whole.member[:, at]), value)

    # --------------------------------------------------------------------------------------------------------------- sums

    def _neurons(self, layer: int, first: int, piece: Piece, a: torch.Tensor) -> None:
        import torch

        span, step = slice(first, first + a.shape[-1]), AT_ONCE if self.device == "cpu" else max(1, len(a))
        starts = range(0, len(a), step)
        found = torch.empty((3, len(starts), len(piece.groups), a.shape[-1]), device=a.device)
        for k, i in enumerate(starts):
            x, member = a[i : i + step], piece.member[:, i : i + step]
            room = self._room("float", x)
            torch.mm(member, x, out=found[0, k])
            torch.mm(member, torch.gt(x, 0, out=room), out=found[1, k])
            torch.mm(member, torch.mul(x, x, out=room), out=found[2, k])
        total, fired, squares = found.sum(1, dtype=torch.float64)
        self.totals["sum"][layer, span] += total.sum(0)
        self.totals["positive"][layer, span] += fired.sum(0).to(torch.int64)
        self.totals["square"][layer, span] += squares.sum(0)
        if self.wanted.groups:
            for i, g in enumerate(piece.groups):
                self.totals["group.sum"][g, layer, span] += total[i]
                self.totals["group.positive"][g, layer, span] += fired[i].to(torch.int32)
        if self._table is not None:
            self._histogram(layer, span, a)

    def _squares(self, piece: Piece, squared: torch.Tensor) -> torch.Tensor:
        """float64 [width]: the sum over the tokens, in products of rows of ones too."""
        import torch

        ones = piece.member[:1] if len(piece.groups) == 1 else piece.member.sum(0, keepdim=True)
        return (ones @ squared)[0].to(torch.float64)

    def _histogram(self, layer: int, span: slice, a: torch.Tensor) -> None:
        """Some neurons at a time, which bounds what is held beside the totals and keeps their counts in the cache."""
        for start in range(0, a.shape[-1], COLUMNS):
            some = a[:, start : start + COLUMNS]
            self._bins(layer, slice(span.start + start, span.start + start + some.shape[-1]), some)

    def _bins(self, layer: int, span: slice, a: torch.Tensor) -> None:
        """Upper bits to bins by a table, then one count of (neuron, bin)."""
        import torch

        assert self._table is not None
        codes = self._room("int", a)
        torch.bitwise_right_shift(a.view(torch.int32), bins.SHIFT, out=codes).bitwise_and_(bins.CODES - 1)
        width = a.shape[-1]
        offsets = torch.arange(0, width * bins.BINS, bins.BINS, dtype=torch.int32, device=a.device)
        cells = self._table.index_select(0, codes.view(-1)).view(-1, width).add_(offsets)
        found = torch.bincount(cells.view(-1), minlength=width * bins.BINS).view(width, bins.BINS)
        self.totals["histogram"][layer, span] += found
        if self.wanted.percentile:
            within = bins.percentile(found.cpu().numpy(), bins.edges(), 90)
            self.totals["window.percentile"][layer, span] += self._tensor(within * len(a))

    def _room(self, kind: str, like: torch.Tensor) -> torch.Tensor:
        """A buffer of the value's shape, kept from one window to the next."""
        import torch

        kept = self._kept.get((kind, like.shape[-1]))
        if kept is None or len(kept) < len(like):
            kept = torch.empty(like.shape, dtype=getattr(torch, f"{kind}32"), device=like.device)
            self._kept[kind, like.shape[-1]] = kept
        return kept[: len(like)]

    def _stream(self, p: Passing) -> None:
        import torch

        if p.point == "input.layer" and p.layer:
            self.seen[p.point, p.layer] += self._shape[0] * (self._shape[1] - self._skip)
            return
        name, row = ("attention", p.layer) if p.point == "attention" else ("residual", p.layer + (p.point == "residual"))
        for piece, x in self._parts(p):
            total = piece.member @ x
            self.totals[name][row] += total.sum(0, dtype=torch.float64)
            if self.wanted.groups:
                for i, g in enumerate(piece.groups):
                    self.totals[f"group.{name}"][g, row] += total[i]
            if name == "residual":
                self.totals["square.residual"][row] += (x * x).sum(-1).sum(dtype=torch.float64)
            else:
                self.totals["attention.positive"][row] += (piece.member @ (x > 0).float()).sum(0).to(torch.int64)

    def _input(self, p: Passing, role: str) -> None:
        for piece, x in self._parts(p):
            if role in self.wanted.norms:
                self.totals[f"input.{role}.{p.layer}"] += self._squares(piece, x * x)
            if role in self.wanted.grams:
                self.totals[f"gram.{role}.{p.layer}"] += x.T @ x

    # ------------------------------------------------------------------------------------------------------------- results

    def check(self) -> None:
        """Every point of every layer gave as many tokens as were counted, and every sum is a number.

        Raises StepFailed, and InputError for sums that only float32 cannot hold: of groups, squared norms, Gram matrices.
        """
        chosen = int(self.anatomy.config["num_experts_per_tok"]) if experts(self.anatomy) else 1
        for (point, layer), found in self.seen.items():
            mixed = point == "act" and bool(self.anatomy.keys(layer=layer, role="experts.down"))
            if found != (expected := self.tokens * (chosen if mixed else 1)):
                raise StepFailed("a layer gave another number of tokens than were read", where=f"{point}, layer {layer}",
                                 found=f"{found:,}", expected=f"{expected:,}")
        for name in ("sum", "square", "residual", "square.residual", "attention"):
            total = self.totals.get(name)
            if total is not None and not bool(total.isfinite().all()):
                bad = int((~total.isfinite().reshape(len(total), -1).all(-1)).nonzero()[0])
                raise StepFailed("the model's values are not finite", where=f"{name}, layer {bad}", found="NaN or infinity",
                                 fix="read the text in float32: --dtype float32" if self._narrow else
                                 "this was float32 already: look for NaN or huge values in the model's weights, or get it again")
        for name, total in self.totals.items():
            if total.is_floating_point() and not bool(total.isfinite().all()):
                raise InputError("sums of this text are larger than float32 holds", where=self._place(name, total),
                                 found="infinity", fix="leave out what is summed there, or read fewer tokens")

    def _place(self, name: str, total: torch.Tensor) -> str:
        """Language, array and layer of what is not finite."""
        kind, _, layer = name.rpartition(".")
        if not layer.isdecimal():  # a group's array: [groups, layers, width]
            kind, layer = name, str(int((~total.isfinite()).nonzero()[0][1]) if total.ndim > 2 else 0)
        return ", ".join(filter(None, (self.language, kind, f"layer {layer}")))

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything as numpy arrays, as of now."""
        return {name: value.cpu().numpy() for name, value in self.totals.items()}

    def load(self, found: Mapping[str, np.ndarray]) -> None:
        """Go on from `arrays()` of before: from all of them, or nothing changes. Raises InputError where one is not to be had."""
        loaded = {}
        for name, (kind, shape) in self.needed.items():
            if name not in found:
                raise InputError("an array is missing", where=name)
            value = found[name]
            if value.shape != shape or value.dtype != kind:
                raise InputError("an array of another shape", where=name, found=f"{value.dtype} {value.shape}",
                                 expected=f"{kind} {shape}")
            loaded[name] = self._tensor(np.ascontiguousarray(value))
        self.totals = loaded


def completed(arrays: dict[str, np.ndarray], tokens: int, anatomy: Anatomy) -> dict[str, np.ndarray]:
    """The histograms of a mixture with the tokens that did not choose an expert: its neurons are 0 there."""
    if "histogram" not in arrays or not experts(anatomy):
        return arrays
    full = arrays["histogram"].copy()
    missing = np.where(activity.real(edits.sizes(anatomy)), tokens - full.sum(-1), 0)
    full[..., bins.zero()] += missing.astype(full.dtype)
    return arrays | {"histogram": full}
