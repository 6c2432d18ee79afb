"""What an evaluation asks of a model, wherever it runs: in this process, under vLLM, behind a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Decoding:
    """How an answer is written: at most `max_tokens` new tokens, cut before the first of `stops`; greedy at temperature 0."""

    max_tokens: int
    stops: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Written:
    """A written answer: its text (cut before the stop), the new tokens that the text took (without EOS and stop), and whether it
    ended by itself (EOS or stop, not the limit). `ids`: these tokens, where the engine sees them."""

    text: str
    tokens: int
    finished: bool
    ids: tuple[int, ...] = field(default=(), compare=False)


class Engine(Protocol):
    """One model that can be asked. `done` receives answers batch by batch as (index, answer), so that a cut costs one batch."""

    max_length: int

    @property
    def name(self) -> str:
        """What the model is called in messages."""
        ...

    def pairs(self, pairs: Sequence[tuple[str, str]], done: Callable[[list[tuple[int, tuple[float, bool]]]], None]) -> None:
        """Log-likelihood in nats of each continuation given its context, and whether it is what greedy decoding would write."""
        ...

    def generate(self, prompts: Sequence[str], decoding: Decoding, done: Callable[[list[tuple[int, Written]]], None]) -> None:
        """Written answers."""
        ...

    def documents(self, texts: Sequence[str], window: int, stride: int) -> list[Any]:
        """Nats, bytes and tokens of whole texts, as `bpb.Scored`."""
        ...

    def chat(self, messages: Sequence[dict[str, str]], prefix: str = "") -> str:
        """A conversation as the model's chat template writes it, up to where the assistant speaks; `prefix` begins its turn."""
        ...

    def count(self, text: str) -> int:
        """Tokens of a text, special tokens not counted."""
        ...
