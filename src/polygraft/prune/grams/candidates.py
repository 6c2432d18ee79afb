"""What can be scored: a model that was pruned, masks alone, or a method on a mixture of the kept Gram matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from polygraft.anatomy import Anatomy
from polygraft.checkpoint import Checkpoint, Weights
from polygraft.errors import InputError, RecipeError
from polygraft.prune.engine import Method
from polygraft.prune.grams.scoring import Candidate, Matrices, Score, matrix, score
from polygraft.prune.grams.store import Grams
from polygraft.prune.sites import Site
from polygraft.prune.writing import Masks


def model(changed: Weights, anatomy: Anatomy) -> Candidate:
    """The matrices of another model of the same shapes."""

    def of(_site: Site, before: Matrices) -> Matrices:
        return {key: matrix(changed, anatomy, key, w.shape[1]) for key, w in before.items()}

    return of


def masks(keep: Mapping[str, np.ndarray], anatomy: Anatomy, where: object = None) -> Candidate:
    """The model's own weights where these masks (bool, as tensors are stored) keep them."""

    def of(_site: Site, before: Matrices) -> Matrices:
        found = {}
        for key, w in before.items():
            mask = keep[key].T if key in keep and anatomy.traits.transposed else keep.get(key)
            if mask is None or mask.shape != w.shape:
                raise InputError("the masks do not fit the model", where=f"{where}: {key}", expected=f"a mask of {list(w.shape)}",
                                 found="none" if mask is None else f"one of {list(mask.shape)}")  # fmt: skip
            found[key] = np.where(mask, w, np.float32(0))
        return found

    return of


def on_disk(path: Path, anatomy: Anatomy) -> Candidate:
    """What a path holds: a pruned model (or the folder of the step that made it), or a file of masks alone."""
    if path.is_dir():
        return model(Checkpoint.open(path / "model" if (path / "model").is_dir() else path), anatomy)
    return masks(Masks(path), anatomy, path)


def mixed(grams: Grams, method: Method, shares: Mapping[str, float] | None, each: bool = False) -> Candidate:
    """What a method makes of the model when its text has these shares: every layer by itself, on the dense model's inputs.
    `each`: the method asks for every language by itself."""
    grams.weights(shares)

    def of(site: Site, before: Matrices) -> Matrices:
        import torch

        ws = {key: torch.from_numpy(np.ascontiguousarray(w)) for key, w in before.items()}
        made = method(ws, grams.moments(site, shares, each))
        return {key: ((ws[key] if p.values is None else p.values) * p.keep).numpy() for key, p in made.items()}

    return of


def shares_of(text: str) -> dict[str, float]:
    """`sw=0.5+en=0.5` (or `sw+en`: equal) as shares. Raises RecipeError."""
    from polygraft import languages

    found: dict[str, float] = {}
    for part in text.split("+"):
        tag, equals, number = part.strip().partition("=")
        try:
            share = float(number) if equals else 1.0
        except ValueError:
            share = -1.0
        if not tag or not 0 <= share < float("inf"):
            raise RecipeError("not a mixture", where="mixture", found=text, expected="LANG=SHARE+LANG=SHARE, such as sw=0.7+en=0.3")
        found[languages.check(tag)] = share
    if not sum(found.values()) > 0:
        raise RecipeError("not a mixture", where="mixture", found=text, expected="a share above 0")
    return found


# ------------------------------------------------------------------------------------------------------- the worst language


@dataclass(frozen=True)
class Round:
    """One mixture that was tried, and what every language loses by it."""

    shares: dict[str, float]
    score: Score


@dataclass(frozen=True)
class Search:
    """The mixture whose worst language loses least, among those tried."""

    rounds: Sequence[Round] = field(default_factory=tuple)

    @property
    def best(self) -> Round:
        return min(self.rounds, key=lambda r: r.score.worst[1])


def for_the_worst(grams: Grams, weights: Weights, anatomy: Anatomy, method: Method, rounds: int, rate: float = 3.0) -> Search:
    """min over mixtures of max over languages of the error, by multiplicative weights (Freund & Schapire 1999) from equal shares.

    After each round a language's share is multiplied by exp(rate * (e_g / mean - 1)): those that lose more weigh more, and shares
    rest where all lose alike. One mixture for the whole model (ours).
    """
    shares, tried = np.full(len(grams.languages), 1 / len(grams.languages)), list[Round]()
    for _ in range(rounds):
        asked = dict(zip(grams.languages, map(float, shares), strict=True))
        found = score(grams, weights, anatomy, mixed(grams, method, asked))
        tried.append(Round(asked, found))
        e = found.by_language
        if not np.ptp(e) > 0:
            break
        shares = shares * np.exp(rate * (e / e.mean() - 1))
        shares /= shares.sum()
    return Search(tuple(tried))
