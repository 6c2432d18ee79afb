"""Bits per byte: how well a model predicts a text, comparable between tokenizers because it divides by the text's own bytes.

    bits per byte = nats / (ln 2 * UTF-8 bytes)

Compare within a language only: scripts differ in bytes per character. Long documents are read in windows that overlap, so that
every token but a document's first ones is predicted from at least `window - stride` tokens of context.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from polygraft.errors import InputError

WINDOW, STRIDE = 1024, 512


@dataclass(frozen=True)
class Scored:
    """One document: the nats it cost, and the bytes and tokens those nats were spent on. seconds: what it took to score."""

    nats: float
    bytes: int
    tokens: int
    seconds: float = 0.0

    @property
    def log_likelihood(self) -> float:
        return -self.nats


def bits_per_byte(documents: Sequence[Scored]) -> float:
    """Corpus value: all nats over all bytes (not the mean of the documents' values). Raises ValueError when there are no bytes."""
    total = sum(d.bytes for d in documents)
    if total == 0:
        raise ValueError("no bytes were scored")
    return sum(d.nats for d in documents) / (math.log(2) * total)


def windows(n: int, context: int, window: int = WINDOW, stride: int = STRIDE) -> list[tuple[int, int, int]]:
    """(start, stop, scored): token ranges that predict tokens context..n-1 once each; `scored` are the last of each range.

    The first range takes all that fits, each later one `stride` new tokens, with the rest of its window as context.
    """
    if n <= context:
        return []
    stop = min(n, window)
    out = [(0, stop, stop - context)]
    while stop < n:
        new = min(stride, n - stop)
        stop += new
        out.append((max(0, stop - window), stop, new))
    return out


def encode(scorer: Any, text: str) -> tuple[list[int], int, int]:
    """(ids, context, bytes): the first `context` ids are given, the others are scored and stand for `bytes` bytes of the text.

    With a BOS token the context is BOS and every byte counts. Without one the first token has nothing to be predicted from: it
    is given, and its bytes are not counted (nor those of its neighbours while they share a character with it).
    """
    tokenizer = scorer.tokenizer
    if (bos := tokenizer.bos_token_id) is not None:
        ids = scorer.ids(text)
        return [bos, *(ids[1:] if ids[:1] == [bos] else ids)], 1, len(text.encode("utf-8"))
    if not tokenizer.is_fast:
        raise InputError("the tokenizer has no BOS token and cannot say which characters a token covers",
                         where=tokenizer.name_or_path, expected="a fast tokenizer (tokenizer.json)",
                         fix="save the tokenizer again with transformers to get tokenizer.json")
    coded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, spans = coded["input_ids"], coded["offset_mapping"]
    m = next((i for i in range(1, len(ids)) if spans[i][0] >= spans[i - 1][1]), len(ids))
    skipped = spans[m - 1][1] if ids else 0
    return ids, m, len(text[skipped:].encode("utf-8"))


def score_documents(scorer: Any, documents: Iterable[str], *, window: int = WINDOW, stride: int = STRIDE) -> list[Scored]:
    """Score each document by itself, all windows of all documents batched by length. Empty documents score nothing (0 bytes)."""
    window = min(window, scorer.max_length + 1)  # the last token is predicted, not read
    stride = min(stride, window - 1)
    coded = [encode(scorer, text) for text in documents]
    jobs = [(d, r) for d, (ids, context, _) in enumerate(coded) for r in windows(len(ids), context, window, stride)]
    results = scorer.windows([coded[d][0][a:b] for d, (a, b, _) in jobs], [k for _, (_, _, k) in jobs])
    nats, tokens = [0.0] * len(coded), [0] * len(coded)
    for (d, _), (log_likelihood, k) in zip(jobs, results):
        nats[d] -= log_likelihood
        tokens[d] += k
    return [Scored(n, c[2] if t else 0, t) for n, t, c in zip(nats, tokens, coded)]
