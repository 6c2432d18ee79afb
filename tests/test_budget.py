"""The time budget: durations, how many items fit, which ones, and that no answer is looked at."""

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polygraft.errors import RecipeError
from polygraft.evals.budget import Budget, allocate, order, parse_duration, seconds_an_item, spoken

COSTS = st.lists(st.tuples(st.floats(1e-4, 30), st.integers(1, 2000)), min_size=1, max_size=8)


@pytest.mark.parametrize(("text", "seconds"), [("10m", 600), ("90s", 90), ("1h30m", 5400), ("1.5h", 5400), (" 2 min ", 120), ("1H", 3600),
                                               ("1h 5s", 3605), ("30sec", 30)])
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(("text", "says"), [
    ("10", "`10s` or `10m`?"), ("10minutes", "did you mean `10m`"), ("10 hours", "did you mean `10h`"), ("", "90s, 10m"), ("soon", "90s, 10m"),
    ("-5m", "90s, 10m"), ("0s", "90s, 10m"), ("1d", "`1s` or `1m`"), ("10m!", "did you mean `10m`"), ("inf", "90s"), ("٣m", "90s"), ("1e9s", "`1s`"),
])
def test_what_is_no_duration_is_refused_with_what_would_be(text, says):
    with pytest.raises(RecipeError, match="not a length of time") as e:
        parse_duration(text)
    assert says in str(e.value)


@pytest.mark.parametrize(("seconds", "words"), [(600, "10 min"), (5400, "1 h 30 min"), (45, "45 s"), (0.25, "0.2 s"), (3661, "1 h 1 min")])
def test_durations_in_words(seconds, words):
    assert spoken(seconds) == words


# ---------------------------------------------------------------------------------------------------------------- allocate


@settings(max_examples=200)
@given(COSTS, st.floats(0.01, 5000))
def test_what_is_allocated_fits_and_leaves_no_room_for_more(jobs, seconds):
    costs, sizes = zip(*jobs)
    found = allocate(costs, sizes, seconds)
    if not any(found):
        assert sum(costs) > seconds
        return
    spent = sum(c * n for c, n in zip(costs, found))
    assert spent <= seconds and all(1 <= n <= size for n, size in zip(found, sizes))
    assert found == list(sizes) or spent + sum(costs) > seconds * (1 - 1e-9), "one more of each would not fit"


@settings(max_examples=100)
@given(COSTS, st.floats(1, 3000), st.floats(1, 3))
def test_more_time_never_asks_less(jobs, seconds, more):
    costs, sizes = zip(*jobs)
    assert all(a <= b for a, b in zip(allocate(costs, sizes, seconds), allocate(costs, sizes, seconds * more)))


def test_the_allocation_has_the_least_variance():
    """Against every other split that fits: the sum of 1/n is least, up to rounding to whole items."""
    costs, seconds = (1.0, 4.0, 0.25), 60.0
    best = min((sum(1 / n for n in split), split) for split in itertools.product(range(1, 40), range(1, 15), range(1, 90))
               if sum(c * n for c, n in zip(costs, split)) <= seconds)
    found = allocate(costs, [1000] * 3, seconds)
    assert sum(1 / n for n in found) < best[0] * 1.05, (found, best)


def test_jobs_alike_get_the_same_and_small_ones_are_asked_whole():
    assert allocate([1.0] * 4, [250] * 4, 100) == [25] * 4
    assert allocate([1.0, 1.0], [5, 250], 105) == [5, 100]
    assert allocate([0.01], [250], 100) == [250] and allocate([2.0], [250], 1) == [0] and allocate([], [], 5) == []


# ------------------------------------------------------------------------------------------------------------------- order


@settings(max_examples=100)
@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=120), st.integers(0, 3))
def test_every_beginning_is_an_even_sample_over_the_strata(strata, seed):
    ids = [str(i) for i in range(len(strata))]
    found = [i for [i] in order(ids, strata, seed=seed)]
    assert sorted(found) == list(range(len(ids)))
    sizes = Counter(strata)
    for n in range(1, len(ids) + 1):
        taken = Counter(strata[i] for i in found[:n])
        assert all(abs(taken[s] - n * sizes[s] / len(ids)) < 1 + len(sizes) / 2 for s in sizes)


def test_the_order_is_by_hash_the_seed_and_the_id_alone():
    ids = [f"{i}" for i in range(200)]
    one, other = order(ids), order(ids[::-1])
    assert [ids[i] for [i] in one] == [ids[::-1][i] for [i] in other] and order(ids, seed=1) != one
    first = {i for [i] in one[:100]}
    assert 30 < len([i for i in first if i < 100]) < 70, "nothing favours the beginning of the file"


def test_every_item_is_as_likely_as_any_other():
    """Over many seeds, each of the items of unequal strata is in the first quarter about a quarter of the time."""
    strata, counts = ["big"] * 9 + ["small"] * 3, Counter()
    for seed in range(800):
        counts.update(i for [i] in order([str(i) for i in range(12)], strata, seed=seed)[:3])
    assert all(abs(counts[i] / 800 - 0.25) < 0.07 for i in range(12)), counts


def test_groups_stay_together():
    found = order(["a1", "a2", "b1", "c"], groups=["a", "a", "b", ""])
    assert sorted(found) == [[0, 1], [2], [3]]


# ------------------------------------------------------------------------------------------------------------------ budget


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_budget_counts_down():
    clock = Clock()
    one = Budget(60, clock)
    clock.now = 45
    assert one.left == 15


@pytest.mark.parametrize(("n", "each", "allowed", "asked"), [(100, 0.1, 10, 42), (100, 1, 10, 10), (100, 1, 3, 5),
                                                           (100, 1, 0.5, 2), (5, 1, 10, 5), (1, 1, 10, 1), (12, 0, 10, 10)])
def test_timing_asks_few_items_each_once(n, each, allowed, asked):
    seen = []

    def ask(places):
        seen.extend(places)
        return [each] * len(places)
    assert seconds_an_item(ask, [[i] for i in range(n)], allowed) == pytest.approx(each)
    assert seen == list(range(asked))


def test_the_first_item_is_slow_and_does_not_count():
    times = iter([9.0] + [0.5] * 8)
    assert seconds_an_item(lambda places: [next(times) for _ in places], [[i] for i in range(100)], 1) == 0.5


def test_a_unit_of_several_items_costs_all_of_them():
    assert seconds_an_item(lambda places: [0.5] * len(places), [[2 * i, 2 * i + 1] for i in range(20)], 1) == pytest.approx(1.0)
