"""Statistics against naive oracles, at their edges, and on planted differences."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle import stats_oracle as oracle
from polygraft import stats
from polygraft.evals.metrics.base import mean
from polygraft.evals.verdicts import planning

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


def boot(columns, value=mean, seed=0, draws=2000):
    """The bootstrap of one measure, from its parts."""
    columns = np.asarray(columns, float)
    samples = np.concatenate([value(block[0]) for block in stats.resampled([columns], seed=seed, draws=draws)])
    return stats.summarise(float(value(columns.sum(axis=0))), samples, len(columns))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0.5, 4)), min_size=2, max_size=4), st.integers(0, 5))
def test_bootstrap_is_a_sample_of_all_resamples(items, seed):
    every = np.array(oracle.bootstrap_draws(items))
    b = boot(items, seed=seed, draws=4000)
    assert b.value == pytest.approx(sum(v for v, _ in items) / sum(w for _, w in items))
    want = max(min(1.0, 2 * min((every <= 0).mean(), (every >= 0).mean())), 2.0 ** (1 - len(items)))
    assert b.p == pytest.approx(want, abs=0.06)
    for got, q in ((b.low, 0.025), (b.high, 0.975)):
        assert np.quantile(every, max(q - 0.02, 0), method="lower") - 1e-9 <= got
        assert got <= np.quantile(every, min(q + 0.02, 1), method="higher") + 1e-9


def test_the_standard_error_of_a_mean_is_known():
    x = np.random.default_rng(1).normal(size=200)
    assert boot(np.column_stack([x, np.ones(200)]), draws=8000).se == pytest.approx(x.std() / np.sqrt(200), rel=0.03)


def test_draws_are_seeded_and_do_not_depend_on_what_is_drawn_with_them():
    rng = np.random.default_rng(1)
    a, b, c = rng.random((50, 2)), rng.random((50, 3)), rng.random((20, 1))
    alone = np.concatenate([s[0] for s in stats.resampled([a], seed=3, draws=700)])
    together = [np.concatenate(x) for x in zip(*stats.resampled([c, b, a], seed=3, draws=700))]
    assert [t.shape for t in together] == [(700, 1), (700, 3), (700, 2)]
    assert np.allclose(together[2], alone)
    assert np.allclose(np.concatenate([s[0] for s in stats.resampled([a], seed=3, draws=300)]), alone[:300])
    assert not np.allclose(np.concatenate([s[0] for s in stats.resampled([a], seed=4, draws=700)]), alone)


def test_equal_item_sets_are_drawn_alike():
    a = np.arange(12.0)[:, None]
    for x, y in stats.resampled([a, a + 5], draws=500):
        assert np.allclose(y - x, 12 * 5)


@pytest.mark.parametrize("samples", [[np.nan, 1.0], [np.inf]])
def test_samples_that_are_not_finite_are_refused(samples):
    with pytest.raises(ValueError):
        stats.summarise(0.0, samples, 5)


def test_few_items_cannot_give_a_small_p():
    assert stats.summarise(1.0, np.ones(10_000), 5).p == 2.0**-4
    assert stats.summarise(1.0, np.ones(10_000), 1).p == 1.0
    assert stats.summarise(1.0, np.ones(999), 60).p == pytest.approx(2 / 1000)
    assert stats.summarise(0.0, np.zeros(999), 60).p == 1.0


def test_what_differs_in_the_last_bit_only_is_equal():
    a = np.array([0.1 + 0.2, 0.0, 1.0])
    assert stats.paired(a, np.array([0.3, 0.0, 1.5])).tolist() == [0.0, 0.0, 0.5]


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
    rng, n = np.random.default_rng(0), 250
    points, found = planning.detectable_points(n) / 100, 0
    for _ in range(300):
        u = rng.random(n)  # a quarter of the items discordant, in favour of b by what is said to be detectable
        gain = (0.25 + points) / 2
        a, b = u < 0.4 + (0.25 - gain), (u < 0.4) | (u > 1 - gain)
        found += stats.mcnemar(a, b) < 0.05
    assert 0.7 < found / 300 < 0.92


def test_250_items_show_about_9_points():
    assert planning.detectable_points(250) == pytest.approx(8.86, abs=0.01)
    assert planning.seen(9, [True]) == planning.seen(99, [False]) == "" and planning.seen(10, [False, True])
    assert "250 items" in planning.sentence(250) and "8.9 points" in planning.sentence(250)
    assert planning.detectable_points(250, comparisons=11) > 11
    assert planning.detectable_points(0) == 100.0 and planning.detectable(1.0, 0) == float("inf")
    assert planning.detectable_points(250, discordant=0.0) == 0.0
    with pytest.raises(ValueError):
        planning.detectable_points(250, discordant=1.5)


def test_agreement_on_a_few_items_is_no_proof_of_agreement():
    same = np.ones(10)
    assert planning.detectable(planning.spread(same, same), 10) > 0.3
    many = np.ones(100_000)
    assert planning.spread(many, many) < 0.01
