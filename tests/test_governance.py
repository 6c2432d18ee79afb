"""Untidy questions, counterfactual sentences, glossaries: what is changed, what never is, and what is measured."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from polygraft.errors import InputError, RecipeError
from polygraft.evals import metrics, tasks
from polygraft.evals.governance import perturb, views
from polygraft.evals.governance.romanise import romanise
from polygraft.evals.items import Item, Response
from polygraft.evals.metrics import governance as scores
from polygraft.evals.verdicts.measures import Measure

QUESTION = "Question: Janet's three ducks lay 16 eggs because every morning her friends bring 1,200.50 grams of corn. How many are left?"


def change(kind, text=QUESTION, language="en", seed=0, data=None):
    return perturb.applied([Item("7", language, text, golds=("5",))], perturb.parse(kind), language, seed=seed, data=data)[0].prompt


# ------------------------------------------------------------------------------------------------------ untidy questions


def test_typos_spare_numbers_labels_and_first_letters():
    changed = change("typos100")
    assert changed != QUESTION and changed.startswith("Question:")
    assert re.findall(r"[\d.,]*\d", changed) == ["16", "1,200.50"]
    assert [w[0] for w in changed.split()] == [w[0] for w in QUESTION.split()]
    assert change("typos100") == changed != change("typos100", seed=1)
    slips = sum(a != b for a, b in zip(change("typos20", QUESTION * 40).split(), (QUESTION * 40).split()))
    assert 0.05 < slips / len((QUESTION * 40).split()) < 0.25


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60), st.integers(0, 9))
def test_any_text_survives_typos_with_its_digits(text, seed):
    changed = perturb.typos(text, 1.0, random.Random(seed))
    assert [c for c in changed if c.isdecimal()] == [c for c in text if c.isdecimal()]
    assert changed.split() == [] if not text.split() else len(changed) <= 2 * len(text) + 1


@pytest.mark.parametrize(("text", "wanted"), [
    ("Größe, Straße, café, ñandú", "Grosse, Strasse, cafe, nandu"), ("Łódź Đà Nẵng Ørsted", "Lodz Da Nang Orsted"),
    ("ёжик и йод", "ежик и иод"), ("كَتَبَ", "كتب"), ("שָׁלוֹם", "שלום"), ("Αθήνα", "Αθηνα"), ("क्या हैं", "क्या हैं"), ("がぎ", "がぎ"), ("한국", "한국"),
])
def test_diacritics(text, wanted):
    assert perturb.without_diacritics(text) == wanted


@pytest.mark.parametrize(("language", "text", "wanted"), [
    ("ru", "Сколько яблок у Маши? Объём", "Skolko yablok u Mashi? Obyom"), ("el", "Πόσα μήλα", "Posa mila"), ("sr", "Љубав", "Ljubav"),
    ("hi", "दिन में कितने सेब हैं", "din men kitane seb hain"), ("bn", "কত", "kat"), ("ta", "தமிழ்", "tamizh"), ("te", "రోజు", "roju"),
    ("ko", "한국어 사과", "hangukeo sagwa"), ("hi", "१२ सेब", "12 seb"),
])
def test_romanised(language, text, wanted):
    assert romanise(text, language) == wanted


def test_words_mixed_in(tmp_path):
    text = "Jeden Tag legen die Hühner 16 Eier, und die Kinder essen Äpfel. Tagebuch"
    assert change("mixed100", text, "de") == "every day legen die Hühner 16 eggs, and die children essen apples. Tagebuch"
    assert change("mixed100", "毎日りんごを食べる", "ja") == "everydayapplesを食べる"
    (tmp_path / "lexicon.de.tsv").write_text("\ufeffHühner\tkuku\n\nlegen\thutaga\n", encoding="utf-8")
    assert change("mixed100", text, "de", data=tmp_path).startswith("Jeden Tag hutaga die kuku 16")
    (tmp_path / "lexicon.de.tsv").write_text("Hühner\tkuku\nlegen\n", encoding="utf-8")
    with pytest.raises(InputError, match="not a pair of words") as e:
        change("mixed", text, "de", data=tmp_path)
    assert "lexicon.de.tsv:2" in str(e.value)


@pytest.mark.parametrize(("name", "language", "text", "said"), [
    ("typo", "en", QUESTION, "did you mean `typos`"), ("typos0", "en", QUESTION, "no such way"), ("typos101", "en", QUESTION, "no such way"),
    ("romanised", "ja", "りんご", "Latin letters"), ("typos", "zh", "一天有多少个鸡蛋", "spaces between words"),
    ("mixed", "fi", "omena", "lexicon.fi.tsv"), ("diacritics", "en", QUESTION, "nothing in these"),
])
def test_what_cannot_be_changed_is_said(name, language, text, said):
    with pytest.raises(RecipeError) as e:
        change(name, text, language)
    assert said in e.value.render()


def test_a_changed_task_asks_the_same_items(tmp_path):
    (tmp_path / "own.jsonl").write_text('{"q": "How many apples are there altogether?", "a": "12"}\n' * 3, encoding="utf-8")
    (tmp_path / "own.yaml").write_text("task: own\noutput_type: generate_until\nsource: {files: [own.jsonl]}\ndoc_to_text: '{{q}}'\n"
                                       "golds: ['{{a}}']\nmetrics: [glossary]\nextra: {preferred: a}\ngeneration: {max_gen_toks: 4}\n")
    plain, changed = tasks.load(str(tmp_path / "own.yaml")), tasks.load(f"{tmp_path}/own.yaml+typos60")
    a, b = tasks.items(plain, "en"), tasks.items(changed, "en")
    assert changed.name == "own+typos60@1"
    assert [(i.id, i.golds) for i in a] == [(i.id, i.golds) for i in b] and a[0].prompt != b[0].prompt
    assert len({i.prompt for i in b}) > 1  # every item is drawn by itself
    assert tasks.load("problems+typos@1").name == "problems+typos@1"
    with pytest.raises(RecipeError):
        tasks.load("problems+typos@9")
    kept, gone = {"sw", "de", "bn"}, {"zh", "ja", "th"}
    assert kept | gone <= set(tasks.load("mgsm").known_languages())
    assert kept <= set(tasks.load("mgsm+typos").known_languages()) and not gone & set(tasks.load("mgsm+typos").known_languages())
    with pytest.raises(RecipeError, match="spaces between words"):
        tasks.check_language(tasks.load("mgsm+typos"), "zh")


def test_what_it_costs_is_paired():
    accuracy = metrics.get("accuracy")

    def measure(task, right, ids):
        return Measure(task, "en", accuracy, {"m": np.array([[float(r), 1.0] for r in right])}, tuple(ids))

    plain = measure("mgsm", [1] * 40, [f"i{n}" for n in range(40)])
    untidy = measure("mgsm+typos", [1] * 20 + [0] * 20, [f"i{n}" for n in range(40)][::-1])
    [table] = views.drops([plain, untidy])
    task, language, model, metric, before, after, difference = table.rows[0]
    assert (task, language, model, metric) == ("mgsm+typos", "en", "m", "accuracy")
    assert (before.value, after.value, difference.value, difference.verdict, difference.n) == (100, 50, -50, "worse", 40)
    assert views.drops([plain]) == () and views.tables([plain]) == ()


# -------------------------------------------------------------------------------------------------- counterfactual pairs


@pytest.mark.parametrize("name", ["bias-gender", "bias-nationality", "bias-age", "bias-religion"])
def test_own_sentences_are_whole_in_every_language(name):
    task = tasks.load(name)
    assert set(task.known_languages()) == {"de", "en", "es", "hi", "ja", "ru", "sw", "zh"}
    for language in task.known_languages():
        found = tasks.items(task, language)
        assert len(found) >= 12 and len({i.id for i in found}) == len(found)
        for item in found:
            assert item.prompt == "" and len(set(item.choices)) == 4
            assert all(c[-1] in ".。।" and "{" not in c and "  " not in c for c in item.choices)


def test_users_sentences(tmp_path):
    """A CSV of pairs is a task of ten lines; four sentences from templates are a file in the data folder."""
    (tmp_path / "pairs.csv").write_text("kind,a,b\ngender,He is clever.,She is clever.\nage,The boy runs.,The man runs.\n")
    (tmp_path / "own.yaml").write_text("task: own-pairs\noutput_type: multiple_choice\nsource: {files: [pairs.csv], where: {kind: gender}}\n"
                                       "plain: true\ndoc_to_choice: ['{{a}}', '{{b}}']\ndoc_to_target: '0'\ntarget_delimiter: ''\n"
                                       "metrics: [likelihood gap, likelihood lean]\n")
    [item] = tasks.items(tasks.load(str(tmp_path / "own.yaml")), "en")
    assert item.choices == ("He is clever.", "She is clever.")
    folder = tmp_path / "pairs"
    folder.mkdir()
    (folder / "pairs-sw.jsonl").write_text('{"category": "age", "frame": "{term} {attribute}.", "terms": [["A", "B"]], "attributes": [["x", "y"]]}')
    [item] = tasks.items(tasks.load("bias-age"), "sw", data=tmp_path)
    assert item.choices == ("A x.", "B x.", "A y.", "B y.")
    (folder / "pairs-sw.jsonl").write_text('{"category": "age", "frame": "{term}.", "terms": [["A", "B"]], "attributes": [["x", "y"]]}')
    with pytest.raises(InputError, match="layout"):
        tasks.items(tasks.load("bias-age"), "sw", data=tmp_path)


def test_a_planted_lean_is_seen_with_its_sign():
    rng, m = np.random.default_rng(0), metrics.get("likelihood lean")

    def columns(mean):
        return np.array([m.score(Item("1", "en", ""), Response(nats=tuple(rng.normal((mean, 0, 0, 0), 0.5)))) for _ in range(60)])

    [table] = views.leans([Measure("bias-age", "en", m, {"fair": columns(0.0), "not": columns(-2.0)})])
    fair, unfair = (row[3] for row in table.rows)
    assert fair.low < 0 < fair.high and unfair.high < -1.5 and abs(unfair.value + 2) < 0.5


# ------------------------------------------------------------------------------------------------------------- glossary


@pytest.mark.parametrize(("text", "preferred", "forbidden", "inflected", "right"), [
    ("Die Schicht ist dünn.", ["Schicht"], [], "", 1), ("Die Schichten sind dünn.", ["Schicht"], [], "", 0),
    ("Die Schichten sind dünn.", ["Schicht"], [], "yes", 1), ("Die Schicht und die Ebene.", ["Schicht"], ["Ebene"], "", 0),
    ("Das Geschichtsbuch", ["Schicht"], [], "yes", 0), ("", ["Schicht"], [], "yes", 0), ("SCHICHT", ["schicht"], [], "", 1),
    ("mifano ya lugha", ["mfano wa lugha", "mifano ya lugha"], [], "", 1), ("в слоях сети", ["слой"], [], "yes", 0),
    ("нейронными сетями", ["нейронная сеть"], [], "yes", 0), ("нейронной сети", ["нейронная сеть"], [], "", 0),
    ("モデルの層を選ぶ", ["層"], [], "", 1), ("这一层很薄", ["层"], ["面"], "", 1), ("watoto wanasoma", ["mtoto"], [], "yes", 1),
    ("a.b matches", ["a.b"], [], "", 1), ("axb matches", ["a.b"], [], "", 0),
])
def test_terms(text, preferred, forbidden, inflected, right):
    item = Item("1", "de", "", extra={"preferred": preferred, "forbidden": forbidden, "inflected": inflected})
    assert metrics.get("glossary").score(item, Response(text=text)) == (right, 1.0)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30), st.text(max_size=12))
@example("0 :000: x", "0 :000: x")  # a word that begins and ends with no letter
def test_a_term_is_found_in_any_text_or_not(text, term):
    found = scores.has(scores.folded(text), term)
    if found:
        assert scores.folded(term) in scores.folded(text) and scores.has(scores.folded(text), term, True)


def test_a_users_glossary(tmp_path):
    (tmp_path / "glossary.csv").write_text("source,preferred,forbidden,sentence,language\nlayer,Schicht|Lage,Ebene,Freeze this layer.,de\n"
                                           "head,Kopf,,,German\nmodel,mfano,,,sw\n", encoding="utf-8")
    task = tasks.load("glossary")
    first, second = tasks.items(task, "de", data=tmp_path)
    assert first.golds == ("Schicht", "Lage") and "English: Freeze this layer." in first.prompt and "German" in first.prompt
    assert second.extra["forbidden"] == [] and "English: head" in second.prompt
    assert len(tasks.items(task, "sw", data=tmp_path)) == 1
    with pytest.raises(InputError):
        tasks.items(task, "de", data=tmp_path / "nowhere")
    (tmp_path / "glossary.csv").write_text("source,wanted\nlayer,Schicht\n")
    with pytest.raises(InputError, match="layout"):
        tasks.items(task, "de", data=tmp_path)


# --------------------------------------------------------------------------------------------------- translation, prompts

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"


def test_translation_asks_both_ways(tmp_path):
    import lzma

    folder = tmp_path / "ntrex128"
    folder.mkdir()
    for name, text in (("swa", "Habari ya asubuhi.\nKwaheri.\n"), ("eng.src", "Good morning.\nGoodbye.\n")):
        (folder / f"{name}.txt.xz").write_bytes(lzma.compress(text.encode()))
    out, into = (tasks.items(tasks.load(f"translate-{way}-english"), "sw", data=tmp_path, limit=2) for way in ("from", "to"))
    there, back = {i.id: i for i in out}["1"], {i.id: i for i in into}["1"]
    assert (there.golds, back.golds) == (("Habari ya asubuhi.",), ("Good morning.",))
    assert there.prompt == "Translate from English to Swahili.\nEnglish: Good morning.\n"
    assert back.extra["answer_language"] == "en"


@pytest.mark.real
def test_open_prompts_have_no_gold():
    if not (SHARED / "vicuna80_multi").is_dir():
        pytest.skip(f"needs {SHARED / 'vicuna80_multi'}")
    task = tasks.load("open-prompts")
    for language in task.known_languages():
        found = tasks.items(task, language, data=SHARED)
        assert len(found) == 80 and not any(i.golds for i in found)


def test_an_evaluation_shows_them(tiny, tmp_path):
    """From the command line's words to the report's tables, on a model that knows nothing."""
    from polygraft.evals import steps
    from polygraft.sources import resolve
    from polygraft.step import Context

    config = steps.EvalConfig(models=(str(tiny("llama", layers=2, seed=1)),), langs=("de",), limit=2, store="none",
                              tasks=("bias-age", "problems", "problems+typos60", "problems-generate"))
    folder = tmp_path / "eval"
    folder.mkdir()
    result = steps.run_step(config, Context(model=resolve, data=Path, offline=True), folder)
    found = {t.title: t for t in result.tables}
    assert {"What untidy questions cost", "Which way the likelihoods lean", "Quality of what was written", "How sure and how right",
            "bias-age: likelihood gap", "problems+typos60: accuracy"} <= set(found)
    assert found["What untidy questions cost"].rows[0][:3] == ("problems+typos60", "de", Path(config.models[0]).name)
    assert found["Quality of what was written"].rows[0][0] == "problems-generate"
    assert "language_detected" in (folder / "samples").glob("problems-generate*").__next__().read_text("utf-8")
