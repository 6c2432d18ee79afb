"""The shipped tasks of understanding: the same text as lm-eval's for the same rows, every layout, and the real data where they are."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
from collections import Counter
from pathlib import Path

import pytest

import shippedrows
from polygraft.errors import InputError, RecipeError
from polygraft.evals import tasks
from polygraft.evals.tasks import rendering, rows

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
MINE = ("afriqa", "afrisenti", "arc", "arc-challenge", "belebele", "blimp", "cmmlu", "global-mmlu", "hellaswag", "hellaswag-en",
        "jcommonsenseqa", "jmmlu", "jnli", "jsquad", "mkqa", "mmlu", "pawsx", "rublimp", "rucola", "rucola-written", "sib200", "tydiqa",
        "tydiqa-train", "xcopa", "xnli", "xquad")  # fmt: skip
SHOTS = 2
TWINS = [  # task, language, made-up rows, lm-eval's file
    *(("belebele", tag, "belebele", f"belebele/belebele_{code}.yaml") for tag, code in (("de", "deu_Latn"), ("ar-Latn", "arb_Latn"))),
    *(("xnli", tag, "xnli", f"xnli/xnli_{tag}.yaml") for tag in ["ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh"]),
    *(("xquad", tag, "squad", f"xquad/xquad_{tag}.yaml") for tag in ["ar", "de", "el", "en", "es", "hi", "ro", "ru", "th", "tr", "vi", "zh"]),
    ("tydiqa", "sw", "squad", "tydiqa/tydiqa_goldp_sw.yaml"),
    *(("xcopa", tag, "xcopa", f"xcopa/default_{tag}.yaml") for tag in ["et", "ht", "id", "it", "qu", "sw", "ta", "th", "tr", "vi", "zh"]),
    *(("pawsx", tag, "pawsx", f"paws-x/paws_{tag}.yaml") for tag in ["de", "en", "es", "fr", "ja", "ko", "zh"]),
    ("global-mmlu", "sw", "global_mmlu", "global_mmlu/full/sw/global_mmlu_full_sw_anatomy.yaml"),
    ("cmmlu", "zh", "cmmlu", "cmmlu/cmmlu_anatomy.yaml"),
    ("arc", "de", "m_arc", "okapi/arc_multilingual/arc_de.yaml"), ("arc-challenge", "en", "arc", "arc/arc_challenge.yaml"),
    ("hellaswag", "de", "hellaswag", "okapi/hellaswag_multilingual/hellaswag_de.yaml"),
    ("hellaswag-en", "en", "hellaswag", "hellaswag/hellaswag.yaml"), ("blimp", "en", "blimp", "blimp/adjunct_island.yaml"),
    ("sib200", "sw", "sib200", "afrobench/sib/prompt_1/sib_swa.yaml"),
    ("jcommonsenseqa", "ja", "jcommonsenseqa", "japanese_leaderboard/ja_leaderboard_jcommonsenseqa.yaml"),
    ("jnli", "ja", "jnli", "japanese_leaderboard/ja_leaderboard_jnli.yaml"),
    ("jsquad", "ja", "jsquad", "japanese_leaderboard/ja_leaderboard_jsquad.yaml"),
    ("afriqa", "sw", "afriqa", "afrobench/afriqa/prompt_1/afriqa_swa.yaml"),
    ("afrisenti", "sw", "afrisenti", "afrobench/afrisenti/prompt_1/afrisenti_swa.yaml"),
]  # fmt: skip


@pytest.fixture
def hub(monkeypatch):
    """Serve rows as the hub would: `hub[split]` is a list of rows, `asked` what was asked for."""
    import datasets

    class Hub(dict):
        asked: list[tuple] = []

    served = Hub()
    served.asked = []

    def load(path, name=None, *, split, revision=None):
        served.asked.append((path, name, split, revision))
        return served[split]

    monkeypatch.setattr(datasets, "load_dataset", load)
    return served


def sent(task, item):
    """What a model is sent: the text and its continuations."""
    form = rendering.form(task, item.language)
    return rendering.plain(item, len(item.examples), form), [form.delimiter + c for c in item.choices]


def theirs(file, shown, asked, shots):
    """What lm-eval sends for the rows: (text, continuations, place of the right one or the gold) an item."""
    import datasets
    import lm_eval
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    whole = not file.startswith("xquad/")  # which scores with a module that transformers 5 no longer has; the text needs none of it
    config = load_yaml(Path(lm_eval.__file__).parent / "tasks" / file, resolve_func=whole)
    if not whole:
        config.pop("process_results")
    for name in ("dataset_kwargs", "group", "tag", "task_alias", "dataset_name"):
        config.pop(name, None)
    one = datasets.Dataset.from_list
    parts = datasets.DatasetDict(train=one(shown or asked), asked=one(asked))
    config |= {"custom_dataset": lambda **_: parts, "training_split": "train", "fewshot_split": "train", "validation_split": None,
               "test_split": "asked", "num_fewshot": shots, "fewshot_config": {"sampler": "first_n"}, "metric_list": [{"metric": "acc"}]}
    task = ConfigurableTask(config=config)
    task.build_all_requests()
    out = []
    for n, doc in enumerate(task.test_docs()):
        asked_for = [i.args for i in task.instances if i.doc_id == n]
        choice = config["output_type"] == "multiple_choice"
        out.append((asked_for[0][0], [a[1] for a in asked_for] if choice else [], task.doc_to_target(doc)))
    return out


@pytest.mark.parametrize(("name", "language", "kind", "file"), TWINS, ids=lambda x: x if isinstance(x, str) and "/" not in x else "")
def test_the_text_is_lm_evals_byte_for_byte(hub, name, language, kind, file):
    pytest.importorskip("lm_eval")
    import datasets

    datasets.disable_progress_bars()
    make = getattr(shippedrows, kind)
    shots = 0 if kind == "afriqa" else SHOTS  # lm-eval's file cannot write AfriQA's examples
    shown, asked = [make(n) for n in range(shots)], [make(n) for n in range(shots, shots + 4)]
    task = tasks.load(name)
    before = [] if task.examples else shown  # without examples of its own the first rows are shown, and not asked
    if task.examples and task.examples.hub:
        hub[task.examples.hub.split] = shown
    hub[task.source.hub.split] = before + asked
    found = tasks.items(one_configuration(task, {"cmmlu": "anatomy", "blimp": "adjunct_island"}.get(kind)), language, shots=shots)
    for item, (text, continuations, target) in zip(found, theirs(file, shown, asked, shots), strict=True):
        assert sent(task, item) == (text, continuations)
        if task.written:
            assert (target[0] if isinstance(target, list) else target) in (item.golds[0], json.dumps(item.golds[0])) or kind == "afriqa"
        else:
            assert (item.choices.index(target) if isinstance(target, str) and not target.isdigit() else int(target)) == item.target


def one_configuration(task, name):
    """A task that reads one of its configurations only."""
    if not name:
        return task
    sources = {k: s.model_copy(update={"hub": s.hub.model_copy(update={"names": (name,)})})
               for k, s in (("source", task.source), ("examples", task.examples)) if s}
    return task.model_copy(update=sources)


def test_mmlu_is_lm_evals_subject_by_subject(hub):
    pytest.importorskip("lm_eval")
    made = [shippedrows.mmlu(n) for n in range(12)]
    hub["dev"], hub["test"] = made[:6], made[6:]
    found = tasks.items(tasks.load("mmlu"), "en", shots=SHOTS)
    for subject in ("anatomy", "high_school_us_history"):
        own = [i for i in found if i.headline.endswith(f"about {subject.replace('_', ' ')}.\n\n")]
        shown, asked = ([r for r in part if r["subject"] == subject] for part in (hub["dev"], hub["test"]))
        twin = theirs(f"mmlu/default/mmlu_{subject}.yaml", shown, asked, SHOTS)
        assert [sent(tasks.load("mmlu"), i) for i in own] == [(text, continuations) for text, continuations, _ in twin]
        assert [i.target for i in own] == [target for *_, target in twin]
    assert Counter(i.stratum for i in found) == {"other": 3, "humanities": 3}
    assert hub.asked == [("cais/mmlu", "all", "test", None), ("cais/mmlu", "all", "dev", None)]


def test_several_configurations_are_read_one_after_the_other(hub):
    hub["train"] = [shippedrows.blimp(n) for n in range(2)]
    found = tasks.items(tasks.load("blimp"), "en")
    assert len(found) == 2 * 67 and found[0].stratum == "island effects" and len({c[1] for c in hub.asked}) == 67
    hub["train"] = [shippedrows.rublimp(n) for n in range(2)] + [shippedrows.rublimp(1) | {"target_sentence": "Она 1 спит."}]
    found = tasks.items(tasks.load("rublimp"), "ru")  # a sentence and itself: nothing to choose
    assert len(found) == 2 * 45 and found[0].choices == ("Она 0 спит.", "Она 0 спишь.") and found[0].target == 0


# -------------------------------------------------------------------------------------------------------- other layouts


def put(folder, name, made):
    """Rows as a file, by the ending of its name."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(made, ensure_ascii=False) if ".json." in name + "." else "\n".join(json.dumps(r, ensure_ascii=False) for r in made)
    if name.endswith(".csv") or ".csv." in name:
        table = io.StringIO(newline="")
        csv.writer(table).writerows(made)
        text = table.getvalue()
    raw = text.encode()
    path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else lzma.compress(raw) if name.endswith(".xz") else raw)


def test_belebele_in_both_layouts(hub, tmp_path):
    made = [shippedrows.belebele(n) for n in range(4)]
    flat = [{"passage": r["flores_passage"], "question": r["question"], "choices": [r[f"mc_answer{i}"] for i in (1, 2, 3, 4)],
             "answer": int(r["correct_answer_num"]) - 1} for r in made]
    put(tmp_path, "belebele_en_de/deu_Latn.jsonl.xz", flat)
    hub["test"] = made
    task = tasks.load("belebele")
    assert tasks.items(task, "de", data=tmp_path) == tasks.items(task, "de")
    assert [i.target for i in tasks.items(task, "de", data=tmp_path)] == [0, 1, 2, 3]


def test_xnli_labels_in_words_and_numbers(hub, tmp_path):
    words = ("entailment", "neutral", "contradiction")
    hub["validation"] = [shippedrows.xnli(n) for n in range(3)]
    put(tmp_path, "nc/xnli/dev_sw.jsonl.xz", [r | {"label": words[r["label"]]} for r in hub["validation"]])
    task = tasks.load("xnli")
    assert tasks.items(task, "sw", data=tmp_path) == tasks.items(task, "sw")
    assert [i.target for i in tasks.items(task, "sw")] == [0, 1, 2]


def test_squad_nested_and_flat(hub, tmp_path):
    hub["validation"] = flat = [shippedrows.squad(n) for n in range(3)]
    qas = [{"id": r["id"], "question": r["question"], "answers": [{"text": t, "answer_start": 3} for t in r["answers"]["text"]]} for r in flat]
    put(tmp_path, "xquad/xquad.de.json.xz", {"version": "1.1", "data": [{"title": "T", "paragraphs": [
        {"context": r["context"], "qas": [q]} for r, q in zip(flat, qas)]}]})
    task = tasks.load("xquad")
    assert tasks.items(task, "de", data=tmp_path) == tasks.items(task, "de")
    assert tasks.items(task, "de")[1].golds == ("Berlin 1", "berlin")


def test_tydiqa_of_all_languages_or_one_and_without_answers(hub, tmp_path):
    hub["validation"] = [shippedrows.squad(0), shippedrows.squad(1) | {"id": "finnish-1"}, shippedrows.squad(2)]
    task = tasks.load("tydiqa")
    assert [i.golds[0] for i in tasks.items(task, "sw")] == ["Berlin 0", "Berlin 2"]
    assert [i.golds[0] for i in tasks.items(task, "fi")] == ["Berlin 1"]
    with pytest.raises(InputError, match="no rows"):
        tasks.items(task, "ko")
    bare = [{"id": str(n), "context": "c", "question": "q", "answers": [""], "answer_start": [0]} for n in range(2)]
    put(tmp_path, "tydiqa_goldp/dev_sw.jsonl.xz", bare)
    with pytest.raises(InputError, match="no question has an answer"):
        tasks.items(task, "sw", data=tmp_path)
    put(tmp_path, "tydiqa_goldp/train_sw.jsonl.xz", [r | {"answers": ["Webuye"]} for r in bare])
    assert [i.golds for i in tasks.items(tasks.load("tydiqa-train"), "sw", data=tmp_path)] == [("Webuye",)] * 2


def test_mmlu_from_csv_files_a_subject(tmp_path):
    for subject in ("anatomy", "virology"):
        for split, count in (("dev", 2), ("test", 3)):
            put(tmp_path, f"data/{split}/{subject}_{split}.csv", [[f"{subject} {n}?", "1,5", 'a "b"', "c", "d", "C"] for n in range(count)])
    found = tasks.items(tasks.load("mmlu"), "en", data=tmp_path, shots=2)
    assert len(found) == 6 and [i.target for i in found] == [2] * 6 and found[0].stratum == "other"
    assert found[3].headline == "The following are multiple choice questions (with answers) about virology.\n\n"
    assert [e[0].partition("?")[0] for e in found[3].examples] == ["virology 0", "virology 1"]
    with pytest.raises(RecipeError, match="more worked examples") as e:
        tasks.items(tasks.load("mmlu"), "en", data=tmp_path, shots=3)
    assert e.value.expected == "at most 2 (anatomy)"


def test_jmmlu_and_cmmlu_from_csv_files(tmp_path):
    put(tmp_path, "JMMLU/world_history.csv", [["何？", "1", "2", "3", "4", "D"]])
    put(tmp_path, "JMMLU/japanese_civics.csv", [["誰？", "1", "2", "3", "4", "A"]])
    civics, history = tasks.items(tasks.load("jmmlu"), "ja", data=tmp_path)
    assert (civics.stratum, civics.target, history.stratum, history.target) == ("Japan", 0, "humanities", 3)
    assert civics.headline == "以下は公民に関する四択問題です。正しい選択肢の記号を答えてください。\n\n" and civics.prompt.endswith("D. 4\n答え：")
    put(tmp_path, "JMMLU/japanese_civics.csv", [[f"誰{n}？", "1", "2", "3", "4", "A"] for n in range(3)])
    put(tmp_path, "JMMLU/world_history.csv", [[f"何{n}？", "1", "2", "3", "4", "D"] for n in range(2)])
    found = tasks.items(tasks.load("jmmlu"), "ja", data=tmp_path, shots=1)  # the first of each subject is shown, and not asked
    assert [(i.id, i.prompt[:3], i.examples[0][0][:3], i.examples[0][1]) for i in found] == [
        ("ja-0002", "誰1？", "誰0？", "A"), ("ja-0003", "何1？", "何0？", "D"), ("ja-0004", "誰2？", "誰0？", "A")]
    put(tmp_path, "cmmlu/test/elementary_chinese.csv", [["", "Question", "A", "B", "C", "D", "Answer"], ["0", "什么？", "1", "2", "3", "4", "B"]])
    [item] = tasks.items(tasks.load("cmmlu"), "zh", data=tmp_path)
    assert (item.stratum, item.target, item.headline[:8]) == ("China specific", 1, "以下是关于小学语")


def test_every_subject_of_cmmlu_and_jmmlu_has_a_name_and_a_category():
    from polygraft.evals.tasks.shapes_understanding import mmlu

    for name, count, own in (("cmmlu", 67, "China specific"), ("jmmlu", 56, "Japan")):
        task = tasks.load(name)
        [tag] = task.languages
        words = task.words_of(tag)
        row = {"question": "q", "A": "1", "B": "2", "C": "3", "D": "4", "answer": "A"}
        made = mmlu([row | {"part": s} for s in task.source.hub.names], words)
        assert len(made) == count == len({r["topic"] for r in made}) and set(words["subjects"]) == set(task.source.hub.names)
        assert set(Counter(r["category"] for r in made)) == {"STEM", "humanities", "social sciences", "other", own}


def test_global_mmlu_keeps_its_own_categories(hub):
    hub["test"] = [shippedrows.global_mmlu(n) for n in range(2)]
    assert [(i.id, i.stratum) for i in tasks.items(tasks.load("global-mmlu"), "sw")] == [("anatomy/test/0", "Medical"),
                                                                                         ("anatomy/test/1", "Medical")]


def test_mkqa_takes_aliases_and_leaves_out_what_has_no_short_answer(hub, tmp_path):
    made = [shippedrows.mkqa(n) for n in range(8)]
    hub["train"] = made
    found = tasks.items(tasks.load("mkqa"), "de")
    assert [i.golds for i in found] == [("Dave Edmunds", "Edmunds", "Edmunds, Dave"), ("yes", "ja")] * 2
    assert [i.stratum for i in found[:2]] == ["entity", "binary"] and found[0].prompt == "Frage: Wer 0?\nAntwort:"
    kinds = ("entity", "binary", "unanswerable", "long_answer")
    named = [r | {"answers": {k: [a | {"type": kinds[n % 4]} for a in v] for k, v in r["answers"].items()}} for n, r in enumerate(made)]
    put(tmp_path, "mkqa/mkqa.jsonl.gz", named)
    assert tasks.items(tasks.load("mkqa"), "de", data=tmp_path) == found


def test_rucola_in_both_layouts_and_both_ways(hub, tmp_path):
    names = ["id", "sentence", "acceptable", "error_type", "detailed_source"]
    for part in ("in_domain", "out_of_domain"):
        put(tmp_path, f"rucola/{part}_dev.csv.gz", [names, *([n, f"Фраза {n}, «да»", n % 2, 0, "x"] for n in range(2))])
    put(tmp_path, "rucola/in_domain_train.csv.gz", [names, *([n, f"Пример {n}.", n % 2, 0, "x"] for n in range(3))])
    choice, written = tasks.load("rucola"), tasks.load("rucola-written")
    found = tasks.items(choice, "ru", data=tmp_path, shots=1)
    assert [(i.target, i.stratum) for i in found] == [(0, "in domain"), (0, "out of domain"), (1, "in domain"), (1, "out of domain")]
    text, continuations = sent(choice, found[0])
    assert text.endswith("Текст: Фраза 0, «да»\nОтвет:") and continuations == [" 0", " 1"] and "Текст: Пример 0.\nОтвет: 0\n\n" in text
    assert [i.golds for i in tasks.items(written, "ru", data=tmp_path)] == [("0",), ("0",), ("1",), ("1",)]
    hub["validation"] = [shippedrows.rucola(n) for n in range(2)]
    assert [i.target for i in tasks.items(choice, "ru")] == [0, 1]


def test_jglue_in_its_own_layouts(tmp_path):
    made = [shippedrows.jnli(n) | {"label": ("entailment", "contradiction", "neutral")[n]} for n in range(3)]
    path = tmp_path / "jglue" / "jnli_valid-v1.3.json.xz"
    path.parent.mkdir()
    path.write_bytes(lzma.compress("\n".join(json.dumps(r) for r in made).encode()))  # JSON lines, named .json
    assert [i.target for i in tasks.items(tasks.load("jnli"), "ja", data=tmp_path)] == [0, 1, 2]
    put(tmp_path, "jglue/jsquad_valid-v1.3.json.xz", {"data": [{"title": "梅雨", "paragraphs": [{"context": "梅雨 [SEP] 雨季。", "qas": [
        {"id": "a1", "question": "何季？", "answers": [{"text": "雨季", "answer_start": 8}] * 3, "is_impossible": False}]}]}]})
    [item] = tasks.items(tasks.load("jsquad"), "ja", data=tmp_path)
    assert item.id == "a1" and item.golds == ("雨季",) and "文脈：雨季。\n質問：何季？" in item.prompt


def test_sib200_splits_one_file(tmp_path):
    made = [shippedrows.sib200(n) | {"split": ("train", "dev", "test")[n % 3]} for n in range(9)]
    put(tmp_path, "sib200/swh_Latn.jsonl.xz", made)
    found = tasks.items(tasks.load("sib200"), "sw", data=tmp_path, shots=2)
    assert [i.id for i in found] == ["2", "5", "8"] and [e[1] for e in found[0].examples] == ["science/technology", "geography"]


@pytest.mark.parametrize(("name", "language", "change", "says"), [
    ("belebele", "de", {"correct_answer_num": "5"}, "none of the choices"), ("belebele", "de", {"mc_answer3": None}, "belebele|choices"),
    ("xnli", "de", {"label": 3}, "one of the labels"), ("xcopa", "sw", {"question": "why"}, "why|column"),
    ("sib200", "sw", {"category": "cooking"}, "one of the labels"), ("pawsx", "en", {"sentence1": None}, "layout `paws`"),
    ("hellaswag", "de", {"endings": "abc"}, "choices|hellaswag"), ("arc-challenge", "en", {"answerKey": "9"}, "layout `arc`"),
    ("global-mmlu", "sw", {"answer": "E"}, "none of the choices"), ("jcommonsenseqa", "ja", {"label": -1}, "place of a choice"),
])  # fmt: skip
def test_rows_that_are_wrong_are_named(hub, name, language, change, says):
    task = tasks.load(name)
    make = getattr(shippedrows, {"global-mmlu": "global_mmlu", "arc-challenge": "arc"}.get(name, name))
    hub[task.source.hub.split] = [make(0), make(1) | change]
    with pytest.raises(InputError, match=says) as e:
        tasks.items(task, language)
    assert e.value.where and e.value.found


def test_a_missing_column_is_named(hub):
    hub["test"] = [{k: v for k, v in shippedrows.xcopa(0).items() if k != "choice2"}]
    with pytest.raises(InputError, match="choice2"):
        tasks.items(tasks.load("xcopa"), "sw")


def test_a_letter_is_a_letter_also_where_a_column_is_called_so(tmp_path):
    put(tmp_path, "mine.csv", [["q", "A", "B", "right"], ["Who?", "she", "he", "1"]])
    (tmp_path / "mine.yaml").write_text("task: mine\noutput_type: multiple_choice\nsource: {files: [mine.csv]}\n"
                                        'doc_to_text: "{{q}}\\nA. {{A}}\\nB. {{B}}\\nAnswer:"\ndoc_to_choice: [A, B]\n'
                                        'doc_to_target: "{{right}}"\n')
    [item] = tasks.items(tasks.load(str(tmp_path / "mine.yaml")), "en")
    assert item.prompt == "Who?\nA. she\nB. he\nAnswer:" and item.choices == ("A", "B") and item.target == 1


# -------------------------------------------------------------------------------------------------- files and real data


@pytest.mark.parametrize("name", MINE)
def test_every_task_names_its_source_its_licence_and_known_languages(name):
    from polygraft import languages

    lines = (tasks.FOLDER / f"{name}.yaml").read_text("utf-8").split("\ntask:")[0].splitlines()
    head = " ".join(line.lstrip("# ") for line in lines)
    assert all(line.startswith("#") for line in lines) and "Source: " in head and "Licence: " in head
    assert "lm-eval" in head or "own wording" in head or "llmtf" in head or "Asked as BLiMP" in head
    task = tasks.load(name)
    assert all(languages.check(tag) == tag for tag in task.known_languages())


COUNTS = {"belebele": (2, 900), "xnli": (15, 2490), "xquad": (12, 1190), "xcopa": (11, 500), "pawsx": (7, 2000), "mmlu": (1, 14042),
          "blimp": (1, 16749), "rublimp": (1, 11250), "rucola": (1, 2787), "rucola-written": (1, 2787), "sib200": (94, 204),
          "jcommonsenseqa": (1, 1119), "jnli": (1, 2434), "jsquad": (1, 4442), "afriqa": (1, 295), "afrisenti": (1, 748),
          "tydiqa-train": (3, None)}  # languages, items in each
FEW = 3


def here(name):
    """The languages whose files are in the shared data folder."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared/data")
    task = tasks.load(name)
    out = []
    for tag in task.known_languages():
        try:
            rows.find(task.source, task.words_of(tag), SHARED)
        except InputError:
            continue
        out.append(tag)
    return task, out


def check(task, tag, count):
    found = tasks.items(task, tag, data=SHARED, limit=5, shots=0, offline=True)
    assert len(found) == 5 and all(i.language == tag and (i.golds if task.written else len(i.choices) > 1) for i in found)
    if count is not None:
        assert len(rows.read(task.source, task.words_of(tag), data=SHARED, offline=True)) == count


@pytest.mark.real
@pytest.mark.parametrize("name", COUNTS)
def test_the_real_data(name):
    task, found = here(name)
    assert len(found) == COUNTS[name][0]
    for tag in found[:: max(1, len(found) // FEW)][:FEW]:
        check(task, tag, COUNTS[name][1])


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTS)
def test_the_real_data_in_every_language(name):
    task, found = here(name)
    for tag in found:
        check(task, tag, COUNTS[name][1])


@pytest.mark.real
@pytest.mark.parametrize(("name", "count"), [("blimp", 13), ("rublimp", 12), ("mmlu", 4), ("rucola", 2), ("sib200", 7)])
def test_the_first_items_are_from_every_stratum(name, count):
    task, found = here(name)
    some = tasks.items(task, found[0], data=SHARED, limit=70, offline=True)
    assert len({i.stratum or i.target for i in some}) == count


@pytest.mark.real
def test_the_real_items_are_parallel_over_languages():
    task, _ = here("xcopa")
    targets = [[i.target for i in tasks.items(task, tag, data=SHARED, offline=True)] for tag in ("et", "qu", "zh")]
    assert targets[0] == targets[1] and len(set(map(tuple, targets))) <= 2
