"""Candidates are asked, what they answer is kept, and scores are made of it. Nothing here chooses."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from polygraft.choose.candidates import Candidate
from polygraft.choose.search.asking import Sheet, Units
from polygraft.choose.search.kept import GREEDY, SECONDS, VALUE, Kept
from polygraft.choose.search.objectives import Objective, Part
from polygraft.choose.search.space import content
from polygraft.errors import InputError
from polygraft.evals.verdicts.measures import Measure
from polygraft.merge.profile import Profile

Found = tuple[np.ndarray, np.ndarray]  # nats (or a divergence) float64 [profiles, rows]; all tokens greedy? bool [profiles, rows]
Progress = Callable[..., None]
Score = Callable[[Sequence[Profile], Sequence[Sequence[int]], Sequence[int], Profile | None, Progress], Found]
Some = Sequence[Units]  # units of each ask


def _quiet(done: float, total: float, text: str = "") -> None:
    """Progress that nobody watches."""


def _unspent(seconds: float) -> None:
    """Nobody counts the time."""


class Judge:
    """Asks candidates what they have not been asked, through `score`, and keeps every call's answers in `kept`, so that a search
    that was cut off finds them again. `near` are the profiles of the sources that divergence is measured from. `spent` is told of
    the seconds that answers took which an earlier run had computed."""

    def __init__(self, sheet: Sheet, objectives: Sequence[Objective], score: Score, near: Mapping[str, Profile],
                 kept: Kept | None = None, progress: Progress = _quiet, spent: Callable[[float], None] = _unspent):
        self.sheet, self.objectives, self.score, self.near = sheet, tuple(objectives), score, near
        self.kept, self.progress, self.spent = kept, progress, spent
        self.asked = 0  # (candidate, row) pairs that were answered
        self._values: dict[tuple[Any, ...], np.ndarray] = {}
        self._greedy: dict[tuple[Any, ...], np.ndarray] = {}
        self._records: dict[tuple[Any, ...], dict[tuple[int, int], dict[str, Any]]] = {}

    # ----------------------------------------------------------------------------------------------------------- asking

    def ask(self, candidates: Sequence[Candidate], some: Some) -> float:
        """Have all of them answer these items; what one has answered before it is not asked again. -> seconds that it took, those
        of an earlier run among them."""
        started, before = time.monotonic(), 0.0
        unique = {content(c): c for c in candidates}
        for ask_rows, near in self._kinds(some):
            groups: dict[tuple[int, ...], list[Candidate]] = {}
            for key, c in unique.items():
                values = self._of(key)
                before += self._recall(c, ask_rows)
                if missing := tuple(r for r in ask_rows if np.isnan(values[r])):
                    groups.setdefault(missing, []).append(c)
            for rows, group in groups.items():
                self._call(group, rows, near)
        if before:
            self.spent(before)
        return time.monotonic() - started + before

    def _recall(self, candidate: Candidate, rows: Sequence[int]) -> float:
        """Take what an earlier run left of these rows; -> seconds that it took then."""
        found = self.kept.of(candidate.profile) if self.kept is not None else None
        if found is None:
            return 0.0
        key = content(candidate)
        here = [r for r in rows if np.isnan(self._values[key][r]) and not np.isnan(found[VALUE, r])]
        self._values[key][here], self._greedy[key][here] = found[VALUE, here], found[GREEDY, here] > 0
        self.asked += len(here)
        return float(found[SECONDS, here].sum())

    def _kinds(self, some: Some) -> list[tuple[list[int], Profile | None]]:
        """The rows to be scored, then those on which each reference is to be near."""
        by: dict[str | None, list[int]] = {}
        for a, part in enumerate(some):
            by.setdefault(self.sheet.asks[a].reference, []).extend(self.sheet.rows_of(a, part))
        return [(rows, self.near[name] if name else None) for name, rows in by.items() if rows]

    def _of(self, key: tuple[Any, ...]) -> np.ndarray:
        if key not in self._values:
            self._values[key] = np.full(len(self.sheet.rows), np.nan)
            self._greedy[key] = np.zeros(len(self.sheet.rows), bool)
            self._records[key] = {}
        return self._values[key]

    def _call(self, group: Sequence[Candidate], rows: Sequence[int], near: Profile | None) -> None:
        profiles, started = [c.profile for c in group], time.monotonic()
        ids, scored = [self.sheet.rows[r] for r in rows], [self.sheet.scored[r] for r in rows]
        values, greedy = self.score(profiles, ids, scored, near, self.progress)
        for c, v, g in zip(group, values, greedy):
            if not np.isfinite(v).all():
                raise InputError("a candidate's likelihoods are not numbers", where=c.name, found=str(v[~np.isfinite(v)][0]),
                                 fix="inspect the sources with --check, or compute in float32 (dtype: float32)")
            key = content(c)
            self._values[key][list(rows)], self._greedy[key][list(rows)] = v, g
        if self.kept is not None:
            self.kept.add(profiles, rows, values, greedy, time.monotonic() - started)
        self.asked += len(group) * len(rows)

    # ----------------------------------------------------------------------------------------------------------- scores

    def records(self, candidate: Candidate, ask: int, some: Units) -> list[dict[str, Any]]:
        """The records of these items, as an evaluation writes them, in the items' order. They must have been asked."""
        key = content(candidate)
        known = self._records[key]
        places = sorted(i for unit in some for i in unit)
        for i in places:
            if (ask, i) not in known:
                known[ask, i] = self.sheet.record(ask, i, self._values[key], self._greedy[key])
        return [known[ask, i] for i in places]

    def measures(self, candidates: Sequence[Candidate], some: Some) -> dict[Part, Measure]:
        """Per-item columns of every metric of every ask that has units, by (number of the ask, name of the metric)."""
        found: dict[Part, Measure] = {}
        for a, part in enumerate(some):
            if part:
                rows = {c.name: self.records(c, a, part) for c in candidates}
                found |= {(a, m.metric.name): m for m in self.sheet.measures(a, rows)}
        return found

    def scores(self, candidates: Sequence[Candidate], some: Some) -> np.ndarray:
        """float64 [candidates, objectives], signed so that more is better, on these items."""
        measures, names = self.measures(candidates, some), [c.name for c in candidates]
        return np.stack([o.sign * o.values(measures, names) for o in self.objectives], axis=1)


def first(some: Some, share: float, least: int = 1) -> list[Units]:
    """The first units of each ask: this share of them, at least `least`."""
    return [part[: min(len(part), max(least, round(share * len(part))))] for part in some]


def size(some: Some) -> int:
    """How many items or documents these are."""
    return sum(len(unit) for part in some for unit in part)
