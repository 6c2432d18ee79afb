"""Suites and the tasks made from plain parallel text: what is asked, that a planted ability is found, and how averages are made."""

import gzip
import json
import lzma

import numpy as np
import pytest

from polygraft import cli
from polygraft.errors import InputError, RecipeError
from polygraft.evals import metrics, run, tasks
from polygraft.evals.engines.base import Written
from polygraft.evals.responses import Store
from polygraft.evals.run import Job
from polygraft.evals.tasks import shapes_parallel, suites
from polygraft.evals.verdicts import compare
from polygraft.evals.verdicts import suites as results
from polygraft.evals.verdicts.measures import from_records

DOCUMENTS, EACH = 6, 8
HEROES = ("simba", "chui", "kobe", "twiga", "fisi", "mamba")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """NTREX's layout: 48 lines of 6 documents in Swahili, Japanese and English; UDHR's with one edition."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "ntrex128").mkdir()
    (folder / "udhr").mkdir()
    places = [(d, n) for d in range(DOCUMENTS) for n in range(EACH)]
    texts = {"eng.src": "In the story numbered {d} this is the sentence {n}, which says {w} and ends.",
             "swa": "Katika hadithi ya {d} hii ni sentensi ya {n}, inayosema {w} na kuisha.", "jpn": "物語{d}の文{n}、{w}と言う。"}
    for code, text in texts.items():
        said = {(d, n): f"{HEROES[d]} " * (n % 5 + 1) for d, n in places}  # a story's hero is all that its sentences share
        lines = "".join(text.format(d=d, n=n, w=said[d, n].replace(" ", "" if code == "jpn" else " ")) + "\n" for d, n in places)
        (folder / "ntrex128" / f"{code}.txt.xz").write_bytes(lzma.compress(lines.encode()))
    (folder / "ntrex128" / "document_ids.tsv.gz").write_bytes(gzip.compress("".join(f"doc.{d}\n" for d, _ in places).encode()))
    edition = "\n".join(f"    Tiep ureung nyang keu {n} na hak droe, ngon {'bandum ' * (n % 4 + 1)}that." for n in range(40))
    rows = [{"code": "ace", "text": edition}, {"code": "eng", "text": "Everyone has the right to life."}]
    (folder / "udhr" / "udhr.jsonl.xz").write_bytes(lzma.compress("".join(json.dumps(r) + "\n" for r in rows).encode()))
    return folder


def asked(data, name, language, **options):
    return tasks.items(tasks.load(name), language, data=data, **options)


# ------------------------------------------------------------------------------------------------------ tasks from plain text


TEXT_TASKS = ("copy-sentence", "copy-paragraph", "next-sentence", "match-translation", "parallel-nats")


@pytest.mark.parametrize("name", TEXT_TASKS)
def test_every_language_is_asked_the_same_lines_in_the_same_order(data, name):
    assert [i.id for i in asked(data, name, "sw")] == [i.id for i in asked(data, name, "ja")]
    few = asked(data, name, "sw", limit=3)
    assert few == asked(data, name, "sw")[:3]


def test_the_first_items_are_from_everywhere(data):
    assert len({i.group for i in asked(data, "parallel-nats", "sw", limit=8)}) > 3


@pytest.mark.parametrize("name", ["copy-sentence", "copy-paragraph"])
def test_what_is_to_be_copied_stands_in_the_prompt(data, name):
    for item in asked(data, name, "sw"):
        assert item.golds[0] in item.prompt and item.prompt.startswith("Rudia")
        assert "\n" not in item.golds[0]


def test_paragraphs_stay_in_their_document_and_join_as_the_language_does(data):
    for item in asked(data, "copy-paragraph", "ja"):
        stories = {part.partition("の")[0] for part in item.golds[0].split("。") if part}
        assert len(stories) == 1 and " " not in item.golds[0]


def test_the_next_sentence_is_the_one_that_follows_and_the_others_are_of_other_documents(data):
    for item in asked(data, "next-sentence", "sw"):
        story = item.prompt.split(" ya ")[1].split(" ")[0]
        right = item.choices[item.target]
        assert f"ya {story} hii" in right and right.startswith(" ")
        assert all(f"ya {story} hii" not in c for k, c in enumerate(item.choices) if k != item.target)
        assert len(item.choices) == 4 and len(set(item.choices)) == 4


def test_right_choices_stand_everywhere(data):
    for name in ("next-sentence", "match-translation"):
        assert len({i.target for i in asked(data, name, "sw")}) == 4


def test_the_translation_is_the_aligned_line(data):
    for item in asked(data, "match-translation", "sw"):
        d, n = item.prompt.split("numbered ")[1].split(" ")[0], item.prompt.split("sentence ")[1].split(",")[0]
        assert f"ya {d} hii ni sentensi ya {n}," in item.choices[item.target]
        assert item.prompt.endswith("Swahili:")


def test_nats_are_asked_without_a_prompt_and_counted_by_document(data):
    items = asked(data, "parallel-nats", "sw")
    assert len(items) == DOCUMENTS * EACH
    assert {(i.prompt, len(i.choices)) for i in items} == {("", 1)} and len({i.group for i in items}) == DOCUMENTS


def test_a_language_with_nothing_but_the_declaration_has_copying_and_the_next_sentence(data):
    assert asked(data, "copy-sentence", "ace") and asked(data, "copy-paragraph", "ace") and asked(data, "next-sentence", "ace")
    with pytest.raises(RecipeError, match="no such language"):
        asked(data, "match-translation", "ace")


def test_the_hubs_table_is_read_as_the_files_are():
    rows = [{"eng_Latn": f"This is the English sentence number {n} of the table.", "swa_Latn": f"Hii ni sentensi {n}."} for n in range(40)]
    found = shapes_parallel.parallel(rows, {"language": "sw", "column": "swa_Latn"})
    assert [r["line"] for r in found] == list(range(1, 41)) and found[3]["text"] == "Hii ni sentensi 3."
    assert len({r["document"] for r in found}) == 3  # nothing says where documents end: blocks of 16 lines


def test_files_that_are_not_line_aligned_are_refused(data, tmp_path):
    (tmp_path / "ntrex128").mkdir()
    for name in ("eng.src.txt.xz", "document_ids.tsv.gz"):
        (tmp_path / "ntrex128" / name).write_bytes((data / "ntrex128" / name).read_bytes())
    (tmp_path / "ntrex128" / "swa.txt.xz").write_bytes(lzma.compress(b"Moja.\nMbili.\n"))
    with pytest.raises(InputError, match="a line for each other"):
        asked(tmp_path, "copy-sentence", "sw")


def test_too_little_text_is_refused_by_name(tmp_path):
    (tmp_path / "ntrex128").mkdir()
    (tmp_path / "ntrex128" / "swa.txt.xz").write_bytes(lzma.compress(("Hii ni sentensi moja tu, na ni ndefu ya kutosha.\n" * 3).encode()))
    with pytest.raises(InputError, match="next_sentence"):
        asked(tmp_path, "next-sentence", "sw")


# ------------------------------------------------------------------------------------------------------------- suite files


@pytest.mark.parametrize("word", ["darumeru", "darumeru:sw", "darumeru:ja"])
def test_every_part_names_a_metric_of_its_task(word):
    for part, entry in suites.expand(word).asked:
        assert metrics.get(part.score) in [metrics.get(m) for m in entry.task.metrics], part.task
        assert entry.language in entry.task.known_languages()


def test_darumeru_is_17_datasets_of_which_4_are_copies():
    asked_for = suites.expand("darumeru").asked
    assert len(asked_for) == 17
    assert [sum(p.group == g for p, _ in asked_for) for g in ("DaruMMLU", "DaruMERA", "DaruSum", "DaruCopy")] == [3, 8, 2, 4]


def test_base_models_get_examples_and_chat_models_none():
    shots = {chat: {p.task: e.shots for p, e in suites.expand("darumeru:sw", chat=chat).asked} for chat in (False, True)}
    assert (shots[False]["copy-sentence"], shots[True]["copy-sentence"]) == (5, 0)
    assert shots[False]["parallel-nats"] == shots[True]["parallel-nats"] == 0
    assert {e.shots for p, e in suites.expand("darumeru:sw", shots=2).asked if p.shots is None} == {2}


def test_limits_are_the_smaller_of_the_two():
    limits = {p.task: e.limit for p, e in suites.expand("darumeru:sw", limit=60).asked}
    assert (limits["copy-sentence"], limits["copy-paragraph"]) == (60, 50)


def test_english_is_not_translated_into_itself_nor_copied_twice():
    found = [(p.task, e.language) for p, e in suites.expand("darumeru:en").asked]
    assert len(found) == len(set(found)) and not {"match-translation", "translate-from-english"} & {t for t, _ in found}


def test_what_the_data_folder_lacks_is_left_out_only_where_it_may_be(data):
    found = {p.task for p, _ in suites.expand("darumeru:sw", data=data).asked}
    assert "xcopa" not in found and {"copy-sentence", "match-translation", "parallel-nats"} <= found


@pytest.mark.parametrize(("word", "what"), [
    ("darumeru:swa_Latin", "no such language tag"), ("darumeru@9", "this version"), ("darumeru:", "no such language tag")])
def test_words_that_are_no_suite_are_refused(word, what):
    with pytest.raises(RecipeError, match=what):
        suites.load(word)


def test_a_language_that_has_no_text_at_all_is_refused():
    with pytest.raises(RecipeError, match="no such language"):
        suites.expand("darumeru:tlh" if "tlh" in tasks.load("copy-sentence").known_languages() else "darumeru:x-none")


def test_a_task_asked_in_two_ways_is_refused_and_twice_the_same_is_asked_once():
    with pytest.raises(RecipeError, match="in two ways"):
        list(suites.planned(["darumeru:sw", "copy-sentence"], ["sw"]))
    assert len(list(suites.planned(["copy-sentence", "copy-sentence"], ["sw"]))) == 1
    assert len(list(suites.planned(["darumeru:sw", "darumeru:ja"], []))) > len(list(suites.planned(["darumeru:sw"], [])))


# ------------------------------------------------------------------------------------------------------ planted abilities


class Writer:
    """An engine that copies as told, and finds likeliest the text that shares most words with what it was shown."""

    max_length, name = 100_000, "writer"

    def __init__(self, copy):
        self.copy = copy

    def pairs(self, pairs, done):
        def nats(context, text):
            here, words = set(context.replace(",", " ").split()), text.replace(",", " ").split()
            return -len(text) * (1.1 - sum(w in here for w in words) / max(1, len(words)))
        done([(i, (nats(*p), False)) for i, p in enumerate(pairs)])

    def generate(self, prompts, decoding, done):
        texts = [self.copy(p.rsplit(": ", 1)[-1].rsplit("\n", 1)[0]) for p in prompts]
        done([(i, Written(t, self.count(t), True)) for i, t in enumerate(texts)])

    def documents(self, texts, window, stride):
        return []

    def count(self, text):
        return len(text.split())


def records(data, words, engines, tmp_path):
    entries = list(suites.planned(words, [], data=data, limit=12))
    jobs = [Job(e.language, e.task, tuple(tasks.items(e.task, e.language, data=data, shots=e.shots, limit=e.limit))) for e in entries]
    found = {}
    for name, engine in engines.items():
        with Store(tmp_path, name) as store:
            found[name] = run.run_jobs(engine, jobs, folder=None, model=name, store=store, computed={})
    return [m for n, j in enumerate(jobs) for m in from_records(j.task.task, j.language, {e: f[n] for e, f in found.items()})]


@pytest.fixture(scope="module")
def measured(data, tmp_path_factory):
    engines = {"faithful": Writer(lambda text: text), "stops": Writer(lambda text: text[: len(text) // 2])}
    return records(data, ["darumeru:sw"], engines, tmp_path_factory.mktemp("store"))


def test_a_model_that_copies_is_told_from_one_that_stops(data, measured):
    suite = results.composition(suites.expand("darumeru:sw", data=data))
    figures = {f.language: f for f in results.figures(suite, measured)}
    assert figures["Copy"].observed("faithful") == pytest.approx(1.0)
    assert figures["Copy"].observed("stops") == pytest.approx(figures["English copy"].observed("stops"), abs=0.1)
    assert figures["Copy"].observed("stops") < 0.4
    c = compare.compared(measured, "faithful", extra=figures.values())
    told = {d.language: d.verdict for d in c.differences if d.metric == results.SCORE.name}
    assert told["Copy"] == "worse" and told["Text"] == "not distinguishable"


def test_shared_words_find_the_next_sentence(measured):
    [m] = [m for m in measured if m.task == "next-sentence"]
    assert float(m.metric.value(m.columns["faithful"].sum(0))) > 0.6


def test_the_average_is_the_plain_mean_of_the_datasets(data, measured):
    suite = results.composition(suites.expand("darumeru:sw", data=data))
    micro, *groups = results.figures(suite, measured)
    values = [float(m.metric.value(m.columns["stops"].sum(0))) / (1 if m.metric.unit == "%" else 100)
              for p, m in results.parts(suite, measured) if p.average]
    assert micro.language == f"Micro-Avg of {len(values)}" and len(values) == 7
    assert micro.observed("stops") == pytest.approx(np.mean(values), abs=1e-12)
    assert [g.language for g in groups] == ["Copy", "English copy", "Text", "Translation"]
    assert all(0 <= g.observed(m) <= 1 for g in groups for m in g.models)


def test_the_interval_of_the_average_is_that_of_drawing_items_anew(data, measured):
    suite = results.composition(suites.expand("darumeru:sw", data=data))
    [micro, *_] = results.figures(suite, measured)
    samples = compare.draw([micro], seed=0, draws=4000)
    got = compare.estimate(micro, "stops", samples)
    rng, means = np.random.default_rng(7), []
    for _ in range(2000):  # naive: every dataset drawn by itself
        values = []
        for part in micro.parts:
            a = part.columns["stops"]
            values.append(float(part.metric.value(a[rng.integers(0, len(a), len(a))].sum(0))))
        means.append(np.mean(values))
    low, high = np.quantile(means, [0.025, 0.975]) * 100
    assert got.low == pytest.approx(low, abs=1.5) and got.high == pytest.approx(high, abs=1.5)


def test_tables_name_every_dataset_and_the_nats_beside_english(data, measured):
    suite = results.composition(suites.expand("darumeru:sw", data=data))
    c = compare.compared(measured, "faithful", extra=results.figures(suite, measured))
    scores, averages, differences_of_averages, differences, beside, nats = results.tables([suite], measured, c)
    assert scores.columns == ("dataset", "score", "faithful", "stops") and differences.columns == ("dataset", "score", "stops")
    assert len(scores.rows) == len(differences.rows) == 9 and scores.rows[-1][:2] == ("parallel-nats en", "nats per sentence")
    assert averages.columns == ("model", "Micro-Avg of 7", "Copy", "English copy", "Text", "Translation")
    assert differences_of_averages.rows[0][1].verdict == "worse"
    assert ("copy-sentence sw", "copy characters") in [r[:2] for r in beside.rows]
    assert "5 before copy-sentence, translate-from-english; 2 before copy-paragraph" in scores.note
    assert {(r[0], r[1]) for r in nats.rows} == {(lang, m) for lang in ("sw", "en") for m in ("faithful", "stops")}
    assert [r[3] for r in nats.rows if r[0] == "en"] == [1.0, 1.0]
    assert {d.metric for d in results.told([suite], c).differences} == {"suite score"}
    assert len(results.tables([suite], measured, c, ["copy-sentence"])) > 6  # asked for by its own name: its own tables, too
    whole = results.composition(suites.expand("darumeru:sw"))
    assert "xcopa sw" in results.notes([whole], measured)[0]


def test_documents_are_drawn_as_wholes(measured):
    [m] = [m for m in measured if (m.task, m.language) == ("parallel-nats", "sw")]
    assert m.n <= DOCUMENTS and m.columns["stops"][:, 1].sum() == 12


def test_polygraft_tasks_shows_a_suites_members_and_what_the_data_folder_lacks(tmp_path, capsys):
    (tmp_path / "xnli").mkdir()
    assert cli.run(["tasks", "darumeru:sw", "--data", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "Copy: copy-sentence@1 sw" in said and "left out: jcommonsenseqa sw: the task has no Swahili" in said
    assert "left out: xcopa sw: the data folder has no xcopa" in said and "left out: copy-sentence" not in said
    assert cli.run(["tasks"]) == 0 and "+romanised" in capsys.readouterr().out
