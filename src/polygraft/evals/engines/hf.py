"""Token ids in, log-likelihoods and texts out: batches by length, shares what answers have in common, applies the head only where
its logits are read. Knows nothing of tasks or lm-eval.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from polygraft.errors import InputError
from polygraft.evals import bpb
from polygraft.evals.engines import batches
from polygraft.evals.engines.base import Decoding, Written

SHORT = 3  # tokens after which an answer no longer counts as almost the same as its neighbour


class Scorer:
    """A model in memory that can be asked.

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

        Continuations of one context share its forward pass, and that of the tokens that they begin with in common.
        An empty continuation scores (0, True).
        """
        groups: dict[tuple[int, ...], list[tuple[int, list[int]]]] = {}
        for i, (context, continuation) in enumerate(pairs):
            if not continuation:
                done([(i, (0.0, True))])
                continue
            prefix, answer = self.encode_pair(context, continuation)
            answer = answer[-(self.max_length - 1):]
            prefix = prefix[-(self.max_length - len(answer)):]
            # an attention window counts places, also those that are masked for another answer: no sharing near its end
            alone = (i,) if len(prefix) + 2 * len(answer) >= self.attention_window else ()
            groups.setdefault((*prefix, -1, *alone), []).append((i, answer))
        plan = [(list(key[:key.index(-1)]), rows) for key, rows in groups.items()]
        # a context of one token has nothing to cache: mixed with others it would be a row that attends to nothing
        for single in (True, False):
            part = [p for p in plan if (len(p[0]) == 1) == single]
            for batch in batches.by_length([len(prefix) + len(rows[0][1]) for prefix, rows in part], self.batch_tokens):
                done(self._score([part[i] for i in batch]))

    @cached_property
    def attention_window(self) -> int:
        """Tokens that the shortest-sighted layer attends to."""
        return getattr(self.model.config, "sliding_window", None) or self.max_length * 4

    def _score(self, batch: list[tuple[list[int], list[tuple[int, list[int]]]]]) -> list[tuple[int, tuple[float, bool]]]:
        """One batch of contexts with their answers: prompts, then each context's first answer, then what the others add to it."""
        import torch

        if all(len(rows) == 1 for _, rows in batch):
            return self._lone(batch)
        with torch.inference_mode():
            leads = [rows[0][1] for _, rows in batch]
            past, mask = self._prefill([prefix[:-1] for prefix, _ in batch])
            inputs = [[prefix[-1], *lead[:-1]] for (prefix, _), lead in zip(batch, leads)]
            logits, past, mask = self._extend(inputs, past, mask)
            ids, _ = batches.pad(leads, logits.shape[1], left=False, device=self.device)
            nats, greedy = batches.gathered(logits, ids)
            out = [(rows[0][0], _total(nats[g], greedy[g], len(leads[g]))) for g, (_, rows) in enumerate(batch)]
            others = [Branch(g, i, answer, _shared(leads[g], answer))
                      for g, (_, rows) in enumerate(batch) for i, answer in rows[1:]]
            if others:
                out += self._branches(others, logits, past, mask, nats, greedy)
        self._check([value for _, (value, _) in out])
        return out

    def _lone(self, batch: list[tuple[list[int], list[tuple[int, list[int]]]]]) -> list[tuple[int, tuple[float, bool]]]:
        """One batch of contexts with one answer each: nothing is shared, so one pass without a cache is the cheapest."""
        rows = [prefix + rows[0][1] for prefix, rows in batch]
        lengths = [len(rows[0][1]) for _, rows in batch]
        nats, greedy = self._tails(rows, max(lengths))
        out = [(entry[0][0], _total(nats[r, -n:], greedy[r, -n:], n)) for r, ((_, entry), n) in enumerate(zip(batch, lengths))]
        self._check([value for _, (value, _) in out])
        return out

    def _tails(self, rows: Sequence[Sequence[int]], keep: int) -> tuple[Any, Any]:
        """(nats, greedy?), each [r, keep], of the last `keep` tokens of each row; the head sees no other position."""
        import torch

        with torch.inference_mode():
            inputs, mask = batches.pad(rows, max(map(len, rows)), left=True, device=self.device)
            position = (mask.cumsum(1) - 1).clamp(min=0)
            logits = self.model(input_ids=inputs, attention_mask=mask, position_ids=position, use_cache=False,
                                logits_to_keep=keep + 1).logits[:, :-1]
            return batches.gathered(logits, inputs[:, -keep:])

    def _check(self, nats: Sequence[float]) -> None:
        """Raises InputError when a likelihood is not a number: nothing that is computed from it would mean anything."""
        if bad := [x for x in nats if not math.isfinite(x)]:
            raise InputError("the model's likelihoods are not numbers", where=self.tokenizer.name_or_path, found=f"{bad[0]} nats",
                             fix="look for NaN or Inf in its tensors, or compute in float32 (`dtype: float32`)")

    def _branches(self, others: list[Branch], logits: Any, past: Any, mask: Any, nats: Any,
                  greedy: Any) -> list[tuple[int, tuple[float, bool]]]:
        """Score answers that leave their context's first answer at `shared`: its logits tell the token that differs, and its cache
        (with what comes after masked) is the past of the tokens after that one."""
        import torch

        owner, at = torch.tensor([b.group for b in others]), torch.tensor([b.shared for b in others])
        differing = torch.tensor([[b.answer[b.shared]] for b in others], device=self.device)
        first, first_greedy = batches.gathered(logits[owner, at][:, None], differing)
        values = [float(nats[b.group, :b.shared].sum() + x) for b, x in zip(others, first[:, 0])]
        likeliest = [bool(greedy[b.group, :b.shared].all() and x) for b, x in zip(others, first_greedy[:, 0])]
        lengths = [len(b.answer) - b.shared - 1 for b in others]
        # few and many tokens apart: padded together, the short rows would cost as much as the long ones
        for longer in ([k for k, n in enumerate(lengths) if 0 < n <= SHORT], [k for k, n in enumerate(lengths) if n > SHORT]):
            if longer:
                found = self._after(longer, others, owner, at, logits.shape[1], past, mask)
                for k, (value, all_greedy) in zip(longer, found):
                    values[k], likeliest[k] = values[k] + value, likeliest[k] and all_greedy
        return [(b.index, (v, g)) for b, v, g in zip(others, values, likeliest)]

    def _after(self, some: list[int], others: list[Branch], owner: Any, at: Any, width: int, past: Any,
               mask: Any) -> list[tuple[float, bool]]:
        """Score what follows the differing token of some branches; `width` places at the end of the mask are the first answers'."""
        import torch

        rows = owner[some].to(self.device)
        own = copy.deepcopy(past)
        own.batch_select_indices(rows)
        start = mask.shape[1] - width  # the place of the context's last token, after which the answers stand
        places = torch.arange(mask.shape[1], device=self.device)
        seen = mask[rows] * (places <= start + at[some].to(self.device)[:, None])
        logits, *_ = self._extend([others[k].answer[others[k].shared:-1] for k in some], own, seen)
        tails = [others[k].answer[others[k].shared + 1:] for k in some]
        ids, _ = batches.pad(tails, logits.shape[1], left=False, device=self.device)
        nats, greedy = batches.gathered(logits, ids)
        return [_total(nats[r], greedy[r], len(t)) for r, t in enumerate(tails)]

    def _extend(self, rows: list[list[int]], past: Any, mask: Any) -> tuple[Any, Any, Any]:
        """Feed right-padded rows after a cache: (logits [r, t, v], cache, mask). Positions follow from the mask."""
        import torch

        inputs, new = batches.pad(rows, max(map(len, rows)), left=False, device=self.device)
        whole = new if mask is None else torch.cat([mask, new], 1)
        position = (whole.cumsum(1) - 1).clamp(min=0)[:, -inputs.shape[1]:]
        out = self.model(input_ids=inputs, attention_mask=whole, past_key_values=past, position_ids=position, use_cache=True)
        return out.logits, out.past_key_values, whole

    def _prefill(self, prompts: list[list[int]]) -> tuple[Any, Any]:
        """Key-value cache and mask of left-padded prompts; (None, None) when every prompt is empty."""
        if not (width := max(map(len, prompts))):
            return None, None
        inputs, mask = batches.pad(prompts, width, left=True, device=self.device)
        position = (mask.cumsum(1) - 1).clamp(min=0)
        # one position through the head is the least that the interface allows; none of these logits is read
        return self.model(input_ids=inputs, attention_mask=mask, position_ids=position, use_cache=True,
                          logits_to_keep=1).past_key_values, mask

    # --------------------------------------------------------------------------------------------------------- rolling

    def windows(self, ids: Sequence[Sequence[int]], scored: Sequence[int]) -> list[tuple[float, int]]:
        """Log-likelihood (nats, float64 sum) of the last `scored[i]` tokens of each id sequence, and how many they are."""
        out: list[tuple[float, int]] = [(0.0, 0)] * len(ids)
        for batch in batches.by_length([len(x) for x in ids], self.batch_tokens):
            keep = max(scored[i] for i in batch)
            nats, _ = self._tails([ids[i] for i in batch], keep)
            for r, i in enumerate(batch):
                out[i] = (float(nats[r, keep - scored[i]:].sum()), scored[i])
            self._check([out[i][0] for i in batch])
        return out

    # ------------------------------------------------------------------------------------------------------ generation

    def generate(self, prompts: Sequence[str], decoding: Decoding, done: Callable[[list[tuple[int, Written]]], None]) -> None:
        """Continuations, cut before the first stop string; `done` receives (index, answer) batch by batch.

        A prompt that does not fit beside the new tokens loses its beginning; at least half of the context is the prompt's.
        """
        limit = min(decoding.max_tokens, max(1, self.max_length // 2))
        ids = [self.encode_prompt(p)[-(self.max_length - limit):] for p in prompts]
        for batch in batches.by_length([len(x) + limit for x in ids], max(self.batch_tokens, 4 * limit)):
            done(list(zip(batch, self._generate([ids[i] for i in batch], decoding, limit))))

    def _generate(self, ids: list[list[int]], decoding: Decoding, limit: int) -> list[Written]:
        import torch

        width, pad = max(map(len, ids)), 0 if self.eos is None else self.eos
        inputs, mask = batches.pad(ids, width, left=True, device=self.device)
        stopper = batches.StopAt(self.tokenizer, decoding.stops, width)
        with torch.inference_mode():
            out = self.model.generate(input_ids=inputs, attention_mask=mask, max_new_tokens=limit, num_beams=1, do_sample=False,
                                      temperature=None, top_p=None, top_k=None, pad_token_id=pad, stopping_criteria=[stopper])
        return [self._written(row, decoding.stops) for row in out[:, width:].tolist()]

    def _written(self, ids: list[int], stops: Sequence[str]) -> Written:
        """What a row of new tokens says: without what follows its end or its stop."""
        at = ids.index(self.eos) if self.eos in ids else None
        text = self.tokenizer.decode(ids[:at], skip_special_tokens=True)
        cut = batches.cut(text, stops)
        return Written(cut, len(ids) if at is None else at + 1, at is not None or cut != text)

    # ------------------------------------------------------------------------------------------------------------ text

    @property
    def name(self) -> str:
        return str(self.tokenizer.name_or_path)

    def documents(self, texts: Sequence[str], window: int = bpb.WINDOW, stride: int = bpb.STRIDE) -> list[bpb.Scored]:
        """Nats, bytes and tokens of whole texts."""
        return bpb.score_documents(self, texts, window=window, stride=stride)

    def chat(self, messages: Sequence[dict[str, str]], prefix: str = "") -> str:
        """A conversation as the model's chat template writes it, up to where the assistant speaks; `prefix` begins its turn.

        Raises InputError when there is no template, or it cannot write this conversation.
        """
        if not getattr(self.tokenizer, "chat_template", None):
            raise InputError("the model has no chat template", where=self.name, fix="ask it as a base model: `chat: false`")
        try:
            text = self.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template is a program of the model's author: whatever it raises, it is refused by name
            found = f"{type(error).__name__}: {error}"
            raise InputError("the model's chat template cannot render this", where=self.name, found=found,
                             fix="ask it as a base model: `chat: false`") from None
        return text + prefix

    def count(self, text: str) -> int:
        """Tokens of a text, special tokens not counted."""
        return len(self.ids(text))


@dataclass(frozen=True)
class Branch:
    """An answer that begins like its context's first one, for `shared` tokens. `index` is its place among the pairs."""

    group: int
    index: int
    answer: list[int]
    shared: int


def _shared(lead: list[int], answer: list[int]) -> int:
    """How many tokens an answer shares with the first one, but not so many that no token is left for the first one's logits."""
    n = next((k for k, (a, b) in enumerate(zip(lead, answer)) if a != b), min(len(lead), len(answer)))
    return min(n, len(lead) - 1, len(answer) - 1)


def _total(nats: Any, greedy: Any, n: int) -> tuple[float, bool]:
    return float(nats[:n].sum()), bool(greedy[:n].all())


def _context_length(model: Any, tokenizer: Any) -> int:
    for name in ("max_position_embeddings", "n_positions", "seq_length"):
        if (n := getattr(model.config, name, None)) is not None:
            return int(n)
    return int(min(tokenizer.model_max_length, 2048))
