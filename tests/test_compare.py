"""From measures to verdicts: averages, families of comparisons, methods with several seeds; and the verb that reads them again."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle import stats_oracle as oracle
from polygraft import cli, stats
from polygraft.errors import InputError
from polygraft.evals import metrics
from polygraft.evals.metrics.base import Metric
from polygraft.evals.metrics.likelihood import BITS, NATS
from polygraft.evals.verdicts import compare, seeds, tables
from polygraft.evals.verdicts.measures import Measure, from_records
from polygraft.files import commit, write_json

ACCURACY = metrics.get("accuracy")


def ones(values):
    return np.column_stack([np.asarray(values, float), np.ones(len(values))])


def planted(metric, shift, n=100, seed=0, language="en", task="t"):
    """Two models on the same items: `other` is better (accuracy) or costs more (nats) by about `shift`."""
    rng = np.random.default_rng(seed)
    if metric.binary:
        base = rng.random(n) < 0.4
        return Measure(task, language, metric, {"base": ones(base), "other": ones(base | (rng.random(n) < shift))})
    base = rng.gamma(4, 2, n)
    columns = {"base": ones(base), "other": ones(base + shift + rng.normal(0, 0.2, n))}
    return Measure(task, language, metric, {m: c * [1, 100 if metric is BITS else 1] for m, c in columns.items()})


def one(found):
    [d] = found.differences
    return d


# -------------------------------------------------------------------------------------------------------- single measures


@pytest.mark.parametrize(("metric", "shift", "verdict"), [
    (ACCURACY, 0.5, "better"), (ACCURACY, 0.0, "not distinguishable"), (NATS, 1.0, "worse"), (NATS, -1.0, "better"),
    (NATS, 0.0, "not distinguishable"), (BITS, -1.0, "better"), (BITS, 0.0, "not distinguishable"),
])
def test_planted_differences_are_found_and_absent_ones_are_not(metric, shift, verdict):
    found = compare.compared([planted(metric, shift, seed=1)], "base")
    d = one(found)
    assert d.verdict == verdict and d.low <= d.value <= d.high
    shown = tables.tables(found)
    assert len(shown) == 2 and shown[1].rows[0][1].verdict == verdict


def test_units_and_closed_forms():
    bits, right = planted(BITS, 0.0), planted(ACCURACY, 0.3)
    found = compare.compared([bits, right], "base")
    scores = {(s.metric, s.model): s.estimate for s in found.scores}
    assert scores["bits per byte", "base"].value == pytest.approx(bits.columns["base"][:, 0].sum() / np.log(2) / 10_000)
    k = int(right.columns["base"][:, 0].sum())
    e = scores["accuracy", "base"]
    assert (e.value, e.unit, e.n) == (pytest.approx(float(k)), "%", 100) and (e.low, e.high) == pytest.approx([100 * x for x in oracle.wilson(k, 100)])
    a, b = (right.columns[m][:, 0] > 0 for m in ("base", "other"))
    assert next(d for d in found.differences if d.metric == "accuracy").p == pytest.approx(oracle.mcnemar(a, b))


def test_a_metric_of_any_sums_is_paired_on_its_items():
    """Matthews correlation of two models, right on 80 % and 95 % of the same hard and easy items: a function of summed cells."""
    def mcc(s):
        tp, fp, fn, tn = (s[..., i] for i in range(4))
        down = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
        return np.divide(tp * tn - fp * fn, down, out=np.zeros_like(down), where=down > 0)

    rng = np.random.default_rng(0)
    gold, luck = rng.random(300) < 0.5, rng.random(300)
    columns = {}
    for model, share in (("base", 0.8), ("other", 0.95)):
        said = np.where(luck < share, gold, ~gold)
        columns[model] = np.column_stack([gold & said, ~gold & said, gold & ~said, ~gold & ~said]).astype(float)
    found = compare.compared([Measure("t", "en", Metric("MCC", "", "", lambda i, r: (), mcc), columns)], "base")
    want = {m: oracle.mcc(columns[m].sum(0)) for m in columns}
    assert {s.model: s.estimate.value for s in found.scores} == pytest.approx(want)
    assert one(found).verdict == "better" and one(found).value == pytest.approx(want["other"] - want["base"])


def test_verdicts_are_held_over_the_whole_family():
    """One of twenty comparisons of nothing is under 5 % by chance; adjusted, none is called a difference."""
    rng = np.random.default_rng(3)
    base = rng.normal(size=60)
    m = Measure("t", "en", NATS, {"base": ones(base), **{f"m{i}": ones(base + rng.normal(0, 1, 60)) for i in range(20)}})
    found = compare.compared([m], "base")
    assert min(d.p for d in found.differences) < 0.05 and {d.verdict for d in found.differences} == {"not distinguishable"}
    assert "no model could be distinguished" in tables.summary(found)[0] and "unnoticed" in tables.caveats(found)[0]
    assert [d.holm for d in found.differences] == pytest.approx(oracle.holm([d.p for d in found.differences]))


@pytest.mark.parametrize("n, verdict", [(7, "not distinguishable"), (60, "better")])
def test_a_handful_of_documents_carries_no_verdict(n, verdict):
    """Fourteen comparisons that all improve alike: with seven pairs each, no exact test could tell, so the bootstrap may not."""
    base = np.random.default_rng(4).normal(5, 1, n)
    m = Measure("t", "en", NATS, {"base": ones(base), **{f"m{i}": ones(base - 0.5 - 0.01 * i) for i in range(14)}})
    found = compare.compared([m], "base").differences
    assert {d.verdict for d in found} == {verdict} and min(d.p for d in found) >= min(1.0, 2.0 ** (1 - n))


def test_a_checkpoint_is_not_a_method_and_the_caveats_say_so():
    assert any("about these checkpoints" in c for c in tables.caveats(compare.compared([planted(NATS, 0)], "base")))


# --------------------------------------------------------------------------------------------------------------- averages


def three_languages(shift=0.3, sizes=(80, 120, 100)):
    return [planted(ACCURACY, shift, n, seed, language) for seed, (n, language) in enumerate(zip(sizes, ("de", "en", "sw")))]


def test_averages_are_columns_of_the_tables():
    found = compare.compared(three_languages(), "base")
    scores, differences = tables.tables(found)
    assert scores.columns == differences.columns == ("model", "de", "en", "sw", "mean of languages", "all items", "worst language")
    for row in scores.rows:
        single = row[1:4]
        assert row[4].value == pytest.approx(np.mean([e.value for e in single]))
        assert row[5].value == pytest.approx(sum(e.value * e.n for e in single) / 300) and row[5].n == 300
        assert row[6].value == pytest.approx(min(e.value for e in single))
        assert all(e.low <= e.value <= e.high for e in row[1:])
    assert differences.rows[0][4].verdict == "better" and "worst language" in scores.note and "6 comparisons" in differences.note
    data = found.data()
    assert {s["average"] for s in data["scores"]} == {""} and {s["average"] for s in data["averages"]["scores"]} == {"mean", "pool", "worst"}
    json.dumps(data, allow_nan=False)


def test_the_mean_over_all_items_is_left_out_where_it_is_the_mean_of_languages():
    found = tables.tables(compare.compared(three_languages(sizes=(90, 90, 90)), "base"))[0]
    assert found.columns[4:] == ("mean of languages", "worst language")


def test_bits_per_byte_are_not_averaged_over_languages():
    found = tables.tables(compare.compared([planted(BITS, 0, language=x) for x in ("en", "ja")], "base"))[0]
    assert found.columns == ("model", "en", "ja")


def test_strata_count_the_same_in_their_mean():
    rng = np.random.default_rng(0)
    right = rng.random(110) < np.where(np.arange(110) < 100, 0.9, 0.2)
    m = Measure("t", "en", ACCURACY, {"base": ones(right)}, strata=("big",) * 100 + ("small",) * 10)
    found = tables.tables(compare.compared([m], "base"))[0]
    assert found.columns == ("model", "en", "en, mean of 2 strata")
    assert found.rows[0][2].value == pytest.approx(50 * (right[:100].mean() + right[100:].mean()))


def test_the_worst_language_of_a_metric_where_less_is_better_is_the_greatest():
    ms = [planted(NATS, 0, seed=i, language=x) for i, x in enumerate(("de", "en"))]
    scores = {s.language: s.estimate.value for s in compare.compared(ms, "base").scores if s.model == "base"}
    assert scores["worst language"] == max(scores["de"], scores["en"])


def test_parallel_items_of_several_languages_are_drawn_together():
    """The same hard and easy items in four languages: their mean is no better known than one language's."""
    item = np.random.default_rng(0).normal(size=200)
    ms = [Measure("t", x, NATS, {"base": ones(item)}) for x in ("de", "en", "fr", "sw")]
    e = {s.language: s.estimate for s in compare.compared(ms, "base").scores}
    assert e["mean of languages"].high - e["mean of languages"].low == pytest.approx(e["de"].high - e["de"].low)
    apart = [Measure("t", x, NATS, {"base": ones(np.random.default_rng(i).normal(size=200))}) for i, x in enumerate("abcd")]
    e = {s.language: s.estimate for s in compare.compared(apart, "base").scores}
    assert e["mean of languages"].high - e["mean of languages"].low == pytest.approx((e["a"].high - e["a"].low) / 2, rel=0.2)


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(2, 30)), min_size=2, max_size=4))
def test_averages_without_a_wrong_or_a_right_answer_have_intervals_within_the_unit(languages):
    """Every resample gives the same: the closed forms decide, and what they leave of 0 to 100 % (or -100 to 100 points) is cut."""
    n = max(size for _, _, size in languages)  # as many items everywhere, so that there is one mean
    ms = [Measure("t", "abcd"[i], ACCURACY, {"base": ones([base] * n), "other": ones([other] * n)})
          for i, (base, other, _) in enumerate(languages)]
    found = compare.compared(ms, "base", draws=50)
    each = [(float(base), *oracle.wilson(n * base, n)) for base, _, _ in languages]
    newcombe = [(float(other) - base, *stats.newcombe(np.full(n, base), np.full(n, other))) for base, other, _ in languages]
    for s in found.scores:
        if s.average and s.model == "base":
            assert (s.estimate.low, s.estimate.high) == pytest.approx([100 * x for x in oracle.put_together(each, s.average == "worst", 0.0)])
            assert 0 <= s.estimate.low <= s.estimate.value <= s.estimate.high <= 100
    for d in found.differences:
        assert -100 <= d.low <= d.value <= d.high <= 100
        if d.average == "mean":
            assert (d.low, d.high) == pytest.approx([100 * x for x in oracle.put_together(newcombe, False, -1.0)])


def test_no_difference_in_averages_is_rarely_called_one():
    rng, alarms = np.random.default_rng(5), {"mean of languages": 0, "worst language": 0}
    for i in range(150):
        hard = [rng.random(60) for _ in range(3)]
        ms = [Measure("t", x, ACCURACY, {m: ones(rng.random(60) < (h > 0.5) * 0.6 + 0.2) for m in ("base", "other")})
              for x, h in zip(("de", "en", "sw"), hard)]
        for d in compare.compared(ms, "base", seed=i, draws=500).differences:
            if d.average:
                alarms[d.language] += d.p < 0.05
    assert all(a / 150 < 0.1 for a in alarms.values()), alarms


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 3), st.integers(0, 99), st.booleans())
def test_every_number_is_finite_and_inside_its_interval(n, languages, seed, binary):
    rng = np.random.default_rng(seed)
    metric = ACCURACY if binary else NATS

    def values():
        x = rng.integers(0, 2, n) if binary else rng.normal(size=n)
        return ones(x) * (rng.random((n, 1)) < 0.8)  # some items are not defined

    ms = [Measure("t", x, metric, {m: values() for m in ("base", "other")}) for x in ("de", "en", "sw")[:languages]]
    found = compare.compared(ms, "base", seed=seed, draws=300)
    json.dumps(found.data(), allow_nan=False)
    for d in found.differences:
        assert 0 < d.p <= d.holm <= 1 and d.low <= d.high and np.isfinite(d.detectable)
    tables.tables(found), tables.caveats(found), tables.summary(found)


# ---------------------------------------------------------------------------------------------------------------- records


def record(i, right, **more):
    return {"id": f"en-{i}", "prompt_sha256_16": f"{i:016x}", "prompt": f"question {i}", "shots": 0, "gold": 0,
            "scores": {"accuracy": [float(right), 1.0]}} | more


def test_measures_from_records():
    rows = {m: [record(i, right, stratum="ab"[i % 2]) for i, right in enumerate(found)] for m, found in
            (("base", [0, 1, 1]), ("other", [1, 1, 1]))}
    rows["base"][0]["scores"]["nats"] = [2.0, 1.0]
    [m] = from_records("t", "en", rows)  # `other` has no nats at all
    assert m.metric is ACCURACY and m.columns["base"][:, 0].tolist() == [0, 1, 1] and m.strata == ("a", "b", "a")
    rows["other"][1]["scores"]["nats"] = [3.0, 1.0]
    nats = from_records("t", "en", rows)[1]
    assert nats.columns["base"].tolist() == [[2, 1], [0, 0]] and nats.defined["other"].tolist() == [False, True]  # the third counts nowhere
    rows["other"].reverse()
    with pytest.raises(InputError, match="other items"):
        from_records("t", "en", rows)


def test_items_of_a_group_count_once_and_only_if_all_are_right():
    both = Metric("both", "%", "", lambda i, r: (), binary=True, group="all")
    rows = [record(i, right, group=group) | {"scores": {"both": [right, 1.0]}}
            for i, (right, group) in enumerate([(1.0, "x"), (0.0, "x"), (1.0, "y"), (1.0, "y"), (1.0, "")])]
    [m] = from_records("t", "en", {"base": rows}, {"both": both})
    assert m.columns["base"].tolist() == [[0, 1], [1, 1], [1, 1]] and m.n == 3


@pytest.mark.parametrize("scores", [[1.0], [1.0, "x"], [1.0, None]])
def test_damaged_scores_are_refused(scores):
    rows = [record(0, 1), record(1, 1, scores={"accuracy": scores})]
    with pytest.raises(InputError, match="damaged"):
        from_records("t", "en", {"base": rows})


def test_an_unknown_metric_of_a_record_is_named():
    with pytest.raises(Exception, match="acuracy"):
        from_records("t", "en", {"base": [record(0, 1, scores={"acuracy": [1.0, 1.0]})]})


# ------------------------------------------------------------------------------------------------------- several trainings


def trained(n_seeds, effect=0.0, spread=0.3, n=100, rng=None, item=None):
    """Continuous scores [seeds, n] of one method: item difficulty, a training's luck, and noise."""
    return item + effect + rng.normal(0, spread, (n_seeds, 1)) + rng.normal(0, 0.7, (n_seeds, n))


def side(values, counts):
    return values.mean(axis=1), counts @ values.T


@pytest.mark.parametrize(("n_seeds", "spread"), [(3, 0.0), (3, 0.15), (3, 1.0), (5, 0.3)])
def test_intervals_of_methods_cover_as_promised(n_seeds, spread):
    rng, hits, alarms, rounds = np.random.default_rng(n_seeds), 0, 0, 300
    for _ in range(rounds):
        item = rng.normal(size=100)
        a, b = (trained(n_seeds, e, spread, rng=rng, item=item) for e in (0.0, 0.2))
        counts = rng.multinomial(100, np.full(100, 0.01), 200) / 100
        hits += (d := seeds.two_level(side(a, counts), side(b, counts), 100)).low <= 0.2 <= d.high
        alarms += seeds.two_level(side(a, counts), side(b - 0.2, counts), 100).p < 0.05
    assert 0.90 <= hits / rounds <= 0.995 and alarms / rounds < 0.09


def test_without_the_seeds_level_lucky_trainings_look_like_a_method():
    """What the two levels are for: on items alone, three lucky seeds of the same method are called better far too often."""
    rng, alone, both = np.random.default_rng(1), 0, 0
    for _ in range(100):
        item = rng.normal(size=100)
        a, b = (trained(3, 0.0, 0.5, rng=rng, item=item) for _ in range(2))
        counts = rng.multinomial(100, np.full(100, 0.01), 300) / 100
        drawn = counts @ (b.mean(0) - a.mean(0))
        alone += stats.summarise(float((b - a).mean()), drawn, 100).p < 0.05
        both += seeds.two_level(side(a, counts), side(b, counts), 100).p < 0.05
    assert alone > 50 and both < 12


def test_a_planted_effect_is_found():
    rng, found = np.random.default_rng(2), 0
    for _ in range(60):
        item = rng.normal(size=100)
        counts = rng.multinomial(100, np.full(100, 0.01), 300) / 100
        found += seeds.two_level(*(side(trained(4, e, 0.1, rng=rng, item=item), counts) for e in (0.0, 0.6)), 100).p < 0.05
    assert found > 50


def test_the_standard_error_is_that_of_crossed_seeds_and_items():
    """The analysis of variance of a large table says the same as the bootstrap."""
    rng = np.random.default_rng(3)
    item = rng.normal(size=400)
    a, b = (trained(8, 0.0, 0.4, 400, rng, item) for _ in range(2))
    counts = rng.multinomial(400, np.full(400, 1 / 400), 4000) / 400
    found = seeds.two_level(side(a, counts), side(b, counts), 400)
    assert found.se == pytest.approx(oracle.two_level_se(a.tolist(), b.tolist()), rel=0.03)


@pytest.mark.parametrize("df", [1.0, 2.0, 4.5, 30.0, 300.0])
def test_student_t(df):
    for q in (0.8, 0.975, 0.9995):
        assert seeds.t_tail(seeds.t_quantile(q, df), df) == pytest.approx(1 - q)
    known = {1.0: 12.7062, 2.0: 4.3027, 30.0: 2.0423}
    if df in known:
        assert seeds.t_quantile(0.975, df) == pytest.approx(known[df], abs=1e-4)


def methods_measure(effect, seed=0, n=200, members=3, spread=0.02):
    rng = np.random.default_rng(seed)
    easy = rng.normal(size=n)
    columns = {"base": ones(rng.random(n) < 1 / (1 + np.exp(-easy)))}
    for method, e in (("soup", 0.0), ("swap", effect)):
        for s in range(members):
            columns[f"{method}{s}"] = ones(rng.random(n) < 1 / (1 + np.exp(-easy - e - rng.normal(0, spread))))
    return Measure("t", "en", ACCURACY, columns)


def test_methods_are_compared_over_seeds_and_items():
    named = {"base": ("base",), "soup": ("soup0", "soup1", "soup2"), "swap": ("swap0", "swap1", "swap2")}
    found = seeds.compared([methods_measure(2.0)], named, "soup", draws=1000)
    verdicts = {d.model: d.verdict for d in found.differences}
    assert verdicts["swap"] == "better" and set(verdicts) == {"base", "swap"}
    shown = tables.tables(found)
    assert shown[0].columns[0] == "method" and [r[0] for r in shown[0].rows] == ["base", "soup", "swap"]
    assert shown[0].rows[2][1].value == pytest.approx(np.mean([100 * methods_measure(2.0).columns[m][:, 0].mean() for m in named["swap"]]))
    assert any("about methods" in c and "swap (3 training seeds)" in c and "base (one checkpoint" in c for c in tables.caveats(found))
    assert found.data()["claim"] == "methods"
    json.dumps(found.data(), allow_nan=False)


def test_two_seeds_are_neither_a_checkpoint_nor_a_method():
    with pytest.raises(InputError, match="too few training seeds"):
        seeds.compared([methods_measure(0.0)], {"base": ("base",), "swap": ("swap0", "swap1")}, "base")


def test_methods_of_equal_scores():
    same = Measure("t", "en", NATS, {m: ones(np.ones(9)) for m in "abcdef"})
    [d] = seeds.compared([same], {"x": tuple("abc"), "y": tuple("def")}, "x", draws=200).differences
    assert (d.value, d.low, d.high, d.p, d.verdict) == (0, 0, 0, 1, "not distinguishable")


# --------------------------------------------------------------------------------------------------------------- the verb


def evaluation(folder, models, task="t@1", language="en", n=60, index=None, **more):
    """A finished evaluation's folder: models as {label: share of right answers}."""
    rows = []
    with commit(Path(folder), {"kind": "step"}) as part:
        (part / "samples").mkdir()
        for label, share in models.items():
            luck = np.random.default_rng(0).random(n)  # the same hard and easy items
            found = [record(i, luck[i] < share, **more) for i in range(n)]
            file = f"{task.partition('@')[0]}.{language}.{label}.jsonl"
            (part / "samples" / file).write_text("".join(json.dumps(r) + "\n" for r in found))
            rows.append({"file": f"samples/{file}", "task": task, "language": language, "model": label})
        write_json(part / "result.json", {"step": "eval@1", "id": "", "title": "", "data": {"records": rows if index is None else index}})
    return str(folder)


def run(capsys, *words):
    code = cli.run(["compare", *map(str, words)])
    said = capsys.readouterr()
    return code, said.out + said.err


def test_compare_prints_verdicts_and_the_same_as_json(tmp_path, capsys):
    a, b, c = (evaluation(tmp_path / x, {x: share}) for x, share in (("a", 0.2), ("b", 0.8), ("c", 0.22)))
    code, said = run(capsys, a, b, c)
    assert code == 0 and "difference from a" in said and "better" in said and "not distinguishable" in said
    code, said = run(capsys, a, b, c, "--json", "--out", tmp_path / "out")
    result = json.loads(said)
    assert [d["verdict"] for d in result["data"]["differences"]] == ["better", "not distinguishable"]
    assert json.loads((tmp_path / "out/result.json").read_text())["data"] == result["data"]
    assert "better" in (tmp_path / "out/report.html").read_text() and (tmp_path / "out/manifest.json").exists()
    assert run(capsys, a, b, "--out", tmp_path / "out")[0] == 2  # never over an old one
    assert run(capsys, a, b, "--out", tmp_path / "a" / "in")[0] == 2  # nor into an input


def test_one_folder_with_several_models_and_names_that_repeat(tmp_path, capsys):
    both = evaluation(tmp_path / "both", {"base": 0.2, "math": 0.7})
    other = evaluation(tmp_path / "other", {"math": 0.5})
    code, said = run(capsys, both, other, "--json")
    assert code == 0 and {d["model"] for d in json.loads(said)["data"]["differences"]} == {"both#math", "other#math"}
    code, said = run(capsys, f"{both}#math", f"{both}#base")
    assert code == 0 and "difference from math" in said
    assert run(capsys, f"{both}#maht", other)[1].count("did you mean `math`") == 1


def test_methods_on_the_command_line(tmp_path, capsys):
    base = evaluation(tmp_path / "base", {"base": 0.2})
    swaps = [evaluation(tmp_path / f"s{i}", {"model": 0.8 + i / 50}) for i in range(3)]
    code, said = run(capsys, base, "swap=" + ",".join(swaps), "--json")
    data = json.loads(said)["data"]
    assert code == 0 and data["claim"] == "methods" and [d["model"] for d in data["differences"]] == ["swap"]
    assert data["differences"][0]["verdict"] == "better"
    code, said = run(capsys, base, "swap=" + ",".join(swaps[:2]))
    assert code == 3 and "too few training seeds" in said


def test_items_that_are_not_in_both_are_dropped_counted_and_said(tmp_path, capsys):
    a, b = evaluation(tmp_path / "a", {"a": 0.2}, n=60), evaluation(tmp_path / "b", {"b": 0.8}, n=40)
    code, said = run(capsys, a, b, "--json")
    assert code == 0 and "20 of 60 items are left out" in said and json.loads(said)["data"]["scores"][0]["n"] == 40


def test_another_template_around_the_same_question_is_paired_and_said(tmp_path, capsys):
    a, b = evaluation(tmp_path / "a", {"a": 0.2}), evaluation(tmp_path / "b", {"b": 0.8}, prompt_sha256_16="f" * 16)
    code, said = run(capsys, a, b)
    assert code == 0 and "60 items were sent in other words" in said


@pytest.mark.parametrize(("more", "says"), [
    ({"task": "t@2"}, "t@2 en is only in b"), ({"language": "sw"}, "t@1 sw is only in b"), ({"shots": 5, "prompt_sha256_16": "f" * 16}, "b: 5"),
    ({"prompt": "other", "prompt_sha256_16": "f" * 16}, "other questions"), ({"task": "u@1"}, "u@1 en is only in b"),
])
def test_nothing_in_common_says_why(tmp_path, capsys, more, says):
    code, said = run(capsys, evaluation(tmp_path / "a", {"a": 0.2}), evaluation(tmp_path / "b", {"b": 0.8}, **more))
    assert code == 3 and "no item in common" in said and says in said, said


def broken(kind, folder):
    """A folder that is no finished evaluation, in one way or another."""
    if kind == "missing":
        return folder / "no" / "such"
    if kind == "unfinished":
        (folder / "x").mkdir(parents=True)
        return folder / "x"
    if kind == "another step":
        with commit(folder / "x", {}) as part:
            write_json(part / "result.json", {"step": "merge.swap@1", "data": {}})
        return folder / "x"
    if kind == "no index":
        return Path(evaluation(folder / "x", {"m": 0.5}, index=[]))
    if kind == "file outside":
        return Path(evaluation(folder / "x", {"m": 0.5}, index=[{"file": "samples/../../y", "task": "t", "language": "en", "model": "m"}]))
    path = Path(evaluation(folder / "x", {"m": 0.5}))
    file = next((path / "samples").iterdir())
    if kind == "altered":
        file.write_text(file.read_text().replace("1.0", "0.0", 1))
    if kind == "cut":
        file.write_text(file.read_text()[:-20])
    return path


@pytest.mark.parametrize("kind", ["missing", "unfinished", "another step", "no index", "file outside", "altered", "cut"])
def test_a_folder_that_is_no_finished_evaluation_is_refused(tmp_path, capsys, kind):
    code, said = run(capsys, evaluation(tmp_path / "a", {"a": 0.2}), broken(kind, tmp_path))
    assert code == 3 and said.startswith("error: ") and "bug" not in said and "fix" in said, said


@pytest.mark.parametrize("line", ["{", "[]", '{"id": "1"}', '{"id": "en-0", "prompt_sha256_16": "0", "scores": 3}', "\udcff"])
def test_a_line_that_is_no_record_is_named(tmp_path, capsys, line):
    a = evaluation(tmp_path / "a", {"a": 0.2})
    with commit(tmp_path / "b", {}) as part:
        (part / "samples").mkdir()
        (part / "samples/t.en.b.jsonl").write_bytes(json.dumps(record(0, 1)).encode() + b"\n" + line.encode("utf-8", "surrogateescape"))
        write_json(part / "result.json", {"step": "eval@1", "data": {"records": [
            {"file": "samples/t.en.b.jsonl", "task": "t@1", "language": "en", "model": "b"}]}})
    code, said = run(capsys, a, tmp_path / "b")
    assert code == 3 and "t.en.b.jsonl:2: not a record" in said


@pytest.mark.parametrize(("words", "says"), [(["a"], "nothing to compare"), (["a", "a"], "the same model twice"), (["a", "x="], "too few")])
def test_what_was_typed_wrong(tmp_path, capsys, monkeypatch, words, says):
    evaluation(tmp_path / "a", {"a": 0.2})
    monkeypatch.chdir(tmp_path)
    code, said = run(capsys, *words)
    assert code in (2, 3) and says in said


def test_undefined_items_are_not_drawn():
    metric = metrics.get("f1")
    rows = [{"id": str(i), "scores": {"f1": [0.5 + 0.1 * (i % 3), 1.0] if i < 6 else [0.0, 0.0]}} for i in range(60)]
    (measure,) = from_records("qa", "sw", {"a": rows, "b": rows})
    assert measure.n == 6 and measure.metric is metric
    found = compare.compared([measure], "a")
    score = found.scores[0].estimate
    assert score.n == 6 and 50 <= score.low <= score.value <= score.high <= 70


def test_nothing_seen_is_no_proof_of_equality():
    same = {"a": ones([1] * 6), "b": ones([1] * 6)}
    found = compare.compared([Measure("t", lang, ACCURACY, same) for lang in ("en", "sw")], "a")
    for d in found.differences:
        assert d.value == 0 and d.low < -15 and d.high > 15, d
    mean = next(d for d in found.differences if d.average == compare.MEAN)
    single = next(d for d in found.differences if not d.average)
    assert mean.high == pytest.approx(single.high / np.sqrt(2))
    assert all(s.estimate.low < 75 and s.estimate.high == 100 for s in found.scores)

