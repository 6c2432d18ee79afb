"""Tasks whose rows are on the hub: pinned to a commit, recorded, read as local files are. All on 127.0.0.1."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from fakehub import Hub
from polygraft import recipe
from polygraft.config import parse
from polygraft.errors import InputError, RecipeError
from polygraft.evals import jobs, steps, tasks
from polygraft.evals.steps import EvalConfig
from polygraft.evals.tasks import pins, rows
from polygraft.evals.tasks.schema import Task
from polygraft.store import read_result
from polygraft.yamltext import parse_document

QUIZ = """task: quiz
output_type: multiple_choice
source:
  hub: {path: lab/quiz, file: "quiz_{code}.jsonl"%s}
doc_to_text: "{{question}}"
doc_to_choice: ["A", "B"]
doc_to_target: "{{right}}"
languages: {en: {}, es: {}}
"""


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A hub with one data set, and an empty cache."""
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    close_session()
    with Hub() as at:
        monkeypatch.setattr(constants, "ENDPOINT", at.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", at.url + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        publish(at, tmp_path / "first", "Is it?")
        yield at


def publish(hub, folder, question):
    folder.mkdir()
    for language in ("en", "es"):
        lines = [json.dumps({"question": f"{question} {language} {n}", "right": n % 2}) for n in range(4)]
        (folder / f"quiz_{language}.jsonl").write_text("\n".join(lines))
    return hub.add("lab/quiz", folder)


def quiz(folder, revision=""):
    file = folder / f"quiz{len(revision)}.yaml"
    file.write_text(QUIZ % (f", revision: {revision}" if revision else ""))
    return str(file)


def evaluate(model, task, out):
    recipe.run_step(steps.STEPS[0], EvalConfig(models=(model,), tasks=(task,), langs=("en", "es"), store="none"), out)
    samples = sorted((out / "samples").iterdir())
    return read_result(out), [json.loads(line)["prompt"] for p in samples for line in p.read_text().splitlines()]


def test_the_commit_of_the_data_is_recorded_and_a_changed_data_set_is_read_anew(server, tiny, tmp_path):
    model, task = str(tiny("llama", layers=2, seed=1)), quiz(tmp_path)
    old = server.repos["lab/quiz"].commit
    result, asked = evaluate(model, task, tmp_path / "one")
    assert result.data["hub"] == {"lab/quiz@main": old} and asked[0] == "Is it? en 0"
    [ref] = [i for i in result.inputs if i.name == "hub data"]
    assert (ref.spec, ref.revision, ref.identity) == ("lab/quiz@main", old, f"hub:datasets/lab/quiz@{old}")
    assert model in {i.spec for i in result.inputs}, "the models stay among the inputs"
    new = publish(server, tmp_path / "second", "Was it?")
    result, asked = evaluate(model, task, tmp_path / "two")
    assert result.data["hub"] == {"lab/quiz@main": new} and asked[0] == "Was it? en 0"


@pytest.mark.parametrize("revision", ["", "refs/convert/parquet"])
def test_a_branch_is_asked_once_for_all_languages(server, tmp_path, monkeypatch, revision):
    calls, real = Counter(), pins.commit
    monkeypatch.setattr(pins, "commit", lambda *a: calls.update([a]) or real(*a))
    config = EvalConfig(models=("m",), tasks=(quiz(tmp_path, revision),), langs=("en", "es"))
    context = steps.Context(model=str, data=tmp_path.__truediv__)
    found = jobs.make_jobs(config, context)
    assert calls == {("lab/quiz", revision or "main"): 1}
    assert {j.hub[0].revision for j in found} == {server.repos["lab/quiz"].commit} and len(found) == 2
    assert found[0].hub[0].spec == f"lab/quiz@{revision or 'main'}"


def test_a_commit_is_taken_as_it_is_and_an_old_one_is_refused_when_it_is_gone(server, tmp_path):
    commit = server.repos["lab/quiz"].commit
    config = EvalConfig(models=("m",), tasks=(quiz(tmp_path, commit),), langs=("en",))
    context = steps.Context(model=str, data=tmp_path.__truediv__)
    assert jobs.make_jobs(config, context)[0].hub[0].revision == commit
    publish(server, tmp_path / "second", "Was it?")
    gone = EvalConfig(models=("m",), tasks=(quiz(tmp_path, "0" * 40),), langs=("en",))
    with pytest.raises(InputError, match="did not come from the hub"):
        jobs.make_jobs(gone, context)


def test_a_hub_that_does_not_answer_is_one_clear_error(server, tmp_path):
    server.down = True
    config = EvalConfig(models=("m",), tasks=(quiz(tmp_path),), langs=("en",))
    with pytest.raises(InputError, match="did not come from the hub"):
        jobs.make_jobs(config, steps.Context(model=str, data=tmp_path.__truediv__))


def test_what_is_planned_fetches_nothing(server, tmp_path):
    found, wrong = jobs.faults(EvalConfig(models=("m",), tasks=(quiz(tmp_path),), langs=("en",)),
                               steps.Context(model=str, data=tmp_path.__truediv__, planning=True))
    assert (found, wrong, sum(server.served.values())) == ([], [], 0)


def test_a_configuration_is_read_at_the_pinned_commit(monkeypatch):
    import datasets

    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: asked.append((a, k)) or [{"question": a[1], "right": 0}])
    task = parse(Task, parse_document(QUIZ.replace('file: "quiz_{code}.jsonl"%s', 'names: ["{code}", en], split: train'), "quiz.yaml"))
    task, refs = pins.pinned(task, "es", data=None, shots=0, commit=lambda path, revision: "c" * 40)
    read = rows.read(task.source, task.words_of("es"), data=None, offline=False)
    assert [r.fields["part"] for r in read] == ["es", "en"] and refs[0].revision == "c" * 40
    assert asked == [(("lab/quiz", c), {"split": "train", "revision": "c" * 40}) for c in ("es", "en")]


def test_files_on_this_machine_need_no_commit(tmp_path):
    def never(path, revision):
        raise AssertionError(path)

    task = tasks.load("belebele")
    assert pins.pinned(task, "en", data=tmp_path, shots=0, commit=never) == (task, ())


MGSM = {  # in the layout of the hub: labels before questions and solutions of `train`, numbers alone in `test`
    ("en", "train"): [{"question": "Question: Two and one?", "answer": "Step-by-Step Answer: 2 + 1 = 3. The answer is 3.", "answer_number": 3},
                      {"question": "Question: Two less one?", "answer": "Step-by-Step Answer: Ratio 2:1. The answer is 1.", "answer_number": 1}],
    ("sw", "train"): [{"question": "Swali: Mbili na moja?", "answer": "Jibu la Hatua kwa Hatua: 2 + 1 = 3. Jibu ni 3.", "answer_number": 3},
                      {"question": "Swali: Mbili bila moja?", "answer": "Jibu la Hatua kwa Hatua: 2 - 1 = 1. Jibu ni 1.", "answer_number": 1}],
    ("sw", "test"): [{"question": "Tano na tano?", "answer": None, "answer_number": 10, "equation_solution": None}],
    ("en", "test"): [{"question": "Five and five?", "answer": None, "answer_number": 10, "equation_solution": None}],
}


@pytest.mark.parametrize("task, language, worked", [
    ("mgsm", "sw", ("Swali: Mbili na moja?\nJibu la Hatua kwa Hatua:", "2 + 1 = 3. Jibu ni 3.")),
    ("mgsm", "en", ("Question: Two and one?\nStep-by-Step Answer:", "2 + 1 = 3. The answer is 3.")),
    ("mgsm-en-cot", "sw", ("Swali: Mbili na moja?\nStep-by-Step Answer:", "2 + 1 = 3. The answer is 3.")),
    ("mgsm-direct", "sw", ("Swali: Mbili na moja?\nAnswer:", "3")),
    ("mgsm-slam", "sw", None),
])  # fmt: skip
def test_mgsm_and_its_worked_examples_from_the_hub(monkeypatch, task, language, worked):
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda path, name, *, split, revision: MGSM[name, split])
    [item] = tasks.items(tasks.load(task), language, shots=2 if worked else 0)
    assert item.golds == ("10",) and MGSM[language, "test"][0]["question"] in item.prompt
    if worked:
        assert item.examples[0] == worked and len(item.examples) == 2
        assert not any("Answer: " in a or "Hatua: " in a for _, a in item.examples), "labels are the prompt's own"
        assert task != "mgsm-en-cot" or item.examples[1][1].startswith("Ratio 2:1."), "a colon of the solution is not its label"


def test_a_task_like_another_has_all_that_it_does_not_say(tmp_path):
    (tmp_path / "own.yaml").write_text('task: own\nlike: mgsm-slam\nsource: {hub: {path: lab/mgsm, name: "{code}", revision: v1}}\n')
    own, other = tasks.load(str(tmp_path / "own.yaml")), tasks.load("mgsm-slam")
    assert own.source.hub.revision == "v1" and (own.name, own.source.files) == ("own@1", ())
    same = set(Task.model_fields) - {"task", "like", "source"}
    assert all(getattr(own, k) == getattr(other, k) for k in same)
    assert tasks.from_hub(own), "it has no file beside it"


@pytest.mark.parametrize("named", ["mgsn", "own", "[mgsm]"])
def test_a_task_like_none_is_refused(tmp_path, named):
    (tmp_path / "own.yaml").write_text(f"task: own\nlike: {named}\n")
    with pytest.raises(RecipeError, match="no such task to be like") as e:
        tasks.load(str(tmp_path / "own.yaml"))
    assert e.value.where == "own.yaml:2"
