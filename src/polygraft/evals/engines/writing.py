"""An answer while it is being written: which token comes next, and when it is over."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import Any

from polygraft.evals.engines import batches
from polygraft.evals.engines.base import Decoding, Written

BROKEN = -1  # instead of a token, after logits that are not numbers
SLACK = 8  # tokens looked at beside a stop string's own: a decoder may treat the first ones of a text differently


class Answer:
    """One answer: its new tokens so far. `ends` are the ids that end a text; the seed of its draws depends on its prompt alone."""

    def __init__(self, tokenizer: Any, ends: Iterable[int], prompt: Sequence[int], decoding: Decoding, limit: int):
        self.tokenizer, self.ends, self.decoding, self.limit = tokenizer, frozenset(ends), decoding, limit
        self.tokens: list[int] = []
        self.stops = [s for s in decoding.stops if s]
        self.tail = max((len(s.encode()) for s in self.stops), default=0) + SLACK
        self.over = self.finished = self.broken = False
        self.draws = None if decoding.temperature == 0 else _generator(decoding.seed, prompt)

    def add(self, token: int) -> bool:
        """Write one more token; returns whether the answer is over. Only its tail is decoded to look for a stop string."""
        if token == BROKEN:
            self.over = self.broken = True
            return True
        self.tokens.append(token)
        tail = self.tokens[-self.tail:]
        self.finished = token in self.ends or (bool(self.stops) and any(s in self._text(tail) for s in self.stops))
        self.over = self.finished or len(self.tokens) >= self.limit
        return self.over

    def _text(self, tokens: list[int]) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=True)

    def written(self) -> Written:
        kept = self.tokens[:-1] if self.tokens and self.tokens[-1] in self.ends else self.tokens
        whole = self._text(kept)
        text = batches.cut(whole, self.stops)
        while len(text) < len(whole) and kept and len(self._text(kept[:-1])) >= len(text):
            kept = kept[:-1]  # what only holds the stop is no part of the answer
        return Written(text, len(kept), self.finished, tuple(kept))


def choose(logits: Any, answers: Sequence[Answer]) -> list[int]:
    """The next token of each answer, from its row of logits [r, v]: the likeliest, or drawn from the nucleus; BROKEN for a NaN."""
    most, likeliest = (x.tolist() for x in logits.max(1))
    return [BROKEN if not math.isfinite(top) else best if a.draws is None else _draw(row, a.decoding, a.draws)
            for top, best, row, a in zip(most, likeliest, logits, answers)]


def _draw(logits: Any, decoding: Decoding, generator: Any) -> int:
    """A token from the smallest set of likeliest ones that holds `top_p` of the probability."""
    import torch

    share, order = (logits.double().cpu() / decoding.temperature).softmax(0).sort(descending=True)
    share[share.cumsum(0) - share >= decoding.top_p] = 0
    return int(order[torch.multinomial(share, 1, generator=generator)])


def _generator(seed: int, prompt: Sequence[int]) -> Any:
    import torch

    digest = hashlib.sha256(repr((seed, list(prompt))).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
