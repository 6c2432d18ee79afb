"""A folder of Gram matrices: of every layer, site and language the sum of x x^T over its text, as the dense model reads it.

`layer.N.safetensors` holds one array a site, float32 [languages, n (n + 1) / 2]: upper triangles, row by row. `grams.json`, written
last, says whose they are. An interrupted gathering goes on behind its last finished layer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from polygraft import __version__, arrays, files
from polygraft.errors import InputError
from polygraft.prune.engine import finished
from polygraft.prune.grams import triangle
from polygraft.prune.languages import Every, Layer, Reading, read
from polygraft.prune.sites import Site
from polygraft.prune.statistics import Moments

INDEX = "grams.json"


def layer_file(layer: int) -> str:
    return f"layer.{layer}.safetensors"


def name(site: Site) -> str:
    return f"{site.point} {site.expert}"


def nbytes(widths: Sequence[int], languages: int) -> int:
    """Bytes of a store with sites of these widths."""
    return languages * 4 * sum(map(triangle.size, widths))


# ---------------------------------------------------------------------------------------------------------------- gathering


def gather(reading: Reading, folder: Path, about: Mapping[str, Any], progress: Callable[..., None] = lambda *_: None) -> Grams:
    """One dense reading of every language's text into `folder`. `about`: JSON that names the model and the text."""
    folder.mkdir(parents=True, exist_ok=True)
    languages = reading.languages

    def visit(layer: Layer, moments: Every) -> None:
        found, told = dict[str, np.ndarray](), dict[str, str]()
        for site in layer.sites:
            grams = [moments[g].pop(site) for g in languages]
            packed = np.stack([triangle.pack(m.gram) for m in grams if m.gram is not None])
            found[name(site)] = packed
            whole = {key: triangle.inner(w.T @ w, packed).tolist() for key, w in _numpy(layer.matrices(site)).items()}
            told[name(site)] = json.dumps({"tokens": [m.tokens for m in grams], "whole": whole})
        arrays.write(folder / layer_file(layer.number), found, told)

    read(reading, visit, gram=True, spill=folder / "states", done=lambda i: finished(folder / layer_file(i)), progress=progress)
    tokens = {g: sum(float(w.sum()) for w, of in zip(reading.weighing, reading.of) if of == g) for g in languages}
    layers = sum(1 for _ in folder.glob("layer.*.safetensors"))
    own = {"polygraft": __version__, "languages": languages, "layers": layers, "tokens": tokens}
    files.write_json(folder / INDEX, {**own, **about})
    return Grams(folder)


def _told(e: Exception) -> str:
    return f"{type(e).__name__}: {e}"[:200]


def _numpy(matrices: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {key: w.cpu().numpy() for key, w in matrices.items()}


def _moments(tokens: float, gram: np.ndarray) -> Moments:
    return Moments(tokens, np.diagonal(gram).astype(np.float64), gram)


# ------------------------------------------------------------------------------------------------------------------ reading


@dataclass(frozen=True)
class Kept:
    """One site in the store: the matrices that read it, the weight of the tokens that reached it by language, and of each matrix
    the energy of its output, sum |W x|^2, by language."""

    width: int
    keys: tuple[str, ...]
    tokens: np.ndarray  # float64 [languages]
    whole: Mapping[str, np.ndarray]  # float64 [languages]


class Grams:
    """A store that is complete. Raises InputError for a folder that is none, or whose files do not belong together."""

    def __init__(self, folder: Path):
        self.folder = folder
        if not (folder / INDEX).is_file():
            raise InputError("not a store of Gram matrices", where=folder, expected=f"{INDEX} and a file for every layer",
                             fix="make one: polygraft prune gram MODEL --corpus sw=FILE --out DIR")  # fmt: skip
        self.about = files.read_json(folder / INDEX)
        try:
            self.languages = tuple(str(g) for g in self.about["languages"])
            self.layers = int(self.about["layers"])
            self.tokens = np.array([float(self.about["tokens"][g]) for g in self.languages])
            self.identity = str(self.about["model"])
        except (KeyError, TypeError, ValueError) as e:
            raise InputError("not an index of Gram matrices", where=folder / INDEX, found=_told(e)) from None
        if not self.languages or not self.tokens.min() > 0:
            raise InputError("a store without text", where=folder / INDEX, found=", ".join(self.languages) or "no language")

    @cached_property
    def sites(self) -> dict[Site, Kept]:
        """Every site in the order of layers, from headers. Raises InputError for a file that does not fit the index."""
        found: dict[Site, Kept] = {}
        for layer in range(self.layers):
            kept = self._layer(layer)
            for label in kept:
                point, _, expert = label.rpartition(" ")
                try:
                    told = json.loads(kept.metadata[label])
                    tokens = np.array(told["tokens"], np.float64)
                    whole = {str(k): np.array(v, np.float64) for k, v in told["whole"].items()}
                    site = Site(layer, point, int(expert))
                except (KeyError, TypeError, ValueError) as e:
                    raise InputError("not Gram matrices", where=f"{kept.path}: {label}", found=_told(e)) from None
                shape = kept.shape(label)
                width = int((np.sqrt(8.0 * shape[-1] + 1) - 1) / 2) if len(shape) == 2 else 0
                if shape != (len(self.languages), triangle.size(width)) or any(len(v) != len(tokens) for v in whole.values()):
                    raise InputError("Gram matrices of another shape than the index says", where=f"{kept.path}: {label}",
                                     found=shape, expected=f"{len(self.languages)} triangles")  # fmt: skip
                found[site] = Kept(width, tuple(whole), tokens, whole)
        return found

    @lru_cache(1)  # noqa: B019 - one open file, for as long as the store lives
    def _layer(self, layer: int) -> arrays.Arrays:
        return arrays.Arrays(self.folder / layer_file(layer))

    def packed(self, site: Site) -> np.ndarray:
        """float32 [languages, n (n + 1) / 2]."""
        return self._layer(site.layer)[name(site)]

    def weights(self, shares: Mapping[str, float] | None = None) -> np.ndarray:
        """float64 [languages]: what a token of each language counts so that languages have these shares (None: equal) of all text.

        Raises InputError for a language that the store does not have.
        """
        asked = dict.fromkeys(self.languages, 1.0) if shares is None else dict(shares)
        self.check(asked)
        found = np.array([asked.get(g, 0.0) for g in self.languages])
        if not (found.min() >= 0 and found.sum() > 0):
            raise InputError("shares that are no mixture", where=self.folder, found=asked, expected="none below 0, one above it")
        return found / found.sum() / self.tokens

    def check(self, languages: Mapping[str, Any]) -> None:
        if unknown := sorted(set(languages) - set(self.languages)):
            raise InputError("the store has no such language", where=self.folder, found=", ".join(unknown),
                             expected=", ".join(self.languages))  # fmt: skip

    def moments(self, site: Site, shares: Mapping[str, float] | None = None, each: bool = False) -> Moments:
        """Moments of a mixture, as if its shares had been read: for any method that makes masks. 1 token in all. With `each`, those
        of every language of the store by itself too."""
        weights, kept, packed = self.weights(shares), self.sites[site], self.packed(site)
        mixed = _moments(float(weights @ kept.tokens), triangle.unpack(weights.astype(np.float32) @ packed, kept.width))
        if each:
            mixed.each = {g: _moments(float(kept.tokens[i]), triangle.unpack(packed[i], kept.width))
                          for i, g in enumerate(self.languages)}  # fmt: skip
        return mixed

    def norms(self, site: Site) -> np.ndarray:
        """float64 [languages, in]: root of the mean square of every input; 0 where nothing came."""
        kept = self.sites[site]
        squares = triangle.diagonals(self.packed(site), kept.width)
        return np.sqrt(squares / np.maximum(kept.tokens, np.finfo(np.float64).tiny)[:, None])
