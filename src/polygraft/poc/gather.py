"""From the results of a run to the effects and costs of each method. Pure functions of Results; nothing is read here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from polygraft.evals import metrics
from polygraft.poc.decision import Effect, Spent
from polygraft.poc.methods import TABLE
from polygraft.poc.texts import ENGLISH
from polygraft.poc.writing import CHANGE, SCORES
from polygraft.result import Estimate, Result
from polygraft.stats import verdict

BITS = "bits per byte"
FIDELITY, REFUSAL, COPY = "language fidelity", "refusal", "copy characters"
KEPT = (BITS, "accuracy")  # measures of what must not be lost: of texts, and of the procedural problems
TRAINING, SEEN = "Training", "tokens seen"  # the table and the row in which a training says what it read


def role(row: Mapping[str, Any], title: str, metric: str, language: str) -> str | None:
    """What a row of an evaluation is about; None for what no decision looks at. `metric` is the deciding one of task `title`."""
    name = row["metric"]
    if row["language"] == language:
        if row["task"] == title:
            return "target" if name == metric.rpartition(".")[2] or name == metric else None
        return {FIDELITY: "fidelity", REFUSAL: "refusal", COPY: "copy", BITS: "target"}.get(name)
    if name not in KEPT:
        return None
    return "english" if row["language"] == ENGLISH else "other"


def effects(evaluation: Mapping[str, Any], place: str, title: str, metric: str, language: str) -> tuple[Effect, ...]:
    """The differences of one method from doing nothing, those that decide first. `evaluation` is the data of an `eval` result."""
    scores = {(s["task"], s["language"], s["metric"], s["model"]): s["value"] for s in evaluation.get("scores", ())}
    found = []
    for d in evaluation.get("differences", ()):
        if (about := role(d, title, metric, language)) is None:
            continue
        key = d["task"], d["language"], d["metric"]
        name = BITS if d["metric"] == BITS else f"{d['metric']} of {d['task'].partition('@')[0]}"
        told = Estimate(d["value"], d["low"], d["high"], d["n"], d["unit"], own_verdict(d))
        before, after = scores.get((*key, d["reference"])), scores.get((*key, d["model"]))
        found.append(Effect(about, name, d["language"], told, before, after, metrics.get(d["metric"]).higher_is_better,
                            f"{place}: {' '.join(key)}", d.get("detectable"), d.get("p")))
    return tuple(sorted(found, key=lambda e: (e.role != "target", e.measure == BITS)))


def own_verdict(row: Mapping[str, Any]) -> str:
    """By the row's own test. The evaluation adjusts its verdicts over many rows, which would hide losses."""
    if row.get("p") is None or not row["verdict"]:
        return str(row["verdict"])
    return verdict(row["value"], row["p"], higher_is_better=metrics.get(row["metric"]).higher_is_better)


def evaluated(results: Mapping[str, Result], method: str) -> tuple[Mapping[str, Any], str] | None:
    """The data of a method's evaluation and the step that has it; None where it is not there."""
    if TABLE[method].model:
        found = results.get(f"{SCORES}{method}")
        return (found.data, found.id) if found else None
    found = results.get(method)
    return (found.data["evaluation"], found.id) if found and "evaluation" in found.data else None


def seen(result: Result) -> int:
    """Training tokens that a step saw, 0 for one that did not train."""
    rows = (row for t in result.tables if t.title == TRAINING for row in t.rows if row[0] == SEEN)
    return next((int(row[1]) for row in rows if isinstance(row[1], int | float)), 0)


def making(owners: Mapping[str, Sequence[str]], method: str) -> tuple[str, ...]:
    """The steps that make a method's model, those that it shares too; not what measures it."""
    return tuple(id for id, users in owners.items() if method in users and not id.startswith((SCORES, CHANGE)))


def spent(results: Mapping[str, Result], ids: Iterable[str]) -> Spent:
    """What these steps took together."""
    done = [results[id] for id in ids if id in results]
    return Spent(sum(r.cost.seconds for r in done), sum(map(seen, done)), sum(int(r.data.get("steps", 0)) for r in done if seen(r)),
                 max((r.cost.peak_bytes for r in done), default=0))


def touched(result: Result | None, method: str) -> float | None:
    """Share of the weights that differ from doing nothing's, as the change map says; None without one."""
    return None if result is None else result.data.get("changed", {}).get(method)
