"""What each of two sides did in a training: its losses, its tokens, its share; as a table and as curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from polygraft.result import Cell, Curve, Table
from polygraft.tune.owners import SIDES, Parts

if TYPE_CHECKING:
    from polygraft.selection import Shapes
    from polygraft.tune.sides import Sides
    from polygraft.tune.training import Trained

POINTS = 200  # of a curve
UNIT = "nats per answer token"


@dataclass(frozen=True)
class Run:
    """One side's optimiser steps, in order: their places in the training, their losses (nats per answer token; empty where steps
    saw both sides' examples), and the tokens that they saw, with those that carried loss, and the examples, one counted as often as
    it was seen."""

    at: tuple[int, ...]
    losses: tuple[float, ...]
    tokens: int | None
    answer_tokens: int | None
    examples: int | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Run:
        return cls(tuple(row["at"]), tuple(row["losses"]), row["tokens"], row["answer_tokens"], row["examples"])


def of(done: Trained, at: Sequence[int] | None = None) -> Run:
    """These steps (counted from 0; None: all) of a training."""
    steps = range(len(done.losses)) if at is None else at
    tokens, scored, seen = (sum(done.seen[i][k] for i in steps) for k in range(3))
    return Run(tuple(i + 1 for i in steps), tuple(done.losses[i] for i in steps), tokens, scored, seen)


def by_turn(done: Trained, sides: Sides) -> list[Run]:
    """The runs of a training whose steps take turns; of one whose examples are mixed, the sides' steps are not apart."""
    if sides.mixed:
        return [Run((), (), None, None, None) for _ in sides.counts]
    return [of(done, [i for i in range(len(done.losses)) if sides.turn(i) == side]) for side in range(len(sides.counts))]


def table(runs: Sequence[Run], parts: Parts, examples: Sequence[int], shown: Sequence[int | None], shapes: Shapes) -> Table:
    """One row a side. `examples`: how many each has; `shown`: how many were seen, None where that is not known."""
    rows: list[tuple[Cell, ...]] = []
    for name, run, part, data, seen in zip(SIDES, runs, parts.both, examples, shown, strict=True):
        common = (name, data, seen, None if seen is None else round(seen / data, 2))
        if run.losses:
            tenth = max(1, len(run.losses) // 10)
            ends = (sum(x) / tenth for x in (run.losses[:tenth], run.losses[-tenth:]))
            rows.append((*common, run.tokens, run.answer_tokens, part.count(shapes), f"{part.share(shapes):.2%}", *ends))
        else:
            rows.append(common)
    columns: tuple[str, ...] = ("side", "examples", "seen", "times round")
    if rows and len(rows[0]) > len(columns):
        columns += ("tokens seen", "of them with loss", "parameters owned", "share of the model", "loss, first tenth",
                    "loss, last tenth")  # fmt: skip
    return Table("The two sides", columns, tuple(rows), "both sides give equally many examples; their tokens are equal only as "
                 "far as their texts are equally long")  # fmt: skip


def curves(runs: Sequence[Run]) -> tuple[Curve, ...]:
    """Each side's loss, averaged in bins when it has more steps than points."""
    found = []
    for name, run in zip(SIDES, runs, strict=True):
        if run.losses:
            width = max(1, math.ceil(len(run.losses) / POINTS))
            starts = range(0, len(run.losses), width)
            x = tuple(float(run.at[min(i + width, len(run.at)) - 1]) for i in starts)
            y = tuple(sum(some) / len(some) for i in starts for some in (run.losses[i : i + width],))
            found.append(Curve(f"Loss on the {name}'s examples", x, {name: y}, "step", UNIT))
    return tuple(found)
