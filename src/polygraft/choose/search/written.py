"""Finalists write: each is put into one model in memory, tensor by tensor, and asked what likelihoods cannot tell."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from polygraft.choose.candidates import Candidate, needed
from polygraft.choose.search.asking import Ask, split
from polygraft.choose.search.clock import Clock
from polygraft.choose.search.config import Search
from polygraft.choose.search.opening import Opened
from polygraft.evals import conditions, run
from polygraft.evals.findings import Asked, Findings
from polygraft.evals.responses import Store
from polygraft.evals.run import Job
from polygraft.evals.timed import picked
from polygraft.merge import live as merging
from polygraft.step import Context


def asked(config: Search, found: Opened, jobs: Sequence[Job], finalists: Sequence[Candidate], context: Context,
          least: tuple[int, int], clock: Clock) -> Findings | None:
    """What the finalists wrote to the held-out items of these jobs, compared with the first of them; None where there is no job,
    or no time is left. Who is not asked for want of time is said in the clock's notes."""
    if not jobs:
        return None
    held = [picked(j, [i for unit in split(Ask(j), config.confirm, config.seed, least)[1] for i in unit]) for j in jobs]
    live = conditions.load(found.sources[0], config.dtype, config.device)
    records: dict[str, list[list[dict[str, Any]]]] = {}
    longest = 0.0
    for i, c in enumerate(finalists):
        if not clock.another(longest, ()):
            clock.notes.append(f"The time was over before {', '.join(c.name for c in finalists[i:])} had written answers.")
            break
        began = time.monotonic()
        context.progress(i, len(finalists), f"{c.name} writes")
        profile, places = needed(c.profile)
        merging.apply(profile, live, [found.named[p].weights for p in places])
        records[c.name] = run.run_jobs(conditions.engine(live), held, folder=None, model=c.name, store=Store(None, c.name),
                                       computed={}, seed=config.seed, chat=config.chat, system=config.system)
        longest = max(longest, time.monotonic() - began)
    if not records:
        return None
    each = [Asked(j.title, j.language, {name: rows[k] for name, rows in records.items()}) for k, j in enumerate(held)]
    return Findings(each, finalists[0].name, config.seed)

