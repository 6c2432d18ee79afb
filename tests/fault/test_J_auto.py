"""Group J, odd numbers in choosing layers: one layer, equal changes, the smallest and largest numbers: defined, and never NaN."""

from __future__ import annotations

import numpy as np
import pytest

from folders import config, shapes
from polygraft.anatomy import Anatomy
from polygraft.choose.auto import fitting, rules
from polygraft.choose.auto.proposals import propose
from polygraft.choose.auto.units import Units
from polygraft.errors import InputError

pytestmark = pytest.mark.group("J")
NAMES = ("math", "sw")
NAN = float("nan")
SIZES = {  # [expert][layer]: what it is
    "one layer": [[2.0], [3.0]],
    "changed alike": [[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]],
    "one layer holds all of it": [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]],
    "a layer that nobody changed": [[1.0, 0.0, 2.0], [2.0, 0.0, 1.0]],
    "the smallest changes": [[1e-300, 2e-300], [3e-300, 1e-300]],
    "the largest changes": [[1e80, 2e80], [3e80, 1e80]],
    "a hundred decades apart": [[1e-80, 1e80], [1e80, 1e-80]],
}  # fmt: skip


@pytest.mark.parametrize("case", SIZES)
@pytest.mark.parametrize("rule", rules.WEIGHTS)
@pytest.mark.parametrize("known", [True, False], ids=["cosines", "no cosines"])
def test_every_rule_is_defined(case, rule, known):
    size = np.array(SIZES[case])[:, :, None]
    n = size.shape[1]
    both = np.where((size > 0).all(0), 0.25 if known else NAN, NAN)
    units = Units("layer", ("layer",), size, both, both, np.where(np.isnan(both), 0.0, 100.0))
    anatomy = Anatomy.of(config(layers=n), shapes(layers=n))
    with np.errstate(all="raise", under="ignore"):
        judged = rules.BY_WEIGHTS[rule](units, rules.TAU[rule])
        proposal = propose(anatomy, NAMES, judged, "free")
        assert np.isfinite(judged.score).all() and np.isfinite(judged.pull).all()
        window = fitting.best_window(judged.pull[:, 0])
    assert set(proposal.grid.ravel().tolist()) <= {0.0, 0.5, 1.0} and "nan" not in " ".join(proposal.reasons)
    assert all(v is None or np.isfinite(v) for values in proposal.curves[0].series.values() for v in values)
    assert (window is None) == (not judged.pull.any())
    if window is None:
        assert proposal.reasons[-1] == "No layer stands out, so this is no choice of layers."
        with pytest.raises(InputError, match="no window is better than another"):
            propose(anatomy, NAMES, judged, "window")


@pytest.mark.parametrize(("pull", "wanted"), [([5.0], (0, 1, 0)), ([-5.0], (0, 0, 0)), ([0.0, 0.0, -1.0], (0, 0, 0)), ([0.0, 1.0], (0, 1, 0)),
                                              ([1e-300, -1e-300], (1, 0, 0)), ([1.0, 1.0], (0, 2, 0)), ([-1.0, 1.0, -1.0], (0, 0, 0))])  # fmt: skip
def test_windows_of_few_layers(pull, wanted):
    found = fitting.best_window(np.array(pull))
    assert (found.bottom, found.top, found.transition) == wanted and found.share <= 1


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_blend_that_is_one_expert_copies_it(alpha):
    units = Units("layer", ("layer",), np.ones((2, 3, 1)), *(np.full((3, 1), NAN),) * 2, np.zeros((3, 1)))
    anatomy = Anatomy.of(config(layers=3), shapes(layers=3))
    proposal = propose(anatomy, NAMES, rules.relative(units, 0.03), "free", alpha=alpha)
    assert {proposal.candidate.profile.copied_from(k) for k in anatomy.parts} == {int(alpha)}
