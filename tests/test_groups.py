"""Groups of documents: the means of resamples, pairs that stay together, and intervals, as they are written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polygraft import arrays
from polygraft.activity import Activity
from polygraft.analysis.groups import Groups, basic, centred, draws, percentile


def made(folder, tokens, *, parallel):
    """A reading with `group.positive` [G, 2, 3] = 1, 2, 3 ... and these tokens of each group."""
    for language, t in tokens.items():
        held = {"group.tokens": np.array(t), "group.positive": np.arange(len(t) * 6, dtype=np.int32).reshape(len(t), 2, 3)}
        arrays.write(folder / f"activity.{language}.safetensors", held)
    told = {g: {"tokens": sum(t), "documents": len(t), "groups": len(t)} for g, t in tokens.items()}
    return Activity(folder, told, 2, (3, 3), 4, parallel=parallel)


@pytest.mark.parametrize(("parallel", "level", "kept"), [
    (True, False, [[0, 3], [0, 3]]), (False, True, [[0, 3], [0, 3]]), (False, False, [[0, 2, 3], [0, 1, 3]]),
])  # fmt: skip
def test_groups_without_tokens_are_left_out_together_where_texts_are_parallel(tmp_path, parallel, level, kept):
    reading = made(tmp_path, {"en": [5, 0, 7, 3], "sw": [4, 6, 0, 2]}, parallel=parallel)
    found = Groups.of(reading, "group.positive", level=level)
    for k, g in enumerate(("en", "sw")):
        assert (found.sums[k] == reading.array(g, "group.positive")[kept[k]]).all()
        assert (found.tokens[k] == reading.array(g, "group.tokens")[kept[k]]).all()
    assert found.paired == parallel and found.sizes == tuple(map(len, kept))
    weights = found.draws(9, 0)
    assert all((w.sum(1) == len(i)).all() for w, i in zip(weights, kept))
    assert not parallel or (weights[0] == weights[1]).all()


def test_unequal_numbers_of_groups_are_never_pairs(tmp_path):
    found = Groups.of(made(tmp_path, {"en": [5, 1, 7], "sw": [4, 6]}, parallel=True), "group.positive")
    assert not found.paired and found.sizes == (3, 2)
    assert Groups.of(made(tmp_path, {"en": [5, 1, 7], "sw": [4, 6]}, parallel=False), "group.positive", level=True).sizes == (2, 2)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(0, 999))
def test_a_resample_is_the_mean_of_its_groups_written_out(languages, size, seed):
    rng = np.random.default_rng(seed)
    groups = Groups(tuple(rng.integers(0, 99, (size, 2, 3)) for _ in range(languages)), tuple(rng.integers(1, 9, size) * 1.0 for _ in range(languages)))
    weights = groups.draws(4, seed)
    found = groups.drawn(weights)
    for n in range(4):
        for k in range(languages):
            taken = [g for g in range(size) for _ in range(int(weights[k][n, g]))]
            assert len(taken) == size
            mean = sum(groups.sums[k][g] for g in taken) / sum(groups.tokens[k][g] for g in taken)
            assert found[n, k] == pytest.approx(mean)
    assert groups.means == pytest.approx(np.moveaxis(groups.drawn([np.ones((1, size))] * languages)[0], 0, -1))
    assert groups.at(1).means == pytest.approx(groups.means[1]) and groups.items[0].shape == (size, 2, 3)
    assert sum(groups.half(i).sizes[0] for i in (0, 1)) == size


def test_draws_together_are_the_same_and_others_are_not():
    one, two = draws([6, 6], 50, [3, 1], together=True)
    assert (one == two).all() and not (draws([6, 6], 50, [3, 1])[1] == two).all() and (one == draws([6], 50, [3, 1])[0]).all()


def test_intervals_written_out():
    samples = np.arange(101.0)[:, None] / 100 * [1, 2]
    low, high = percentile(samples)
    assert low == pytest.approx([0.025, 0.05]) and high == pytest.approx([0.975, 1.95])
    low, high = basic(np.array([1.0, 1.0]), samples)
    assert low == pytest.approx([1.025, 0.05]) and high == pytest.approx([1.975, 1.95])
    assert centred(0.4, samples[:, 0] * 0.1, 5) == pytest.approx((0.4 - 0.0475 * np.sqrt(5 / 4), 0.4 + 0.0475 * np.sqrt(5 / 4)))
    assert centred(0.99, samples[:, 0], 1) == (pytest.approx(0.515), 1.0)
