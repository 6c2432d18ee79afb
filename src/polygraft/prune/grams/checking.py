"""Do scores order masks as bits per byte of held-out text do? Masks of one sparsity that differ in text and method; correlations.

A score is worth its store where it orders masks better than what needs none: column norms alone, which any reading of text gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice, permutations, product

from polygraft import stats
from polygraft.errors import RecipeError
from polygraft.prune import harm
from polygraft.prune.grams.scoring import Score
from polygraft.prune.harm import Bits
from polygraft.result import Table

FEW = 10  # masks under which a rank correlation says little
QUICK = ("wanda", "ria", "wanda-variant")  # methods that take no longer than reading a matrix
UNREAD = "magnitude"  # the same whatever the text


@dataclass(frozen=True)
class Scored:
    """One mask: what every language loses by it, and what its held-out text then costs."""

    name: str
    score: Score
    bits: Bits


def mixtures(languages: Sequence[str]) -> Iterator[str]:
    """Each language, all, each two, and three parts of one with one of another; as `candidates.shares_of` reads them."""
    yield from languages
    if len(languages) > 2:
        yield "+".join(languages)
    yield from map("+".join, combinations(languages, 2))
    yield from (f"{a}=0.75+{b}=0.25" for a, b in permutations(languages, 2))


def different(method: str, languages: Sequence[str], count: int) -> list[tuple[str, str]]:
    """`count` masks to compare: (method, mixture), on every mixture the method that is asked for and another, then further ones.

    Raises RecipeError where the languages do not give as many.
    """
    first, second, *rest = (m for m in dict.fromkeys((method, *QUICK)) if m != UNREAD)
    texts = list(mixtures(languages))
    every = [(m, text) for text, m in product(texts, (first, second))] + list(product(rest, texts)) + [(UNREAD, languages[0])]
    found = list(islice(dict.fromkeys(every), count))
    if len(found) < count:
        raise RecipeError("fewer masks differ than are asked for", where="check", found=f"{count} of {', '.join(languages)}",
                          expected=f"{len(found)} at most", fix="gather more languages, or name models with --pruned")  # fmt: skip
    return found


Related = Mapping[str, tuple[float | None, float | None]]  # language -> correlation of scores, of column norms alone


def correlations(rows: Sequence[Scored], before: Bits) -> dict[str, tuple[float | None, float | None]]:
    """Of each evaluated language that the store has: rank correlation over masks of its bits per byte with its error, and with what
    column norms alone say of that."""
    at = {g: i for i, g in enumerate(rows[0].score.languages)}
    costs = {g: [harm.value(r.bits[g]) for r in rows] for g in before if g in at}
    return {g: (stats.spearman([float(r.score.by_language[at[g]]) for r in rows], cost),
                stats.spearman([float(r.score.by_norms[at[g]]) for r in rows], cost)) for g, cost in costs.items()}  # fmt: skip


def correlated(related: Related, masks: int) -> Table:
    rows = tuple((g, masks, *(None if r is None else round(r, 3) for r in both)) for g, both in related.items())
    note = f"1: the same order. Under {FEW} masks it says little." if masks < FEW else "1: the same order"
    return Table("Do scores order masks as bits per byte do?",
                 ("language", "masks", "rank correlation", "of column norms alone"), rows, note)  # fmt: skip


def said(related: Related, masks: int) -> str:
    scores, norms = ([r for both in related.values() if (r := both[i]) is not None] for i in (0, 1))
    if not scores:
        return "Whether scores order masks as bits per byte do cannot be said: there are too few masks that differ."
    beside = f"; column norms alone do with {min(norms):.2f} to {max(norms):.2f}" if norms else ""
    return (f"Scores order {masks} masks as bits per byte do with a rank correlation of {min(scores):.2f} to {max(scores):.2f} by "
            f"language{beside}{': from few masks' if masks < FEW else ''}.")  # fmt: skip
