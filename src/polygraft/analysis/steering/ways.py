"""Ways of steering by name: `mean`, `p90`, `add=2` ... become Edits from what was read of the model and which neurons were found.

Statistics and edits are of the same point, the output of the activation function (Mondal et al. 2025 measured before it and wrote
after it). Neuron values are float64 [layers, neurons] until they are written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite

import numpy as np

from polygraft.activity import Activity
from polygraft.analysis.reading import bins
from polygraft.edits import Edit, Edits
from polygraft.errors import InputError, RecipeError, suggestion

# form -> what it does; V, S, A are numbers, Q a percentile from 1 to 99
WAYS = {
    "zero": "set the neurons to 0 (LAPE, Tang et al. 2024)",
    "value=V": "set the neurons to V",
    "mean": "set the neurons to their mean over the target language's tokens (Mondal et al. 2025)",
    "pQ": "set the neurons to a percentile over the target language's tokens: p10, p90",
    "atleast=Q": "raise the neurons to at least their mean or percentile: atleast=mean, atleast=p50",
    "scale=S": "multiply the neurons by S",
    "add=A": "add A times the target language's mean to the neurons (Gurgurov et al. 2025, language arithmetics)",
    "diff=A": "add A times (the target language's mean minus the mean of the other languages' means) to the neurons",
    "residual-diff=A": "add A times that difference of means to the residual stream (DiffMean; the baseline to beat)",
    "project": "take the language subspace out of the residual stream (LSAR; Zhao et al. 2025)",
    "keep": "leave only the language subspace in the residual stream",
    "layer-off": "set all neurons of the layers to 0: the comparator that needs no neurons to be found",
}
NUMBERED = ("value", "scale", "add", "diff", "residual-diff")
COMPARATORS = ("residual-diff", "project", "keep", "layer-off")  # these edit no found neurons
DEEP = 2 / 3  # a residual vector is added after this share of the layers: language structure is late (CLaS-Bench, 2601.08331)


@dataclass(frozen=True)
class Way:
    """A parsed way: `kind` (a key of WAYS without its argument, "percentile" for pQ), its number, and the statistic it uses."""

    word: str
    kind: str
    number: float = 0.0
    of: str = ""

    @property
    def neurons(self) -> bool:
        """Whether it edits the neurons that were found."""
        return self.kind not in COMPARATORS

    @property
    def needs(self) -> str:
        """What it reads: "" for nothing, "neurons", "residual" or "subspace"."""
        if self.kind in ("project", "keep"):
            return "subspace"
        if self.kind == "residual-diff":
            return "residual"
        return "neurons" if self.kind in ("mean", "percentile", "atleast", "add", "diff") else ""


def parse(word: str) -> Way:
    """The way that a word names (see WAYS). Raises RecipeError."""
    name, equals, argument = word.partition("=")
    if re.fullmatch(r"p[1-9][0-9]?", word):
        return Way(word, "percentile", of=word)
    if word in ("mean", "zero", "project", "keep", "layer-off"):
        return Way(word, word, of="mean" if word == "mean" else "")
    if name == "atleast" and re.fullmatch(r"mean|p[1-9][0-9]?", argument):
        return Way(word, name, of=argument)
    if name in NUMBERED and equals:
        try:
            number = float(argument)
        except ValueError:
            number = float("nan")
        if isfinite(number):
            return Way(word, name, number, "mean")
    percentiles = re.fullmatch(r"[pP]?[-+\d.]+", argument if name == "atleast" else word)
    raise RecipeError("no such way of steering", found=repr(word)[:80], expected=", ".join(WAYS),
                      fix="percentiles are whole numbers from p1 to p99" if percentiles else
                      suggestion(name, [w.partition("=")[0] for w in WAYS]))


@dataclass(frozen=True, eq=False)
class Where:
    """What a way is applied to.

    sizes: neurons of each layer; hidden: width of the stream; experts: of a mixture (0: none); language: the target;
    neurons: bool [layers, most neurons], those found; activity: what was read of this model;
    basis: arrays `basis.INDEX` [hidden, r] of the language subspace (index 0: embedding, l + 1: after layer l);
    layers: for the ways that edit layers (none: the way's own default).
    """

    sizes: tuple[int, ...]
    hidden: int
    neurons: np.ndarray
    language: str = ""
    activity: Activity | None = None
    basis: Mapping[str, np.ndarray] = field(default_factory=dict)
    layers: tuple[int, ...] = ()
    experts: int = 0


def make(way: Way | str, at: Where, positions: str = "all") -> Edits:
    """The edits of one way. Raises InputError where the statistics that it needs were not read, or nothing would be edited."""
    way = parse(way) if isinstance(way, str) else way
    if way.needs == "subspace":
        found = _projection(way, at)
    elif way.kind == "residual-diff":
        found = _residual(way, at)
    elif way.kind == "layer-off":
        found = [Edit("act", layer, "scale", None, np.zeros(1)) for layer in at.layers or (_fullest(at),)]
    else:
        found = _neurons(way, at)
    return Edits(tuple(found)).at(positions)


def _neurons(way: Way, at: Where) -> list[Edit]:
    mask = at.neurons & _real(at)
    if not mask.any():
        raise InputError("no neurons to edit", where=f"way {way.word}", found="an empty selection", fix="select others")
    op = {"scale": "scale", "add": "add", "diff": "add", "atleast": "atleast"}.get(way.kind, "set")
    values = _values(way, at)
    return [Edit("act", int(layer), op, np.flatnonzero(mask[layer]), values[layer, mask[layer]])
            for layer in np.flatnonzero(mask.any(axis=1))]


def _real(at: Where) -> np.ndarray:
    return np.arange(at.neurons.shape[1]) < np.asarray(at.sizes)[:, None]


def _values(way: Way, at: Where) -> np.ndarray:
    """float64 [layers, neurons]: what is written, multiplied by or added."""
    if not way.needs:
        return np.full(at.neurons.shape, 0.0 if way.kind == "zero" else way.number)
    if at.experts:
        raise InputError("what an expert's neurons do on average is not known: the reading does not count the tokens that each "
                         "expert saw", where=f"way {way.word}", fix="use zero, value=V or scale=S")
    if way.kind == "diff":
        return way.number * (mean(at, at.language) - np.mean([mean(at, other) for other in _others(at, way)], axis=0))
    found = mean(at, at.language) if way.of == "mean" else percentile(at, at.language, float(way.of[1:]))
    return way.number * found if way.kind == "add" else found


def mean(at: Where, language: str) -> np.ndarray:
    """float64 [layers, neurons]: mean of the neurons over a language's tokens."""
    activity = _read(at)
    return activity.array(language, "sum").astype(np.float64) / max(1, activity.tokens(language))


def percentile(at: Where, language: str, q: float) -> np.ndarray:
    """float64 [layers, neurons]: the q-th percentile over a language's tokens, exact to a bin of the reading's histogram."""
    activity = _read(at)
    return bins.percentile(activity.array(language, "histogram"), np.asarray(activity.edges), q)


def direction(at: Where, layer: int, way: Way) -> np.ndarray:
    """float64 [hidden]: mean residual of the target language after a layer minus the mean of the others' (DiffMean)."""
    activity = _read(at)

    def centre(language: str) -> np.ndarray:
        return activity.array(language, "residual")[layer + 1] / max(1, activity.tokens(language))

    return centre(at.language) - np.mean([centre(other) for other in _others(at, way)], axis=0)


def _residual(way: Way, at: Where) -> list[Edit]:
    layers = at.layers or (int(DEEP * len(at.sizes)),)
    return [Edit("residual", i, "add", None, way.number * direction(at, i, way)) for i in layers]


def _projection(way: Way, at: Where) -> list[Edit]:
    op, names = ("project" if way.kind == "project" else "keep"), {i: f"basis.{i + 1}" for i in range(len(at.sizes))}
    layers = at.layers or tuple(i for i, name in names.items() if name in at.basis)
    if missing := [i for i in layers if names.get(i) not in at.basis]:
        raise InputError("the language subspace of this layer was not found", where=f"way {way.word}", found=f"layer {missing[0]}",
                         fix="run `polygraft analyze subspace`, and name its folder")
    if wrong := [i for i in layers if at.basis[names[i]].shape[:1] != (at.hidden,)]:
        raise InputError("the language subspace is of a model of another shape", where=f"way {way.word}",
                         found=f"{at.basis[names[wrong[0]]].shape[0]} wide in layer {wrong[0]}", expected=at.hidden)
    found = [Edit("residual", i, op, None, at.basis[names[i]].T) for i in layers if at.basis[names[i]].size]
    if not found:
        raise InputError("no language subspace was given", where=f"way {way.word}",
                         fix="run `polygraft analyze subspace`, and name its folder")
    return found


def _fullest(at: Where) -> int:
    """The layer with the most found neurons."""
    counts = at.neurons.sum(axis=1)
    if not counts.any():
        raise InputError("no layer is named, and no neurons that would name one", where="way layer-off", fix="name the layers")
    return int(counts.argmax())


def _others(at: Where, way: Way) -> list[str]:
    others = [language for language in _read(at).languages if language != at.language]
    if not others:
        raise InputError("a difference between languages needs text of another one", where=f"way {way.word}", found=at.language)
    return others


def _read(at: Where) -> Activity:
    if at.activity is None:
        raise InputError("this way needs what was read of the model", where=f"language {at.language}",
                         fix="name texts or a reading: corpus or activity")
    if at.language not in at.activity.languages:
        raise InputError("the target language was not read", where=at.activity.folder, found=at.language or "no language",
                         expected=", ".join(at.activity.languages))
    if at.activity.sizes != at.sizes or at.activity.hidden != at.hidden:
        raise InputError("the reading is of a model of another shape", where=at.activity.folder,
                         found=f"{at.activity.layers} layers, hidden {at.activity.hidden}",
                         expected=f"{len(at.sizes)} layers, hidden {at.hidden}, the same neurons in each")
    return at.activity
