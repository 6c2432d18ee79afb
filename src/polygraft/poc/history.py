"""The file of a watch: one JSON object a line, one line a check. A reader sees all lines of old or all lines of new."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from polygraft.errors import InputError
from polygraft.files import parse_json, resource_errors, write_atomic
from polygraft.redact import redact
from polygraft.result import Curve, Estimate, Table, decode, encode

NAME = "history.jsonl"
AGAIN = "restore the file, or move it aside and begin another"
Key = tuple[str, str, str]  # task, language, metric


@dataclass(frozen=True)
class Change:
    """One score: what it is now, and how it differs from the first ancestor's and from the parent's on the same items."""

    task: str
    language: str
    metric: str
    now: Estimate
    since_first: Estimate
    since_previous: tuple[Estimate, ...] = ()  # none where the first ancestor is the parent

    @property
    def key(self) -> Key:
        return self.task, self.language, self.metric


@dataclass(frozen=True)
class Check:
    """One line. `evaluation` and `first_digest` are what every line of a history has in common: the items, and the first ancestor.

    `time` is UTC; `chain` the names from the model to the first ancestor; `passed` whether the criteria held against it.
    """

    time: str
    model: str
    digest: str
    first: str
    first_digest: str
    previous: str
    evaluation: str
    passed: bool
    reasons: tuple[str, ...]
    chain: tuple[str, ...]
    changes: tuple[Change, ...]
    broken: str = ""


def read(path: Path) -> list[Check]:
    """Every check, the oldest first; none where there is no file. Raises InputError naming the line that is not one."""
    if not path.exists():
        return []
    try:
        data = path.read_bytes()
    except OSError as e:
        raise InputError("cannot be read", where=path, found=e.strerror, fix="check the path and its permissions") from e
    lines = data.split(b"\n")
    if lines.pop():
        raise InputError("the last line of the history is cut off", where=f"{path}:{len(lines) + 1}", fix=AGAIN)
    return [_check(line, f"{path}:{n}") for n, line in enumerate(lines, 1)]


def _check(line: bytes, where: str) -> Check:
    try:
        row = parse_json(line, where)
    except InputError as e:
        raise InputError("not a check", where=where, found=e.found, expected="a line that `polygraft watch` wrote",
                         fix=AGAIN) from e
    try:
        found: Check = decode(Check, row)
        numbers = [v for c in found.changes for e in (c.now, c.since_first) for v in (e.value, e.low, e.high)]
        fine = bool(found.changes) and all(isinstance(v, int | float) and math.isfinite(v) for v in numbers if v is not None)
        words = [found.time, found.model, found.first, found.first_digest, found.evaluation]
        words += [w for c in found.changes for w in c.key]
        fine = fine and isinstance(found.passed, bool) and all(isinstance(w, str) for w in words)
    except (TypeError, KeyError, AttributeError, ValueError) as e:
        raise InputError("not a check", where=where, found=str(e)[:120], expected="a line that `polygraft watch` wrote",
                         fix=AGAIN) from e
    if not fine:
        raise InputError("a value of the history is not what it must be", where=where, fix=AGAIN)
    return found


def refuse_other(past: Sequence[Check], path: Path, *, evaluation: str, first: str, first_digest: str) -> None:
    """Raise InputError where the lines are of other items or of another first ancestor: they would make one false curve."""
    if not past:
        return
    last = past[-1]
    if last.evaluation != evaluation:
        raise InputError("the history is of another evaluation", where=path, expected="the same items and settings in every check",
                         fix="name another --out for this evaluation")
    if last.first_digest != first_digest:
        raise InputError("the history began with another first ancestor", where=path, found=first, expected=last.first,
                         fix="name the ancestor of before with --first, or begin another history with --out")


def append(path: Path, check: Check) -> None:
    """Add a line; the file is replaced as a whole. Raises ResourceError where it cannot be written."""
    line = json.dumps(redact(encode(check)), ensure_ascii=False, allow_nan=False).encode() + b"\n"
    with resource_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_bytes() if path.exists() else b""
    write_atomic(path, before + line)


# ------------------------------------------------------------------------------------------------------------------ drawing


def curves(checks: Sequence[Check]) -> tuple[Curve, ...]:
    """The difference from the first ancestor over the checks: a chart for every task and metric, languages as series. They begin at
    0, with that ancestor itself."""
    named: dict[tuple[str, str], dict[str, list[float | None]]] = {}
    units: dict[tuple[str, str], str] = {}
    for n, check in enumerate(checks):
        for c in check.changes:
            series = named.setdefault((c.task, c.metric), {}).setdefault(c.language, [0.0] + [None] * len(checks))
            series[n + 1] = c.since_first.value
            units[c.task, c.metric] = c.since_first.unit
    x = tuple(float(n) for n in range(len(checks) + 1))
    first = checks[-1].first if checks else ""
    return tuple(Curve(f"{task}: {metric}, change since {first}" if task != metric else f"{metric}, change since {first}", x,
                       {language: tuple(values) for language, values in series.items()}, "check", units[task, metric],
                       f"The same items in every check; at 0 stands {first}.") for (task, metric), series in named.items())


def table(checks: Sequence[Check], of: Key | None) -> Table:
    """Every check, the latest first, with the change of one score: the one that a criterion names, else the first."""
    rows = []
    for n, check in reversed(list(enumerate(checks, 1))):
        found = {c.key: c for c in check.changes}
        shown = found.get(of) if of else None
        value = replace(shown.since_first, verdict="") if shown else None  # counted once, in the table of what was found now
        rows.append((n, check.time, check.model, value, "held" if check.passed else "failed"))
    title = f"change since {checks[-1].first}: {' '.join(dict.fromkeys(of))}" if of else "change"
    return Table("Checks", ("check", "time", "model", title, "status"), tuple(rows))
