"""Effects, matrix and verdict: against the definition, on planted numbers, and on a model whose neurons were wired by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import wired
from oracle import matrix_oracle as oracle
from polygraft.analysis.steering import effects, matrix, verdict
from polygraft.analysis.steering.effects import Observed, Ratio
from polygraft.edits import Edit, Edits
from polygraft.errors import InputError, StepFailed
from polygraft.evals import conditions
from polygraft.model import load_folder
from polygraft.result import Estimate, Result


def observed(rng, rows, columns, items=7, controls=3, shift=None):
    """Random nats; `shift[row][column]` is added to a row's own runs."""
    sizes = {c: rng.integers(1, 9, items).astype(float) for c in columns}
    plain = {c: rng.random(items) * sizes[c] for c in columns}

    def run(by=None):
        return {c: Ratio(plain[c] + rng.normal(0, 0.05, items) + (by or {}).get(c, 0.0) * sizes[c], sizes[c], "nats/token")
                for c in columns}

    return Observed({c: Ratio(plain[c], sizes[c], "nats/token") for c in columns},
                    {r: run((shift or {}).get(r)) for r in rows}, {r: [run() for _ in range(controls)] for r in rows})


def names(count):
    return [f"l{i}" for i in range(count)]


# -------------------------------------------------------------------------------------------------------- the definition


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(2, 9), st.integers(1, 4), st.integers(0, 99))
def test_cells_are_what_the_definition_says(rows, columns, items, controls, seed):
    o = observed(np.random.default_rng(seed), names(rows), names(columns), items, controls)
    e = effects.effects(o, draws=50)
    for i, row in enumerate(e.rows):
        for j, column in enumerate(e.columns):
            plain, own, drawn = o.plain[column], o.edited[row][column], [c[column].top for c in o.control[row]]
            assert e.own.value[i, j] == pytest.approx(oracle.effect(plain.top, own.top, plain.bottom), abs=1e-9)
            expected = oracle.specific(plain.top, own.top, drawn, plain.bottom)
            assert e.specific.value[i, j] == pytest.approx(expected, abs=1e-9)
            each = [oracle.effect(plain.top, c, plain.bottom) for c in drawn]
            assert e.spread[i, j] == pytest.approx([min(each), max(each)], abs=1e-9)


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 5), st.integers(0, 99))
def test_the_diagonal_is_what_the_definition_says(k, seed):
    o = observed(np.random.default_rng(seed), names(k), names(k))
    e = effects.effects(o, draws=50)
    d = matrix.diagonal(e, e.specific)
    square = e.specific.value.tolist()
    assert d.gap.value == pytest.approx(oracle.gap(square), abs=1e-12)
    assert d.order_p == pytest.approx(oracle.order_p(square))
    assert d.own - d.other == pytest.approx(d.gap.value)


def test_each_draw_is_a_resample_of_documents_the_same_for_every_cell():
    rng = np.random.default_rng(3)
    o = observed(rng, ["aa", "bb"], ["aa", "bb"], items=5, controls=0)
    same = replace(o, edited={"aa": o.edited["aa"], "bb": o.edited["aa"]})  # two rows that are one edit
    e = effects.effects(same, draws=400)
    assert np.array_equal(e.own.samples[:, 0], e.own.samples[:, 1])
    documents = np.array([oracle.effect([p], [x], [s]) for p, x, s in zip(o.plain["aa"].top, o.edited["aa"]["aa"].top,
                                                                        o.plain["aa"].bottom)])
    assert documents.min() - 1e-9 <= e.own.samples[:, 0, 0].min() and e.own.samples[:, 0, 0].max() <= documents.max() + 1e-9
    assert e.own.samples[:, 0, 0].std() > 0


def test_an_edit_that_does_nothing_has_no_effect_and_no_width():
    o = observed(np.random.default_rng(0), ["aa"], ["aa", "bb"])
    still = replace(o, edited={"aa": o.plain}, control={"aa": [o.plain] * 3})
    e = effects.effects(still, draws=100)
    for grid in (e.own, e.random, e.specific):
        assert not grid.value.any() and not grid.samples.any()
    assert {b.p for b in [e.own.cell(0, 0), e.specific.cell(0, 1)]} == {1.0}


def test_controls_that_differ_widen_the_specific_effect_only():
    rng = np.random.default_rng(1)
    o = observed(rng, ["aa"], ["aa"], items=40)
    apart = [{"aa": replace(o.plain["aa"], top=o.plain["aa"].top + by * o.plain["aa"].bottom)} for by in (-1.0, 0.0, 1.0)]
    narrow, wide = effects.effects(o), effects.effects(replace(o, control={"aa": apart}))
    assert wide.own.cell(0, 0) == narrow.own.cell(0, 0)
    # one more draw after -1, 0 and 1 lies within Student's t of 2 degrees of freedom (4.303 at 97.5 %) times sqrt(1 + 1/3)
    one_more = wide.random.cell(0, 0)
    assert (one_more.low, one_more.high) == pytest.approx((-4.303 * np.sqrt(4 / 3), 4.303 * np.sqrt(4 / 3)), rel=0.1)
    assert wide.specific.cell(0, 0).p > 0.2 and narrow.specific.cell(0, 0).high - narrow.specific.cell(0, 0).low < 1


@pytest.mark.parametrize("controls", [3, 6])
def test_a_set_that_is_a_random_set_is_seldom_specific(controls):
    """Sets whose effects differ by chance, found one among them: at most one test in twenty says that it is special."""
    said, rng = [], np.random.default_rng(controls)
    for seed in range(200):
        o = observed(rng, ["aa"], ["aa"], items=30, controls=controls)
        shift = iter(rng.normal(0, 0.2, controls + 1))

        def moved(scores, by):
            return {"aa": replace(scores["aa"], top=scores["aa"].top + by * scores["aa"].bottom)}

        o = replace(o, edited={"aa": moved(o.edited["aa"], next(shift))},
                    control={"aa": [moved(c, by) for c, by in zip(o.control["aa"], shift)]})
        said.append(effects.effects(o, seed=seed, draws=400).specific.cell(0, 0).p < 0.05)
    assert 0.01 <= np.mean(said) <= 0.09


def test_units_divide_the_same_nats_by_tokens_bytes_or_sentences():
    class Spent:
        def __init__(self, text, factor):
            self.tokens, self.bytes, self.nats = len(text), 2 * len(text), factor * len(text)

    reading = matrix.Reader({"aa": ["abc", "de"], "bb": ["f", "gh"]}, lambda factor, texts: [Spent(t, factor) for t in texts])
    o = Observed(reading(1.0), {"aa": reading(2.0)})
    got = {unit: effects.effects(reading.per(o, unit), draws=50).own.value[0].tolist() for unit in matrix.UNITS}
    assert got == {"token": [1.0, 1.0], "byte": [0.5, 0.5], "sentence": [2.5, 1.5]}
    assert reading.per(o, "byte").plain["aa"].unit == "nats/byte"


def test_rows_and_columns_need_not_match():
    o = observed(np.random.default_rng(0), ["aa", "zz"], ["bb", "aa", "cc"], controls=0)
    e, d = matrix.of(o, draws=50)
    assert d is None and "at least two" in matrix.sentence(d)
    assert [t.title for t in matrix.tables(e)] == ["Effect of editing a language's neurons"]
    assert matrix.data(e, d)["cells"]["random"] == [[None] * 3] * 2


# --------------------------------------------------------------------------------------------------- planted differences


def planted(k, size, seed=0, **more):
    languages = names(k)
    shift = {r: {c: size if r == c else 0.0 for c in languages} for r in languages}
    return observed(np.random.default_rng(seed), languages, languages, 30, shift=shift, **more)


def test_a_planted_diagonal_is_found_and_noise_is_not():
    e, d = matrix.of(planted(5, 0.3))
    assert d.holds and d.largest == 5 and d.order_p == pytest.approx(1 / 120)
    assert d.gap.low < 0.3 < d.gap.high and matrix.sentence(d).startswith("Yes")
    own = matrix.tables(e)[0]
    assert [[c.verdict for c in row[1:]].count("worse") for row in own.rows] == [1] * 5
    assert all(own.rows[i][1 + i].verdict == "worse" for i in range(5))
    nothing = matrix.of(planted(5, 0.0))[1]
    assert not nothing.holds and matrix.sentence(nothing).startswith("No")


def test_a_fragile_language_and_a_strong_set_are_no_diagonal():
    """One column that suffers from every edit and one row that hurts every language cancel in the gap."""
    languages = names(4)
    shift = {r: {c: 0.5 * (r == "l1") + 0.5 * (c == "l2") for c in languages} for r in languages}
    d = matrix.of(observed(np.random.default_rng(0), languages, languages, 30, shift=shift))[1]
    assert abs(d.gap.value) < 0.02 and not d.holds


def test_many_languages_deal_their_sets_by_chance():
    d = matrix.of(planted(9, 0.3))[1]
    assert d.order_p == pytest.approx(1 / 10_001) and d.holds


def ways(shift, *, controls=3, seed=0, columns=("sw", "en")):
    rows = list(shift)
    o = observed(np.random.default_rng(seed), rows, list(columns), 40, controls, shift)
    return effects.effects(o)


def test_the_verdict_says_yes_only_where_it_beats_random_neurons():
    e = ways({"mean": {"sw": -0.2}, "zero": {"sw": 0.3, "en": 0.2}, "residual": {"sw": -0.5}, "layer-off": {"sw": 2.0, "en": 2.0}})
    kinds = {"mean": "neurons", "zero": "neurons", "residual": "comparator", "layer-off": "comparator"}
    v = verdict.judge(e, "sw", kinds)
    assert v.answer and v.best == "mean" and v.sentence.startswith("Yes: mean improves sw")
    assert {w.name: w.outcome for w in v.ways} == {"mean": "helps", "zero": "harms", "residual": "helps", "layer-off": "harms"}
    assert {w.name: w.harmed for w in v.ways} == {"mean": (), "zero": ("en",), "residual": (), "layer-off": ("en",)}
    assert "worse than residual" in v.sentence and "better than layer-off" in v.sentence and "No side effect of mean" in v.sentence
    assert v.against["residual"][0].value == pytest.approx(-0.3, abs=0.05)


def test_an_improvement_that_random_neurons_give_too_is_a_no():
    o = observed(np.random.default_rng(0), ["mean"], ["sw"], 40, 3, {"mean": {"sw": -0.2}})
    as_random = replace(o, control={"mean": [o.edited["mean"]] * 3})
    v = verdict.judge(effects.effects(as_random), "sw", {"mean": "neurons"})
    assert not v.answer and v.ways[0].outcome == verdict.UNSURE and v.sentence.startswith("No: the one way")
    assert "difference from 3 random sets" in v.sentence and "more of them (controls)" in v.sentence


def test_nothing_seen_is_a_no_that_names_what_could_have_been_seen():
    v = verdict.judge(ways({"mean": {}, "zero": {}}), "sw", {"mean": "neurons", "zero": "neurons"})
    assert not v.answer and "none of the 2 ways" in v.sentence and "no difference seen: mean, zero" in v.sentence
    assert 0 < v.ways[0].detectable < 0.1


def test_higher_may_be_better():
    """Answers that are right, as a task gives them: the same verdict with the sign turned."""
    rng = np.random.default_rng(0)
    before = (rng.random(80) < 0.4).astype(float)
    after = np.maximum(before, rng.random(80) < 0.4)
    score = {name: {"task": Ratio(top, np.ones(80), "share", True)} for name, top in (("off", before), ("on", after))}
    e = effects.effects(Observed(score["off"], {"mean": score["on"]}, {"mean": [score["off"]] * 3}))
    v = verdict.judge(e, "task", {"mean": "neurons"})
    assert v.answer and v.ways[0].effect.value == pytest.approx(after.mean() - before.mean())


def test_everything_has_a_json_form():
    o = planted(3, 0.1)
    e, d = matrix.of(o)
    v = verdict.judge(e, "l0", dict.fromkeys(e.rows, "neurons"))
    tables = (*matrix.tables(e), *verdict.tables(v, e))
    result = Result("steer", "", "t", (matrix.sentence(d), v.sentence), tables=tables, data={"m": matrix.data(e, d), "v": verdict.data(v)})
    assert Result.from_json(result.to_json()).tables == tables
    assert sum(isinstance(c, Estimate) for t in tables for row in t.rows for c in row) == 9 * 3 + 9 + 6


# ------------------------------------------------------------------------------------------------------ a model wired by hand


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("wired")
    return {hinder: load_folder(wired.folder(root, hinder=hinder)) for hinder in (False, True)}


def nats(live, texts):
    return conditions.engine(live).documents(texts, 64, 32)


def zero(layer, rows):
    return Edits((Edit("act", layer, "set", np.asarray(rows), np.zeros(1)),))


def drawn(layer, count, seed, start=wired.FIRST_PLAIN):
    return zero(layer, np.random.default_rng(seed).choice(np.arange(start, 48), count, replace=False))


def test_zeroing_wired_neurons_hurts_their_language_alone(models):
    live, reading = models[False], matrix.Reader(wired.texts(), nats)
    edits = {language: zero(0, rows) for language, rows in wired.OWN.items()}
    controls = {language: [drawn(0, 4, seed) for seed in range(3)] for language in edits}
    seen = []
    found = effects.observe(live, edits, controls, reading, lambda done, total, name: seen.append((done, total, name)))
    assert seen[-1] == (12, 13, "cc, random 3")
    for unit in matrix.UNITS:
        e, d = matrix.of(reading.per(found, unit))
        assert d.holds and d.largest == 3 and d.order_p == pytest.approx(1 / 6)
        verdicts = [[c.verdict for c in row[1:]] for row in matrix.tables(e)[2].rows]
        assert verdicts == [["worse" if i == j else "not distinguishable" for j in range(3)] for i in range(3)]
    e = effects.effects(found)
    assert e.own.value.diagonal().min() > 0.3 and np.abs(e.own.value[~np.eye(3, dtype=bool)]).max() < 1e-6
    assert np.abs(e.random.value).max() < 0.02


def test_the_verdict_on_hindering_neurons_is_yes_and_on_plain_ones_no(models):
    reading = matrix.Reader({k: v for k, v in wired.texts(documents=16).items() if k != "cc"}, nats)
    edits = {"off": zero(1, wired.HINDER), "own off": zero(0, wired.OWN["aa"])}
    controls = {"off": [drawn(1, 4, s) for s in range(3)], "own off": [drawn(0, 4, s) for s in range(3)]}
    kinds = dict.fromkeys(edits, "neurons")
    v = verdict.judge(effects.effects(effects.observe(models[True], edits, controls, reading)), "aa", kinds)
    assert v.answer and v.best == "off" and v.sentence.startswith("Yes: off improves aa")
    assert v.ways[0].specific.value < -0.3 and not v.ways[0].harmed
    plain = {"off": drawn(1, 4, 99)}
    found = effects.observe(models[True], plain, {"off": controls["off"]}, reading)
    assert not verdict.judge(effects.effects(found), "aa", {"off": "neurons"}).answer


def test_a_study_has_every_unit_and_the_sizes_that_were_read(models):
    edits = {language: zero(0, wired.OWN[language]) for language in ("aa", "bb")}
    found = matrix.study(models[False], edits, {}, wired.texts(documents=3), nats, unit="byte")
    assert found.data["read_sizes"]["cc"] == {"token": 72, "byte": 72, "sentence": 3} and len(found.tables) == 1
    assert list(found.data["units"]) == ["token", "byte", "sentence"] and "nats/byte, no random control" in found.summary[0]
    assert found.summary[1] == "Read and not edited, since no neurons of theirs were selected: cc."
    assert found.data["units"]["byte"]["edited"] == ["aa", "bb"] and found.data["units"]["token"]["read"] == ["aa", "bb", "cc"]


def test_on_a_random_model_the_answer_is_no(tiny):
    live = load_folder(tiny("llama"))
    reading = matrix.Reader(wired.texts(documents=8), nats)
    rng = np.random.default_rng(0)
    sets = {language: zero(0, rng.choice(48, 6, replace=False)) for language in wired.ALPHABETS}
    controls = {language: [drawn(0, 6, 10 * i + s, start=0) for s in range(3)] for i, language in enumerate(sets)}
    e, d = matrix.of(effects.observe(live, sets, controls, reading))
    assert not d.holds
    assert not any(verdict.judge(e, language, dict.fromkeys(sets, "neurons")).answer for language in sets)


def test_another_reading_than_the_first_is_refused():
    class Spent:
        nats, bytes = 1.0, 3

        def __init__(self, tokens):
            self.tokens = tokens

    reading = matrix.Reader({"aa": ["x", "y"]}, lambda n, texts: [Spent(n) for _ in texts])
    reading(3)
    with pytest.raises(StepFailed, match="other windows"):
        reading(4)
    with pytest.raises(InputError, match="too few documents"):
        matrix.Reader({"aa": ["x"]}, nats)
