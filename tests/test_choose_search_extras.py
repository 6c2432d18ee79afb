"""Optuna and Ray, which are extras, and models that write: stand-ins that do as they document show what a search asks of them."""

from __future__ import annotations

import random
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from polygraft.choose.graft import Grafter
from polygraft.choose.search import fanout, proposals, written
from polygraft.choose.search.clock import Clock
from polygraft.evals.budget import Budget
from polygraft.merge import makers
from polygraft.sources import resolve
from test_choose_search import Rule, planted, search, shares, sheet, space


class Study:
    """Proposes at random, after what is enqueued; keeps what it is told."""

    def __init__(self, directions, sampler):
        self.directions, self.sampler, self.queue, self.told, self.rng = directions, sampler, [], [], random.Random(0)

    def enqueue_trial(self, known):
        self.queue.append(known)

    def ask(self):
        fixed, made = self.queue.pop(0) if self.queue else {}, {}

        def suggest(name, choices):
            made[name] = fixed.get(name, self.rng.choice(choices))
            assert made[name] in choices
            return made[name]

        return SimpleNamespace(suggest_categorical=suggest, made=made)

    def tell(self, trial, values):
        self.told.append((trial.made, values))


@pytest.fixture
def studies(monkeypatch):
    """Studies that are made, of an `optuna` that stands in for the library."""
    made: list[Study] = []
    library = ModuleType("optuna")
    library.logging = SimpleNamespace(set_verbosity=lambda level: None, WARNING=30)
    library.samplers = SimpleNamespace(TPESampler=lambda **k: ("tpe", k), NSGAIISampler=lambda **k: ("nsga2", k))
    library.create_study = lambda directions, sampler: made.append(Study(directions, sampler)) or made[-1]
    monkeypatch.setitem(sys.modules, "optuna", library)
    monkeypatch.setattr(proposals, "find_spec", lambda name: name)
    return made


def test_proposals_begin_with_the_default_and_the_task_and_more_is_better(studies):
    sp = space(strategy="optuna", groups=4, trials=40, seed=5)
    o = search(sp, sheet(), Rule(sp.anatomy, planted(sp.anatomy, 2, 0)))
    [study] = studies
    assert study.sampler == ("tpe", {"seed": 5, "n_startup_trials": 16, "constant_liar": True}) and len(study.told) == 40
    assert list(study.told[1][0].values()) == [0.0] * 4, "the task expert's layers"
    best = max(study.told, key=lambda t: t[1])
    assert o.best.params["layers"]["attn"] == [best[0][f"g{i // 2:03d}"] for i in range(8)]
    assert [r.candidates for r in o.picked.trail.rounds] == sorted(r.candidates for r in o.picked.trail.rounds)


def test_several_objectives_pairs_and_policies_are_proposed_together(studies):
    sp = space(names=("m1", "m2", "r1", "r2"), strategy="optuna", groups=2, trials=30, langs=("es", "en"), objectives=("es", "en"),
               embed=("task", "language"))
    o = search(sp, sheet(languages=("es", "en")), Rule(sp.anatomy, lambda found: float(found.sum())))
    [study] = studies
    assert study.sampler[0] == "nsga2" and study.directions == ["maximize"] * 2 and all(len(v) == 2 for _, v in study.told)
    assert {t["pair"] for t, _ in study.told} == {0, 1, 2, 3} and {t["policy"] for t, _ in study.told} == {0, 1}
    assert o.picked.front and {c.params["task"] for c in o.picked.trail.candidates} == {"m1", "m2"}
    assert all(shares(c.profile, sp.anatomy, 0).sum() + shares(c.profile, sp.anatomy, 2).sum() in (0, 8)
               for c in o.picked.trail.candidates if (c.params["task"], c.params["language"]) == ("m1", "r1"))


class Actor:
    """One worker, at work at once: a promise is its answer."""

    def __init__(self, made):
        self.answer = SimpleNamespace(remote=lambda call: made.answer(call))


@pytest.fixture
def cluster(monkeypatch):
    """What workers were asked for, of a `ray` that stands in for the library."""
    asked: list[dict] = []
    library = ModuleType("ray")
    library.is_initialized, library.init, library.get = lambda: True, None, lambda promises: promises
    library.remote = lambda **options: lambda kind: SimpleNamespace(remote=lambda *a: (asked.append(options), Actor(kind(*a)))[1])
    monkeypatch.setitem(sys.modules, "ray", library)
    monkeypatch.setattr(fanout, "find_spec", lambda name: name)
    return asked


def test_workers_that_open_the_sources_themselves_say_what_one_says(cluster, tiny):
    sources = [resolve(tiny("llama", layers=3, seed=s, noise=0.05)) for s in (1, 2)]
    grafter = Grafter.open(sources, dtype="float32")
    profiles = [makers.swap(grafter.anatomy, bottom=b, top=u, transition=0) for b in (2, 0, 1) for u in (0, 1)]
    rows, scored = [[7, 60, 61, 62], [7, 60, 63], [200, 201, 202]], [2, 1, 2]
    several = fanout.over_ray(fanout.opening(sources, "float32", "cpu", True), 3, grafter.anatomy)
    for near in (None, profiles[3]):
        one, many = (score(profiles, rows, scored, near, lambda *_: None) for score in (fanout.local(grafter), several))
        assert many[0] == pytest.approx(one[0], abs=1e-4) and np.array_equal(one[1], many[1])
    assert cluster == [{"num_gpus": 0}] * 3


def test_finalists_write_while_there_is_time_and_who_did_not_is_said(monkeypatch):
    sp, asked = space(), sheet(20)
    now = [0.0]
    clock = Clock(Budget(25.0, lambda: now[0]))

    def slow(*_, **__):
        now[0] += 10.0
        return [[]]

    monkeypatch.setattr(written.conditions, "load", lambda *a: None)
    monkeypatch.setattr(written.conditions, "engine", lambda live: None)
    monkeypatch.setattr(written.merging, "apply", lambda *a: None)
    monkeypatch.setattr(written.run, "run_jobs", slow)
    monkeypatch.setattr(written.time, "monotonic", lambda: now[0])
    found = SimpleNamespace(sources=[None], named=[SimpleNamespace(weights=None)] * 2)
    context, jobs = SimpleNamespace(progress=lambda *a: None), [asked.asks[0].job]
    made = written.asked(sp.config, found, jobs, sp.anchors(), context, (1, 1), clock)
    assert list(made.asked[0].records) == ["math", "read"]
    assert clock.notes == ["The time was over before soup, paper's default had written answers."]
    now[0] = 60.0
    assert written.asked(sp.config, found, jobs, sp.anchors(), context, (1, 1), clock) is None
