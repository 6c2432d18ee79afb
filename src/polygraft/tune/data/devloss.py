"""The loss on held-out examples before the training, while it runs and after it, with paired intervals by label."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraft.errors import InputError
from polygraft.result import Curve, Estimate, Table
from polygraft.tune import examples, losses
from polygraft.tune.data.gathering import Example
from polygraft.tune.hooks import Hook, Said
from polygraft.tune.losses import Losses
from polygraft.tune.tokenised import HELD, held

if TYPE_CHECKING:
    from polygraft.model import Live
    from polygraft.tune.chosen import Chosen
    from polygraft.tune.settings import Settings

FEWEST = 6  # examples with which a test can reach 5 %: 2 / 2^n is the least p of n pairs


class DevLoss(Hook):
    """Reads the held-out examples at step 0, every `every` steps (None: not in between) and at the end; with `blocks`, the first
    blocks of plain text."""

    reads = True

    def __init__(self, dev: Sequence[Example], every: int | None, settings: Settings):
        self.dev, self.every, self.settings = dev, every, settings
        self.labels = list(dict.fromkeys(e.label for e in dev))
        self.nats: dict[int, list[float]] = {}  # by step
        self.counts: list[int] = []
        self.plain = settings.blocks and all("text" in e.row for e in dev)  # then it is bits per byte
        self.bytes: list[int] = []  # that the tokens stand for, of plain text
        self.joined = False  # whether a table of what was gained and lost tells of these examples, in one family with others

    @property
    def key(self) -> Any:
        return ["DevLoss", examples.digest([e.row for e in self.dev]), self.every]

    def start(self, live: Live, chosen: Chosen | None) -> None:
        s = self.settings
        self.live = live
        if self.plain:
            limit = min(s.length, live.anatomy.context or s.length)
            found = [held(e.row, live.tokenizer, s, limit) for e in self.dev]
            parts, self.bytes = [some for some, _ in found], [n for _, n in found]
        else:
            parts = [[examples.tokenize(e.row, live.tokenizer, s.length, s.answer_only, s.template)] for e in self.dev]
        self.data = [t for some in parts for t in some]
        self.owner = np.repeat(np.arange(len(parts)), [len(some) for some in parts])
        if cut := sum(all(label == examples.IGNORE for t in some for label in t["labels"][1:]) for some in parts):
            raise InputError("held-out examples have no answer within the length", found=f"{cut:,} of {len(self.data):,} at length "
                             f"{s.length}", fix="raise `length`, or leave longer examples out with `max_chars`")  # fmt: skip

    def before(self, step: int) -> None:
        if step not in self.nats and (step == 0 or (self.every and step % self.every == 0)):
            self._read(self.live.model, step)

    def end(self, model: Any, step: int) -> None:
        self._read(model, step)

    def _read(self, model: Any, step: int) -> None:
        found = losses.measure(model, self.data, self.settings.batch, self.settings.dtype == "bf16")
        self.nats[step] = np.bincount(self.owner, found.nats, len(self.dev)).tolist()
        self.counts = np.bincount(self.owner, found.tokens, len(self.dev)).astype(np.int64).tolist()

    def kept(self) -> Mapping[str, Any]:
        return {"nats": {str(step): nats for step, nats in self.nats.items()}, "counts": self.counts}

    def take(self, kept: Mapping[str, Any]) -> None:
        self.nats, self.counts = {int(step): nats for step, nats in kept["nats"].items()}, list(kept["counts"])

    def of(self, step: int, label: str) -> Losses:
        """What the examples of one label cost at a step."""
        mine = [i for i, e in enumerate(self.dev) if e.label == label]
        nats = np.array(self.nats[step])[mine]
        if self.plain:
            return Losses(nats / math.log(2), np.array(self.bytes, np.int64)[mine], losses.BITS)
        return Losses(nats, np.array(self.counts, np.int64)[mine])

    def said(self) -> Said:
        steps = sorted(self.nats)
        series: dict[str, tuple[float | None, ...]] = {s: tuple(self.of(step, s).mean for step in steps) for s in self.labels}
        title, unit = ("Bits per byte of held-out text", "bits per byte") if self.plain else (
            "Loss of held-out examples", "nats per token")
        curve = Curve(title, tuple(map(float, steps)), series, "step", unit)
        data = {"dev": {label: [means[0], means[-1]] for label, means in series.items()}}
        if self.joined:
            return Said(curves=(curve,), data=data)
        before = [self.of(steps[0], label) for label in self.labels]
        after = [self.of(steps[-1], label) for label in self.labels]
        changed = losses.differences(before, after)
        rows = tuple((label, len(a.tokens), losses.value(b), losses.value(a), d)
                     for label, b, a, d in zip(self.labels, before, after, changed, strict=True))
        measure = f"bits per byte of the first {HELD} blocks of each text" if self.plain else "mean nats per token with loss"
        note = f"{measure}; examples chosen by the hash of their content; paired bootstrap, Holm over labels"
        table = Table("Held-out examples", ("examples", "n", "before", "after", "change"), rows, note)
        what = "bits per byte" if self.plain else "loss"
        few = tuple(f"{len(a.tokens)} held-out examples of {label} are too few for a verdict, whatever the interval: hold out more "
                    "(`dev`)" for label, a in zip(self.labels, after, strict=True) if len(a.tokens) < FEWEST)
        return Said(tuple(_sentence(what, *row[:1], *row[2:]) for row in rows), (table,), (curve,), few, data=data)


def _sentence(what: str, label: str, before: Estimate, after: Estimate, change: Estimate) -> str:
    return f"Held-out examples of {label}: {what} {before.value:.3f} before, {after.value:.3f} after ({change.verdict})."
