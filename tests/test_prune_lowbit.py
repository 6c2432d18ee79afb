"""Rounding to few bits: as good as the formula's oracle, weights where they count, every language's harm, honest words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny as tinymodels
from oracle.smaller_oracle import nearest
from polygraft.config import Document, parse
from polygraft.errors import RecipeError
from polygraft.prune.lowbit import coarse, rounded
from polygraft.prune.pruning import anatomy_of
from polygraft.recipe import run_step
from polygraft.sources import resolve
from polygraft.steps import TABLE

STEP = next(s for s in TABLE if s.name == "prune.lowbit")


def lost(w, made, importance):
    return float((importance * (w - made).square()).sum())


@given(st.integers(2, 8), st.integers(2, 40), st.integers(1, 4), st.integers(2, 70), st.integers(0, 999))
@settings(max_examples=40, deadline=None)
def test_never_worse_than_the_nearest_of_a_plain_grid_and_finite(bits, group, rows, width, seed):
    g = torch.Generator().manual_seed(seed)
    w, importance = torch.randn(rows, width, generator=g), torch.rand(width, generator=g)
    made = rounded(w, importance, bits, group)
    assert made.shape == w.shape and made.isfinite().all()
    plain = torch.from_numpy(nearest(w.double().numpy(), bits, group)).float()
    assert lost(w, made, importance) <= lost(w, plain, importance) * (1 + 1e-2) + 1e-5  # float16 scales


@given(st.integers(2, 6), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_a_group_takes_no_more_values_than_its_bits_say(bits, seed):
    w = torch.randn(3, 64, generator=torch.Generator().manual_seed(seed))
    made = rounded(w, torch.ones(64), bits, 32)
    for row in made.reshape(-1, 32):
        assert len(row.unique()) <= 2**bits


def test_what_is_on_the_grid_already_stays():
    w = torch.arange(16.0).repeat(2, 2) * 0.25 - 1
    assert torch.equal(rounded(w, torch.ones(32), 4, 16), w)


def test_inputs_that_count_are_kept_more_exactly():
    """Half of the inputs carry all the signal: their error falls when they are weighed, that of the others grows."""
    w = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    heavy = torch.cat([torch.full((32,), 100.0), torch.full((32,), 0.01)])[torch.randperm(64, generator=torch.Generator().manual_seed(1))]
    plain, weighed = rounded(w, torch.ones(64), 3, 32), rounded(w, heavy, 3, 32)
    assert lost(w, weighed, heavy) < 0.85 * lost(w, plain, heavy)
    assert lost(w, weighed, (heavy < 1).float()) > lost(w, plain, (heavy < 1).float())


@pytest.mark.parametrize("w", [torch.zeros(2, 8), torch.full((2, 8), 3.0), torch.tensor([[1e-6, -1e-6] * 4])])
def test_constant_groups_and_inputs_that_nothing_reaches(w):
    made = rounded(w, torch.zeros(8), 4, 4)
    torch.testing.assert_close(made, w, rtol=1e-3, atol=1e-6)


@pytest.fixture
def corpora(tmp_path):
    rng = np.random.default_rng(0)
    for tag, letters in (("en", "abcdefg "), ("sw", "uvwxyz ")):
        (tmp_path / f"{tag}.txt").write_text("\n".join("".join(rng.choice(list(letters), 60)) for _ in range(40)) + "\n")
    return {"en": str(tmp_path / "en.txt"), "sw": str(tmp_path / "sw.txt")}


def config(model, corpora, **more):
    fields = {"model": str(model), "corpus": corpora, "samples": 4, "seq_len": 24, "dtype": "float32", "evaluate": corpora,
              "documents": 4, "group": 8, **more}  # fmt: skip
    return STEP.config(**fields)


@pytest.mark.parametrize("family", tinymodels.FAMILIES)
def test_every_family_is_rounded_and_read(tiny, tmp_path, corpora, family):
    result = run_step(STEP, config(tiny(family), corpora, bits=8), tmp_path / "out")
    for harm in result.data["harm"].values():
        assert set(harm) == {"en", "sw"} and all(abs(h["after"] - h["before"]) < 0.05 * h["before"] + 0.05 for h in harm.values())
    assert not (tmp_path / "out" / "layers").exists()


def test_fewer_bits_lose_more_and_each_language_may_be_weighed_alone(tiny, tmp_path, corpora):
    errors = {}
    for bits in (2, 4, 8):
        result = run_step(STEP, config(tiny("llama"), corpora, bits=bits, alone=bits == 2), tmp_path / str(bits))
        errors[bits] = result.data["error"]["this text"]
        assert result.data["error"]["this text"] <= result.data["error"]["nearest"] * 1.01
        assert set(result.data["harm"]) == {"nearest", "this text"} | ({"en alone", "sw alone"} if bits == 2 else set())
    assert errors[2] > 3 * errors[4] > 9 * errors[8]


def test_a_model_that_was_kept_in_few_bits_is_told_from_one_that_was_not(tiny, tmp_path):
    from polygraft.checkpoint import Weights

    source = resolve(str(tiny("llama")))
    keys = [k for k, p in anatomy_of(source).parts.items() if p.label == "ffn.up"]
    assert coarse(source.weights, keys) == 32

    class Few(Weights):
        def info(self, key):
            return source.weights.info(key)

        def f32(self, key, start=0, stop=None, out=None):
            return np.round(source.weights.f32(key, start, stop) * 4)

    assert coarse(Few(), keys) <= 16


def test_without_held_out_text_it_is_refused(tiny, corpora):
    with pytest.raises(RecipeError, match="--evaluate"):
        parse(STEP.config, Document({"model": "m", "corpus": corpora}, "x", {(): "x"}))
