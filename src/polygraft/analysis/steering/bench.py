"""What steering asks of whoever can evaluate: answers, languages, nats, tasks. Analyses know no evaluation; `steps` brings the two
together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from polygraft.analysis.steering.matrix import Nats
from polygraft.errors import UserError
from polygraft.result import Result
from polygraft.step import Context

# columns `task language metric` -> (sums over items [n], sizes [n], unit, whether higher is better); the same items every time
Columns = Mapping[str, tuple[np.ndarray, np.ndarray, str, bool]]


class Evaluation(Protocol):
    """Tasks and items chosen once, asked of one model under several conditions."""

    def ask(self, live: Any, label: str) -> Columns:
        """Ask everything of the model as it runs now."""
        ...

    def result(self, labels: Sequence[str]) -> Result:
        """Scores and paired differences of the conditions that were asked, from the first one of `labels`."""
        ...


@dataclass(frozen=True)
class Bench:
    """write(live, prompts, max_tokens, chat) -> answers; language(text) -> a tag, "und" where it cannot be said; nats(live,
    documents) -> what each cost; planned and make: of an evaluation's settings (tasks, langs, data, limit, shots, chat, seed),
    `planned(settings, context)` -> (tokens read, tokens written at most, what is wrong), `make(settings, context, source)` with the
    source of the model that will be asked; seconds(parameters, tokens read, tokens written, passes that write them) -> a guess."""

    write: Callable[[Any, Sequence[str], int, bool], Sequence[str]]
    language: Callable[[str], str]
    nats: Nats
    planned: Callable[[Mapping[str, Any], Context], tuple[float, int, Sequence[UserError]]]
    make: Callable[[Mapping[str, Any], Context, Any], Evaluation]
    seconds: Callable[[int, float, int, int], float]
