"""The vocabulary transformation T (LEP, arXiv 2412.21140, §2): which old tokens every new token is made of.

By bytes, exact copies first: a token that both vocabularies have is itself, also one that is half a character. Published code
decodes to text and encodes again, which loses those and reads byte-level names as text.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from polygraft.errors import StepFailed
from polygraft.tokenfile import Vocabulary

COPIED, CONTROL, PIECES, NONE = range(4)
HOW = ("same bytes", "same control token", "pieces", "nothing")


@dataclass(frozen=True)
class Pieces:
    """T in rows: new token i is made of old ids `ids[offsets[i]:offsets[i + 1]]`, in their order in its text.

    `ids` int32 [sum of pieces], `offsets` int64 [new + 1], `how` uint8 [new]: COPIED, CONTROL (one id each), PIECES, NONE (none).
    """

    ids: np.ndarray
    offsets: np.ndarray
    how: np.ndarray

    def __len__(self) -> int:
        return len(self.how)

    def of(self, token: int) -> np.ndarray:
        """Old ids of one new token, int32 [pieces]."""
        return self.ids[self.offsets[token] : self.offsets[token + 1]]

    @cached_property
    def counts(self) -> np.ndarray:
        """Pieces of every new token, int64 [new]."""
        return np.diff(self.offsets)

    @cached_property
    def known(self) -> np.ndarray:
        """New ids that have any piece, int64."""
        return np.flatnonzero(self.counts)

    @property
    def copied(self) -> np.ndarray:
        """New ids whose bytes the old vocabulary has as a token: the overlap, int64."""
        return np.flatnonzero(self.how == COPIED)

    def tally(self) -> dict[str, int]:
        """How many tokens came about how."""
        return {name: int((self.how == code).sum()) for code, name in enumerate(HOW)}


def decompose(old: Vocabulary, new: Vocabulary) -> Pieces:
    """T from `old` to `new`. Control tokens match by name; holes and what no old tokens cover have no pieces."""
    ids: list[int] = []
    offsets, how = np.zeros(new.size + 1, np.int64), np.full(new.size, NONE, np.uint8)
    control = {i: name for name, i in new.control.items()}
    for i, content in enumerate(new.contents):
        found: tuple[int, ...]
        if i in control:
            same = old.id_of(control[i])
            found = () if same is None else (same,)
            code = CONTROL if found else NONE
        elif content:
            same = old.id_of(new.names[i])  # of two tokens with equal bytes, the one of the same name
            cut = (same,) if same is not None and old.contents[same] == content else old.segment(content)
            found, code = (cut, COPIED if content in old.by_bytes else PIECES) if cut else ((), NONE)
        else:
            found, code = (), NONE
        ids += found
        how[i], offsets[i + 1] = code, len(ids)
    made = Pieces(np.asarray(ids, np.int32), offsets, how)
    check(made, old, new)
    return made


def check(pieces: Pieces, old: Vocabulary, new: Vocabulary) -> None:
    """Raise StepFailed unless the bytes of every token's pieces are its own: 0 wrong decompositions, or none at all."""
    for i in np.flatnonzero((pieces.how == COPIED) | (pieces.how == PIECES)):
        parts = [old.contents[p] for p in pieces.of(int(i))]
        if None in parts or b"".join(parts) != new.contents[i]:  # type: ignore[arg-type]
            raise StepFailed("a token was decomposed wrongly", where=new.path, found=f"{new.names[int(i)]!r}: {parts}",
                             fix="please report it with both tokenizer.json")
