"""lm-eval's own task files, user task files and models in memory, on tiny models."""

import json
from pathlib import Path

import pytest

from polygraft import evals, recipe
from polygraft.cli import run as cli
from polygraft.errors import InputError, RecipeError
from polygraft.evals import metrics, steps
from polygraft.evals.settings import EvalConfig
from polygraft.evals.tasks import TaskFile, foreign
from polygraft.sources import resolve
from polygraft.step import Context

CONTEXT = Context(model=lambda ref: resolve(ref), data=Path, offline=True)
ROWS = [{"country": "France", "options": ["Paris", "Rome", "Oslo"], "answer": "Paris"},
        {"country": "Italy", "options": ["Paris", "Rome", "Oslo"], "answer": "Rome"},
        {"country": "Norway", "options": ["Paris", "Rome", "Oslo"], "answer": "Oslo"}]
CHOICE = """
task: capitals
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "The capital of {{country}} is"
doc_to_choice: "{{options}}"
doc_to_target: "{{options.index(answer)}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
metadata: {version: 2}
"""
WRITTEN = """
task: capitals-written
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: generate_until
doc_to_text: "The capital of {{country}} is"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 4, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    for name, text in (("capitals.yaml", CHOICE), ("written.yaml", WRITTEN)):
        (tmp_path / name).write_text(text.replace("DATA", str(tmp_path / "rows.jsonl")))
    return tmp_path


@pytest.fixture(scope="module")
def models(tiny):
    return [str(tiny("llama", layers=2, seed=seed)) for seed in (1, 2)]


@pytest.fixture(autouse=True)
def cached_data_only(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")


def evaluate(config, out):
    out.mkdir()
    return steps.run_step(config, CONTEXT, out)


def test_lm_evals_task_files_run_with_our_engine_records_and_tables(folder, models):
    wanted = EvalConfig(models=models, tasks=(str(folder / "capitals.yaml"), str(folder / "written.yaml")), store="none")
    result = evaluate(wanted, folder / "out")
    assert {(s["task"], s["metric"]) for s in result.data["scores"]} == {
        ("capitals", "acc"), ("capitals", "acc_norm"), ("capitals-written", "exact_match")}
    rows = [json.loads(x) for x in (folder / "out" / result.data["records"][0]["file"]).read_text().splitlines()]
    assert [r["prompt"] for r in rows] == [f"The capital of {r['country']} is" for r in ROWS]
    for row, gold in zip(rows, (0, 1, 2)):
        assert row["gold"] == gold and row["choices"] == [" Paris", " Rome", " Oslo"]
        right = min(range(3), key=lambda i: row["choice_nats"][i]) == gold
        assert row["scores"]["lm-eval:acc:binary"] == [float(right), 1.0]
        assert row["tokens"] == len(" Paris Rome Oslo") and row["seconds"] > 0  # a byte is a token
    written = next(r["file"] for r in result.data["records"] if "written" in r["file"])
    assert all(r["tokens"] > 0 and r["seconds"] > 0 for r in map(json.loads, (folder / "out" / written).read_text().splitlines()))
    acc = next(s for s in result.data["scores"] if s["metric"] == "acc" and s["model"] == result.data["reference"])
    assert acc["value"] == pytest.approx(100 * sum(r["scores"]["lm-eval:acc:binary"][0] for r in rows) / 3)


def test_limit_shots_and_a_folder_of_tasks(folder):
    found = foreign.load(str(folder), shots=1, limit=2, seed=0, trusted=False, offline=True)
    assert {(f.name, f.shots, f.size) for f in found} == {("capitals", 1, 2), ("capitals-written", 1, 2)}


def test_a_name_that_only_a_group_of_lm_evals_holds_is_no_slip():
    foreign.named("AraDiCE_ArabicMMLU_high_humanities_history_egy")


@pytest.mark.parametrize(("text", "says"), [
    ("process_docs: !function utils.run\n", "runs code"), ("dataset_kwargs: {trust_remote_code: true}\n", "runs code"),
    ("metric_list: [{metric: bleu, hf_evaluate: true}]\n", "runs code"), ("class: !function x.Y\n", "runs code"),
    ("include: other.yaml\n", "runs code"), ("dataset_path: allenai/ai2_arc\n", "offline"), ("a: [\n", "not a readable YAML"),
])
def test_a_file_that_runs_code_is_refused_with_its_line(tmp_path, text, says):
    (tmp_path / "other.yaml").write_text("task: y\ndoc_to_text: !function utils.text\n")
    (tmp_path / "t.yaml").write_text("task: x\n" + text)
    with pytest.raises(InputError, match=says) as e:
        foreign.check(str(tmp_path / "t.yaml"), trusted=False, offline=True)
    assert "yaml" in str(e.value)
    planned = steps.plan(EvalConfig(models=("none",), tasks=(str(tmp_path / "t.yaml"),), trust_task_code=False), CONTEXT)
    assert planned.problems


def test_templates_of_lm_evals_files_cannot_reach_python(folder):
    (folder / "bad.yaml").write_text((folder / "capitals.yaml").read_text().replace("{{country}}", "{{ ''.__class__.__mro__ }}"))
    with pytest.raises(InputError, match=r"__class__.*unsafe"):
        foreign.load(str(folder / "bad.yaml"), shots=None, limit=None, seed=0, trusted=False, offline=True)


def test_metrics_of_lm_evals_come_back_from_their_names():
    m = metrics.get("lm-eval:ppl:lower")
    assert m.name == "ppl" and not m.higher_is_better and not m.binary and metrics.get("lm-eval:acc:binary").unit == "%"


# ----------------------------------------------------------------------------------------------------------- user tasks

TEN_LINES = """task: quiz
output_type: multiple_choice
source: {files: ["quiz_{code}.csv"]}
doc_to_text: "{{question}}\\nAnswer:"
doc_to_choice: ["{{a}}", "{{b}}"]
doc_to_target: "{{right}}"
labels: {a: 0, b: 1}
"""


@pytest.fixture
def quiz(tmp_path):
    (tmp_path / "quiz.yaml").write_text(TEN_LINES)
    (tmp_path / "quiz_sw.csv").write_text('question,a,b,right\n"Mji, mkuu?",Nairobi,Mombasa,a\nMto?,Tana,Nile,b\nZiwa?,Victoria,Tana,a\n')
    return tmp_path / "quiz.yaml"


def test_ten_lines_of_yaml_are_a_task(quiz, models, tmp_path, capsys):
    result = evaluate(EvalConfig(models=models[:1], tasks=(str(quiz),), langs=("sw",), shots=1, store="none"), tmp_path / "out")
    [score] = result.data["scores"]
    assert (score["task"], score["language"], score["n"], score["metric"]) == ("quiz", "sw", 2, "accuracy")
    assert cli(["tasks", str(quiz), "--langs", "sw", "--shots", "1", "--model", models[0], "--json"]) == 0
    [shown] = json.loads(capsys.readouterr().out)["languages"]
    assert shown["items"] == 2 and shown["plain"]["text"] == "Mji, mkuu?\nAnswer: Nairobi\n\nMto?\nAnswer:"
    assert shown["plain"]["choices"] == [" Tana", " Nile"] and shown["plain"]["target"] == 1 and "chat" in shown
    assert cli(["tasks", str(quiz), "--langs", "sw"]) == 0 and "=> " in capsys.readouterr().out
    assert cli(["tasks"]) == 0 and "mgsm@1" in capsys.readouterr().out
    assert cli(["tasks", str(quiz), "--langs", "swx"]) == 2


def test_a_folder_without_task_files_is_refused_before_lm_eval_is_asked(models, tmp_path, capsys):
    assert cli(["tasks", models[0]]) == 3 and "a model's folder" in capsys.readouterr().err
    assert "a model's folder" in str(steps.plan(EvalConfig(models=models[:1], tasks=(models[1],)), CONTEXT).problems[0])
    (tmp_path / "notes.yaml").write_text("a: b\n")
    with pytest.raises(InputError, match="no task files of lm-eval's kind"):
        foreign.check(str(tmp_path), trusted=False, offline=True)


def test_what_is_named_twice_or_in_no_language_is_said(quiz, models, tmp_path, capsys):
    twice = steps.plan(EvalConfig(models=models[:1] * 2, tasks=(str(quiz),), langs=("sw",)), CONTEXT)
    assert "one model is named twice" in str(twice.problems[0])
    notes = steps.plan(EvalConfig(models=models[:1], tasks=("problems", "problems", str(quiz), str(quiz)), langs=("sw",)), CONTEXT).notes
    assert [n for n in notes if "twice" in n] == ["problems@1 sw is named twice, and asked once.", "quiz@1 sw is named twice, and asked once."]
    quiz.write_text(TEN_LINES.replace("_{code}", "_sw"))
    wanted = EvalConfig(models=models[:1], tasks=(str(quiz),), store="none")
    assert "asked as en: name --langs" in str(steps.plan(wanted, CONTEXT).notes)
    assert "asked as en: name --langs" in str(evaluate(wanted, tmp_path / "out").caveats)
    assert "as en" not in str(steps.plan(wanted.model_copy(update={"langs": ("en",)}), CONTEXT).notes)
    assert cli(["tasks", str(quiz)]) == 0 and "asked as en" in capsys.readouterr().out


def test_a_preview_obeys_nothing_that_a_row_says(quiz, capsys):
    quiz.write_text(TEN_LINES + 'id: "{{question}}"\n')
    quiz.with_name("quiz_sw.csv").write_text('question,a,b,right\n"Mji\n\x1b[31mmkuu\x9b?",Nai\x9brobi,Mom\u202ebasa,a\n')
    assert cli(["tasks", str(quiz), "--langs", "sw"]) == 0
    out = capsys.readouterr().out
    assert "item Mji mkuu" in out and not set("\x1b\x9b\u202e") & set(out)


def test_two_files_with_one_name_are_refused(quiz, models):
    other = quiz.with_name("other.yaml")
    other.write_text(TEN_LINES.replace("Answer", "Jibu"))
    planned = steps.plan(EvalConfig(models=models[:1], tasks=(str(quiz), str(other)), langs=("sw",)), CONTEXT)
    assert any("one name" in str(p) for p in planned.problems)


def test_a_recipe_runs_again_when_a_task_file_or_the_data_beside_it_change(quiz, tmp_path, models):
    text = f"recipe: 1\nname: r\nsteps:\n- id: e\n  use: eval@1\n  models: [{models[0]}]\n  tasks: [quiz.yaml]\n  langs: [sw]\n"
    (tmp_path / "r.yaml").write_text(text)

    def key():
        [planned] = recipe.plan(recipe.read_recipe(tmp_path / "r.yaml", steps.STEPS), tmp_path / "runs").steps
        assert not planned.errors, planned.errors
        return planned.key

    first = key()
    quiz.write_text(TEN_LINES + "# a remark\n")
    second = key()
    data = quiz.with_name("quiz_sw.csv")
    data.write_text(data.read_text() + "Mlima?,Kenya,Meru,a\n")
    assert len({first, second, key()}) == 3
    assert TaskFile("quiz.yaml").parts(quiz) == [data]


# ------------------------------------------------------------------------------------------------------------ in memory


def test_a_model_in_memory_is_scored_and_left_as_it_was(models, quiz, tmp_path):
    from polygraft import model as live_models

    live = live_models.load(resolve(models[0]))
    live.model.train()
    options = {"tasks": [str(quiz)], "langs": ["sw"], "store": tmp_path / "store"}
    result = evals.score(live.model, live.tokenizer, identity="run 1, step 5", **options)
    assert live.model.training and result.data["scores"][0]["model"] == "run 1, step 5"
    file = evaluate(EvalConfig(models=models[:1], tasks=(str(quiz),), langs=("sw",), store="none"), tmp_path / "out")
    assert result.data["scores"][0]["value"] == file.data["scores"][0]["value"]
    live.model.lm_head.weight.data.zero_()
    again = evals.score(live.model, live.tokenizer, identity="run 1, step 5", **options)  # found in the store
    other = evals.score(live.model, live.tokenizer, identity="run 1, step 6", **options)
    assert again.data["scores"] == result.data["scores"] and any("equally likely" in c for c in other.caveats)
    with pytest.raises(RecipeError, match="time_budget"):
        evals.score(live.model, live.tokenizer, identity="x", time_budget="1m", **options)
