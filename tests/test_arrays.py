"""arrays.py: what is written comes back, without a copy of it in memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import load, save

from polygraft import arrays
from polygraft.errors import InputError

ODD = {
    "scalar": np.float64(2.5), "empty": np.zeros((0, 3), np.int16), "mask": np.eye(3, dtype=bool), "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big": np.arange(4, dtype=">i4"), "strided": np.arange(20, dtype=np.uint8)[::3], "half": np.array([1, np.inf], np.float16),
}  # fmt: skip


def test_every_kind_of_array_comes_back(tmp_path):
    arrays.write(tmp_path / "a.safetensors", ODD, {"key": "k"})
    found = arrays.Arrays(tmp_path / "a.safetensors")
    assert set(found) == set(ODD) and found.metadata == {"key": "k"}
    for name, value in ODD.items():
        assert found[name].shape == np.shape(value) and np.array_equal(found[name], value)
    plain = {k: np.ascontiguousarray(v, np.asarray(v).dtype.newbyteorder("<")).reshape(np.shape(v)) for k, v in ODD.items()}
    assert {k: v.tobytes() for k, v in load((tmp_path / "a.safetensors").read_bytes()).items()} == {k: v.tobytes() for k, v in plain.items()}
    assert (tmp_path / "a.safetensors").read_bytes() == save(plain, {"key": "k"})


def test_writing_holds_no_second_copy(tmp_path):
    held = {f"a{i}": np.ones(1 << 20, np.float64) for i in range(4)}
    tracemalloc.start()
    arrays.write(tmp_path / "a.safetensors", held)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20 and (tmp_path / "a.safetensors").stat().st_size > 32 << 20


def test_what_the_format_does_not_have_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="cannot be written") as e:
        arrays.write(tmp_path / "a.safetensors", {"good": np.ones(2), "bad": np.array(["x"])})
    assert e.value.where == "bad" and not list(tmp_path.iterdir())
