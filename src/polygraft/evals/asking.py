"""Ask an engine only what the store does not hold, and keep what it answers batch by batch."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from polygraft.errors import InputError
from polygraft.evals.bpb import STRIDE, WINDOW, Scored
from polygraft.evals.engines.base import Decoding, Engine, Written
from polygraft.evals.items import Response
from polygraft.evals.responses import About, Store, response_key
from polygraft.files import canonical

CHUNK_BYTES = 16_384  # documents scored between two entries of the store
Row = dict[str, Any]


@dataclass(frozen=True)
class Pair:
    """What one continuation scored: nats (log-likelihood, negative), whether greedy decoding would write it, seconds."""

    nats: float
    greedy: bool
    seconds: float


class Asker:
    """One model with a memory.

    computed: what the numbers are computed with, as `{"backend": "hf", "dtype": "float32"}`; a part of every response's name.
    progress: told how many requests were answered, found or computed.
    """

    def __init__(self, engine: Engine, store: Store | None = None, *, computed: Mapping[str, Any] | None = None,
                 progress: Callable[[int], None] | None = None):
        self.engine, self.store = engine, store or Store(None, engine.name)
        self.computed, self.progress = dict(computed or {}), progress or (lambda n: None)

    def pairs(self, asked: Sequence[tuple[About, str, str]]) -> list[Pair]:
        """Score (about, context, continuation), in that order."""
        def run(todo: list[int], done: Callable) -> None:
            self.engine.pairs([asked[i][1:] for i in todo],
                              lambda found: done((i, {"nats": n, "greedy": g}) for i, (n, g) in found))
        rows = self._answers([(about, (context, answer)) for about, context, answer in asked],
                             [self._decoding("likelihood")] * len(asked), run)
        return [Pair(r["nats"], r["greedy"], r["seconds"]) for r in rows]

    def generate(self, asked: Sequence[tuple[About, str, Decoding]]) -> list[Response]:
        """Write answers to (about, prompt, decoding); prompts of equal decoding share batches."""
        def run(todo: list[int], done: Callable) -> None:
            for decoding in dict.fromkeys(asked[i][2] for i in todo):
                part = [k for k, i in enumerate(todo) if asked[i][2] == decoding]

                def some(found: list[tuple[int, Written]], part: list[int] = part) -> None:
                    done((part[j], {"text": w.text, "tokens": w.tokens, "finished": w.finished}) for j, w in found)
                self.engine.generate([asked[todo[k]][1] for k in part], decoding, some)
        rows = self._answers([(about, (prompt,)) for about, prompt, _ in asked],
                             [self._decoding("written", **asdict(d)) for *_, d in asked], run)
        return [Response(text=r["text"], tokens=r["tokens"], finished=r["finished"], seconds=r["seconds"]) for r in rows]

    def documents(self, asked: Sequence[tuple[About, str]], window: int = WINDOW, stride: int = STRIDE) -> list[Scored]:
        """Nats, bytes and tokens of (about, text)."""
        def run(todo: list[int], done: Callable) -> None:
            at = 0
            for chunk in chunks([asked[i][1] for i in todo]):
                found = self.engine.documents(chunk, window, stride)
                done((at + k, {"nats": s.nats, "bytes": s.bytes, "tokens": s.tokens}) for k, s in enumerate(found))
                at += len(chunk)
        rows = self._answers([(about, (text,)) for about, text in asked],
                             [self._decoding("document", window=window, stride=stride)] * len(asked), run)
        return [Scored(r["nats"], r["bytes"], r["tokens"], r["seconds"]) for r in rows]

    def _decoding(self, kind: str, **how: Any) -> str:
        return canonical({"kind": kind, **self.computed, **how}).decode()

    def _answers(self, asked: Sequence[tuple[About, tuple[str, ...]]], decodings: Sequence[str],
                 run: Callable[[list[int], Callable], None]) -> list[Row]:
        """Rows in the order asked: from the store, or from `run(indices, done)`, where `done` takes (place in indices, row)."""
        keys = [response_key(self.store.model, about, prompt, how) for (about, prompt), how in zip(asked, decodings, strict=True)]
        missing = [i for i, (key, (about, _)) in enumerate(zip(keys, asked)) if self.store.get(about, key) is None]
        copies = Counter(keys[i] for i in missing)
        todo = list({keys[i]: i for i in reversed(missing)}.values())[::-1]  # each once, in the order asked
        self.progress(len(asked) - len(missing))
        last = time.monotonic()

        def done(found: Iterable[tuple[int, Row]]) -> None:
            nonlocal last
            batch = [(todo[k], row) for k, row in found]
            for i, row in batch:
                if not math.isfinite(row.get("nats", 0.0)):
                    raise InputError("a likelihood that is not a number", where=f"{self.engine.name}: {asked[i][0].task}",
                                     found=row["nats"], expected="finite nats", fix="inspect the model with --check, or its server")
            now = time.monotonic()
            each = round((now - last) / max(1, len(batch)), 6)
            last = now
            by_file: dict[About, dict[str, Row]] = {}
            for i, row in batch:
                by_file.setdefault(asked[i][0], {})[keys[i]] = row | {"seconds": each}
            for about, rows in by_file.items():
                self.store.put(about, rows)
            self.progress(sum(copies[keys[i]] for i, _ in batch))
        if todo:
            run(todo, done)
        return [self._row(about, key) for (about, _), key in zip(asked, keys)]

    def _row(self, about: About, key: str) -> Row:
        row = self.store.get(about, key)
        assert row is not None, "the engine left a request without an answer"
        return row


def chunks(texts: Sequence[str]) -> list[list[str]]:
    """Texts in runs of about CHUNK_BYTES bytes."""
    out: list[list[str]] = []
    room = 0
    for text in texts:
        if room <= 0:
            out.append([])
            room = CHUNK_BYTES
        out[-1].append(text)
        room -= len(text.encode("utf-8", "replace"))
    return out
