"""The proof after training: it counts what changed, and finds one byte that should not have."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polygraft.checkpoint import Checkpoint
from polygraft.errors import StepFailed
from polygraft.selection import Selection
from polygraft.tune import proof
from polygraft.tune.output import write_like
from polygraft.tune.proof import prove

UP, DOWN, NORM = "model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.down_proj.weight", "model.norm.weight"
PICKED = Selection({UP: [3, 7], DOWN: [0, 5, 47], NORM: None}, {DOWN: 1})


@pytest.fixture(scope="module")
def base(tiny):
    return Checkpoint.open(tiny("llama"))


def edited(base, selection, seed=0):
    """Each tensor's bytes, with every selected number moved a little."""
    rng, out = np.random.default_rng(seed), {}
    for key, info in base.tensors.items():
        value = np.frombuffer(base.read(key), "<f4").reshape(info.shape).copy()
        if key in selection:
            rows = selection.rows[key]
            part = ... if rows is None else (slice(None),) * selection.axis.get(key, 0) + (rows,)
            value[part] += rng.uniform(0.5, 1.0, value[part].shape).astype("<f4")
        out[key] = value
    return out


def written(base, folder, values):
    write_like(base, folder, lambda key: values[key].tobytes())
    return Checkpoint.open(folder)


@pytest.mark.parametrize("piece", [64, 1 << 24])
def test_counts_are_those_of_whole_tensors(base, tmp_path, monkeypatch, piece):
    """Whatever the pieces: so many selected, so many of them changed, none outside."""
    monkeypatch.setattr(proof, "PIECE", piece)
    values = edited(base, PICKED)
    values[UP][3] = np.frombuffer(base.read(UP), "<f4").reshape(values[UP].shape)[3]  # selected, and as it was
    found = prove(base, written(base, tmp_path / "out", values), PICKED, lambda key: values[key].tobytes())
    assert (found.selected, found.changed) == (2 * 32 + 3 * 32 + 32, 32 + 3 * 32 + 32)
    assert found.still == 32 and "32 in whole rows" in found.caveats[0] and "single" not in found.caveats[0]
    assert (found.total, found.tensors, found.moved) == (sum(t.numel for t in base.tensors.values()), 3, 3)
    rows = [row[:2] for row in found.table().rows]
    assert ("parameters outside the selection", found.total - found.selected) in rows
    assert rows[3] == ("of them changed", 0)


def test_what_stayed_is_told_apart(base, tmp_path):
    """One whole column and one number of another column are as they were; where nothing did, nothing is said; all may be trained."""
    values = edited(base, PICKED)
    plain = np.frombuffer(base.read(DOWN), "<f4").reshape(values[DOWN].shape)
    values[DOWN][:, 5], values[DOWN][2, 47] = plain[:, 5], plain[2, 47]
    found = prove(base, written(base, tmp_path / "out", values), PICKED, lambda key: values[key].tobytes())
    assert (found.selected - found.changed, found.still) == (33, 32)
    assert "33 of the trained" in found.caveats[0] and "32 in whole" in found.caveats[0] and "1 single" in found.caveats[0]
    all_of_it = Selection(dict.fromkeys(base.tensors))
    values = edited(base, all_of_it)
    found = prove(base, written(base, tmp_path / "all", values), all_of_it, lambda key: values[key].tobytes())
    assert found.caveats == () and found.sentence.endswith("there are no others: everything was trained.")


@pytest.mark.parametrize(("key", "at", "said"), [
    ("model.embed_tokens.weight", (0, 0), "a tensor outside the selection changed"),
    ("lm_head.weight", (-1, -1), "a tensor outside the selection changed"),
    (UP, (4, 0), "a row outside the selection changed"), (UP, (47, 31), "a row outside the selection changed"),
    (DOWN, (31, 46), "a row outside the selection changed"), (DOWN, (0, 1), "a row outside the selection changed"),
])  # fmt: skip
@pytest.mark.parametrize("piece", [64, 1 << 24])
def test_one_number_outside_is_found(base, tmp_path, monkeypatch, key, at, said, piece):
    monkeypatch.setattr(proof, "PIECE", piece)
    values = edited(base, PICKED)
    values[key].reshape(values[key].shape).view("<u4")[at] ^= 1  # the lowest bit of one number
    with pytest.raises(StepFailed, match=said) as error:
        prove(base, written(base, tmp_path / "out", values), PICKED, lambda k: values[k].tobytes())
    assert error.value.where == key


def test_a_file_that_is_not_memory_is_found(base, tmp_path):
    values = edited(base, PICKED)
    out = written(base, tmp_path / "out", values)
    memory = {key: value.copy() for key, value in values.items()}
    memory[UP][7, 30] += 1
    with pytest.raises(StepFailed, match="not what memory held"):
        prove(base, out, PICKED, lambda key: memory[key].tobytes())


def test_memory_is_asked_for_selected_tensors_alone(base, tmp_path):
    values, asked = edited(base, PICKED), []
    out = written(base, tmp_path / "out", values)
    prove(base, out, PICKED, lambda key: asked.append(key) or values[key].tobytes())
    assert sorted(asked) == sorted(PICKED.rows)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_selection_is_counted_as_numpy_counts_it(base, tmp_path, data):
    keys = data.draw(st.lists(st.sampled_from(sorted(base.tensors)), max_size=3, unique=True))
    axis = {key: data.draw(st.integers(0, len(base.tensors[key].shape) - 1)) for key in keys}
    rows = {key: data.draw(st.none() | st.lists(st.integers(0, base.tensors[key].shape[axis[key]] - 1), min_size=1, max_size=6))
            for key in keys}
    selection = Selection(rows, axis)
    values = edited(base, selection, seed=data.draw(st.integers(0, 9)))
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    found = prove(base, written(base, tmp_path / "out", values), selection, lambda key: values[key].tobytes())
    changed = sum(int((np.frombuffer(base.read(k), "<f4") != v.reshape(-1)).sum()) for k, v in values.items())
    assert found.changed == found.selected == changed == selection.count({k: t.shape for k, t in base.tensors.items()})
