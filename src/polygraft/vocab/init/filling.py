"""A table of a new vocabulary, block by block: old rows bit for bit where a token is an old one, made rows for the others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from polygraft.floats import to_f32
from polygraft.tokenfile import Vocabulary
from polygraft.vocab.init import mixture
from polygraft.vocab.init.methods import Material, Method, Rule, rule
from polygraft.vocab.init.weights import of_tokens
from polygraft.vocab.tables import BLOCK, Side, Table
from polygraft.vocab.writing import Rows, encoded


def initialise(method: Method, material: Material, table: Table, side: Side, rows: int) -> Rows:
    """The new table of one side as blocks of bytes (uint8) of the file's numbers, `rows` rows; see `filled`."""
    made = rule(method, material, table, side)
    return lambda: filled(made, material, table, rows)


def rows_for(old: Vocabulary, new: Vocabulary, now: int, multiple: int) -> int:
    """Rows of the new table: those there are (`now`) where the new tokens fit in and are not fewer than before; else one for every
    token, up to the next multiple."""
    return now if old.size <= new.size <= now else -(-new.size // multiple) * multiple


def kept(old: Vocabulary, new: Vocabulary, now: int, rows: int) -> np.ndarray:
    """Rows that no token has, before or after (holes, padding): they stay as they are. int64."""
    return np.array([i for i in range(min(now, rows)) if i not in old.names and i not in new.names], np.int64)


def filled(made: Rule, material: Material, table: Table, rows: int) -> Iterator[np.ndarray]:
    """Blocks uint8 [n] of a table of `rows` rows. Holes are the mean of the old rows, padding is the mean of all new ones.

    Raises StepFailed for a made row that is not finite in the file's numbers.
    """
    source, staying = _sources(material, table, rows), kept(material.old, material.new, table.shape[0], rows)
    source[staying] = staying
    size, step = len(material.pieces), max(1, BLOCK // (4 * table.shape[1]))
    counts = made.mixture.counts if made.mixture is not None else np.ones(size, np.int64)
    total = np.zeros(table.shape[1])
    for start in range(0, rows, step):
        part = np.arange(start, min(rows, start + step))
        out = np.empty((len(part), table.raw_block(0, 1).shape[1]), np.uint8)
        copied = source[part] >= 0
        out[copied] = table.raw(source[part][copied])
        for some in mixture.blocks(part[~copied & (part < size)], counts, table.shape[1]):
            out[some - start] = _bytes(made.make(some), table)
        real = part < size
        total += to_f32(out[real].tobytes(), table.dtype).reshape(-1, table.shape[1]).sum(0, dtype=np.float64)
        if (padding := ~copied & ~real).any():
            out[padding] = _bytes((total / size)[None], table)
        yield out.reshape(-1)


def _sources(material: Material, table: Table, rows: int) -> np.ndarray:
    """The old row that each new one is, -1 for those to be made: int64 [rows]."""
    found, copied = np.full(rows, -1, np.int64), material.copied
    found[copied] = material.pieces.ids[material.pieces.offsets[copied]]
    return found


def _bytes(rows: np.ndarray, table: Table) -> np.ndarray:
    with np.errstate(over="ignore"):
        raw = encoded(rows.astype(np.float32), table.dtype, table.key)
    return np.frombuffer(raw, np.uint8).reshape(len(rows), -1)


def bias(material: Material, values: np.ndarray, rows: int) -> np.ndarray:
    """The head's bias: of a composed token the mean of its pieces' (what a head whose rows are that mean would have), of the others
    as rows of a table. values float32 [old rows] -> float32 [rows]."""
    size, named = len(material.pieces), list(material.old.names)
    out = np.full(rows, values[named].mean(dtype=np.float64), np.float64)
    made = of_tokens(material.pieces, material.old, "length")
    some = np.flatnonzero(made.counts)
    out[some] = made.over(values)[some]
    out[size:] = out[:size].mean()
    staying = kept(material.old, material.new, len(values), rows)
    out[staying] = values[staying]
    return out.astype(np.float32)
