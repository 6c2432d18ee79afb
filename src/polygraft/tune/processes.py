"""Several processes that train one model, started by torchrun or `accelerate launch`: the steps that one process would do.

An optimiser step is the same examples however many processes share it: `batch` x `accumulate` of them, dealt out in order. The
gradient is reduced by torch's DistributedDataParallel; frozen tensors take no part in that, grafts do like any parameter. Only the
first process writes, scores and speaks; what it decides (where to resume, what a check read) is told to the others.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from polygraft.errors import RecipeError
from polygraft.ranks import Ranks
from polygraft.watching import Reading, Watcher

if TYPE_CHECKING:
    from polygraft.tune.settings import Settings


def dealt(s: Settings, size: int) -> tuple[int, int]:
    """Examples in one forward pass of one process, and its forward passes in an optimiser step.

    The passes are shared out where their number allows it, else the examples of each. Raises RecipeError where neither can be.
    """
    if s.accumulate % size == 0:
        return s.batch, s.accumulate // size
    if s.batch % size == 0:
        return s.batch // size, s.accumulate
    raise RecipeError("the examples of a step cannot be shared equally", where="batch, accumulate",
                      found=f"{s.accumulate} passes of {s.batch} examples for {size} processes",
                      fix=f"make `accumulate` or `batch` a multiple of {size}")  # fmt: skip


def from_first(here: Ranks, value: Any) -> Any:
    """The first process's JSON value, in every process. The others' `value` is not looked at."""
    import numpy as np

    if here.size == 1:
        return value
    text = np.frombuffer(json.dumps(value).encode(), np.uint8) if here.rank == 0 else np.zeros(0, np.uint8)
    total = np.zeros(int(here.sum(np.array([len(text)], np.int64))[0]), np.int64)
    total[: len(text)] = text
    return json.loads(here.sum(total).astype(np.uint8).tobytes())


@dataclass
class OneReader:
    """A watcher that scores in the first process alone; the others are told what it read, so that all stop, or go on, together."""

    watcher: Watcher
    here: Ranks

    @property
    def job(self) -> str:
        return self.watcher.job

    @job.setter
    def job(self, job: str) -> None:
        self.watcher.job = job

    def read(self, model: Any, tokenizer: Any, step: int) -> Reading:
        found: dict[str, Any] = {}
        if self.here.rank == 0:
            begun = time.monotonic()
            found = asdict(self.watcher.read(model, tokenizer, step)) | {"seconds": round(time.monotonic() - begun, 3)}
        return Reading.from_json(from_first(self.here, found))
