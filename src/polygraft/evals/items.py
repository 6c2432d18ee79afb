"""What is asked and what comes back: one item of a task, and one model's response to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Item:
    """One question.

    prompt: the question as asked, without worked examples. choices: continuations in the order of the data, one of which
    (`target`) is right; empty for answers that are written. golds: every acceptable written answer. examples: worked examples that
    come first, as (asked, answered). headline: stands once, before everything. stratum: subject, phenomenon ...: samples are drawn
    evenly over it. group: items that count as one (both orders of the same two options). extra: what a metric needs and the prompt
    does not show.
    """

    id: str
    language: str
    prompt: str
    choices: tuple[str, ...] = ()
    target: int = 0
    golds: tuple[str, ...] = ()
    examples: tuple[tuple[str, str], ...] = ()
    stratum: str = ""
    group: str = ""
    headline: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Response:
    """What one model made of one item: the log-likelihood in nats of every choice and whether each is what it would write
    (greedily), or the text that it wrote and whether it came to an end by itself. tokens: of the text, or of all choices together.
    gold_tokens: the tokens that the model's own tokenizer makes of the first gold, where there is one. seconds: of a batch's time,
    shared evenly by what was in it."""

    nats: tuple[float, ...] = ()
    greedy: tuple[bool, ...] = ()
    text: str = ""
    tokens: int = 0
    gold_tokens: int = 0
    finished: bool = True
    seconds: float = 0.0
