"""An engine without a model: answers are functions of the prompt, and what it was asked is counted."""

from __future__ import annotations

import hashlib
from collections import Counter

from polygraft.evals.bpb import Scored
from polygraft.evals.engines.base import Written


def number(*words: object) -> float:
    """A number in [0, 1) that depends on the words alone."""
    return int(hashlib.sha256(repr(words).encode()).hexdigest()[:8], 16) / 16**8


class FakeEngine:
    """`asked` counts the requests by kind, `cut` raises after so many batches of `batch` requests."""

    max_length, name = 64, "fake"

    def __init__(self, batch: int = 3, cut: int | None = None, salt: str = ""):
        self.asked: Counter[str] = Counter()
        self.batch, self.left, self.salt = batch, cut, salt

    def _batches(self, kind, n, answer, done):
        for start in range(0, n, self.batch):
            some = range(start, min(n, start + self.batch))
            if self.left == 0:
                raise Cut
            self.left = None if self.left is None else self.left - 1
            self.asked[kind] += len(some)
            done([(i, answer(i)) for i in some])

    def pairs(self, pairs, done):
        self._batches("pairs", len(pairs), lambda i: (-10 * number(self.salt, *pairs[i]) - 0.1, number(*pairs[i]) < 0.5), done)

    def generate(self, prompts, decoding, done):
        self._batches("generate", len(prompts), lambda i: Written(f"{self.salt}{number(prompts[i], decoding)}", 4, True), done)

    def documents(self, texts, window, stride):
        self.asked["documents"] += len(texts)
        return [Scored(number(self.salt, t, window, stride), len(t.encode()), len(t)) for t in texts]

    def chat(self, messages, prefix=""):
        return "".join(f"<{m['role']}>{m['content']}" for m in messages) + prefix

    def count(self, text):
        return len(text)


class Cut(BaseException):
    """Stands for a kill: nothing catches it."""
