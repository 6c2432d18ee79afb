"""Change maps: equal to a float64 oracle, and what was planted is found where it was planted."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folders import config, read, shapes, values, write
from oracle import delta_oracle as oracle
from polygraft.analysis.delta import steps
from polygraft.analysis.delta.change import measure
from polygraft.analysis.delta.maps import maps
from polygraft.analysis.delta.measure import compute, heads
from polygraft.anatomy import Anatomy
from polygraft.checkpoint import Checkpoint, Weights
from polygraft.errors import InputError
from polygraft.result import LayerMap
from polygraft.sources import resolve
from polygraft.step import Context

CONTEXT = Context(resolve, Path)


def folders(tmp_path, change=None, dtype="F32", layers=4, noise=0.01):
    """A base and two trained copies; `change(key, value)` plants more into the first."""
    base = values(shapes(layers=layers), 0)
    out = [write(tmp_path / "base", base, config(layers=layers), dtype=dtype)]
    for name, seed in (("one", 1), ("two", 2)):
        tuned = values(shapes(layers=layers), seed, noise) if noise else {k: v.copy() for k, v in base.items()}
        if change and name == "one":
            tuned = {k: change(k, v) for k, v in tuned.items()}
        out.append(write(tmp_path / name, tuned, config(layers=layers), dtype=dtype))
    return out


def run(tmp_path, models, base, **options):
    out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
    out.mkdir()
    return steps.run(steps.Delta(models=tuple(map(str, models)), base=str(base), **options), CONTEXT, out), out


def find(maps: tuple[LayerMap, ...], *words: str) -> LayerMap:
    (found,) = [m for m in maps if all(w in m.title for w in words)]
    return found


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
def test_every_figure_of_every_tensor_equals_the_oracle(tmp_path, dtype):
    base, one, two = folders(tmp_path, dtype=dtype)
    w0, w1, w2 = read(base), read(one), read(two)
    _, out = run(tmp_path, [one, two], base, threshold=0.008, epsilon=0.001, top=0.2)
    rows = list(csv.DictReader((out / "delta.csv").open()))
    assert len(rows) == 2 * len(w0)
    for row in rows:
        key, w = row["tensor"], (w1 if row["model"] == "one" else w2)
        # differences are float32: an entry whose |delta| lies on epsilon or the threshold could differ, none does with these seeds
        wanted = oracle.relation(w1[key] - w0[key], w2[key] - w0[key], 0.001, 0.2)
        if w0[key].ndim == 2:
            wanted |= oracle.figures(w[key], w0[key], 0.008)
        for name, value in wanted.items():
            assert float(row[name]) == pytest.approx(value, rel=2e-5, abs=1e-9), (key, name)


def test_cells_add_up_over_tensors_and_heads_equal_the_oracle(tmp_path):
    base, one, _ = folders(tmp_path)
    w0, w1 = read(base), read(one)
    _, out = run(tmp_path, [one], base)
    heads = list(csv.DictReader((out / "heads.csv").open()))
    for role, count in (("q", 4), ("k", 2), ("v", 2), ("o", 4)):
        key = f"model.layers.2.self_attn.{role}_proj.weight"
        wanted = oracle.head_means(w1[key] - w0[key], count, role == "o")
        got = [float(h["mav"]) for h in heads if h["layer"] == "2" and h["role"] == role]
        assert got == pytest.approx(wanted, rel=1e-5)


def test_a_change_of_layer_three_is_found_in_layer_three_and_in_those_rows(tmp_path):
    place = "model.layers.3.mlp.up_proj.weight"

    def plant(key, value):
        if key == place:
            value = value.copy()
            value[4:10] += 0.5
        return value

    base, one, _ = folders(tmp_path, plant, noise=0.0)
    result, _ = run(tmp_path, [one], base, threshold=0.1)
    changed = find(result.maps, "one", "rows that changed much")
    for row, cells in zip(changed.rows, changed.values):
        for layer, value in enumerate(cells):
            planted = row == "ffn.up" and layer == 3
            assert value is None or value == (6 / 24 if planted else 0.0), (row, layer)
    zeros = find(result.maps, "one", "did not change")
    assert zeros.values[zeros.rows.index("ffn.up")][3] == pytest.approx(1 - 6 / 24)
    assert "most in layers 3" in result.summary[0]


def test_a_planted_head_stands_out(tmp_path):
    def plant(key, value):
        if key == "model.layers.1.self_attn.o_proj.weight":
            value = value.copy()
            value[:, 8:12] += 1.0  # columns of head 2
        return value

    base, one, _ = folders(tmp_path, plant, noise=0.0)
    _, out = run(tmp_path, [one], base, threshold=0.5)
    loud = {(h["layer"], h["role"], h["head"]) for h in csv.DictReader((out / "heads.csv").open()) if float(h["row_share"]) > 0}
    assert loud == {("1", "o", "2")}


@pytest.mark.parametrize(("factor", "cosine", "conflict"), [(2.0, 1.0, 0.0), (-1.0, -1.0, 1.0)])
def test_aligned_and_opposed_changes(tmp_path, factor, cosine, conflict):
    base, one, _ = folders(tmp_path)
    w0, w1 = read(base), read(one)
    third = write(
        tmp_path / "third", {k: (v + factor * (w1[k] - v)).astype(np.float32) for k, v in w0.items()}, config(), dtype="F32"
    )
    result, _ = run(tmp_path, [one, third], base)
    for word, wanted in (("cosine", cosine), ("opposite signs", conflict), ("overlap", 1.0)):
        values_ = [v for row in find(result.maps, word).values for v in row if v is not None]
        assert np.allclose(values_, wanted, atol=0.02), word


def test_changes_in_different_places_do_not_overlap(tmp_path):
    base, *_ = folders(tmp_path, noise=0.0)
    w0 = {k: v.astype(np.float32) for k, v in read(base).items()}
    first, second = ({k: v.copy() for k, v in w0.items()} for _ in range(2))
    first["model.layers.0.mlp.up_proj.weight"][:4] += 1
    second["model.layers.0.mlp.up_proj.weight"][8:12] += 1
    a, b = (write(tmp_path / n, w, config(), dtype="F32") for n, w in (("a", first), ("b", second)))
    result, _ = run(tmp_path, [a, b], base)
    cells = {m: find(result.maps, m) for m in ("cosine", "opposite signs", "overlap")}
    up = cells["overlap"].rows.index("ffn.up")
    assert cells["overlap"].values[up][0] == 0.0
    assert cells["cosine"].values[up][0] == 0.0
    assert cells["opposite signs"].values[up][0] is None
    assert cells["overlap"].values[up][1] is None  # neither changed there


@pytest.mark.group("J")
def test_a_model_equal_to_its_base_has_defined_figures(tmp_path):
    base, *_ = folders(tmp_path, noise=0.0)
    result, out = run(tmp_path, [base, tmp_path / "one"], base)
    assert "nothing changed" in result.summary[0]
    assert "nan" not in json.dumps(result.to_json()).lower().replace('"name"', "")
    assert "nan" not in (out / "delta.csv").read_text()


@pytest.mark.group("J")
def test_a_base_of_zeros_has_no_relative_figures(tmp_path):
    zero = {k: np.zeros(s, np.float32) for k, s in shapes().items()}
    base = write(tmp_path / "zero", zero, config(), dtype="F32")
    one = write(tmp_path / "tuned", values(shapes(), 1), config(), dtype="F32")
    result, _ = run(tmp_path, [one], base)
    assert all(v is None for row in find(result.maps, "Frobenius").values for v in row)
    assert all(v for row in find(result.maps, ": mean absolute change").values for v in row)


@pytest.mark.group("J")
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_number_that_is_not_finite_is_named(tmp_path, bad):
    def plant(key, value):
        if key == "model.layers.2.mlp.down_proj.weight":
            value = value.copy()
            value[0, 0] = bad
        return value

    base, one, _ = folders(tmp_path, plant)
    with pytest.raises(InputError, match=r"layers\.2\.mlp\.down_proj"):
        run(tmp_path, [one], base)


def test_models_that_do_not_belong_together_are_refused_from_headers(tmp_path):
    base, *_ = folders(tmp_path)
    other = write(tmp_path / "wide", values(shapes(ffn=32)), config(ffn=32), dtype="F32")
    with pytest.raises(InputError, match=r"layers\.0\.mlp\.down_proj") as e:
        steps.plan(steps.Delta(models=(str(other),), base=str(base)), CONTEXT)
    assert "(16, 32)" in str(e.value)
    assert "(16, 24)" in str(e.value)


def test_figures_do_not_depend_on_chunks_or_shards(tmp_path, monkeypatch):
    from polygraft.analysis.delta import change

    base, one, two = folders(tmp_path)
    sharded = write(tmp_path / "sharded", {k: v.astype(np.float32) for k, v in read(one).items()}, config(), dtype="F32", shards=3)
    whole, _ = run(tmp_path, [one, two], base)
    monkeypatch.setattr(change, "CHUNK", 48)
    cut, _ = run(tmp_path, [sharded, two], base)
    for a, b in zip(whole.maps, cut.maps):
        for x, y in zip(a.values, b.values):
            assert [v for v in x if v is not None] == pytest.approx([v for v in y if v is not None], rel=1e-12)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_any_shape(rows, columns, seed):
    rng = np.random.default_rng(seed)
    w0, w1 = (rng.integers(-2, 3, (rows, columns)).astype(np.float32) for _ in range(2))
    (change,), pair = measure("w", Held(w0), [Held(w1)])
    assert pair is None
    assert change.mav == pytest.approx(np.abs(w1 - w0).mean())
    assert change.zeros == (w1 == w0).sum()
    assert change.means[1] == pytest.approx(np.abs(w1 - w0).mean(axis=0))
    assert change.relative_frobenius is None if not w0.any() else change.relative_frobenius >= 0


class Held(Weights):
    """One matrix named w, in memory."""

    def __init__(self, matrix: np.ndarray):
        from polygraft.checkpoint import TensorInfo

        self.path, self.raw = Path("memory"), matrix.astype("<f4").tobytes()
        self.tensors = {"w": TensorInfo("w", "F32", matrix.shape, "memory", 0, len(self.raw))}

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        return self.raw[start:stop]


@pytest.mark.parametrize("family", ["gpt2", "mixtral", "phi3", "gpt_neox", "bloom"])
def test_other_layouts(tiny, family):
    paths = [tiny(family, seed=s, noise=n) for s, n in ((0, 0.0), (1, 0.02))]
    base, one = (Checkpoint.open(p) for p in paths)
    anatomy = Anatomy.of(base.config, base.tensors)
    found = compute(anatomy, base, [("one", one)])
    for layer in range(anatomy.layers):
        for role, blocks in anatomy.heads(layer).items():
            assert len(heads(found, 0)[role, layer]) == len(blocks)
    if family == "gpt2":  # stored transposed: the rows of the MLP's first matrix are its columns
        key = next(k for k, p in anatomy.parts.items() if p.label == "ffn.up" and k.endswith(".weight"))
        assert found.changes[key][0].rows.size == base.tensors[key].shape[1]
    assert all(
        v is not None and v > 0
        for m in maps(found)
        if "Frobenius" in m.title
        for row in m.values
        for v in row
        if v is not None
    )


def test_only_what_is_asked_is_drawn_and_the_overlap_can_be_left_out(tmp_path):
    base, one, two = folders(tmp_path)

    def drawn(**more):
        config = steps.Delta(models=(str(one), str(two)), base=str(base), **more)
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        result = steps.run(config, CONTEXT, out)
        return [m.title for m in result.maps], " ".join(result.summary)

    titles, said = drawn()
    assert len(titles) == 11 and not any("by head" in t for t in titles) and "overlap" in said
    titles, said = drawn(draw=("frobenius", "cosine", "overlap"), top=0)
    assert [t.partition(": ")[2] for t in titles] == ["relative Frobenius norm of the change"] * 2 + ["cosine of the two changes"]
    assert "overlap" not in said
    titles, _ = drawn(draw=("heads",))
    assert titles and all("by head" in t for t in titles)
