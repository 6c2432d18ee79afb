"""Swaps for the language that loses most: as the naive ones, never worse for it than before, and better than swaps on the mixture."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import tiny as tinymodels
from oracle import pruning_oracle as oracle
from polygraft.prune.config import Masking
from polygraft.prune.masks.pattern import Pattern, chosen
from polygraft.prune.masks.swaps import swapped
from polygraft.prune.masks.worst import RATE, losses, stages, swapped_for_the_worst
from polygraft.prune.statistics import Moments
from pruned import STEP, masks, modules, pruned
from test_prune_masks import normal, read


def grams(width, languages=3, dtype=torch.float64):
    """Languages of other directions and other loudness."""
    return torch.stack([torch.from_numpy(read(width, tokens=40 * (i + 1), seed=7 * i).gram) * 10**i for i in range(languages)]).to(dtype)


def worst(w, keep, each):
    return float((losses(w, keep, each) / losses(w, torch.zeros_like(keep), each)).max())


@pytest.mark.parametrize("m", [0, 4])
@pytest.mark.parametrize("swaps", [1, 5, 24])
def test_swaps_are_those_of_the_naive_method(m, swaps):
    w, each = normal(4, 16, seed=2, dtype=torch.float64), grams(16)
    start = chosen(w.abs(), Pattern.of(text="2:4") if m else Pattern.of(0.5))
    found = swapped_for_the_worst(w, start, each, swaps, m)
    expected, _ = oracle.worst_swaps(w.numpy(), ~start.numpy(), each.numpy(), stages(swaps), RATE, m)
    np.testing.assert_array_equal(~found.numpy(), expected)


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 6), st.integers(1, 5), st.floats(0, 1), st.integers(0, 20), st.booleans(), st.integers(1, 4))
def test_the_worst_language_never_loses_more_and_counts_groups_and_protected_weights_stay(rows, groups, sparsity, seed, grouped, languages):
    w, each = normal(rows, 4 * groups, seed=seed), grams(4 * groups, languages, torch.float32)
    protected = torch.rand(w.shape, generator=torch.Generator().manual_seed(seed)) < 0.3
    pattern = Pattern.of(text="2:4") if grouped else Pattern.of(sparsity)
    before = chosen(w.abs(), pattern, protected)
    after = swapped_for_the_worst(w, before, each, 20, pattern.m, protected)
    assert after[protected].all() and torch.equal(before.sum(1), after.sum(1))
    if grouped:
        assert torch.equal(before.reshape(-1, 4).sum(1), after.reshape(-1, 4).sum(1))
    assert worst(w, after, each) <= worst(w, before, each) * (1 + 1e-6)


def test_it_comes_near_the_best_of_all_masks():
    w, each = normal(2, 8, seed=5, dtype=torch.float64), grams(8, 2)
    rows = [torch.tensor([i in some for i in range(8)]) for some in itertools.combinations(range(8), 4)]
    least = min(worst(w, torch.stack(pair), each) for pair in itertools.product(rows, rows))
    start = chosen(w.abs(), Pattern.of(0.5))
    assert least <= worst(w, swapped_for_the_worst(w, start, each, 32), each) < least + 0.35 * (worst(w, start, each) - least)


def test_a_language_that_is_hard_gets_more_than_its_part_of_a_mixture():
    """One language needs two inputs, the other twelve alike, and the first one is a hundred times as loud."""
    easy, hard = torch.zeros(16), torch.zeros(16)
    easy[:4], hard[4:] = 1e4, 1.0
    each, w = torch.stack([torch.diag(easy), torch.diag(hard)]), normal(6, 16, seed=1)
    start = chosen(w.abs() * each.sum(0).diagonal().sqrt(), Pattern.of(0.5))
    mixed = swapped(w, start, each.sum(0), 40)
    found = swapped_for_the_worst(w, start, each, 40)
    assert worst(w, found, each) < 0.7 * worst(w, mixed, each)


def test_a_language_that_never_comes_here_does_not_count():
    w, each = normal(5, 12), grams(12, 2, torch.float32)
    start = chosen(w.abs(), Pattern.of(0.5))
    silent = torch.cat([each, torch.zeros(1, 12, 12)])
    assert torch.equal(swapped_for_the_worst(w, start, silent, 9), swapped_for_the_worst(w, start, each, 9))
    assert torch.equal(swapped_for_the_worst(w, start, torch.zeros(2, 12, 12), 9), start)
    assert stages(3) == [1, 1, 1] and sum(stages(30)) == 30 and len(stages(30)) == 8


def test_moments_of_languages_together_are_those_of_all():
    each = {g: read(6, tokens=n) for g, n in (("sw", 3), ("en", 50))}
    found = Moments.together(each)
    assert found.tokens == 53 and found.each == each
    np.testing.assert_allclose(found.gram, each["sw"].gram + each["en"].gram)
    np.testing.assert_allclose(found.squares, each["sw"].squares + each["en"].squares)
    alone = Moments.together({"sw": each["sw"]})
    assert alone.gram is each["sw"].gram and alone.tokens == 3


@pytest.mark.parametrize("family", tinymodels.FAMILIES)
def test_every_family_is_pruned_for_its_worst_language(tiny, tmp_path, family):
    out, result = pruned(tiny(family), tmp_path, swaps=8, objective="worst", calibrate={"en": 0.75, "sw": 0.25})
    for module in modules(out).values():
        assert set(module["errors"]) == {"en", "sw"} and module["pruned"] == module["size"] // 2
        known = [e for e in module["errors"].values() if e is not None]
        assert min(known) - 1e-6 <= module["error"] <= max(known) + 1e-6  # all text is in one of them
    assert "for the worst language" in result.summary[0] and "en 0." in result.summary[2] and result.data["objective"] == "worst"


def test_the_worst_language_loses_less_by_the_verb(tiny, tmp_path):
    """Beside swaps on the mixture, measured on the same products: of the first layer, whose inputs are the same."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    mixed = masks(pruned(tiny("llama"), tmp_path / "a", swaps=40, calibrate={"en": 0.9, "sw": 0.1})[0])
    out, _ = pruned(tiny("llama"), tmp_path / "b", swaps=40, calibrate={"en": 0.9, "sw": 0.1}, objective="worst")
    fair, told = masks(out), modules(out)
    key = "model.layers.0.self_attn.q_proj.weight"
    assert "errors" not in modules(tmp_path / "a" / "out")[key]
    assert max(told[key]["errors"].values()) > 0 and (fair[key] != mixed[key]).any()
    assert told[key]["errors"]["en"] == pytest.approx(told[key]["errors"]["sw"], rel=0.25)  # rests where both lose alike


@pytest.mark.parametrize("more", [{}, {"swaps": 3, "corpus": {"sw": "a.txt"}}])
def test_an_objective_needs_swaps_and_languages(more):
    with pytest.raises(ValidationError, match="objective"):
        Masking(**{"model": "m", "corpus": {"sw": "a.txt", "en": "b.txt"}, "objective": "worst", **more})
    assert STEP.config(model="m", corpus={"sw": "a", "en": "b"}, objective="worst", swaps=2).objective == "worst"
