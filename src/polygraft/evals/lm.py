"""One lm-eval language model of ours, registered as `polygraft`, around a model that is already in memory.

A response log makes an evaluation resumable: a killed run loses at most one batch. lm-eval's own response cache is not used,
because it does not know which model answered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Protocol

from polygraft.evals.engines.base import Decoding
from polygraft.evals.engines.hf import Scorer


class ResponseLog(Protocol):
    """Where responses are kept while an evaluation runs: `get` by key, `put` whole batches."""

    def get(self, key: str) -> Any | None: ...

    def put(self, items: Sequence[tuple[str, Any]]) -> None: ...


class MemoryLog(dict):
    """A response log that lives as long as the process."""

    def put(self, items: Sequence[tuple[str, Any]]) -> None:
        self.update(items)


def request_key(kind: str, args: Sequence[Any]) -> str:
    """The name of one request in a response log: its kind and every argument, hashed."""
    return hashlib.sha256(repr((kind, *args)).encode("utf-8", "surrogatepass")).hexdigest()[:24]


@lru_cache(maxsize=1)
def lm_class() -> type:
    """`PolygraftLM`, the lm-eval model class; made on first use because importing lm-eval takes seconds."""
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model

    @register_model("polygraft")
    class PolygraftLM(LM):
        """lm-eval's view of a `Scorer`; answers found in the response log are not computed again."""

        def __init__(self, scorer: Scorer, log: ResponseLog | None = None, progress: Callable[[int], None] | None = None):
            super().__init__()
            self.scorer, self.log, self.progress = scorer, MemoryLog() if log is None else log, progress

        @property
        def tokenizer_name(self) -> str:
            return str(self.scorer.tokenizer.name_or_path)

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            tokenizer = self.scorer.tokenizer
            return tokenizer.apply_chat_template(chat_history, tokenize=False, add_generation_prompt=add_generation_prompt)

        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            found = self._answered("loglikelihood", requests, lambda todo, done: self.scorer.pairs([r.args for r in todo], done))
            return [(float(nats), bool(greedy)) for nats, greedy in found]

        def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
            from polygraft.evals import bpb

            def run(todo: list[Any], done: Callable) -> None:
                for i, text in enumerate(r.args[0] for r in todo):
                    done([(i, bpb.score_documents(self.scorer, [text], window=self.scorer.max_length)[0].log_likelihood)])
            return self._answered("rolling", requests, run)

        def generate_until(self, requests: list[Any]) -> list[str]:
            def run(todo: list[Any], done: Callable) -> None:
                for options, indices in _same_options(todo):
                    stops, limit = options.get("until") or [], int(options.get("max_gen_toks", 256))
                    stops = [stops] if isinstance(stops, str) else stops
                    whole = _renumbered(done, indices)
                    self.scorer.generate([todo[i].args[0] for i in indices], Decoding(limit, tuple(stops)),
                                         lambda pairs, whole=whole: whole([(i, w.text) for i, w in pairs]))
            return self._answered("generate", requests, run)

        def _answered(self, kind: str, requests: list[Any], run: Callable) -> list[Any]:
            """Answers in the order of the requests: from the log where it has them, else computed and logged batch by batch."""
            keys = [request_key(kind, r.args) for r in requests]
            unique = {k: r for k, r in zip(keys, requests) if self.log.get(k) is None}
            names, todo = list(unique), list(unique.values())

            def done(pairs: Iterable[tuple[int, Any]]) -> None:
                batch = [(names[i], answer) for i, answer in pairs]
                self.log.put(batch)
                if self.progress is not None:
                    self.progress(len(batch))
            if todo:
                run(todo, done)
            return [self.log.get(k) for k in keys]

    return PolygraftLM


def _renumbered(done: Callable, indices: list[int]) -> Callable:
    """`done` for a part of the requests: numbers within the part become numbers within the whole."""
    return lambda pairs: done([(indices[i], answer) for i, answer in pairs])


def _same_options(requests: list[Any]) -> list[tuple[dict, list[int]]]:
    """Generation requests grouped by their options: only equal ones can share a batch."""
    groups: dict[str, tuple[dict, list[int]]] = {}
    for i, r in enumerate(requests):
        groups.setdefault(repr(sorted(r.args[1].items())), (r.args[1], []))[1].append(i)
    return list(groups.values())
