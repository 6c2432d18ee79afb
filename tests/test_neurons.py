"""Identifiers of language neurons and what is said of their sets: equal to their oracles, defined at every edge."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from oracle import lape_oracle, neurons_oracle
from polygraft.analysis.groups import Groups
from polygraft.analysis.neurons import coactive, lape, others, overlap, stability, topic
from polygraft.analysis.neurons.owners import Found, listed
from polygraft.selectionfile import matched

# counts over a hundred tokens: ties, zeros and equal rows are as common as they are in real readings
P = st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 4)).flatmap(
    lambda s: hnp.arrays(np.int64, s, elements=st.integers(0, 100)).map(lambda c: c / 100)
)
RATES = st.sampled_from([0.0, 0.05, 0.3, 0.5, 0.95, 1.0])


def inside(p, sizes):
    return np.arange(p.shape[1]) < np.array(sizes)[:, None]


def owned_set(owned):
    return set(map(tuple, np.argwhere(owned)))


def masks(layers=3, neurons=40, share=0.3, seed=0):
    return np.random.default_rng(seed).random((layers, neurons)) < share


# ------------------------------------------------------------------------------------------------------------ LAPE


@settings(max_examples=150, deadline=None)
@given(P, RATES, RATES, RATES, st.data())
def test_lape_equals_the_oracle(p, filter_rate, top_rate, bar, data):
    sizes = [data.draw(st.integers(1, p.shape[1])) for _ in p]
    found = lape.lape(p, inside(p, sizes), filter_rate=filter_rate, top_rate=top_rate, bar=bar)
    scores, owned = lape_oracle.lape(p, sizes, filter_rate, top_rate, bar)
    assert owned_set(found.owned) == owned
    assert {at: found.score[at] for at in scores} == pytest.approx(scores) and not np.isnan(found.score).any()
    assert np.isinf(found.score[~inside(p, sizes)]).all()


@settings(max_examples=80, deadline=None)
@given(P.filter(lambda p: p.shape[2] > 1), st.sampled_from([0.0, 0.04, 0.2, 1.0]), RATES, RATES)
def test_align_lape_equals_the_oracle(p, weight, top_rate, bar):
    found = lape.align_lape(p, weight=weight, top_rate=top_rate, bar=bar)
    scores, owned = lape_oracle.align(p, [p.shape[1]] * len(p), weight, top_rate, bar)
    assert owned_set(found.owned) == owned and {at: found.score[at] for at in scores} == pytest.approx(scores)


def test_the_published_defaults_choose_one_neuron_in_a_hundred_and_every_one_has_an_owner():
    p = np.random.default_rng(0).random((8, 1000, 6)) ** 3
    found = lape.lape(p)
    assert found.owned.any(-1).sum() == round(0.01 * 8 * 1000) == 80
    assert found.thresholds["filter"] == found.thresholds["bar"] == np.sort(p.reshape(-1))[round(0.95 * p.size) - 1]


def test_the_order_statistic_is_counted_from_one_and_never_interpolated():
    assert lape.kth(np.arange(1, 101), 0.95) == 95 and lape.kth(np.array([3.0, 1.0, 2.0]), 0.5) == 2.0
    assert lape.kth(np.array([3.0, 1.0]), 0.0) == 1.0 and lape.kth(np.array([3.0, 1.0]), 1.0) == 3.0


def test_the_entropy_of_known_distributions():
    p = np.array([[[0.2, 0.2, 0.2, 0.2], [0.9, 0, 0, 0], [0, 0, 0, 0], [0.3, 0.3, 0, 0]]])
    assert lape.entropy(p)[0] == pytest.approx([np.log(4), 0, 0, np.log(2)])
    assert not np.signbit(lape.entropy(p)).any()


def test_neurons_that_never_fire_are_never_chosen():
    p = np.zeros((2, 50, 3))
    assert not lape.lape(p, top_rate=1).owned.any() and np.isinf(lape.lape(p, top_rate=1).score).all()
    assert not lape.align_lape(p, top_rate=1).owned.any()
    p[0, 7, 1] = 0.5
    assert owned_set(lape.lape(p, top_rate=1).owned) == {(0, 7, 1)}


def test_ties_go_to_the_lowest_index_and_the_last_bits_of_a_sum_do_not_decide():
    p = np.tile(np.array([0.1, 0.2, 0.7]), (2, 10, 1))
    p[1, 3] = p[1, 3, ::-1] * (1 + 1e-15)
    found = lape.lape(p, filter_rate=0, top_rate=0.3, bar=0)
    assert listed(found.owned.any(-1)).tolist() == [[0, i] for i in range(6)]


def test_the_weight_of_align_lape_is_the_largest_that_leaves_none_to_all():
    rng = np.random.default_rng(3)
    p = rng.uniform(0.1, 0.3, (4, 500, 1)) * rng.uniform(0.7, 1.3, (4, 500, 3))
    p[0, :40] = 0.97 + rng.random((40, 3)) * 0.03  # strong everywhere: a large weight would choose them
    found = lape.align_lape(p, top_rate=0.02)
    w = found.thresholds["lambda"]
    assert 0 < w < lape.LARGEST and found.thresholds["owned by all"] == 0
    assert lape.align_lape(p, weight=w + lape.PRECISION, top_rate=0.02).thresholds["owned by all"] > 0
    assert lape.align_lape(rng.random((2, 300, 3)) ** 9, top_rate=0.01).thresholds["lambda"] == lape.LARGEST


# ------------------------------------------------------------------------------------------------------------ other rankings


def histogram(values, edges):
    """[neurons, bins, languages] of values [language][tokens, neurons]."""
    return np.stack([np.stack([np.histogram(v[:, j], edges)[0] for j in range(v.shape[1])]) for v in values], -1)


def test_the_pooled_threshold_is_the_percentile_of_all_languages_together():
    rng = np.random.default_rng(0)
    values = [rng.normal(0, 1, (4000, 3)) + shift for shift in (0, 0, 1.5)]
    edges = np.linspace(-8, 8, 1601)
    share = others.pooled_share(histogram(values, edges))
    everything = np.concatenate(values)
    exact = np.stack([(v > np.quantile(everything, 0.9, axis=0)).mean(0) for v in values], -1)
    assert share == pytest.approx(exact, abs=2e-3)
    assert share.mean(-1) == pytest.approx(0.1, abs=1e-12) and (share[:, 2] > 0.25).all()


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.int32, st.tuples(st.integers(1, 5), st.integers(1, 8), st.integers(1, 4)), elements=st.integers(0, 9)))
def test_pooled_shares_are_shares_whatever_the_histogram(counts):
    share = others.pooled_share(counts)
    assert np.isfinite(share).all() and (share >= -1e-12).all() and (share <= 1 + 1e-12).all()
    full = (counts.sum(1) > 0).all(-1)
    assert share[full].mean(-1) == pytest.approx(np.full(full.sum(), 0.1), abs=1e-9)


def test_the_published_ranking_finds_bursts_and_the_repaired_one_finds_language():
    """The demonstration of methods B.2: a steady neuron scores 0.10 in any language, one that changes with the document more."""
    rng = np.random.default_rng(1)
    edges = np.concatenate([[-np.inf], np.linspace(-12, 12, 2401), [np.inf]])
    docs, per = 40, 500
    steady = [rng.normal(0, 1, (docs, per)) for _ in range(2)]
    bursty = [rng.normal(0, 1, (docs, per)) + rng.normal(0, 2, (docs, 1)) for _ in range(2)]
    speaks = [rng.normal(0, 1, (docs, per)) + 3 * k for k in range(2)]
    raw = [np.stack([steady[k], bursty[k], speaks[k]], -1) for k in range(2)]
    threshold = np.stack([np.quantile(r, 0.9, axis=1).mean(0) for r in raw], -1)  # mean over batches of their own percentile
    counts = histogram([r.reshape(-1, 3) for r in raw], edges)
    published = others.share_above(counts, edges, threshold)
    exact = np.stack([(r.reshape(-1, 3) > t).mean(0) for r, t in zip(raw, threshold.T)], -1)
    assert published == pytest.approx(exact, abs=2e-3)
    assert published[0] == pytest.approx(0.1, abs=0.01) and published[2] == pytest.approx(0.1, abs=0.01)
    assert (published[1] > 0.2).all()
    pooled = others.pooled_share(counts)
    assert pooled[2, 1] > 0.19 and pooled[2, 0] < 0.01 and abs(pooled[1] - 0.1).max() < 0.05
    real, args = np.ones((1, 3), bool), {"rate": 1 / 3}
    found = others.probability_90p(lambda _: counts, edges, threshold[None], real, **args)
    assert owned_set(found.owned) == {(0, 1, 0), (0, 1, 1)}
    assert (0, 2, 1) in owned_set(others.pooled_90p(lambda _: counts, real, 2, **args).owned)


def test_a_share_above_a_threshold_in_unbounded_bins_is_all_or_nothing():
    edges = np.array([-np.inf, 0.0, 1.0, np.inf])
    counts = np.array([[[2], [4], [4]]])
    for threshold, share in ((-5.0, 0.8), (0.0, 0.8), (0.5, 0.6), (1.0, 0.4), (2.0, 0.0)):
        assert others.share_above(counts, edges, np.full((1, 1), threshold)) == pytest.approx(share)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 4), st.integers(0, 1000))
def test_mean_difference_equals_the_oracle(languages, seed):
    rng = np.random.default_rng(seed)
    values = [rng.normal(rng.normal(), 1, (rng.integers(1, 30), 4)) for _ in range(languages)]
    for v in values:
        v[:, 3] = 0.3  # never changes
    tokens = np.array([len(v) for v in values])
    total, square = np.stack([v.sum(0) for v in values], -1)[None], np.stack([(v**2).sum(0) for v in values], -1)[None]
    found = others.standardised(total, square, tokens)[0]
    for j in range(4):
        expected = neurons_oracle.difference([v[:, j] for v in values]) if j < 3 else [0.0] * languages
        assert found[j] == pytest.approx(expected, abs=1e-6)


def test_languages_that_do_not_differ_have_no_neurons_under_any_ranking_by_language():
    rng = np.random.default_rng(0)
    one = rng.random((2, 30, 1))
    total, square = np.repeat(one, 3, -1) * 100, np.repeat(one**2 + 0.1, 3, -1) * 100
    real = np.ones((2, 30), bool)
    assert not others.mean_difference(total, square, np.full(3, 100), real, rate=0.2).owned.any()
    counts = np.repeat(rng.integers(0, 50, (30, 8, 1)), 3, -1)
    assert not others.pooled_90p(lambda _: counts, real, 3, rate=0.2).owned.any()


def test_each_language_gets_as_many_as_asked_and_padding_is_never_taken():
    real = np.arange(20) < np.array([20, 5])[:, None]
    found = others.top_each(np.ones((2, 20, 2)), real, 22, 0.0)
    assert found.sum((0, 1)).tolist() == [22, 22] and not found[~real].any()


# ------------------------------------------------------------------------------------------------------------ sets


def test_ownership_is_counted_by_neuron_and_by_layer():
    owned = np.zeros((2, 5, 3), bool)
    owned[0, 1, :] = owned[0, 2, 0] = owned[1, 4, :2] = True
    found = Found("lape", ("a", "b", "c"), lape.Scores(np.zeros((2, 5)), owned))
    assert found.shared.tolist() == [7, 1, 1, 1] and found.by_layer.tolist() == [[2, 1], [1, 1], [1, 0]]
    assert found.any.sum() == 3 and listed(found.masks["b"]).tolist() == [[0, 1], [1, 4]]
    assert listed(np.zeros((2, 5), bool)).shape == (0, 2)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 99), st.floats(0, 1), st.floats(0, 0.6))
def test_a_control_has_as_many_neurons_in_every_layer_and_none_of_the_set_while_others_are_left(seed, share, avoided):
    mask, real = masks(share=share, seed=seed), np.arange(40) < np.array([40, 30, 10])[:, None]
    mask &= real
    avoid = masks(share=avoided, seed=seed + 1) & real
    drawn = matched(mask, real, seed, avoid)
    assert (drawn.sum(1) == mask.sum(1)).all() and not drawn[~real].any()
    for i in range(3):
        free = (real & ~mask)[i].sum()
        assert (drawn & mask)[i].sum() == max(0, mask[i].sum() - free)
        clean = (real & ~mask & ~avoid)[i].sum()
        assert (drawn & avoid & ~mask)[i].sum() == max(0, min(mask[i].sum(), free) - clean)
    assert (drawn == matched(mask, real, seed, avoid)).all()


def test_controls_of_other_seeds_are_other_sets():
    mask = masks(share=0.1)
    assert (matched(mask, np.ones_like(mask), 0) != matched(mask, np.ones_like(mask), 1)).any()


def test_the_chance_level_of_an_overlap_is_what_random_sets_have():
    a, b, n = [12, 0, 5], [20, 4, 5], [40, 30, 10]
    first, second = np.zeros((3, 40), bool), np.zeros((3, 40), bool)
    for i in range(3):
        first[i, : a[i]] = second[i, : b[i]] = True
    real = np.arange(40) < np.array(n)[:, None]
    assert overlap.chance(first, second, real) == pytest.approx(neurons_oracle.expected_jaccard(a, b, n, 400, 0), abs=0.02)
    found, expected = overlap.between(np.stack([first, second], -1), real)
    assert found[0, 1] == found[1, 0] == 17 / 29 and expected[0, 1] == expected[1, 0] and (np.diag(found) == 1).all()
    empty = np.zeros_like(first)
    assert overlap.jaccard(empty, empty) == overlap.chance(empty, empty, real) == 1 and overlap.jaccard(first, empty) == 0


def again(positive, tokens=50.0):
    """LAPE without its filter on groups of counts: positive[k] [groups, layers, neurons]."""
    groups = Groups(tuple(positive), tuple(np.full(len(x), tokens) for x in positive))
    return stability.Refit(groups, lambda p, _: lape.lape(p, filter_rate=0.0, bar=0.0))


def counted(p, groups=10, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.binomial(50, p[None, ..., k], (groups, *p.shape[:2])) for k in range(p.shape[2])]


def test_a_clear_set_is_stable_and_one_of_noise_is_not():
    p = np.full((2, 200, 2), 0.5)
    clear = p.copy()
    clear[0, :4, 1] = 0.0
    once = [np.ones(10)] * 2
    for shares, low, high in ((clear, 0.99, 1.0), (p, 0.0, 0.6)):
        refit = again(counted(shares))
        full = refit.of(once, range(2))
        assert (full.owned == lape.lape(refit.groups.means, filter_rate=0.0, bar=0.0).owned).all()
        found = stability.stability(full.owned, refit, 10, 0)
        assert found.shape == (10, 3) and low <= found[:, -1].mean() <= high
        assert (found == stability.stability(full.owned, refit, 10, 0)).all()


def test_parts_of_one_language_score_like_noise_and_unlike_a_language():
    p = np.full((2, 300, 3), 0.5)
    p[0, :6] = np.eye(3)[np.arange(6) % 3] * 0.9
    refit = again(counted(p, groups=12))
    found = stability.floor(lape.lape(refit.groups.means, filter_rate=0.0, bar=0.0), refit)
    assert found.under == (0, 0, 0)  # what fires for one language fires alike in all parts of it, or in none
    noise = again(counted(np.full((2, 300, 3), 0.5), groups=12))
    full = lape.lape(noise.groups.means, filter_rate=0.0, bar=0.0)
    alone = stability.floor(full, noise)
    assert min(alone.under) > 6 and max(alone.best) < alone.found == full.score[full.owned.any(-1)].max()
    dealt = np.stack([sum(noise.groups.sums[1][i::3]) / 200 for i in range(3)], -1)
    assert alone.under[1] == (lape.entropy(dealt) <= alone.found).sum()
    assert stability.floor(full, again(counted(p, groups=2))) is None
    assert stability.floor(lape.Scores(full.score, full.owned & False), noise) is None


def test_of_scores_by_language_high_ones_are_specific():
    score = np.array([[[3.0, -1], [1, 2], [0, 0], [-np.inf, -np.inf]]])
    owned = np.array([[[True, False], [False, True], [False, False], [False, False]]])
    assert stability.weakest(lape.Scores(score, owned)) == 2
    refit = stability.Refit(again(counted(np.full((1, 4, 2), 0.5))).groups, lambda p, _: lape.Scores(score, owned))
    assert stability.floor(lape.Scores(score, owned), refit).under == (2, 2)


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.float64, st.tuples(st.integers(2, 6), st.integers(0, 5)), elements=st.integers(0, 4).map(float)))
def test_firing_together_equals_the_mean_correlation_of_all_pairs(x):
    found, expected = coactive.together(x), neurons_oracle.correlation(x)
    assert (found is None) == (expected is None) and (found is None or found == pytest.approx(expected, abs=1e-9))


def test_rates_are_of_the_masked_neurons_in_the_groups_that_have_text():
    positive = np.arange(18, dtype=np.int32).reshape(3, 2, 3)
    mask = np.array([[True, False, False], [False, True, False]])
    found = coactive.rates(positive, np.array([10, 0, 20]), mask)
    assert found.tolist() == [[0 / 10, 4 / 10], [12 / 20, 16 / 20]]


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3)),
                  elements=st.integers(-3, 3).map(float)))  # fmt: skip
def test_the_variance_is_divided_between_language_documents_and_rest(x):
    shares = topic.decompose(x)
    for j in range(x.shape[2]):
        expected = neurons_oracle.two_way(x[..., j]) if np.ptp(x[..., j]) > 0 else [0.0, 0.0, 0.0]
        assert shares[j] == pytest.approx(expected, abs=1e-9)


def test_planted_language_topic_and_noise_are_told_apart():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 0.01, (30, 4, 3))
    x[..., 0] += rng.normal(size=4)
    x[..., 1] += rng.normal(size=(30, 1))
    shares = topic.decompose(x)
    assert shares[0, 0] > 0.99 and shares[1, 1] > 0.99
    many = topic.mean_of(topic.decompose(rng.normal(size=(30, 4, 3000))))
    assert many.shares == pytest.approx(topic.nothing(30, 4), abs=0.01) and many.n == 3000
    assert topic.mean_of(topic.decompose(np.ones((3, 2, 5)))).n == 0 and topic.nothing(30, 4).sum() == pytest.approx(1)


def test_topic_shrinks_with_the_documents_of_a_group():
    """What the page says: the mean of ten documents has a tenth of their variance, and language takes the share."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 4, 500)) + rng.normal(size=(400, 1, 500)) + 0.5 * rng.normal(size=(1, 4, 500))
    alone, grouped = (topic.decompose(d) for d in (x, x.reshape(40, 10, 4, 500).mean(1)))
    expected = alone / [1, 10, 10]
    expected /= expected.sum(1, keepdims=True)
    assert grouped.mean(0) == pytest.approx(expected.mean(0), abs=0.02)
    assert grouped[:, 0].mean() > 2 * alone[:, 0].mean() and grouped[:, 1].mean() < alone[:, 1].mean()
