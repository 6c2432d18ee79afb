"""The small world: what is told in two languages means the same, nothing is shared but meaning, the test is nowhere in training."""

from __future__ import annotations

import json
import math
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polygraft.data import parse_corpus
from polygraft.errors import RecipeError
from polygraft.evals import tasks
from polygraft.recipe import run_step
from polygraft.steps import TABLE
from polygraft.world import files, grammar, meaning, model, texts
from polygraft.world.steps import World

SMALL = {"languages": 3, "documents": 60, "language": 20, "stories": 40, "items": 40, "parallel": 10, "layers": 1, "hidden": 32, "ffn": 16}
WORLD = next(s for s in TABLE if s.name == "world")
QUICK = settings(max_examples=10, deadline=None)
seeds = st.integers(0, 10**6)


def contents(seed=0, **more):
    config = World(**(SMALL | more), seed=seed)
    return config.told, files.contents(config.told, seed, config.size)


def back(language: grammar.Language, text: str) -> list[tuple[frozenset[str], bool]]:
    """Each sentence's meanings, whatever their order, and whether it asks: an independent way back from text. Notes are kept."""
    concept = {word: c for c, word in language.words.items()} | {":": ":", "+": "+", "-": "-"}
    found, words = [], []
    for token in text.split():
        if token in ".?":
            found.append((frozenset(concept[w] for w in words), token == "?"))
            words = []
        else:
            words.append(token)
    assert not words
    return found


# ------------------------------------------------------------------------------------------------------------ languages


@QUICK
@given(seeds, st.sampled_from(["digits", "words"]))
def test_no_word_and_no_script_is_shared_but_digits(seed, numbers):
    told = grammar.languages(3, seed, numbers)
    for one in told:
        assert len(set(one.words.values())) == len(one.words) == len(meaning.CONCEPTS)
        for two in told:
            if one is not two:
                shared = set(one.words.values()) & set(two.words.values())
                assert shared == ({str(n) for n in range(meaning.MOST + 1)} if numbers == "digits" else set())
                letters = [{c for w in x.words.values() for c in w if not c.isdigit()} for x in (one, two)]
                assert not letters[0] & letters[1]


@QUICK
@given(seeds, st.integers(0, 10**6))
def test_what_is_parallel_means_the_same(seed, drawn):
    told, facts = grammar.languages(3, seed), meaning.facts(seed)
    said = [texts.plain(x, [f for f in facts if f.everywhere], 3, f"{drawn}", 6) for x in told]
    for parallel in zip(*said, strict=True):
        meanings = [back(x, t) for x, t in zip(told, parallel)]
        assert meanings[0] == meanings[1] == meanings[2]


@QUICK
@given(seeds)
def test_questions_are_answered_by_what_was_told_and_notes_say_verb_and_number(seed):
    language = grammar.languages(1, seed)[0]
    word = language.words
    for text in texts.plain(language, meaning.facts(seed), 20, f"{seed}", 6, 0.5):
        sentences = text.replace("?", "? .").split(" . ")
        for asked, answer in ((s, sentences[i + 1]) for i, s in enumerate(sentences) if "?" in s):
            subject, verb, _, thing, _ = asked.split()
            fits = [s.split()[2] for s in sentences if "?" not in s and len(w := s.split()) >= 4 and [w[0], w[1], w[3]] == [subject, verb, thing]]
            assert answer.split()[0] == fits[0]
        for said, note in (s.split(f" {grammar.NOTED} ") for s in sentences if grammar.NOTED in s):
            _, verb, number, _ = said.split()
            sign = {word["verb.have"]: "", word["verb.get"]: "+ ", word["verb.lose"]: "- "}[verb]
            assert note.removesuffix(" .") == f"{sign}{number}"


@QUICK
@given(seeds)
def test_languages_keep_their_order(seed):
    clause = meaning.Clause("person.0", "verb.like", ("quality.1", "thing.2"))
    for language in grammar.languages(3, seed):
        place = {c: language.clause(clause).split().index(language.words[c]) for c in ("person.0", "verb.like", "quality.1", "thing.2")}
        order = sorted("SVO", key=lambda p: place[{"S": "person.0", "V": "verb.like", "O": "thing.2"}[p]])
        assert "".join(order) == language.order
        assert (place["quality.1"] > place["thing.2"]) == language.behind


# --------------------------------------------------------------------------------------------------------------- stories


@settings(max_examples=5, deadline=None)
@given(seeds)
def test_answers_are_what_arithmetic_says_and_options_hold_them_once(seed):
    for i, s in enumerate(meaning.stories(30, seed, "test")):
        right = s.a + s.b if s.verb == "get" else s.a - s.b
        options, place = s.options(random.Random(i))
        assert s.answer == right and 0 <= right <= meaning.MOST and 1 <= s.a <= 6 and 1 <= s.b <= 6
        assert options[place] == right and len(set(options)) == meaning.CHOICES and all(0 <= n <= meaning.MOST for n in options)
        other = s.a - s.b if s.verb == "get" else s.a + s.b
        assert (other in options) == (other >= 0)


def test_a_guess_by_place_or_size_is_right_by_chance():
    told = meaning.stories(300, 0, "test")
    rows = [s.options(random.Random(i)) for i, s in enumerate(told)]
    for place in range(meaning.CHOICES):
        assert abs(sum(right == place for _, right in rows) / len(rows) - 0.25) < 0.1  # four standard errors
    for asked, n in ((texts.asked_order, 2), (texts.asked_facts, 4)):
        language = grammar.languages(1, 0)[0]
        drawn = list(asked(language, 1000, 0) if n == 2 else asked(language, meaning.facts(0) * 10, 0))
        counts = Counter(r["answer"] for r in drawn)
        assert set(counts) == set(range(n)) and all(abs(c / len(drawn) - 1 / n) < 0.07 for c in counts.values())
        assert all(len(set(r["options"])) == n for r in drawn)


@settings(max_examples=3, deadline=None)
@given(seeds)
def test_the_splits_share_no_story(seed):
    train, test = meaning.stories(60, seed, "train"), meaning.stories(60, seed, "test")
    assert not set(train) & set(test) and len(set(train)) == len(set(test)) == 60
    assert meaning.stories(20, seed, "train") == train[:20], "a longer set begins with the shorter one"


def test_no_question_of_the_test_stands_in_any_training_text():
    told, found = contents(3, documents=300, language=50, stories=500, items=100)
    training = "\n".join(" ".join(map(str, row.values())) for name, rows in found.items() if name.startswith("train/") for row in rows)
    for language in told:
        for row in found[f"tasks/sums_{language.tag}.jsonl"]:
            statements = row["question"].rpartition(" . ")[0]
            assert statements not in training
        rows = found[f"tasks/sums_{language.tag}.jsonl"]
        assert any(row["question"].split(" . ")[0] in training for row in rows), "their sentences do stand there"


def test_facts_of_the_first_language_are_told_in_no_other():
    told, found = contents(documents=1000)
    facts = meaning.facts(0)
    texts_ = " ".join(row["text"] for row in found["train/base.jsonl"])
    for i, language in enumerate(told):
        for fact in facts:
            assert (language.clause(fact.clause) in texts_) == (fact.everywhere or i == 0)


def test_the_mixture_is_dealt_as_asked():
    told, found = contents(documents=1000, shares=(0.5, 0.3, 0.2), translation=0.1)
    rows = [r["text"] for r in found["train/base.jsonl"]]
    across = [t for t in rows if texts.EQUALS in t]
    letters = [set("".join(w for w in x.words.values() if not w.isdigit())) for x in told]
    counts = [sum(bool(letter & set(t)) for t in rows if texts.EQUALS not in t) for letter in letters]
    assert len(rows) == 1000 and len(across) == 100 and counts == [450, 270, 180]


# ---------------------------------------------------------------------------------------------------------------- folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    config = World(**SMALL)
    return config, root / "a", run_step(WORLD, config, root / "a"), run_step(WORLD, config, root / "b")


def test_the_same_seed_gives_the_same_bytes(made, tmp_path):
    _, _, one, two = made
    assert one.data["digest"] == two.data["digest"]
    other = run_step(WORLD, World(**SMALL, seed=1), tmp_path / "c")
    assert other.data["digest"] != one.data["digest"]


def test_every_word_is_one_token_and_any_text_comes_back(made):
    from transformers import AutoTokenizer

    config, folder, *_ = made
    words = AutoTokenizer.from_pretrained(folder / "model")
    for language in config.told:
        rows = [json.loads(line) for line in (folder / f"tasks/sums_{language.tag}.jsonl").read_text("utf-8").splitlines()]
        for row in rows[:5]:
            assert words.decode(words(row["question"])["input_ids"]).strip() == row["question"]
    text = " ".join(json.loads(line)["text"] for line in (folder / "train/base.jsonl").read_text("utf-8").splitlines())
    assert len(words(text)["input_ids"]) < 1.2 * len(text.split())


def test_the_model_is_as_large_as_it_says(made):
    from safetensors import safe_open

    _, folder, result, _ = made
    with safe_open(folder / "model/model.safetensors", "np") as f:
        shapes = {k: f.get_slice(k).get_shape() for k in f.keys()}  # noqa: SIM118
    count = sum(a * b for a, b in (([*s, 1])[:2] for s in shapes.values()))
    vocabulary = shapes["model.embed_tokens.weight"][0]
    assert result.data["parameters"] == count == model.parameters(layers=1, hidden=32, ffn=16, vocabulary=vocabulary)


def test_evaluation_reads_the_tasks_and_corpora(made):
    config, folder, *_ = made
    for name in files.TASKS:
        task = tasks.load(str(folder / f"tasks/{name}.yaml"))
        assert set(task.languages) == {x.tag for x in config.told}
        for language in config.told:
            items = tasks.items(task, language.tag)
            rows = [json.loads(line) for line in (folder / f"tasks/{name}_{language.tag}.jsonl").read_text("utf-8").splitlines()]
            assert len(items) == len(rows)
            for item, row in zip(items, rows):
                assert item.choices[item.target].strip() == row["options"][row["answer"]]
    parallel = [list(parse_corpus(f"{x.tag}=parallel/{x.tag}.read.txt", folder).documents(aligned=True)) for x in config.told]
    assert len({len(p) for p in parallel}) == 1


def test_random_sets_of_layers_are_different_and_as_large_as_asked(made):
    from polygraft import selectionfile

    for layers, size in ((8, 3), (4, 2), (2, 3)):
        sets = model.windows(layers, size, 5, 0)
        assert len(set(sets.values())) == len(sets) == min(5, math.comb(layers, min(size, layers)))
        assert all(len(set(s)) == min(size, layers) and set(s) <= set(range(layers)) for s in sets.values())
    config, folder, result, _ = made
    named = selectionfile.read(folder / "layers.json")
    assert {k: sorted({e.layer for e in v}) for k, v in named.items()} == result.data["layers"]
    assert config.layers == 1 and {e.kind for e in named["random.0"]} == {"attn", "ffn", "norm"}


def test_three_languages_are_all_there_are_and_shares_must_reach():
    from polygraft.config import parse
    from polygraft.yamltext import parse_document

    for text, words in (("languages: 4", "languages"), ("languages: 3\nshares: [0.5, 0.5]", "for each of 3 languages"), ("hidden: 33", "hidden"),
                        ("shares: [1, 0, 1]", "number over 0")):
        with pytest.raises(RecipeError, match=words):
            parse(World, parse_document(text, "recipe"))


def test_more_stories_than_there_are_is_refused_in_the_plan(tmp_path):
    from polygraft.recipe import plan_step

    told = plan_step(WORLD, World(items=5000), folder=tmp_path)
    assert "not so many stories to test" in str(told.errors[0]) and "at most" in str(told.errors[0])
