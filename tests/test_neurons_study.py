"""What is told about a found set, on readings made by hand: planted sets are found, explained and stable; noise is neither."""

from __future__ import annotations

import json

import numpy as np
import pytest

from polygraft import arrays
from polygraft.activity import Activity
from polygraft.analysis.neurons import tables
from polygraft.analysis.neurons.methods import METHODS, NEEDS, Rates, histograms, identify, lacks, refit
from polygraft.analysis.neurons.study import spread, study
from polygraft.errors import InputError
from polygraft.result import Result, encode

EDGES = tuple(np.linspace(-6, 6, 65))
RATES = Rates(filter=0.5, top=0.1, bar=0.5, each=0.05)
LANGUAGES = ("en", "sw", "th")


def written(folder, values, *, parallel=True, sizes=None, without=()):
    """A reading of `values[language]`, float [groups, tokens, layers, neurons], with every array that the methods read."""
    folder.mkdir(exist_ok=True)
    told = {}
    for language, v in values.items():
        g, t, layers, neurons = v.shape
        flat = v.reshape(g * t, layers, neurons)
        counts = np.stack([[np.histogram(flat[:, i, j], EDGES)[0] for j in range(neurons)] for i in range(layers)])
        made = {
            "positive": (flat > 0).sum(0), "sum": flat.sum(0), "square": (flat**2).sum(0), "histogram": counts.astype(np.int32),
            "window.percentile": np.quantile(v, 0.9, axis=1).sum(0) * t, "group.tokens": np.full(g, t),
            "group.positive": (v > 0).sum(1).astype(np.int32), "group.sum": v.sum(1).astype(np.float32),
        }  # fmt: skip
        arrays.write(folder / f"activity.{language}.safetensors", {k: a for k, a in made.items() if k not in without})
        told[language] = {"tokens": g * t, "documents": g, "groups": g, "digest": "", "path": language}
    made_reading = Activity(folder, told, layers, sizes or (neurons,) * layers, 8, edges=EDGES, parallel=parallel)
    made_reading.save()
    return Activity.open(folder)


def planted(groups=8, tokens=60, layers=3, neurons=20, seed=0):
    """Neuron k of layer 0 and 2 fires for language k alone; neuron 10 of layer 1 follows the document, the rest is noise."""
    rng = np.random.default_rng(seed)
    topics = rng.normal(0, 1.5, groups)
    values = {}
    for k, language in enumerate(LANGUAGES):
        v = rng.normal(0, 1, (groups, tokens, layers, neurons))
        v[:, :, [0, 2], : len(LANGUAGES)] -= 4
        v[:, :, [0, 2], k] += 6
        v[:, :, 1, 10] += topics[:, None]
        values[language] = np.clip(v, -5.9, 5.9)
    return values


@pytest.fixture(scope="module")
def reading(tmp_path_factory):
    return written(tmp_path_factory.mktemp("reading") / "a", planted())


@pytest.mark.parametrize("method", METHODS)
def test_the_methods_that_compare_languages_find_what_was_planted(reading, method):
    found = identify(method, reading, RATES)
    expected = {g: {(0, k), (2, k)} for k, g in enumerate(LANGUAGES)}
    sets = {g: set(map(tuple, np.argwhere(m))) for g, m in found.masks.items()}
    if method == "probability-90p":  # ranks what changes with the document, whichever language it is asked about
        assert all((1, 10) in s for s in sets.values())
    else:
        assert all(expected[g] <= sets[g] for g in LANGUAGES)
    if method in ("lape", "align-lape"):
        assert sets == expected and found.shared.tolist() == [54, 6, 0, 0]


def test_everything_told_of_a_planted_set(reading):
    s = study("lape", reading, RATES, draws=8, seed=0)
    assert (s.draws == 1).all() and (s.overlap[~np.eye(3, dtype=bool)] == 0).all()
    assert all((s.random[g].sum(1) == m.sum(1)).all() and not (s.random[g] & s.found.any).any() for g, m in s.found.masks.items())
    assert set(s.agreement) == set(METHODS) - {"lape"} and s.agreement["align-lape"][1] == 1
    for g in LANGUAGES:
        found, random = s.firing[g].all
        assert found > 0.95 > 0.3 > abs(random.value) and abs(s.firing[g].own[0]) < 0.9
        ours, drawn = s.topic[g]
        assert ours.n == 2 and ours.shares[0] > 0.95 > 0.5 > drawn[:, 0].mean()
    assert s.nothing == pytest.approx([2 / 23, 7 / 23, 14 / 23])


def test_the_tables_and_pictures_hold_plain_finite_numbers(reading):
    s = study("lape", reading, RATES, draws=4, seed=0)
    result = Result("analyze.neurons", "", "t", tables.summary(s), (tables.layer_map(s),), tables.tables(s), (tables.profile(s),))
    assert json.loads(json.dumps(encode(result), allow_nan=False)) and Result.from_json(result.to_json()) == result
    assert [t.title for t in result.tables] == [
        "Neurons of each language", "How many languages a found neuron belongs to", "Overlap of languages",
        "Agreement with other methods", "What documents alone give", "Do they fire together?", "How much is language, how much topic"]  # fmt: skip
    assert "found 6 of 60 neurons: en 2, sw 2, th 2." in result.summary[0]
    assert result.summary[1] == "Of one language alone: 6; of several: 0."
    assert tables.layer_map(s).values == ((1.0, 0.0, 1.0),) * 3
    assert all(len(r) == len(t.columns) for t in result.tables for r in t.rows)
    own = {r[0]: r for r in tables.languages(s).rows}["sw"]
    assert own[2:4] == (2, 2) and own[4] > 0.95 and own[5] < 0.05 and abs(own[6] - own[7]) < 0.1


def test_a_language_without_neurons_has_no_stability(reading):
    s = study("lape", reading, RATES, draws=3, seed=0)
    s.found.scores.owned[..., 1] = False
    again = {row[0]: row[-1] for row in tables.languages(s).rows}
    assert again["sw"] is None and again["en"].value == 1


def test_topic_neurons_are_told_from_language_neurons(reading):
    s = study("probability-90p", reading, RATES, draws=4, seed=0)
    assert s.draws is None  # groups hold no histograms
    ours, _ = s.topic["en"]
    assert ours.shares[1] > ours.shares[0]


@pytest.mark.parametrize("method", ["lape", "align-lape", "mean-difference"])
def test_documents_alone_do_not_score_as_planted_neurons_do(reading, method):
    s = study(method, reading, RATES, draws=0, seed=0)
    assert s.floor is not None and len(s.floor.under) == 3 and s.per_group == 1
    n = int(s.found.any.sum())
    if method == "mean-difference":  # gives each language its share, planted or not
        assert any("score as the found ones do" in x for x in tables.summary(s))
    else:
        assert max(s.floor.under) == 0 and "0 neurons (0 to 0) score as the found ones do" in " ".join(tables.summary(s))
    table = tables.floors(s)
    assert table.rows[0] == ("found", s.floor.found, n) and [r[0] for r in table.rows[1:]] == [f"parts of {g}" for g in LANGUAGES]


def test_noise_scores_as_documents_alone_do(tmp_path):
    rng = np.random.default_rng(0)
    noise = {g: rng.normal(0, 1, (8, 60, 3, 20)) for g in LANGUAGES}
    s = study("lape", written(tmp_path / "n", noise), Rates(filter=0.5, top=0.1, bar=0.5), draws=0, seed=0)
    assert min(s.floor.under) >= int(s.found.any.sum())


def test_documents_of_a_group_are_told_beside_the_shares(tmp_path):
    pooled = written(tmp_path / "p", planted())
    for about in pooled.languages.values():
        about["documents"] = 40
    s = study("lape", pooled, RATES, draws=0, seed=0)
    assert "over groups of 5 parallel documents" in tables.summary(s)[-1] and "groups of 5 parallel documents" in tables.variance(s).note


def test_what_a_reading_lacks_is_left_out_or_refused(tmp_path):
    thin = written(tmp_path / "t", planted(), parallel=False, without=("histogram", "square", "group.positive", "group.sum"))
    s = study("lape", thin, RATES, draws=4, seed=0)
    assert s.draws is None and s.topic is None and not s.firing and set(s.agreement) == {"align-lape"}
    assert [t.title for t in tables.tables(s)][-1] == "Agreement with other methods"
    for method in METHODS[2:]:
        missing = [n for n in NEEDS[method] if n in ("histogram", "square")]
        assert lacks(method, thin) == missing and refit(method, thin, RATES) is None
        with pytest.raises(InputError, match=f"{method} needs what was not gathered"):
            identify(method, thin, RATES)


def test_one_language_is_refused(tmp_path):
    alone = written(tmp_path / "o", {"en": planted()["en"]})
    with pytest.raises(InputError, match="beside one another"):
        identify("lape", alone, RATES)


def test_equal_languages_are_refused(tmp_path):
    values = planted()
    same = written(tmp_path / "s", values | {"th": values["en"]})
    with pytest.raises(InputError, match="two languages do not differ in any neuron") as e:
        study("lape", same, RATES, draws=0, seed=0)
    assert e.value.found == "en, th"


def test_languages_that_fire_alike_have_nothing_in_them_but_ties(tmp_path):
    """Neuron 0 of layer 0 alone fires at other tokens; all means are equal."""
    values = {g: v.copy() for g, v in dict.fromkeys(LANGUAGES, planted()["en"]).items()}
    for k, v in enumerate(values.values()):
        v[..., 0, 0] = 0.0
        v[:, :2, 0, 0] = [k - 1, 1 - k]
    s = study("mean-difference", written(tmp_path / "s", {g: values[g] for g in ("en", "sw")}), RATES, draws=2, seed=0)
    assert not s.found.any.any() and "do not differ" in tables.summary(s)[1]
    assert not tables.firing(s).rows or all(r[1] is None for r in tables.firing(s).rows)
    assert json.dumps(encode(tables.tables(s)), allow_nan=False)


def test_layers_of_fewer_neurons_are_not_counted_beyond_their_end(tmp_path):
    values = planted()
    for v in values.values():
        v[..., 1, 12:] = 0.0
    uneven = written(tmp_path / "u", values, sizes=(20, 12, 20))
    for method in METHODS:
        s = study(method, uneven, Rates(filter=0.1, top=0.9, bar=0.1, each=0.9), draws=2, seed=0)
        assert not s.found.any[1, 12:].any() and s.sizes.tolist() == [20, 12, 20]
        assert not any(m[1, 12:].any() for m in s.random.values())


def test_histograms_come_one_layer_at_a_time(reading):
    whole = reading.stacked("histogram")
    assert all((histograms(reading)(layer) == whole[layer]).all() for layer in range(3))
    with pytest.raises(IndexError):
        arrays.Arrays(reading.path("en")).row("histogram", 3)


def test_the_spread_of_controls_leaves_out_what_cannot_be_told():
    assert spread([None, None]) is None and spread([0.1, None, 0.3]).n == 2
    assert spread([0.1, None, 0.3]).value == pytest.approx(0.2)


def test_random_sets_that_never_change_are_no_shares_of_zero(tmp_path):
    values = planted()
    for v in values.values():
        v[:, :, 1, :] = -1.0
        v[:, :, [0, 2], 3:] = -1.0
    s = study("lape", written(tmp_path / "c", values), RATES, draws=2, seed=0)
    assert all(len(drawn) == 0 and ours.n == 2 for ours, drawn in s.topic.values())
    assert [r[0] for r in tables.variance(s).rows] == [*LANGUAGES, "noise alone"] and "random" not in tables.summary(s)[-1]


def test_languages_with_as_many_neurons_have_controls_of_their_own(reading):
    s = study("mean-difference", reading, Rates(each=0.05), draws=0, seed=0)
    assert len({m.tobytes() for m in s.random.values()}) == 3
