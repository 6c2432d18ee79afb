"""What was found about subspaces in tables and pictures."""

from __future__ import annotations

from typing import Any

import numpy as np

from polygraft.analysis.groups import centred
from polygraft.analysis.subspace.found import Found
from polygraft.result import Cell, Curve, Estimate, LayerMap, Table

SURE = 0.95  # share of bootstrap samples in which a language leads before it is called the latent one
DEPTH = "depth (0: embedding, l: after l layers)"


def _estimate(value: float, draws: np.ndarray, n: int, drawn: int, lowest: float = 0.0) -> Estimate:
    return Estimate(float(value), *centred(float(value), draws, drawn, lowest), n=n)


def figures(found: Found, depth: int) -> dict[str, Estimate]:
    """The figures of one depth that have an interval: by bootstrap over groups, the probe's by Wilson."""
    e, s, n = found.energies[depth], found.separations[depth], min(found.groups)
    return {
        "specific": _estimate(e.specific.mean(), e.specific_draws.mean(1), n, n // 2),
        "language": _estimate(e.language, e.language_draws, n, n // 2),
        "content": _estimate(e.content, e.content_draws, n, n // 2),
        "probe": Estimate(s.accuracy, s.low, s.high, n),
        "silhouette": _estimate(s.silhouette, s.silhouette_draws, n, n, -1.0),
    }


def table(found: Found) -> Table:
    columns = ("depth", "share of language in the mean state", "variance between languages inside",
               "variance between texts inside", "probe accuracy", "silhouette", "bases of two halves")
    rows: list[tuple[Cell, ...]] = [(d, *figures(found, d).values(), e.stability) for d, e in enumerate(found.energies)]
    dealt = [s.silhouette_chance for s in found.separations]
    note = (f"By chance: {found.spaces[-1].rank} of {found.hidden} directions hold {found.energies[-1].chance:.2%} of a variance "
            f"spread evenly, and bases overlap by as much; the probe is right in {1 / len(found.languages):.1%}; the silhouette is "
            f"{min(dealt):.2f} to {max(dealt):.2f} with languages dealt anew within groups.")
    return Table("Depth by depth, fitted on half of the documents and measured on the other", columns, tuple(rows), note)


def overlaps(found: Found) -> Table:
    """Mean over depths of the overlap of what varies within languages."""
    mean = found.within[1:].mean(0)
    rows: list[tuple[Cell, ...]] = [(g, *(float(v) for v in row)) for g, row in zip(found.languages, mean)]
    even = min(1.0, found.directions / found.hidden)
    note = (f"Mean squared cosine of the principal angles of {found.directions} directions, of different text; the diagonal is "
            f"what a language keeps of itself; {even:.2%} by chance where all directions vary alike.")
    return Table("Directions in which texts differ, shared between languages", ("language", *found.languages), tuple(rows), note)


def curves(found: Found) -> tuple[Curve, ...]:
    energies, separations, languages = found.energies, found.separations, found.languages
    even = [e.chance for e in energies]
    drawn = [
        _curve("Language-specific share of the mean state", "share of squared norm",
               {g: [e.specific[k] for e in energies] for k, g in enumerate(languages)} | {"chance": even}),
        _curve("Variance inside the language subspace", "share, on held-out text",
               {"languages": [e.language for e in energies], "texts of one": [e.content for e in energies], "chance": even}),
        _curve("A linear probe names the language", "accuracy, on held-out text",
               {g: [s.by_language[k] for s in separations] for k, g in enumerate(languages)}
               | {"chance": [1 / len(languages)] * found.depths}),
        _curve("Silhouette of languages", "silhouette",
               {"languages": [s.silhouette for s in separations], "dealt anew": [s.silhouette_chance for s in separations]}),
        _curve("Overlap with the language subspace of the depth before", "mean squared cosine",
               {"overlap": [None, *np.diag(found.across, 1)], "chance": even}),
    ]  # fmt: skip
    if found.lens is not None:
        own = {g: list(found.lens.share[k, :, k]) for k, g in enumerate(languages)}
        drawn.append(_curve("Logit lens: probability on tokens of the text's own language", "probability", own, _followed(found)))
    return tuple(drawn)


def _curve(title: str, label: str, series: dict[str, Any], note: str = "") -> Curve:
    plain = {name: tuple(None if v is None else float(v) for v in values) for name, values in series.items()}
    return Curve(title, tuple(float(d) for d in range(len(next(iter(plain.values()))))), plain, DEPTH, label, note)


def _followed(found: Found) -> str:
    assert found.lens is not None
    lens = found.lens
    own = ", ".join(f"{g} {lens.text[k, k]:.0%} and {lens.vocabulary[k]:.1%}" for k, g in enumerate(found.languages))
    return f"Share of the tokens that really follow, and of the vocabulary, that are the language's own: {own}."


def latent(found: Found, draws: int = 200, seed: int = 0) -> np.ndarray:
    """int64 [K, depths]: the language whose own tokens get most probability, -1 where the windows leave open which."""
    assert found.lens is not None
    n = len(found.languages)
    best = found.lens.share[..., :n].argmax(-1)
    sure = (found.lens.draws(draws, seed)[..., :n].argmax(-1) == best).mean(0) >= SURE
    return np.where(sure, best, -1)


def maps(found: Found) -> tuple[LayerMap, ...]:
    """Layers across, languages down: the column of a layer is the stream after it."""
    share = np.array([e.specific for e in found.energies]).T
    out = [_map(found, "Language-specific share of the mean state after each layer", share, unit="share", low=0.0)]
    if found.lens is not None:
        labels = {str(k): g for k, g in enumerate(found.languages)} | {"-1": "not distinguishable"}
        out.append(_map(found, "Latent language by logit lens", latent(found), scale="categorical", labels=labels,
                        note="whose own tokens get the most probability after each layer, by language of the text"))
    return tuple(out)


def _map(found: Found, title: str, values: np.ndarray, **look: Any) -> LayerMap:
    grid = tuple(tuple(v.item() for v in row[1:]) for row in values)
    return LayerMap(title, found.languages, found.depths - 1, grid, **look)
