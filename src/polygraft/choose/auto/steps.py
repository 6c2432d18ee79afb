"""`merge.auto`: measure both experts against the base, let the rules propose, write the merge of the chosen one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from polygraft.analysis.delta.measure import Changes, check
from polygraft.anatomy import Anatomy
from polygraft.choose.auto import beside, drawing, evidence
from polygraft.choose.auto.config import Auto
from polygraft.choose.auto.measured import measure
from polygraft.choose.auto.proposals import Proposal, profile, propose
from polygraft.choose.auto.rules import BY_WEIGHTS, TAU, WEIGHTS, Judged, evenness, relative
from polygraft.choose.auto.units import Units, units
from polygraft.errors import InputError
from polygraft.merge import steps as merging
from polygraft.merge import write
from polygraft.merge.configs import Request
from polygraft.merge.profile import Profile
from polygraft.planning import NotMade
from polygraft.result import InputRef, Result
from polygraft.sources import Source
from polygraft.step import Context, Plan, Step

EVIDENCE = {"neurons": evidence.neurons, "deviation": evidence.deviation}
BUFFERS = 40 << 20  # of the reader: chunks of three models in two threads
CAVEATS = (
    "Weights alone cannot tell whether this merge helps: a large change need not matter, nor a small one be idle. Compare it with "
    "the paper's default, the soup and the random windows by evaluation (`polygraft merge search`, `polygraft eval`).",
)
WHY = {
    "relative": "Rule relative, the one published rule that asks weights alone (arXiv 2601.22620): neither expert gets more layers "
                "for having been trained longer.",
    "sign": "Rule sign: experts are kept apart only where their changes conflict.",
    "cosine": "Rule cosine: changes are reported to agree in the middle layers and to diverge outside (arXiv 2605.26735).",
    "neurons": "Rule neurons: layers where neurons of the language concentrate are the language expert's.",
    "deviation": "Rule deviation: layers whose neurons fire differently between languages are the language expert's.",
}  # fmt: skip


@dataclass(frozen=True)
class Opened:
    """The sources (task, language, base), what the report calls them, and the base's anatomy."""

    request: Request
    sources: list[Source]
    anatomy: Anatomy

    @property
    def names(self) -> tuple[str, ...]:
        return self.request.names

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {k: tuple(t.shape) for k, t in self.sources[2].weights.tensors.items()}


def opened(config: Auto, context: Context) -> Opened:
    """Raises UserError for sources that cannot be compared and for one that is named twice."""
    request = config.request(lambda a, n, s: _stand_in(config, a, n))
    sources = merging.opened(request, context)
    names, base = request.names, sources[2]
    seen: dict[str, str] = {}
    for name, role, source in zip(names, ("task expert", "language expert", "base"), sources):
        if not source.coming and (first := seen.setdefault(source.identity, role)) != role:
            raise InputError(f"the {first} and the {role} are the same model, so there is no change to choose by", where=name,
                             found=source.spec, expected="a task expert, a language expert, and the base of both",
                             fix="name three different models")
    anatomy = write.anatomy_of(merging.named(request, sources)[2], config.anatomy)
    check(anatomy, base.weights, [(n, s.weights) for n, s in zip(names[:2], sources)])
    return Opened(request, sources, anatomy)


def _stand_in(config: Auto, anatomy: Anatomy, names: Sequence[str]) -> Profile:
    """The costliest profile: every layer blended, for a plan that cannot know yet which are."""
    grid = np.full((anatomy.layers, 2), config.alpha)
    return profile(anatomy, names, grid, name="auto", alpha=config.alpha, policy=config.policy, params={}).profile


def plan(config: Auto, context: Context) -> Plan:
    """Cost from headers, and what evidence proposes where that is the rule. Raises UserError when it cannot be done."""
    o = opened(config, context)
    if config.space == "adapter":
        cost = merging.plan_adapter(config, o.request, o.sources)
    else:
        cost = merging.plan_job(merging.job(config, o.request, o.sources), o.sources[o.request.donor(config.donor)])
    size = sum(t.nbytes for s in o.sources for t in s.weights.tensors.values())
    rows = sum(sum(s) * 8 for s in o.shapes.values() if len(s) == 2) * 2
    try:
        chosen, unknown = by_evidence(config, context, o), "the change of both experts has been measured"
    except NotMade as e:  # what comes after this step can be planned all the same
        chosen, unknown = None, f"the evidence is there ({e.what})"
    if chosen is None:
        lines: tuple[str, ...] = (f"choose among {o.anatomy.layers} layers by rule {config.rule}, {config.by} by {config.by}, "
                                  f"shape {config.shape}",)
        maps = beside.default(o.anatomy, o.names).profile.maps(o.anatomy)
        notes: tuple[str, ...] = (f"which layers go where is known when {unknown}; shown: the paper's default",)
    else:
        lines, maps, notes = chosen.reasons, chosen.candidate.profile.maps(o.anatomy), ()
    first = f"measure what training changed in {o.names[0]} and {o.names[1]} against {o.names[2]}: {size:,} bytes to read"
    return replace(cost, lines=(first, *lines), peak_bytes=cost.peak_bytes + BUFFERS + rows, read_bytes=cost.read_bytes + size,
                   seconds=cost.seconds + size / 4e8, maps=maps, notes=(*cost.notes, *notes))


def by_evidence(config: Auto, context: Context, o: Opened) -> Proposal | None:
    """What the evidence proposes, which needs no weights; None for a rule that asks these."""
    if config.rule in WEIGHTS or config.evidence is None:
        return None
    word = evidence.EvidenceName(config.evidence)
    values, what = EVIDENCE[config.rule](word, context.folder, o.anatomy)
    judged = evenness(config.rule, values, config.threshold, what)
    return propose(o.anatomy, o.names, judged, config.shape, alpha=config.alpha, policy=config.policy)


def proposals(config: Auto, context: Context, o: Opened, delta: Changes) -> list[Proposal]:
    """The rule that was asked for, then every other one that weights allow; a window where that one has any."""
    measured = units(delta, config.by, o.shapes)
    chosen = by_evidence(config, context, o) or _proposed(config, o, judge(config, measured))
    rest = [p for rule in WEIGHTS if rule != config.rule for p in _maybe(config, o, BY_WEIGHTS[rule](measured, TAU[rule]))]
    return [chosen, *rest]


def judge(config: Auto, measured: Units) -> Judged:
    """What the rule asked for says of the weights."""
    if config.rule == "relative":
        return relative(measured, config.threshold, config.tau_absolute)
    return BY_WEIGHTS[config.rule](measured, config.threshold)


def _proposed(config: Auto, o: Opened, judged: Judged) -> Proposal:
    return propose(o.anatomy, o.names, judged, config.shape, alpha=config.alpha, policy=config.policy)


def _maybe(config: Auto, o: Opened, judged: Judged) -> list[Proposal]:
    try:
        return [_proposed(config, o, judged)]
    except InputError:  # no window is better than another: this rule has nothing to show
        return []


def run(config: Auto, context: Context, folder: Path) -> Result:
    """Write `folder/model`, complete with its own manifest."""
    return merging.sealed(folder, lambda model: into(config, context, model))


def into(config: Auto, context: Context, model: Path) -> tuple[Result, dict[str, Any]]:
    """Write the model (or adapter) into an empty folder; returns the Result and the manifest that belongs beside it."""
    o = opened(config, context)
    if config.space == "adapter":
        merging.adapters_of(o.request, o.sources)
    else:
        merging.job(config, o.request, o.sources)  # refuse before anything is measured
    delta = measure(o.anatomy, o.names, o.sources, lambda done, total, key: context.progress(done, total, f"measuring {key}"))
    found = proposals(config, context, o, delta)
    request = config.request(lambda a, n, s: found[0].candidate.profile)
    if config.space == "adapter":
        result, manifest = merging.fill_adapter(config, request, o.sources, merging.HALVES, model)
    else:
        result, manifest = write.fill(merging.job(config, request, o.sources), model, context.progress)
    return described(config, o, delta, found, result), manifest


def described(config: Auto, o: Opened, delta: Changes, found: Sequence[Proposal], result: Result) -> Result:
    """The written merge's result with the reasons, the pictures and what stands beside the proposal."""
    chosen, others = found[0], found[1:]
    compared = [*beside.controls(o.anatomy, o.names, chosen, config.random), *beside.others(others)]
    read = (InputRef("evidence", str(config.evidence)),) if config.evidence else ()
    data = {p.name: {"rule": p.rule, "shape": p.shape, "reasons": list(p.reasons), **p.candidate.params} for p in found}
    return replace(
        result,
        title=f"Layers of {o.names[0]} and {o.names[1]}, chosen by rule {config.rule}",
        summary=(WHY[config.rule], *chosen.reasons, beside.told(chosen, compared), *result.summary),
        maps=(*drawing.pictures(delta, o.shapes, chosen, compared), *result.maps),
        tables=(beside.table(chosen, compared), *result.tables),
        curves=tuple(c for p in found for c in p.curves),
        inputs=(*result.inputs, *read),
        caveats=(*CAVEATS, *result.caveats),
        data=result.data | {"chosen": chosen.name, "proposals": data},
    )


STEPS = (Step("merge.auto", 1, Auto, plan, run, makes_model=True),)
