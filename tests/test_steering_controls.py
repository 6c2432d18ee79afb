"""Random controls have the size of what they control, and never its place."""

import numpy as np
import pytest

from polygraft import arrays
from polygraft.activity import Activity
from polygraft.analysis.steering import controls
from polygraft.analysis.steering.ways import Where, make

SIZES, HIDDEN = (12, 9, 12), 6


@pytest.fixture
def where(tmp_path):
    rng = np.random.default_rng(0)
    told = {}
    for language in ("en", "sw"):
        arrays.write(tmp_path / f"activity.{language}.safetensors",
                     {"sum": rng.normal(size=(3, 12)), "residual": rng.normal(size=(4, HIDDEN))})
        told[language] = {"tokens": 5, "documents": 1, "groups": 1, "digest": "", "path": ""}
    neurons = np.zeros((3, 12), bool)
    neurons[0, [1, 2]] = neurons[1, 3] = neurons[2, :7] = True
    basis = {f"basis.{i}": np.linalg.qr(rng.normal(size=(HIDDEN, 2)))[0] for i in range(4)}
    return Where(SIZES, HIDDEN, neurons, "sw", Activity(tmp_path, told, 3, SIZES, HIDDEN), basis)


@pytest.mark.parametrize("way", ["zero", "value=2", "scale=3", "mean", "add=1", "diff=2"])
def test_as_many_other_neurons_in_each_layer_each_with_its_own_value(where, way):
    own, drawn = make(way, where), controls.draw(way, where, 0)
    assert [(e.layer, e.op, len(e.rows)) for e in drawn.edits] == [(e.layer, e.op, len(e.rows)) for e in own.edits]
    for a, b in zip(own.edits, drawn.edits):
        common = set(a.rows.tolist()) & set(b.rows.tolist())
        assert len(common) == max(0, 2 * len(a.rows) - SIZES[a.layer]) and b.rows.max() < SIZES[a.layer]
    every = make(way, Where(SIZES, HIDDEN, np.ones((3, 12), bool), "sw", where.activity))
    for e in drawn.edits:
        assert np.array_equal(e.values, every.edits[e.layer].values[e.rows])


def test_neurons_of_other_languages_are_taken_last(where):
    avoid = np.zeros((3, 12), bool)
    avoid[0, 3:] = True  # layer 0 has two to select and one free: 0
    rows = controls.draw("zero", where, 0, avoid=avoid).edits[0].rows.tolist()
    assert rows[0] == 0 and rows[1] in range(3, 12)


def test_a_residual_vector_turns_and_keeps_its_length(where):
    own, drawn = make("residual-diff=2", where).edits, controls.draw("residual-diff=2", where, 0).edits
    assert [e.layer for e in own] == [e.layer for e in drawn]
    assert np.linalg.norm(drawn[0].values) == pytest.approx(np.linalg.norm(own[0].values), rel=1e-5)
    assert not np.allclose(own[0].values, drawn[0].values)


@pytest.mark.parametrize("way", ["project", "keep"])
def test_a_subspace_keeps_its_rank(where, way):
    own, drawn = make(way, where).edits, controls.draw(way, where, 0).edits
    assert [(e.layer, e.op, e.values.shape) for e in own] == [(e.layer, e.op, e.values.shape) for e in drawn]
    assert not np.allclose(own[0].values.T @ own[0].values, drawn[0].values.T @ drawn[0].values)


def test_other_layers_as_long_as_there_are_some(where):
    assert {e.edits[0].layer for e in controls.several("layer-off", where, 20, 0)} == {0, 1}  # the fullest is 2
    crowded = Where(SIZES, HIDDEN, where.neurons, layers=(0, 1))
    assert controls.draw("layer-off", crowded, 0) is None and controls.several("layer-off", crowded, 3, 0) == []


def test_a_seed_draws_the_same_and_another_seed_another(where):
    several = controls.several("zero", where, 4, 7)
    assert len(several) == 4 == len({e.digest for e in several})
    assert [e.digest for e in several] == [e.digest for e in controls.several("zero", where, 4, 7)]
    assert controls.draw("mean", where, 0, positions="prompt").edits[0].positions == "prompt"
