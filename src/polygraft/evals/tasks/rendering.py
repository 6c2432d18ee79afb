"""Items as a model sees them: plain text or a conversation, with as many worked examples as its context holds."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from polygraft.evals.engines.base import Decoding
from polygraft.evals.items import Item
from polygraft.evals.tasks.schema import Task
from polygraft.evals.tasks.templates import render

MARGIN = 8  # tokens for what the tokenizer itself puts around a text


class Reader(Protocol):
    """As much of an engine as it takes to render an item."""

    max_length: int

    def chat(self, messages: Sequence[dict[str, str]], prefix: str = "") -> str: ...

    def count(self, text: str) -> int: ...


@dataclass(frozen=True)
class Asked:
    """What is sent for one item: the text, the continuations to score, how many worked examples it still has, whether it is so long
    that the model will not see its beginning, and what stands between the text and an answer."""

    text: str
    continuations: tuple[str, ...] = ()
    shots: int = 0
    truncated: bool = False
    delimiter: str = ""


@dataclass(frozen=True)
class Form:
    """What stands around questions and answers in one language."""

    delimiter: str
    between: str
    prefix: str
    system: str


def form(task: Task, language: str, system: str = "") -> Form:
    """The task's delimiters, prefix and system text with the language's words put in; `system` replaces the task's own."""
    def text(name: str) -> str:
        return render(getattr(task, name), {"w": task.words_of(language), "language": language}, task.task, name=name)
    return Form(text("target_delimiter"), text("fewshot_delimiter"), text("prefix"), system or text("system"))


def decoding(task: Task, language: str) -> Decoding:
    """How the task's answers are written; `until` may hold the language's words."""
    assert task.generation is not None
    words = {"w": task.words_of(language), "language": language}
    stops = (render(u, words, task.task, name="until") for u in task.generation.until)
    how = task.generation
    return Decoding(how.max_gen_toks, tuple(s for s in stops if s), how.temperature, how.top_p)


def plain(item: Item, shots: int, form: Form) -> str:
    """The headline, the last `shots` worked examples, the question."""
    examples = item.examples[len(item.examples) - shots:]
    before = "".join(q + form.prefix + form.delimiter + a + form.between for q, a in examples)
    return item.headline + before + item.prompt + form.prefix


def messages(item: Item, shots: int, form: Form) -> list[dict[str, str]]:
    """The same as turns of a conversation, up to the last question."""
    system = "\n\n".join(filter(None, (form.system, item.headline.strip())))
    out = [{"role": "system", "content": system}] if system else []
    for asked, answered in item.examples[len(item.examples) - shots:]:
        out.append({"role": "user", "content": asked.rstrip()})
        out.append({"role": "assistant", "content": (form.prefix + form.delimiter if form.prefix else "") + answered})
    return [*out, {"role": "user", "content": item.prompt.rstrip()}]


def asked(task: Task, item: Item, engine: Reader, *, chat: bool = False, system: str = "") -> Asked:
    """The item for one model. Worked examples that do not fit its context are dropped from the front."""
    words, chat = form(task, item.language, system), chat and not task.plain
    delimiter = "" if chat and not words.prefix else words.delimiter
    continuations = tuple(delimiter + c for c in (cut_to_shortest(item.choices, engine) if task.cut_to_shortest else item.choices))
    room = engine.max_length - MARGIN - _answer_tokens(task, continuations, engine)
    for shots in range(len(item.examples), -1, -1):
        text = engine.chat(messages(item, shots, words), words.prefix) if chat else plain(item, shots, words)
        if _fits(text, room, engine):
            return Asked(text, continuations, shots, delimiter=delimiter)
    return Asked(text, continuations, 0, truncated=True, delimiter=delimiter)


def cut_to_shortest(texts: Sequence[str], engine: Reader) -> tuple[str, ...]:
    """Each text's longest beginning with no more tokens than the shortest text has: a sum then ranks as a mean does."""
    most = min(engine.count(t) for t in texts)

    def cut(text: str) -> str:
        end = bisect_right(range(len(text) + 1), most, key=lambda end: engine.count(text[:end])) - 1
        return text[:max(1, end)]

    return tuple(map(cut, texts))


def _answer_tokens(task: Task, continuations: Sequence[str], engine: Reader) -> int:
    if task.generation is not None:
        return min(task.generation.max_gen_toks, max(1, engine.max_length // 2))
    return max(_tokens(c, engine) for c in continuations)


def _tokens(text: str, engine: Reader) -> int:
    """Tokens of a text, or its bytes where counting cannot matter: a token is never less than a byte."""
    size = len(text.encode("utf-8"))
    return size if size < 32 else engine.count(text)


def _fits(text: str, room: int, engine: Reader) -> bool:
    return len(text.encode("utf-8")) <= room or engine.count(text) <= room
