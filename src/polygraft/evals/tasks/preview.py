"""What a task file comes to before any model is loaded: its items counted, the first one as a model will see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from polygraft.evals.engines.coding import Coded
from polygraft.evals.items import Item
from polygraft.evals.tasks import rendering
from polygraft.evals.tasks.rendering import Reader
from polygraft.evals.tasks.schema import Task


class Paper:
    """Stands for a model whose context holds any text."""

    max_length = 1 << 40

    def chat(self, messages: Any, prefix: str = "") -> str:
        return "\n".join(f"<{m['role']}> {m['content']}" for m in messages) + "\n<assistant> " + prefix

    def count(self, text: str) -> int:
        return len(text.encode("utf-8"))


class Tokens(Coded):
    """A model's tokenizer and chat template, without its weights."""

    def likelihoods(self, rows: Any, scored: Any, done: Any) -> None:
        raise RuntimeError("a tokenizer alone scores nothing")


@dataclass(frozen=True)
class Preview:
    """One item: the text that is sent, the choices or the golds, what ends an answer, tokens (bytes when no model is named)."""

    id: str
    text: str
    choices: tuple[str, ...]
    target: int
    golds: tuple[str, ...]
    stops: tuple[str, ...]
    shots: int
    size: int
    truncated: bool


def preview(task: Task, item: Item, reader: Reader | None = None, *, chat: bool = False) -> Preview:
    """The item as it will be sent: to a model that reads anything, or to one whose tokenizer is at hand."""
    reader = reader or Paper()
    sent = rendering.asked(task, item, reader, chat=chat)
    stops = rendering.decoding(task, item.language).stops if task.written else ()
    return Preview(item.id, sent.text, sent.continuations, item.target, item.golds, stops, sent.shots, reader.count(sent.text),
                   sent.truncated)
