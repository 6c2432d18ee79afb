"""Alignment pairs of the question side of MGSM8KInstruct as it is, where it is on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from polygraft.sources import resolve
from polygraft.step import Context
from polygraft.tune import translation

pytestmark = pytest.mark.real
DATA = Path(__file__).parents[3] / "shared" / "data"
needed = pytest.mark.skipif(not (DATA / "gsm8k_multiq").is_dir(), reason="gsm8k_multiq is not in ../shared/data")


@needed
def test_every_row_is_a_pair_or_is_counted():
    files = {tag: f"gsm8k_multiq/gsm8k_train_{tag}.jsonl.xz" for tag in ("fr", "sw", "zh")}
    config = translation.Alignment.model_validate({"pairs": files, "english": "gsm8k/train.jsonl.gz", "balance": True})
    made = translation.gather(config, Context(resolve, lambda ref: DATA / ref), 0)
    assert {c.language: c.rows for c in made.counts} == {"fr": 7464, "sw": 7469, "zh": 7363}
    assert all(c.used + c.same + c.spare == c.rows and c.alone == c.empty == 0 for c in made.counts)
    assert {c.language: c.same for c in made.counts} == {"fr": 377, "sw": 11, "zh": 29}, "questions that were left in English"
    assert len({c.used for c in made.counts}) == 1 and not made.caveats()
