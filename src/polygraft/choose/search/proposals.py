"""Optuna proposes mixtures of layers, batch by batch, and is told their scores: one objective or several with a Pareto front.

Akiba et al. 2019; with one objective its TPE sampler, with several NSGA-II (Deb et al. 2002). Seeded: the same scores lead to the
same proposals, so that a search that was cut off goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from polygraft.choose.candidates import Candidate
from polygraft.choose.search.clock import Clock
from polygraft.choose.search.judge import Some
from polygraft.choose.search.space import Space
from polygraft.choose.search.strategies import LEAST, Round, Search, Trail
from polygraft.errors import RecipeError

SHARES = (0.0, 0.5, 1.0)
BATCH = 16


def missing() -> RecipeError | None:
    """What is wrong where Optuna is not installed."""
    if find_spec("optuna") is not None:
        return None
    return RecipeError("this strategy needs Optuna, which is not installed", where="strategy", found="optuna",
                       fix="pip install 'polygraft[search]', or use grid, halving or greedy")


def optuna(search: Search, select: Some, held: Some) -> Trail:
    """Mixtures of runs of layers, by batches; the first are the paper's default and the task expert's layers."""
    if (wrong := missing()) is not None:
        raise wrong
    import optuna as library

    library.logging.set_verbosity(library.logging.WARNING)
    space, judge, clock = search.space, search.judge, search.clock
    study = library.create_study(directions=["maximize"] * len(judge.objectives), sampler=_sampler(library, search))
    for known in _known(space):
        study.enqueue_trial(known)
    seen: dict[str, Candidate] = {}
    told: list[Round] = []
    took, trials, left = 0.0, space.config.trials, space.config.trials
    while left > 0 and clock.another(took, held, select if seen else ()):
        asked = [study.ask() for _ in range(min(BATCH, left))]
        batch = [_candidate(space, trial) for trial in asked]
        if not seen:
            batch, select, held = _fitted(clock, search, batch, select, held, trials)
        took = judge.ask(batch, select)
        for trial, values in zip(asked, judge.scores(batch, select)):
            study.tell(trial, [float(v) for v in values])
        left -= len(asked)
        seen |= {c.name: c for c in batch}
        told.append(search.round(list(seen.values()), select))
    if left > 0:
        clock.notes.append(f"The time was over after {trials - left:,} of {trials:,} proposals.")
    return Trail(list(seen.values()), list(select), list(held), rounds=told)


def _fitted(clock: Clock, search: Search, batch: list[Candidate], select: Some, held: Some, trials: int) -> Any:
    """The items that there is time for. The batch stays whole: Optuna waits for each of its proposals."""
    _, select, held = clock.fitting(search.judge, batch, select, held, LEAST, times=max(1.0, trials / BATCH))
    return batch, select, held


def _sampler(library: Any, search: Search) -> Any:
    seed = search.space.config.seed
    if len(search.judge.objectives) > 1:
        return library.samplers.NSGAIISampler(population_size=BATCH, seed=seed)
    return library.samplers.TPESampler(seed=seed, n_startup_trials=BATCH, constant_liar=True)


def _names(space: Space) -> list[str]:
    return [f"g{i:03d}" for i in range(len(space.genes()))]


def _candidate(space: Space, trial: Any) -> Candidate:
    """The mixture that a trial stands for."""
    pairs, policies = space.pairs, space.policies()
    pair = pairs[trial.suggest_categorical("pair", tuple(range(len(pairs)))) if len(pairs) > 1 else 0]
    shares = [trial.suggest_categorical(name, SHARES) for name in _names(space)]
    policy = policies[trial.suggest_categorical("policy", tuple(range(len(policies)))) if len(policies) > 1 else 0]
    return space.mixture(pair, shares, policy)


def _known(space: Space) -> list[dict[str, Any]]:
    """Proposals to begin with: the paper's default as nearly as the runs allow, and the task expert's layers."""
    anchors = {c.name: c for c in space.anchors()}
    default = next(c for name, c in anchors.items() if name.endswith("paper's default"))
    key = {i: k for k, p in space.anatomy.parts.items() if (i := p.layer) is not None and p.kind == "attn"}
    language = space.names.index(space.pairs[0][1])
    shares = [_nearest([default.profile.weights[key[i]][language] for i in run if i in key]) for run in space.runs()]
    fixed: dict[str, Any] = ({"pair": 0} if len(space.pairs) > 1 else {}) | ({"policy": 0} if len(space.policies()) > 1 else {})
    return [dict(zip(_names(space), [shares[r] for r, _ in space.genes()])) | fixed, dict.fromkeys(_names(space), 0.0) | fixed]


def _nearest(values: Sequence[float]) -> float:
    mean = sum(values) / max(1, len(values))
    return min(SHARES, key=lambda s: abs(s - mean))


