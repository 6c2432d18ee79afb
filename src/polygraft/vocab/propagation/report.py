"""What a propagation did: propagation.json, and the Result."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraft import files
from polygraft.result import Estimate, Result, Table, encode
from polygraft.vocab.propagation.fitting import IDENTITY, Fit
from polygraft.vocab.propagation.modes import WORDS
from polygraft.vocab.propagation.rows import FACTOR, odd_dimensions
from polygraft.vocab.tables import SIDES, Side
from polygraft.vocab.tokenizer import checks

if TYPE_CHECKING:
    from polygraft.vocab.propagation.steps import Job

FILE = "propagation.json"
SHOWN = 20  # odd tokens that are named


def told(job: Job, found: list[checks.Check], model: Path, id: str) -> Result:
    """Write propagation.json into the model's folder; the Result."""
    data = described(job, found)
    files.write_json(model / FILE, data)
    trio, mode = job.trio, job.config.mode
    inputs = tuple(m.source.ref(m.name) for m in trio.members)
    summary = (
        f"{trio.instruct.source.spec} with the vocabulary of {trio.donor.source.spec}: {job.join.vocabulary.size:,} tokens in "
        f"{job.size:,} rows, by {mode}: {WORDS[mode]}.",
        f"{len(job.join.kept):,} tokens keep the instruct model's rows"
        + (f", {len(job.join.appended):,} of which the donor lacked." if job.join.appended else "."),
        *(sentence(side, f) for side, f in job.fits.items()),
        *([body_words(job)] if job.moved.names else []),
    )
    return Result("vocab.propagate", id, f"Propagation by {mode}", summary, inputs=inputs, data=data,
                  tables=(*tables(job, data), checks.table(found)), caveats=tuple(caveats(job, found, data)))  # fmt: skip


def described(job: Job, found: list[checks.Check]) -> dict[str, Any]:
    """propagation.json."""
    c, join = job.config, job.join
    return {
        "mode": c.mode, "ridge": c.ridge, "seed": c.seed, "tied": job.trio.base.anatomy.tied,
        "tokens": join.vocabulary.size, "rows": job.size,
        "sides": {SIDES[side]: side_of(job, side) for side in job.carrying},
        "kept": {join.vocabulary.names[int(n)]: [int(n), int(o)] for n, o in join.kept}, "appended": list(join.appended),
        "made_of": job.pieces.tally(),
        "body": {"changed_in_donor": len(job.moved.names), "tensors": job.moved.total, "relative": job.moved.relative,
                 "share_added": c.body},
        "checks": [encode(c) for c in found],
    }  # fmt: skip


def side_of(job: Job, side: Side) -> dict[str, Any]:
    """What became of one table."""
    carrying, made, norms = job.carrying[side], job.fits.get(side), job.norms[side]
    donor = min(carrying.donor.shape[0], job.size)
    kept = set(job.join.kept[:, 0].tolist())
    carried = donor - sum(i < donor for i in kept)
    tokens = np.array(sorted(set(job.join.vocabulary.names) - kept), np.int64)
    odd = tokens[norms.odd(carrying.norms[tokens])]
    return {
        "rows_used": made.rows if made else 0, "rows_copied": carried if carrying.copies else 0,
        "rows_carried": 0 if carrying.copies else carried, "rows_kept": len(kept), "rows_filled": job.size - carried - len(kept),
        "held_out_error": None if made is None else held_out(made), "w": None if made is None else fitted(made),
        "norms": {"instruct_low": norms.low, "instruct_median": norms.median, "instruct_high": norms.high,
                  "median": float(np.median(carrying.norms[tokens])) if len(tokens) else None},
        "odd_tokens": len(odd), "odd": {job.join.vocabulary.names[int(i)]: float(carrying.norms[i]) for i in odd[:SHOWN]},
        "odd_dimensions": odd_dimensions(carrying.change).tolist(),
    }  # fmt: skip


def held_out(made: Fit) -> dict[str, Any]:
    """Errors on tokens that a separate fit did not see: |AW - B| / |B|, |A - B| / |B| (doing nothing), and their ratio."""
    t = made.tried
    return {"rows": t.rows, "relative": t.relative, "doing_nothing": t.nothing, "ratio": encode(t.ratio) if t.ratio else None}


def fitted(made: Fit) -> dict[str, Any]:
    """How W was found."""
    s = made.solved
    return {"ridge": shown(made.ridge), "width": len(s.change), "rank": s.rank, "condition": s.condition, "way": s.way,
            "change": float(np.linalg.norm(s.change) / math.sqrt(len(s.change))),
            "ridges_tried": {str(shown(r)): error for r, error in made.tries.items()}}  # fmt: skip


def shown(ridge: float) -> float | str:
    return "identity" if ridge == IDENTITY else ridge


def sentence(side: Side, made: Fit) -> str:
    """How well W carries what it has not seen."""
    t, rest = made.tried, "" if made.ridge == 0 else f", ridge {shown(made.ridge)}"
    lead = f"{SIDES[side]}: W from {made.rows:,} tokens{rest}"
    if t.ratio is None:
        return f"{lead}; the instruct model's rows of the {t.rows:,} held-out tokens are the base's."
    e, nothing = t.ratio, t.nothing
    if t.relative is None or nothing is None:
        return f"{lead}; the instruct model's rows of the {t.rows:,} held-out tokens are all zero."
    return (f"{lead}; on {t.rows:,} tokens held out from a separate fit the error is {t.relative:.3g} of the instruct model's "
            f"rows, {e.value:.3g} [{e.low:.3g}, {e.high:.3g}] times that of doing nothing ({nothing:.3g}).")


def body_words(job: Job) -> str:
    what = f"{job.config.body:g} times that change was added to" if job.config.body else "that change was left out of"
    return (f"The donor's body differs from the base's in {len(job.moved.names)} of {job.moved.total} tensors "
            f"(|donor - base| / |base| {job.moved.relative:.3g}); {what} the instruct model's body.")


def tables(job: Job, data: dict[str, Any]) -> tuple[Table, ...]:
    columns = ("table", "rows used for W", "held-out error", "copied", "carried", "kept", "filled", "odd tokens")
    rows = []
    for side in job.carrying:
        d, made = data["sides"][SIDES[side]], job.fits.get(side)
        error: Estimate | None = made.tried.ratio if made else None
        rows.append((SIDES[side], d["rows_used"], error, d["rows_copied"], d["rows_carried"], d["rows_kept"], d["rows_filled"],
                     d["odd_tokens"]))  # fmt: skip
    note = "held-out error: |AW - B| / |A - B| over tokens that the tried W has not seen; 1 is as good as doing nothing"
    how = tuple((words, n) for words, n in data["made_of"].items())
    return (Table("Rows", columns, tuple(rows), note),
            Table("What the donor's tokens are in the old vocabulary", ("how", "tokens"), how))


def caveats(job: Job, checked: list[checks.Check], data: dict[str, Any]) -> list[str]:
    """What the numbers cannot tell, and what is odd."""
    found = []
    for side, made in job.fits.items():
        name, s = SIDES[side], made.solved
        if s.rank < len(s.change):
            found.append(f"{name}: {made.rows:,} tokens span {s.rank} of {len(s.change)} dimensions; W of the smallest norm "
                         "takes the others away from the donor's rows (a ridge keeps them)")
        if made.tried.ratio is not None and made.tried.ratio.verdict == "worse":
            found.append(f"{name}: W does worse on held-out tokens than doing nothing (swap)")
        if job.config.mode == "conversion":
            found.append(f"{name}: held-out tokens share pieces with others, so that their error is lower than on unseen pieces")
    for side, carrying in job.carrying.items():
        d, name = data["sides"][SIDES[side]], SIDES[side]
        if d["odd_tokens"]:
            first = ", ".join(map(repr, list(d["odd"])[:3]))
            found.append(f"{name}: {d['odd_tokens']:,} new rows are {FACTOR:g} times longer or shorter than those of the instruct "
                         f"model's tokens, first {first}")
        if d["odd_dimensions"]:
            found.append(f"{name}: {len(d['odd_dimensions'])} rows of W are {FACTOR:g} times longer or shorter than the median one")
        if carrying.donor.dtype != carrying.instruct.dtype:
            found.append(f"{name}: the donor's {carrying.donor.dtype} became the instruct model's {carrying.instruct.dtype}")
    if stale := job.join.files.stale:
        found.append(f"left out, since they hold the donor's vocabulary only: {', '.join(stale)}")
    return [*found, *checks.failed(checked)]
