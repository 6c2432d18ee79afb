"""Which layers deal with languages: figures equal their oracles, planted layers are found, and noise is refused."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from oracle import deviation_oracle as oracle
from polygraft import arrays
from polygraft.activity import Activity
from polygraft.analysis.groups import Groups, basic
from polygraft.analysis.layers import choose, decide, deviation, final, measure, noise, tables
from polygraft.errors import InputError, RecipeError

LANGUAGES = ("en", "de", "sw", "ja", "th", "ru", "zh")


def shares(layers=4, neurons=7, languages=3, seed=0):
    return np.random.default_rng(seed).random((layers, neurons, languages))


def whole(p):
    return np.ones(p.shape[:2], bool)


def drawn(p, groups=12, tokens=400, seed=0, parallel=False):
    """Counts as independent tokens with these shares would give."""
    rng = np.random.default_rng(seed)
    table = rng.integers(tokens // 2, tokens, (groups, p.shape[-1]))
    positive = tuple(rng.binomial(table[:, k, None, None], p[None, :, :, k]) for k in range(p.shape[-1]))
    return Groups(positive, tuple(table.astype(np.float64).T), parallel)


def pooled(groups):
    return groups.means


P = st.integers(1, 5).flatmap(lambda k: hnp.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 6), st.just(k)),
                                                   elements=st.floats(0, 1)))  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(P, st.data())
def test_deviation_and_overlap_equal_the_oracle(p, data):
    sizes = [data.draw(st.integers(1, p.shape[1])) for _ in p]
    real = np.arange(p.shape[1]) < np.array(sizes)[:, None]
    tau, reference = data.draw(st.sampled_from([0.0, 0.3, 1.0])), data.draw(st.integers(0, p.shape[2] - 1))
    assert deviation.msd_neuron(p, real) == pytest.approx(oracle.msd_neuron(p, sizes), rel=1e-9, abs=1e-15)
    assert deviation.msd_count(p, real) == pytest.approx(oracle.msd_count(p, sizes), rel=1e-9, abs=1e-15)
    assert deviation.overlap(p, real, tau, reference) == pytest.approx(np.array(oracle.overlap(p, sizes, tau, reference)))


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.float64, (3, 4), elements=st.floats(0, 1)), st.integers(1, 7))
def test_identical_languages_deviate_by_exactly_nothing(one, languages):
    p = np.repeat(one[..., None], languages, -1)
    assert not deviation.msd_neuron(p, whole(p)).any() and not deviation.msd_count(p, whole(p)).any()
    assert (deviation.overlap(p, whole(p), 0.5, 0) == 1).all() and not deviation.shift(p).any()


def test_neurons_that_change_places_deviate_and_their_count_does_not():
    p = np.zeros((1, 4, 2))
    p[0, :2, 0] = p[0, 2:, 1] = 0.5
    assert deviation.msd_neuron(p, whole(p))[0] == 0.0625 and deviation.msd_count(p, whole(p))[0] == 0
    assert deviation.overlap(p, whole(p), 0.4, 0)[0].tolist() == [1, 0]


def test_a_pair_and_a_left_out_language_are_the_deviation_of_those_languages():
    p = shares()
    assert deviation.without_each(p, whole(p))[1] == pytest.approx(deviation.msd_neuron(p[..., [0, 2]], whole(p)))
    apart = ((p[..., 0] - p[..., 2]) ** 2).mean(1) / 4
    assert deviation.of_pairs(p, whole(p))[0, 2] == pytest.approx(apart) and len(deviation.of_pairs(p, whole(p))) == 3


def test_means_shift_by_their_share_of_the_size():
    means = np.zeros((3, 2, 2))
    means[0, 0] = [1, -1]  # opposite vectors: nothing in common
    means[1, 0] = [1, 1]
    assert deviation.shift(means).tolist() == [1, 0, 0]


# ----------------------------------------------------------------------------------------------------------------- noise


def test_noise_equals_the_oracle():
    groups = drawn(shares(), groups=5)
    neuron, count = noise.noise(groups, np.ones((4, 7), bool))
    table, tokens = np.stack(groups.sums, -1), np.stack(groups.tokens, -1)
    for layer in range(4):
        assert neuron[layer] == pytest.approx(oracle.noise(table[:, layer], tokens))
        assert count[layer] == pytest.approx(oracle.noise(table[:, layer].mean(1, keepdims=True), tokens))


@pytest.mark.parametrize("parallel", [False, True])
def test_languages_that_do_not_differ_deviate_by_the_noise(parallel):
    """Half-shared document effects in parallel text: what all languages have in common must not count as noise."""
    rng = np.random.default_rng(1)
    found, expected = [], []
    for seed in range(6):
        topic = rng.normal(0, 0.1 if parallel else 0.0, (20, 1, 60))
        tokens, real = (np.full(20, 300.0),) * 3, np.ones((1, 60), bool)
        p = np.clip(0.5 + topic, 0, 1)
        counts = tuple(np.random.default_rng([seed, k]).binomial(300, p) for k in range(3))
        groups = Groups(counts, tokens, parallel)
        found.append(deviation.msd_neuron(pooled(groups), real)[0])
        expected.append(noise.noise(groups, real)[0][0])
    assert np.mean(found) == pytest.approx(np.mean(expected), rel=0.15)
    assert np.mean(expected) == pytest.approx(2 / 3 * 0.25 / 6000, rel=0.15)  # binomial variance, two of three parts


def test_the_interval_covers_the_true_deviation():
    p = 0.5 + 0.06 * (shares(layers=30, neurons=12) - 0.5)
    true = deviation.msd_neuron(p, whole(p))
    covered = []
    for seed in range(12):
        groups = drawn(p, seed=seed, groups=25)
        value = deviation.msd_neuron(pooled(groups), whole(p))
        low, high = basic(value, noise.resampled(groups, whole(p), draws=120, seed=seed)[0])
        middle = value - noise.noise(groups, whole(p))[0]
        assert (low < high).all() and ((low < middle) & (middle < high)).mean() > 0.95
        covered.append((low <= true) & (true <= high))
    assert 0.85 < np.mean(covered) < 1.0


def test_parallel_documents_are_drawn_together():
    """Where groups differ much and languages not at all, drawing them together leaves a deviation of exactly 0."""
    rng = np.random.default_rng(0)
    one = rng.integers(0, 50, (6, 2, 5))
    made, real = [Groups((one, one), (np.full(6, 50.0),) * 2, parallel) for parallel in (True, False)], np.ones((2, 5), bool)
    together, apart = (noise.resampled(g, real, draws=10)[0] for g in made)
    assert not together.any() and (apart > 0).all() and not noise.noise(made[0], real)[0].any()


def test_vectors_equal_the_formulas_written_out():
    rng = np.random.default_rng(0)
    tokens = tuple(rng.integers(5, 9, 6).astype(float) for _ in range(3))
    groups = Groups(tuple(rng.normal(k, 1, (6, 2, 4)).astype(np.float32) for k in range(3)), tokens)
    value, extra, samples, size = noise.vectors(groups, draws=30, seed=4)
    taken = groups.draws(30, [4, 6])
    for depth in range(2):
        table = np.stack([s[:, depth].astype(np.float64) for s in groups.sums], -1)
        assert extra[depth] == pytest.approx(4 * oracle.noise(table, np.stack(tokens, -1)))
        for weights, found, length in ((None, value[depth], None), ([t[7] for t in taken], samples[7, depth], size[7, depth])):
            w = [np.ones(6)] * 3 if weights is None else weights
            m = [sum(w[k][g] * table[g, :, k] for g in range(6)) / (w[k] @ tokens[k]) for k in range(3)]
            assert found == pytest.approx(np.mean([((x - np.mean(m, 0)) ** 2).sum() for x in m]))
            assert length is None or length == pytest.approx(np.mean([(x**2).sum() for x in m]))


# ----------------------------------------------------------------------------------------------------------------- rules

CURVE = np.array([5, 4, 1, 3, 0, 0, 2, 9.0])
OPTIONS = {"n": 2, "c": 1.0, "within": "lower"}


@pytest.mark.parametrize(("rule", "within", "layers"), [
    ("top", "lower", (0, 1)), ("top", "all", (0, 7)), ("above", "lower", (0,)), ("above", "all", (7,)),
    ("block", "lower", (0, 1)), ("block", "all", (0, 1)),
])  # fmt: skip
def test_rules_take_what_they_say_and_say_why(rule, within, layers):
    found = choose.choose(rule, CURVE, **OPTIONS | {"within": within})
    assert found.layers == layers and all(f"{i} ({CURVE[i]:.3g})" in found.why for i in layers)
    assert ("layer 7 (9), which lies above" in found.why) == (within == "lower")


def test_the_default_is_six_of_the_lower_half_and_fewer_where_it_is_shorter():
    assert [choose.count(None, n, "lower") for n in (1, 2, 8, 12, 32)] == [1, 1, 4, 6, 6]
    curve = np.concatenate([np.linspace(2, 1, 16), np.linspace(5, 9, 16)])  # a peak at the top, as in released neuron masks
    assert choose.choose("top", curve, n=6, c=1, within="lower").layers == (0, 1, 2, 3, 4, 5)
    with pytest.raises(RecipeError, match="more layers are asked for"):
        choose.count(5, 8, "lower")


def test_of_equal_deviations_the_lower_layers_are_taken():
    assert choose.choose("top", np.ones(9), n=3, c=1, within="all").layers == (0, 1, 2)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float64, st.integers(1, 12), elements=st.floats(0, 1)), st.sampled_from(choose.RULES))
def test_a_rule_stays_within_its_candidates_and_a_block_is_unbroken(msd, rule):
    most = choose.candidates(len(msd), "lower")
    found = choose.choose(rule, msd, n=1, c=0.5, within="lower").layers
    assert all(i < most for i in found) and (rule != "top" or len(found) == 1)
    assert rule != "block" or all(b == a + 1 for a, b in pairwise(found))
    together = choose.mask(rule, np.stack([msd, msd]), n=1, c=0.5, within="lower")  # what the bootstrap uses
    assert np.flatnonzero(together[1]).tolist() == list(found)


def test_nothing_to_choose_is_refused_rather_than_chosen_from_noise():
    with pytest.raises(InputError, match="a deviation of 0 in every layer"):
        choose.refuse_noise(np.zeros(4), None, "x")
    groups = drawn(np.full((6, 40, 3), 0.4))
    value, floor = deviation.msd_neuron(pooled(groups), np.ones((6, 40), bool)), noise.noise(groups, np.ones((6, 40), bool))[0]
    with pytest.raises(InputError, match="more than other documents would"):
        choose.refuse_noise(value, floor, "x")
    choose.refuse_noise(value + 2 * floor, floor, "x")
    with pytest.raises(InputError, match="takes no layer"):
        choose.refuse_empty(choose.choose("above", np.ones(8), n=2, c=1, within="lower"))


def test_random_sets_are_as_large_and_not_the_chosen_one():
    sets = choose.random_sets((0, 1), 3, 20, seed=0)
    assert {len(set(s)) for s in sets} == {2} and (0, 1) not in sets and len(set(sets)) == len(sets) == 2
    assert choose.random_sets((0, 1), 2, 1, seed=0) == [(0, 1)]  # there is no other
    assert choose.random_sets((0, 3), 30, 3, seed=1) == choose.random_sets((0, 3), 30, 3, seed=1)
    many = choose.random_sets((2,), 6, 5, seed=0)
    assert sorted(many) == [(0,), (1,), (3,), (4,), (5,)]  # no set twice, though six draws rarely give five


# ------------------------------------------------------------------------------------------------------------ the stream


@pytest.mark.parametrize("apart", [0.0, 1.0])
def test_the_language_share_equals_the_oracle(apart):
    rng = np.random.default_rng(3)
    states = [rng.normal(apart * k, 1, (50, 6)) for k in range(3)]
    means = np.stack([s.mean(0) for s in states], -1)[None]
    squares = np.array([[(s**2).sum(1).mean() for s in states]])
    assert final.language_share(means, squares)[0] == pytest.approx(oracle.language_share(states))


def test_a_constant_stream_has_no_language():
    means = np.ones((2, 3, 4))
    assert final.language_share(means, np.full((2, 4), 3.0 - 1e-12)).tolist() == [0, 0]


@pytest.mark.parametrize(("share", "layers"), [
    ([0.9, 0.5, 0.2, 0.1, 0.2, 0.6, 0.7], (4, 5)), ([0.9, 0.5, 0.2], ()), ([0.3, 0.3, 0.3], ()), ([0.5], ()), ([0, 0, 0, 1.0], (2,)),
])  # fmt: skip
def test_the_last_block_is_where_the_share_has_risen_again(share, layers):
    assert final.last_block(np.array(share)) == layers


# --------------------------------------------------------------------------------------------------------------- reading


def reading(folder, p, tokens=300, groups=10, seed=0, alike=False, hidden=5, identity="model"):
    """A reading on disk of languages with these shares [layers, neurons, languages]; `alike`: the same counts in all."""
    rng = np.random.default_rng(seed)
    told, (layers, neurons, count) = {}, p.shape
    for k, language in enumerate(LANGUAGES[:count]):
        each = np.full(groups, tokens, np.int64)
        shares = p[..., 0 if alike else k]
        positive = np.random.default_rng(9).binomial(tokens, shares, (groups, layers, neurons)) if alike else (
            rng.binomial(tokens, shares, (groups, layers, neurons)))  # fmt: skip
        spin = 0 if alike else k
        arrays.write(folder / f"activity.{language}.safetensors", {
            "positive": positive.sum(0).astype(np.int64), "group.positive": positive.astype(np.int32), "group.tokens": each,
            "sum": positive.sum(0) * 0.5, "square": positive.sum(0) * 0.3, "group.sum": (positive * 0.5).astype(np.float32),
            "group.residual": np.tile(np.arange(hidden) + spin, (groups, layers + 1, 1)).astype(np.float32) * tokens,
            "group.attention": np.tile(np.arange(hidden) + spin, (groups, layers, 1)).astype(np.float32) / groups,
            "attention.positive": np.tile(np.arange(hidden) * 10 + spin, (layers, 1)).astype(np.int64),
            "attention": np.tile(np.arange(hidden) + spin, (layers, 1)).astype(np.float64),
            "residual": np.tile(np.arange(hidden) + spin, (layers + 1, 1)).astype(np.float64) * tokens * groups,
            "square.residual": np.full(layers + 1, 500.0 * tokens * groups),
        })  # fmt: skip
        told[language] = {"tokens": tokens * groups, "documents": groups, "groups": groups, "digest": "0", "path": f"{language}.txt"}
    made = Activity(folder, told, layers, (neurons,) * layers, hidden, identity=identity)
    made.save()
    return made


def test_groups_are_read_and_empty_ones_left_out(tmp_path):
    made = reading(tmp_path, shares())
    groups = noise.groups_of(made, "group.positive")
    assert groups is not None and groups.sizes == (10, 10, 10)
    assert pooled(groups) == pytest.approx(made.probability())
    one = dict(arrays.Arrays(made.path("de")))
    one["group.tokens"] = np.array([300] + [0] * 9)
    arrays.write(made.path("de"), one)
    assert noise.groups_of(made, "group.positive") is None


OPEN = {"tau": 0.5, "reference": "en", "draws": 20, "seed": 0, "attention": True, "stream": True}


@pytest.fixture(scope="module")
def wired(tmp_path_factory):
    """Six layers of ten neurons, of which layers 1 and 2 follow the language."""
    p = np.full((6, 10, 4), 0.4)
    p[1:3] += 0.3 * (shares(layers=2, neurons=10, languages=4) - 0.5)
    return reading(tmp_path_factory.mktemp("wired"), p, hidden=32)


def test_planted_layers_are_found_and_stay_found_without_any_language(wired):
    m = measure.measure(wired, **OPEN)
    assert choose.choose("top", m.values["msd"], n=2, c=1, within="lower").layers == (1, 2)
    for curve in m.each("without").values():
        assert choose.choose("top", curve, n=2, c=1, within="lower").layers == (1, 2)
    assert choose.mask("top", m.draws["msd"], n=2, c=1, within="lower")[:, [1, 2]].all()
    assert (m.values["msd.low"][[1, 2]] > 0).all() and (m.values["msd"][[0, 3, 4, 5]] < 2 * m.values["msd.noise"][[0, 3, 4, 5]]).all()


def test_every_array_has_a_documented_name_and_is_finite(wired):
    m = measure.measure(wired, **OPEN)
    known = {"".join("LANGUAGE" if w in LANGUAGES else w for w in re.split(r"(\.)", name)) for name in m.values}
    assert known <= set(measure.NAMES) and len(m.each("overlap")) == 4
    assert all(a.dtype == np.float64 and np.isfinite(a).all() for a in m.values.values())
    assert np.mean(list(m.each("language").values()), 0) == pytest.approx(m.values["msd"])
    assert m.values["attention.shift"].shape == (6,) and m.values["stream.share"].shape == (7,)


def test_two_languages_have_a_deviation_and_no_subsets(tmp_path):
    m = measure.measure(reading(tmp_path, shares(languages=2)), **OPEN | {"attention": False, "stream": False})
    assert not m.each("without") and not {n for n in m.values if n.startswith(("pair", "attention", "stream"))}


def test_identical_texts_give_zero_everywhere(tmp_path):
    m = measure.measure(reading(tmp_path, shares(), alike=True), **OPEN)
    zero = [n for n in m.values if n.rpartition(".")[2] not in {"noise", "low", "high"} and "overlap" not in n]
    assert all(m.values[n] == pytest.approx(0, abs=1e-12) for n in m.values if n.startswith(("attention.shift", "stream")))
    assert all(not m.values[n].any() for n in zero)


def test_the_reference_is_english_where_it_was_read():
    assert measure.reference_of(("de", "en"), None) == "en" and measure.reference_of(("de", "sw"), None) == "de"
    assert measure.reference_of(("de", "en"), "de") == "de"
    with pytest.raises(RecipeError, match="not among those read"):
        measure.reference_of(("de", "en"), "fr")


def test_words_for_layers():
    assert [tables.listed(x) for x in ((), (3,), (0, 1), (0, 1, 2), (0, 2, 3))] == ["none", "3", "0, 1", "0 to 2", "0, 2, 3"]
    assert tables.agreement([(0, 1), (1, 2)], (0, 1)) == pytest.approx((1 + 1 / 3) / 2) and tables.agreement([], (0,)) == 1


# --------------------------------------------------------------------------------------------------------------- decision

RULE = {"rule": "top", "n": 2, "spread": 1.0, "within": "lower", "where": "x"}


@pytest.mark.parametrize("kind", ["neuron", "count"])
def test_a_decision_says_what_was_taken_and_how_stable_it_is(wired, kind):
    m = measure.measure(wired, **OPEN | {"kind": kind})
    d = decide.decide(m, **RULE)
    assert d.taken.layers == (1, 2) and not d.weak and [c.rule for c in d.all] == list(choose.RULES)
    assert set(d.fewer) == {f"without {g}" for g in m.languages} | {
        f"{a} and {b}" for i, a in enumerate(m.languages) for b in m.languages[i + 1:]
    }  # fmt: skip
    assert d.often is not None and d.often.sum() == pytest.approx(2) and (d.often[[1, 2]] > 0.8).all()
    said = " ".join(decide.summary(m, d))
    assert "layers 1, 2, by rule top" in said and "one language left out" in said and "pairs of languages" in said
    assert any("Language does not rise again" in s for s in decide.summary(m, d))
    only = deviation.msd_count if kind == "count" else deviation.msd_neuron
    p = wired.probability()
    assert m.each("without")["de"] == pytest.approx(only(p[..., [0, 2, 3]], whole(p)))
    outputs = wired.stacked("attention.positive")[..., [0, 2, 3]] / wired.tokens("en")
    assert m.each("attention.without")["de"] == pytest.approx(only(outputs, whole(outputs)))
    name = measure.CURVES[kind]
    table = tables.layers_table(m, d.taken.layers)
    assert table.columns[4] == {"neuron": "MSD less noise", "count": "counts less noise"}[kind]
    beyond = table.rows[1][4]
    assert beyond.value == m.values[name][1] - m.values[f"{name}.noise"][1] and beyond.low == m.values[f"{name}.low"][1]
    assert {"noise", "low", "high"} <= set(tables.curves(m)[1].series)


def test_means_of_vectors_have_noise_and_intervals_that_hold_the_truth(tmp_path):
    """Groups of two languages about means that differ by (1, 0, ...): the shift and the share, and their intervals."""
    made, held = reading(tmp_path, shares(languages=2), hidden=4, groups=40), []
    truth = 0.25 / (0.25 + 4.0)  # apart over apart + the variance of a token
    for seed in range(30):
        rng = np.random.default_rng(seed)
        for k, g in enumerate(("en", "de")):
            means = rng.normal(0, 0.3, (40, 5, 4)) + np.array([k, 0, 0, 0])
            sums = means * 300
            squares = 12000 * ((means.mean(0) ** 2).sum(-1) + 4.0)
            arrays.write(made.path(g), dict(arrays.Arrays(made.path(g))) | {
                "group.residual": sums.astype(np.float32), "residual": sums.sum(0), "square.residual": squares})  # fmt: skip
        v = measure.measure(made, **OPEN | {"attention": False, "draws": 60, "seed": seed}).values
        assert (v["stream.share.noise"] > 0).all()
        held.append((v["stream.share.low"] <= truth) & (truth <= v["stream.share.high"]))
    assert 0.85 < np.mean(held) < 1.0


def test_weak_layers_are_named_where_more_are_taken_than_differ(wired):
    d = decide.decide(measure.measure(wired, **OPEN), **RULE | {"n": 3})
    assert d.weak == (0,) and "would give: 0" in " ".join(decide.summary(measure.measure(wired, **OPEN), d))


def test_texts_of_one_language_are_refused(tmp_path):
    m = measure.measure(reading(tmp_path, np.full((6, 50, 3), 0.3)), **OPEN)
    with pytest.raises(InputError, match="more than other documents would"):
        decide.decide(m, **RULE)
