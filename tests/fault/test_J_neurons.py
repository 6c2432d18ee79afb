"""Group J, numbers: identifiers of language neurons where nothing, everything or the same fires, and at the ends of every rate."""

import numpy as np
import pytest

from polygraft.analysis.neurons import coactive, lape, others, overlap, topic
from polygraft.selectionfile import matched

pytestmark = pytest.mark.group("J")
SHARES = {  # p [layers, neurons, languages]
    "nothing fires": np.zeros((2, 30, 4)),
    "everything fires": np.ones((2, 30, 4)),
    "one language only": np.random.default_rng(0).random((2, 30, 1)),
    "identical languages": np.repeat(np.random.default_rng(1).random((2, 30, 1)), 3, -1),
    "every neuron has one language": np.eye(3)[np.arange(60).reshape(2, 30) % 3],
    "all ties": np.full((2, 30, 3), 0.25),
    "shares below the smallest normal number": np.full((2, 30, 3), 5e-324),
    "a single neuron": np.array([[[0.3, 0.0]]]),
    "one language has no tokens": np.concatenate([np.random.default_rng(2).random((2, 30, 2)), np.zeros((2, 30, 1))], -1),
}
RATES = (0.0, 1e-9, 0.5, 1.0)


@pytest.mark.parametrize("case", SHARES)
def test_scores_are_numbers_and_sets_no_larger_than_asked(case):
    p = SHARES[case]
    n = p[..., 0].size
    with np.errstate(all="raise", under="ignore"):
        for rate in RATES:
            for top in RATES:
                for found in (lape.lape(p, filter_rate=rate, bar=rate, top_rate=top), lape.align_lape(p, bar=rate, top_rate=top)):
                    assert not np.isnan(found.score).any() and found.owned.any(-1).sum() <= round(top * n)
                    assert not found.owned[p == 0].any()  # no language owns a neuron that never fires for it


@pytest.mark.parametrize("case", SHARES)
def test_rankings_by_language_are_numbers(case):
    p = SHARES[case]
    real, tokens = np.ones(p.shape[:2], bool), np.full(p.shape[-1], 100.0)
    counts = np.stack([100 - np.round(100 * p), np.round(100 * p)], 2).astype(np.int32)  # [layers, neurons, 2 bins, languages]
    with np.errstate(all="raise", under="ignore"):
        for rate in RATES:
            found = [
                others.mean_difference(p * 100, p * 100, tokens, real, rate=rate),
                others.pooled_90p(lambda i: counts[i], real, p.shape[-1], rate=rate),
                others.probability_90p(lambda i: counts[i], np.array([-1.0, 0.0, 1.0]), np.zeros(p.shape), real, rate=rate),
            ]
            for scores in found:
                assert np.isfinite(scores.score).all() and (scores.owned.sum((0, 1)) <= round(rate * real.sum())).all()


@pytest.mark.parametrize("case", ["no tokens anywhere", "no tokens in one language", "one bin"])
def test_empty_histograms_are_no_language(case):
    counts = {"no tokens anywhere": np.zeros((4, 8, 3), int), "one bin": np.full((4, 1, 3), 7)}.get(case)
    if counts is None:
        counts = np.random.default_rng(0).integers(1, 9, (4, 8, 3))
        counts[..., 2] = 0
    with np.errstate(all="raise"):
        share = others.pooled_share(counts)
    assert np.isfinite(share).all() and (share[..., 2] <= 0.1 + 1e-12).all()


@pytest.mark.parametrize("case", ["empty", "all of a layer", "all neurons"])
def test_controls_and_overlaps_of_extreme_sets(case):
    mask = np.zeros((3, 8), bool)
    mask[:1] = case == "all of a layer"
    mask |= case == "all neurons"
    real = np.ones_like(mask)
    drawn = matched(mask, real, 0, mask)
    assert (drawn.sum(1) == mask.sum(1)).all()
    with np.errstate(all="raise"):
        assert 0 <= overlap.chance(mask, drawn, real) <= 1 and 0 <= overlap.jaccard(mask, drawn) <= 1


@pytest.mark.parametrize("shape", [(0, 4), (1, 4), (3, 0), (3, 1)])
def test_too_little_to_correlate_is_said_not_computed(shape):
    with np.errstate(all="raise"):
        assert coactive.together(np.arange(np.prod(shape), dtype=float).reshape(shape)) is None


@pytest.mark.parametrize("shape", [(1, 1, 2), (1, 3, 2), (4, 1, 2), (2, 2, 0)])
def test_a_table_of_one_row_or_column_is_decomposed(shape):
    x = np.random.default_rng(0).normal(size=shape)
    with np.errstate(all="raise", under="ignore"):
        shares, nothing = topic.decompose(x), topic.nothing(*shape[:2])
        assert np.isfinite(shares).all() and np.isfinite(nothing).all() and np.isfinite(topic.mean_of(shares).shares).all()
    assert shares.sum(-1) == pytest.approx(np.full(shape[2], float(shape[:2] != (1, 1))))
