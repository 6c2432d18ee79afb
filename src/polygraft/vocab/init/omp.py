"""Rows from a model that has the new tokens: a token there as a sparse sum of tokens that both models have, carried over.

Orthogonal matching pursuit (Pati et al. 1993), as a way between vocabularies by Goddard & Fernandes Neto (arXiv 2506.06607):
t ~ sum_j c_j a_j over at most k anchors a_j in the donor's table; the new row is sum_j c_j of the same tokens' rows here. Anchors
are chosen by |cos|, not by |<r, a>|, which favours long rows (published code does so); c is the least-squares fit, in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass

import numpy as np

from polygraft.tokenfile import Vocabulary
from polygraft.vocab.init.mixture import Mixture, joined
from polygraft.vocab.tables import Table

ENOUGH = 1e-6  # of a token's norm: a rest this short is not worth another anchor
BASES = 96 << 20  # bytes of orthonormal bases that one batch holds
BATCH = 256
LARGE = 10.0  # times the median: a token whose coefficients are this large in sum is flagged
LONG = 2.0  # times the longest old row: so is a row beyond this


@dataclass(frozen=True)
class Anchors:
    """Tokens that both models have: `donor` and `old` are their ids there and here, int64 [n]."""

    donor: np.ndarray
    old: np.ndarray

    def __len__(self) -> int:
        return len(self.donor)


def anchors(donor: Vocabulary, old: Vocabulary, never: Container[int] = (), never_old: Container[int] = ()) -> Anchors:
    """Tokens of equal bytes, in the order of the donor's ids, without those that are `never` (here: `never_old`) to be used."""
    both = [(i, old.by_bytes[c]) for c, i in donor.by_bytes.items()
            if c in old.by_bytes and i not in never and old.by_bytes[c] not in never_old]  # fmt: skip
    found = np.array(sorted(both), np.int64).reshape(-1, 2)
    return Anchors(found[:, 0], found[:, 1])


@dataclass(frozen=True)
class Picked:
    """Of each target: the anchors in the order they were chosen (int32 [n, k], -1 for none), their coefficients (float64 [n, k])
    and what is left of the target (its norm, float64 [n])."""

    anchors: np.ndarray
    weights: np.ndarray
    rest: np.ndarray


def pursue(targets: np.ndarray, atoms: np.ndarray, k: int) -> Picked:
    """Orthogonal matching pursuit of each target [n, width] among `atoms` [a, width] of unit norm (zero rows are never chosen).

    What is chosen next is found in the precision of `atoms`; bases and coefficients are float64.
    """
    targets = np.asarray(targets, np.float64)
    n, width = targets.shape
    k = min(k, len(atoms), width)
    chosen, basis = np.full((n, k), -1, np.int32), np.zeros((n, k, width))
    upper, shares = np.zeros((n, k, k)), np.zeros((n, k))  # chosen atoms = upper^T basis, target = shares basis + rest
    rest, least = targets.copy(), ENOUGH * np.linalg.norm(targets, axis=1)
    going = np.linalg.norm(rest, axis=1) > least
    for step in range(k):
        at = np.flatnonzero(going)
        if not len(at):
            break
        scores = np.abs(rest[at].astype(atoms.dtype) @ atoms.T)
        used = chosen[at, :step]
        scores[np.arange(len(at))[:, None], used] = -1.0
        best = scores.argmax(1)
        new, upper_part = _orthogonal(atoms[best].astype(np.float64), basis[at, :step])
        size = np.linalg.norm(new, axis=1)
        fine = (size > 1e-7) & (scores[np.arange(len(at)), best] > 0)  # what is left is in the span of no further atom
        going[at[~fine]] = False
        at, best, new, upper_part = at[fine], best[fine], new[fine] / size[fine, None], upper_part[fine]
        chosen[at, step], basis[at, step] = best, new
        upper[at, :step, step], upper[at, step, step] = upper_part, size[fine]
        shares[at, step] = np.einsum("nd,nd->n", new, rest[at])
        rest[at] -= shares[at, step, None] * new
        going[at] = np.linalg.norm(rest[at], axis=1) > least[at]
    return Picked(chosen, _solved(upper, shares, chosen), np.linalg.norm(rest, axis=1))


def _orthogonal(atoms: np.ndarray, basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What of each atom [n, width] its basis [n, j, width] lacks, and its parts along it [n, j]; Gram-Schmidt, twice is enough."""
    total = np.zeros(basis.shape[:2])
    for _ in range(2):
        part = (basis @ atoms[:, :, None])[:, :, 0]
        atoms = atoms - (part[:, None] @ basis)[:, 0]
        total += part
    return atoms, total


def _solved(upper: np.ndarray, shares: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Coefficients of the atoms: upper c = shares, from the last to the first."""
    k = upper.shape[1]
    out = np.zeros_like(shares)
    for j in range(k - 1, -1, -1):
        left = shares[:, j] - np.einsum("ni,ni->n", upper[:, j, j + 1 :], out[:, j + 1 :])
        out[:, j] = np.where(chosen[:, j] >= 0, left / np.where(chosen[:, j] >= 0, upper[:, j, j], 1.0), 0.0)
    return out


def unit(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows scaled to norm 1 (zero rows stay), and their norms, float64."""
    sizes = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
    return values / np.where(sizes > 0, sizes, 1.0)[:, None].astype(values.dtype), sizes


def carried(tokens: np.ndarray, ids: np.ndarray, table: Table, shared: Anchors, k: int, size: int,
            progress: Callable[[int, int], None] = lambda *_: None) -> tuple[Mixture, np.ndarray]:  # fmt: skip
    """New `tokens`, which the donor has as `ids`, as sums of old rows; and of each what share of its norm is left, float64.

    `size`: tokens of the new vocabulary. Coefficients are those of the donor's rows as they are, not of unit length.
    """
    atoms, sizes = unit(table.gather(shared.donor))
    batch = max(1, min(BATCH, BASES // (8 * max(1, min(k, len(shared))) * table.shape[1])))
    parts, left = [], []
    for start in range(0, len(tokens), batch):
        targets = table.gather(ids[start : start + batch]).astype(np.float64)
        found = pursue(targets, atoms, k)
        for token, at, weights in zip(tokens[start : start + batch], found.anchors, found.weights):
            real = at >= 0
            parts.append((int(token), shared.old[at[real]].astype(np.int32), weights[real] / sizes[at[real]]))
        norm = np.linalg.norm(targets, axis=1)
        left += list(found.rest / np.where(norm > 0, norm, 1.0))
        progress(min(start + batch, len(tokens)), len(tokens))
    return joined(parts, size), np.array(left)


def anomalous(mixture: Mixture, tokens: np.ndarray, lengths: np.ndarray, longest: float) -> np.ndarray:
    """Of `tokens` those whose coefficients are LARGE in sum against the median, or whose row (norms `lengths`) is LONG
    against the longest old one: a donor can hold tokens that are harmless there and not here (arXiv 2601.00065). int64."""
    sums = np.array([np.abs(mixture.of(int(t))[1]).sum() for t in tokens])
    wrong = (sums > LARGE * np.median(sums)) | (lengths > LONG * longest) if len(sums) else np.zeros(0, bool)
    return tokens[wrong]
