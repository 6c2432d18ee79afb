"""`analyze.deviation`: which layers deal with languages, as a step of a recipe."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from polygraft import arrays, selectionfile
from polygraft.activity import Activity
from polygraft.analysis.layers import choose, tables
from polygraft.analysis.layers.choose import Rule, Within
from polygraft.analysis.layers.decide import Decision, decide, summary
from polygraft.analysis.layers.final import last_block
from polygraft.analysis.layers.measure import Kind, Measured, measure, reference_of
from polygraft.analysis.layers.noise import DRAWS
from polygraft.analysis.reading.config import Texts, Wanted, open_activity, refused
from polygraft.analysis.reading.planned import planned, said
from polygraft.anatomy import Anatomy
from polygraft.errors import UserError
from polygraft.result import InputRef, Result, Table
from polygraft.selectionfile import Entry
from polygraft.step import Context, Plan, Step

GROUPS = 20
ROLES = ("up", "down", "experts.up", "experts.down", "shared.up", "shared.down")
GATES = ("gate", "experts.gate", "shared.gate")
CAVEATS = (
    "A layer that differs between languages need not understand them: scripts, tokens per word and word frequencies differ too. "
    "On a model of one language the deviation shows mostly those.",
    "The formula is a reconstruction: SLAM's code releases the layers that it chose and not how.",
    "Whether these layers are the ones to train is told by training them, and the random sets of as many layers.",
)


class Deviation(Texts):
    """Which layers deal with languages: how much the firing of neurons differs between them, and the layers to tune for it."""

    rule: Rule = Field("top", description="top: the largest; above: over mean + spread * std; block: lowest run over the mean")
    measure: Kind = Field("neuron", description="the deviation of each neuron, or of the count of active ones")
    top: int | None = Field(None, ge=1, description="how many layers `top` takes (default: 6, or all of the lower half)")
    within: Within = Field("lower", description="layers that may be chosen: the lower half, or all (the top often peaks)")
    spread: float = Field(1.0, description="standard deviations over the mean, for `above`")
    tau: float = Field(0.5, ge=0, lt=1, description="active, for the overlap: at more than this share of tokens")
    reference: str | None = Field(None, description="the language to measure overlap with (default: en, else the first)")
    gate: bool = Field(False, description="select gate too, not only up and down as SLAM does")
    also: tuple[Literal["attention", "stream"], ...] = Field(
        ("attention", "stream"), description="measure the attention's outputs, and language in the residual stream, too"
    )
    controls: int = Field(3, ge=0, le=100, description="random sets of as many layers, written beside the chosen")
    draws: int = Field(DRAWS, ge=20, le=10_000, description="resamplings of documents, for intervals and stability")


def entries(anatomy: Anatomy, layers: Iterable[int], gate: bool = False) -> tuple[Entry, ...]:
    """What a chosen layer trains, as selection files name it: up and down, of experts too, and gate where asked."""
    found = {(p.layer, p.role) for p in anatomy.parts.values() if p.kind == "ffn"}
    found |= {(layer, half) for layer, role in found if role == "gate_up" for half in ("gate", "up")}
    wanted = (*GATES, *ROLES) if gate else ROLES
    return tuple(Entry(layer, "ffn", role) for layer in layers for role in wanted if (layer, role) in found)


def wanted(config: Deviation) -> Wanted:
    """What is gathered: counts in groups of documents, and the attention's outputs and the stream where asked."""
    return Wanted(groups=GROUPS, residual="stream" in config.also, attention="attention" in config.also)


def plan(config: Deviation, context: Context) -> Plan:
    """Cost of the reading, and what would be trained. Raises RecipeError where more layers are asked for than may be chosen."""
    source = context.model(config.model)
    anatomy = Anatomy.of(source.weights.config, source.weights.tensors, where=config.model)
    n, most = choose.count(config.top, anatomy.layers, config.within), choose.candidates(anatomy.layers, config.within)
    shapes = {key: t.shape for key, t in source.weights.tensors.items()}
    share = selectionfile.on(entries(anatomy, range(n), config.gate), anatomy, shapes).share(shapes)
    which = f"{n} of layers 0 to {most - 1}" if config.rule == "top" else f"of layers 0 to {most - 1}, by rule {config.rule}"
    what = f"choose layers of {config.model}: {which}; {n} are {share:.2%} of all parameters"
    found = planned(config, wanted(config), context, what)
    return replace(found, problems=(*found.problems, *_faults(config, context)))


def _faults(config: Deviation, context: Context) -> list[UserError]:
    def named(languages: tuple[str, ...]) -> None:
        reference_of(languages, config.reference)

    return refused(config, context, named)


def run(config: Deviation, context: Context, folder: Path) -> Result:
    """Write deviation.safetensors and selection.json beside the reading. Raises InputError where nothing can be chosen."""
    if faults := _faults(config, context):
        raise faults[0]
    activity = open_activity(config, wanted(config), context, folder)
    source = context.model(config.model)
    anatomy = Anatomy.of(source.weights.config, source.weights.tensors, where=config.model)
    reference = reference_of(tuple(activity.languages), config.reference)
    m = measure(activity, tau=config.tau, reference=reference, draws=config.draws, seed=config.seed, kind=config.measure,
                attention="attention" in config.also, stream="stream" in config.also)  # fmt: skip
    d = decide(m, rule=config.rule, n=config.top, spread=config.spread, within=config.within, where=activity.folder)
    if d.often is not None:
        m.values["often"] = d.often
    controls = choose.random_sets(d.taken.layers, m.layers, config.controls, config.seed)
    last = last_block(m.values["stream.share"]) if "stream.share" in m.values else ()
    first = {"chosen": d.taken.layers} | ({"final": last} if last else {})
    sets = {**first, **{f"random.{i}": s for i, s in enumerate(controls)}, "all": tuple(range(m.layers))}
    named = {name: entries(anatomy, layers, config.gate) for name, layers in sets.items()}
    arrays.write(folder / "deviation.safetensors", m.values)
    selectionfile.write(folder / selectionfile.FILE, named, {"step": "analyze.deviation", "model": config.model})
    shapes = {key: t.shape for key, t in source.weights.tensors.items()}
    picked = {name: selectionfile.on(e, anatomy, shapes) for name, e in named.items()}
    shares = {name: (sets[name], p.count(shapes), p.share(shapes)) for name, p in picked.items()}
    title, maps = f"Which layers of {config.model} deal with languages", tables.maps(m, anatomy, picked["chosen"], shapes)
    inputs = (source.ref("model"), *(InputRef(g, t["path"], digest=t["digest"]) for g, t in activity.languages.items()))
    caveats = (*CAVEATS, *said(config, activity))
    return replace(described(activity, m, d, shares), title=title, maps=maps, inputs=inputs, caveats=caveats)


def described(activity: Activity, m: Measured, d: Decision, shares: dict[str, tuple[tuple[int, ...], int, float]]) -> Result:
    """The measurement, the decision and `shares` (set -> layers, parameters, share of all) as a Result without maps."""
    _, count, share = shares["chosen"]
    trained = f"What they train is {count:,} parameters, {share:.2%} of all."
    read = Table("Text that was read", ("language", "documents", "tokens"),
                 tuple((g, t["documents"], t["tokens"]) for g, t in activity.languages.items()))  # fmt: skip
    data = {
        "languages": list(m.languages), "layers": m.layers, "neurons": list(activity.sizes),
        "tokens": {g: activity.tokens(g) for g in m.languages}, "reference": m.reference, "tau": m.tau, "measure": m.kind,
        "rule": d.taken.rule, "chosen": list(d.taken.layers), "why": d.taken.why,
        "rules": {c.rule: list(c.layers) for c in d.all}, "weak": list(d.weak),
        "fewer": {which: list(layers) for which, layers in d.fewer.items()},
        "trained": {name: {"layers": list(layers), "parameters": n, "share": part} for name, (layers, n, part) in shares.items()},
        "final": list(last_block(m.values["stream.share"])) if "stream.share" in m.values else [],
    }  # fmt: skip
    rules = tables.rules_table(d.all, d.taken, {w: s for w, s in d.fewer.items() if w.startswith("without")})
    shown = (tables.layers_table(m, d.taken.layers), tables.trained_table(shares), rules, read)
    return Result("analyze.deviation", "", "", (*summary(m, d), trained), (), shown, tables.curves(m), data=data)


STEPS = (Step("analyze.deviation", 1, Deviation, plan, run, resumable=True),)
