"""Figures of a tokenizer as pure functions of counts.

Every ratio is a ratio of totals over the text: a mean of ratios weighs a short line as much as a long one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from polygraft import stats
from polygraft.result import Estimate

ALPHA = 2.5  # Zouhar et al. 2023 (arXiv 2306.16842), §5: the alpha that went best with translation quality
BLOCKS = 500  # a text is resampled in at most so many blocks of neighbouring documents, which are often alike
DRAWS = 2000
# what is counted of every document, in the order of the columns
COLUMNS = ("documents", "tokens", "characters", "bytes", "words", "word tokens", "continued", "whole", "bare", "fallback",
           "unknown", "lossless")  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """A ratio of two columns; `unit` "%" is shown times 100."""

    name: str
    over: str
    under: str
    unit: str = ""
    higher: bool = True

    @property
    def scale(self) -> float:
        return 100.0 if self.unit == "%" else 1.0


PER_TOKEN = Figure("characters per token", "characters", "tokens")
FERTILITY = Figure("fertility", "word tokens", "words", higher=False)
FIGURES = (
    PER_TOKEN,
    Figure("bytes per token", "bytes", "tokens"),
    FERTILITY,  # Rust et al. 2021 (arXiv 2012.15613), §3.1
    Figure("continued words", "continued", "words", "%", higher=False),
    Figure("STRR of running words", "whole", "words", "%"),  # single-token retention (arXiv 2510.09947), as they stand in text
    Figure("STRR of running words, bare", "bare", "words", "%"),  # the same without the space before the word
    Figure("byte fallback", "fallback", "tokens", "%", higher=False),
    Figure("unknown", "unknown", "tokens", "%", higher=False),
    Figure("documents unchanged by a round trip", "lossless", "documents", "%"),
)


def column(name: str) -> int:
    return COLUMNS.index(name)


def value(figure: Figure, totals: np.ndarray) -> float | None:
    """The figure of totals [columns]; None where there is nothing to divide by."""
    under = totals[column(figure.under)]
    return float(figure.scale * totals[column(figure.over)] / under) if under else None


def blocks(sums: np.ndarray, most: int = BLOCKS) -> np.ndarray:
    """Sums [documents, columns] of at most `most` blocks of neighbouring documents: float64 [blocks, columns]."""
    starts = np.unique(np.linspace(0, len(sums), min(most, len(sums)), endpoint=False).astype(np.int64))
    return np.add.reduceat(np.asarray(sums, np.float64), starts, axis=0)


def estimates(sums: np.ndarray, figures: Sequence[Figure] = FIGURES, *, seed: int = 0) -> dict[str, Estimate]:
    """Every figure that the text gives, with a 95 % interval over resampled blocks of documents (none of fewer than two)."""
    grouped = blocks(sums)
    totals, drawn = grouped.sum(0), _drawn([grouped], seed)[0] if len(grouped) > 1 else None
    found = {}
    for f in figures:
        if (known := value(f, totals)) is None:
            continue
        low, high = _interval(_ratios(f, drawn)) if drawn is not None else (None, None)
        found[f.name] = Estimate(known, low, high, len(sums), f.unit)
    return found


def differences(first: np.ndarray, second: np.ndarray, figures: Sequence[Figure] = FIGURES, *,
                seed: int = 0) -> dict[str, stats.Bootstrap]:  # fmt: skip
    """`second` - `first` of two tokenizers on the same documents, figures on the same draws; none of fewer than two documents."""
    pair = [blocks(first), blocks(second)]
    if len(pair[0]) < 2:
        return {}
    a, b = _drawn(pair, seed)
    found = {}
    for f in figures:
        values = [value(f, p.sum(0)) for p in pair]
        x, y = _ratios(f, a), _ratios(f, b)
        if values[0] is not None and values[1] is not None and x is not None and y is not None:
            found[f.name] = stats.summarise(values[1] - values[0], stats.paired(x, y), len(pair[0]))
    return found


def gain(first: np.ndarray, second: np.ndarray, *, seed: int = 0) -> stats.Bootstrap | None:
    """How much more text a token of the second tokenizer holds, in percent of the first's, on the same documents; None of one."""
    at = column("tokens")
    pair = [blocks(m[:, [at]]) for m in (first, second)]
    if len(pair[0]) < 2:
        return None
    a, b = (d[:, 0] for d in _drawn(pair, seed))
    one, two = (float(p.sum()) for p in pair)
    return stats.summarise(100 * (one / two - 1), 100 * stats.paired(b, a) / b, len(pair[0]))


def _drawn(matrices: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
    """Of every matrix [n, k] the sums [draws, k] of bootstrap samples of its rows, the same samples for all of equal n."""
    drawn = list(stats.resampled(list(matrices), seed=seed, draws=DRAWS))
    return [np.concatenate([block[i] for block in drawn]) for i in range(len(matrices))]


def _ratios(figure: Figure, drawn: np.ndarray) -> np.ndarray | None:
    under = drawn[:, column(figure.under)]
    return figure.scale * drawn[:, column(figure.over)] / under if (under > 0).all() else None


def _interval(samples: np.ndarray | None) -> tuple[float | None, float | None]:
    if samples is None:  # so little is there that a sample can miss all of it
        return None, None
    low, high = np.quantile(samples, [0.025, 0.975])
    return float(low), float(high)


# ------------------------------------------------------------------------------------------------------ of the vocabulary


def renyi_efficiency(counts: np.ndarray, size: int, alpha: float = ALPHA) -> float:
    """H_alpha(p) / log2(size), with H_alpha = log2(sum p^alpha) / (1 - alpha) (Zouhar et al. 2023, eq. 5; Shannon at alpha 1).

    `counts` of every token, `size` the number of tokens that there are: the whole vocabulary, here, used or not. In 0..1. Raises
    ValueError without counts or for a vocabulary of fewer than two.
    """
    seen = np.asarray(counts, np.float64)
    seen = seen[seen > 0]
    if size < 2 or not len(seen):
        raise ValueError(f"{len(seen)} tokens seen of {size}")
    p = seen / seen.sum()
    entropy = -np.sum(p * np.log2(p)) if alpha == 1 else np.log2(np.sum(p**alpha)) / (1 - alpha)
    return float(max(0.0, entropy) / np.log2(size))


def gini(costs: Sequence[float] | np.ndarray) -> float:
    """Gini coefficient: sum_ij |x_i - x_j| / (2 n^2 mean). 0 where all cost the same, towards 1 where one pays for all."""
    x = np.asarray(costs, np.float64)
    return float(ginis(x[None])[0])


def ginis(costs: np.ndarray) -> np.ndarray:
    """The Gini coefficient of every row of costs [draws, n], all positive."""
    x = np.sort(costs, axis=1)
    n = x.shape[1]
    return (2 * np.arange(1, n + 1) - n - 1) @ x.T / (n * x.sum(1))


def parities(tokens: Sequence[np.ndarray], reference: int, *, seed: int = 0) -> tuple[list[Estimate], Estimate]:
    """Of the tokens [sentences] of every language on parallel text: each one's premium over the reference, and the Gini of all.

    Premium (Petrov et al. 2023, arXiv 2305.15425, §3): total tokens over the reference's. Sentences are drawn together.
    """
    grouped = blocks(np.stack(tokens, axis=1))
    totals = grouped.sum(0)
    drawn = _drawn([grouped], seed)[0] if len(grouped) > 1 else None
    premiums = []
    for i in range(len(tokens)):
        low, high = _interval(drawn[:, i] / drawn[:, reference]) if drawn is not None and i != reference else (None, None)
        premiums.append(Estimate(float(totals[i] / totals[reference]), low, high, len(tokens[0]), "x"))
    low, high = _interval(ginis(drawn)) if drawn is not None else (None, None)
    return premiums, Estimate(gini(totals), low, high, len(tokens[0]))


def coverage(counts: np.ndarray) -> np.ndarray:
    """Share of the text that the k most frequent tokens are, for k = 1, 2, ...: float64 [tokens seen]."""
    seen = np.sort(np.asarray(counts, np.float64))[::-1]
    return np.cumsum(seen[seen > 0]) / seen.sum()


def percentile_frequency(counts: np.ndarray, share: float = 0.95) -> int:
    """How often the token occurs that stands at `share` of those seen, ordered by frequency (Gowda & May 2020, arXiv 2004.02334:
    F95%, there 100 and more for a vocabulary that a corpus can teach)."""
    seen = np.sort(np.asarray(counts))[::-1]
    seen = seen[seen > 0]
    return int(seen[max(0, int(np.ceil(share * len(seen))) - 1)]) if len(seen) else 0
