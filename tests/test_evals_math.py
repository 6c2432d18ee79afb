"""The mathematics tasks: what is asked in every language, where it equals lm-eval's prompts and where it does not, and the real data."""

import gzip
import importlib.util
import json
from pathlib import Path

import jinja2
import pytest
import yaml

from polygraft.errors import InputError
from polygraft.evals import answers, tasks
from polygraft.evals.tasks import rendering

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
needs_data = pytest.mark.skipif(not (SHARED / "mgsm").is_dir(), reason="needs the real data in ../shared/data")
LANGUAGES = ("bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh")
NUMBERS = [11, 29]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """MGSM, MSVAMP, GSM8K and SVAMP in their layouts, with made-up rows."""
    root = tmp_path_factory.mktemp("data")
    for name in ("mgsm", "msvamp", "gsm8k", "svamp"):
        (root / name).mkdir()
    words = tasks.load("mgsm").languages
    book = {}
    for tag in LANGUAGES:
        w = words[tag]
        (root / "mgsm" / f"mgsm_{tag}.tsv").write_text(f"{tag} one?\t18\n{tag} two?\t2,125\n", "utf-8")
        rows = [{"id": 0, "question": f" {tag} kids? ", "answer": 8.0}]
        (root / "msvamp" / f"msvamp_{tag}.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
        book[tag] = {str(i): {"q": f"{w['question']}{tag} shown {i}?", "a": f"{w['answer']}{w['gap']}{tag} sum {i}."} for i in (1, 2)}
    exemplars = {"EXEMPLAR_NUMBER_ANSWERS": NUMBERS, "MGSM_EXEMPLARS": book}
    (root / "mgsm" / "exemplars.json").write_text(json.dumps(exemplars), "utf-8")
    for part in ("train", "test"):
        text = "\n".join(json.dumps({"question": f"{part} {i}?", "answer": f"It is 1,00{i}.\n#### 1,00{i}"}) for i in (1, 2))
        (root / "gsm8k" / f"{part}.jsonl").write_text(text)
    svamp = [{"ID": "chal-1", "Body": "Packs cost 76 dollars.", "Question": "How much?", "Answer": 51.0, "Type": "Subtraction"}]
    (root / "svamp" / "SVAMP.json").write_text(json.dumps(svamp))
    return root


def written(name, language, data, shots=0, **options):
    task = tasks.load(name)
    item = tasks.items(task, language, data=data, shots=shots, **options)[0]
    return rendering.plain(item, shots, rendering.form(task, language)), item


LM_EVAL = Path(importlib.util.find_spec("lm_eval").origin).parent / "tasks" / "mgsm"
SETS = {"mgsm": ("native_cot", " "), "mgsm-en-cot": ("en_cot", " "), "mgsm-direct": ("direct", "")}
OTHER_LABELS = {("mgsm", "ja"), ("mgsm", "zh"), ("mgsm", "ru"), ("mgsm-en-cot", "ja"), ("mgsm-en-cot", "zh"), ("mgsm-direct", "ja"),
                ("mgsm-direct", "zh")}  # lm-eval puts a space after 問題： and 问题：, half-width colons, and writes Пошаговоерешение


def lm_eval_prompt(name, language, data, shots):
    """The prompt that lm-eval's task file makes of the same rows."""
    folder, delimiter = SETS[name]
    config = yaml.safe_load((LM_EVAL / folder / f"mgsm_{folder}_{language}.yaml").read_text("utf-8"))
    book = json.loads((data / "mgsm" / "exemplars.json").read_text("utf-8"))["MGSM_EXEMPLARS"][language]
    rows = [{"question": e["q"], "answer": e["a"], "answer_number": n} for e, n in zip(book.values(), NUMBERS)][:shots]
    asked, answered = (jinja2.Environment(keep_trailing_newline=True).from_string(config[k]) for k in ("doc_to_text", "doc_to_target"))
    before = "".join(asked.render(r) + delimiter + answered.render(r) + "\n\n" for r in rows)
    return before + asked.render(question=f"{language} one?", answer=None)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", SETS)
def test_prompts_are_those_of_lm_eval_where_it_keeps_the_published_labels(name, language, data):
    """Native solutions, direct answers and all questions alone; its en_cot shows native solutions after an English label."""
    for shots in (0, 2):
        ours, _ = written(name, language, data, shots)
        same = (name, language) not in OTHER_LABELS and (name != "mgsm-en-cot" or shots == 0 or language == "en")
        assert (ours == lm_eval_prompt(name, language, data, shots)) is same


def test_english_solutions_follow_questions_in_the_language(data):
    text, _ = written("mgsm-en-cot", "sw", data, 2)
    assert text == ("Swali: sw shown 1?\nStep-by-Step Answer: en sum 1.\n\nSwali: sw shown 2?\nStep-by-Step Answer: en sum 2.\n\n"
                    "Swali: sw one?\nStep-by-Step Answer:")


def test_slam_and_mathoctopus_wrap_the_question(data):
    slam, item = written("mgsm-slam", "th", data)
    assert slam == ("Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
                    "### Instruction:\nth one?\n\n### Response:") and item.golds == ("18",)
    octopus, item = written("msvamp-octopus", "de", data)
    assert "completes the request in German. Please answer in German.\n\n### Instruction:\nde kids?\n\n### Response:" in octopus
    assert item.golds == ("8",) and tasks.load("mgsm-slam").generation.max_gen_toks == 600 and tasks.load("mgsm-slam").plain


def test_english_sets(data):
    gsm8k, item = written("gsm8k", "en", data, 1)
    assert gsm8k == "Question: train 1?\nAnswer: It is 1,001.\n#### 1,001\n\nQuestion: test 1?\nAnswer:" and item.golds == ("1,001",)
    svamp, item = written("svamp", "en", data)
    assert svamp == "Question: Packs cost 76 dollars. How much?\nStep-by-Step Answer:" and (item.id, item.golds) == ("chal-1", ("51",))


def test_a_file_without_english_solutions_or_numbers_serves_the_other_prompts(data, tmp_path):
    (tmp_path / "mgsm_sw.tsv").write_text("Q?\t1\n")
    book = {"sw": {"1": {"q": "Swali: E?", "a": "Jibu la Hatua kwa Hatua: A."}}}
    (tmp_path / "exemplars.json").write_text(json.dumps({"MGSM_EXEMPLARS": book}))
    assert written("mgsm", "sw", tmp_path, 1)[0] == "Swali: E?\nJibu la Hatua kwa Hatua: A.\n\nSwali: Q?\nJibu la Hatua kwa Hatua:"
    for name in ("mgsm-en-cot", "mgsm-direct"):
        with pytest.raises(InputError):
            written(name, "sw", tmp_path, 1)


# ---------------------------------------------------------------------------------------------------------- the real data


@pytest.mark.real
@needs_data
@pytest.mark.parametrize(("name", "rows"), [("mgsm-direct", 250), ("mgsm-en-cot", 250), ("mgsm-slam", 250), ("msvamp-slam", 1000),
                                            ("mgsm-octopus", 250), ("msvamp-octopus", 1000), ("gsm8k", 1319), ("svamp", 1000)])
def test_every_gold_of_the_real_data_is_a_number(name, rows):
    task = tasks.load(name)
    for language in task.known_languages():
        found = tasks.items(task, language, data=SHARED, shots=8 if name in SETS else 0)
        assert len(found) == rows and all(len(answers.readings(g)) >= 1 for i in found for g in i.golds)
        assert {len(i.examples) for i in found} == {8 if name in SETS else 0}


@pytest.mark.real
@needs_data
def test_every_solution_of_gsm8k_comes_to_its_number():
    lines = gzip.decompress((SHARED / "gsm8k" / "test.jsonl.gz").read_bytes()).decode().splitlines()
    solutions = [json.loads(line)["answer"] for line in lines]
    assert len(solutions) == 1319
    assert all(answers.correct(s, s.rpartition("####")[2].strip()) for s in solutions)
