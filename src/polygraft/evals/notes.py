"""What a reader of an evaluation must know besides its numbers: what was left out, cut, or could not be asked as wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polygraft.evals.run import Job

Records = Mapping[str, Sequence[dict[str, Any]]]  # model -> its records of one job


def notes(jobs: Sequence[Job], found: Sequence[Records], *, limit: int | None, max_bytes: int) -> tuple[str, ...]:
    """One sentence for each thing, in the order of the jobs."""
    out = []
    if limit is not None and any(j.foreign or (j.task and not j.task.source.generator) for j in jobs):
        out.append(f"Only the first {limit} items of each task were asked.")
    if any(size(j) >= max_bytes for j in jobs if j.documents):
        out.append(f"Corpora were read until {max_bytes:,} bytes.")
    if alone := [j.language for j in jobs if len(j.documents) == 1]:
        out.append(f"The corpus of {', '.join(alone)} is one document here, of which no difference can be told from chance: give "
                   "shorter documents, or read more bytes.")
    if any(j.reading for j in jobs):
        out.append("The written answers are for reading; too few to score.")
    return (*out, *(said for job, records in zip(jobs, found) for model, rows in records.items() for said in _of(job, model, rows)))


def size(job: Job) -> int:
    """UTF-8 bytes of a corpus."""
    return sum(len(t.encode("utf-8", "replace")) for t in job.documents)


def _of(job: Job, model: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    where, n, out = f"{job.title} {job.language}, {model}", len(rows), []
    if fewer := [r["shots"] for r in rows if r.get("shots", job.shots) < job.shots]:
        out.append(f"{where}: {len(fewer)} of {n} items were asked with fewer than {job.shots} worked examples (as few as "
                   f"{min(fewer)}), because more did not fit the model's context.")
    if cut := sum(bool(r.get("truncated_prompt")) for r in rows):
        out.append(f"{where}: {cut} of {n} questions lost their beginning, because they do not fit the model's context.")
    if ties := sum(bool(r.get("tie")) for r in rows):
        out.append(f"{where}: in {ties} of {n} items two choices were equally likely; a tie counts as wrong.")
    if job.foreign is not None and not any(r["scores"] for r in rows):
        out.append(f"{where}: lm-eval gives no score that is a mean over items; nothing is compared.")
    return out
