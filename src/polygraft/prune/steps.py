"""The steps of pruning."""

from __future__ import annotations

from collections.abc import Callable

from polygraft.prune.calibration import Spoken
from polygraft.prune.depth import depth_step
from polygraft.prune.experts import experts_step
from polygraft.prune.forecast import STEP as FORECAST
from polygraft.prune.generated import text_step
from polygraft.prune.grams.gathering import gram_step
from polygraft.prune.grams.ranking import score_step
from polygraft.prune.harm import Judge
from polygraft.prune.imatrix import imatrix_step
from polygraft.prune.lowbit import lowbit_step
from polygraft.prune.pruning import prune_step
from polygraft.prune.study.around import Around
from polygraft.prune.study.steps import study_step
from polygraft.step import Step


def steps(judge: Judge, study: Around, spoken: Spoken | None = None, forget: Callable[[], None] = lambda: None) -> tuple[Step, ...]:
    """All of them. `judge` evaluates models, `study` analyses them too; `spoken(text, tag)`: whether a text is in that language,
    None where it cannot be said; `forget()` gives back what memory it took for that."""
    return (prune_step(spoken, forget), FORECAST, depth_step(judge, spoken), experts_step(judge, spoken), imatrix_step(spoken),
            lowbit_step(judge, spoken), gram_step(spoken), text_step(judge, spoken), score_step(judge),
            study_step(study, spoken))  # fmt: skip
