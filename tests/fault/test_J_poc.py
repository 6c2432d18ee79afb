"""Odd inputs of `polygraft poc`: each refused in words, with its exit code, before anything is run or written."""

from __future__ import annotations

import json
import shutil

import pytest

from polygraft import cli

GOOD = [{"question": f"Swali {i}?", "choices": ["a", "b"], "answer": 0} for i in range(6)]


def rows(path, some):
    path.write_text("\n".join(json.dumps(r) for r in some), encoding="utf-8")
    return str(path)


@pytest.fixture
def given(tmp_path, tiny):
    """The words of a good command line, by flag."""
    text = rows(tmp_path / "sw.jsonl", [{"text": f"maji {i} ni uhai na chakula ni nguvu"} for i in range(12)])
    return {"--base": str(tiny("llama", layers=4)), "--task-expert": str(tiny("llama", layers=4)), "--lang": "sw", "--text": text,
            "--eval": rows(tmp_path / "eval.jsonl", GOOD), "--out": str(tmp_path / "out"), "--methods": "prune"}


def run(words, capsys, *more):
    code = cli.run(["poc", *(w for pair in words.items() for w in pair), "--offline", *more])
    return code, capsys.readouterr().err


EVALUATIONS = {
    "no rows": ([], 3, "has no rows|no objects|is empty|nothing"),
    "no question": ([{"answer": "x"}], 3, "has not a question"),
    "an empty question": ([{"question": "  ", "answer": "x"}], 3, "has not a question"),
    "no answer": ([{"question": "x"}], 3, "has not an answer"),
    "an answer outside the choices": ([{"question": "x", "choices": ["a", "b"], "answer": 2}], 3, "none of the choices"),
    "an answer that is true": ([{"question": "x", "choices": ["a", "b"], "answer": True}], 3, "none of the choices"),
    "one choice": ([{"question": "x", "choices": ["a"], "answer": 0}], 3, "two texts or more"),
    "choices that are numbers": ([{"question": "x", "choices": [1, 2], "answer": 0}], 3, "two texts or more"),
    "choices that are alike": ([{"question": "x", "choices": ["a", "a"], "answer": 0}], 3, "alike"),
    "the same question twice": ([*GOOD, GOOD[0]], 3, "asked before"),
    "choices for some alone": ([*GOOD, {"question": "x", "answer": "y"}], 3, "some questions have choices"),
    "items too few to show anything": (GOOD[:5], 3, "too few items"),
    "a row that is a list": ([["x"]], 3, "object"),
}


@pytest.mark.group("J")
@pytest.mark.parametrize("case", EVALUATIONS)
def test_evaluation_files(case, given, tmp_path, capsys):
    some, code, words = EVALUATIONS[case]
    given["--eval"] = rows(tmp_path / "bad.jsonl", some)
    found, said = run(given, capsys, "--plan")
    assert found == code and any(w in said for w in words.split("|")) and "bad.jsonl" in said and not (tmp_path / "out").exists(), said


PRICES = {
    "no currency": ("machine_hour: 1\n", "currency"),
    "no price": ("currency: EUR\n", "no price is given"),
    "a price below zero": ("currency: EUR\nmachine_hour: -1\n", "at least 0"),
    "an unknown price": ("currency: EUR\nmachine_hour: 1\nkilowatt_hour: 1\n", "unknown key"),
    "a price that is text": ("currency: EUR\nmachine_hour: cheap\n", "a number"),
    "no number at all": ("currency: EUR\nmachine_hour: .nan\n", "machine_hour"),
    "an empty file": ("", "empty"),
}


@pytest.mark.group("J")
@pytest.mark.parametrize("case", PRICES)
def test_price_files(case, given, tmp_path, capsys):
    text, words = PRICES[case]
    (tmp_path / "prices.yaml").write_text(text)
    found, said = run(given | {"--prices": str(tmp_path / "prices.yaml")}, capsys, "--plan")
    assert found == 2 and words in said and "prices.yaml" in said, said


FLAGS = {
    "English as the target": ({"--lang": "en"}, 2, "English is what losses"),
    "no such language": ({"--lang": "klingonish"}, 2, "--lang"),
    "no such method": ({"--methods": "magic"}, 2, "--methods"),
    "a budget that is no time": ({"--budget": "plenty"}, 2, "not a length of time"),
    "the target among the others": ({"--other": "sw=x.txt"}, 2, "names the target language"),
    "a licence of nothing": ({"--licence": "weather=mit"}, 2, "names nothing that goes in"),
    "text of an unread kind": ({"--text": "text.docx"}, 2, "not read as text"),
    "text that is not there": ({"--text": "nowhere.txt"}, 3, "nowhere.txt"),
    "an evaluation that is not there": ({"--eval": "nowhere.jsonl"}, 3, "nowhere.jsonl"),
    "an evaluation of an unread kind": ({"--eval": "eval.xlsx"}, 3, "not an evaluation file"),
    "a base that is not there": ({"--base": "./nowhere"}, 3, "nowhere"),
    "pairs that are not there": ({"--pairs": "nowhere.jsonl"}, 3, "nowhere.jsonl"),
    "a folder whose name is no name": ({"--out": "a folder!"}, 2, "plain name"),
    "prices that are not there": ({"--prices": "nowhere.yaml"}, 3, "nowhere.yaml"),
}


@pytest.mark.group("J")
@pytest.mark.parametrize("case", FLAGS)
def test_flags(case, given, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    more, code, words = FLAGS[case]
    found, said = run(given | more, capsys, "--plan")
    assert found == code and words in said and "Traceback" not in said, said


PAIRS = {
    "no English side": ([{"question": "Ngapi?"}], "no such column"),
    "no question": ([{"en": "How many?"}], "no such column"),
    "both sides alike": ([{"question": "OK?", "en": "OK?"}], "no pair of Swahili is left"),
    "a question that is a number": ([{"question": 3, "en": "How many?"}], "is not text"),
    "no pairs at all": ([], "no pairs"),
}


@pytest.mark.group("J")
@pytest.mark.parametrize("case", PAIRS)
def test_pairs_are_the_user_s_to_mend_and_cost_no_method(case, given, tmp_path, capsys):
    some, words = PAIRS[case]
    found, said = run(given | {"--pairs": rows(tmp_path / "pairs.jsonl", some)}, capsys, "--plan")
    assert found == 3 and words in said and "pairs.jsonl" in said and not (tmp_path / "out").exists(), said


@pytest.mark.group("J")
@pytest.mark.parametrize("name, family, layers", [("--task-expert", "qwen2", 4), ("--language-expert", "llama", 2), ("--instruct", "gpt2", 4)])
def test_a_model_that_was_not_made_from_the_base(name, family, layers, given, tiny, capsys):
    found, said = run(given | {name: str(tiny(family, layers=layers))}, capsys, "--plan")
    assert found == 3 and "not made from the base" in said and "llama, 4 layers of 32" in said, said


@pytest.mark.group("J")
def test_a_base_without_a_tokenizer(given, tmp_path, capsys):
    shutil.copytree(given["--base"], tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer.json"))
    found, said = run(given | {"--base": str(tmp_path / "bare")}, capsys, "--plan")
    assert found == 3 and "has no tokenizer" in said and "bare" in said, said


@pytest.mark.group("J")
def test_nothing_applies(given, capsys):
    words = {k: v for k, v in given.items() if k != "--text"} | {"--methods": "prune,lep"}
    found, said = run(words, capsys)
    assert found == 2 and "no method applies" in said and "no text in Swahili" in said and "no instruct sibling" in said, said


@pytest.mark.group("J")
def test_a_folder_of_something_else_is_left_alone(given, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    found, said = run(given, capsys)
    assert found == 2 and "taken" in said and [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"], said


@pytest.mark.group("J")
def test_too_little_text(given, tmp_path, capsys):
    given["--text"] = rows(tmp_path / "short.jsonl", [{"text": "maji"}, {"text": "maji"}])
    found, said = run(given, capsys, "--plan")
    assert found == 3 and "too little text" in said and "short.jsonl" in said, said
