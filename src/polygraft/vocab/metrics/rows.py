"""Rows of tokens that training hardly met: Land & Bartolo 2024, "Fishing for Magikarp" (arXiv 2405.05417, §2-3).

Read from files, a block of rows at a time. An indicator is evidence, no proof: the paper confirms a candidate by asking the model
to repeat it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from polygraft.errors import InputError
from polygraft.tokenfile import Vocabulary
from polygraft.vocab.tables import Side, Table

# bytes that no UTF-8 text holds: their tokens lie in every byte-level vocabulary and are never met
IMPOSSIBLE = {bytes([b]) for b in (0xC0, 0xC1, *range(0xF5, 0x100))}
UNUSED = re.compile(r"unused|reserved|extra_id|free_token|placeholder|dummy", re.IGNORECASE)
FEWEST = 3  # known unused rows below which nothing is said to be like them
LIKE = 0.95  # a row is like the unused ones where its indicator is no more than this quantile of theirs


@dataclass(frozen=True)
class Undertrained:
    """`indicator` float64 [tokens], low is suspicious; `unused` ids (of rows) known to be untrained; `suspects` text tokens whose
    indicator is as low as theirs, lowest first (None where too few are known); `measure` says what the indicator is."""

    indicator: np.ndarray
    unused: np.ndarray
    suspects: np.ndarray | None
    measure: str
    threshold: float | None = None


def known_unused(vocabulary: Vocabulary, rows: int) -> np.ndarray:
    """Rows that no text trains: padding beyond the tokens, ids without one, impossible bytes, names that say so. int64, sorted."""
    found = {*range(vocabulary.size, rows), *vocabulary.holes}
    found |= {i for i, content in enumerate(vocabulary.contents) if content in IMPOSSIBLE}
    found |= {i for i, entry in vocabulary.added.items() if UNUSED.search(entry["content"])}
    return np.asarray(sorted(i for i in found if i < rows), np.int64)


def undertrained(vocabulary: Vocabulary, tables: dict[Side, Table]) -> Undertrained:
    """Tied: cosine distance of a row to the mean of those known to be unused. Untied: the norm of its input row.

    Raises InputError, naming it, for a row that is not finite.
    """
    table, tied = tables["in"], "out" not in tables
    unused = known_unused(vocabulary, table.shape[0])
    if tied and not len(unused):
        return Undertrained(np.zeros(0), unused, None, "no row is known to be unused, so none can be told from them")
    if tied:
        rows = np.asarray(table.gather(unused), np.float64)
        _refuse(table, unused[~np.isfinite(rows).all(1)])
        values = distances(table, rows.mean(0))
        own = _leave_one_out(rows)  # each with the mean of the others: its own share would draw it near
        measure = "cosine distance to the mean of rows known to be unused"
    else:
        values = norms(table)
        own, measure = values[unused], "norm of the input row"
    _refuse(table, np.flatnonzero(~np.isfinite(values)))
    return judged(vocabulary, values[: vocabulary.size], own, unused, measure)


def _refuse(table: Table, broken: np.ndarray) -> None:
    if len(broken):
        raise InputError("a row that is not finite", where=table.key, found=f"row {int(broken[0])}, of {len(broken)} such",
                         expected="finite numbers", fix="get the model again, or train it again from before it broke")


def judged(vocabulary: Vocabulary, values: np.ndarray, own: np.ndarray, unused: np.ndarray, measure: str) -> Undertrained:
    """The suspects among tokens that stand for text, by the indicator `own` of the known unused rows."""
    if len(own) < FEWEST:
        return Undertrained(values, unused, None, measure)
    threshold = float(np.quantile(own, LIKE))
    text = np.array([bool(content) for content in vocabulary.contents])
    text[unused[unused < vocabulary.size]] = False
    found = np.flatnonzero(text & (values <= threshold))
    return Undertrained(values, unused, found[np.argsort(values[found], kind="stable")], measure, threshold)


def distances(table: Table, centre: np.ndarray) -> np.ndarray:
    """1 - cosine of every row with `centre`, float64 [rows]; 0 for a row of zeros, which nothing has trained."""
    out = np.zeros(table.shape[0])
    for start, block in table.blocks():
        out[start : start + len(block)] = _cosine_distance(np.asarray(block, np.float64), centre)
    return out


def norms(table: Table) -> np.ndarray:
    """Euclidean norm of every row, float64 [rows]."""
    return np.concatenate([np.linalg.norm(np.asarray(block, np.float64), axis=1) for _, block in table.blocks()])


def _cosine_distance(rows: np.ndarray, centre: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=-1) * np.linalg.norm(centre, axis=-1)
    dot = np.sum(rows * centre, axis=-1)
    with np.errstate(invalid="ignore"):  # what is not finite stays so, and is refused by its row
        return np.where(length == 0, 0.0, 1 - dot / np.where(length == 0, 1.0, length))


def _leave_one_out(rows: np.ndarray) -> np.ndarray:
    if len(rows) < 2:
        return np.zeros(0)
    return _cosine_distance(rows, (rows.sum(0) - rows) / (len(rows) - 1))
