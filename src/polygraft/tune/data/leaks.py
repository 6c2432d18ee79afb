"""Evaluation items that stand in training examples, found by shared runs of words.

An item has leaked into an example when at least 70 % of the item's n-grams stand in that one example: the rule of PaLM
(Chowdhery et al. 2022, arXiv 2204.02311, section 8: 70 % of 8-grams), stricter in that one example must hold them all. What stands
in more than a tenth of a task's items, and the words with which all of them begin and end ("Question:", "Answer:"), are the task's
form and do not count. A paraphrase shares few runs of words and is not found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from polygraft.tune.data.ngrams import Grams, distinct, grams
from polygraft.tune.data.text import units

SHARE = 0.7  # of an item's n-grams, in one example
LEAST = 5  # units; of fewer nothing can be said
FORM, FORM_ITEMS = 0.1, 20  # an n-gram in more than this share of a task's items is its form, where it has so many items


class Held(NamedTuple):
    """One item that training must not see: where it is asked, and what it says."""

    task: str
    language: str
    id: str
    text: str


@dataclass(frozen=True)
class Leak:
    """Example `row` (place) holds `item` (place): this share of the item's n-grams, 0.7 to 1."""

    row: int
    item: int
    share: float


@dataclass(frozen=True)
class Items:
    """Evaluation items and what is looked for of each: its n-grams, each once and without its task's form; of an item with fewer
    units the whole. `parts` holds the Grams of all items by the length of the n-grams."""

    items: tuple[Held, ...]
    parts: dict[int, Grams]

    @property
    def unsaid(self) -> int:
        """Items that are too short, or too much like all others of their task, to be looked for."""
        return int((sum((np.diff(g.starts) for g in self.parts.values()), np.zeros(len(self.items), np.int64)) == 0).sum())


def items(held: Iterable[Held], n: int) -> Items:
    """What is looked for: the items' n-grams of n units."""
    those = tuple(held)
    tasks = _numbered([(h.task, h.language) for h in those])
    words = _inside([units(h.text) for h in those], tasks)
    sizes = [min(len(w), n) for w in words]
    lengths = sorted({size for size in sizes if size >= LEAST})
    return Items(those, {k: _without_form(distinct(grams((w if size == k else [] for w, size in zip(words, sizes)), k)), tasks)
                         for k in lengths})


def _inside(words: Sequence[list[str]], tasks: np.ndarray) -> list[list[str]]:
    """The items without the words with which all items of their task begin, and then without those with which all end."""
    each: dict[int, list[list[str]]] = {}
    for task, mine in zip(tasks.tolist(), words):
        each.setdefault(task, []).append(mine)
    heads = {task: _common(those) for task, those in each.items()}
    tails = {task: _common([w[heads[task] :][::-1] for w in those]) for task, those in each.items()}
    return [w[heads[task] : len(w) - tails[task]] for task, w in zip(tasks.tolist(), words)]


def _common(lists: Sequence[list[str]]) -> int:
    """The units with which all of several different lists begin; of one list alone nothing can be said."""
    first, last = min(lists), max(lists)  # whatever all share these two share
    return 0 if first == last else next((i for i, (a, b) in enumerate(zip(first, last)) if a != b), min(len(first), len(last)))


def _without_form(each: Grams, tasks: np.ndarray) -> Grams:
    """The n-grams that tell an item from the others of its task (int64 [items])."""
    keep, owners = np.ones(len(each.hashes), bool), each.owners
    for task, size in Counter(tasks.tolist()).items():
        if size >= FORM_ITEMS:
            mine = np.flatnonzero(tasks[owners] == task)
            _, place, count = np.unique(each.hashes[mine], return_inverse=True, return_counts=True)
            keep[mine] = count[place] <= FORM * size
    sizes = np.bincount(owners[keep], minlength=len(each))
    return Grams(each.hashes[keep], np.concatenate([[0], np.cumsum(sizes)]))


def _numbered(names: Sequence[tuple[str, str]]) -> np.ndarray:
    known: dict[tuple[str, str], int] = {}
    return np.array([known.setdefault(name, len(known)) for name in names], np.int64)


def leaks(rows: Sequence[Sequence[str]], wanted: Items) -> list[Leak]:
    """Every leak into these examples (given as units), by example and item."""
    found = [leak for n, need in wanted.parts.items() for leak in _shared(distinct(grams(rows, n)), need)]
    return sorted(found, key=lambda leak: (leak.row, leak.item))


def _shared(have: Grams, need: Grams) -> list[Leak]:
    order = np.argsort(need.hashes, kind="stable")
    values, owners = need.hashes[order], need.owners[order]
    first, last = np.searchsorted(values, have.hashes, "left"), np.searchsorted(values, have.hashes, "right")
    hits = np.flatnonzero(last > first)
    pairs = Counter((int(r), int(owners[k])) for r, a, b in zip(have.owners[hits], first[hits], last[hits]) for k in range(a, b))
    sizes = np.diff(need.starts)
    return [Leak(r, i, both / int(sizes[i])) for (r, i), both in pairs.items() if both >= SHARE * sizes[i] - 1e-9]
