"""The steps of pruning."""

from __future__ import annotations

from polygraft.prune.calibration import Spoken
from polygraft.prune.pruning import prune_step
from polygraft.step import Step


def steps(spoken: Spoken | None = None) -> tuple[Step, ...]:
    """All of them. `spoken(text, tag)`: whether a text is in that language, None where it cannot be said."""
    return (prune_step(spoken),)
