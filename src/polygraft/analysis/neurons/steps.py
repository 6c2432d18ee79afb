"""`analyze.neurons`: which neurons fire for a language, as a step of a recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import Field

from polygraft import arrays, edits, selectionfile
from polygraft.activity import Activity
from polygraft.analysis.neurons import lape, others, stability, tables
from polygraft.analysis.neurons.methods import NEEDS, Method, Rates
from polygraft.analysis.neurons.owners import listed
from polygraft.analysis.neurons.study import Study, study
from polygraft.analysis.reading.config import Texts, Wanted, open_activity, refused
from polygraft.analysis.reading.planned import planned, said
from polygraft.analysis.reading.steps import texts
from polygraft.anatomy import Anatomy
from polygraft.result import InputRef, Result
from polygraft.step import Context, Plan, Step

FILE = "neurons.safetensors"


class Neurons(Texts):
    """Which neurons fire for one language and not for others, beside random neurons of the same layers."""

    method: Method = Field("lape", description="how neurons are ranked by language")
    filter_rate: float = Field(lape.FILTER, ge=0, le=1, description="lape: neurons below this order statistic of all shares in "
                               "every language are dropped")
    top_rate: float = Field(lape.TOP, gt=0, le=1, description="lape, align-lape: share of all neurons that is taken")
    bar: float = Field(lape.BAR, ge=0, le=1, description="lape, align-lape: a language owns a neuron above this order statistic")
    weight: float | None = Field(None, ge=0, description="align-lape: its lambda (default: the largest that gives none to all)")
    per_language: float = Field(others.PER_LANGUAGE, gt=0, le=1, description="other methods: share of all neurons for a language")
    draws: int = Field(stability.DRAWS, ge=0, le=1000, description="resamplings of documents, for stability; 0 leaves it out")
    groups: int = Field(20, ge=0, le=1000, description="groups that documents are dealt to; 0 leaves out what rests on them")

    @property
    def rates(self) -> Rates:
        return Rates(self.filter_rate, self.top_rate, self.bar, self.weight, self.per_language)


def wanted(config: Neurons) -> Wanted:
    """What is gathered; of a reading made before only what the method cannot do without is asked for."""
    needs = NEEDS[config.method]
    groups = 0 if config.activity else config.groups
    return Wanted(histogram="histogram" in needs, percentile="window.percentile" in needs, groups=groups)


def plan(config: Neurons, context: Context) -> Plan:
    """How many neurons would be taken, and what reading costs, from headers and file sizes."""
    source = context.model(config.model)
    anatomy = Anatomy.of(source.weights.config, source.weights.tensors, where=config.model)
    sizes = edits.sizes(anatomy)
    whole = config.method in ("lape", "align-lape")
    n = round((config.top_rate if whole else config.per_language) * sum(sizes))
    what = f"{config.method}: {n:,}{'' if whole else ' for each language'} of {sum(sizes):,} neurons in {anatomy.layers} layers"
    found = planned(config, wanted(config), context, what)
    studied = max(1, len(config.corpus)) * len(sizes) * max(sizes, default=0) * (4 * config.groups + 24)  # a group array of each
    return replace(found, peak_bytes=found.peak_bytes + studied, problems=(*found.problems, *refused(config, context)))


def run(config: Neurons, context: Context, folder: Path) -> Result:
    """Write neurons.safetensors and selection.json beside the reading. Raises InputError for fewer than two languages."""
    if faults := refused(config, context):
        raise faults[0]
    activity = open_activity(config, wanted(config), context, folder)
    return report(activity, config, folder, lambda text: context.progress(1, 1, text), context)


def report(activity: Activity, config: Neurons, folder: Path, tell: Callable[[str], None], context: Context) -> Result:
    """Everything after the reading."""
    s = study(config.method, activity, config.rates, draws=config.draws, seed=config.seed, tell=tell)
    arrays.write(folder / FILE, outputs(s))
    masks = s.found.masks | {f"random.{g}": m for g, m in s.random.items()}
    about = {"step": "analyze.neurons", "model": config.model, "method": config.method, **s.found.scores.thresholds}
    named = {g: selectionfile.from_mask(m, activity.experts) for g, m in masks.items()}
    selectionfile.write(folder / selectionfile.FILE, named, about)
    inputs = [InputRef(g, str(t["path"]), digest=str(t["digest"])) for g, t in activity.languages.items()]
    data = {
        "languages": list(s.found.languages), "layers": activity.layers, "neurons": s.real.shape[1], "sizes": list(activity.sizes),
        "experts": activity.experts, "method": config.method, "thresholds": s.found.scores.thresholds,
        "tokens": dict(zip(s.found.languages, s.tokens)), "found": {g: int(m.sum()) for g, m in s.found.masks.items()},
        "shared": [int(n) for n in s.found.shared], "documents_per_group": s.per_group,
        "floor": dict(zip(s.found.languages, s.floor.under)) if s.floor else {},
    }  # fmt: skip
    return Result(
        "analyze.neurons", "", f"Neurons of {config.model} that fire for a language", tables.summary(s), (tables.layer_map(s),),
        (*tables.tables(s), texts(activity)), (tables.profile(s),), inputs=(context.model(config.model).ref("model"), *inputs),
        caveats=(*said(config, activity), *tables.CAVEATS), data=data,
    )  # fmt: skip


def outputs(s: Study) -> dict[str, np.ndarray]:
    """The arrays of neurons.safetensors: probability, entropy, score (the method's own), selected.L and random.L.

    `entropy` is that over languages of the normalised probabilities, +inf for a neuron that never fires or that LAPE filtered.
    """
    lists = {f"selected.{g}": listed(m) for g, m in s.found.masks.items()} | {f"random.{g}": listed(m) for g, m in s.random.items()}
    score, fires = s.found.scores.score, s.real & (s.probability.max(-1) > 0)
    entropy = score if s.found.method == "lape" else np.where(fires, lape.entropy(s.probability), np.inf)
    made = {"probability": s.probability, "entropy": entropy, "score": score}
    return {name: a.astype(np.float32) for name, a in made.items()} | lists


STEPS = (Step("analyze.neurons", 1, Neurons, plan, run, resumable=True),)
