"""What a changed model loses in every language, from kept Gram matrices: no text is read, the model does not run.

With D = W - W' of a matrix, language g's text loses sum_t |D x_t|^2 = tr(D G_g D^T) = <D^T D, G_g> of its output. D^T D is made
once for all languages, so that another language costs one inner product. The relative error divides by the same of W.
Beside it stands what column norms alone say: the same with the diagonal of G_g in its place, sum_ij D_ij^2 |x_j|^2 over that of W.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from polygraft.anatomy import Anatomy
from polygraft.checkpoint import Weights
from polygraft.errors import InputError
from polygraft.prune.grams import triangle
from polygraft.prune.grams.store import Grams
from polygraft.prune.sites import Site

Matrices = dict[str, np.ndarray]  # key -> float32 [out, in]
# a way to change the model: (site, its matrices as they are) -> as they would be
Candidate = Callable[[Site, Matrices], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Score:
    """Of every matrix the relative error of its output in each language, float64 [languages]; nan where no token of it came."""

    languages: tuple[str, ...]
    errors: Mapping[str, np.ndarray]
    simple: Mapping[str, np.ndarray] = field(default_factory=dict)  # the same from column norms alone

    @property
    def by_language(self) -> np.ndarray:
        """float64 [languages]: the mean over matrices; one that text never reached does not count."""
        return _mean(self.errors)

    @property
    def by_norms(self) -> np.ndarray:
        """The same of what column norms alone say."""
        return _mean(self.simple)

    def weighted(self, shares: Mapping[str, float] | None = None) -> float:
        """sum_g share_g e_g, shares scaled to 1 (None: equal)."""
        w = np.array([1.0 if shares is None else shares.get(g, 0.0) for g in self.languages])
        return float(w @ self.by_language / w.sum())

    @property
    def worst(self) -> tuple[str, float]:
        """The language that loses most, and what it loses."""
        found = self.by_language
        return self.languages[int(found.argmax())], float(found.max())


def _mean(errors: Mapping[str, np.ndarray]) -> np.ndarray:
    stacked = np.stack(list(errors.values()))
    known = np.isfinite(stacked)
    return np.asarray(np.where(known, stacked, 0).sum(0) / np.maximum(known.sum(0), 1))


def score(grams: Grams, weights: Weights, anatomy: Anatomy, candidate: Candidate,
          progress: Callable[..., None] = lambda *_: None) -> Score:  # fmt: skip
    """What `candidate` loses against `weights`, the model that the store was made of."""
    errors, simple = dict[str, np.ndarray](), dict[str, np.ndarray]()
    for i, (site, before) in enumerate(walk(grams, weights, anatomy)):
        found = at_site(grams, site, before, candidate(site, before))
        errors, simple = errors | found[0], simple | found[1]
        progress(i + 1, len(grams.sites), f"layer {site.layer}")
    return Score(grams.languages, errors, simple)


def walk(grams: Grams, weights: Weights, anatomy: Anatomy) -> Iterator[tuple[Site, Matrices]]:
    """Every site with its matrices as they are. Raises InputError where the model is another one than the store's."""
    for site, kept in grams.sites.items():
        yield site, {key: matrix(weights, anatomy, key, kept.width) for key in kept.keys}


def matrix(weights: Weights, anatomy: Anatomy, key: str, width: int) -> np.ndarray:
    """float32 [out, in]; a view where the family stores [in, out]."""
    info = weights.tensors.get(key)
    if info is None or len(info.shape) != 2 or info.shape[int(not anatomy.traits.transposed)] != width:
        raise InputError("the model does not fit the store of Gram matrices", where=f"{weights.path}: {key}",
                         found="no such tensor" if info is None else f"shape {list(info.shape)}",
                         expected=f"{width} inputs, as the model has that the store was made of")  # fmt: skip
    stored = weights.f32(key).reshape(info.shape)
    return stored.T if anatomy.traits.transposed else stored


def at_site(grams: Grams, site: Site, before: Matrices, after: Mapping[str, np.ndarray]) -> tuple[Matrices, Matrices]:
    """Relative errors of one site's matrices, and those by column norms alone: float64 [languages] by key."""
    kept, packed = grams.sites[site], grams.packed(site)
    squares = triangle.diagonals(packed, kept.width)
    found, simple = Matrices(), Matrices()
    for key, w in before.items():
        lost = w - after[key]
        inner = np.maximum(triangle.inner(lost.T @ lost, packed), 0)  # a sum of squares, but for rounding
        found[key] = _share(inner, kept.whole[key])
        simple[key] = _share(*(squares @ np.square(a).sum(0, dtype=np.float64) for a in (lost, w)))
    return found, simple


def _share(lost: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, lost / np.where(whole > 0, whole, 1), np.nan)
