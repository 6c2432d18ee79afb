"""`eval` as a step of a recipe: several models on the same items, scores with intervals, differences with verdicts."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from polygraft.evals import estimate, metrics, models, notes, records, run, tasks
from polygraft.evals.findings import Asked, Findings
from polygraft.evals.jobs import expanded, faults, fetched, foreign_words, make_jobs, said
from polygraft.evals.models import Evaluated, model_size
from polygraft.evals.notes import size
from polygraft.evals.opening import lacks_template, no_template
from polygraft.evals.run import Job
from polygraft.evals.settings import EvalConfig
from polygraft.evals.verdicts import criteria, planning
from polygraft.evals.verdicts import suites as suite_results
from polygraft.meter import LIBRARIES
from polygraft.result import Result, Sample
from polygraft.sources import SERVER
from polygraft.step import Context, Plan, Step

# ----------------------------------------------------------------------------------------------------------------- plan


def plan(config: EvalConfig, context: Context) -> Plan:
    """From headers and data files: what is asked, roughly how long it takes, and every reason why it would fail."""
    jobs, wrong = faults(config, context)
    if wrong:
        return Plan(problems=tuple(wrong))
    others = f", compared with {config.compared_with}" if len(config.models) > 1 else ""
    lines = [f"{len(config.models)} model{'s' * (len(config.models) > 1)}{others}", *map(_line, jobs)]
    lines += [f"{w}: as lm-eval runs it; its items are read and counted when the step runs" for w in foreign_words(config, context)]
    later = [f"{e.task.name} {e.language}" for e in fetched(config, context)]
    lines += [f"{name}: from the hub; its items are read and counted when the step runs" for name in later]
    work = estimate.work(jobs)
    seconds, peak = 0.0, 0
    for ref in config.models:
        if (source := context.model(ref)).kind == SERVER:
            from polygraft.evals.engines.client import Address

            Address.parse(source.spec).refuse(documents=any(j.documents for j in jobs), chat_choices=config.chat and any(
                j.task is not None and not j.task.written for j in jobs))
            continue
        if config.chat and lacks_template(source):
            wrong.append(no_template(source))
        parameters, stored = model_size(source)
        seconds += work.seconds(parameters)
        peak = max(peak, parameters * 4 + stored)
    uncounted = bool(later or foreign_words(config, context))
    return Plan(tuple(lines), peak_bytes=peak + LIBRARIES, disk_bytes=1 << 20, seconds=seconds, problems=tuple(wrong),
                notes=(work.note(uncounted), *said(config, context)))


def _line(job: Job) -> str:
    if job.task is None:
        return f"{job.name} {job.language}: {len(job.documents)} documents, {size(job):,} bytes"
    shots = f", {job.shots} worked examples" * bool(job.shots)
    seen = planning.seen(len(job.items), (metrics.get(m).binary for m in job.task.metrics))
    return f"{job.name} {job.language}: {len(job.items)} items{shots}" + f"; {seen}" * bool(seen)


# ------------------------------------------------------------------------------------------------------------------ run


def run_step(config: EvalConfig, context: Context, folder: Path) -> Result:
    """Evaluate each model in turn (one in memory at a time). Raises UserError when a model cannot be loaded or scored."""
    shutil.rmtree(folder / "samples", ignore_errors=True)  # an interrupted run's, half a set; the responses are what is kept
    outcome = models.evaluate(config, context, make_jobs(config, context), folder)
    shutil.rmtree(folder / "responses", ignore_errors=True)  # the samples hold all of it
    jobs, evaluated = outcome.jobs, outcome.evaluated
    reference = models.labels(config.models)[list(config.models).index(config.compared_with)]
    result = build_result(config, jobs, evaluated, reference, outcome.how)
    result = replace(result, caveats=(*result.caveats, *outcome.notes, *said(config, context)))
    if config.criteria is None:
        return result
    return criteria.judged(result, criteria.read(context.data(config.criteria)),
                           findings(config, jobs, evaluated, reference).demanded())


# --------------------------------------------------------------------------------------------------------------- result


def findings(config: EvalConfig, jobs: Sequence[Job], evaluated: Sequence[Evaluated], reference: str) -> Findings:
    """What the records of every job that is scored say."""
    asked = [Asked(job.title, job.language, found) for job, found in zip(jobs, by_job(jobs, evaluated)) if not job.reading]
    return Findings(asked, reference, config.seed, [suite_results.composition(g) for g in expanded(config)], config.tasks)


def samples(config: EvalConfig, jobs: Sequence[Job], evaluated: Sequence[Evaluated]) -> tuple[Sample, ...]:
    """Written answers side by side: those generated to be read, and a few of each generated task, chosen by hash."""
    out = []
    for i, job in enumerate(jobs):
        if job.task is None or job.task.output_type == tasks.CHOICE:
            continue
        ids, task = [x.id for x in job.items], job.task.task
        for k in range(len(ids)) if job.reading else records.chosen(ids, config.generate or 3, config.seed):
            item, outputs = job.items[k], {e.label: str(e.records[i][k]["output"]).strip() for e in evaluated}
            gold = item.golds[0] if item.golds else ""
            out.append(Sample(f"{task}/{item.id}", job.language, item.prompt, outputs, gold, "chosen by the hash of its id"))
    return tuple(out)


def build_result(config: EvalConfig, jobs: Sequence[Job], evaluated: Sequence[Evaluated], reference: str, how: str) -> Result:
    """Tables, verdicts, samples and caveats; `data` holds every score and difference as plain values."""
    found = findings(config, jobs, evaluated, reference)
    settings = config.model_dump(mode="json", exclude={"models", "corpora", "data"})
    asked = sorted({f"{j.name} {j.language} (n = {len(j.items) or len(j.documents) or j.size})" for j in jobs
                    if not j.reading})
    hub = tuple(dict.fromkeys(ref for j in jobs for ref in j.hub))
    return Result(
        "eval@1", "", f"Evaluation of {', '.join(e.label for e in evaluated)}",
        summary=found.summary(),
        tables=found.tables(),
        samples=samples(config, jobs, evaluated),
        inputs=hub,
        caveats=(*found.caveats(),
                 *notes.notes(jobs, by_job(jobs, evaluated), limit=config.limit, max_bytes=config.max_bytes),
                 *suite_results.notes(found.suites, found.measures),
                 f"Scores were {how}; other machines and versions differ slightly."),
        data=found.data() | {"settings": settings, "asked": asked, "computed": how, "records": index(jobs, evaluated),
                             "hub": {ref.spec: ref.revision for ref in hub}},
    )


def by_job(jobs: Sequence[Job], evaluated: Sequence[Evaluated]) -> list[dict[str, list[dict[str, Any]]]]:
    """For each job: every model's records."""
    return [{e.label: e.records[i] for e in evaluated} for i in range(len(jobs))]


def index(jobs: Sequence[Job], evaluated: Sequence[Evaluated]) -> list[dict[str, str]]:
    """Which file holds whose records of what: how `polygraft compare` finds them."""
    return [{"file": f"samples/{run.sample_name(j, e.label)}.jsonl", "task": j.name, "language": j.language, "model": e.label}
            for j in jobs if not j.reading for e in evaluated]


STEPS = (Step("eval", 1, EvalConfig, plan, run_step, resumable=True),)

__all__ = ["STEPS", "EvalConfig", "build_result", "plan", "run_step"]
