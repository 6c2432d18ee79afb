"""Everything that a reading says about subspaces, depth by depth, and the arrays that steering and others read of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from polygraft.activity import Activity
from polygraft.analysis.subspace import angles
from polygraft.analysis.subspace.depths import Depths
from polygraft.analysis.subspace.energy import Energy, energy
from polygraft.analysis.subspace.lens import Lens
from polygraft.analysis.subspace.lsar import Subspace, lsar
from polygraft.analysis.subspace.separate import Separation, separation


@dataclass(frozen=True)
class Found:
    """Lists have one entry a depth (0 the embedding, l after layer l); K languages of width D.

    `spaces` are fitted on all text, `means` float64 [D, K]; `total` float64 [depths, K] is the mean squared norm of a state;
    `within` [depths, K, K] and `across` [depths, depths] are overlaps (see `angles`), `directions` how many each language gave.
    """

    languages: tuple[str, ...]
    hidden: int
    tokens: tuple[int, ...]
    groups: tuple[int, ...]
    paired: bool
    spaces: list[Subspace]
    means: list[np.ndarray]
    total: np.ndarray
    energies: list[Energy]
    separations: list[Separation]
    within: np.ndarray
    directions: int
    across: np.ndarray
    lens: Lens | None = None

    @property
    def depths(self) -> int:
        return len(self.spaces)


def find(activity: Activity, rank: int | None = None, directions: int = 4, draws: int = 200, seed: int = 0,
         progress: Callable[..., None] = lambda *_: None) -> Found:
    """All figures but the lens. Raises InputError for one language, equal languages, too few groups; RecipeError for the rank."""
    every = Depths(activity)
    spaces, means, energies, separations, within = [], [], [], [], []
    for depth in range(every.depths):
        at = every.at(depth)
        means.append(at.means)
        spaces.append(lsar(at.means, rank))
        energies.append(energy(at, rank, draws, seed))
        separations.append(separation(at, draws, seed))
        within.append(angles.between(at, directions))
        progress(depth + 1, every.depths, "subspaces")
    total = np.stack([activity.array(g, "square.residual") / max(1, activity.tokens(g)) for g in every.languages], axis=1)
    return Found(tuple(every.languages), every.hidden, tuple(activity.tokens(g) for g in every.languages),
                 every.groups.sizes, every.groups.paired, spaces, means, total, energies, separations, np.stack(within),
                 directions, angles.depths([s.basis for s in spaces]))


def as_arrays(found: Found) -> dict[str, np.ndarray]:
    """What is written to `subspace.safetensors`; names as in docs/methods/subspaces.md."""
    out: dict[str, np.ndarray] = {}
    for depth, (space, means) in enumerate(zip(found.spaces, found.means)):
        out[f"basis.{depth}"] = space.basis.astype(np.float32)
        out[f"mu.{depth}"] = space.mu.astype(np.float32)
        out |= {f"mean.{depth}.{g}": means[:, k].astype(np.float32) for k, g in enumerate(found.languages)}
    out |= {
        "energy.total": found.total,
        "energy.specific": np.stack([e.specific for e in found.energies]),
        "variance.language": np.array([e.language for e in found.energies]),
        "variance.content": np.array([e.content for e in found.energies]),
        "basis.stability": np.array([e.stability for e in found.energies]),
        "probe.accuracy": np.stack([s.by_language for s in found.separations]),
        "silhouette": np.array([s.silhouette for s in found.separations]),
        "overlap.languages": found.within,
        "overlap.depths": found.across,
    }
    if found.lens is not None:
        out |= {"lens.share": found.lens.share, "lens.text": found.lens.text, "lens.vocabulary": found.lens.vocabulary}
    return out
