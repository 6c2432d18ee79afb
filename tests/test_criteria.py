"""criteria.yaml: what holds, what fails, what cannot be told, and what is a slip of the pen."""

import json

import numpy as np
import pytest

from polygraft import recipe
from polygraft.errors import CriteriaFailed, InputError, RecipeError
from polygraft.evals import metrics, steps
from polygraft.evals.metrics.likelihood import NATS
from polygraft.evals.steps import EvalConfig
from polygraft.evals.verdicts import compare, criteria
from polygraft.evals.verdicts.measures import Measure
from polygraft.result import Result
from test_compare import evaluation, run

ACCURACY = metrics.get("accuracy")


def right(k, n=100):
    """k right answers of n."""
    return np.column_stack([np.arange(n) < k, np.ones(n)]).astype(float)


def comparison(**shares):
    """`en=(50, 60)`: right answers of base and swapped in a language, of 100; nats of 2 and 3."""
    ms = [Measure("mgsm", lang, ACCURACY, {"base": right(a), "swapped": right(b)}) for lang, (a, b) in shares.items()]
    noise = np.random.default_rng(0).normal(0, 0.3, 100)
    ms.append(Measure("mgsm", "en", NATS, {m: np.column_stack([v + noise, np.ones(100)]) for m, v in (("base", 2), ("swapped", 3))}))
    return compare.compared(ms, "base", draws=500)


def read(tmp_path, text, confidence="point"):
    path = tmp_path / "criteria.yaml"
    path.write_text(f"confidence: {confidence}\ncriteria:\n" + "".join(f"  - {line}\n" for line in text.splitlines()))
    return criteria.read(path)


def judge(tmp_path, text, confidence="point", **shares):
    return criteria.check(read(tmp_path, text, confidence), comparison(**(shares or {"en": (50, 60), "sw": (40, 30)})))


EN, SW = "{metric: accuracy, task: mgsm, language: en, %s}", "{metric: accuracy, task: mgsm, language: sw, %s}"


@pytest.mark.parametrize(("demand", "confidence", "passed", "uncertain"), [
    ("floor: 30", "point", True, False), ("floor: 30", "bound", True, False),  # 60 [50, 69]
    ("floor: 55", "point", True, True), ("floor: 55", "bound", False, True),
    ("floor: 65", "point", False, True), ("floor: 80", "point", False, False), ("floor: 60", "point", True, True),
    ("floor: 80, priority: should", "bound", True, False), ("floor: 80, priority: may-give-up", "bound", True, False),
    ("tolerated_loss: 0", "point", True, False), ("tolerated_loss: 0", "bound", True, False),  # ten points better
])
def test_floors_and_priorities(tmp_path, demand, confidence, passed, uncertain):
    verdict = judge(tmp_path, EN % demand, confidence)
    [j] = verdict.judgements
    assert verdict.passed is passed and j.uncertain is uncertain and j.model == "swapped"
    assert bool(verdict.reasons) is (j.status == "failed" or uncertain)


@pytest.mark.parametrize(("loss", "confidence", "status", "uncertain"), [
    (20, "point", "held", False), (12, "point", "held", True), (12, "bound", "failed", True), (8, "point", "failed", True),
    (10, "point", "held", True), (1, "point", "failed", False),
])
def test_a_loss_of_ten_points(tmp_path, loss, confidence, status, uncertain):
    [j] = judge(tmp_path, SW % f"tolerated_loss: {loss}", confidence).judgements
    assert (j.status, j.uncertain) == (status, uncertain) and j.found.value == pytest.approx(10) and j.found.low < 10 < j.found.high


def test_less_is_better_turns_floor_and_loss(tmp_path):
    text = "\n".join(f"{{metric: nats, task: mgsm, language: en, {x}}}" for x in (
        "floor: 3.5", "floor: 2.5", "tolerated_loss: 1.2", "tolerated_loss: 0.8"))
    got = judge(tmp_path, text).judgements
    assert [j.status for j in got] == ["held", "failed", "held", "failed"] and got[1].demand == "at most 2.5"


def test_means_and_the_worst_language(tmp_path):
    words = ("all", "macro", "micro", "worst")
    text = "\n".join(f"{{metric: accuracy, task: mgsm@1, language: {x}, floor: 40}}" for x in words)
    with pytest.raises(RecipeError, match="no task `mgsm@1`"):  # the comparison has one version and calls it mgsm
        judge(tmp_path, text)
    got = judge(tmp_path, text.replace("@1", "")).judgements
    assert [(j.language, j.status, round(j.found.value)) for j in got] == [
        ("en", "held", 60), ("sw", "failed", 30), ("mean of languages", "held", 45), ("mean of languages", "held", 45),
        ("worst language", "failed", 30)]
    got = judge(tmp_path, text.replace("@1", ""), en=(50, 60)).judgements
    assert {j.language for j in got} == {"en"}  # of one language, all of these are that language


def test_29_of_100_is_not_below_29(tmp_path):
    assert judge(tmp_path, EN % "floor: 29", en=(10, 29)).passed


def test_reasons_name_the_fact_and_the_musts_come_first(tmp_path):
    text = "\n".join([SW % "floor: 50, priority: should", SW % "floor: 45, note: the pilot needs it", EN % "floor: 58"])
    verdict = judge(tmp_path, text)
    assert not verdict.passed and len(verdict.reasons) == 3
    assert verdict.reasons[0] == ("swapped: mgsm sw accuracy 30 % [21.89, 39.58], floor 45: failed (must). the pilot needs it")
    assert "should" in verdict.reasons[1] and "interval holds both" in verdict.reasons[2]
    assert verdict.of("swapped").passed is False and verdict.of("nobody").judgements == ()
    assert [r[-1] for r in verdict.table().rows] == ["failed", "failed", "held, uncertain"]


def test_a_model_without_a_score_does_not_pass(tmp_path):
    ms = [Measure("mgsm", "en", ACCURACY, {"base": right(50), "swapped": right(50) * 0})]
    [j] = criteria.check(read(tmp_path, EN % "floor: 0"), compare.compared(ms, "base")).judgements
    assert (j.status, j.found) == ("failed", None) and "no score" in j.words()


def test_a_model_alone_is_judged_itself_and_cannot_lose(tmp_path):
    alone = compare.compared([Measure("mgsm", "en", ACCURACY, {"base": right(50)})], "base")
    assert criteria.check(read(tmp_path, EN % "floor: 40"), alone).passed
    with pytest.raises(RecipeError, match="needs a model to compare with"):
        criteria.check(read(tmp_path, EN % "tolerated_loss: 4"), alone)


@pytest.mark.parametrize(("line", "says"), [
    ("{metric: acuracy, task: mgsm, language: en, floor: 1}", "criteria.yaml:3.*no metric `acuracy`.*did you mean `accuracy`"),
    ("{metric: accuracy, task: mgms, language: en, floor: 1}", "criteria.yaml:3.*no task `mgms`.*did you mean `mgsm`"),
    ("{metric: accuracy, task: mgsm, language: fr, floor: 1}", "criteria.yaml:3.*no language `fr`"),
    ("{metric: accuracy, task: mgsm, language: swahilli, floor: 1}", "criteria.yaml:3"),
    ("{metric: accuracy, task: mgsm, language: en}", "criteria.yaml:3.*nothing is demanded"),
    ("{metric: accuracy, task: mgsm, language: en, flor: 1}", "criteria.yaml:3.*unknown key `flor`.*did you mean `floor`"),
    ("{metric: accuracy, task: mgsm, language: en, floor: high}", "criteria.yaml:3.*a number"),
    ("{metric: accuracy, task: mgsm, language: en, tolerated_loss: -1}", "criteria.yaml:3.*at least 0"),
    ("{metric: accuracy, task: mgsm, language: en, floor: 1, priority: shall}", "criteria.yaml:3.*must, should, may-give-up"),
    ("{metric: accuracy, task: mgsm, floor: 1}", "criteria.yaml:3.*`language` is missing"),
])
def test_slips_are_named_with_their_line(tmp_path, line, says):
    with pytest.raises(RecipeError) as e:
        judge(tmp_path, line)
    assert __import__("re").search(says, str(e.value), __import__("re").DOTALL), e.value


@pytest.mark.parametrize(("text", "says"), [("", "empty"), ("criteria: []", "at least 1"), ("criteria: 3", "a list"), ("- a", "mapping"),
                                            ("confidence: sure\ncriteria: []", "point, bound")])
def test_files_that_are_no_criteria(tmp_path, text, says):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(RecipeError, match=says):
        criteria.read(tmp_path / "c.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        criteria.read(tmp_path / "none.yaml")


@pytest.mark.parametrize(("metric", "demand", "found", "expected"), [
    ("accuracy", "floor: 250", "250", "0 to 100 %"), ("accuracy", "floor: -1", "-1", "0 to 100 %"), ("nats", "floor: -2", "-2", "0 or more nats"),
    ("accuracy", "tolerated_loss: 101", "101", "0 to 100 %"),
])
def test_a_demand_that_no_score_can_decide_is_refused(tmp_path, metric, demand, found, expected):
    text = f"{{metric: {metric}, task: mgsm, language: en, {demand}}}"
    with pytest.raises(RecipeError, match="is beyond what") as e:
        judge(tmp_path, text)
    assert found in str(e.value) and expected in str(e.value) and "criteria.yaml" in str(e.value)
    [told] = criteria.slips(read(tmp_path, text), [("mgsm", "en", metric)])
    assert str(told) == str(e.value)


def test_a_correlation_may_be_demanded_to_be_below_0(tmp_path):
    text = "{metric: mcc, task: t, language: en, floor: %s}"
    assert criteria.slips(read(tmp_path, text % -20), [("t", "en", "mcc")]) == []
    assert len(criteria.slips(read(tmp_path, text % -120), [("t", "en", "mcc")])) == 1


# ------------------------------------------------------------------------------------------------------------- exit code 6


DEMAND = "criteria:\n  - {metric: accuracy, task: t, language: en, floor: %s, tolerated_loss: 5}\n"


@pytest.mark.parametrize(("floor", "code"), [(60, 0), (95, 6)])
def test_compare_exits_6_and_still_writes(tmp_path, capsys, floor, code):
    a, b = evaluation(tmp_path / "a", {"a": 0.5}), evaluation(tmp_path / "b", {"b": 0.8})
    (tmp_path / "criteria.yaml").write_text(DEMAND % floor)
    got, said = run(capsys, a, b, "--criteria", tmp_path / "criteria.yaml", "--out", tmp_path / "out")
    assert got == code and ("floor 95: failed (must)" in said) is (code == 6)
    kept = Result.from_json(json.loads((tmp_path / "out/result.json").read_text()))
    assert kept.data["criteria"]["passed"] is (code == 0) and kept.tables[-1].title == "Criteria"
    assert "Criteria" in (tmp_path / "out/report.html").read_text()


def test_an_evaluation_is_judged_after_it_is_written(tiny, tmp_path, capsys):
    from polygraft import cli

    model = str(tiny("llama", layers=2, seed=1))
    (tmp_path / "criteria.yaml").write_text("criteria:\n  - {metric: bits per byte, task: bpb, language: en, floor: 0.1}\n")
    words = ["eval", model, "--tasks", "", "--corpus", "en=sampler", "--criteria", str(tmp_path / "criteria.yaml"), "--max-bytes", "300"]
    code = cli.run([*words, "--out", str(tmp_path / "out"), "--offline"])
    assert code == 6 and "at most 0.1: failed" in capsys.readouterr().err
    assert json.loads((tmp_path / "out/result.json").read_text())["data"]["criteria"]["passed"] is False
    (tmp_path / "criteria.yaml").write_text("criteria:\n  - {metric: bits per bite, task: bpb, language: en, floor: 0.1}\n")
    assert cli.run([*words, "--plan"]) == 2
    assert "did you mean `bits per byte`" in capsys.readouterr().err


def test_the_plan_tells_slips_before_anything_is_asked(tiny, tmp_path):
    (tmp_path / "criteria.yaml").write_text("criteria:\n  - {metric: accuracy, task: problem, language: en, floor: 10}\n"
                                            "  - {metric: accuracy, task: problems, language: worst, floor: 10}\n")
    config = EvalConfig(models=(str(tiny("llama", layers=2, seed=1)),), tasks=("problems",), criteria=str(tmp_path / "criteria.yaml"))
    planned = recipe.plan_step(steps.STEPS[0], config, offline=True)
    assert [("did you mean `problems`" in str(e)) for e in planned.errors] == [True]


def test_the_error_has_its_own_exit_code():
    with pytest.raises(CriteriaFailed) as e:
        criteria.raise_failed({"criteria": {"passed": False, "reasons": ["x: below"]}}, "eval")
    assert e.value.exit_code == 6 and "x: below" in str(e.value)
    criteria.raise_failed({"criteria": {"passed": True}}, "eval")
    criteria.raise_failed({}, "eval")
