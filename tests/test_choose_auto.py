"""The rules of `merge auto`: equal to float64 oracles, free of scale, and what was planted is found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from folders import config, read, shapes, values, write
from oracle import auto_oracle as oracle
from polygraft.analysis.delta.measure import compute
from polygraft.anatomy import Anatomy
from polygraft.checkpoint import Checkpoint
from polygraft.choose.auto import beside, fitting, rules
from polygraft.choose.auto.proposals import grid_of, propose
from polygraft.choose.auto.units import Units, units
from polygraft.choose.candidates import window
from polygraft.errors import InputError
from polygraft.merge.zones import scaled

LAYERS = 10
NAMES = ("math", "sw", "base")
SEEDS = range(20)
SIZES = st.integers(1, 12).flatmap(lambda n: arrays(np.float64, (2, n, 1), elements=st.floats(1e-3, 1e3)))


def experts(seed, loud, scales=(1.0, 1.0), layers=LAYERS, quiet=0.3, shared=()):
    """A base and two experts, {key: float64}: expert i changes the layers `loud[i]` by scales[i] and the others by `quiet` of that;
    in the layers `shared` both changes have a part in common."""
    base, rng = values(shapes(layers=layers), seed), np.random.default_rng(seed + 100)
    out = [{}, {}]
    for key, w in base.items():
        layer = int(key.split(".")[2]) if ".layers." in key else -1
        common = rng.normal(0, 1.0, w.shape)
        for i in range(2):
            noise = rng.normal(0, 1.0, w.shape)
            drawn = 0.6 * noise + 0.8 * common if layer in shared else noise
            out[i][key] = w + 1e-3 * scales[i] * (1.0 if layer in loud[i] else quiet) * np.linalg.norm(w) / w.size**0.5 * drawn
    return [{k: v.astype(np.float32) for k, v in m.items()} for m in (*out, base)]


def measured(tmp_path, models, by="layer", dtype="F32"):
    layers = 1 + max(int(k.split(".")[2]) for k in models[0] if ".layers." in k)
    folders = [write(tmp_path / n, m, config(layers=layers), dtype=dtype) for n, m in zip(NAMES, models)]
    task, language, base = (Checkpoint.open(f) for f in folders)
    anatomy = Anatomy.of(base.config, base.tensors)
    delta = compute(anatomy, base, [("math", task), ("sw", language)], top=0.0)
    return anatomy, units(delta, by, {k: t.shape for k, t in base.tensors.items()}), folders


def flat(size):
    """Units of these sizes [2, layers, columns] and nothing else known."""
    none = np.full(size.shape[1:], np.nan)
    columns = ("layer",) if size.shape[2] == 1 else ("attn", "ffn")
    return Units("layer" if size.shape[2] == 1 else "part", columns, size, none, none, np.zeros(size.shape[1:]))


# ---------------------------------------------------------------------------------------------------------------- oracles


@pytest.mark.parametrize("by", ["layer", "part"])
@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_the_figures_of_every_unit_equal_the_oracle(tmp_path, by, dtype):
    _, found, folders = measured(tmp_path, experts(0, ({3, 4}, {0, 9}), (30.0, 300.0), shared={4}), by, dtype)
    task, language, base = (read(f) for f in folders)
    wanted = oracle.units(base, [task, language], LAYERS, by)
    for name, value in wanted.items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-5, abs=1e-8), name


@given(SIZES, st.floats(0, 0.2))
def test_the_published_rule_with_its_own_threshold(size, tau):
    judged = rules.relative(flat(size), 0.5, absolute=tau)
    share = np.where(judged.side > 0, 1.0, np.where(judged.side < 0, 0.0, 0.5))[:, 0]
    close = np.abs(np.abs(judged.score[:, 0]) - tau) < 1e-12
    assert np.array_equal(share[~close], oracle.published(size[:, :, 0], tau, 0.5)[~close])


@given(st.lists(st.floats(-1, 1).map(lambda x: 0.0 if abs(x) < 0.1 else round(x, 3)), min_size=1, max_size=14))
def test_the_best_window_is_the_best_of_all_that_can_be_written_out(pull):
    found = fitting.best_window(np.array(pull))
    if found is None:
        assert not any(pull)
    else:
        assert (found.bottom, found.top, found.transition) == oracle.best_window(pull, scaled("transition", len(pull)))
        assert found.share <= 1 + 1e-12


@given(arrays(np.float64, (5, 2), elements=st.sampled_from([0, 0.3, 0.5, 1])), arrays(np.float64, (5, 2), elements=st.floats(0, 1)))
def test_chance_is_the_mean_over_all_orders(a, b):
    wanted = oracle.by_chance(a, b)
    assert (beside.common(a, b)[1], beside.alike(a, b)[1]) == pytest.approx(wanted, abs=1e-12)
    assert beside.common(a, a)[0] == pytest.approx(a.sum() / 2) and beside.alike(a, a)[0] == 1.0


# ------------------------------------------------------------------------------------------------------------------ scale


@given(SIZES, st.floats(1e-6, 1e6), st.floats(0, 1))
def test_an_expert_that_was_trained_harder_has_no_more_say(size, factor, tau):
    judged, scaled_ = (rules.relative(flat(size * np.array([1.0, f])[:, None, None]), tau) for f in (1.0, factor))
    assume((np.abs(np.abs(judged.score) - judged.band) > 1e-9 * judged.band + 1e-12).all())
    assert np.array_equal(judged.side, scaled_.side)


@pytest.mark.parametrize("rule", rules.WEIGHTS)
@pytest.mark.parametrize("factor", [0.25, 128.0])
def test_no_rule_of_weights_depends_on_the_scale_of_a_change(tmp_path, rule, factor):
    task, language, base = experts(3, ({4, 5}, {0, 1, 9}), shared={4, 5})
    # powers of two, and changes that float32 sums hold to 1e-4 of their size: only rounding differs
    harder = {k: (base[k].astype(np.float64) + factor * (language[k].astype(np.float64) - base[k])).astype(np.float32) for k in base}
    found = []
    for name, second in (("one", language), ("two", harder)):
        (tmp_path / name).mkdir()
        found.append(rules.BY_WEIGHTS[rule](measured(tmp_path / name, [task, second, base])[1], rules.TAU[rule]))
    assert found[1].score == pytest.approx(found[0].score, rel=0.02, abs=2e-3)
    assert np.array_equal(found[0].side, found[1].side)


@given(SIZES, st.floats(0, 2))
def test_tau_means_the_same_at_twice_as_many_units(size, tau):
    layers = rules.relative(flat(size), tau)
    modules = rules.relative(flat(np.repeat(size, 2, axis=2)), tau)
    assume((np.abs(np.abs(layers.score) - layers.band) > 1e-9).all())
    assert np.array_equal(modules.side, np.repeat(layers.side, 2, axis=1))


def test_the_default_tau_is_the_published_one_at_32_layers():
    size = np.random.default_rng(0).uniform(0.9, 1.1, (2, 32, 1))
    ours, theirs = rules.relative(flat(size), rules.TAU["relative"]), rules.relative(flat(size), 0.0, absolute=0.001)
    assert ours.band[0, 0] == pytest.approx(0.001) and np.array_equal(ours.side, theirs.side)
    assert set(ours.side.ravel().tolist()) == {-1, 0, 1}
    twice = rules.relative(flat(np.tile(size, (1, 2, 1))), 0.0, absolute=0.001)  # the published tau blends more at 64 units
    assert (twice.side == 0).sum() > 2 * (theirs.side == 0).sum()


# ---------------------------------------------------------------------------------------------------------------- planted


@pytest.mark.parametrize("scales", [(1.0, 1.0), (1.0, 100.0), (100.0, 1.0)], ids=str)
def test_planted_layers_are_found_in_20_of_20_seeds(tmp_path, scales):
    """Language at the bottom and top, task in the middle, one of them changed a hundredfold: found as a choice and as a window."""
    hits = 0
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        bottom, top = int(rng.integers(1, 4)), int(rng.integers(1, 3))
        outer = {*range(bottom), *range(LAYERS - top, LAYERS)}
        at = tmp_path / str(seed)
        at.mkdir()
        anatomy, found, _ = measured(at, experts(seed, (set(range(LAYERS)) - outer, outer), scales))
        judged = rules.relative(found, rules.TAU["relative"])
        free = propose(anatomy, NAMES, judged, "free")
        best = propose(anatomy, NAMES, judged, "window")
        wanted = grid_of(anatomy, window(anatomy, NAMES, bottom=bottom, top=top, transition=0))
        hits += np.array_equal(free.grid, wanted) and np.array_equal(best.grid, wanted)
        made = best.candidate.params["layer"]
        assert (made["bottom"], made["top"], made["transition"]) == (bottom, top, 0)
    assert hits == len(SEEDS)


def test_layers_that_neither_changed_more_are_blended_and_become_a_transition(tmp_path):
    anatomy, found, _ = measured(tmp_path, experts(1, ({3, 4, 5, 6, 7}, {0, 1, 9})))
    size = found.size / found.size.sum(axis=1, keepdims=True)
    size[:, 2] = size[:, 8] = size[:, [2, 8]].mean(axis=0)  # what lies between is changed alike
    judged = rules.relative(replace(found, size=size), 0.032)
    assert propose(anatomy, NAMES, judged, "free").grid[:, 0].tolist() == [1, 1, 0.5, 0, 0, 0, 0, 0, 0.5, 1]
    best = propose(anatomy, NAMES, judged, "window", alpha=0.25)
    assert best.candidate.params["layer"] == {"bottom": 2, "top": 1, "transition": 0}  # 10 layers: the published one rounds to 0
    wide = rules.Judged("relative", 0.0, ("layer",), np.array([[1.0]] * 6 + [[0.0]] + [[-1.0]] * 23 + [[0.0], [1.0]]), np.zeros((32, 1)), {}, ())
    assert fitting.best_window(wide.pull[:, 0]) == fitting.Fit(6, 1, 1, 30.0, 30.0)


def test_attention_and_ffn_apart(tmp_path):
    task, language, base = experts(2, (set(), set()), (1.0, 50.0))
    rng = np.random.default_rng(5)
    for expert, scale, planted in ((task, 1.0, {(4, "self_attn"), (0, "mlp")}), (language, 50.0, {(0, "self_attn"), (4, "mlp")})):
        for layer, module in planted:
            for key in (k for k in base if k.startswith(f"model.layers.{layer}.{module}.")):
                expert[key] = (expert[key] + rng.normal(0, 2e-3 * scale, base[key].shape)).astype(np.float32)
    anatomy, found, _ = measured(tmp_path, [task, language, base], "part")
    grid = propose(anatomy, NAMES, rules.relative(found, 0.5), "free").grid
    assert grid[0].tolist() == [1, 0] and grid[4].tolist() == [0, 1] and (np.delete(grid, [0, 4], axis=0) == 0.5).all()


def test_cosine_aligned_in_the_middle_in_20_of_20_seeds(tmp_path):
    for seed in SEEDS:
        at = tmp_path / str(seed)
        at.mkdir()
        middle = set(range(2, 8))
        anatomy, found, _ = measured(at, experts(seed, (set(), set()), (1.0, 100.0), shared=middle))
        judged = rules.cosine(found, rules.TAU["cosine"])
        assert {i for i in range(LAYERS) if judged.side[i, 0] < 0} == middle, seed
        assert propose(anatomy, NAMES, judged, "window").candidate.params["layer"] == {"bottom": 2, "top": 2, "transition": 0}


def test_cosines_of_unrelated_changes_choose_nothing_beyond_chance(tmp_path):
    """Three standard deviations of chance: of 200 layers of unrelated changes at most a few are given to anyone."""
    given_away = 0
    for seed in SEEDS:
        at = tmp_path / str(seed)
        at.mkdir()
        _, found, _ = measured(at, experts(seed, ({3, 4}, {0, 9})))
        given_away += int((rules.cosine(found, rules.TAU["cosine"]).side != 0).sum())
    assert given_away <= 4


def test_where_signs_agree_both_are_wanted_and_where_they_conflict_one(tmp_path):
    for seed in SEEDS:
        at = tmp_path / str(seed)
        at.mkdir()
        _, found, _ = measured(at, experts(seed, ({3, 4, 5}, {0, 1, 9}), (100.0, 1.0), shared={4, 9}))
        judged = rules.sign(found, rules.TAU["sign"])
        assert judged.side[[4, 9], 0].tolist() == [0, 0], seed
        assert judged.side[[0, 1], 0].tolist() == [1, 1] and judged.side[[3, 5], 0].tolist() == [-1, -1], seed


# --------------------------------------------------------------------------------------------------------------- evidence


def test_evidence_goes_to_the_language_where_it_concentrates():
    judged = rules.evenness("neurons", np.array([8.0, 4.0, 1.0, 0.0, 4.0, 7.0]), 0.032, "x")
    assert judged.side[:, 0].tolist() == [1, 0, -1, -1, 0, 1]  # 4 of 24 is the even share of 6 layers
    assert rules.evenness("deviation", np.array([1.0, 0, 0, 1.0]), 0.032, "x").side[:, 0].tolist() == [1, -1, -1, 1]
    assert (rules.evenness("neurons", np.ones(3), 0.0, "x").side == 0).all()


@pytest.mark.parametrize("values", [np.zeros(4), np.array([1.0, np.nan]), np.array([2.0, -1.0]), np.array([np.inf, 1.0])], ids=str)
def test_evidence_of_nothing_is_refused(values):
    with pytest.raises(InputError, match="names no layer"):
        rules.evenness("neurons", values, 0.03, "x")


# ------------------------------------------------------------------------------------------------------- nothing to measure


def test_a_unit_that_one_expert_alone_changed_is_that_ones_and_nothing_becomes_nan(tmp_path):
    task, language, base = experts(4, (set(range(LAYERS)), set(range(LAYERS))))
    for expert, layers in ((task, {0, 5}), (language, {1, 5})):
        for key in base:
            if ".layers." in key and int(key.split(".")[2]) in layers:
                expert[key] = base[key]
    _, found, _ = measured(tmp_path, [task, language, base])
    for rule in rules.WEIGHTS:
        judged = rules.BY_WEIGHTS[rule](found, rules.TAU[rule])
        assert judged.side[[0, 1, 5], 0].tolist() == [1, -1, 0], rule
        assert np.isfinite(judged.score).all() and np.isfinite(judged.band).all() and "nan" not in "".join(judged.why)


def test_no_window_where_no_layer_stands_out():
    with np.errstate(all="raise"):
        judged = rules.relative(flat(np.ones((2, 4, 1))), 0.032)
    with pytest.raises(InputError, match="no window is better"):
        propose(Anatomy.of(config(layers=4), shapes(layers=4)), NAMES, judged, "window")
