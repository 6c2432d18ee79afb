"""Statistics against naive oracles, at their edges, and on planted differences."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle import stats_oracle as oracle
from polygraft.evals.verdicts import stats

bools = st.lists(st.booleans(), min_size=1, max_size=40)


@settings(deadline=None)
@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_solves_its_equation(kn):
    low, high = stats.wilson(*kn)
    assert np.allclose((low, high), oracle.wilson(*kn), atol=1e-7)
    assert 0 <= low <= kn[0] / kn[1] <= high <= 1


def test_wilson_at_the_edges():
    assert stats.wilson(0, 0) == (0.0, 1.0)
    assert stats.wilson(0, 10)[0] == 0.0
    assert stats.wilson(10, 10)[1] == 1.0
    assert stats.wilson(125, 250) == pytest.approx((0.4384, 0.5616), abs=1e-4)  # the +-6 points of MGSM
    with pytest.raises(ValueError):
        stats.wilson(3, 2)


@settings(deadline=None)
@given(bools.flatmap(lambda a: st.tuples(st.just(a), st.lists(st.booleans(), min_size=len(a), max_size=len(a)))))
def test_mcnemar_counts_all_splits(pair):
    a, b = pair
    assert stats.mcnemar(a, b) == pytest.approx(oracle.mcnemar(a, b), abs=1e-12)
    assert stats.mcnemar(a, b) == stats.mcnemar(b, a)


def test_mcnemar_known_and_empty():
    assert stats.mcnemar([], []) == 1.0
    assert stats.mcnemar([True] * 5, [True] * 5) == 1.0
    assert stats.mcnemar([False] * 6, [True] * 6) == pytest.approx(2 / 64)
    with pytest.raises(ValueError):
        stats.mcnemar([True], [True, False])


def test_newcombe_gives_the_published_interval():
    # Newcombe 1998, table I, example (b) of Altman: e=14, f=5, g=0, h=22 ... difference 0.1220, method 10: 0.0114 to 0.2265
    a = [1] * 14 + [1] * 5 + [0] * 22
    b = [1] * 14 + [0] * 5 + [0] * 22
    low, high = stats.newcombe(b, a)
    assert (low, high) == pytest.approx((0.0114, 0.2265), abs=2e-3)


@settings(deadline=None)
@given(bools.flatmap(lambda a: st.tuples(st.just(a), st.lists(st.booleans(), min_size=len(a), max_size=len(a)))))
def test_newcombe_holds_the_difference_and_turns_with_the_order(pair):
    a, b = pair
    low, high = stats.newcombe(a, b)
    assert -1 <= low <= np.mean(b) - np.mean(a) <= high <= 1
    assert (-high, -low) == pytest.approx(stats.newcombe(b, a))


def test_newcombe_has_width_where_nothing_differs():
    low, high = stats.newcombe([True] * 10, [True] * 10)
    assert low < 0 < high
    assert stats.newcombe([], []) == (-1.0, 1.0)


def test_newcombe_covers_as_promised():
    rng = np.random.default_rng(0)
    hits, truth = 0, _truth()
    for _ in range(400):
        u = rng.random(60)
        a, b = u < 0.3, (u + 0.3 * rng.random(60)) < 0.35
        low, high = stats.newcombe(a, b)
        hits += low <= truth <= high
    assert hits / 400 > 0.92


def _truth():
    u, v = np.meshgrid(np.linspace(0, 1, 1001)[:-1] + 5e-4, np.linspace(0, 1, 1001)[:-1] + 5e-4)
    return float(((u + 0.3 * v) < 0.35).mean() - 0.3)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0.5, 4)), min_size=2, max_size=4), st.integers(0, 5))
def test_bootstrap_is_a_sample_of_all_resamples(items, seed):
    v, w = [x for x, _ in items], [y for _, y in items]
    every = np.array(oracle.bootstrap_draws(v, w))
    b = stats.bootstrap(v, w, seed=seed, draws=4000)
    assert b.value == pytest.approx(sum(v) / sum(w))
    assert b.p == pytest.approx(min(1.0, 2 * min((every <= 0).mean(), (every >= 0).mean())), abs=0.06)
    for got, q in ((b.low, 0.025), (b.high, 0.975)):
        assert np.quantile(every, max(q - 0.02, 0), method="lower") - 1e-9 <= got
        assert got <= np.quantile(every, min(q + 0.02, 1), method="higher") + 1e-9


def test_bootstrap_is_seeded_and_checks_its_input():
    x = np.random.default_rng(1).normal(size=50)
    assert stats.bootstrap(x, seed=3) == stats.bootstrap(x, seed=3)
    assert stats.bootstrap(x, seed=3).low != stats.bootstrap(x, seed=4).low
    for bad, weights in (([], None), ([np.nan], None), ([1.0], [0.0]), ([1.0, 2.0], [1.0]), ([1.0, 2.0], [2.0, -1.0])):
        with pytest.raises(ValueError):
            stats.bootstrap(bad, weights)


def test_bootstrap_where_all_are_equal():
    b = stats.paired_bootstrap([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert (b.value, b.low, b.high, b.p) == (0.0, 0.0, 0.0, 1.0)


def test_paired_bootstrap_finds_a_planted_difference_that_an_unpaired_reading_would_miss():
    rng = np.random.default_rng(0)
    item = rng.normal(10, 5, 100)  # items differ far more than models do
    a, b = item + rng.normal(0, 0.5, 100), item + rng.normal(0, 0.5, 100) - 0.5
    found = stats.paired_bootstrap(a, b)
    assert found.p < 0.01 and found.low < -0.5 < found.high < 0
    apart = [stats.bootstrap(x) for x in (a, b)]
    assert apart[0].low < apart[1].high  # the two intervals overlap widely


def test_paired_bootstrap_of_ratios_takes_each_models_own_weights():
    a, b = [10.0, 20.0, 30.0], [12.0, 18.0, 33.0]
    wa, wb = [5.0, 10.0, 15.0], [6.0, 9.0, 16.5]
    found = stats.paired_bootstrap(a, b, wa, wb)
    assert found.value == pytest.approx(sum(b) / sum(wb) - sum(a) / sum(wa))


def test_the_false_alarm_rate_is_what_is_promised():
    rng = np.random.default_rng(7)
    alarms = sum(stats.paired_bootstrap(rng.normal(size=40), rng.normal(size=40), seed=i, draws=1000).p < 0.05 for i in range(200))
    assert alarms / 200 < 0.10


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_is_the_step_down_procedure(p):
    got = stats.holm(p)
    assert got == pytest.approx(oracle.holm(p))
    assert all(q >= x for q, x in zip(got, p))


def test_holm_known():
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([]) == []


@pytest.mark.parametrize(("difference", "p", "higher", "says"), [
    (3.0, 0.01, True, "better"), (-3.0, 0.01, True, "worse"), (-3.0, 0.01, False, "better"), (3.0, 0.01, False, "worse"),
    (3.0, 0.05, True, "not distinguishable"), (0.0, 0.0, True, "not distinguishable"), (1.0, float("nan"), True, "not distinguishable"),
])
def test_verdicts(difference, p, higher, says):
    assert stats.verdict(difference, p, higher_is_better=higher) == says


def test_what_is_called_detectable_is_found_four_times_of_five():
    rng = np.random.default_rng(0)
    d = stats.detectable(1.0, 80)
    found = 0
    for i in range(200):
        x = rng.normal(size=80)
        found += stats.paired_bootstrap(x * 0, x + d, seed=i, draws=600).p < 0.05
    assert 0.7 < found / 200 < 0.92
    assert stats.detectable(1.0, 0) == float("inf")
