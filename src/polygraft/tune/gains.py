"""What a training gained and what it lost: held-out texts read before and after, and a bound on what may be lost on the way."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from polygraft import stats
from polygraft.errors import InputError
from polygraft.result import Cell, Table
from polygraft.tune import examples, losses
from polygraft.tune.data.devloss import DevLoss
from polygraft.tune.examples import IGNORE, Tokens
from polygraft.tune.hooks import Hook, Said
from polygraft.tune.losses import Losses
from polygraft.watching import Reading, Watcher

if TYPE_CHECKING:
    from polygraft.model import Live
    from polygraft.tune.chosen import Chosen
    from polygraft.tune.settings import Settings

KEPT, TARGET = "kept", "target"
NAMES = {KEPT: "text to keep", TARGET: "target text"}
NOTE = ("mean loss in nats per token with loss, of the same examples before and after: lower is better; paired bootstrap over "
        "examples, Holm over rows")
WORDS = {stats.BETTER: "gained", stats.WORSE: "lost", stats.UNCLEAR: stats.UNCLEAR}
BOUND = "the loss on the text to keep"  # how a reason to stop begins
SCORE = f"retention/{KEPT}/loss"

Rows = Sequence[Mapping[str, Any]]


def scored(rows: Rows, tokenizer: Any, settings: Settings, where: str) -> list[Tokens]:
    """The examples that have a token to predict within the length. Raises InputError where there is none."""
    made = [examples.tokenize(row, tokenizer, settings.length, settings.answer_only, settings.template) for row in rows]
    found = [t for t in made if any(label != IGNORE for label in t["labels"][1:])]
    if not found:
        raise InputError("no example has an answer within the length", where=where, found=f"length {settings.length}",
                         fix="raise `length`")  # fmt: skip
    return found


@dataclass
class Gains(Hook):
    """Reads each set of held-out examples before and after the training. `dev`: what reads held-out examples of the data, too."""

    sets: Mapping[str, Rows]  # by KEPT or TARGET
    settings: Settings
    dev: DevLoss | None = None
    started: dict[str, Losses] = field(default_factory=dict)
    after: dict[str, Losses] = field(default_factory=dict)
    seconds: float = 0.0

    def start(self, live: Live, chosen: Chosen | None) -> None:
        self.tokens = {name: scored(rows, live.tokenizer, self.settings, f"retain-{name}") for name, rows in self.sets.items()}
        self.started = {name: self.read(live.model, name) for name in self.sets}

    def end(self, model: Any, step: int) -> None:
        self.after = {name: self.read(model, name) for name in self.sets}

    def read(self, model: Any, name: str) -> Losses:
        """One set of examples, now."""
        begun = time.monotonic()
        found = losses.measure(model, self.tokens[name], self.settings.batch, self.settings.dtype == "bf16")
        self.seconds += time.monotonic() - begun
        return found

    def said(self) -> Said:
        found = self._pairs()
        changes = losses.differences([b for b, _ in found.values()], [a for _, a in found.values()])
        rows: list[tuple[Cell, ...]] = []
        text, facts = [], {}
        for (name, (b, a)), change in zip(found.items(), changes, strict=True):
            word = WORDS[change.verdict]
            rows.append((name, len(b.tokens), losses.value(b), losses.value(a), change, word))
            text.append(f"{name[0].upper()}{name[1:]}: loss {b.mean:.3f} before, {a.mean:.3f} after: {word}.")
            facts[name] = {"before": b.mean, "after": a.mean, "change": change.value, "low": change.low, "high": change.high,
                           "verdict": word}  # fmt: skip
        table = Table("Gained and lost", ("examples", "n", "before", "after", "change", "verdict"), tuple(rows), NOTE)
        return Said(tuple(text), (table,), data={"retention": facts})

    def _pairs(self) -> dict[str, tuple[Losses, Losses]]:
        """(before, after) of everything that was read twice."""
        found = {NAMES[name]: (self.started[name], self.after[name]) for name in self.sets}
        if self.dev is not None:
            first, *_, last = sorted(self.dev.nats)
            for label in self.dev.labels:
                found[f"held-out examples of {label}"] = self.dev.of(first, label), self.dev.of(last, label)
        return found


@dataclass
class Bounded:
    """A watcher that stops a training which loses more than `bound` nats a token on the text to keep, whatever else is watched.

    Within the bound a later step counts as better (or, where the watch has a best of its own, that decides), so that the weights of
    the last step which held it are those put aside.
    """

    gains: Gains
    bound: float
    inner: Watcher | None = None
    best: bool = False  # whether `inner` says which step is the best
    job_: str = ""
    seconds: float = 0.0

    @property
    def job(self) -> str:
        return self.job_

    @job.setter
    def job(self, job: str) -> None:
        self.job_ = job
        if self.inner is not None:
            self.inner.job = job

    def read(self, model: Any, tokenizer: Any, step: int) -> Reading:
        """The inner watcher's reading, if there is one, and the loss on the text to keep."""
        found = self.inner.read(model, tokenizer, step) if self.inner is not None else Reading(step, 0.0, {})
        begun = time.monotonic()
        now = self.gains.read(model, KEPT) if step else self.gains.started[KEPT]
        rose = now.mean - self.gains.started[KEPT].mean
        self.seconds += time.monotonic() - begun
        lost = not rose <= self.bound
        reason = f"{BOUND} rose by {rose:.4f} nats a token, which is more than {self.bound:g}"
        better = None if lost else found.better if self.best else float(step)
        return replace(found, scores={**found.scores, SCORE: losses.value(now)}, better=better,
                       failed=(*found.failed, reason) if lost else found.failed)  # fmt: skip
