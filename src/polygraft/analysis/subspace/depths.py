"""Mean states by language and by group of documents at every depth of a reading: the material of every figure of subspaces."""

from __future__ import annotations

import numpy as np

from polygraft.activity import Activity
from polygraft.analysis.groups import Groups
from polygraft.analysis.reading.config import several
from polygraft.errors import InputError

LEAST = 4  # groups: two to fit on and two to measure on, or no spread could be told


class Depths:
    """`Groups` of every depth of a reading: 0 is after the embedding, l after layer l."""

    def __init__(self, activity: Activity):
        self.languages = list(activity.languages)
        self.depths, self.hidden = activity.layers + 1, activity.hidden
        several(tuple(self.languages), activity.folder)
        self.groups = Groups.of(activity, "group.residual")
        for language, n in zip(self.languages, self.groups.sizes):
            if n < LEAST:
                raise InputError("too few groups of documents to fit on one half and measure on the other", where=language,
                                 found=f"{n} with tokens", expected=f"at least {LEAST}",
                                 fix="give more documents, or more groups")
        self._check(str(activity.folder))

    def _check(self, where: str) -> None:
        for language, s in zip(self.languages, self.groups.sums):
            if not np.isfinite(s).all():
                at = int(np.flatnonzero(~np.isfinite(s).all(axis=(0, 2)))[0])
                raise InputError("states that are not finite", where=f"{where}: {language}", found=f"at depth {at}",
                                 fix="read the text in float32 or bfloat16")
        means = np.moveaxis(self.groups.means, -1, 0)
        for b in range(len(means)):
            for a in range(b):
                if np.linalg.norm(means[a] - means[b]) <= 1e-9 * np.linalg.norm(means[a]):
                    raise InputError("two languages have the same mean states at every depth", where=where,
                                     found=f"{self.languages[a]}, {self.languages[b]}", fix="is it the same text twice?")

    def at(self, depth: int) -> Groups:
        return self.groups.at(depth)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole in [0, 1]-like figures; 0 where there is nothing to take a part of."""
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=np.asarray(whole) > 0)
