"""Items from folders and the generator, the shipped task files, and how lm-eval scores them."""

import gzip
import json
from pathlib import Path

import pytest

from polygraft.errors import InputError, RecipeError
from polygraft.evals import answers, records, tasks
from polygraft.evals.items import Item, Response
from polygraft.evals.metrics import choice
from polygraft.evals.tasks import ProblemKind, problems, procedural, rendering

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"


@pytest.fixture
def data(tmp_path):
    """A data folder with three made-up items a language, MGSM's exemplar file, and MSVAMP's format."""
    (tmp_path / "mgsm").mkdir()
    for language in ("en", "sw"):
        (tmp_path / "mgsm" / f"mgsm_{language}.tsv").write_text(f"Q1 {language}?\t5\nQ2?\t2,125\r\n\nQ3\t-7\n", "utf-8")
    exemplars = {"MGSM_EXEMPLARS": {"en": {"1": {"q": "Question: E1", "a": "Step-by-Step Answer: A1"}, "2": {"q": "Question: E2", "a": "Step-by-Step Answer: A2"}}}}
    (tmp_path / "mgsm" / "exemplars.json").write_text(json.dumps(exemplars))
    rows = [{"question": " How many? ", "answer": 8.0}, {"question": "And?", "answer": 2.5}]
    (tmp_path / "msvamp_en.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    return tmp_path


def test_mgsm_items(data):
    found = tasks.items(tasks.load("mgsm"), "en", data=data)
    assert [i.golds for i in found] == [("5",), ("2,125",), ("-7",)]
    assert found[0].prompt == "Question: Q1 en?\nStep-by-Step Answer:"
    assert tasks.items(tasks.load("mgsm"), "sw", data=data, limit=1)[0].prompt == "Swali: Q1 sw?\nJibu la Hatua kwa Hatua:"
    assert len(tasks.items(tasks.load("mgsm@1"), "en", data=data / "mgsm")) == 3  # the task's own folder serves too


def test_worked_examples_come_first(data):
    task = tasks.load("mgsm")
    [found, *_] = tasks.items(task, "en", data=data, shots=2)
    want = "Question: E1\nStep-by-Step Answer: A1\n\nQuestion: E2\nStep-by-Step Answer: A2\n\nQuestion: Q1 en?\nStep-by-Step Answer:"
    assert rendering.plain(found, 2, rendering.form(task, "en")) == want


def test_msvamp_items(data):
    assert [i.golds for i in tasks.items(tasks.load("msvamp"), "en", data=data)] == [("8",), ("2.5",)]


@pytest.mark.parametrize(("name", "options", "says"), [
    ("mgsm", {"language": "xx"}, "no such language"), ("mgsm", {"language": "fr"}, "the task's file is not here"),
    ("mgsm", {"shots": 3}, "more worked examples"), ("mgsm", {"language": "sw", "shots": 1}, "does not have the layout"),
    ("msvamp", {"shots": 2}, "more worked examples"), ("problems", {"shots": 1}, "without examples"),
    ("problems", {"language": "tlh"}, "no such language"), ("mgsm", {"data": None, "offline": True}, "this run is offline"),
])
def test_what_cannot_be_asked_is_refused(data, name, options, says):
    options = {"language": "en", "data": data} | options
    with pytest.raises((InputError, RecipeError), match=says):
        tasks.items(tasks.load(name), **options)


@pytest.mark.parametrize("line", [b"no tab here\n", b"question\tnot a number\n", b"\t5\n", b"\xff\xfe\t5\n"])
def test_damaged_items_are_named_with_their_line(data, line):
    path = data / "mgsm" / "mgsm_en.tsv"
    path.write_bytes(b"fine?\t1\n" + line)
    with pytest.raises(InputError) as e:
        tasks.items(tasks.load("mgsm"), "en", data=data)
    assert "mgsm_en.tsv" in str(e.value)


@pytest.mark.parametrize("row", ["[]", "{}", '{"question": 3, "answer": 1}', '{"question": "q", "answer": null}', "{"])
def test_damaged_json_items_are_refused(data, row):
    (data / "msvamp_en.jsonl.gz").write_bytes(gzip.compress(row.encode()))
    with pytest.raises(InputError, match="msvamp_en"):
        tasks.items(tasks.load("msvamp"), "en", data=data)


def test_unknown_tasks_and_versions():
    with pytest.raises(RecipeError, match="did you mean `mgsm`"):
        tasks.load("mgms")
    with pytest.raises(RecipeError, match="mgsm@1"):
        tasks.load("mgsm@2")
    assert tasks.load("mgsm@1") is not None


def test_every_shipped_task_is_well_formed():
    for name in tasks.names():
        task = tasks.load(name)
        assert task.task == name
        assert (task.output_type == "generate_until") == (task.generation is not None)


# ------------------------------------------------------------------------------------------------------------ procedural


@pytest.mark.parametrize("language", problems.languages())
def test_wrong_solutions_are_wrong_and_read_alike(language):
    for steps in (1, 2, 3, 4):
        for problem in problems.generate(language, 25, seed=3, steps=(steps,)):
            wrong = procedural.wrong_solutions(problem)
            assert len({problem.solution, *wrong}) == 1 + len(wrong) >= 2
            for text in wrong:
                assert answers.answer(text) != str(problem.answer)
                assert text.split("\n")[:-1] == problem.solution.split("\n")[:-1]
            x, sign, y, _, r = wrong[0].split("\n")[-1].split(" ")
            if len(wrong) == 2:
                assert {"+": int(x) + int(y), "-": int(x) - int(y)}[sign] == int(r)


@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_as_many_wrong_solutions_as_asked(wrong):
    found = procedural.word_problems("en", 20, 5, ProblemKind(wrong=wrong, operations="+-"))
    assert {len(i.choices) for i in found} == {wrong + 1} and {i.target for i in found} == {0}


def test_procedural_items_are_parallel_and_seeded():
    en, es = (procedural.word_problems(language, 20, 5, ProblemKind()) for language in ("en", "es"))
    assert [(i.id, i.golds, i.choices) for i in en] == [(i.id, i.golds, i.choices) for i in es]
    assert [i.prompt for i in en] != [i.prompt for i in procedural.word_problems("en", 20, 6, ProblemKind())]
    assert procedural.word_problems("en", 10, 5, ProblemKind()) == en[:10]


def answered(*nats, target=0, greedy=False):
    item = Item("1", "en", "?", tuple("abcd"[: len(nats)]), target)
    return item, Response(nats, (greedy,) * len(nats))


def test_the_likeliest_choice_answers_and_a_tie_is_not_a_win():
    for row, want in ((answered(-1.0, -3.0, -2.0), 1.0), (answered(-2.0, -2.0), 0.0), (answered(-4.0, -1.0), 0.0),
                      (answered(-4.0, -1.0, target=1), 1.0), (answered(-1.0, -2.0, -2.0), 1.0)):
        assert choice.right(*row) == (want, 1.0)
    assert choice.tied(answered(-2.0, -2.0)[1]) and not choice.tied(answered(-1.0, -2.0, -2.0)[1])


def test_without_wrong_solutions_the_right_one_must_be_the_likeliest_text():
    assert choice.right(*answered(-1.5, greedy=True)) == (1.0, 1.0)
    assert choice.right(*answered(-1.5)) == (0.0, 1.0)


# --------------------------------------------------------------------------------------------------------------- records


def test_items_chosen_by_hash_are_the_same_for_everybody_and_in_order():
    ids = [f"i{n}" for n in range(50)]
    picked = records.chosen(ids, 5)
    assert picked == sorted(picked) and len(set(picked)) == 5 and picked != records.chosen(ids, 5, seed=1)
    assert {ids[::-1][i] for i in records.chosen(ids[::-1], 5)} == {ids[i] for i in picked}
    assert records.chosen(ids, 99) == list(range(50))


# ------------------------------------------------------------------------------------------------------------- real data


@pytest.mark.real
@pytest.mark.skipif(not (SHARED / "mgsm").is_dir(), reason="needs the real data in ../shared/data")
@pytest.mark.parametrize("name", ["mgsm", "msvamp"])
def test_the_real_data_is_read_in_every_language(name):
    task = tasks.load(name)
    for language in task.known_languages():
        found = tasks.items(task, language, data=SHARED, shots=8 if name == "mgsm" else 0)
        assert len(found) == {"mgsm": 250, "msvamp": 1000}[name]
        assert all(answers.correct(f"x {i.golds[0]}.", i.golds[0]) for i in found)


@pytest.mark.real
@pytest.mark.skipif(not (SHARED / "mgsm").is_dir(), reason="needs the real data in ../shared/data")
def test_the_answers_of_mgsms_own_worked_examples_are_found():
    data = json.loads((SHARED / "mgsm" / "exemplars.json").read_text("utf-8"))
    for language, found in data["MGSM_EXEMPLARS"].items():
        right = [answers.correct(e["a"], str(gold)) for e, gold in zip(found.values(), data["EXEMPLAR_NUMBER_ANSWERS"])]
        assert all(right) and len(right) == 8, (language, right)


@pytest.mark.parametrize("choices, right, told", [(["a", "a"], 0, True), (["b", "a", "b"], 2, True), (["b", "a", "b"], 1, False)])
def test_a_right_choice_that_another_repeats_is_named(tmp_path, choices, right, told):
    rows = [{"question": "Q", "options": ["x", "y"], "answer": 0}, {"question": "Q", "options": choices, "answer": right}]
    (tmp_path / "quiz.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "quiz.yaml").write_text('task: quiz\noutput_type: multiple_choice\nsource: {files: [quiz.jsonl]}\n'
                                        'doc_to_text: "{{question}}"\ndoc_to_choice: options\ndoc_to_target: "{{answer}}"\n')
    task = tasks.load(str(tmp_path / "quiz.yaml"))
    if not told:
        assert len(tasks.items(task, "en")) == 2
        return
    with pytest.raises(InputError, match="nobody can win") as e:
        tasks.items(task, "en")
    assert e.value.where.endswith("quiz.jsonl:2")


def test_a_missing_file_of_a_users_task_is_told_at_its_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text("task: own\noutput_type: generate_until\nsource:\n  files: ['data/{code}.jsonl']\ndoc_to_text: '{{q}}'\n"
                                "golds: ['{{a}}']\ngeneration: {max_gen_toks: 4}\n")
    with pytest.raises(InputError, match=r"^own.yaml:4: the task's file is not here") as e:
        tasks.items(tasks.load("own.yaml"), "sw")
    assert "data/sw.jsonl" in str(e.value)
