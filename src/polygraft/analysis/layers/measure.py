"""From a reading of text to every figure of its layers, by the names that deviation.safetensors has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from polygraft.activity import Activity
from polygraft.analysis.groups import basic
from polygraft.analysis.layers import deviation, final
from polygraft.analysis.layers.noise import groups_of, noise, resampled, vectors
from polygraft.analysis.reading.config import several
from polygraft.errors import RecipeError, suggestion

NAMES = {
    "msd": "float64 [layers]: mean squared deviation of the neurons' shares of active tokens over languages",
    "msd.count": "float64 [layers]: the same of the share of a layer's neurons that is active",
    "msd.noise": "float64 [layers]: what `msd` would be if only documents differed",
    "msd.count.noise": "float64 [layers]: what `msd.count` would be",
    "msd.low": "float64 [layers]: lower end of the 95 % interval of msd less its noise",
    "msd.high": "float64 [layers]: its upper end",
    "msd.count.low": "float64 [layers]: lower end of the 95 % interval of msd.count less its noise",
    "msd.count.high": "float64 [layers]: its upper end",
    "language.LANGUAGE": "float64 [layers]: the part of one language; their mean is `msd`",
    "overlap.LANGUAGE": "float64 [layers]: Jaccard index of its active neurons with those of the reference language",
    "without.LANGUAGE": "float64 [layers]: the deviation (of neurons, or of counts if that was asked) of the other languages",
    "pair.LANGUAGE.LANGUAGE": "float64 [layers]: the deviation of two languages",
    "attention.msd": "float64 [layers]: `msd` of the entries of the attention's output (share of tokens at which one is > 0)",
    "attention.msd.count": "float64 [layers]: `msd.count` of them",
    "attention.overlap.LANGUAGE": "float64 [layers]: `overlap` of them",
    "attention.without.LANGUAGE": "float64 [layers]: the deviation of them (of entries, or of counts) of the other languages",
    "attention.shift": "float64 [layers]: mean squared distance of the languages' mean outputs over their mean square",
    "attention.shift.noise": "float64 [layers]: what `attention.shift` would be if only documents differed",
    "attention.shift.low": "float64 [layers]: lower end of the 95 % interval of attention.shift less its noise",
    "attention.shift.high": "float64 [layers]: its upper end",
    "stream.share": "float64 [layers + 1]: share of the residual stream's variance that lies between languages",
    "stream.share.noise": "float64 [layers + 1]: what `stream.share` would be if only documents differed",
    "stream.share.low": "float64 [layers + 1]: lower end of the 95 % interval of stream.share less its noise",
    "stream.share.high": "float64 [layers + 1]: its upper end",
    "often": "float64 [layers]: in which share of the resamplings of documents the rule takes the layer",
}

Kind = Literal["neuron", "count"]
CURVES: dict[Kind, str] = {"neuron": "msd", "count": "msd.count"}  # what the choice rests on


@dataclass(frozen=True)
class Measured:
    """`values` by the names in NAMES. `draws`: `msd` and `msd.count` of resampled documents, float64 [draws, layers], if any."""

    languages: tuple[str, ...]
    reference: str
    tau: float
    values: dict[str, np.ndarray]
    draws: dict[str, np.ndarray]
    kind: Kind = "neuron"

    @property
    def layers(self) -> int:
        return len(self.values["msd"])

    @property
    def others(self) -> tuple[str, ...]:
        """The languages but the reference."""
        return tuple(g for g in self.languages if g != self.reference)

    def each(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays `prefix.LANGUAGE` by language, in order."""
        return {g: self.values[f"{prefix}.{g}"] for g in self.languages if f"{prefix}.{g}" in self.values}

    def pairs(self) -> dict[tuple[str, str], np.ndarray]:
        """The deviation of every pair of languages, where there are more than two."""
        named = {(a, b): f"pair.{a}.{b}" for a in self.languages for b in self.languages}
        return {pair: self.values[name] for pair, name in named.items() if name in self.values}


def reference_of(languages: tuple[str, ...], asked: str | None) -> str:
    """The language that overlap is measured with: the one asked for, else English, else the first. Raises RecipeError."""
    if asked is not None and asked not in languages:
        raise RecipeError("the reference language is not among those read", where="reference", found=asked,
                          expected=", ".join(languages), fix=suggestion(asked, languages))  # fmt: skip
    return asked or ("en" if "en" in languages else languages[0])


def measure(
    activity: Activity, *, tau: float, reference: str, draws: int, seed: int, attention: bool, stream: bool, kind: Kind = "neuron"
) -> Measured:
    """Every figure of a reading; `kind` is the deviation that is also taken of fewer languages.

    Raises InputError for fewer than two languages, or where the reading lacks what is asked.
    """
    languages = tuple(activity.languages)
    several(languages, activity.folder)
    p, real, at = activity.probability(), activity.real, languages.index(reference)
    values = {"msd": deviation.msd_neuron(p, real), "msd.count": deviation.msd_count(p, real)}
    values |= _named("language", languages, deviation.by_language(p, real))
    values |= _named("overlap", languages, deviation.overlap(p, real, tau, at))
    if len(languages) > 2:
        figure = deviation.msd_neuron if kind == "neuron" else deviation.msd_count
        values |= _named("without", languages, deviation.without_each(p, real, figure).T)
        values |= {f"pair.{languages[a]}.{languages[b]}": v for (a, b), v in deviation.of_pairs(p, real, figure).items()}
    drawn: dict[str, np.ndarray] = {}
    if groups := groups_of(activity, "group.positive"):
        values["msd.noise"], values["msd.count.noise"] = noise(groups, real)
        drawn["msd"], drawn["msd.count"] = resampled(groups, real, draws=draws, seed=seed)
        for name in ("msd", "msd.count"):
            values[f"{name}.low"], values[f"{name}.high"] = basic(values[name], drawn[name])
    if attention:
        values |= _attention(activity, tau, at, kind)
        values |= _spread(activity, "group.attention", "attention.shift", values["attention.shift"], None, draws, seed)
    if stream:
        values["stream.share"] = final.of(activity)
        tokens = np.array([max(1, activity.tokens(g)) for g in languages])
        squares = (activity.stacked("square.residual") / tokens).mean(-1)
        values |= _spread(activity, "group.residual", "stream.share", values["stream.share"], squares, draws, seed)
    return Measured(languages, reference, tau, values, drawn, kind)


def _named(prefix: str, languages: tuple[str, ...], values: np.ndarray) -> dict[str, np.ndarray]:
    return {f"{prefix}.{language}": values[:, k] for k, language in enumerate(languages)}


def _spread(activity: Activity, array: str, name: str, value: np.ndarray, squares: np.ndarray | None, draws: int,
            seed: int) -> dict[str, np.ndarray]:  # fmt: skip
    """Noise and interval of `name`, a share that mean vectors rest on: of their mean square, or of a variance about their mean.

    `squares` [depths], the mean squared norms, are not kept by group and stay as they are in every resample.
    """
    if (groups := groups_of(activity, array)) is None:
        return {}
    apart, extra, drawn, size = vectors(groups, draws=draws, seed=seed)

    def share(part: np.ndarray, apart: np.ndarray, size: np.ndarray) -> np.ndarray:
        whole = size if squares is None else np.maximum(squares - size, 0.0) + apart
        return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)

    means = groups.means
    noisy = share(extra, apart, (means**2).sum(1).mean(-1))
    low, high = basic(value, share(drawn, drawn, size))
    return {f"{name}.noise": noisy, f"{name}.low": low, f"{name}.high": high}


def _attention(activity: Activity, tau: float, reference: int, kind: Kind) -> dict[str, np.ndarray]:
    languages = tuple(activity.languages)
    tokens = np.array([max(1, activity.tokens(g)) for g in languages])
    p = activity.stacked("attention.positive") / tokens
    real, figure = np.ones(p.shape[:2], bool), deviation.msd_neuron if kind == "neuron" else deviation.msd_count
    fewer = _named("attention.without", languages, deviation.without_each(p, real, figure).T) if len(languages) > 2 else {}
    return fewer | {
        "attention.msd": deviation.msd_neuron(p, real),
        "attention.msd.count": deviation.msd_count(p, real),
        "attention.shift": deviation.shift(activity.stacked("attention") / tokens),
    } | _named("attention.overlap", languages, deviation.overlap(p, real, tau, reference))
