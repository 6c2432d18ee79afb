"""`analyze.subspace`: the directions that tell languages apart, as a step of a recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pydantic import Field

from polygraft import arrays
from polygraft.activity import Activity
from polygraft.analysis.reading.config import Texts, Wanted, open_activity, refused
from polygraft.analysis.reading.planned import planned, said
from polygraft.analysis.subspace import tables, words
from polygraft.analysis.subspace.depths import LEAST
from polygraft.analysis.subspace.found import Found, as_arrays, find
from polygraft.analysis.subspace.lens import Lens, look, occurrences, windows_of
from polygraft.errors import RecipeError, UserError
from polygraft.result import Result
from polygraft.step import Context, Plan, Step

FILE = "subspace.safetensors"


class Subspace(Texts):
    """Which directions of the residual stream tell languages apart, how much of it they hold, and which language it leans to."""

    rank: int | None = Field(None, ge=1, description="directions of the language subspace (default: one less than languages)")
    directions: int = Field(4, ge=1, description="directions of each language's texts that are compared between languages")
    groups: int = Field(32, ge=LEAST, description="groups that documents are dealt to: half to fit on, half to measure on")
    draws: int = Field(200, ge=20, le=10_000, description="resamplings of groups, for intervals")
    lens: int = Field(128, ge=0, description="positions of each language that the logit lens looks at; 0 leaves it out")


def wanted(config: Subspace) -> Wanted:
    return Wanted(groups=config.groups, residual=True)


def plan(config: Subspace, context: Context) -> Plan:
    """Cost of the reading; too few languages, or a rank that they cannot have, is told before any text is read."""
    found = planned(config, wanted(config), context, f"directions that tell languages apart in {config.model}")
    return replace(found, problems=(*found.problems, *_faults(config, context)))


def _faults(config: Subspace, context: Context) -> list[UserError]:
    def has_rank(languages: tuple[str, ...]) -> None:
        if config.rank is not None and config.rank >= len(languages):
            raise RecipeError("no subspace of this rank", where="rank", found=config.rank,
                              expected=f"less than the number of languages ({len(languages)})")

    return refused(config, context, has_rank)


def run(config: Subspace, context: Context, folder: Path) -> Result:
    """Write subspace.safetensors beside the reading. Raises InputError where languages cannot be told apart by their means."""
    if faults := _faults(config, context):
        raise faults[0]
    activity = open_activity(config, wanted(config), context, folder)
    found = find(activity, config.rank, config.directions, config.draws, config.seed, context.progress)
    missing = _no_lens(config, context)
    if not missing:
        found = replace(found, lens=_lens(config, context))
    arrays.write(folder / FILE, as_arrays(found), {"languages": ",".join(found.languages)})
    return _result(config, context, activity, found, missing)


def _no_lens(config: Subspace, context: Context) -> str:
    """Why there is no logit lens, or nothing."""
    from polygraft.blocks import fits
    from polygraft.model import device_for, dtype_for

    if not config.lens:
        return "The logit lens was left out, as asked."
    if config.activity is not None:
        return "The logit lens was left out: it needs the corpora themselves, not a reading of them."
    device = device_for(config.device)
    if config.blocks == "yes" or (config.blocks == "auto" and not fits(context.model(config.model).weights,
                                                                       dtype_for(device, config.dtype)[0], device)):  # fmt: skip
        return "The logit lens was left out: it needs the whole model in memory."
    return ""


def _lens(config: Subspace, context: Context) -> Lens:
    """The logit lens on windows of the text that was read, tokens owned by their counts in it."""
    from polygraft.analysis.reading.passing import opened, streams_of, window_of
    from polygraft.model import device_for, dtype_for, load

    device = device_for(config.device)
    live = load(context.model(config.model), dtype=dtype_for(device, config.dtype)[0], device=device, offline=context.offline)
    streams, _ = streams_of(opened(config, context), live.tokenizer, config)
    windows = [windows_of(s, window_of(config, live.anatomy), config.lens) for s in streams.values()]
    seen = occurrences(list(streams.values()), live.model.get_input_embeddings().weight.shape[0])
    return look(live, windows, seen, config.lens, config.seed, context.progress)


def _result(config: Subspace, context: Context, activity: Activity, found: Found, missing: str) -> Result:
    data = {
        "languages": list(found.languages), "layers": activity.layers, "hidden": found.hidden, "parallel": found.paired,
        "tokens": dict(zip(found.languages, found.tokens)), "groups": dict(zip(found.languages, found.groups)),
        "rank": [s.rank for s in found.spaces], "directions": config.directions, "file": FILE,
        "lens_positions": found.lens.positions if found.lens else 0,
    }  # fmt: skip
    return Result("analyze.subspace", "", f"Directions that tell {len(found.languages)} languages apart", words.summary(found),
                  tables.maps(found), (tables.table(found), tables.overlaps(found)), tables.curves(found),
                  inputs=(context.model(config.model).ref("model"),),
                  caveats=(*said(config, activity), *words.CAVEATS, *([missing] if missing else [])), data=data)  # fmt: skip


STEPS = (Step("analyze.subspace", 1, Subspace, plan, run, resumable=True),)
