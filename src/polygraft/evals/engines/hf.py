"""A model in memory that can be asked: texts in, log-likelihoods and texts out. Knows nothing of tasks or lm-eval."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, TypeVar

from polygraft import edits
from polygraft.errors import InputError, ResourceError
from polygraft.evals import bpb
from polygraft.evals.engines import batches, decode, padded, tree
from polygraft.evals.engines.base import Decoding, Written
from polygraft.evals.engines.coding import Coded, Done
from polygraft.evals.engines.exact import Branches
from polygraft.evals.engines.row import Walk
from polygraft.evals.engines.writing import Answer

MOST_LIVE = 64  # answers written at a time
PER_ANSWER = 21  # tokens of a batch for each of them: 24 on a CPU, where more would mostly attend past one another
LEAST = 16  # tokens in a batch
T = TypeVar("T")
Wrote = Callable[[list[tuple[int, Written]]], None]


class Scorer(Coded):
    """The engine on a transformers causal LM (put into eval mode) and its tokenizer.

    batch_tokens: tokens in one forward pass. notes: what a reader of the scores should know of how they were computed.
    """

    def __init__(self, model: Any, tokenizer: Any, *, batch_tokens: int = 512, max_length: int | None = None):
        super().__init__(tokenizer, max_length or context_length(model, tokenizer))
        self.notes: list[str] = []
        self.model, self.batch_tokens = model.eval(), batch_tokens
        self.branches = Branches(model)

    def likelihoods(self, rows: Sequence[Sequence[int]], scored: Sequence[int], done: Done) -> None:
        """(nats, all greedy?) of the last `scored[i]` tokens of each id sequence, in any order, as they are computed."""
        for some, score in zip(self._apart([len(row) for row in rows]), (self._walked, self._padded)):
            if some:
                score([rows[i] for i in some], [scored[i] for i in some], self._checked(some, done))

    def documents(self, texts: Sequence[str], window: int = bpb.WINDOW, stride: int = bpb.STRIDE) -> list[bpb.Scored]:
        """Nats, bytes and tokens of whole texts. Raises InputError under edits of some positions: a text has no prompt."""
        if edits.at_work(self.model).positional:
            raise InputError("a text has no prompt and no answer", where="edits", found="edits of prompt or generated positions",
                             fix="edit all positions, or ask a task")
        return super().documents(texts, window, stride)

    def _apart(self, lengths: Sequence[int]) -> tuple[list[int], list[int]]:
        """(sequences that are read together, as branches; those that this model can only read in rows of their own)."""
        if edits.at_work(self.model).positional:  # a token of a branch may be prompt to one item and answer to another
            return [], list(range(len(lengths)))
        exact = {n: self.branches.exact(n) for n in sorted(set(lengths))}
        if self.branches.why and not self.notes:
            self.notes.append(f"{self.name}: items do not share what they begin with ({self.branches.why})")
        return [i for i, n in enumerate(lengths) if exact[n]], [i for i, n in enumerate(lengths) if not exact[n]]

    def _checked(self, indices: Sequence[int], done: Done) -> Done:
        """`done` by the caller's numbers, and only for numbers: nothing that is computed from a NaN would mean anything."""
        def report(found: list[tuple[int, tuple[float, bool]]]) -> None:
            renumbered = [(indices[i], value) for i, value in found]
            for i, (nats, _) in renumbered:
                if not math.isfinite(nats):
                    raise self._not_numbers(i, f"{nats} nats")
            done(renumbered)
        return report

    def _not_numbers(self, request: int, found: str) -> InputError:
        return InputError("the model's likelihoods are not numbers", where=self.name, found=f"{found} for request {request}",
                          fix="look for NaN or Inf in its tensors, or compute in float32 (`dtype: float32`)")

    def _walked(self, rows: Sequence[Sequence[int]], scored: Sequence[int], done: Done) -> None:
        trie = tree.build(rows, scored)
        walk = Walk(self.model, trie, self.batch_tokens)
        last = [int(path.max(initial=-1)) for path in trie.paths]  # a sequence is over with the last token that it asks for
        order = sorted(range(len(rows)), key=last.__getitem__)

        def step() -> None:
            walk.nodes = self.batch_tokens
            walk.step()

        at = 0
        while walk.at < len(trie):
            self._in_memory(step)
            start, ready = at, walk.ready()
            while at < len(order) and last[order[at]] < ready:
                at += 1
            if at > start:
                done([(i, walk.total(i)) for i in order[start:at]])

    def _padded(self, rows: Sequence[Sequence[int]], scored: Sequence[int], done: Done) -> None:
        left = list(range(len(rows)))

        def score() -> list[tuple[int, tuple[float, bool]]]:
            batch = [left[k] for k in batches.by_length([len(rows[i]) for i in left], self.batch_tokens)[0]]
            return list(zip(batch, padded.tails(self.model, [rows[i] for i in batch], [scored[i] for i in batch])))

        while left:
            found = self._in_memory(score)
            left = [i for i in left if i not in dict(found)]
            done(found)

    def _in_memory(self, attempt: Callable[[], T]) -> T:
        """What `attempt` gives; when memory runs out, tried again with batches of half the size. Raises ResourceError."""
        import torch

        while True:
            try:
                with torch.inference_mode():
                    return attempt()
            except RuntimeError as error:
                if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                    raise
            if self.batch_tokens <= LEAST:
                raise ResourceError("the memory does not hold one batch", where=self.name, found=f"{self.batch_tokens} tokens",
                                    fix="use a smaller dtype, a larger device, or several of them")
            self.batch_tokens = max(LEAST, self.batch_tokens // 2)
            torch.cuda.empty_cache()  # does nothing where there is none
            self.notes.append(f"{self.name}: memory ran out; batches were cut to {self.batch_tokens} tokens")

    # ------------------------------------------------------------------------------------------------------ generation

    @cached_property
    def ends(self) -> frozenset[int]:
        """Ids that end an answer: what the model's own configuration names, and the tokenizer's EOS."""
        config = getattr(self.model, "generation_config", None)
        own = getattr(config, "eos_token_id", None)
        return frozenset(int(i) for i in [*(own if isinstance(own, list) else [own]), self.eos] if i is not None)

    def generate(self, prompts: Sequence[str], decoding: Decoding, done: Wrote) -> None:
        """Continuations, cut before the first stop string; `done` receives (index, answer) as answers get finished.

        A prompt that does not fit beside the new tokens loses its beginning; at least half of the context is the prompt's.
        """
        ids, limit = self.encode_prompts(prompts, decoding)
        together, alone = self._apart([len(row) + limit for row in ids])
        turns = [(self._rows, [together[i] for i in group]) for group in decode.groups([ids[i] for i in together])]
        for write, some in [*turns, (self._padded_rows, alone)]:
            left = {i: ids[i] for i in some}
            while left:
                self._in_memory(partial(write, left, decoding, limit, done))

    def _rows(self, left: dict[int, list[int]], decoding: Decoding, limit: int, done: Wrote) -> None:
        """Write the answers to all prompts that are left, in one row; what is done is taken out."""
        numbers, prompts = list(left), list(left.values())
        answers = [Answer(self.tokenizer, self.ends, p, decoding, limit) for p in prompts]
        live = min(MOST_LIVE, max(1, self.batch_tokens // PER_ANSWER))
        for over in decode.Decoder(self.model, prompts, answers, live=live, nodes=self.batch_tokens):
            self._report({numbers[i]: answers[i] for i in over}, left, done)

    def _padded_rows(self, left: dict[int, list[int]], decoding: Decoding, limit: int, done: Wrote) -> None:
        """Write one padded batch of the answers that are left."""
        numbers = list(left)
        batch = batches.by_length([len(p) + limit for p in left.values()], max(self.batch_tokens, 4 * limit))[0]
        answers = {numbers[k]: Answer(self.tokenizer, self.ends, left[numbers[k]], decoding, limit) for k in batch}
        padded.write(self.model, [left[i] for i in answers], list(answers.values()))
        self._report(answers, left, done)

    def _report(self, over: dict[int, Answer], left: dict[int, list[int]], done: Wrote) -> None:
        for i, answer in over.items():
            if answer.broken:
                raise self._not_numbers(i, "a logit that is not a number")
            del left[i]
        if over:
            done([(i, answer.written()) for i, answer in over.items()])


def context_length(model: Any, tokenizer: Any) -> int:
    """Tokens that the model was made to see, by its configuration or else its tokenizer; 2048 where neither says."""
    for name in ("max_position_embeddings", "n_positions", "seq_length"):
        if (n := getattr(model.config, name, None)) is not None:
            return int(n)
    return int(min(tokenizer.model_max_length, 2048))
