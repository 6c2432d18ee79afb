"""What a proof of concept reads: evaluation files, texts, prices, licences; what applies; how much a budget has room for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polygraft.errors import InputError
from polygraft.evals import tasks
from polygraft.poc import budget, licences, methods, stages, writing
from polygraft.poc.config import METHODS, Poc
from polygraft.poc.deciding import carried
from polygraft.poc.decision import REASONS, Decision, Licence, Outcome, Reason
from polygraft.poc.evaluation import target
from polygraft.poc.facts import WINDOW, Facts, Vocabulary
from polygraft.poc.facts import windows as count_windows
from polygraft.poc.given import check_files
from polygraft.poc.texts import HELD, PIECE, deal, opening, pieces, texts
from polygraft.sources import resolve
from polygraft.yamltext import parse_document

WORDS = ("habari", "maji", "mti", "nyumba", "mtoto", "shule")


def lines(path, rows):
    path.write_text("\n".join(json.dumps(r, ensure_ascii=False) for r in rows), encoding="utf-8")
    return path


def asked(path, found):
    """The items of a target as `eval` would ask them."""
    for name, data in found.files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return tasks.items(tasks.load(str(path / found.task)), "sw")


# --------------------------------------------------------------------------------------------------------------- evaluation


@pytest.mark.parametrize("answer", [1, "B", "b", "Mombasa"])
def test_choices_are_answered_by_place_letter_or_text(tmp_path, answer):
    file = lines(tmp_path / "e.jsonl", [{"question": "Wapi?", "options": ["Nairobi", "Mombasa"], "answer": answer}])
    found = target(file, "sw")
    (item,) = asked(tmp_path / "in", found)
    assert (item.prompt, item.choices, item.target, found.metric, found.items) == ("Wapi?", ("Nairobi", "Mombasa"), 1, "accuracy", 1)


@pytest.mark.parametrize("answers, metric", [([3, "4.5", "-1,000"], "numbers.accuracy"), (["tatu", "4"], "exact_match")])
def test_written_answers_are_numbers_or_text(tmp_path, answers, metric):
    found = target(lines(tmp_path / "e.jsonl", [{"prompt": f"Ngapi {i}?", "completion": a} for i, a in enumerate(answers)]), "sw")
    assert found.metric == metric and [i.golds for i in asked(tmp_path / "in", found)] == [(str(a),) for a in answers]


def test_a_task_file_goes_in_with_what_lies_beside_it(tmp_path):
    lines(tmp_path / "quiz_sw.jsonl", [{"q": "Wapi?", "c": ["a", "b"], "n": 0}])
    (tmp_path / "quiz.yaml").write_text('task: quiz\noutput_type: multiple_choice\nsource: {files: ["quiz_{code}.jsonl"]}\n'
                                        'doc_to_text: "{{q}}"\ndoc_to_choice: c\ndoc_to_target: "{{n}}"\n')
    found = target(tmp_path / "quiz.yaml", "sw")
    assert (found.title, found.metric, found.items, len(asked(tmp_path / "in", found))) == ("quiz", "accuracy", 1, 1)
    before = found.task
    lines(tmp_path / "quiz_sw.jsonl", [{"q": "Wapi?", "c": ["a", "b"], "n": 1}])
    assert target(tmp_path / "quiz.yaml", "sw").task != before


# -------------------------------------------------------------------------------------------------------------------- texts


@given(st.lists(st.text(alphabet="ab ", min_size=1, max_size=12), max_size=40), st.sampled_from([2, HELD]))
def test_no_passage_is_both_learned_and_measured(documents, every):
    different = {p for d in documents for p in pieces(d)}
    if len(different) < 4:
        with pytest.raises(ValueError):
            deal(documents, every)
        return
    found = deal(documents, every)
    assert found.held and found.learn and not set(found.held) & set(found.learn) and {*found.held, *found.learn} == different
    assert len(found.held) <= -(-len(different) // every)


@given(st.text(alphabet="abc \n", max_size=400), st.integers(8, 60))
def test_pieces_keep_all_letters_in_order(text, size):
    found = pieces(text, size)
    assert all(0 < len(p) <= size for p in found) and "".join("".join(found).split()) == "".join(text.split())


@given(st.text(alphabet="abc ", min_size=1, max_size=80), st.integers(1, 60))
def test_an_opening_is_short_and_at_most_half(text, size):
    found, line = opening(text, size), " ".join(text.split())
    assert line.startswith(found) and len(found) <= max(1, min(size, len(line) // 2)) and "\n" not in found


def test_texts_are_dealt_into_files_that_name_their_content(tmp_path):
    file = lines(tmp_path / "sw.jsonl", [{"text": f"{w} {i} " + "neno " * 30} for i, w in enumerate(WORDS * 4)])
    config = Poc(base="b", lang="sw", eval="e.jsonl", text=str(file))
    found = texts(config)
    assert {found.learn, found.held, found.write, found.copy} <= set(found.files) and found.sampled == ("en", "es", "ru")
    assert texts(config) == found and not found.cut
    assert texts(Poc(base="b", lang="es", eval="e.jsonl")).sampled == ("en", "ru")
    for name, data in found.files.items():
        (tmp_path / name).write_bytes(data)
    assert [len(tasks.items(tasks.load(str(tmp_path / t)), "sw")) for t in (found.write, found.copy)] == [3, 3]


def test_passages_longer_than_a_piece_are_cut_where_words_end():
    assert all(len(p) <= PIECE and not p.startswith(" ") for p in pieces("neno " * 3000))


# ------------------------------------------------------------------------------------------------------------------ methods


def facts(*given: str, gain: float = 2.0, added: int = 500, why: str = "", asked=METHODS) -> Facts:
    today = "instruct" if "instruct" in given else "task_expert" if "task_expert" in given else "base"
    return Facts("sw", "Swahili", today, frozenset({"base", *given}), frozenset(asked), 512, 10**6, Vocabulary(gain, added, why))


@pytest.mark.parametrize("found, lacking", [
    (facts("instruct", "text", "pairs"), {}),
    (facts("instruct"), dict.fromkeys(("neurons", "lep", "prune", "steer"), "no-text") | {"swap": "no-expert", "slam": "no-pairs"}),
    (facts("text"), {"swap": "no-expert", "slam": "no-pairs", "lep": "no-instruct"}),
    (facts("text", "data", "pairs"), {"lep": "no-instruct"}),
    (facts("task_expert", "language_expert", "text", "pairs"), {"lep": "no-instruct"}),
    (facts("instruct", "text", "pairs", gain=1.1), {"lep": "tokenizer-fits"}),
    (facts("instruct", "text", "pairs", why="it is Unigram"), {"lep": "tokenizer-fixed"}),
    (facts("instruct", "text", "pairs", asked=("swap",)), dict.fromkeys(("slam", "neurons", "lep", "prune", "steer"), "not-asked")),
])
def test_what_does_not_apply_says_why_in_one_sentence(found, lacking):
    said = methods.lacking(found)
    assert {m: r.code for m, r in said.items()} == lacking
    for reason in said.values():
        assert reason.text.endswith(".") and "{" not in reason.text and "\n" not in reason.text


@pytest.mark.parametrize("there, asked, wanted", [
    ({"sw": 32, "en": 32}, 32, {"sw": 16, "en": 16}),
    ({"sw": 32, "en": 3}, 32, {"sw": 29, "en": 3}),
    ({"sw": 5, "en": 3}, 32, {"sw": 5, "en": 3}),
    ({}, 4, {"sw": 2, "en": 2}),
    ({"sw": 1, "en": 1}, 4, {"sw": 1, "en": 1}),
])
def test_pruning_is_calibrated_on_the_text_that_there_is(there, asked, wanted):
    """The sampler has a page of English: a pilot that wants sixteen windows of it must not lose the method."""
    found = replace(facts("instruct", "text"), windows=there)
    assert methods.calibration(found, replace(budget.smoke(512), windows=asked)) == wanted and methods.prune_lacks(found) is None


@pytest.mark.parametrize("there, words", [({"sw": 9, "en": 0}, "--other en=FILE"), ({"sw": 0, "en": 9}, "--text")])
def test_text_that_makes_no_window_calibrates_nothing(there, words):
    said = methods.prune_lacks(replace(facts("instruct", "text"), windows=there))
    assert said.code == "short-text" and words in said.text


def test_windows_are_counted_by_the_model_s_own_tokenizer(tmp_path, tiny):
    path = lines(tmp_path / "en.jsonl", [{"text": "x" * 60} for _ in range(10)])
    source = resolve(str(tiny("llama")), offline=True)
    assert [count_windows(source, "en", path, n) for n in (1000, 60, 10)] == [0, 10, 32]


def test_the_sampler_s_english_is_enough_to_calibrate_on():
    """Nobody has to bring English text for pruning to be tried: a real tokenizer has about 4 characters of English to a token."""
    english = next(data for name, data in texts(Poc(base="b", lang="sw", eval="e")).files.items() if name.startswith("found-en"))
    said = sum(len(json.loads(row)["text"]) for row in english.splitlines())
    assert said / 4.5 >= WINDOW and methods.calibration(replace(facts("text"), windows={"en": 1, "sw": 32}), budget.smoke(512))["en"] == 1


def test_what_planning_refused_is_looked_at_again_in_the_next_stage():
    """A smoke stage reads little: a language without neurons of its own there may have some in the pilot's text."""
    out = {m: ("absent", Reason(code, values)) for m, code, values in (
        ("steer", "no-neurons", {"language": "Swahili"}), ("prune", "refused", {"why": "x"}), ("lep", "no-instruct", {}))}
    rows = tuple(Outcome(m, m, status, reason) for m, (status, reason) in out.items())
    found = Decision("smoke", "sw", "Swahili", "base", "undecided", "", Reason("undecided-unmeasured"), rows, "", Reason("keep"), 1.0, 1.0)
    assert set(carried(found)) == {"lep"}


def test_the_steps_that_find_no_neurons_say_so_in_words_that_are_known():
    """`stages.EMPTY` is what these two modules raise."""
    from polygraft.analysis.steering import ways
    from polygraft.tune import neurons

    assert f'"{stages.EMPTY[0]}"' in Path(neurons.__file__).read_text() and f'"{stages.EMPTY[1]}"' in Path(ways.__file__).read_text()


def test_two_trained_experts_share_the_steps_of_one():
    found, sizes = facts("data", "text"), budget.smoke(512)
    config = Poc(base="b", lang="sw", eval="e", data="d.jsonl", text="t.jsonl")
    dealt = texts(Poc(base="b", lang="sw", eval="e"))
    both = methods.swap_steps(config, dealt, found, sizes)
    one = methods.swap_steps(config, dealt, facts("task_expert", "text"), sizes)
    assert sum(e["steps"] for e in both if "steps" in e) == sum(e["steps"] for e in one if "steps" in e) == sizes.steps
    assert one[-1]["task"] == "task_expert" and both[-1]["task"] == "swap-task"


# ------------------------------------------------------------------------------------------------------------------- budget


def test_a_stage_has_as_many_steps_and_items_as_its_share_has_room_for():
    before, found = budget.smoke(256), budget.Pace(step=2.0, item=0.5, rest=10.0)
    sizes = budget.fitted("full", 3600, found, before, items=10_000, text_bytes=10**9)
    room = budget.SHARE["full"] * 3600 - 10
    assert sizes.steps == int(budget.TRAINING * room / 2) and sizes.items == int((1 - budget.TRAINING) * room / 0.5)
    assert (sizes.rows, sizes.length) == (before.rows, before.length)


@given(st.floats(1, 1e6), st.floats(0, 100), st.floats(0, 100), st.floats(0, 1e5), st.integers(1, 5000), st.integers(0, 10**9))
def test_no_stage_does_less_than_the_one_before_nor_reads_a_text_too_often(seconds, step, item, rest, items, size):
    before = budget.smoke(256)
    sizes = budget.fitted("pilot", seconds, budget.Pace(step, item, rest), before, items=items, text_bytes=size)
    assert sizes.steps >= before.steps and before.items <= sizes.items <= max(items, budget.PROBLEMS)
    assert not size or sizes.steps <= max(before.steps, budget.LEAST_STEPS, budget.ROUNDS * size / (before.rows * before.length))


def test_the_pace_is_what_a_step_of_all_methods_and_an_item_took():
    found = budget.pace({"swap-language": (20.0, 10), "lep-donor": (30.0, 10)}, [4.0, 8.0], 100.0, 12)
    assert (found.step, found.item, found.rest) == (5.0, 1.0, 38.0)


# ----------------------------------------------------------------------------------------------------------------- licences


@pytest.mark.parametrize("text, licence", [
    ("---\nlicense: apache-2.0\n---\n# x", "apache-2.0"),
    ("---\nlicense: other\nlicense_name: llama3.2\n---\n", "llama3.2"),
    ("---\nlicense:\n  - mit\n  - cc-by-4.0\n---\n", "mit, cc-by-4.0"),
    ("# no front matter\nlicense: mit\n", ""),
    ("---\nlicense: [unclosed\n---\n", ""),
    ("---\nlicense: 3\n---\n", ""),
    ("", ""),
])
def test_a_card_says_its_licence_or_nothing(text, licence):
    assert licences.front_matter(text) == licence


@pytest.mark.parametrize("licence, kinds", [
    ("cc0-1.0", ()), ("apache-2.0", ("oblige-notice",)), ("CC BY-SA 4.0", ("oblige-attribution", "oblige-share-alike")),
    ("cc-by-nc-4.0", ("oblige-attribution", "oblige-non-commercial")), ("gemma", ("oblige-notice", "oblige-terms")),
    ("my-own-terms", ("oblige-terms",)), ("", ("oblige-unknown",)), ("mit, cc-by-4.0", ("oblige-notice", "oblige-attribution")),
])
def test_what_licences_oblige_to(licence, kinds):
    assert licences.kinds(licence) == kinds and all(k in REASONS for k in kinds)


def test_a_mix_obliges_to_what_its_own_sources_do():
    given_ = [Licence("base", "b", "apache-2.0"), Licence("instruct", "i", "gemma"), Licence("text", "t", "cc-by-sa-4.0"), Licence("pairs", "p", "")]
    found = facts("instruct", "text", "pairs")
    swap = {r.code: r.values["sources"] for r in licences.obligations("swap", found, given_)}
    assert swap == {"oblige-share-alike": "text", "oblige-terms": "instruct", "oblige-attribution": "text", "oblige-notice": "base, instruct"}
    slam = {r.code: r.values["sources"] for r in licences.obligations("slam", found, given_)}
    assert slam == {"oblige-unknown": "pairs", "oblige-terms": "instruct", "oblige-notice": "instruct"}


def test_too_little_text_is_refused_with_its_file(tmp_path):
    file = lines(tmp_path / "sw.jsonl", [{"text": "maji"}])
    with pytest.raises(InputError, match="too little text"):
        texts(Poc(base="b", lang="sw", eval="e", text=str(file)))


@pytest.mark.parametrize("option, row, words", [
    ("data", {"prompt": "Ngapi?", "response": "3"}, "not an example"),
    ("data", {"prompt": "Ngapi?", "completion": ""}, "is empty"),
    ("pairs", {"question": "Ngapi?", "anglais": "How many?"}, "no such column"),
])
def test_a_training_file_that_teaches_nothing_is_refused_before_anything_is_planned(tmp_path, option, row, words):
    asked_ = lines(tmp_path / "e.jsonl", [{"question": f"Wapi {i}?", "choices": ["a", "b"], "answer": 0} for i in range(8)])
    config = Poc(base="b", lang="sw", eval=str(asked_), **{option: str(lines(tmp_path / "t.jsonl", [row]))})
    with pytest.raises(InputError, match=words) as raised:
        check_files(config, target(asked_, "sw"))
    assert "t.jsonl" in str(raised.value)


# ------------------------------------------------------------------------------------------------------------------- recipe


def test_the_recipe_keeps_items_apart_and_lays_adapters_on_the_base(tmp_path):
    words = lines(tmp_path / "sw.jsonl", [{"text": f"{w} {i} " + "neno " * 30} for i, w in enumerate(WORDS * 4)])
    asked_ = lines(tmp_path / "e.jsonl", [{"question": "Wapi?", "choices": ["a", "b"], "answer": 0}])
    config = Poc(base="org/base", lang="sw", eval=str(asked_), text=str(words), pairs="pairs.jsonl", task_expert="org/lora")
    found = replace(facts("task_expert", "text", "pairs"), adapters=frozenset({"task_expert"}))
    made = writing.recipe("out", config, target(asked_, "sw"), texts(config), found, budget.smoke(512), ["swap", "slam", "neurons", "prune"])
    tree = parse_document(made.text, "poc.yaml").tree
    assert tree["models"] == {"base": "org/base", "task_expert": {"adapter": "org/lora", "base": "base"}}
    steps = {s["id"]: s for s in tree["steps"]}
    assert list(steps)[:3] == ["read", "owned", "layers"] and set(made.owners) == set(steps)
    assert made.owners["read"] == ("slam", "neurons") and made.owners["scores-prune"] == ("prune",)
    for id, step in steps.items():
        assert step["use"].startswith("tune.") == ("mix" in step), id
    assert steps["slam"]["mix"]["against"] == [f"inputs/{target(asked_, 'sw').task}"] and steps["slam"]["pairs"]["sw"].startswith("/")
    assert len({json.dumps(s["tasks"]) for s in steps.values() if s["use"] == "eval"}) == 1, "all are asked the same"
    assert len({(s["steps"], s["batch"], s["length"]) for s in steps.values() if s["use"].startswith("tune.")}) == 1
