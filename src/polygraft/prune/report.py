"""What a pruning did, in sentences, tables and pictures: pure functions of the modules that it left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from polygraft.anatomy import Anatomy
from polygraft.maps import Cell, layer_map
from polygraft.prune.engine import Module
from polygraft.result import LayerMap, Table

NOTES = 20  # modules that a sentence names
DENSE = (
    "The files are dense: zeros are stored like any other number, so nothing is smaller, and no runtime that reads them is faster. "
    "`polygraft prune plan` says what would be."
)
LOCAL = (
    "The error is that of each matrix by itself on the calibration text, behind pruned layers: it tells which matrices suffer, "
    "not how good the model still is. Evaluate it in every language that matters, not in that of the calibration alone."
)


def mean(modules: Sequence[Module], value: Callable[[Module], float | None]) -> float | None:
    """Mean over modules weighted by their size; None where no module has the value."""
    known = [(m.size, v) for m in modules if (v := value(m)) is not None]
    return sum(n * v for n, v in known) / sum(n for n, _ in known) if known else None


def cells(modules: Mapping[str, Module], anatomy: Anatomy, value: Callable[[Module], float | None]) -> dict[Cell, float | None]:
    """The mean of each (part, layer): the experts of a mixture share one."""
    found: dict[Cell, list[Module]] = {}
    for key, module in modules.items():
        part = anatomy.parts[key]
        found.setdefault((part.label, part.layer), []).append(module)
    return {cell: mean(some, value) for cell, some in found.items()}


def maps(modules: Mapping[str, Module], anatomy: Anatomy) -> tuple[LayerMap, ...]:
    """How much of each matrix went, and what its output lost by it."""
    went, lost = cells(modules, anatomy, lambda m: m.sparsity), cells(modules, anatomy, lambda m: m.error)
    drawn = [layer_map(anatomy, went, "Weights that went", unit="share", low=0.0, high=1.0)]
    if any(v is not None for v in lost.values()):
        drawn.append(layer_map(anatomy, lost, "Relative error of each matrix' output", unit="|Wx - W'x|^2 / |Wx|^2", low=0.0))
    return tuple(drawn)


def table(modules: Mapping[str, Module], anatomy: Anatomy) -> Table:
    """By kind of matrix: how many, how much went, and the error; the worst layer is named."""
    kinds: dict[str, list[Module]] = {}
    for key, module in modules.items():
        kinds.setdefault(anatomy.parts[key].label, []).append(module)
    rows = []
    for label in sorted(kinds, key=lambda k: anatomy.rows.index(k)):
        some = kinds[label]
        errors = [(m.error, m.key) for m in some if m.error is not None]
        worst = max(errors, default=(None, ""))
        layer = anatomy.parts[worst[1]].layer if worst[1] else None
        rows.append((label, len(some), sum(m.size for m in some), mean(some, lambda m: m.sparsity), mean(some, lambda m: m.error),
                     worst[0], layer))  # fmt: skip
    return Table("What went, by matrix", ("matrix", "how many", "weights", "share that went", "relative output error",
                                          "largest", "in layer"), tuple(rows))  # fmt: skip


def summary(what: str, modules: Mapping[str, Module], parameters: int, zeros: Mapping[str, int]) -> tuple[str, ...]:
    """`what` is what was done, such as "wanda at 0.5"; `parameters` all of the model's, `zeros` those on the disk."""
    size, gone = sum(m.size for m in modules.values()), sum(m.zeros for m in modules.values())
    share = mean(list(modules.values()), lambda m: m.error)
    lines = [f"{what}: {gone:,} of {size:,} weights in {len(modules):,} matrices went ({gone / max(1, size):.2%}), "
             f"{gone / max(1, parameters):.1%} of the model's {parameters:,} parameters."]
    if share is not None:
        lines.append(f"Relative error of a matrix' output on the calibration text: {share:.4f} on average, weighted by size.")
    languages = next(iter(modules.values())).errors if modules else ()
    if each := {g: x for g in languages if (x := mean(list(modules.values()), partial(_error, language=g))) is not None}:
        lines.append("Of each language's part of it: " + ", ".join(f"{g} {x:.4f}" for g, x in each.items()) + ".")
    if (more := sum(zeros.values()) - gone) > 0:
        lines.append(f"{more:,} weights that stay were zero before.")
    return tuple(lines)


def _error(module: Module, language: str) -> float | None:
    return module.errors[language]


def caveats(modules: Mapping[str, Module]) -> tuple[str, ...]:
    """What the figures cannot tell, and every module that did not go as asked, by name."""
    noted: dict[str, list[str]] = {}
    for key, module in modules.items():
        if module.note:
            noted.setdefault(module.note, []).append(key)
    told = [f"{len(keys):,} matri{'ces' if len(keys) > 1 else 'x'}: {note}: {', '.join(keys[:NOTES])}"
            + (f" and {len(keys) - NOTES:,} more" if len(keys) > NOTES else "") for note, keys in noted.items()]  # fmt: skip
    judged = any(m.error is not None for m in modules.values())
    return (*told, *((LOCAL,) if judged else ()), DENSE)


def data(modules: Mapping[str, Module], zeros: Mapping[str, int]) -> dict[str, Any]:
    """Every module by its key: `sparsity` and `zeros` as the file on the disk has them, `pruned` what the mask takes out."""
    def one(key: str, m: Module) -> dict[str, Any]:
        more = {"errors": dict(m.errors), "note": m.note}
        return {"sparsity": zeros[key] / m.size, "zeros": zeros[key], "pruned": m.zeros, "size": m.size, "error": m.error,
                **{name: value for name, value in more.items() if value}}  # fmt: skip

    return {key: one(key, m) for key, m in modules.items()}
