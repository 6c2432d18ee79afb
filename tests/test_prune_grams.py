"""The store of Gram matrices: what is kept, what a mask costs in every language without reading again, mixtures, the worst language."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tiny as tinymodels
from oracle.grams_oracle import naive_error, naive_gram, naive_spearman
from polygraft import arrays, stats
from polygraft.anatomy import Anatomy
from polygraft.errors import InputError, RecipeError
from polygraft.model import load
from polygraft.prune.calibration import assembled, drawn
from polygraft.prune.engine import Overlay, Work, prune
from polygraft.prune.grams import candidates, store, triangle
from polygraft.prune.grams.scoring import matrix, score
from polygraft.prune.grams.store import Grams, gather
from polygraft.prune.languages import Reading
from polygraft.prune.masks import METHODS, Options
from polygraft.prune.masks.pattern import Pattern
from polygraft.prune.sites import Site
from polygraft.prune.writing import write_masks, write_model
from polygraft.sources import resolve
from test_prune_calibration import corpus

ABOUT = {"model": "m"}
HALF = Pattern(0.5)


def reading(path, folder, languages=("sw", "ru")):
    tokenizer = tinymodels.tokenizer()
    letters = {"sw": "abcdefgh ", "ru": "яжшщ ", "en": "xyz "}
    found = {g: drawn(corpus(folder, g, letters=letters[g]), tokenizer, 3 + (g == "ru"), 16, 0) for g in languages}
    return Reading.calibrated(resolve(str(path)), assembled(found, tokenizer, 2), "float32")


def gathered(path, folder):
    """A store, and the weights and anatomy that it is of."""
    text = reading(path, folder)
    weights = text.source.weights
    return gather(text, folder / "grams", ABOUT), weights, Anatomy.of(weights.config, weights.tensors), text


def inputs(text, key):
    """language -> float64 [tokens, in]: what a matrix reads in the whole model, by a hook, BOS left out."""
    live = load(text.source, dtype="float32")
    module = live.model.get_submodule(live.anatomy.live_name(key).removesuffix(".weight"))
    seen: dict[str, list] = {g: [] for g in text.languages}
    for batch, weights, g in zip(text.batches, text.weighing, text.of):
        hook = module.register_forward_pre_hook(lambda _m, args, g=g, w=weights: seen[g].append(
            args[0].detach().reshape(-1, args[0].shape[-1])[w.reshape(-1) > 0]))  # fmt: skip
        with torch.no_grad():
            live.model(**batch)
        hook.remove()
    return {g: torch.cat(x).double().numpy() for g, x in seen.items()}


@given(hnp.arrays(np.float32, st.integers(1, 9).map(lambda n: (n, n)), elements=st.floats(-4, 4, width=32)))
def test_a_triangle_keeps_a_symmetric_matrix_and_gives_its_inner_products(a):
    a = a + a.T
    packed = triangle.pack(a)
    assert packed.shape == (triangle.size(len(a)),) and (triangle.unpack(packed, len(a)) == a).all()
    g = a @ a.T
    g = (g + g.T) / 2
    both = np.stack([triangle.pack(g), packed])
    np.testing.assert_allclose(triangle.inner(a, both), [(a * g).sum(dtype=np.float64), (a * a).sum(dtype=np.float64)], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3", "falcon", "bloom"])
def test_gram_matrices_and_errors_are_those_of_the_running_model(tiny, tmp_path, family):
    grams, weights, anatomy, text = gathered(tiny(family), tmp_path)
    assert grams.languages == ("sw", "ru") and grams.tokens.tolist() == [45, 60]
    maker, _ = METHODS["wanda"]
    candidate = candidates.mixed(grams, maker(HALF, Options()), {"sw": 1})
    found = score(grams, weights, anatomy, candidate)
    for site, kept in grams.sites.items():
        before = {key: matrix(weights, anatomy, key, kept.width) for key in kept.keys}
        after = candidate(site, before)
        x = inputs(text, kept.keys[0])
        for i, g in enumerate(grams.languages):
            expected = naive_gram(x[g])
            np.testing.assert_allclose(triangle.unpack(grams.packed(site)[i], kept.width), expected, rtol=1e-3, atol=1e-3 * abs(expected).max())
            np.testing.assert_allclose(grams.norms(site)[i], np.sqrt(np.diag(expected) / len(x[g])), rtol=1e-4)
            for key, w in before.items():
                assert found.errors[key][i] == pytest.approx(naive_error(w, after[key], x[g]), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("family", tinymodels.FAMILIES)
def test_a_pruned_model_and_its_masks_score_alike_in_every_family(tiny, tmp_path, family):
    grams, weights, anatomy, text = gathered(tiny(family), tmp_path)
    maker, _ = METHODS["wanda"]
    prune(Work(text.source, text.batches, text.weighing, maker(HALF, Options()), False, "float32"), tmp_path / "layers")
    overlay = Overlay(weights, tmp_path / "layers", 2)
    write_model(overlay, tmp_path / "made" / "model")
    write_masks(overlay, tmp_path / "made" / "model")
    whole = score(grams, weights, anatomy, candidates.on_disk(tmp_path / "made", anatomy))
    masks = score(grams, weights, anatomy, candidates.on_disk(tmp_path / "made" / "model" / "masks.safetensors", anatomy))
    direct = score(grams, weights, anatomy, candidates.model(overlay, anatomy))
    assert set(whole.errors) == set(overlay.masks)
    for key, errors in whole.errors.items():
        reached = np.isfinite(errors)  # an expert may see no token of a language
        assert (errors[reached] > 0).all() and (errors[reached] < 1).all()
        np.testing.assert_allclose(masks.errors[key], errors, rtol=1e-6)
        np.testing.assert_allclose(direct.errors[key], errors, rtol=1e-6)
    assert np.isfinite(whole.by_language).all()
    same = score(grams, weights, anatomy, lambda _site, before: before)
    assert same.by_language.tolist() == [0, 0]
    nothing = score(grams, weights, anatomy, lambda _site, before: {k: np.zeros_like(w) for k, w in before.items()})
    np.testing.assert_allclose(nothing.by_language, 1, rtol=1e-5)


def test_a_mixture_weighs_shares_and_not_how_much_text_there_is(tiny, tmp_path):
    grams, _, _, text = gathered(tiny("llama"), tmp_path)
    for site in grams.sites:
        if site.layer == 0 and site.point == "input.qkv":
            x = inputs(text, grams.sites[site].keys[0])
            mixed = grams.moments(site, {"sw": 3, "ru": 1})
            expected = 0.75 * naive_gram(x["sw"]) / len(x["sw"]) + 0.25 * naive_gram(x["ru"]) / len(x["ru"])
            np.testing.assert_allclose(mixed.gram, expected, rtol=1e-3, atol=1e-5)
            assert mixed.tokens == pytest.approx(1) and np.allclose(mixed.squares, np.diag(expected), rtol=1e-3)
            np.testing.assert_allclose(grams.moments(site, {"ru": 2}).norms, grams.norms(site)[1], rtol=1e-4)


def test_a_mask_made_for_a_language_costs_that_language_least(tiny, tmp_path):
    grams, weights, anatomy, _ = gathered(tiny("llama"), tmp_path)
    maker, _ = METHODS["sparsegpt"]
    method = maker(HALF, Options())
    found = {g: score(grams, weights, anatomy, candidates.mixed(grams, method, {g: 1})).by_language for g in grams.languages}
    assert found["sw"][0] < found["ru"][0] and found["ru"][1] < found["sw"][1]


def test_the_search_for_the_worst_language_beats_equal_shares_where_one_is_hard(tiny, tmp_path):
    grams, weights, anatomy, _ = gathered(tiny("llama"), tmp_path)
    maker, _ = METHODS["sparsegpt"]
    search = candidates.for_the_worst(grams, weights, anatomy, maker(HALF, Options()), 6)
    first = search.rounds[0]
    assert first.shares == {"sw": 0.5, "ru": 0.5} and 2 <= len(search.rounds) <= 6
    assert search.best.score.worst[1] < first.score.worst[1]
    hard = first.score.worst[0]
    assert search.rounds[1].shares[hard] > 0.5 and all(abs(sum(r.shares.values()) - 1) < 1e-9 for r in search.rounds)
    assert search.best.score.weighted({hard: 1}) == pytest.approx(dict(zip(grams.languages, search.best.score.by_language))[hard])


def test_a_store_that_was_interrupted_is_gathered_on_to_the_same_bytes(tiny, tmp_path, monkeypatch):
    text = reading(tiny("llama"), tmp_path)
    real = arrays.write

    def stops(path, *rest):
        if path.name == store.layer_file(1):
            raise KeyboardInterrupt
        real(path, *rest)

    monkeypatch.setattr(arrays, "write", stops)
    with pytest.raises(KeyboardInterrupt):
        gather(text, tmp_path / "a", ABOUT)
    with pytest.raises(InputError, match="not a store"):
        Grams(tmp_path / "a")
    monkeypatch.undo()
    before = (tmp_path / "a" / store.layer_file(0)).stat().st_mtime_ns
    gather(text, tmp_path / "a", ABOUT)
    assert (tmp_path / "a" / store.layer_file(0)).stat().st_mtime_ns == before
    gather(text, tmp_path / "b", ABOUT)
    for name in (store.layer_file(0), store.layer_file(1), store.INDEX):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    widths = [kept.width for kept in Grams(tmp_path / "a").sites.values()]
    size = sum((tmp_path / "a" / store.layer_file(i)).stat().st_size for i in range(2))
    assert 0 < size - store.nbytes(widths, 2) < 8192  # headers


@pytest.mark.group("J")
@pytest.mark.parametrize("wrong", ["no folder", "no index", "index of another kind", "no text", "a language less", "not JSON", "a layer less"])
def test_a_folder_that_is_no_store_is_refused(tiny, tmp_path, wrong):
    grams, *_ = gathered(tiny("llama"), tmp_path)
    index = grams.folder / store.INDEX
    about = json.loads(index.read_text())
    if wrong == "no index":
        index.unlink()
    elif wrong == "a layer less":
        (grams.folder / store.layer_file(1)).unlink()
    else:
        new = {"index of another kind": {"a": 1}, "no text": about | {"tokens": {"sw": 0, "ru": 3}},
               "a language less": about | {"languages": ["sw"]}}.get(wrong)  # fmt: skip
        index.write_text("{" if wrong == "not JSON" else json.dumps(new))
    with pytest.raises(InputError):
        _ = Grams(tmp_path / "nowhere" if wrong == "no folder" else grams.folder).sites


@pytest.mark.group("J")
def test_another_model_another_mask_and_unknown_languages_are_refused(tiny, tmp_path):
    grams, weights, anatomy, _ = gathered(tiny("llama"), tmp_path)
    other = resolve(str(tiny("mistral", layers=1))).weights
    with pytest.raises(InputError, match="does not fit the store"):
        score(grams, other, Anatomy.of(other.config, other.tensors), lambda _s, before: before)
    with pytest.raises(InputError, match="masks do not fit"):
        score(grams, weights, anatomy, candidates.masks({}, anatomy))
    with pytest.raises(InputError, match="no such language"):
        grams.moments(next(iter(grams.sites)), {"de": 1})
    with pytest.raises(InputError, match="no mixture"):
        grams.weights({"sw": 0})


@pytest.mark.parametrize(("text", "shares"), [("sw=0.5+en=0.25", {"sw": 0.5, "en": 0.25}), ("sw+en", {"sw": 1, "en": 1}), ("sw", {"sw": 1})])
def test_mixtures_in_words(text, shares):
    assert candidates.shares_of(text) == shares


@pytest.mark.parametrize("text", ["", "sw=", "sw=x", "sw=-1", "sw=0", "=1", "sw=inf", "sw=nan", "notalanguage=1"])
def test_what_is_no_mixture_is_refused(text):
    with pytest.raises(RecipeError):
        candidates.shares_of(text)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=12))
def test_rank_correlation_is_that_of_the_ranks(pairs):
    a, b = ([float(x) for x in side] for side in zip(*pairs))
    found = stats.spearman(a, b)
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(naive_spearman(a, b), abs=1e-9)


def test_experts_that_a_language_never_reaches_are_no_part_of_its_error():
    from polygraft.prune.grams.scoring import Score

    found = Score(("sw", "ru"), {"a": np.array([0.5, 0.1]), "b": np.array([np.nan, 0.3])})
    assert found.by_language.tolist() == pytest.approx([0.5, 0.2]) and found.worst == ("sw", 0.5)
    assert found.weighted() == pytest.approx(0.35) and found.weighted({"ru": 2}) == pytest.approx(0.2)
    assert Site(0, "down") != Site(0, "down", 1)
