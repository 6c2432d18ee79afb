"""What a search would do, told from headers and item files: candidates, layers saved by sharing, memory, seconds, what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from polygraft.blocks import block_bytes, holds, whole_bytes
from polygraft.choose.search import asking, fanout, proposals
from polygraft.choose.search import opening as sources
from polygraft.choose.search.asking import Ask
from polygraft.choose.search.config import CONFIRM, SELECT, Search
from polygraft.choose.search.objectives import Objective, resolve, unknown_metric
from polygraft.choose.search.opening import Opened
from polygraft.choose.search.space import Space, together
from polygraft.errors import UserError
from polygraft.evals import estimate
from polygraft.evals.budget import parse_duration
from polygraft.evals.jobs import faults, fetched, foreign_words, said
from polygraft.evals.opening import lacks_template, no_template
from polygraft.evals.run import Job
from polygraft.evals.timed import picked
from polygraft.meter import LIBRARIES
from polygraft.step import Context, Plan

STATES = 256 << 20  # bytes of hidden states in memory


@dataclass
class Draft:
    """A plan in the making."""

    lines: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    wrong: list[UserError] = field(default_factory=list)

    def check(self, what: Callable[[], object]) -> object | None:
        """What `what` gives; its UserError is kept as one that is wrong."""
        try:
            return what()
        except UserError as e:
            self.wrong.append(e)
            return None


def plan(config: Search, context: Context) -> Plan:
    """From headers and data files: what is tried, asked and confirmed, roughly what it takes, and all that is wrong."""
    found, draft = sources.opened(config, context), Draft()
    jobs, wrong = faults(config.evaluation(), context)
    draft.wrong += [*wrong, *map(asking.foreign, foreign_words(config.evaluation(), context))]
    draft.wrong += [e for e in ((proposals.missing() if config.strategy == "optuna" else None),
                                (fanout.missing() if config.workers > 1 else None)) if e is not None]
    if config.chat and lacks_template(found.sources[0]):
        draft.wrong.append(no_template(found.sources[0]))
    space = Space(config, found.anatomy, found.names, {})
    tried = draft.check(lambda: _tried(config, space, draft))
    items = _asked(config, jobs, draft) if not draft.wrong else None
    later = [f"{e.task.name} {e.language}" for e in fetched(config.evaluation(), context)] if not draft.wrong else []
    draft.lines += [f"{name}: from the hub; its items are read and counted when the step runs" for name in later]
    draft.notes += [*found.notes, *said(config.evaluation(), context)] if not draft.wrong else []
    layers = tried if isinstance(tried, float) else 0.0
    seconds = _seconds(config, found, items, layers) if items else 0.0
    if config.time_budget:
        seconds = min(seconds, parse_duration(config.time_budget))
        draft.notes.append("where the time budget does not hold all items, fewer are asked; then fewer candidates are tried")
    size = sum(t.nbytes for t in found.named[0].weights.tensors.values())
    disk = (size if config.write == "best" else 0) + (1 << 20)
    return Plan(tuple(draft.lines), _peak(config, found, draft), disk, size * len(found.named), seconds, (), tuple(draft.wrong),
                tuple(draft.notes), found.sources[0] if config.write == "best" else None)


def _tried(config: Search, space: Space, draft: Draft) -> float:
    """Says how many candidates there are; -> layers that they take, in forwards of a whole model."""
    depth = space.anatomy.layers
    if config.strategy in ("grid", "halving"):
        profiles = [c.profile for c in space.grid()]
        shared = together(profiles, space.anatomy).layers
        naive = len(profiles) * depth
        pairs = f" of {len(space.pairs)} pairs" * (len(space.pairs) > 1)
        draft.lines.append(f"{len(profiles):,} windows{pairs} ({config.strategy}), none of which is written")
        draft.lines.append(f"{shared:,} layers are computed instead of {naive:,}: candidates share what they have in common "
                           f"({naive / max(1, shared):.1f} times fewer)")
        return shared / depth * (0.5 if config.strategy == "halving" and len(profiles) > 8 else 1.0)
    genes = len(space.genes())
    if config.strategy == "greedy":
        most = config.rounds * genes * len(space.pairs)
        draft.lines.append(f"at most {most:,} mixtures: {config.rounds} rounds, in each of which every one of {genes} runs of "
                           "layers is exchanged alone")
    else:
        most = config.trials
        draft.lines.append(f"{most:,} mixtures of {genes} runs of layers, proposed by Optuna")
    return most / 2.0


def _asked(config: Search, jobs: Sequence[Job], draft: Draft) -> tuple[list[Job], list[Job]] | None:
    """Says what chooses and what confirms; -> the jobs of each."""
    scored = draft.check(lambda: asking.scorable(jobs)[0]) if jobs else []
    if not isinstance(scored, list) or not scored:
        return None
    asks = [Ask(j, config.kl.get(j.language) if j.documents else None) for j in scored]
    if (odd := unknown_metric(config.metric, asks)) is not None:
        draft.wrong.append(odd)
    objectives = draft.check(lambda: resolve(config.objectives, asks, config.metric))
    parts = [draft.check(lambda a=a: asking.split(a, config.confirm, config.seed, (SELECT, CONFIRM))) for a in asks]  # type: ignore[misc]
    if draft.wrong or not isinstance(objectives, tuple):
        return None
    choose, confirm = [], []
    for a, part in zip(asks, parts):
        assert isinstance(part, tuple)
        one, other = ([i for unit in side for i in unit] for side in part)
        draft.lines.append(f"{a.title} {a.job.language}: {len(one):,} items choose, {len(other):,} confirm")
        choose.append(picked(a.job, one))
        confirm.append(picked(a.job, other))
    draft.lines.append(f"decided by {_named(objectives)}; confirmed against the experts, soup, the paper's default and "
                       f"{config.windows} random windows")
    return choose, confirm


def _named(objectives: Sequence[Objective]) -> str:
    return ", then ".join(f"{o.name} ({o.metric.name})" for o in objectives) + " (Pareto front)" * (len(objectives) > 1)


def _seconds(config: Search, found: Opened, items: tuple[list[Job], list[Job]], layers: float) -> float:
    """To the order of magnitude, for two CPU cores."""
    parameters = sum(t.numel for t in found.named[0].weights.tensors.values())
    choosing, confirming = (estimate.work(jobs).seconds(parameters) for jobs in items)
    finalists = len(found.named) + 2 * len(config.task) * len(config.language) + config.windows + 2
    return layers * choosing + finalists * (choosing + confirming)


def _peak(config: Search, found: Opened, draft: Draft) -> int:
    """Every source in memory where they fit, else one layer of each at a time; one candidate's blended layers; hidden states."""
    weights = [n.weights for n in found.named]
    whole = sum(whole_bytes(w, config.dtype) for w in [*weights, weights[0]])
    layer = sum(block_bytes(w, found.anatomy, config.dtype) for w in [*weights, weights[0]])
    fits = holds(whole)
    draft.notes.append("memory does not grow with the number of candidates" if fits else
                       "the sources are larger than memory: one layer of each is read at a time")
    return (whole if fits else layer) + STATES + LIBRARIES
