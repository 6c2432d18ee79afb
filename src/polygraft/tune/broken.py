"""A training whose numbers are not finite any more: it stops before they reach the weights, and says which examples were read."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraft.errors import StepFailed
from polygraft.tune import examples, state
from polygraft.tune.processes import from_first
from polygraft.tune.tokenised import cut

if TYPE_CHECKING:
    from polygraft.ranks import Ranks
    from polygraft.tune.training import Work

NAMED = 8  # so many examples are named, of more the count


def failure(what: str, value: float, step: int, batches: Sequence[Mapping[str, Any]], work: Work, tokenizer: Any, kept: Path,
            here: Ranks) -> StepFailed:  # fmt: skip
    """What to raise, in every process, for a `value` (the loss or the gradient's length at `step`) that is not finite.

    `batches`: what the forward passes that broke have read in this process, as the collator made them; `kept`: the folder of
    training states.
    """
    last = from_first(here, str(state.latest(kept, work.job) or ""))
    there = (f"; the state after step {int(Path(last).name.removeprefix(state.PREFIX))} is kept in {last}, from which the same "
             "settings and examples go on; other ones begin anew") if last else ""
    exact = "" if work.settings.dtype == "fp32" else ", or train in fp32"
    return StepFailed(f"the {what} is not a number any more", where=f"step {step + 1}",
                      found=f"{value} on {named(batches, work, tokenizer, here)}",
                      fix=f"lower the learning rate, look at these examples{exact}{there}")  # fmt: skip


def diverged(losses: Sequence[float], vocab: int) -> tuple[str, ...]:
    """A caveat where a loss is over ten times the first (and 1 nat), or 1 nat over both the first and a blind guess.

    A blind guess among `vocab` tokens costs log(vocab) nats; 1 nat more leaves room for the noise of a batch.
    """
    most, blind = max(losses), max(losses[0], math.log(vocab)) + 1.0
    if most <= max(1.0, min(10 * losses[0], blind)):
        return ()
    rose = f"rose from {losses[0]:,.2f} to {most:,.2f} nats at step {losses.index(most) + 1:,}"
    return (f"the training diverged: the loss {rose} (a blind guess costs {math.log(vocab):.2f}); lower the learning rate, and "
            "trust this model only if an evaluation speaks for it",)


def named(batches: Sequence[Mapping[str, Any]], work: Work, tokenizer: Any, here: Ranks) -> str:
    """The examples of these batches, in all processes, by their numbers in the data, counted from 1."""
    s = work.settings
    numbers: dict[tuple[int, ...], int] = {}
    for i, row in enumerate(work.rows, 1):
        whole = examples.tokenize(row, tokenizer, sys.maxsize, s.answer_only, s.template)
        for part in cut(whole, row, tokenizer, s, s.length):
            numbers.setdefault(tuple(part["input_ids"]), i)
    mine = np.zeros(len(work.rows) + 1, np.int64)
    mine[[number for ids in read(batches) for start, number in numbers.items() if start[: len(ids)] == ids]] = 1
    found = np.flatnonzero(here.sum(mine)).tolist()
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return f"example{'s' * (len(found) != 1)} {', '.join(map(str, found[:NAMED]))}{more} of {len(work.rows)}"


def read(batches: Sequence[Mapping[str, Any]]) -> list[tuple[int, ...]]:
    """The token ids of each example in these batches, without padding; packed examples one by one."""
    found = []
    for batch in batches:
        ids, at = batch["input_ids"].tolist(), batch.get("position_ids")
        if at is None:
            found += [tuple(row[: sum(mask)]) for row, mask in zip(ids, batch["attention_mask"].tolist(), strict=True)]
            continue
        starts = [i for i, p in enumerate(at[0].tolist()) if p == 0] + [len(ids[0])]
        found += [tuple(ids[0][a:b]) for a, b in pairwise(starts)]
    return found
