"""The whole surface of windows, not only its maximum: bottom layers across, top layers down, each cell with its verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from polygraft.choose.candidates import Candidate
from polygraft.result import Cell, Estimate, Table

MOST = 8  # tables in all
Slice = tuple[tuple[str, object], ...]  # what the windows of one table have in common, besides bottom and top
COMMON = ("task", "language", "transition", "weights", "parts", "embed", "norm", "head")


def slices(candidates: Sequence[Candidate]) -> dict[Slice, list[Candidate]]:
    """Windows that differ in bottom and top alone, together; where no layer is swapped at a side its transition is nobody's."""
    found: dict[Slice, list[Candidate]] = {}
    for c in candidates:
        if c.params["kind"] == "window":
            found.setdefault(tuple((k, _plain(c.params[k])) for k in COMMON), []).append(c)
    return found


def _plain(value: object) -> object:
    return "+".join(map(str, value)) if isinstance(value, list | tuple) else value


def titles(found: Mapping[Slice, Sequence[Candidate]]) -> dict[Slice, str]:
    """What tells the slices apart: `transition 1, ramp`; nothing where there is one."""
    varying = [i for i in range(len(COMMON)) if len({s[i] for s in found}) > 1]
    return {s: ", ".join(f"{s[i][0]} {s[i][1]}" for i in varying) for s in found}


def tables(candidates: Sequence[Candidate], differences: Mapping[str, Estimate], objective: str, reference: str, best: str,
           note: str) -> list[Table]:
    """A matrix of differences from the reference for each slice of the windows, that of the best first. Slices without two numbers
    at each side are no surface."""
    every = slices(candidates)
    told = titles(every)
    order = sorted(every, key=lambda s: best not in {c.name for c in every[s]})
    out = []
    for s in order:
        at = {(c.params["top"], c.params["bottom"]): c for c in every[s]}
        tops, bottoms = sorted({t for t, _ in at}), sorted({b for _, b in at})
        if len(tops) * len(bottoms) < 2:
            continue
        rows = tuple((f"top {t}", *(_cell(at.get((t, b)), differences) for b in bottoms)) for t in tops)
        named = f"{objective}: windows less {reference}" + (f" ({told[s]})" if told[s] else "")
        said = note + (f"; the best is {best}" if best in {c.name for c in every[s]} else "")
        out.append(Table(named, ("", *(f"bottom {b}" for b in bottoms)), rows, said, heat=True))
    return out[:MOST]


def _cell(candidate: Candidate | None, differences: Mapping[str, Estimate]) -> Cell:
    return differences.get(candidate.name) if candidate is not None else None
