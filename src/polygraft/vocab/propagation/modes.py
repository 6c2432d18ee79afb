"""The modes: which rows W is fitted on (overlap, conversion, bypass, procrustes), or what stands in its place (swap, delta)."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from polygraft.vocab.init.mixture import Mixture
from polygraft.vocab.pieces import COPIED, Pieces
from polygraft.vocab.propagation.fitting import Both
from polygraft.vocab.propagation.trio import Trio
from polygraft.vocab.tables import Side

Mode = Literal["swap", "overlap", "conversion", "bypass", "procrustes", "delta"]
MODES: tuple[Mode, ...] = get_args(Mode)
RIDGED = ("overlap", "conversion", "bypass")
WORDS = {
    "swap": "the donor's rows as they are (W = 1)",
    "overlap": "W fitted on the tokens that both vocabularies have",
    "conversion": "W fitted on the means of every new token's old pieces",
    "bypass": "W fitted on all old tokens",
    "procrustes": "W the rotation that fits all old tokens best",
    "delta": "the donor's rows and the mean change of their old pieces",
}


def means(pieces: Pieces, shared: np.ndarray) -> Mixture:
    """T: 1/K on each of the K old pieces of a token; nothing for one with a piece that base and instruct model do not share."""
    owner = np.repeat(np.arange(len(pieces)), pieces.counts)
    whole = np.ones(len(pieces), bool)
    whole[owner[~np.isin(pieces.ids, shared)]] = False
    counts = np.where(whole, pieces.counts, 0)
    stay = whole[owner]
    return Mixture(pieces.ids[stay], 1 / pieces.counts[owner[stay]], np.concatenate([[0], np.cumsum(counts)]))


def both(mode: Mode, side: Side, trio: Trio, pieces: Pieces, made: Mixture) -> Both | None:
    """The rows that W of one table is fitted on; None for modes without W. `made` is T as `means` gives it.

    overlap: arXiv 2412.21140, eq. 8-9; conversion: eq. 13-14; bypass and procrustes: all old tokens of base and instruct model.
    """
    base, instruct = trio.base.tables[side], trio.instruct.tables[side]
    if mode == "conversion":
        return Both(base, instruct, np.flatnonzero(made.counts), made)
    if mode == "overlap":
        ids = pieces.ids[pieces.offsets[np.flatnonzero(pieces.how == COPIED)]]
        return Both(base, instruct, np.intersect1d(ids, trio.shared))
    return Both(base, instruct, trio.shared) if mode in ("bypass", "procrustes") else None
