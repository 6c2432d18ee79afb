"""`merge.search` as a step: plan from headers and item files; run, and go on from what an interrupted run had asked."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from polygraft.choose.candidates import Candidate, needed
from polygraft.choose.search import asking, confirm, fanout, proposals, report, strategies, written
from polygraft.choose.search import opening as sources
from polygraft.choose.search.clock import Clock, clock
from polygraft.choose.search.config import CONFIRM, SELECT, Search
from polygraft.choose.search.judge import Judge, Score
from polygraft.choose.search.kept import FOLDER, Kept
from polygraft.choose.search.objectives import resolve
from polygraft.choose.search.opening import Opened
from polygraft.choose.search.planning import plan
from polygraft.choose.search.space import Space
from polygraft.choose.search.strategies import Strategy
from polygraft.evals.budget import parse_duration
from polygraft.evals.jobs import make_jobs, said
from polygraft.merge import write
from polygraft.merge.steps import sealed
from polygraft.result import Result
from polygraft.step import Context, Step

STRATEGIES: dict[str, Strategy] = {"grid": strategies.grid, "halving": strategies.halving, "greedy": strategies.greedy,
                                   "optuna": proposals.optuna}
LEAST = (SELECT, CONFIRM)
SPILL = "states"


def run(config: Search, context: Context, folder: Path) -> Result:
    """Search, confirm, and write the chosen merge where that was asked for. Raises UserError."""
    begun = clock(parse_duration(config.time_budget) if config.time_budget else None, 0)
    found = sources.opened(config, context)
    jobs, writing = asking.scorable(make_jobs(config.evaluation(), context))
    grafter = _grafter(config, found, folder)
    sheet = asking.sheet(jobs, config.kl, grafter.tokenizer, grafter.max_length, chat=config.chat, system=config.system,
                         confirm=config.confirm, seed=config.seed, least=LEAST)
    objectives = resolve(config.objectives, sheet.asks, config.metric)
    space = Space(config, found.anatomy, found.names, sources.measured(config, found, context))
    near, how = found.near(config), [[[s.spec, s.identity] for s in found.sources], str(grafter.frame.model.dtype)]
    kept = Kept.open(folder, sheet.rows, sheet.scored, near, how)
    judge = Judge(sheet, objectives, _score(config, found, grafter, context), near, kept, context.progress, begun.spend)
    outcome = searched(config, space, judge, begun)
    if writing:
        some = [*outcome.picked.finalists[:1], *(a for a in outcome.done.controls if a.params["kind"] != "random")]
        outcome = replace(outcome, written=written.asked(config, found, writing, some, context, LEAST, begun))
    caveats = (*found.notes, *grafter.notes, *begun.notes, *said(config.evaluation(), context))
    made = _written(config, found, outcome.best, folder, context) if config.write == "best" else {}
    for scratch in (FOLDER, SPILL):
        shutil.rmtree(folder / scratch, ignore_errors=True)
    refs = [s.ref(n) for n, s in zip(found.names, found.sources)]
    work = {"work": vars(grafter.work)} if config.workers == 1 else {}  # what other processes computed is not counted here
    return report.result(outcome, found.anatomy, refs, tuple(dict.fromkeys(caveats)), made | work)


def searched(config: Search, space: Space, judge: Judge, begun: Clock) -> report.Outcome:
    """Go through the candidates, choose, confirm."""
    sheet, anchors, reference = judge.sheet, space.anchors(), sources.reference(config, space)
    begun.finalists = len(anchors) + config.windows + 2
    begun.start(judge, anchors, sheet.select, strategies.LEAST)
    search = strategies.Search(space, judge, begun, anchors, reference, config.tolerance)
    trail = STRATEGIES[config.strategy](search, sheet.select, sheet.held)
    picked = confirm.chosen(search, trail)
    against = confirm.controls(space.anatomy, anchors, picked.best, config.windows, config.seed)
    done = confirm.confirmed(judge, picked, against, config.seed)
    return report.Outcome(judge, picked, done, reference, config.strategy, config.seed, tuple(anchors), config.tolerance,
                          config.windows)


def _grafter(config: Search, found: Opened, folder: Path) -> Any:
    from polygraft.choose.graft import Grafter

    spill = folder / SPILL
    spill.mkdir(parents=True, exist_ok=True)
    return Grafter.open(found.sources, lead=0, dtype=config.dtype, device=config.device, spill=spill)


def _score(config: Search, found: Opened, grafter: Any, context: Context) -> Score:
    if config.workers == 1:
        return fanout.local(grafter)
    how = fanout.opening(found.sources, config.dtype, config.device, context.offline)
    return fanout.over_ray(how, config.workers, found.anatomy)


def _written(config: Search, found: Opened, best: Candidate, folder: Path, context: Context) -> dict[str, Any]:
    """The chosen merge in `folder/model`, complete with its own manifest."""
    shutil.rmtree(folder / "model", ignore_errors=True)  # half of one, from a run that was cut off
    profile, places = needed(best.profile)
    named = [found.named[i] for i in places]
    donor = next((n.name for n in named if n.name == best.params["task"]), named[0].name)
    recipe = {"use": "merge.search@1", **config.model_dump(mode="json"), "chosen": dict(best.params)}
    job = write.job(profile, named, found.anatomy, donor, recipe=recipe, shard_bytes=config.shard_bytes)
    made = sealed(folder, lambda model: write.fill(job, model, context.progress))
    return {"model": {"donor": made.data["donor"], "bytes": made.data["bytes"]}}


STEPS: Sequence[Step] = (Step("merge.search", 1, Search, plan, run, resumable=True, asks_folder=lambda c: c.write == "best"),)
