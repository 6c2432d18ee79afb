"""Group J, numbers: deviations over languages where nothing, everything or the same fires, and where nothing can be chosen."""

import numpy as np
import pytest

from polygraft.analysis.groups import Groups
from polygraft.analysis.layers import choose, deviation, final, noise
from polygraft.errors import UserError

pytestmark = pytest.mark.group("J")
FLAT = {"n": 1, "c": 1.0, "within": "lower"}
SHARES = {  # p [layers, neurons, languages]: what it is -> the deviation of each layer
    "nothing fires": (np.zeros((2, 3, 4)), 0.0),
    "everything fires": (np.ones((2, 3, 4)), 0.0),
    "one language only": (np.random.default_rng(0).random((2, 3, 1)), 0.0),
    "identical languages": (np.repeat(np.random.default_rng(1).random((2, 3, 1)), 3, -1), 0.0),
    "one neuron that only one of two languages has": (np.array([[[1.0, 0.0]]]), 0.25),
    "shares below the smallest normal number": (np.full((1, 2, 2), 5e-324), 0.0),
    "a layer without neurons": (np.zeros((2, 0, 3)), 0.0),
}
CURVES = {"all zero": np.zeros(6), "all equal": np.ones(6), "one layer": np.array([3.0]), "tiny": np.array([5e-324, 0, 0, 0]),
          "the largest there can be": np.array([0.25, 0, 0.25, 0]), "the peak at the top": np.array([0, 0, 0, 9.0])}  # fmt: skip


@pytest.mark.parametrize("case", SHARES)
def test_a_deviation_is_defined(case):
    p, value = SHARES[case]
    real = np.ones(p.shape[:2], bool)
    with np.errstate(all="raise", under="ignore"):
        assert deviation.msd_neuron(p, real).tolist() == [value] * len(p)
        assert np.isfinite(deviation.msd_count(p, real)).all()
        assert np.isfinite(deviation.overlap(p, real, 0.5, 0)).all()


@pytest.mark.parametrize("case", CURVES)
@pytest.mark.parametrize("rule", choose.RULES)
def test_a_rule_takes_real_layers_or_none(case, rule):
    found = choose.choose(rule, CURVES[case], **FLAT)
    assert all(0 <= i < choose.candidates(len(CURVES[case]), "lower") for i in found.layers) and "nan" not in found.why
    assert len(found.layers) == 1 or rule != "top"


@pytest.mark.parametrize("floor", [None, np.zeros(3)])
def test_a_deviation_of_nothing_is_refused(floor):
    with pytest.raises(UserError, match="no layer tells the languages apart"):
        choose.refuse_noise(np.zeros(3), floor, "x")


@pytest.mark.parametrize("case", ["never active", "always active", "groups of unequal length", "one token a group"])
def test_noise_and_intervals_of_extreme_counts_are_finite(case):
    tokens = np.array([[1, 1], [1, 900], [40, 2]], float) if case == "groups of unequal length" else np.ones((3, 2))
    share = {"never active": 0, "always active": 1}.get(case, 0.5)
    positive = tuple(np.broadcast_to(np.round(tokens[:, k, None, None] * share), (3, 2, 4)).astype(np.int64) for k in range(2))
    groups, real = Groups(positive, tuple(tokens.T)), np.ones((2, 4), bool)
    with np.errstate(all="raise", under="ignore"):
        floors, draws = noise.noise(groups, real), noise.resampled(groups, real, draws=20)
    assert np.isfinite(np.concatenate([*floors, *map(np.ravel, draws)])).all()
    assert share not in (0, 1) or not np.any(draws[0])


@pytest.mark.parametrize(("means", "squares"), [(np.zeros((2, 3, 2)), 0.0), (np.ones((2, 3, 2)), 3.0), (np.full((2, 3, 2), 1e150), 3e300)])
def test_a_stream_that_does_not_vary_has_no_language(means, squares):
    with np.errstate(all="raise", under="ignore"):
        assert final.language_share(means, np.full((2, 2), squares)).tolist() == [0, 0] and not deviation.shift(means).any()
