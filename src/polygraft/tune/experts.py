"""Two experts of one base, one after another, and the model that takes from each what is its side's.

Freeze-then-train and train-then-revert (arXiv 2505.18356): theta'[p] = theta_e[p] where p is of e's part, theta_0[p] elsewhere.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from polygraft import files
from polygraft.checkpoint import Checkpoint
from polygraft.result import Result
from polygraft.selection import Selection
from polygraft.step import Context
from polygraft.tune import retain, sidelog
from polygraft.tune.config import Around, Tuning
from polygraft.tune.output import write_like
from polygraft.tune.proof import Proof, prove
from polygraft.tune.running import Task, fit, work_of

RESULT = "result.json"


@dataclass(frozen=True)
class Expert:
    """A trained side: its model folder, its steps, what its training told."""

    path: Path
    run: sidelog.Run
    result: Result


def expert(task: Task, config: Tuning, context: Context, folder: Path, around: Around) -> Expert:
    """Train one side's expert into `folder`, or take it from there where it was finished by an interrupted run of the same job."""
    key = _key(task, config, context, around)
    if folder.exists() and not _whole(folder, key):
        shutil.rmtree(folder)
    if not folder.exists():
        with files.commit(folder, {"kind": "expert", "job": key}, keep=True) as part:
            done, result = fit(task, config, context, part, around)
            files.write_json(part / RESULT, {"run": sidelog.of(done).to_json(), "result": result.to_json()})
    kept = files.read_json(folder / RESULT)
    return Expert(folder / "model", sidelog.Run.from_json(kept["run"]), Result.from_json(kept["result"]))


def _key(task: Task, config: Tuning, context: Context, around: Around) -> str:
    """The digest of all that decides an expert and what is told of it: files count by their content, wherever they lie."""
    kept = retain.begin(config, task, context, around)
    watch, keep = config.watch, config.retain
    paths = {**watch.corpora, "data/": watch.data, "criteria/": watch.criteria}
    read = {name: files.data_identity(path) if (path := Path(context.data(ref))).exists() else ref
            for name, ref in paths.items() if ref is not None}
    asked = [watch.model_dump(mode="json", exclude={"corpora", "data", "criteria"}), read,
             keep.model_dump(mode="json", exclude={"text", "target", "replay"})]
    return files.digest([work_of(kept.task, config, kept).job, [ref.digest for ref in kept.task.inputs], *asked])


def _whole(folder: Path, key: str) -> bool:
    return not files.verify_folder(folder) and files.read_json(folder / files.MANIFEST).get("job") == key


def put_together(base: Checkpoint, parts: Sequence[Selection], models: Sequence[Path], out: Path) -> Proof:
    """Write the base with each part taken from its own model, and prove it from the files."""
    opened = [Checkpoint.open(model) for model in models]

    def content(key: str) -> bytes:
        owners = [(part, model) for part, model in zip(parts, opened, strict=True) if key in part]
        if len(owners) == 1 and owners[0][0].rows[key] is None:
            return owners[0][1].read(key)
        return joined(base, owners, key) if owners else base.read(key)

    write_like(base, out, content)
    trained = parts[0]
    for part in parts[1:]:
        trained = trained | part
    shapes = {key: t.shape for key, t in base.tensors.items()}
    return prove(base, Checkpoint.open(out), trained.normal(shapes), content)


def joined(base: Checkpoint, owners: Sequence[tuple[Selection, Checkpoint]], key: str) -> bytes:
    """A tensor of the base with the rows that each part owns from the part's own model."""
    info = base.tensors[key]

    def values(weights: Checkpoint) -> np.ndarray:
        return np.frombuffer(weights.read(key), dtype=f"V{info.itemsize}").reshape(info.shape)

    out = values(base).copy()
    for part, model in owners:
        at = (slice(None),) * part.axis.get(key, 0) + (part.rows[key],)
        out[at] = values(model)[at]
    return out.tobytes()


def told(each: Sequence[Expert], names: Sequence[str], proof: Proof, task: Task) -> Result:
    """One result that tells of both trainings and of what was put together."""
    first = each[0].result
    summary = [line for one in each for line in one.result.summary]
    named = [(f"the {name}'s expert", one.result) for name, one in zip(names, each, strict=True)]
    proved = proof.table()  # of what is written; those of the experts are in their sentences
    tables = [replace(t, title=f"{t.title}: {name}") for name, result in named for t in result.tables if t.title != proved.title]
    curves = [replace(c, title=f"{c.title}: {name}") for name, result in named for c in result.curves]
    data: dict[str, Any] = {name: dict(one.result.data) for name, one in zip(names, each, strict=True)}
    criteria = [one.result.data["criteria"] for one in each if "criteria" in one.result.data]
    if criteria:
        reasons = [reason for one in criteria for reason in one["reasons"]]
        data["criteria"] = {"passed": all(one["passed"] for one in criteria), "reasons": reasons}
    caveats = dict.fromkeys(line for one in each for line in one.result.caveats)
    about = task.gathered
    return replace(
        first, title=f"{task.title} of {first.inputs[0].name}", summary=(*summary, f"Put together: {proof.sentence}"),
        tables=(proved, *about.tables, *tables), curves=tuple(curves), maps=(), inputs=(first.inputs[0], *task.inputs),
        data=data | dict(about.data), caveats=(*caveats, *about.caveats, *task.caveats))  # fmt: skip
