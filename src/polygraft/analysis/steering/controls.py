"""Random edits beside a way's own: the same operation, of the same size, at a place that was drawn.

Without them an effect of editing anything passes for an effect of editing what was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from polygraft.analysis.steering.ways import Way, Where, make, parse
from polygraft.edits import Edit, Edits
from polygraft.selectionfile import matched


def draw(way: Way | str, at: Where, seed: int | Sequence[int], *, avoid: np.ndarray | None = None,
         positions: str = "all") -> Edits | None:
    """One random control of `make(way, at, positions)`.

    Neurons: as many others in every layer, each with its own statistic; `avoid` (bool [layers, neurons]) are taken last. A residual
    vector: a random direction of the same norm. A subspace: a random one of the same rank. Whole layers: as many other layers, or
    None where there are none left. The same seed draws the same control.
    """
    way = parse(way) if isinstance(way, str) else way
    if way.neurons:
        real = np.arange(at.neurons.shape[1]) < np.asarray(at.sizes)[:, None]
        return make(way, replace(at, neurons=matched(at.neurons & real, real, seed, avoid)), positions)
    own = make(way, at, positions)
    rng = np.random.default_rng([*([seed] if isinstance(seed, int) else seed), len(way.word)])
    if way.kind == "layer-off":
        return _other_layers(own, len(at.sizes), rng)
    return Edits(tuple(_turned(e, at.hidden, rng) for e in own.edits))


def _other_layers(own: Edits, layers: int, rng: np.random.Generator) -> Edits | None:
    left = sorted(set(range(layers)) - {e.layer for e in own.edits})
    if len(left) < len(own.edits):
        return None
    drawn = rng.choice(left, len(own.edits), replace=False)
    return Edits(tuple(replace(e, layer=int(layer)) for e, layer in zip(own.edits, drawn)))


def _turned(e: Edit, hidden: int, rng: np.random.Generator) -> Edit:
    if e.op in ("project", "keep"):
        return replace(e, values=np.linalg.qr(rng.standard_normal((hidden, len(e.values))))[0].T)
    direction = rng.standard_normal(hidden)
    return replace(e, values=direction * (np.linalg.norm(e.values) / np.linalg.norm(direction)))


def seeds(seed: int, language: str, i: int) -> list[int]:
    """The seed of a language's i-th control: languages with as many neurons draw other sets."""
    return [seed, i, *language.encode()]


def several(way: Way | str, at: Where, draws: int, seed: int, *, avoid: np.ndarray | None = None,
            positions: str = "all") -> list[Edits]:
    """`draws` controls that differ, fewer where fewer exist (of whole layers)."""
    way = parse(way) if isinstance(way, str) else way
    found: dict[str, Edits] = {}
    for i in range(draws * (20 if way.kind == "layer-off" else 1)):  # of few layers the same are often drawn again
        made = draw(way, at, seeds(seed, at.language, i), avoid=avoid, positions=positions)
        if made is None or len(found) == draws:
            break
        found.setdefault(made.digest, made)
    return list(found.values())


def edited(edits: Edits, shape: tuple[int, ...]) -> np.ndarray:
    """bool [layers, neurons]: the single neurons that edits change."""
    out = np.zeros(shape, bool)
    for e in edits.edits:
        if e.point == "act" and e.rows is not None:
            out[e.layer, e.rows] = True
    return out
