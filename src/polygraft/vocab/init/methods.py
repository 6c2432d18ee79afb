"""The methods by name: from what two vocabularies share to a rule that makes the rows of new tokens on one side of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal, get_args

import numpy as np

from polygraft.tokenfile import Vocabulary
from polygraft.vocab.init import focus, mixture, omp, scripts, weights
from polygraft.vocab.init.mixture import Mixture
from polygraft.vocab.init.moments import Moments, drawn
from polygraft.vocab.init.weights import Weighting
from polygraft.vocab.metrics.rows import norms
from polygraft.vocab.pieces import CONTROL, COPIED, NONE, PIECES, Pieces
from polygraft.vocab.tables import Side, Table

Method = Literal["composed", "mean", "piece-mean", "random", "hewitt", "omp", "focus"]
METHODS: tuple[Method, ...] = get_args(Method)
NOTHING = 1e-12  # the norm of a row that is no row


def _quiet(done: float, total: float, text: str = "") -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Donor:
    """A model that has the new tokens: its vocabulary, its tables (the head's rows are the embedding's where they are tied), and
    the ids of rows that are hardly trained."""

    vocabulary: Vocabulary
    tables: Mapping[Side, Table]
    untrained: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Material:
    """What methods work with. `vectors`: new ids (sorted) and their unit vectors, counted from text; `k`: anchors of a token;
    `untrained`: old ids that no anchor should be."""

    pieces: Pieces
    old: Vocabulary
    new: Vocabulary
    weighting: Weighting = "uniform"
    spaces: float = 1.0
    seed: int = 0
    k: int = 64
    donor: Donor | None = None
    untrained: frozenset[int] = frozenset()
    tied: bool = False
    vectors: tuple[np.ndarray, np.ndarray] | None = None
    progress: Callable[..., None] = _quiet

    @property
    def composed(self) -> np.ndarray:
        """New ids that old tokens make up, and none is: int64."""
        return np.flatnonzero(self.pieces.how == PIECES)

    @property
    def bare(self) -> np.ndarray:
        """New ids of tokens that nothing is known of: new control tokens, bytes that old tokens do not cover. int64."""
        named = np.zeros(len(self.pieces), bool)
        named[list(self.new.names)] = True
        return np.flatnonzero((self.pieces.how == NONE) & named)

    @property
    def copied(self) -> np.ndarray:
        """New ids that are an old token: int64."""
        return np.flatnonzero((self.pieces.how == COPIED) | (self.pieces.how == CONTROL))

    @cached_property
    def alike(self) -> Mixture:
        """Tokens as mixes of copied ones that are used alike, for both sides. Raises ValueError without vectors."""
        if self.vectors is None:
            raise ValueError("no vectors were counted")
        shared = self.pieces.copied
        old = self.pieces.ids[self.pieces.offsets[shared]]
        return focus.mixed(self.composed, *self.vectors, shared, old, len(self.pieces))

    def mean_of(self, rule: Weighting, spaces: float = 1.0) -> Mixture:
        """Every token as the weighted mean of its pieces."""
        return weights.of_tokens(self.pieces, self.old, rule, spaces)


@dataclass(frozen=True)
class Rule:
    """How rows of one side come about. `make(tokens)` -> rows float64 [n, width] of tokens that are not copied.

    `mixture`: the old rows that each is made of, where that is how; `facts`: what to report; `suspicious`: new ids to look at.
    """

    make: Callable[[np.ndarray], np.ndarray]
    mixture: Mixture | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    suspicious: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


def rule(method: Method, material: Material, table: Table, side: Side) -> Rule:
    """The rule of `method` for one side, `in` for a tied model's one table. Tokens without pieces, and rows that come out as
    zero, become the mean of all old rows."""
    moments = Moments(table, used(table, material.old))
    made = MAKERS[method](material, table, side, moments)
    return Rule(partial(_filled, made, material, moments, everything=method in ("random", "hewitt")), made.mixture, made.facts,
                made.suspicious)


def used(table: Table, old: Vocabulary) -> np.ndarray:
    """Rows of a table that a token has, bool [rows]."""
    found = np.zeros(table.shape[0], bool)
    found[list(old.names)] = True
    return found


def _filled(made: Rule, material: Material, moments: Moments, tokens: np.ndarray, *, everything: bool) -> np.ndarray:
    if everything:
        return made.make(tokens)
    known = material.pieces.how[tokens] == PIECES
    out = np.empty((len(tokens), moments.table.shape[1]))
    out[known] = made.make(tokens[known])
    lost = ~known | ~(np.linalg.norm(np.where(known[:, None], out, 1.0), axis=1) > NOTHING)
    if lost.any():
        out[lost] = moments.mean
    return out


# ------------------------------------------------------------------------------------------------------------------ makers


def _mean(material: Material, table: Table, side: Side, moments: Moments) -> Rule:
    return Rule(lambda tokens: np.tile(moments.mean, (len(tokens), 1)))


def _random(material: Material, table: Table, side: Side, moments: Moments) -> Rule:
    """N(mean, deviation) of every column by itself."""
    def make(tokens: np.ndarray) -> np.ndarray:
        return moments.mean + moments.deviation * drawn(tokens, table.shape[1], material.seed, side)

    return Rule(make)


def _hewitt(material: Material, table: Table, side: Side, moments: Moments) -> Rule:
    """N(mean, covariance) (Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language Models")."""
    def make(tokens: np.ndarray) -> np.ndarray:
        return moments.mean + drawn(tokens, table.shape[1], material.seed, side) @ moments.factor.T

    return Rule(make)


def _piece_mean(material: Material, table: Table, side: Side, moments: Moments) -> Rule:
    made = material.mean_of(material.weighting, material.spaces)
    return Rule(lambda tokens: mixture.rows(made.take(tokens), table), made, {"weights": material.weighting})


def _composed(material: Material, table: Table, side: Side, moments: Moments) -> Rule:
    """Input: uniform mean, scaled to the norm of its script's old rows. Output: mean by characters ("Beyond Initialization Loss",
    arXiv 2608.03494). One table for both: as the output, where longer rows are larger logits and new tokens would be written
    everywhere."""
    if side == "out" or material.tied:
        made = material.mean_of("length")
        return Rule(lambda tokens: mixture.rows(made.take(tokens), table), made, {"weights": "length"})
    made, usual = material.mean_of("uniform"), scripts.usual(table, material.old)

    def make(tokens: np.ndarray) -> np.ndarray:
        rows = mixture.rows(made.take(tokens), table)
        size = np.linalg.norm(rows, axis=1)
        wanted = usual.of([material.new.contents[int(t)] for t in tokens])
        return rows * np.where(size > NOTHING, wanted / np.where(size > NOTHING, size, 1.0), 1.0)[:, None]

    facts = {"weights": "uniform", "norm": usual.all, "norm by script": dict(sorted(usual.by_script.items())),
             "old tokens by script": dict(sorted(usual.counts.items()))}
    return Rule(make, made, facts)


def _omp(material: Material, table: Table, side: Side, moments: Moments) -> Rule:
    """Tokens that the donor lacks: mean of their pieces."""
    donor = material.donor
    assert donor is not None  # the step asks for one
    source = donor.tables.get(side, donor.tables["in"])
    shared = omp.anchors(donor.vocabulary, material.old, donor.untrained, material.untrained)
    there = np.array([donor.vocabulary.by_bytes.get(material.new.contents[int(t)] or b"", -1) for t in material.composed], np.int64)
    tokens, ids = material.composed[there >= 0], there[there >= 0]
    said = partial(material.progress, text="matching pursuit")
    carried, left = omp.carried(tokens, ids, source, shared, material.k, len(material.pieces), said)
    made = mixture.first_of(carried, material.mean_of("uniform"))
    facts = {"anchors": len(shared), "rows hardly trained, here and in the donor": [len(material.untrained), len(donor.untrained)],
             "tokens of the donor": len(tokens),
             "mean of pieces instead": len(material.composed) - len(tokens),
             "rest of the norm, median": float(np.median(left)) if len(left) else None}
    suspicious = omp.anomalous(made, tokens, _norms(made, tokens, table), float(norms(table).max()))
    return Rule(lambda tokens: mixture.rows(made.take(tokens), table), made, facts, suspicious)


def _norms(made: Mixture, tokens: np.ndarray, table: Table) -> np.ndarray:
    parts = [np.linalg.norm(mixture.rows(made.take(some), table), axis=1)
             for some in mixture.blocks(tokens, made.counts, table.shape[1])]  # fmt: skip
    return np.concatenate([np.zeros(0), *parts])


def _focus(material: Material, table: Table, side: Side, moments: Moments) -> Rule:
    """Tokens that the text has too seldom: mean of their pieces."""
    made, have = mixture.first_of(material.alike, material.mean_of("uniform")), material.alike.counts[material.composed]
    facts = {"anchors used": len(np.unique(material.alike.ids)), "tokens with a vector": int((have > 0).sum()),
             "mean of pieces instead": int((have == 0).sum()), "anchors of a token, median": float(np.median(have[have > 0]))
             if (have > 0).any() else None}  # fmt: skip
    return Rule(lambda tokens: mixture.rows(made.take(tokens), table), made, facts)


MAKERS: dict[Method, Callable[[Material, Table, Side, Moments], Rule]] = {
    "composed": _composed, "mean": _mean, "piece-mean": _piece_mean, "random": _random, "hewitt": _hewitt, "omp": _omp,
    "focus": _focus}
