"""Continued BPE: further merges of whole tokens, learned from words as a tokenizer already cuts them.

Sennrich et al. (arXiv 1508.07909, algorithm 1) begun from tokens instead of characters. Every merge joins two tokens that stood
side by side, so a text is only ever cut more coarsely. Counts are exact; ties go to shorter bytes, then to the bytes themselves.

Words lie end to end in one array with links to both neighbours. Where a pair occurs is looked up among the edges that the merges
which made its two tokens have left (`Edges`); what has changed since is passed over. Memory is about 50 bytes a symbol. (Ours.)
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

WALL = -1  # a symbol that merges with nothing: an unknown character, a byte to fall back on
END = -1  # a link to nowhere
Quiet = Callable[[int, int], None]


@dataclass(frozen=True)
class Words:
    """Distinct words as tokens: `symbols` int32 [n], word i is `symbols[offsets[i]:offsets[i + 1]]` and was seen `counts[i]` times.

    `offsets` and `counts` are int64, [words + 1] and [words].
    """

    symbols: np.ndarray
    offsets: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, cuts: Iterable[tuple[Iterable[int], int]]) -> Words:
        """From (ids, count) of each word."""
        from array import array

        symbols, offsets, counts = array("i"), array("q", [0]), array("q")
        for ids, count in cuts:
            symbols.extend(ids)
            offsets.append(len(symbols))
            counts.append(count)
        return cls(np.frombuffer(symbols, np.int32) if symbols else np.empty(0, np.int32),
                   np.frombuffer(offsets, np.int64), np.frombuffer(counts, np.int64) if counts else np.empty(0, np.int64))

    @property
    def tokens(self) -> int:
        """Tokens of the text that the words were counted in."""
        return int((np.diff(self.offsets) * self.counts).sum())


@dataclass(frozen=True)
class Merge:
    """One learned merge: tokens `left` and `right`, seen together `count` times, become `token`."""

    left: int
    right: int
    token: int
    count: int


@dataclass(frozen=True)
class Learned:
    """Merges in order, and the bytes of every new token by its id. `tokens` is what the text is made of after all of them."""

    merges: tuple[Merge, ...]
    added: dict[int, bytes]
    tokens: int


@dataclass(frozen=True)
class Edges:
    """Where pairs came to be: `keys` int64, sorted; the i-th pair at `at[starts[i]:starts[i + 1]]` (its left symbol), int32."""

    keys: np.ndarray
    starts: np.ndarray
    at: np.ndarray

    def of(self, key: int) -> np.ndarray:
        i = int(np.searchsorted(self.keys, key))
        if i == len(self.keys) or self.keys[i] != key:
            return self.at[:0]
        return self.at[self.starts[i] : self.starts[i + 1]]


def key_of(left: int, right: int) -> int:
    return left << 32 | right


def learn(words: Words, contents: Mapping[int, bytes], merges: Iterable[tuple[int, int, int]], size: int, *, first: int,
          min_count: int = 2, allowed: Callable[[bytes], bool] = lambda _: True,
          progress: Quiet = lambda *_: None) -> Learned:  # fmt: skip
    """Up to `size` new tokens, numbered from `first` on, fewer where no pair is seen `min_count` times any more.

    `contents`: bytes by id of the model's own tokens; `merges`: those that it has, (left, right, token) in order. A pair whose
    bytes are a token already becomes that token: a merge more, no token more. `allowed`: whether these bytes may be a new token.
    """
    return _Learner(words, contents, merges, first, min_count, allowed).run(size, progress)


class _Learner:
    def __init__(self, words: Words, contents: Mapping[int, bytes], merges: Iterable[tuple[int, int, int]], first: int,
                 min_count: int, allowed: Callable[[bytes], bool]):  # fmt: skip
        n = len(words.symbols)
        self.symbol = words.symbols.copy()
        self.owner = np.repeat(np.arange(len(words.counts), dtype=np.int32), np.diff(words.offsets))
        self.weight = words.counts
        self.after = np.arange(1, n + 1, dtype=np.int32)
        self.before = np.arange(-1, n - 1, dtype=np.int32)
        begins, ends = words.offsets[:-1], words.offsets[1:]
        full = ends > begins
        self.before[begins[full]] = END
        self.after[ends[full] - 1] = END
        self.mark = np.zeros(n, bool)
        self.tokens = words.tokens
        self.contents = dict(contents)
        self.by_bytes = {b: i for i, b in self.contents.items()}
        self.known = {key_of(a, b): (rank, c) for rank, (a, b, c) in enumerate(merges)}
        self.next, self.min_count, self.allowed = first, max(1, min_count), allowed
        self.counts: dict[int, int] = {}
        self.made: dict[int, list[Edges]] = {}
        self.base = self._edges(np.arange(n, dtype=np.int32))
        self.heap: list[tuple[int, int, bytes, int]] = []
        self.floor = max(self.counts.values(), default=0) + 1  # pairs that are rarer are not in the heap yet

    def run(self, size: int, progress: Quiet) -> Learned:
        learned: list[Merge] = []
        added: dict[int, bytes] = {}
        while len(added) < size and (pair := self._best()) is not None:
            count, key = pair
            left, right = key >> 32, key & 0xFFFFFFFF
            content = self.contents[left] + self.contents[right]
            token = self.by_bytes.get(content)
            if fresh := token is None:
                token, self.next = self.next, self.next + 1
                added[token] = self.contents[token] = content
                self.by_bytes[content] = token
            self.known[key] = (len(self.known), token)
            learned.append(Merge(left, right, token, count))
            self._merge(key, token)
            if not fresh:
                self._follow(token)
            progress(len(added), size)
        return Learned(tuple(learned), added, self.tokens)

    # --------------------------------------------------------------------------------------------------- the next pair

    def _best(self) -> tuple[int, int] | None:
        """The most frequent pair that may be merged, with its count."""
        while True:
            while self.heap:
                negative, _, _, key = heapq.heappop(self.heap)
                count = self.counts.get(key, 0)
                if count == -negative:
                    return count, key
                if self.floor <= count < -negative:  # it has become rarer since; a higher count has an entry of its own
                    self._push(key, count)
            if self.floor <= self.min_count:
                return None
            top, self.floor = self.floor, max(self.min_count, self.floor // 4)
            for key, count in self.counts.items():
                if self.floor <= count < top:
                    self._push(key, count)

    def _push(self, key: int, count: int) -> None:
        content = self.contents[key >> 32] + self.contents[key & 0xFFFFFFFF]
        if key not in self.known and (content in self.by_bytes or self.allowed(content)):
            heapq.heappush(self.heap, (-count, len(content), content, key))

    # ------------------------------------------------------------------------------------------------------- merging

    def _edges(self, at: np.ndarray) -> Edges:
        """The pairs that begin at these symbols, counted from now on."""
        made, sums = self._summed(at)
        counts = self.counts
        for key, count in zip(made.keys.tolist(), sums.tolist()):
            counts[key] = counts.get(key, 0) + count
        return made

    def _forget(self, at: np.ndarray) -> None:
        """Take the pairs that begin at these symbols out of the counts."""
        gone, sums = self._summed(at)
        counts = self.counts
        for key, count in zip(gone.keys.tolist(), sums.tolist()):
            if (left := counts[key] - count) > 0:
                counts[key] = left
            else:
                del counts[key]

    def _summed(self, at: np.ndarray) -> tuple[Edges, np.ndarray]:
        """The pairs that begin at these symbols, and how often each is seen there, int64."""
        keys, at = self._pairs(at)
        order = np.argsort(keys, kind="stable")
        keys, at = keys[order], at[order]
        if not len(keys):
            return Edges(keys, np.zeros(1, np.int64), at), keys
        starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
        return Edges(keys[starts], np.r_[starts, len(at)], at), np.add.reduceat(self.weight[self.owner[at]], starts)

    def _pairs(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Keys int64 of the pairs that begin at these symbols, and the symbols that begin one."""
        at = at[self.after[at] != END]
        left, right = self.symbol[at], self.symbol[self.after[at]]
        real = (left != WALL) & (right != WALL)
        return left[real].astype(np.int64) << 32 | right[real], at[real]

    def _places(self, key: int) -> np.ndarray:
        """Where the pair stands now, int32, ascending; of overlapping ones (aaa) every other, from the left."""
        left, right = key >> 32, key & 0xFFFFFFFF
        several = [self.base, *self.made.get(left, ()), *(self.made.get(right, ()) if right != left else ())]
        at = np.concatenate([edges.of(key) for edges in several])
        at = at[self.symbol[at] == left]
        at = at[self.after[at] != END]
        at = np.sort(at[self.symbol[self.after[at]] == right])
        if left == right and len(at) > 1:
            begins = np.r_[True, at[1:] != self.after[at[:-1]]]
            run = np.maximum.accumulate(np.where(begins, np.arange(len(at)), 0))
            at = at[(np.arange(len(at)) - run) % 2 == 0]
        return at

    def _merge(self, key: int, token: int) -> Edges:
        """Replace the pair by the token wherever it stands; counts follow. Returns the pairs that came to be."""
        at = self._places(key)
        gone = self.after[at]
        self.mark[gone] = True
        lead = self.before[at]
        lead = lead[lead != END]
        self._forget(np.concatenate([at, gone, lead[~self.mark[lead]]]))
        self.counts.pop(key, None)
        self.mark[gone] = False
        beyond = self.after[gone]
        self.symbol[at], self.symbol[gone], self.after[at] = token, WALL, beyond
        inner = beyond != END
        self.before[beyond[inner]] = at[inner]
        self.tokens -= int(self.weight[self.owner[at]].sum())
        lead = self.before[at]
        lead = lead[lead != END]
        self.mark[at] = True
        made = self._edges(np.concatenate([at, lead[~self.mark[lead]]]))
        self.mark[at] = False
        self.made.setdefault(token, []).append(made)
        for pair in made.keys.tolist():
            if (count := self.counts[pair]) >= self.floor:
                self._push(pair, count)
        return made

    def _follow(self, token: int) -> None:
        """Apply the merges that begin with or end in a token which was there before: they come first when text is cut."""
        waiting = [(self.known[k][0], k) for k in self.made[token][-1].keys.tolist() if k in self.known]
        heapq.heapify(waiting)
        while waiting:
            _, key = heapq.heappop(waiting)
            if self.counts.get(key, 0):
                for k in self._merge(key, self.known[key][1]).keys.tolist():
                    if k in self.known:
                        heapq.heappush(waiting, (self.known[k][0], k))
