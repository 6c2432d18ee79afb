"""What vocabularies ask of whoever can train and evaluate: answers, nats, copies, a short continued pretraining.

Packages of one level know nothing of each other; `steps` brings them together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np

Copying = Literal["sentence", "paragraph"]


class Scored(Protocol):
    """One document that was read: nats over the tokens that were scored, and the bytes that those tokens stand for."""

    @property
    def nats(self) -> float: ...
    @property
    def bytes(self) -> int: ...
    @property
    def tokens(self) -> int: ...


class Answer(Protocol):
    """One answer: its text, its new tokens (without an end) and their ids, and whether it ended by itself."""

    @property
    def text(self) -> str: ...
    @property
    def tokens(self) -> int: ...
    @property
    def finished(self) -> bool: ...
    @property
    def ids(self) -> tuple[int, ...]: ...


class Copy(Answer, Protocol):
    """One copy that was asked for: `scores` by metric (DaruCopy's length, characters, reliability ...), shares of 1, and the
    tokens that the model's own tokenizer makes of the source."""

    @property
    def scores(self) -> Mapping[str, float]: ...
    @property
    def source_tokens(self) -> int: ...


class Pretrained(Protocol):
    """What a short continued pretraining did. `losses`: nats per token of every step; `nats` by step: of every held-out text,
    float64 [n]; `bytes`: that these were spent on, int64 [n]; `tokens`: seen in training."""

    @property
    def losses(self) -> tuple[float, ...]: ...
    @property
    def nats(self) -> Mapping[int, np.ndarray]: ...
    @property
    def bytes(self) -> np.ndarray: ...
    @property
    def tokens(self) -> int: ...


class Pretrain(Protocol):
    """Train rows of embedding and head (None: all of them) on texts packed into blocks; nothing is kept of the model.

    `held` texts are read before the first step, every `every` steps (None: not in between) and after the last.
    """

    def __call__(self, model: Path, texts: Sequence[str], held: Sequence[str], *, rows: np.ndarray | None, steps: int,
                 every: int | None = None, lr: float = 1e-3, batch: int = 8, length: int = 256, seed: int = 0,
                 device: str = "auto", progress: Callable[..., None] = ...) -> Pretrained: ...


@dataclass(frozen=True)
class Around:
    """load(source, dtype, device) -> a model in memory; answers(live, prompts, max_tokens, chat) -> greedy ones; nats(live, texts)
    -> what each cost; language(text) -> a tag, "und" where it cannot be said; copies(live, language, kind, texts, chat) -> what was
    written when the model was asked to write them back; loops(text) -> whether it ends in a loop; pretrain: see `Pretrain`."""

    load: Callable[[Any, str, str], Any]
    answers: Callable[[Any, Sequence[str], int, bool], Sequence[Answer]]
    nats: Callable[[Any, Sequence[str]], Sequence[Scored]]
    language: Callable[[str], str]
    copies: Callable[[Any, str, Copying, Sequence[str], bool], Sequence[Copy]]
    loops: Callable[[str], bool]
    pretrain: Pretrain
