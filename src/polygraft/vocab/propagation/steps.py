"""`vocab propagate`: the learned rows of a donor carried to the instruct model of its base."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from polygraft import files
from polygraft.config import Strict, changed
from polygraft.errors import StepFailed
from polygraft.meter import LIBRARIES
from polygraft.result import Result
from polygraft.step import Context, ModelRef, Plan, Step
from polygraft.vocab import control
from polygraft.vocab.init.mixture import Mixture
from polygraft.vocab.pieces import Pieces, decompose
from polygraft.vocab.propagation import body, joining, modes, report
from polygraft.vocab.propagation.fitting import Fit, fit
from polygraft.vocab.propagation.modes import RIDGED, WORDS, Mode
from polygraft.vocab.propagation.rows import Bias, Carrying, Norms, numbers
from polygraft.vocab.propagation.trio import Member, Trio
from polygraft.vocab.tables import SIDES, Side
from polygraft.vocab.tokenizer import checks
from polygraft.vocab.tokenizer.folder import BESIDE, FILE, STALE, write_tokenizer
from polygraft.vocab.writing import Rows, write_model

GENERATION = "generation_config.json"
SAME = ("ids", "control tokens", "special tokens", "chat template", "a chat")  # checks that no result fails
CHUNKS = 600 << 20  # bytes of the rows that are summed at a time, in their two precisions
TOKEN = 2000  # bytes of memory for a token of one of the vocabularies
SPEED = 2e10  # float64 operations a second and core, about


class Propagate(Strict):
    """Give an instruct model the vocabulary that a donor learned on its base (Learned Embedding Propagation, arXiv 2412.21140).

    The result has the body of the instruct model, the donor's tokens and their rows, and the instruct model's own rows for control
    tokens.
    """

    base: ModelRef = Field(description="the model that both others come from")
    instruct: ModelRef = Field(description="its instruct model, with the old vocabulary")
    donor: ModelRef = Field(description="the base with the new vocabulary, its embedding and head trained on text")
    mode: Mode = Field("conversion", description="how rows are carried: " + "; ".join(f"{k}: {v}" for k, v in WORDS.items()))
    ridge: float | Literal["auto"] = Field(
        0, description="how strongly W is drawn to the identity (0: not at all; auto: what does best on held-out tokens)",
        json_schema_extra={"metavar": "X|auto"},
    )
    body: float | None = Field(None, description="a donor whose body was trained too: the share of its change that the result's "
                               "body gets (default: such a donor is refused)")
    seed: int = Field(0, ge=0, description="which tokens are held out")

    @model_validator(mode="after")
    def _ridge(self) -> Self:
        if isinstance(self.ridge, float) and self.ridge < 0:
            raise ValueError("`ridge` is 0 or more")
        if self.mode not in RIDGED and changed(self, ("ridge",)):
            raise ValueError(f"`ridge` is for {', '.join(RIDGED)}; {self.mode} solves no least squares")
        return self


@dataclass
class Job:
    """What is done: three models that fit, T, the result's tokenizer and its rows; `fits` and the rest are filled as it goes."""

    config: Propagate
    trio: Trio
    pieces: Pieces
    means: Mixture
    join: joining.Joined
    size: int
    moved: body.Moved
    fits: dict[Side, Fit] = field(default_factory=dict)
    carrying: dict[Side, Carrying] = field(default_factory=dict)
    norms: dict[Side, Norms] = field(default_factory=dict)


def opened(config: Propagate, context: Context) -> Trio:
    """Headers and tokenizers of the three. Raises InputError where they do not belong together."""
    return Trio.of(*(Member.of(name, context.model(getattr(config, name))) for name in ("base", "instruct", "donor")))


def rows_of(trio: Trio, join: joining.Joined) -> int:
    """Rows of the result: the donor's, and where more tokens are, as many more as keep its divisor (padding is for speed)."""
    donor = trio.donor.tables["in"].shape[0]
    step = math.gcd(donor, 128)
    return max(donor, -(-join.vocabulary.size // step) * step)


def configs(trio: Trio, join: joining.Joined, size: int) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """config.json and generation_config.json of the instruct model with the ids of the new tokenizer."""
    old, extras = trio.instruct.vocabulary, trio.instruct.weights.extras
    config = control.remap(trio.instruct.weights.config, old, join.vocabulary, "config.json", size)
    if GENERATION not in extras:
        return config, None
    return config, control.remap(files.read_json(extras[GENERATION]), old, join.vocabulary, GENERATION, size)


# -------------------------------------------------------------------------------------------------------------------- plan


def plan(config: Propagate, context: Context) -> Plan:
    """From headers and tokenizers: the new size, memory, time. Whether the donor's body is the base's only reading it tells."""
    trio = opened(config, context)
    join = joining.joined(trio.instruct, trio.donor)
    size = rows_of(trio, join)
    configs(trio, join, size)
    width = trio.base.tables["in"].shape[1]
    fitted = {"conversion": trio.donor.vocabulary.size, "bypass": len(trio.shared), "procrustes": len(trio.shared),
              "overlap": len(trio.base.vocabulary.by_bytes.keys() & trio.donor.vocabulary.by_bytes.keys())}.get(config.mode, 0)
    work = len(trio.base.tables) * width**2 * (4 * fitted + 2 * size + 20 * width if fitted else 0)
    read = 2 * sum(t.nbytes for t in trio.base.weights.tensors.values()) + sum(
        t.nbytes for t in trio.instruct.weights.tensors.values())
    disk = sum(t.nbytes if k not in trio.instruct.stored else t.nbytes * size // t.shape[0]
               for k, t in trio.instruct.weights.tensors.items())
    names = " and ".join(SIDES[side] for side in trio.base.tables) + (", one tensor" if trio.base.anatomy.tied else "")
    lines = (f"{names}: {trio.instruct.tables['in'].shape[0]:,} rows become {size:,}, by {config.mode}: {WORDS[config.mode]}",
             f"{len(join.kept):,} tokens keep the instruct model's rows"
             + (f", {len(join.appended):,} of them appended" if join.appended else ""),
             *([f"about {fitted:,} tokens to fit W ({width} x {width}) on"] if fitted else []))
    matrices = (10 if fitted else 0) * 8 * width**2
    rows = min(CHUNKS, 40 * width * size)
    vocabularies = TOKEN * sum(m.vocabulary.size for m in trio.members)
    return Plan(lines, LIBRARIES + vocabularies + rows + matrices, disk, read, work / SPEED / (os.cpu_count() or 1) + read / 5e8,
                like=trio.donor.source)


# --------------------------------------------------------------------------------------------------------------------- run


def run(config: Propagate, context: Context, folder: Path) -> Result:
    """Write `model/`, with its propagation.json."""
    return into(config, context, folder / "model")


def into(config: Propagate, context: Context, model: Path) -> Result:
    """Write the model and propagation.json into one folder."""
    trio = opened(config, context)
    join = joining.joined(trio.instruct, trio.donor)
    size = rows_of(trio, join)
    configs(trio, join, size)
    body.check_related(trio)
    moved = body.moved(trio, lambda done, total: context.progress(done, total, "comparing the donor's body with the base's"))
    body.judge(moved, config.body, trio)
    pieces = decompose(trio.base.vocabulary, trio.donor.vocabulary)
    job = Job(config, trio, pieces, modes.means(pieces, trio.shared), join, size, moved)
    for side in trio.base.tables:
        prepare(job, side, context)
    write(job, model, context)
    context.progress(0, 1, "checking what was written")
    return report.told(job, checked(job, model), model, context.step_id)


def checked(job: Job, model: Path) -> list[checks.Check]:
    """What the tokenizer does elsewhere, and beside the instruct model's. Raises StepFailed where chats are not the same."""
    found = checks.loadable(model, before=job.trio.instruct.weights.extras)
    for c in found:
        if c.ok is False and c.name in SAME:
            raise StepFailed("the result does not read chats as the instruct model does", where=f"{model.name}: {c.name}",
                             found=c.found, expected="the same special tokens, each one id, and the same text from the template",
                             fix="please report it with both tokenizers")
    return found


def prepare(job: Job, side: Side, context: Context) -> None:
    """Fit W of one table, and say what becomes of its rows."""
    trio, mode = job.trio, job.config.mode
    change = None
    if (both := modes.both(mode, side, trio, job.pieces, job.means)) is not None:
        ridge = None if job.config.ridge == "auto" else float(job.config.ridge)
        job.fits[side] = fit(both, ridge, job.config.seed, rotate=mode == "procrustes",
                             tell=lambda done, total: context.progress(done, total, f"rows of the {SIDES[side]}"))
        change = job.fits[side].solved.change
    job.carrying[side] = Carrying(trio.base.tables[side], trio.instruct.tables[side], trio.donor.tables[side], job.size,
                                  job.join.kept, change, job.means if mode == "delta" else None)
    job.norms[side] = Norms.of(trio.instruct.tables[side], trio.shared)


def write(job: Job, model: Path, context: Context) -> None:
    """The model's folder: the instruct model's body, the new tables, configs and tokenizer."""
    trio, instruct = job.trio, job.trio.instruct
    config, generation = configs(trio, job.join, job.size)
    tables: dict[str, Rows] = {}
    for key, (side, dimensions) in instruct.stored.items():
        tables[key] = _bias(job) if dimensions == 1 else job.carrying[side].blocks
    extras: dict[str, bytes | Path] = {n: p for n, p in instruct.weights.extras.items() if n not in (FILE, *BESIDE, *STALE)}
    if generation is not None:
        extras[GENERATION] = files.canonical(generation)
    share = job.config.body or 0.0
    weights = body.Carried(trio, dict.fromkeys(job.moved.names), share) if share and job.moved.names else instruct.weights
    context.progress(0, 1, "writing the model")
    write_model(weights, model, job.size, tables, config, extras)
    write_tokenizer(model, job.join.vocabulary.tree, job.join.files, job.join.config)
    context.progress(1, 1, "writing the model")


def _bias(job: Job) -> Rows:
    """Blocks of the head's bias."""
    trio = job.trio
    raw = {m.name: numbers(m.weights.read(m.bias), m.weights.tensors[m.bias].dtype) for m in trio.members if m.bias}
    made = Bias(raw["base"], raw["instruct"], raw["donor"], job.size, job.join.kept,
                None if job.config.mode == "swap" else job.means)

    def blocks() -> Iterator[np.ndarray]:
        yield made.values

    return blocks


STEPS = (Step("vocab.propagate", 1, Propagate, plan, run, makes_model=True),)
