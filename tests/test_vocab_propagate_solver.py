"""W against lstsq and formulas: any shape, any rank, ill-conditioned rows, ridges, rotations; the same bytes in any run."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle import propagate_oracle as oracle
from polygraft.checkpoint import Weights
from polygraft.errors import InputError
from polygraft.floats import from_f32
from polygraft.header import TensorInfo
from polygraft.vocab.init import mixture
from polygraft.vocab.propagation import products
from polygraft.vocab.propagation.fitting import GRID, HELD, IDENTITY, Both, fit, solved, split, sums_of
from polygraft.vocab.propagation.products import Products
from polygraft.vocab.propagation.solver import SOUND, Moments, Triangle, factored, from_sums, orthogonal, rounding
from polygraft.vocab.tables import Table


class Held(Weights):
    """One table in memory, in float64's nearest float32 or another type."""

    def __init__(self, values: np.ndarray, dtype: str = "F32"):
        self.raw, self.path = from_f32(np.asarray(values, np.float32), dtype), Path()
        self.tensors = {"t": TensorInfo("t", dtype, values.shape, "", 0, len(self.raw))}

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        return self.raw[start:stop]


@dataclass
class Rows:
    """A and B as tables, and as the numbers that the tables hold."""

    a: np.ndarray
    b: np.ndarray

    @property
    def both(self) -> Both:
        return Both(Table(Held(self.a), "t"), Table(Held(self.b), "t"), np.arange(len(self.a)))

    @property
    def short(self) -> Both:
        """The same in bf16."""
        return Both(Table(Held(self.a, "BF16"), "t"), Table(Held(self.b, "BF16"), "t"), np.arange(len(self.a)))


def rows(n: int, d: int, *, noise: float = 0.01, turn: float = 0.1, seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, d))
    b = a @ (np.eye(d) + turn * rng.normal(size=(d, d))) + noise * rng.normal(size=(n, d))
    return Rows(a.astype(np.float32).astype(np.float64), b.astype(np.float32).astype(np.float64))


def both_ways(a: np.ndarray, b: np.ndarray, step: int, ridge: float = 0.0):
    """W from sums (None where they cannot tell) and from QR, fed a few rows at a time."""
    sums = Moments.of(a.shape[1])
    for i in range(0, len(a), step):
        sums.add(a[i : i + step], (b - a)[i : i + step])
    triangle = Triangle.of(a.shape[1], sums.weight(ridge))
    for i in range(0, len(a), step):
        triangle.add(a[i : i + step], (b - a)[i : i + step])
    return from_sums(sums, ridge), triangle.solve()


@settings(max_examples=60)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 3), st.integers(0, 2**31))
def test_w_is_that_of_lstsq_for_any_shape_and_rank(n, d, lost, seed):
    rng = np.random.default_rng(seed)
    rank = max(1, min(n, d) - lost)
    a = rng.normal(size=(n, rank)) @ rng.normal(size=(rank, d))
    b = rng.normal(size=(n, d))
    expected = np.linalg.lstsq(a, b, rcond=1e-12)[0]
    short, long = both_ways(a, b, 7)
    size = np.abs(expected).max()
    assert long.rank == np.linalg.matrix_rank(a, tol=1e-12 * np.linalg.norm(a, 2) * max(n, d))
    np.testing.assert_allclose(long.change + np.eye(d), expected, atol=1e-6 * max(1, size))
    if short is not None:
        assert long.rank == d and short.condition < np.sqrt(SOUND) * 1.01
        np.testing.assert_allclose(short.change + np.eye(d), expected, atol=1e-6 * max(1, size))


@pytest.mark.parametrize("condition", [1, 1e2, 1e3, 1e5, 1e8])
def test_ill_conditioned_rows_go_the_long_way_and_keep_their_digits(condition):
    """Errors relative to what float64 leaves: eps x condition for QR, eps x condition^2 for sums, which are taken to 1e4."""
    import scipy.linalg

    rng = np.random.default_rng(3)
    u, v = (np.linalg.qr(rng.normal(size=(s, 40)))[0] for s in (600, 40))
    a = u * np.geomspace(1, 1 / condition, 40) @ v.T
    b = a @ (np.eye(40) + 0.1 * rng.normal(size=(40, 40)))
    short, long = both_ways(a, b, 100)
    expected = scipy.linalg.lstsq(a, b, lapack_driver="gelsy")[0]
    assert (short is None) == (condition > 1e4)
    for made in (short, long):
        if made is not None:
            assert np.abs(made.change + np.eye(40) - expected).max() < (1e-7 if made is short else 1e-15 * 100 * condition)


@given(st.integers(2, 60), st.integers(1, 10), st.floats(1e-8, 1e3), st.integers(0, 2**31))
def test_a_ridge_is_the_formula_in_both_ways_of_solving(n, d, ridge, seed):
    r = rows(n, d, noise=0.3, seed=seed)
    expected = oracle.least_squares(r.a, r.b, ridge)
    for made in both_ways(r.a, r.b, 13, ridge):
        assert made is None or np.abs(made.change + np.eye(d) - expected).max() < 1e-5 * max(1, np.abs(expected).max())


def test_an_endless_ridge_is_the_identity_and_none_is_least_squares():
    r = rows(200, 8)
    far, near = (both_ways(r.a, r.b, 50, x)[0].change for x in (1e12, 1e-12))
    assert np.abs(far).max() < 1e-9
    np.testing.assert_allclose(near + np.eye(8), oracle.least_squares(r.a, r.b), atol=1e-8)


def test_the_rotation_is_orthogonal_and_the_planted_one():
    rng = np.random.default_rng(0)
    q = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    a = rng.normal(size=(300, 12))
    sums = Moments.of(12)
    sums.add(a, a @ q - a + 1e-9)
    w = orthogonal(sums).change + np.eye(12)
    np.testing.assert_allclose(w @ w.T, np.eye(12), atol=1e-12)
    np.testing.assert_allclose(w, q, atol=1e-7)
    np.testing.assert_allclose(w, oracle.rotation(a, a @ q + 1e-9), atol=1e-12)


def test_w_does_not_depend_on_how_many_rows_are_in_memory(monkeypatch):
    r = rows(3000, 16)
    whole = fit(r.both, 0.0, 0)
    monkeypatch.setattr(mixture, "ROOM", 16 * 4 * 50)
    parts = fit(r.both, 0.0, 0)
    np.testing.assert_allclose(parts.solved.change, whole.solved.change, atol=1e-12)
    assert parts.tried.error == pytest.approx(whole.tried.error, rel=1e-12)


def test_the_held_out_error_is_that_of_a_fit_that_has_not_seen_them():
    r = rows(800, 24, noise=0.2)
    made = fit(r.both, 0.0, 7)
    train, _, held = split(800, 7, False)
    w = oracle.least_squares(r.a[train], r.b[train])
    error = np.linalg.norm(r.a[held] @ w - r.b[held])
    assert made.tried.rows == len(held) == round(HELD * 800) and not set(held) & set(train)
    assert made.tried.relative == pytest.approx(error / np.linalg.norm(r.b[held]), rel=1e-9)
    assert made.tried.ratio.value == pytest.approx(error / np.linalg.norm(r.b[held] - r.a[held]), rel=1e-9)
    assert made.tried.ratio.low < made.tried.ratio.value < made.tried.ratio.high
    np.testing.assert_allclose(made.solved.change + np.eye(24), oracle.least_squares(r.a, r.b), atol=1e-9)


def test_the_ridge_is_chosen_and_reported_on_different_rows():
    train, choose, report = split(1000, 0, True)
    assert sorted([*train, *choose, *report]) == list(range(1000)) and len(choose) == len(report) == 25
    exact, noise = rows(1000, 24, noise=0.0), rows(120, 24, noise=1.0, turn=0.0)
    assert fit(exact.both, None, 0).ridge == 0.0
    loud = fit(noise.both, None, 0)
    assert loud.ridge >= 0.1 and set(loud.tries) == {*GRID, IDENTITY}
    assert loud.tries[loud.ridge] == min(x for x in loud.tries.values() if x is not None)


def test_few_rows_are_refused_with_their_number():
    with pytest.raises(InputError, match="too few tokens"):
        fit(rows(19, 4).both, 0.0, 0)


def test_rows_that_span_less_than_the_width_give_the_w_of_the_smallest_norm():
    r = rows(40, 64)
    made = fit(r.both, 0.0, 0)
    assert (made.solved.rank, made.solved.way, made.solved.condition) == (40, "qr", None)
    np.testing.assert_allclose(made.solved.change + np.eye(64), np.linalg.pinv(r.a) @ r.b, atol=1e-9)


def test_with_noise_of_its_own_in_every_row_more_old_rows_are_better():
    """Methods, D2: bypass < overlap < conversion, where conversion's rows are means of few old ones and repeat them."""
    rng, d, old, new = np.random.default_rng(0), 32, 1500, 1500
    q = np.eye(d) + 0.1 * rng.normal(size=(d, d))
    a = rng.normal(size=(old, d))
    b = a @ q + 0.3 * rng.normal(size=(old, d))
    base, instruct = Table(Held(a), "t"), Table(Held(b), "t")
    often = rng.permutation(old)[:200]  # pieces that most words of the new language are cut into
    ids, counts = np.concatenate([rng.choice(often, 3) for _ in range(new)]), np.full(new, 3)
    t = mixture.Mixture(ids.astype(np.int32), np.full(len(ids), 1 / 3), np.concatenate([[0], np.cumsum(counts)]))
    ways = {"bypass": Both(base, instruct, np.arange(old)), "overlap": Both(base, instruct, np.sort(rng.permutation(old)[:600])),
            "conversion": Both(base, instruct, np.arange(new), t)}
    off = {name: float(np.linalg.norm(fit(rows, 0.0, 0).solved.change + np.eye(d) - q)) for name, rows in ways.items()}
    assert off["bypass"] < 0.8 * off["overlap"] < 0.8 * off["conversion"]


def spread(kind: str, n: int, d: int, rng: np.random.Generator) -> np.ndarray:
    """Rows [n, d]: of independent numbers, positive ones (sums that only grow), columns of many sizes, or nearly of fewer dimensions."""
    a = rng.random((n, d)) if kind == "positive" else rng.standard_normal((n, d))
    if kind == "thin":
        a[:, d // 2 :] = a[:, : d - d // 2] + 0.2 * a[:, d // 2 :]
    return a * np.geomspace(1, 1e-4, d) if kind == "sizes" else a


@pytest.mark.parametrize("kind", ["normal", "positive", "sizes", "thin"])
@pytest.mark.parametrize(("n", "d", "moved"), [(9001, 64, 0.05), (900, 150, 0.5), (20_000, 33, 1e-4)])
def test_float32_products_are_off_by_less_than_their_estimate(kind, n, d, moved):
    """Against float64 lstsq on the same rows: off on any rows, and on those of A, which say less."""
    rng = np.random.default_rng(d)
    a = spread(kind, n, d, rng).astype(np.float32)
    sizes = np.linalg.norm(a, axis=0) / np.sqrt(n)
    change = (a / sizes @ rng.normal(size=(d, d)) * (moved / np.sqrt(d)) + moved * rng.normal(size=(n, d))) * sizes
    change = change.astype(np.float32)
    expected = np.linalg.lstsq(a.astype(np.float64), change.astype(np.float64), rcond=1e-12)[0]
    made = Products(d, 1.0)
    made.add(a, change)
    sums = made.total()
    assert sums.rows == n and np.array_equal(sums.gram, sums.gram.T)
    off, factor = from_sums(sums, 0.0).change - expected, factored(sums, 0.0)
    real = np.linalg.norm(off / factor.scale[:, None]) / np.sqrt(np.trace(sums.gram))
    estimate = rounding(sums, factor)
    assert 0 < real < estimate < 1e4 * real
    assert np.linalg.norm(a @ off) / np.linalg.norm(a) < estimate


def test_float32_products_only_where_the_result_is_coarser_by_far(monkeypatch):
    """Rows of 16 bits and well conditioned: else float64. W is that of lstsq far below bf16's rounding."""
    r, coarse = rows(3000, 48), "sums of float32 products"
    assert fit(r.short, 0.0, 0).solved.way == "sums"  # little work
    monkeypatch.setattr(products, "WORTH", 0.0)
    assert fit(r.both, 0.0, 0).solved.way == "sums"  # float32
    assert fit(r.short, 0.0, 0, rotate=True).solved.way == "svd"
    made, a, b = fit(r.short, 0.0, 0).solved, *r.short.take(np.arange(3000))
    expected = np.linalg.lstsq(a.astype(np.float64), b.astype(np.float64), rcond=None)[0]
    assert made.way == coarse and np.linalg.norm(made.change + np.eye(48) - expected) < 1e-6 * np.linalg.norm(expected)
    twice = np.hstack([r.a[:, :24], r.a[:, :24] + 0.02 * r.a[:, 24:]])
    thin = Rows(twice, 1.1 * twice)
    assert fit(thin.short, 0.0, 0).solved.way == "sums" and fit(thin.short, 0.1, 0).solved.way == coarse  # a ridge helps
    flat = Rows(r.a[:40], r.b[:40])
    assert (w := fit(flat.short, 0.0, 0).solved).way == "qr" and w.rank == 40


def test_sums_that_only_the_last_rows_spoil_are_made_again(monkeypatch):
    """The first rows pass; all of them do not: W is that of float64 sums."""
    monkeypatch.setattr(products, "WORTH", 0.0)
    r = rows(2000, 16)
    r.a[1000:, 8:] = r.a[1000:, :8] + 0.003 * r.a[1000:, 8:]
    r.a[1000:] *= 1000
    both, at = r.short, np.arange(2000)
    sums = sums_of(both, at, 0.0)
    found = solved(both, sums, at, 0.0)
    a, b = (x.astype(np.float64) for x in both.take(at))
    assert sums.chunk and found.way == "sums"
    np.testing.assert_allclose(found.change + np.eye(16), np.linalg.lstsq(a, b, rcond=1e-12)[0], atol=1e-7)


@pytest.mark.parametrize("size", [1e30, 1e-30])
def test_what_float32_cannot_hold_is_summed_in_float64(monkeypatch, size):
    monkeypatch.setattr(products, "WORTH", 0.0)
    r = rows(2000, 16)
    assert fit(Rows(r.a * size, r.b * size).short, 0.0, 0).solved.way == "sums"


def test_an_unchanged_model_gives_exactly_nothing_also_in_float32(monkeypatch):
    monkeypatch.setattr(products, "WORTH", 0.0)
    r = rows(2000, 16)
    made = fit(Rows(r.a, r.a).short, 0.0, 0).solved
    assert made.way == "sums of float32 products" and not made.change.any()


CODE = """
import sys, hashlib
sys.path.insert(0, sys.argv[1])
from test_vocab_propagate_solver import digest
print(digest())
"""


def digest() -> str:
    """Of W from rows that are summed in several parts, and by each way of solving."""
    mixture.ROOM = 700 * 4 * 96
    r, thin = rows(3000, 96, noise=0.2), rows(70, 96)
    found = [fit(r.both, 0.0, 0), fit(r.both, None, 0), fit(r.both, 0.0, 0, rotate=True), fit(thin.both, 0.0, 0)]
    products.WORTH, products.CHUNK = 0.0, 512
    found.append(fit(r.short, 0.0, 0))
    assert found[-1].solved.way == "sums of float32 products"
    return hashlib.sha256(b"".join(f.solved.change.tobytes() for f in found)).hexdigest()


@pytest.mark.group("N")
@pytest.mark.parametrize("threads", ["1", "2"])
def test_the_same_bytes_in_every_run_with_as_many_threads(threads):
    env = os.environ | {"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
    said = {subprocess.run([sys.executable, "-c", CODE, str(Path(__file__).parent)], env=env | {"PYTHONHASHSEED": seed}, check=True,
                           capture_output=True, text=True).stdout for seed in ("0", "1")}  # fmt: skip
    assert len(said) == 1 and len(said.pop().strip()) == 64
