"""What an evaluation costs before it is run: tokens that each model reads and writes, and how long a CPU takes for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from polygraft.evals.items import Item
from polygraft.evals.notes import size
from polygraft.evals.run import Job

BYTES_PER_TOKEN, AROUND = 2.5, 10  # UTF-8 bytes of a token in most languages; tokens of what a template puts around an item
READ, WRITE = 1e11, 2e10  # flops a second of two CPU cores: texts are read in batches; about 24 answers are written side by side
EXAMPLE = 135_000_000  # parameters that the note tells its rates for


@dataclass(frozen=True)
class Work:
    """Tokens that one model reads, and those that it writes if every answer is as long as it may be."""

    read: float
    written: int

    def seconds(self, parameters: int) -> float:
        """Of two CPU cores, to the order of magnitude: two operations a parameter and token."""
        return 2 * parameters * (self.read / READ + self.written / WRITE)

    def note(self, uncounted: bool = False) -> str:
        """What the time stands on; `uncounted`: there are items that are only counted when the step runs."""
        if not self.read:
            return "time is not known before the items are counted"
        told = f"each model reads about {_round(self.read)} tokens, {_round(READ / 2 / EXAMPLE)} a second at 135M parameters"
        if self.written:
            told += f", and writes at most {_round(self.written)}, {_round(WRITE / 2 / EXAMPLE)} a second"
        return (f"time is a rough guess for two CPU cores: {told}; an accelerator is much faster"
                + "; what comes from the hub or from lm-eval is not in it" * uncounted)


def work(jobs: Sequence[Job]) -> Work:
    """Of all jobs. Worked examples, the same before every item, are read once; lm-eval's own tasks are not counted."""
    read = sum(sum(map(_asked, j.items)) + _bytes(_examples(j)) / BYTES_PER_TOKEN + size(j) / BYTES_PER_TOKEN for j in jobs)
    most = ((j.task.generation.max_gen_toks, len(j.items)) for j in jobs if j.task is not None and j.task.generation is not None)
    return Work(read, sum(tokens * n for tokens, n in most))


def _asked(item: Item) -> float:
    return AROUND + _bytes(item.prompt + "".join(item.choices)) / BYTES_PER_TOKEN


def _examples(job: Job) -> str:
    blocks = {(i.headline, i.examples): None for i in job.items}
    return "".join(headline + "".join(q + a for q, a in examples) for headline, examples in blocks)


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def _round(n: float) -> str:
    """To two digits: 1,234 is 1,200."""
    return f"{float(f'{n:.2g}'):,.0f}"
