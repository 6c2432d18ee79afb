"""The word problems: exact, disjoint between splits, the same in every language, and the same on every run."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polygraft.errors import RecipeError
from polygraft.evals.tasks.problems import generate, languages, prompt, question_text, stories, story_languages
from polygraft.evals.tasks.problems.generate import PEOPLE, RESIDUES, THINGS, mentions, structures
from polygraft.evals.tasks.problems.stories import sentences
from polygraft.evals.tasks.problems.text import TOKEN, Noun, fill, plural, words

SPLITS = ("train", "dev", "test")
STEPS = (1, 2, 3, 4)
EACH = [(language, split) for language in languages() for split in SPLITS]


def digits(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text)]


def evaluate(line: str) -> tuple[int, int]:
    """The value of the left side of `12 + 7 = 19`, worked out here, and the number on the right."""
    x, sign, y, equals, result = line.split()
    assert equals == "="
    x, y = int(x), int(y)
    if sign == "/":
        assert x % y == 0
    return {"+": x + y, "-": x - y, "*": x * y, "/": x // y if y else 0}[sign], int(result)


def test_the_promised_languages_are_there():
    assert {"en", "es", "fr", "de", "ru", "sw", "ja"} <= set(languages())
    assert {"en", "es", "fr"} <= set(story_languages()) <= set(languages())


@given(st.sampled_from(EACH), st.integers(0, 2**40), st.sampled_from(STEPS))
@settings(max_examples=60, deadline=None)
def test_answers_follow_from_the_question(each, seed, steps):
    language, split = each
    for problem in generate(language, 5, seed, split, (steps,)):
        lines = problem.solution.split("\n")
        assert len(lines) == problem.steps == steps
        known = digits(problem.question)
        for line in lines:
            value, result = evaluate(line)
            assert value == result >= 2
            assert all(n in known for n in digits(line)[:2]), "a step may use what the question says and what was worked out"
            known.append(result)
        assert problem.answer == known[-1] and digits(problem.sentence) == [problem.answer]
        assert len(problem.distractors) == len(set(problem.distractors)) == 3
        assert all(d > 0 and d != problem.answer for d in problem.distractors)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("steps", STEPS)
def test_every_number_of_the_question_is_needed(split, steps):
    for problem in generate("en", 40, 3, split, (steps,)):
        used = [n for line in problem.solution.split("\n") for n in digits(line)[:2]]
        assert set(digits(problem.question)) <= set(used)


@pytest.mark.parametrize("language", languages())
def test_splits_share_no_number_name_or_template(language):
    seen = {}
    for split in SPLITS:
        problems = [p for steps in STEPS for p in generate(language, 150, 5, split, (steps,))]
        names = {n.split("|")[0] for n in words(language)["names"][split]}
        assert len(names) == PEOPLE[split]
        seen[split] = ({n for p in problems for n in digits(p.question)}, names, {p.template for p in problems})
    for one, two in (("train", "dev"), ("train", "test"), ("dev", "test")):
        for left, right in zip(seen[one], seen[two]):
            assert left and right and not left & right


def test_names_are_disjoint_between_splits_in_all_languages_at_once():
    names = {split: {n.split("|")[0] for tag in languages() for n in words(tag)["names"][split]} for split in SPLITS}
    assert not names["train"] & names["dev"] and not names["train"] & names["test"] and not names["dev"] & names["test"]
    assert sorted(r for group in RESIDUES.values() for r in group) == list(range(7))


@pytest.mark.parametrize("split", SPLITS)
def test_problems_are_paired_across_languages(split):
    english = generate("en", 60, 9, split, STEPS)
    for language in languages():
        for ours, theirs in zip(english, generate(language, 60, 9, split, STEPS), strict=True):
            assert (ours.id, ours.template, ours.answer, ours.solution, ours.distractors) == (
                theirs.id, theirs.template, theirs.answer, theirs.solution, theirs.distractors)  # fmt: skip
            assert sorted(digits(ours.question)) == sorted(digits(theirs.question))


@pytest.mark.parametrize("language", languages())
def test_every_template_is_written_and_names_what_it_asks_for(language):
    texts = words(language)["problems"]
    assert list(texts) == [s.id for s in structures()] and len(set(texts.values())) == len(texts)
    assert set(words(language)["objects"]) == set(THINGS)
    for structure in structures():
        inside = " ".join(TOKEN.findall(texts[structure.id]))
        letters = sorted(m for m in re.findall(r"(?<![\w.])[a-e](?= |$)", inside))
        assert letters == [letter for letter, _ in structure.sizes], (structure.id, "each number is told once")
        people = set(re.findall(r"(?<![\w.])[AB](?![\w])", inside))
        assert people == set(mentions(structure.id)), structure.id


@pytest.mark.parametrize("language,split", EACH)
def test_no_brace_is_left_and_every_text_fills(language, split):
    templates = {s.id for s in structures() if s.split == split}
    problems = [p for steps in STEPS for p in generate(language, 200 if steps == 1 else 60, 1, split, (steps,))]
    assert {p.template for p in problems} == templates
    for problem in problems:
        assert not re.search(r"[{}|]|  | [.,]", problem.question + prompt(problem) + problem.sentence), problem.question
        assert prompt(problem).count(problem.question) == 1


def test_sizes_and_prefixes():
    assert generate("es", 0) == []
    long = generate("es", 500, 2, "test", (1, 2))
    assert long[:50] == generate("es", 50, 2, "test", (2, 1)) and len({p.question for p in long}) == 500
    assert {p.steps for p in long} == {1, 2}
    assert generate("es", 50, 3, "test", (1, 2))[0].question != long[0].question
    assert all(set("*/") & set(p.solution) == set() for p in generate("en", 100, operations="+-"))


@pytest.mark.parametrize(
    "options, hint",
    [
        ({"language": "fi"}, "es"), ({"split": "tset"}, "did you mean `test`?"), ({"steps": (9,)}, "1 to 4"),
        ({"steps": (2,), "operations": "/"}, "operations"), ({"n": 200_000, "split": "dev", "operations": "*"}, "up to"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_refused(options, hint):
    with pytest.raises(RecipeError) as error:
        generate(**{"language": "en", "n": 3, **options})
    assert hint in str(error.value)


SCRIPT = """
import hashlib, json, dataclasses
from polygraft.evals.tasks.problems import generate, languages, stories
made = [dataclasses.astuple(p) for tag in languages() for p in generate(tag, 40, 7, "train", (1, 2, 3, 4))] + stories("es", 20, 7)
print(hashlib.sha256(json.dumps(made).encode()).hexdigest())
"""


@pytest.mark.group("N")
def test_the_hash_seed_changes_nothing():
    runs = [
        subprocess.run([sys.executable, "-c", SCRIPT], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True)
        for seed in ("0", "1234")
    ]
    assert runs[0].stdout == runs[1].stdout != ""


def test_a_seed_means_the_same_for_ever():
    text = json.dumps([(p.id, p.question, p.answer) for p in generate("en", 100, 0, "test", STEPS)])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "972e99666cae40ed"


def test_russian_plural_forms():
    oracle = {**dict.fromkeys((1, 21, 31, 101), 0), **dict.fromkeys((2, 3, 4, 22, 34, 102), 1),
              **dict.fromkeys((5, 10, 11, 12, 13, 14, 20, 25, 100, 111, 112), 2)}  # fmt: skip
    assert {n: plural(n) for n in oracle} == oracle
    apple = {"o": Noun(words("ru")["objects"]["apple"])}
    told = [fill("{a o}, {o}", "ru", apple, {"a": n}) for n in (21, 3, 11)]
    assert told == ["21 яблоко, яблок", "3 яблока, яблок", "11 яблок, яблок"]


def test_agreement_by_gender_number_and_counter():
    women = {"A": Noun({"n": "Ana", "g": "f"}), "B": Noun({"n": "Eva", "g": "f"})}
    mixed = {**women, "B": Noun({"n": "Luis", "g": "m"})}
    assert fill("{AB|los|las} dos", "es", women, {}) == "las dos" and fill("{AB|los|las} dos", "es", mixed, {}) == "los dos"
    assert fill("{a o}", "ja", {"o": Noun(words("ja")["objects"]["notebook"])}, {"a": 4}) == "ノート4冊"
    assert fill("{a o}, {o.q}", "sw", {"o": Noun(words("sw")["objects"]["ball"])}, {"a": 4}) == "mipira 4, mingapi"
    assert fill("{a o.dat}", "de", {"o": Noun(words("de")["objects"]["apple"])}, {"a": 4}) == "4 Äpfeln"


@pytest.mark.parametrize("language", story_languages())
def test_stories_fill_vary_and_solve_nothing(language):
    told = stories(language, 400, 1)
    assert len(set(told)) == 400 and told[:10] == stories(language, 10, 1)
    for story in told:
        assert not re.search(r"[{}|=]|  | [.,]|\d\s*[-+*/×]\s*\d", story), story
        assert all(n % 7 in RESIDUES["train"] for n in digits(story))
    bank = sentences(language)
    assert {part: len(texts) for part, texts in bank.items()} == {part: len(texts) for part, texts in sentences("en").items()}
    assert len(set(bank["middle"])) == len(bank["middle"]) >= 40
    english = stories("en", 50, 1)
    assert [sorted(digits(s)) for s in english] == [sorted(digits(s)) for s in told[:50]]


def test_question_text_has_questions_and_no_answers():
    made = question_text("es", 30, 4)
    solved = generate("es", 30, 4, "train", (1, 2))
    assert made == [p.question for p in solved] and not any(p.sentence in q or p.solution in q for p, q in zip(solved, made))


def test_a_language_without_stories_is_refused():
    with pytest.raises(RecipeError, match="no stories in this language"):
        stories("xx", 1)
