"""Retention: ways to keep what a model could do while it learns something else, and what each of them costs.

Replay mixes examples of the old among the new. `kl` binds the model's words on ordinary text to those it began with. `stop` ends a
training that has lost too much. All three are judged by the same table: the loss on texts that were held out, before and after.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from polygraft.config import Strict, Unfit, changed
from polygraft.errors import InputError, RecipeError
from polygraft.result import Cell, InputRef, Table
from polygraft.step import Context, DataRef
from polygraft.tune import examples
from polygraft.tune.data import mixture
from polygraft.tune.data.devloss import DevLoss
from polygraft.tune.data.text import key, size
from polygraft.tune.gains import BOUND, KEPT, NAMES, TARGET, Bounded, Gains
from polygraft.tune.hooks import Hook, Said
from polygraft.tune.kl import StartKL
from polygraft.tune.processes import sharding
from polygraft.watching import Log

if TYPE_CHECKING:
    from polygraft.tune.config import Around, Tuning
    from polygraft.tune.running import Task
    from polygraft.tune.training import Trained, Watched

MEASURED = 200  # documents that are measured, at most
USED = 5000  # documents that the KL draws from, at most
PART = 5  # one document in so many is measured, the others are for the KL

Row = dict[str, Any]


class Retain(Strict):
    """What is to be kept while something else is learnt, and by which means."""

    text: DataRef | None = Field(
        default=None, description="text or examples of what is to be kept, usually English: .txt, .parquet or examples as in "
        "`data`; a part is held out and measured before and after")
    target: DataRef | None = Field(
        default=None, description="held-out text or examples of what is to be gained, measured likewise")
    replay: tuple[DataRef, ...] = Field(
        default=(), description="text or examples that are mixed among those to be learnt; repeatable")
    share: float = Field(default=0.1, gt=0, lt=1, description="share of all examples that is replay")
    kl: float = Field(
        default=0.0, ge=0, description="weight of the KL divergence to the start model on `text` (nats a token) in the loss")
    kl_every: int = Field(default=1, ge=1, description="optimiser steps between two such additions")
    kl_rows: int = Field(default=4, ge=1, description="windows of text in one of them")
    kl_length: int = Field(default=256, ge=2, description="tokens in a window")
    stop: float | None = Field(
        default=None, gt=0, description="stop when the loss on the held-out part of `text` has risen by more than this (nats a "
        "token; read every `watch.every` steps), and keep the last step that held it")

    @model_validator(mode="after")
    def _has_text(self) -> Self:
        if self.text is None and self.kl:
            raise Unfit("`kl` needs `text`: the text on which the model is bound to its start", fix="add `text`")
        if self.text is None and self.stop is not None:
            raise Unfit("`stop` needs `text`: the text whose loss must not rise", fix="add `text`")
        if not self.kl and (idle := changed(self, ("kl_every", "kl_rows", "kl_length"))):
            raise Unfit(f"{', '.join(idle)} without `kl`: nothing binds the model to its start", fix="add `kl`, or leave them out")
        if not self.replay and (idle := changed(self, ("share",))):
            raise Unfit(f"{idle[0]} without `replay`: nothing is mixed in", fix="add `replay`, or leave `share` out")
        return self


def read(spec: str, context: Context, around: Around) -> list[Row]:
    """Examples, or the documents of a corpus as examples. Raises InputError where there are none."""
    return examples.load(spec, around.generators, context.data)


def divided(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """(held out, left over): a fifth of the different documents, from one to MEASURED, and USED of the others at most.

    The hash of its content says where a document goes, and in which order they come.
    """
    once = {key(row): row for row in rows}
    ranked = [once[k] for k in sorted(once, key=lambda k: hashlib.sha256(b"kept\0" + k).digest())]
    n = min(MEASURED, -(-len(ranked) // PART))
    return ranked[:n], ranked[n : n + USED]


@dataclass
class Retention:
    """A `Retain` made concrete: what is read, what is mixed in, and the hooks of the loop."""

    config: Retain
    task: Task  # with the replay among its rows
    every: int = 1  # steps between two checks of the bound
    held: dict[str, list[Row]] = field(default_factory=dict)  # by KEPT or TARGET
    text: list[Row] = field(default_factory=list)  # for the KL
    replay: list[Row] = field(default_factory=list)  # as mixed in
    excluded: int = 0  # replay examples that are among the held-out ones
    gains: Gains | None = None
    kl: StartKL | None = None
    bounded: Bounded | None = None
    log: Log | None = None  # of the checks of the bound

    def lines(self) -> tuple[str, ...]:
        """What a plan says of it."""
        r, out = self.config, []
        if self.replay:
            out.append(f"replay: {len(self.replay):,} of the {len(self.task.rows):,} examples")
        if r.kl:
            often = "every step" if r.kl_every == 1 else f"every {r.kl_every} steps"
            out.append(f"KL to the start model {often}: {r.kl_rows} windows of {r.kl_length} tokens, read by both models")
        if self.held:
            counts = (f"{len(rows):,} of the {NAMES[name]}" for name, rows in self.held.items())
            out.append(f"examples measured before and after: {', '.join(counts)}")
        if r.stop is not None:
            out.append(f"stops when the loss on the text to keep has risen by more than {r.stop:g} nats a token")
        return tuple(out)

    def flops(self, parameters: int, steps: int) -> float:
        """What it adds to the training's arithmetic: two per parameter and token of a forward pass, four of a backward one."""
        r = self.config
        windows = steps / r.kl_every * r.kl_rows * r.kl_length * (2 + 6) if r.kl else 0.0
        checks = 2 + (steps / self.every if r.stop is not None else 0)
        measured = sum(sum(map(size, rows)) / 3 for rows in self.held.values()) * 2 * checks  # about three characters a token
        return parameters * (windows + measured)

    def bytes(self, model: Mapping[str, Any], trained: int, layers: int) -> int:
        """What the KL holds beside the training: the trained tensors' start, one pass's activations, and logits five times over."""
        tokens, r = self.config.kl_rows * self.config.kl_length, self.config
        one = layers * int(model.get("hidden_size") or 1024) * 68 + 20 * int(model.get("vocab_size") or 32_000)
        return 4 * trained + tokens * one if r.kl else 0

    def hooks(self, dev: Sequence[DevLoss]) -> tuple[Hook, ...]:
        """The parts that it takes in the loop. `dev`: what reads held-out examples of the data, for the same table."""
        if self.gains is not None:
            for one in dev:  # one table, and one family of comparisons
                self.gains.dev, one.joined = one, True
        return tuple(h for h in (self.gains, self.kl) if h is not None)

    def watched(self, watched: Watched | None, every: int) -> Watched | None:
        """What is watched, and the bound with it."""
        from polygraft.tune.training import Watched

        if self.config.stop is None or self.gains is None:
            return watched
        inner = watched.watcher if watched else None
        self.bounded = Bounded(self.gains, self.config.stop, inner, watched.best if watched else False)
        self.log = log = watched.log if watched else Log(every)
        log.chosen = "the best value watched for, within the bound" if self.bounded.best else "the last that held the bound"
        bound = {"stop": self.config.stop, "text": examples.digest(self.held[KEPT])}
        return Watched(self.bounded, log, True, {**(watched.key if watched else {"every": every}), **bound})

    def said(self, done: Trained) -> Said:
        """What each means did, and what it cost."""
        rows: list[tuple[Cell, ...]] = []
        checks = len(self.log.readings) if self.log else 0
        if self.replay:
            part = sum(map(size, self.replay)) / sum(map(size, self.task.rows))
            what = f"{len(self.replay):,} of {len(self.task.rows):,} examples, {part:.1%} of the text"
            others = sum(h.seconds for h in (self.kl, self.gains) if h is not None)
            rows.append(("replay", what, round(part * max(0.0, done.seconds - others), 2)))
        if self.kl is not None:
            rows.append(("KL to the start", f"weight {self.kl.weight:g}, {len(self.kl.values):,} times", round(self.kl.seconds, 2)))
        if self.bounded is not None:
            rows.append(("stop", f"{checks:,} checks", round(self.bounded.seconds, 2)))
        if self.gains is not None:
            spent = self.gains.seconds - (self.bounded.seconds if self.bounded else 0.0)
            rows.append(("measuring before and after", f"{sum(map(len, self.held.values())):,} examples", round(spent, 2)))
        note = "of the training's time: replay by its share of the text; a backward pass of the KL counted as two forward ones"
        tables = (Table("Keeping what was known", ("means", "what it did", "seconds"), tuple(rows), note),) if rows else ()
        left_out = f"{self.excluded:,} replay examples are among those that are measured, and were left out"
        return Said(tables=tables, caveats=(left_out,) if self.excluded else ())

    @staticmethod
    def is_bound(reason: str) -> bool:
        """Whether a reason to stop is the bound's, and no failed criterion."""
        return reason.startswith(BOUND)


def begin(config: Tuning, task: Task, context: Context, around: Around) -> Retention:
    """Read what `config.retain` names, and mix the replay into the task's examples.

    Raises InputError for text that is missing, empty, or too little to be both measured and used; RecipeError for measuring a model
    in shards.
    """
    r = config.retain
    if (r.text or r.target) and (kind := sharding()):
        raise RecipeError("what is to be kept is not measured of a model in shards", where="accelerate", found=kind,
                          fix="use ddp.yaml, or `replay` alone, and `polygraft eval` afterwards")  # fmt: skip
    made = Retention(r, task, config.watch.every)
    inputs: list[InputRef] = []

    def named(name: str, spec: str) -> list[Row]:
        rows = read(spec, context, around)
        inputs.append(InputRef(name, spec, digest=examples.digest(rows)))
        return rows

    if r.text is not None:
        made.held[KEPT], made.text = divided(named("text to keep", r.text))
        if r.kl and not made.text:
            raise InputError("one document cannot be both measured and used", where=r.text, expected="two different documents",
                             fix="divide the text into documents, one a line")  # fmt: skip
    if r.target is not None:
        ranked = sorted(named("target text", r.target), key=lambda row: hashlib.sha256(key(row)).digest())
        made.held[TARGET] = ranked[:MEASURED]
    if r.replay:
        old = [row for spec in r.replay for row in named("replay", spec)]
        held = [row for rows in made.held.values() for row in rows]
        made.replay, made.excluded = replayed(len(task.rows), old, held, r.share, config.seed)
    made.task = replace(task, rows=[*task.rows, *made.replay], inputs=(*task.inputs, *inputs))
    made.gains = Gains(made.held, config.settings()) if made.held else None
    made.kl = StartKL(r.kl, made.text, config.settings(), r.kl_every, r.kl_rows, r.kl_length) if r.kl else None
    return made


def replayed(new: int, rows: Sequence[Row], held: Sequence[Row], share: float, seed: int) -> tuple[list[Row], int]:
    """(replay, left out): as many of `rows` as make their share of all examples, where there are `new` others.

    The hash of seed and content decides which; none comes again before all have been taken. What is measured (`held`) is left out.
    Raises InputError where nothing remains.
    """
    measured = {key(row) for row in held}
    free = [row for row in rows if key(row) not in measured]
    if not free:
        raise InputError("every replay example is among those that are measured", where="retain-replay", fix="add examples")
    count = max(1, round(new * share / (1 - share)))
    places = mixture.pick([key(row) for row in free], count, seed, repeat=True)
    return [free[i] for i in places], len(rows) - len(free)
