"""A model in memory that can be asked: texts in, log-likelihoods and texts out. Knows nothing of tasks or lm-eval."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

from polygraft.errors import InputError
from polygraft.evals import bpb
from polygraft.evals.engines import batches, decode, exact, padded, tree
from polygraft.evals.engines.base import Decoding, Written
from polygraft.evals.engines.row import Walk
from polygraft.evals.engines.writing import Answer

LIVE = 16  # answers written at a time
Done = Callable[[list[tuple[int, tuple[float, bool]]]], None]


class Scorer:
    """The engine on a transformers causal LM (put into eval mode) and its tokenizer.

    batch_tokens: tokens in one forward pass. notes: what a reader of the scores should know of how they were computed.
    """

    def __init__(self, model: Any, tokenizer: Any, *, batch_tokens: int = 512, max_length: int | None = None):
        self.notes: list[str] = []
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

        What does not fit loses its beginning, as lm-eval cuts it. An empty continuation scores (0, True).
        """
        empty = [i for i, (_, continuation) in enumerate(pairs) if not continuation]
        if empty:
            done([(i, (0.0, True)) for i in empty])
        asked = [i for i, (_, continuation) in enumerate(pairs) if continuation]
        coded = [self.encode_pair(*pairs[i]) for i in asked]
        # the last token is predicted, not read: it may stand one past the context length
        rows = [(prefix + answer)[-self.max_length - 1:] for prefix, answer in coded]
        self.likelihoods(rows, [min(len(answer), len(row) - 1) for (_, answer), row in zip(coded, rows)],
                         lambda found: done([(asked[i], value) for i, value in found]))

    def windows(self, ids: Sequence[Sequence[int]], scored: Sequence[int]) -> list[tuple[float, int]]:
        """Log-likelihood (nats, float64 sum) of the last `scored[i]` tokens of each id sequence, and how many they are."""
        found: dict[int, tuple[float, bool]] = {}
        self.likelihoods(ids, scored, found.update)
        return [(found[i][0], scored[i]) for i in range(len(ids))]

    def likelihoods(self, rows: Sequence[Sequence[int]], scored: Sequence[int], done: Done) -> None:
        """(nats, all greedy?) of the last `scored[i]` tokens of each id sequence, in any order, as they are computed."""
        together = [i for i, row in enumerate(rows) if len(row) <= self.reach]
        alone = [i for i, row in enumerate(rows) if len(row) > self.reach]
        for some, score in ((together, self._walked), (alone, self._padded)):
            if some:
                score([rows[i] for i in some], [scored[i] for i in some], self._checked(some, done))

    @cached_property
    def reach(self) -> int:
        """Sequences of at most so many tokens are read together, as branches of a trie; 0 if the model cannot be read so."""
        exactly, why = exact.branches(self.model)
        if not exactly:
            self.notes.append(f"{self.name}: read one sequence at a time ({why})")
        return exact.reach(self.model) if exactly else 0

    def _checked(self, indices: Sequence[int], done: Done) -> Done:
        """`done` by the caller's numbers, and only for numbers: nothing that is computed from a NaN would mean anything."""
        def report(found: list[tuple[int, tuple[float, bool]]]) -> None:
            renumbered = [(indices[i], value) for i, value in found]
            if bad := [(i, nats) for i, (nats, _) in renumbered if not math.isfinite(nats)]:
                raise InputError("the model's likelihoods are not numbers", where=self.name,
                                 found=f"{bad[0][1]} nats for request {bad[0][0]}",
                                 fix="look for NaN or Inf in its tensors, or compute in float32 (`dtype: float32`)")
            done(renumbered)
        return report

    def _walked(self, rows: Sequence[Sequence[int]], scored: Sequence[int], done: Done) -> None:
        import torch

        trie = tree.build(rows, scored)
        walk = Walk(self.model, trie, self.batch_tokens)
        # a sequence is over with the last of the tokens that it asks for
        order = sorted(range(len(rows)), key=lambda i: int(trie.paths[i].max(initial=-1)))
        while walk.at < len(trie):
            with torch.inference_mode():
                walk.step()
            ready, found = walk.ready(), []
            while order and trie.paths[order[0]].max(initial=-1) < ready:
                i = order.pop(0)
                found.append((i, walk.total(i)))
            if found:
                done(found)

    def _padded(self, rows: Sequence[Sequence[int]], scored: Sequence[int], done: Done) -> None:
        for batch in batches.by_length([len(row) for row in rows], self.batch_tokens):
            done(list(zip(batch, padded.tails(self.model, [rows[i] for i in batch], [scored[i] for i in batch]))))

    # ------------------------------------------------------------------------------------------------------ generation

    @cached_property
    def ends(self) -> frozenset[int]:
        """Ids that end an answer: what the model's own configuration names, and the tokenizer's EOS."""
        config = getattr(self.model, "generation_config", None)
        own = getattr(config, "eos_token_id", None)
        return frozenset(int(i) for i in [*(own if isinstance(own, list) else [own]), self.eos] if i is not None)

    def generate(self, prompts: Sequence[str], decoding: Decoding, done: Callable[[list[tuple[int, Written]]], None]) -> None:
        """Continuations, cut before the first stop string; `done` receives (index, answer) as answers get finished.

        A prompt that does not fit beside the new tokens loses its beginning; at least half of the context is the prompt's.
        """
        limit = min(decoding.max_tokens, max(1, self.max_length // 2))
        ids = [self.encode_prompt(p)[-(self.max_length - limit):] for p in prompts]
        together = [i for i, row in enumerate(ids) if len(row) + limit <= self.reach]
        alone = [i for i, row in enumerate(ids) if len(row) + limit > self.reach]
        for group in decode.groups([ids[i] for i in together]):
            for found in self._written([ids[together[i]] for i in group], decoding, limit):
                done([(together[group[i]], answer) for i, answer in found])
        for batch in batches.by_length([len(ids[i]) + limit for i in alone], max(self.batch_tokens, 4 * limit)):
            answers = [Answer(self.tokenizer, self.ends, ids[alone[i]], decoding, limit) for i in batch]
            padded.write(self.model, [ids[alone[i]] for i in batch], answers)
            done([(alone[i], answer.written()) for i, answer in zip(batch, answers)])

    def _written(self, prompts: list[list[int]], decoding: Decoding, limit: int) -> Iterator[list[tuple[int, Written]]]:
        import torch

        answers = [Answer(self.tokenizer, self.ends, p, decoding, limit) for p in prompts]
        with torch.inference_mode():
            for over in decode.Decoder(self.model, prompts, answers, live=LIVE, nodes=self.batch_tokens):
                if over:
                    yield [(i, answers[i].written()) for i in over]

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


def _context_length(model: Any, tokenizer: Any) -> int:
    for name in ("max_position_embeddings", "n_positions", "seq_length"):
        if (n := getattr(model.config, name, None)) is not None:
            return int(n)
    return int(min(tokenizer.model_max_length, 2048))
