"""The steps of pruning."""

from __future__ import annotations

from polygraft.prune.calibration import Spoken
from polygraft.prune.depth import depth_step
from polygraft.prune.harm import Judge
from polygraft.prune.imatrix import imatrix_step
from polygraft.prune.pruning import prune_step
from polygraft.step import Step


def steps(judge: Judge, spoken: Spoken | None = None) -> tuple[Step, ...]:
    """All of them. `judge` evaluates models; `spoken(text, tag)`: whether a text is in that language, None where it cannot be
    said."""
    return (prune_step(spoken), depth_step(judge, spoken), imatrix_step(spoken))
