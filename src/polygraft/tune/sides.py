"""Two sides in one training: whose examples a step sees, and which parameters it moves.

Simultaneous partition SFT (arXiv 2505.18356): optimiser steps alternate between the sides, and each moves its own part. The other
side's parameters take no gradient in that step, so AdamW passes them by: no step of theirs, no decay, no count. Each side is thus
trained as by an optimiser of its own (gradients are clipped by the side's own norm), on the model that both move.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from polygraft.tune import examples
from polygraft.tune.hooks import Hook

if TYPE_CHECKING:
    from polygraft.model import Live
    from polygraft.selection import Selection
    from polygraft.tune.chosen import Chosen
    from polygraft.tune.grafts import Place


@dataclass(frozen=True)
class Sides:
    """Rows that belong to several sides: `counts` of them, end to end. Steps take turns, or, `mixed`, draw from all sides at once;
    either way every side gives the same examples as often. `parts`: what each side moves in its turn, nothing of it another's."""

    counts: tuple[int, ...]
    mixed: bool = False
    parts: tuple[Selection, ...] = ()

    @property
    def key(self) -> list[Any]:
        """JSON of what decides the result."""
        return [list(self.counts), self.mixed, [part.to_json() for part in self.parts]]

    def split(self, rows: Sequence[Any]) -> list[Sequence[Any]]:
        """The rows of each side."""
        ends = [sum(self.counts[: i + 1]) for i in range(len(self.counts))]
        return [rows[end - n : end] for n, end in zip(self.counts, ends, strict=True)]

    def turn(self, step: int) -> int:
        """Whose optimiser step this is, counted from 0."""
        return step % len(self.counts)

    def steps(self, steps: int) -> list[int]:
        """How many of so many steps each side has."""
        return [len(range(i, steps, len(self.counts))) for i in range(len(self.counts))]

    def places(self, sizes: Sequence[int], steps: int, batch: int, seed: int) -> list[int]:
        """Which example is used at each of `steps * batch` places, where the sides have so many examples (`sizes`), end to end.

        Each side's own come in the order in which it would be trained alone with the same seed.
        """
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        each = [[start + i for i in examples.order(n, count * batch, seed)]
                for start, n, count in zip(starts, sizes, self.steps(steps), strict=True)]
        if self.mixed:
            out = [i for own in each for i in own]
            random.Random(f"mixed/{seed}").shuffle(out)
            return out
        own = [iter(places) for places in each]
        return [next(own[self.turn(step)]) for step in range(steps) for _ in range(batch)]


class Alternate(Hook):
    """Before each step, let the parameters of the side whose turn it is take gradients, and no other side's."""

    def __init__(self, sides: Sides):
        self.sides = sides
        self.owned: list[list[Any]] = []
        self.now: int | None = None

    def start(self, live: Live, chosen: Chosen | None) -> None:
        from polygraft.tune.grafts import live_parameter

        assert chosen is not None
        own: list[dict[int, Any]] = [{} for _ in self.sides.parts]
        for graft in chosen.grafts.all:
            own[self._owner(graft.place)][id(graft.held)] = graft.held
        for mine, part in zip(own, self.sides.parts, strict=True):
            whole = (live.model.get_parameter(live_parameter(live, key)) for key in part.rows)
            mine |= {id(parameter): parameter for parameter in whole if parameter.requires_grad}
        self.owned, self.now = [list(mine.values()) for mine in own], None

    def _owner(self, place: Place) -> int:
        """The side that a graft belongs to: its tensor's, or that of its rows."""
        return next(i for i, part in enumerate(self.sides.parts) if place.key in part
                    and ((rows := part.rows[place.key]) is None or int(place.rows[0]) in rows))  # fmt: skip

    def before(self, step: int) -> None:
        turn = self.sides.turn(step)
        if turn == self.now:
            return
        for i, parameters in enumerate(self.owned):
            for parameter in parameters:
                parameter.requires_grad_(i == turn)
        self.now = turn
