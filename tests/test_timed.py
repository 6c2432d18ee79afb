"""An evaluation within a time budget, by a clock that only asking moves."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakeengine import FakeEngine
from polygraft.errors import RecipeError
from polygraft.evals import tasks
from polygraft.evals.budget import Budget, parse_duration
from polygraft.evals.items import Item
from polygraft.evals.run import Job
from polygraft.evals.tasks.foreign import Foreign
from polygraft.evals.timed import Timing, picked, refuse_foreign, units

CHOICE, WRITTEN = tasks.load("problems"), tasks.load("problems-generate")


def job(language, n, task=CHOICE, length=60, strata=1):
    items = (Item(f"{language}-{i}", language, "x" * length, ("a", "b"), stratum=f"s{i % strata}") for i in range(n))
    return Job(language, task, tuple(items))


class World:
    """A clock and models whose every item takes its time: `pace[model]` seconds an item of a written job, a hundredth of it else.

    What was asked once is stored, and takes no more time.
    """

    def __init__(self, *pace, load=0.0):
        self.now, self.pace, self.load, self.stored = 0.0, pace, load, set()

    def __call__(self):
        return self.now

    def ask(self, model):
        def ask(jobs):
            out = []
            for j in jobs:
                each = self.pace[model] * (1 if j.task is WRITTEN else 0.01)
                ids = [getattr(t, "id", t) for t in j.items or j.documents]
                self.now += each * len({(model, j.key, i) for i in ids} - self.stored)
                self.stored |= {(model, j.key, i) for i in ids}
                out.append([{"id": i, "seconds": each} for i in ids])
            return out
        return ask

    def evaluate(self, jobs, seconds, weights=None):
        """What `models.evaluate` does: (jobs, records of each model, the timing)."""
        timing = Timing(Budget(seconds, self), weights or [1.0] * len(self.pace))
        given, asked = [], list(jobs)
        for i in range(len(self.pace)):
            self.now += self.load
            if i == 0:
                asked = timing.choose(asked, self.ask(0), FakeEngine())
            found = timing.run(i, asked, self.ask(i))
            kept = timing.without(asked, found)
            asked, given = [asked[k] for k in kept], [[records[k] for k in kept] for records in (*given, found)]
        return asked, given, timing


JOBS = [job("en", 200), job("sw", 200), job("en", 100, WRITTEN), job("sw", 100, WRITTEN)]


@pytest.mark.parametrize("seconds", [30, 60, 200])
def test_what_is_chosen_takes_about_the_time_there_is(seconds):
    world = World(1.0, 1.0, load=2.0)
    asked, _, timing = world.evaluate(JOBS, seconds)
    assert len(asked) == len(JOBS) and not timing.left_out
    assert 0.6 * seconds < world.now <= seconds
    choice, written = len(asked[0].items), len(asked[2].items)
    assert choice > 4 * written > 0 and written == len(asked[3].items)


def test_every_model_is_asked_the_same_items():
    _, given, _ = World(1.0, 0.5, 2.0).evaluate(JOBS, 200, [1.0, 0.5, 2.0])
    ids = [[[r["id"] for r in records] for records in model] for model in given]
    assert ids[0] == ids[1] == ids[2]


def test_the_same_questions_in_every_language():
    asked, _, _ = World(1.0).evaluate(JOBS, 60)
    assert [i.id.partition("-")[2] for i in asked[2].items] == [i.id.partition("-")[2] for i in asked[3].items]


def test_a_shorter_budget_asks_a_subset():
    small, large = (World(1.0).evaluate(JOBS, s)[0] for s in (30, 90))
    for a, b in zip(small, large):
        assert {i.id for i in a.items} < {i.id for i in b.items} or len(b.items) == len(a.items)


def test_a_language_of_longer_prompts_is_dearer():
    asked, _, _ = World(1.0).evaluate([job("en", 500, length=50), job("my", 500, length=200)], 2.0)
    assert len(asked[0].items) == pytest.approx(2 * len(asked[1].items), rel=0.2)  # 1 / sqrt of four times the tokens


@pytest.mark.parametrize("late", [3.0, 10.0, 1000.0])
def test_a_model_that_is_late_leaves_out_whole_jobs_for_all(late):
    world = World(1.0, late)
    asked, given, timing = world.evaluate(JOBS, 100)
    assert 1 <= len(asked) < len(JOBS) and [len(g) for g in given] == [len(asked)] * 2
    assert [len(r) for r in given[0]] == [len(r) for r in given[1]] == [len(j.items) for j in asked]
    [how, out] = timing.said(asked)
    assert "Left out" in out and "problems-generate sw" in out
    assert len(asked) + len(timing.left_out) == len(JOBS) and f"{sum(len(j.items) for j in asked)} of 600" in how


def test_the_first_model_too_is_stopped_when_it_is_late():
    world = World(1.0)
    slow = world.ask(0)
    timing = Timing(Budget(60, world), [1.0])
    asked = timing.choose(JOBS, slow, FakeEngine())
    world.now += 1000  # the machine was busy with something else
    found = timing.run(0, asked, slow)
    assert found[0] is not None and found[1:] == [None] * 3 and timing.without(asked, found) == [0] and len(timing.left_out) == 3


def test_what_is_dear_is_left_out_before_what_is_cheap():
    """Late for a dear job, there may still be time for the cheap ones after it."""
    world, jobs = World(1.0), [JOBS[2], JOBS[3], JOBS[0], JOBS[1]]
    timing = Timing(Budget(60, world), [1.0])
    asked = timing.choose(jobs, world.ask(0), FakeEngine())
    world.now += 20  # the machine was busy with something else
    found = timing.run(0, asked, world.ask(0))
    assert [records is None for records in found] == [False, True, False, False] and world.now <= 60


def test_what_is_said():
    asked, _, timing = World(1.0).evaluate(JOBS, 60)
    [how] = timing.said(asked)
    assert "time budget of 1 min" in how and "of 600 items" in how and f"problems-generate en {len(asked[2].items)} of 100" in how
    assert "before any answer was seen" in how
    whole, _, timing = World(0.001).evaluate(JOBS, 600)
    [how] = timing.said(whole)
    assert "600 of 600 items" in how and "problems en" not in how and [len(j.items) for j in whole] == [200, 200, 100, 100]


@pytest.mark.parametrize("weights", [[1.0], [1.0, 3.0], [5.0, 1.0]])
def test_a_budget_too_short_for_a_few_items_asks_them_and_says_so(weights):
    world = World(*(10.0 * w for w in weights), load=1.0)
    asked, _, timing = world.evaluate(JOBS, 40 * weights[0], weights)
    assert [len(j.items) for j in asked[2:]] == [5, 5] and all(len(j.items) >= 5 for j in asked)
    [_, said] = timing.said(asked)
    assert "could not be kept" in said
    told = parse_duration(re.search("about ([^.]*)", said)[1].replace(" ", ""))
    assert told == pytest.approx(world.now, rel=0.15) and told > timing.budget.seconds


@pytest.mark.parametrize(("seconds", "load", "says"), [(3, 5.0, "more than 5 s"), (25, 1.0, "more than")])
def test_a_budget_that_is_over_before_anything_is_known_is_refused(seconds, load, says):
    with pytest.raises(RecipeError, match="over before") as e:
        World(30.0, load=load).evaluate([JOBS[2], JOBS[0]], seconds)
    assert says in str(e.value) and e.value.exit_code == 2


def test_the_least_that_is_told_is_enough():
    with pytest.raises(RecipeError) as e:
        World(10.0, 10.0).evaluate(JOBS, 15)
    least = parse_duration(re.search("expected: about ([^;)\n]*)", str(e.value))[1].replace(" ", ""))
    _, _, timing = World(10.0, 10.0).evaluate(JOBS, least)
    assert not timing.beyond and not timing.left_out


def test_what_happens_once_is_no_cost_of_an_item():
    """Imports of 6 s and a first call of 3 s, items of 0.01 s: 20 s hold all of them, for two models."""
    world, first = World(0.05, 0.05, load=0.5), [3.0]
    plain = world.ask

    def ask(model):
        def slow(jobs):
            world.now += first.pop() if first else 0.02
            return plain(model)(jobs)
        return slow
    world.ask, jobs = ask, [job("en", 900), job("sw", 500)]
    timing = Timing(Budget(20, world), [1.0, 1.0])
    world.now += 6
    timing.opening = world.now
    world.now += 0.5
    asked = timing.choose(jobs, ask(0), FakeEngine())
    assert timing.loading == 0.5 and [len(j.items) for j in asked] == [900, 500] and not timing.beyond
    assert all(found is not None for found in timing.run(0, asked, ask(0)))
    world.now += 0.5
    assert all(found is not None for found in timing.run(1, asked, ask(1))) and world.now < 20


def test_lm_evals_own_tasks_are_refused():
    with pytest.raises(RecipeError, match="limit"):
        refuse_foreign([*JOBS, Job("und", foreign=Foreign("arc_easy", "1", None, 0, None))])


def test_documents_are_chosen_too_and_keep_their_numbers():
    corpus = Job("en", documents=tuple(f"text {i}" for i in range(50)))
    asked, _, _ = World(10.0).evaluate([corpus], 4.0)
    some = asked[0]
    assert 10 < len(some.documents) < 50 and some.documents == tuple(f"text {i}" for i in some.numbers)


@settings(max_examples=50)
@given(st.integers(1, 60), st.integers(1, 5), st.integers(0, 2), st.data())
def test_picked_jobs_are_even_over_strata_and_in_order(n, strata, seed, data):
    whole = job("en", n, strata=strata)
    order = units(whole, seed)
    k = data.draw(st.integers(1, n))
    some = picked(whole, [i for unit in order[:k] for i in unit])
    assert [i.id for i in some.items] == sorted((i.id for i in some.items), key=lambda x: int(x[3:])) and len(some.items) == k
    if k >= 2 * strata and n >= 4 * strata:
        assert {i.stratum for i in some.items} == {i.stratum for i in whole.items}
