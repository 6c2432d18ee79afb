"""LoRA on what a selection says, and on nothing else.

A pair changes a matrix W [out, in] by s B A with A [r, in], B [out, r] (Hu et al. 2021, arXiv 2106.09685, equation 3). Where rows
of W are selected only their rows of B are trained, where columns are selected only their columns of A; all else there is exactly
zero, so that s B A is zero outside them. Of FFN neurons these are B's rows for gate and up and A's columns for down. Mondal et al.
(arXiv 2503.17456) mask B so, of gate alone, beside unrestricted LoRA on attention.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraft.errors import RecipeError, StepFailed, suggestion
from polygraft.result import Table
from polygraft.selection import Selection, Shapes
from polygraft.tune import grafts
from polygraft.tune.chosen import size
from polygraft.tune.grafts import Grafts, Place
from polygraft.tune.output import adapter_tensors, write_adapter
from polygraft.tune.proof import unchanged

if TYPE_CHECKING:
    from polygraft.anatomy import Anatomy
    from polygraft.model import Live
    from polygraft.sources import Source
    from polygraft.tune.settings import Settings

LINEAR = ("attn", "ffn")
ROUTERS = ("router", "shared.router")


@dataclass(frozen=True)
class Slot:
    """A matrix that gets a pair. `outs` and `ins` are the trained rows of B and columns of A, int64, or None for all."""

    key: str
    module: str  # its name in the live model
    size: tuple[int, int]  # (out, in)
    outs: np.ndarray | None = None
    ins: np.ndarray | None = None

    def parameters(self, rank: int) -> int:
        """Trained elements of A and B."""
        return rank * sum(self._ends)

    @property
    def reach(self) -> int:
        """Elements of the matrix that the pair can change."""
        out, into = self._ends
        return out * into

    @property
    def _ends(self) -> tuple[int, int]:
        return tuple(n if rows is None else len(rows) for n, rows in zip(self.size, (self.outs, self.ins), strict=True))  # type: ignore[return-value]


def adaptable(anatomy: Anatomy, shapes: Shapes) -> set[str]:
    """The matrices that LoRA can lie on here: attention and dense FFN. A mixture's experts share one tensor in memory."""
    return {key for key, p in anatomy.parts.items() if p.layer is not None and p.kind in LINEAR and p.expert is None
            and p.role not in ROUTERS and len(shapes[key]) == 2 and key.endswith(".weight")}


def fitted(selection: Selection, anatomy: Anatomy, shapes: Shapes) -> tuple[Selection, tuple[str, ...]]:
    """What of a selection LoRA can train, and what it leaves, in a sentence: vectors (biases, gains of norms).

    Raises RecipeError where a selected matrix takes no adapter, or no matrix is selected.
    """
    able = adaptable(anatomy, shapes)
    labels = {key: anatomy.parts[key].label for key in selection.rows if key not in able}
    named = ", ".join(sorted(set(labels.values())))
    if found := sorted({label for key, label in labels.items() if len(shapes[key]) > 1}):
        mixture = any("expert" in label for label in found)
        why = "the experts of a mixture are one stacked tensor in memory" if mixture else "it is for attention and FFN matrices"
        raise RecipeError(f"LoRA cannot lie on this: {why}", where="LoRA", found=", ".join(found),
                          expected="attention or dense FFN matrices", fix="leave it out (`parts: [attn]`), or train the weights "
                          "themselves (tune neurons, tune embeddings, tune sft --method full)")  # fmt: skip
    kept = selection & Selection(dict.fromkeys(able))
    if not kept.rows:
        raise RecipeError("nothing is left for LoRA to lie on", where="LoRA", found=named or "no tensor",
                          expected="attention or dense FFN matrices", fix="see `polygraft inspect` for the parts of the model")
    return kept, (f"LoRA leaves vectors (biases, norms) as they are: {named}",) if labels else ()


def left_out(anatomy: Anatomy) -> tuple[str, ...]:
    """What an adapter on everything leaves of a mixture, in a sentence."""
    experts = any(p.expert is not None for p in anatomy.parts.values())
    return ("the experts and routers of this mixture get no adapter: attention alone is trained",) if experts else ()


def slots(anatomy: Anatomy, shapes: Shapes, selection: Selection | None, targets: Sequence[str] = ()) -> tuple[Slot, ...]:
    """The matrices that get a pair: the selection's (None: all adaptable ones), of those modules that `targets` name, if any.

    Raises RecipeError for a target that none of them is called.
    """
    keys = adaptable(anatomy, shapes)
    names = {key: str(anatomy.live_name(key)).removesuffix(".weight") for key in keys}
    wanted = [k for k in anatomy.parts if k in keys and (selection is None or k in selection)]
    tails = {k: names[k].rpartition(".")[2] for k in wanted}
    if unknown := next((t for t in targets if t not in tails.values()), None):
        raise RecipeError("no module that could get an adapter has this name", where="targets", found=unknown,
                          fix=suggestion(unknown, set(tails.values())))  # fmt: skip
    wanted = [k for k in wanted if not targets or tails[k] in targets]
    return tuple(_slot(k, names[k], shapes[k], selection, anatomy.traits.transposed) for k in wanted)


def _slot(key: str, module: str, shape: Sequence[int], selection: Selection | None, turned: bool) -> Slot:
    out, into = (shape[1], shape[0]) if turned else (shape[0], shape[1])
    rows = None if selection is None else selection.rows[key]
    axis = 0 if selection is None else selection.axis.get(key, 0)
    outward = axis == int(turned)
    return Slot(key, module, (out, into), rows if outward else None, None if outward else rows)


# ---------------------------------------------------------------------------------------------------------- on a live model


@dataclass(frozen=True)
class Laid:
    """A model with an adapter on it. `start` holds the adapter's tensors as the files would have held them before training."""

    model: Any
    slots: tuple[Slot, ...]
    rank: int
    start: Mapping[str, Any]
    grafts: Grafts  # the trained rows of B and columns of A, where not all of them are

    @property
    def trainable(self) -> int:
        return sum(slot.parameters(self.rank) for slot in self.slots)

    def write(self, source: Source, out: Path) -> AdapterProof:
        """Write the adapter, and prove from its files that it is what memory holds and reaches what was selected and no more."""
        assert source.checkpoint is not None
        write_adapter(self.model, source, out)
        memory = {k: _bytes(v) for k, v in adapter_tensors(self.model, source.checkpoint).items()}
        return prove_adapter(out, self, memory, size(source.checkpoint))


def lay(live: Live, source: Source, s: Settings, selection: Selection | None) -> Laid:
    """Lay an adapter on the model as peft does, seeded; outside the selected rows and columns it is zero and stays so."""
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    assert source.checkpoint is not None
    places = slots(live.anatomy, {k: t.shape for k, t in source.checkpoint.tensors.items()}, selection, s.targets)
    set_seed(s.seed)
    config = LoraConfig(
        r=s.r, lora_alpha=s.scale,  # type: ignore[arg-type]
        lora_dropout=s.dropout, use_rslora=s.rslora, task_type="CAUSAL_LM", fan_in_fan_out=live.anatomy.traits.transposed,
        target_modules=[slot.module for slot in places])  # fmt: skip
    with warnings.catch_warnings():  # peft asks transformers for a name that changes
        warnings.simplefilter("ignore", FutureWarning)
        model = get_peft_model(live.model, config)
    ends = [(f"base_model.model.{slot.module}.lora_{end}.default.weight", axis, rows) for slot in places
            for end, axis, rows in (("B", 0, slot.outs), ("A", 1, slot.ins)) if rows is not None]  # fmt: skip
    held = limited(model, ends)
    return Laid(model, places, s.r, {k: _bytes(v) for k, v in adapter_tensors(model, source.checkpoint).items()}, held)


def limited(model: Any, ends: Iterable[tuple[str, int, np.ndarray]]) -> Grafts:
    """Train of each of these parameters only the rows along an axis: they become grafts; all else in it is zero and stays."""
    import torch

    places, starts = [], {}
    for name, axis, rows in ends:
        whole = model.get_parameter(name)
        index = torch.as_tensor(rows, dtype=torch.int64, device=whole.device)
        starts[name] = whole.detach().clone()
        whole.data.zero_()
        places.append(Place(name, name, axis, index))
    return grafts.at(model, places, starts.__getitem__)


def _bytes(tensor: Any) -> bytes:
    import torch

    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


# ------------------------------------------------------------------------------------------------------------------ the proof

IDLE = "A has none in the first step, in which B is still 0; later, neurons that never fire"


@dataclass(frozen=True)
class AdapterProof:
    """Elements of the model, of the adapter that were trained, of them changed, of the model that a merge can change; matrices."""

    total: int
    selected: int
    changed: int
    reach: int
    matrices: int
    still: int = 0  # trained elements in rows of B or columns of A that are, all of them, as they were

    def table(self) -> Table:
        def share(n: int) -> str:
            return f"{n / self.total:.2%}"

        rows = (("parameters of the adapter that were trained", self.selected, share(self.selected)),
                ("of them changed", self.changed, share(self.changed)), ("matrices with a pair", self.matrices, ""),
                ("parameters of the model that merging it can change", self.reach, share(self.reach)))
        return Table("What the written files show", ("what", "count", "share of the model"), rows,
                     "read again from the adapter's files: no pair reaches a row or column outside the selection")

    @property
    def sentence(self) -> str:
        return (f"The written files show it: {self.changed:,} of these changed; merged into the model, the adapter can change "
                f"{self.reach:,} of its parameters ({self.reach / self.total:.2%}, {self.matrices} matrices) and no other.")

    @property
    def caveats(self) -> tuple[str, ...]:
        """Why fewer numbers changed than were trained, if so."""
        return unchanged(self.selected, self.changed, self.still, IDLE)


def prove_adapter(folder: Path, laid: Laid, memory: Mapping[str, bytes], total: int) -> AdapterProof:
    """Read the adapter again: memory's bytes, a pair for each slot and nothing else, zeros outside the trained rows and columns.

    Raises StepFailed where one of these does not hold: each would be a fault of this program or of the disk.
    """
    from polygraft.adapter import Adapter

    adapter, changed, still = Adapter.open(folder), 0, 0
    if adapter.tensors.keys() != memory.keys() or adapter.pairs.keys() != {slot.module for slot in laid.slots}:
        raise StepFailed("the written adapter has other pairs than were trained", where=folder)
    for slot in laid.slots:
        pair = adapter.pairs[slot.module]
        for key, axis, rows in ((pair.a, 1, slot.ins), (pair.b, 0, slot.outs)):
            info, now = adapter.tensors[key], adapter.read(key)
            if now != memory[key]:
                raise StepFailed("a written tensor is not what memory held", where=key, fix="the disk may be failing: train again")
            if rows is not None and np.delete(adapter.f32(key).reshape(info.shape), rows, axis).any():
                raise StepFailed("a row outside the selection changed", where=key)
            differs = np.frombuffer(now, np.uint8) != np.frombuffer(laid.start[key], np.uint8)
            moved = differs.reshape(*info.shape, info.itemsize).any(-1)
            idle = np.flatnonzero(~moved.any(1 - axis))
            changed += int(moved.sum())
            still += len(idle if rows is None else np.intersect1d(idle, rows)) * info.shape[1 - axis]
    return AdapterProof(total, laid.trainable, changed, sum(slot.reach for slot in laid.slots), len(laid.slots), still)
