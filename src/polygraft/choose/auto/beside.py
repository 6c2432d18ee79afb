"""A proposal beside what it must be compared with: how far controls have the same layers, and what chance gives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from polygraft.anatomy import Anatomy
from polygraft.choose.auto.proposals import Proposal, grid_of
from polygraft.choose.candidates import Candidate, default, mean, windows
from polygraft.result import Table


@dataclass(frozen=True)
class Beside:
    """One profile to compare with. `grid`: float64 [layers, 2], the language expert's share of attention and of FFN."""

    name: str
    candidate: Candidate
    grid: np.ndarray


def common(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Layers that both give to the language expert, sum of the lesser share (attention and FFN count half a layer each), and
    what it would be on average if the layers of `b` were in random order. a, b: float64 [layers, columns]."""
    there = float(np.minimum(a, b).sum()) / a.shape[1]
    chance = sum(float(np.minimum.outer(x, y).sum()) / len(x) for x, y in zip(a.T, b.T)) / a.shape[1]
    return there, chance


def alike(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """1 - mean |a - b|, the share of the layers on which two profiles agree, and the same for `b` in random order."""
    there = 1.0 - float(np.abs(a - b).mean())
    chance = 1.0 - sum(float(np.abs(np.subtract.outer(x, y)).mean()) for x, y in zip(a.T, b.T)) / a.shape[1]
    return there, chance


def controls(anatomy: Anatomy, names: Sequence[str], proposal: Proposal, random: int) -> list[Beside]:
    """The paper's default, the soup, and up to `random` windows that have the proposal's blocks of layers elsewhere."""
    found = [default(anatomy, names), mean(anatomy, names), *windows(anatomy, proposal.candidate, range(random))]
    return [Beside(c.name, c, grid_of(anatomy, c)) for c in found]


def others(proposals: Iterable[Proposal]) -> list[Beside]:
    return [Beside(p.name, p.candidate, p.grid) for p in proposals]


def table(proposal: Proposal, beside: Sequence[Beside]) -> Table:
    """How many layers each takes of the language expert, and how far they are those of the proposal."""
    layers = len(proposal.grid)
    own = float(proposal.grid.sum()) / 2
    rows: list[tuple[str | float, ...]] = [(f"{proposal.name} (written)", own, own, common(proposal.grid, proposal.grid)[1], 1.0,
                                            alike(proposal.grid, proposal.grid)[1])]  # fmt: skip
    rows += [(b.name, float(b.grid.sum()) / 2, *common(proposal.grid, b.grid), *alike(proposal.grid, b.grid)) for b in beside]
    note = (f"Of {layers} layers; a blended layer counts by its share. In common: of the language expert in both. By chance: with "
            "the layers of that row in random order. Agree: share of layers that both take from the same expert.")  # fmt: skip
    columns = ("profile", "layers of the language expert", "in common", "in common by chance", "agree", "agree by chance")
    return Table("The proposal beside others", columns, tuple(rows), note)


def told(proposal: Proposal, beside: Sequence[Beside]) -> str:
    """The paper's default against the proposal in one sentence."""
    first = beside[0]
    (there, chance), own, its = common(proposal.grid, first.grid), proposal.grid.sum() / 2, first.grid.sum() / 2
    return (f"Of {len(proposal.grid)} layers this proposal takes {own:.3g} of the language expert, {first.name} {its:.3g}; they "
            f"have {there:.3g} in common, where chance would give {chance:.2g}.")  # fmt: skip
