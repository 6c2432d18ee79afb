"""A model in memory that can be asked: texts in, log-likelihoods and texts out. Knows nothing of tasks or lm-eval."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

from polygraft.errors import InputError
from polygraft.evals.engines import batches, decode, exact, padded, tree
from polygraft.evals.engines.base import Decoding, Written
from polygraft.evals.engines.coding import Coded, Done
from polygraft.evals.engines.row import Walk
from polygraft.evals.engines.writing import Answer

LIVE = 16  # answers written at a time


class Scorer(Coded):
    """The engine on a transformers causal LM (put into eval mode) and its tokenizer.

    batch_tokens: tokens in one forward pass. notes: what a reader of the scores should know of how they were computed.
    """

    def __init__(self, model: Any, tokenizer: Any, *, batch_tokens: int = 512, max_length: int | None = None):
        super().__init__(tokenizer, max_length or _context_length(model, tokenizer))
        self.notes: list[str] = []
        self.model, self.batch_tokens = model.eval(), batch_tokens
        self.device = next(model.parameters()).device

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
        ids, limit = self.encode_prompts(prompts, decoding)
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


def _context_length(model: Any, tokenizer: Any) -> int:
    for name in ("max_position_embeddings", "n_positions", "seq_length"):
        if (n := getattr(model.config, name, None)) is not None:
            return int(n)
    return int(min(tokenizer.model_max_length, 2048))
