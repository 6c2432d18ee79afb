"""How much each stage does. The smoke stage is small and the same for everybody; what it took sizes the stages after it.

Equal for every method that trains: optimiser steps, examples in a step and tokens of an example at most; for all: the items asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from polygraft.poc.config import Stage
from polygraft.poc.facts import WINDOWS
from polygraft.poc.methods import Sizes

SHARE: dict[Stage, float] = {"smoke": 0.1, "pilot": 0.3, "full": 0.6}  # of the budget
TRAINING = 0.6  # of a stage's time goes into training, the rest into measuring
ROWS, LENGTH = 8, 256
SMOKE = {"steps": 4, "items": 12, "read": 2000, "windows": 4, "max_bytes": 8_000}
READ = {"pilot": 20_000, "full": 100_000}  # tokens of each language that methods look at before they act
LEAST_STEPS, LEAST_ITEMS, PROBLEMS, MOST_STEPS = 8, 24, 100, 10**6
BYTES = {"pilot": 60_000, "full": 200_000}  # of a text whose bits per byte are measured
ROUNDS = 4.0  # times that a text is read at most: beyond, repetition gains little (Muennighoff et al., arXiv 2305.16264)


@dataclass(frozen=True)
class Pace:
    """What the stage before took: seconds of all training for one optimiser step of every method, of all measuring for one item,
    and of everything else. All from results, so that they are this machine's."""

    step: float
    item: float
    rest: float


def smoke(longest: int) -> Sizes:
    """The smallest run that passes through everything."""
    return Sizes("smoke", rows=ROWS, length=min(LENGTH, longest), **SMOKE)


def pace(training: Mapping[str, tuple[float, int]], measuring: Sequence[float], everything: float, items: int) -> Pace:
    """From (seconds, steps) of each training, the seconds of each measurement, and those of all steps together."""
    step = sum(seconds / max(1, steps) for seconds, steps in training.values())
    measured = sum(measuring)
    return Pace(step, measured / max(1, items), max(0.0, everything - measured - sum(s for s, _ in training.values())))


def fitted(stage: Stage, budget: float, found: Pace, before: Sizes, *, items: int, text_bytes: int) -> Sizes:
    """The sizes of a pilot or full stage: as many steps and items as its share of the budget has room for, none fewer than before.

    `text_bytes` bounds how often a text is read (a token is a byte at least); `items` is how many the user's evaluation has, and
    as many word problems are asked, or `PROBLEMS` where it has fewer.
    """
    room = max(0.0, SHARE[stage] * budget - found.rest)
    most = int(ROUNDS * text_bytes / (before.rows * before.length)) if text_bytes else MOST_STEPS
    steps = max(before.steps, LEAST_STEPS, many(TRAINING * room, found.step, most))
    asked = max(before.items, LEAST_ITEMS, many((1 - TRAINING) * room, found.item, max(items, PROBLEMS)))
    return Sizes(stage, steps, before.rows, before.length, asked, READ[stage], WINDOWS, BYTES[stage])


def many(seconds: float, each: float, most: int) -> int:
    """How many of so many seconds each fit, at most `most`."""
    return most if each * most <= seconds else int(seconds / each)
