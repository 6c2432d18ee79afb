"""From texts to token ids and back: what every engine does that scores ids and has the model's tokenizer at hand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from polygraft.errors import InputError
from polygraft.evals import bpb
from polygraft.evals.engines.base import Decoding

Done = Callable[[list[tuple[int, tuple[float, bool]]]], None]


class Coded(ABC):
    """An engine on token ids: a subclass gives `likelihoods` (and `generate`), and texts are scored alike wherever it runs."""

    def __init__(self, tokenizer: Any, max_length: int):
        self.tokenizer, self.max_length = tokenizer, max_length

    @abstractmethod
    def likelihoods(self, rows: Sequence[Sequence[int]], scored: Sequence[int], done: Done) -> None:
        """(nats, all greedy?) of the last `scored[i]` tokens of each id sequence, in any order, as they are computed."""

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

    def encode_prompts(self, prompts: Sequence[str], decoding: Decoding) -> tuple[list[list[int]], int]:
        """(ids of each prompt, new tokens at most). A prompt that does not fit beside the new tokens loses its beginning; at least
        half of the context is the prompt's."""
        limit = min(decoding.max_tokens, max(1, self.max_length // 2))
        return [self.encode_prompt(p)[-(self.max_length - limit):] for p in prompts], limit

    def pairs(self, pairs: Sequence[tuple[str, str]], done: Done) -> None:
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
