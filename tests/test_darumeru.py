"""Darumeru's datasets read from rows made by hand in the layout that its public evaluation code reads."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polygraft.errors import InputError
from polygraft.evals import metrics, tasks
from polygraft.evals.items import Response
from polygraft.evals.tasks import rendering, shapes_darumeru, suites

ASK = {"role": "user", "content": "Причина или следствие?\n{premise}\n1. {choice1}\n2. {choice2}"}
ANSWER = {"role": "bot", "content": "Ответ:"}


def write(folder, name, rows):
    path = folder / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")


def parus(n, right):
    return {"messages": [ASK, ANSWER], "outputs": right, "meta": {"id": n},
            "inputs": {"premise": f"Шёл дождь {n}.", "choice1": f"Улица мокрая {n}.", "choice2": f"Трава синяя {n}."}}


def lettered(n, right):
    inputs = {"text": f"Вопрос {n}", "option_a": "один", "option_b": "два", "option_c": "три", "option_d": "четыре"}
    said = [{"role": "user", "content": "{text}\nA {option_a}\nB {option_b}\nC {option_c}\nD {option_d}"}, ANSWER]
    return {"messages": said, "inputs": inputs, "outputs": right, "meta": {"id": n, "domain": "math"}}


def short(n, right):
    return {"messages": [{"role": "user", "content": "{text}"}, ANSWER], "inputs": {"text": f"Текст {n}."}, "outputs": right,
            "meta": {"id": n}}


def exam(n, variant, task, kind, right):
    return {**short(n, right), "meta": {"id": n, "variant": variant, "id_task": task, "type": kind}}


def copy(n):
    text = f"Предложение номер {n}, с {{фигурными}} скобками."
    said = [{"role": "user", "content": "Скопируй: {text}"}]
    return {"messages": said, "inputs": {"text": text}, "outputs": text, "meta": {"id": n}}


def mmlu(subject, n):
    return {"subject": subject, "question_ru": f"Вопрос {n}?", "question_en": f"Question {n}?", "choices_ru": ["а", "б", "в", "г"],
            "choices_en": ["a", "b", "c", "d"], "answer": n % 4}


def news(n, important):
    return {"src_sents": [f"Предложение {i} документа {n}{' и ещё слова' * i}." for i in range(4)],
            "summary_sents": ["Кратко.", f"Документ {n}."], "extractive_summary": important}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("darumeru")
    sets = {"parus": [parus(n, "12"[n % 2]) for n in range(4)], "rcb": [short(n, "123"[n % 3]) for n in range(4)],
            "rwsd": [short(n, ["Да", "Нет"][n % 2]) for n in range(4)], "rummlu": [lettered(n, "ABCD"[n % 4]) for n in range(4)],
            "ruopenbookqa": [lettered(n, "ABCD"[n % 4]) for n in range(4)], "ruworldtree": [lettered(n, "A") for n in range(4)],
            "multiq": [{**short(n, None), "outputs": [{"segment": f"ответ {n}"}, {"segment": "иначе"}]} for n in range(4)],
            "use": [exam(0, 1, "16", "multiple_choice_based_on_text", "2,4"), exam(1, 1, "26", "matching", "4,9,3,8"),
                    exam(2, 2, "2", "text", "поэтому")],
            "mmlu_nlpcoreteam": [mmlu(s, n) for n, s in enumerate(["anatomy", "anatomy", "astronomy", "philosophy"])]}
    sets |= {f"cp_{kind}_{lang}": [copy(n) for n in range(4)] for kind in ("sent", "para") for lang in ("ru", "en")}
    for name, rows in sets.items():
        write(folder / "darumeru" / name, "test", rows)
        write(folder / "darumeru" / name, "dev" if name.startswith("mmlu") else "prompt", rows * 3)
    for split in ("test", "prompt"):
        write(folder / "daru_treeway_eval", split, [news(n, [0, 2]) for n in range(6)])
    return folder


PARTS = [(p.task, e.language, e.shots) for p, e in suites.expand("darumeru").asked if p.task != "rucola"]


@pytest.mark.parametrize(("name", "language", "shots"), PARTS)
def test_every_dataset_is_read_with_its_worked_examples(data, name, language, shots):
    items = tasks.items(tasks.load(name), language, data=data, shots=min(shots, 3))
    assert items and all(len(i.examples) == min(shots, 3) for i in items)
    assert all(i.prompt.strip() and "{" not in i.prompt.replace("{фигурными}", "") for i in items)


def asked(data, name, language="ru", **options):
    return tasks.items(tasks.load(name), language, data=data, **options)


def test_pairs_are_asked_in_both_orders_and_count_once(data):
    items = asked(data, "darumeru-parus")
    assert len(items) == 8
    for given_order, turned in zip(items[::2], items[1::2]):
        assert given_order.group == turned.group and given_order.target != turned.target
        first, second = given_order.prompt.index("Улица"), given_order.prompt.index("Трава")
        assert (first < second) and turned.prompt.index("Трава") < turned.prompt.index("Улица")
    assert metrics.get("confident accuracy").group == "all"


def test_a_model_that_always_takes_the_first_option_is_never_confident(data):
    from polygraft.evals.verdicts.measures import from_records

    m = metrics.get("confident accuracy")
    rows = [{"id": i.id, "group": i.group, "scores": {m.name: list(m.score(i, Response(nats=(-1.0, -2.0), greedy=(True, False))))}}
            for i in asked(data, "darumeru-parus")]
    [measure] = from_records("darumeru-parus", "ru", {"first": rows})
    assert measure.n == 4 and measure.columns["first"][:, 0].tolist() == [0.0] * 4


def test_worked_examples_bring_their_answer_once(data):
    worked = {**short(1, "Да"), "messages": [{"role": "user", "content": "{text}"}, {"role": "bot", "content": "Ответ: Да"}]}
    [row] = shapes_darumeru.messages([worked], {})
    assert row["prompt"] == "Текст 1.\nОтвет:" and row["answer"] == "Да"


def test_places_in_messages_are_filled_and_nothing_is_evaluated():
    hostile = {"messages": [{"role": "user", "content": "{text} {text.__class__} {0} {missing} {text!r}"}], "inputs": {"text": "a {b}"},
               "outputs": "x"}
    [row] = shapes_darumeru.messages([hostile], {})
    assert row["prompt"] == "a {b} {text.__class__} {0} {missing} {text!r}"


def test_golds_of_multi_hop_questions_are_all_segments(data):
    assert asked(data, "darumeru-multiq")[1].golds == ("ответ 1", "иначе")


def test_a_variant_of_the_exam_knows_its_parts(data):
    assert [(i.extra["in_variant"], i.extra["type"]) for i in asked(data, "darumeru-use")] == [
        (2, "multiple_choice_based_on_text"), (2, "matching"), (1, "text")]


def test_mmlu_has_57_subjects_in_four_categories(data):
    assert len(shapes_darumeru.CATEGORY) == 57 and set(shapes_darumeru.CATEGORY.values()) == {0, 1, 2, 3}
    items = asked(data, "darumeru-mmlu", "en")
    assert [(i.extra["category"], i.extra["in_subject"]) for i in items] == [(3, 2), (3, 2), (0, 1), (1, 1)]
    assert "Question 0?\nA. a\nB. b" in items[0].prompt and asked(data, "darumeru-mmlu")[0].prompt.startswith("Ниже приведены")


@pytest.mark.parametrize(("change", "what"), [
    ({"subject": "alchemy"}, "alchemy"), ({"answer": "B?"}, "invalid literal"), ({"choices_ru": None}, "NoneType")])
def test_rows_of_another_layout_are_refused_by_name(data, tmp_path, change, what):
    write(tmp_path / "darumeru" / "mmlu_nlpcoreteam", "test", [{**mmlu("anatomy", 0), **change}])
    with pytest.raises(InputError, match="mmlu_ru") as caught:
        asked(tmp_path, "darumeru-mmlu")
    assert what in str(caught.value.found)


def test_an_important_sentence_that_is_not_there_is_refused(tmp_path):
    write(tmp_path / "daru_treeway_eval", "test", [news(0, [0, 9])])
    with pytest.raises(InputError, match="summaries") as caught:
        asked(tmp_path, "darumeru-extractive")
    assert "row 1" in str(caught.value.found)


# ------------------------------------------------------------------------------------------------- cut to the shortest


class Words:
    """Counts words and half words: pieces of at most three letters."""

    max_length = 10_000

    def count(self, text):
        return sum(-(-len(w) // 3) for w in text.split(" ") if w)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("абв гд", min_size=1, max_size=30).filter(str.strip), min_size=2, max_size=6))
def test_sentences_are_cut_to_the_tokens_of_the_shortest(texts):
    engine = Words()
    cut = rendering.cut_to_shortest(texts, engine)
    least = min(map(engine.count, texts))
    for whole, part in zip(texts, cut):
        assert whole.startswith(part) and part
        assert engine.count(part) == least
        assert part == whole or engine.count(whole[: len(part) + 1]) > least


def test_the_sentences_of_a_summary_are_scored_alike_long(data):
    item = asked(data, "darumeru-extractive")[0]
    sent = rendering.asked(tasks.load("darumeru-extractive"), item, Words())
    assert len({Words().count(c) for c in sent.continuations}) == 1
    assert item.extra["relevant"] == [0, 2] and sent.text.endswith("Наиболее важные предложения статьи:")


def test_a_text_that_is_itself_the_task_is_never_wrapped_in_a_conversation(data):
    class Chat(Words):
        def chat(self, messages, prefix=""):
            raise AssertionError("asked as a conversation")

    from polygraft.evals.items import Item

    sent = rendering.asked(tasks.load("parallel-nats"), Item("1", "sw", "", ("Sentensi moja.",)), Chat(), chat=True)
    assert sent.text == "" and sent.continuations == ("Sentensi moja.",)
