"""One lm-eval language model of ours: batches by length, shares the prompt between answers, applies the head only where it is read.

`PolygraftLM` wraps a model and tokenizer that are already in memory (what `polygraft.model.load` returns), on any device. It is
registered with lm-eval as `polygraft`. A response log makes an evaluation resumable: a killed run loses at most one batch.
lm-eval's own response cache is not used, because it does not know which model answered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, lru_cache
from typing import Any, Protocol

from polygraft.errors import InputError
from polygraft.evals import batches


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


class Scorer:
    """The torch side: token ids in, log-likelihoods and texts out. Knows nothing of lm-eval.

    model: a transformers causal LM in eval mode; tokenizer: its tokenizer; batch_tokens: padded tokens in one forward pass.
    """

    def __init__(self, model: Any, tokenizer: Any, *, batch_tokens: int = 1024, max_length: int | None = None):
        self.model, self.tokenizer, self.batch_tokens = model.eval(), tokenizer, batch_tokens
        self.device = next(model.parameters()).device
        self.max_length = max_length or _context_length(model, tokenizer)

    @cached_property
    def eos(self) -> int | None:
        return self.tokenizer.eos_token_id

    @cached_property
    def start(self) -> int | None:
        """What an empty context becomes: BOS, or EOS for the models that have no BOS."""
        bos = self.tokenizer.bos_token_id
        return self.eos if bos is None else bos

    def ids(self, text: str, *, special: bool = False) -> list[int]:
        return self.tokenizer(text, add_special_tokens=special)["input_ids"]

    @cached_property
    def leading(self) -> list[int]:
        """The tokens that the tokenizer itself puts before a text (BOS for most families, nothing for some)."""
        plain, full = self.ids("a"), self.ids("a", special=True)
        for i in range(len(full) - len(plain) + 1):
            if full[i:i + len(plain)] == plain:
                return full[:i]
        return []

    def encode_prompt(self, text: str) -> list[int]:
        """A prompt's ids with the tokenizer's own leading tokens, unless the text (a chat template) already has them."""
        ids = self.ids(text)
        ids = ids if self.leading and ids[:len(self.leading)] == self.leading else self.leading + ids
        if ids:
            return ids
        if self.start is None:
            raise InputError("an empty prompt, and the tokenizer has neither BOS nor EOS to stand for it",
                             where=self.tokenizer.name_or_path, fix="give the task a prompt, or the tokenizer an EOS token")
        return [self.start]

    def encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Ids of a context and its continuation, tokenised together as the model would meet them.

        Trailing spaces of the context belong to the continuation, since most vocabularies join a space to the word after it.
        """
        stripped = context.rstrip(" ")
        continuation = context[len(stripped):] + continuation
        prefix, whole = self.encode_prompt(stripped), self.encode_prompt(stripped + continuation)
        if whole[:len(prefix)] != prefix or len(whole) == len(prefix):
            # the two merge into one token at the seam (or the context is empty): keep the context whole
            whole = prefix + self.ids(continuation)
        return prefix, whole[len(prefix):]

    # ------------------------------------------------------------------------------------------------------ likelihood

    def pairs(self, pairs: Sequence[tuple[str, str]], done: Callable[[list[tuple[int, tuple[float, bool]]]], None]) -> None:
        """Score continuations given contexts; `done` receives (index, (log-likelihood in nats, greedy?)) batch by batch.

        Continuations of one context share its forward pass (key-value cache). An empty continuation scores (0, True).
        """
        groups: dict[tuple[int, ...], list[tuple[int, list[int]]]] = {}
        for i, (context, continuation) in enumerate(pairs):
            prefix, answer = self.encode_pair(context, continuation)
            if not answer:
                done([(i, (0.0, True))])
                continue
            answer = answer[-(self.max_length - 1):]
            prefix = prefix[-(self.max_length - len(answer)):]
            groups.setdefault(tuple(prefix), []).append((i, answer))
        # a context of one token has nothing to cache: mixed with others it would be a row that attends to nothing
        for alone in (True, False):
            plan = [(list(prefix), rows) for prefix, rows in groups.items() if (len(prefix) == 1) == alone]
            for batch in batches.by_length([len(p) + max(len(a) for _, a in rows) for p, rows in plan], self.batch_tokens):
                done(self._score([plan[i] for i in batch]))

    def _score(self, batch: list[tuple[list[int], list[tuple[int, list[int]]]]]) -> list[tuple[int, tuple[float, bool]]]:
        """One batch of contexts with their answers. Each row of the second pass is the context's last token and an answer."""
        import torch

        prompts = [prefix[:-1] for prefix, _ in batch]
        rows = [(g, prefix[-1], i, answer) for g, (prefix, answers) in enumerate(batch) for i, answer in answers]
        width, tail = max(map(len, prompts)), max(len(a) for *_, a in rows)
        with torch.inference_mode():
            owner = torch.tensor([g for g, *_ in rows], device=self.device)
            past, mask = self._prefill(prompts, width)
            if past is not None:
                past.batch_select_indices(owner)  # one copy of the cached prompt for each of its answers
                mask = mask[owner]
            inputs, seen = batches.pad([[last, *answer[:-1]] for _, last, _, answer in rows], tail, left=False, device=self.device)
            whole = seen if mask is None else torch.cat([mask, seen], 1)
            position = (whole.cumsum(1) - 1).clamp(min=0)[:, -tail:]
            logits = self.model(input_ids=inputs, attention_mask=whole, past_key_values=past, position_ids=position,
                                use_cache=past is not None).logits
            gold, _ = batches.pad([answer for *_, answer in rows], tail, left=False, device=self.device)
            nats, greedy = batches.gathered(logits, gold)
        out = []
        for r, (_, _, i, answer) in enumerate(rows):
            k = len(answer)
            out.append((i, (float(nats[r, :k].sum()), bool(greedy[r, :k].all()))))
        return out

    def _prefill(self, prompts: list[list[int]], width: int) -> tuple[Any, Any]:
        """Key-value cache and mask of left-padded prompts; (None, None) when every prompt is a single token."""
        if width == 0:
            return None, None
        inputs, mask = batches.pad(prompts, width, left=True, device=self.device)
        position = (mask.cumsum(1) - 1).clamp(min=0)
        # one position through the head is the least that the interface allows; none of these logits is read
        return self.model(input_ids=inputs, attention_mask=mask, position_ids=position, use_cache=True,
                          logits_to_keep=1).past_key_values, mask

    # --------------------------------------------------------------------------------------------------------- rolling

    def windows(self, ids: Sequence[Sequence[int]], scored: Sequence[int]) -> list[tuple[float, int]]:
        """Log-likelihood (nats, float64 sum) of the last `scored[i]` tokens of each id sequence, and how many they are."""
        import torch

        out: list[tuple[float, int]] = [(0.0, 0)] * len(ids)
        for batch in batches.by_length([len(x) for x in ids], self.batch_tokens):
            width, keep = max(len(ids[i]) for i in batch), max(scored[i] for i in batch)
            with torch.inference_mode():
                inputs, mask = batches.pad([ids[i] for i in batch], width, left=True, device=self.device)
                position = (mask.cumsum(1) - 1).clamp(min=0)
                logits = self.model(input_ids=inputs, attention_mask=mask, position_ids=position, use_cache=False,
                                    logits_to_keep=keep + 1).logits[:, :-1]
                nats, _ = batches.gathered(logits, inputs[:, -keep:])
            for r, i in enumerate(batch):
                out[i] = (float(nats[r, keep - scored[i]:].sum()), scored[i])
        return out

    # ------------------------------------------------------------------------------------------------------ generation

    def generate(self, prompts: Sequence[str], stops: Sequence[str], limit: int,
                 done: Callable[[list[tuple[int, str]]], None]) -> None:
        """Greedy continuations, cut before the first stop string; `done` receives (index, text) batch by batch.

        A prompt that does not fit beside `limit` new tokens loses its beginning; at least half of the context is the prompt's.
        """
        limit = min(limit, max(1, self.max_length // 2))
        ids = [self.encode_prompt(p)[-(self.max_length - limit):] for p in prompts]
        for batch in batches.by_length([len(x) + limit for x in ids], max(self.batch_tokens, 4 * limit)):
            texts = self._generate([ids[i] for i in batch], stops, limit)
            done(list(zip(batch, texts)))

    def _generate(self, ids: list[list[int]], stops: Sequence[str], limit: int) -> list[str]:
        import torch

        width = max(map(len, ids))
        inputs, mask = batches.pad(ids, width, left=True, device=self.device)
        stopper = batches.StopAt(self.tokenizer, stops, width)
        with torch.inference_mode():
            out = self.model.generate(input_ids=inputs, attention_mask=mask, max_new_tokens=limit, num_beams=1, do_sample=False,
                                      temperature=None, top_p=None, top_k=None, pad_token_id=0 if self.eos is None else self.eos,
                                      stopping_criteria=[stopper])
        texts = self.tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
        return [batches.cut(t, stops) for t in texts]


def _context_length(model: Any, tokenizer: Any) -> int:
    for name in ("max_position_embeddings", "n_positions", "seq_length"):
        if (n := getattr(model.config, name, None)) is not None:
            return int(n)
    return int(min(tokenizer.model_max_length, 2048))


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
                    self.scorer.generate([todo[i].args[0] for i in indices], stops, limit, _renumbered(done, indices))
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
