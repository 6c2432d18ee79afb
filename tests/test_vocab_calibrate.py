"""vocab calibrate: copies of a text that no evaluation has, a model's own answers, and what is left out of both."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny as make
from polygraft.errors import InputError, RecipeError
from polygraft.model import load_tokenizer
from polygraft.sources import resolve
from polygraft.step import Context
from polygraft.steps import AROUND
from polygraft.tune import examples
from polygraft.vocab.calibrate import OUT, Calibrate, calibrate_step, kept
from polygraft.vocab.copytasks import ASK, LENGTHS, RUN, SENTENCE, Overlap, asked, folded, pieces, prose, tasks

SENTENCES = [f"Предложение номер {n} говорит о том, что дом {n * 7} стоит у реки и виден издалека." for n in range(40)]
TEXT = "\n".join(" ".join(SENTENCES[i : i + 5]) for i in range(0, 40, 5))


@dataclass(frozen=True)
class Said:
    text: str
    finished: bool = True
    tokens: int = 1


def context(folder, model=None):
    return Context(lambda ref: resolve(model), lambda ref: folder / ref, step_id="c")


@given(st.text(alphabet="аб .!?\n1|", max_size=900), st.sampled_from(["sentence", "paragraph"]))
def test_pieces_are_whole_prose_of_the_length(text, kind):
    low, high = LENGTHS[kind]
    for piece in pieces(text, kind):
        assert low <= len(piece) <= high and prose(piece) and "\n" not in piece
        assert piece in " ".join(text.split())


def test_paragraphs_are_runs_of_sentences_of_one_line():
    found = list(pieces(TEXT, "paragraph"))
    assert len(found) == 8 and all(piece in TEXT for piece in found)
    assert list(pieces(TEXT, "sentence")) == SENTENCES


@given(st.integers(0, 39), st.integers(0, 30), st.integers(0, 60))
def test_a_copy_never_shares_a_run_of_letters_with_the_evaluation(n, start, size):
    part = SENTENCES[n][start : start + size]
    overlap = Overlap([part])
    letters = folded(SENTENCES[n])
    assert overlap.of(SENTENCES[n]) == (len(folded(part)) >= RUN)
    assert not Overlap(["другой текст"]).of(SENTENCES[n]) and Overlap([SENTENCES[n]]).of(letters[:5])


@pytest.mark.parametrize("line", ["«Кто там стоит у реки и молчит так долго?» Никто не ответил ему ни слова в тот вечер.",
                                  "这座房子坐落在河边，从很远的地方就能看到它。房前有一棵大树，树下坐着一位老人，正在看书！" * 2])
def test_sentences_lose_no_mark(line):
    assert "".join("".join(s.split()) for s in (m.group() for m in SENTENCE.finditer(line))) == "".join(line.split())
    assert len(SENTENCE.findall(line)) > 1


def test_tasks_are_different_ones_and_the_evaluation_stays_out():
    chosen, there, out = tasks([TEXT, TEXT], "sentence", 100, Overlap(SENTENCES[:10]), 0)
    assert there == 40 and out >= 10 and len(chosen) == 40 - out and not set(chosen) & set(SENTENCES[:10])
    assert tasks([TEXT], "sentence", 5, Overlap([]), 0)[0] != tasks([TEXT], "sentence", 5, Overlap([]), 1)[0]


@pytest.mark.parametrize("language", [*ASK, "xx", "ru-Latn"])
def test_every_request_holds_the_text(language):
    for text in SENTENCES[:6]:
        assert text in asked(text, language) and len(asked(text, language)) > len(text) + 10


def test_answers_that_cannot_be_learnt_from_are_left_out_by_their_reason():
    said = ["", "да да " * 30, "Это хороший ответ", "This is an answer in English", "Это ответ", "Это ответ", "42"]
    around = replace(AROUND, language=lambda t: "en" if t.isascii() and t.strip("0123456789") else "und" if t.isdigit() else "ru")
    answers = [{"text": t, "finished": t != "Это хороший ответ"} for t in said]
    rows, out = kept([f"q{i}" for i in range(7)], answers, "ru", around)
    assert [(r.asked, r.answered) for r in rows] == [("q4", "Это ответ"), ("q6", "42")]
    assert out == {"empty": 1, "in a loop": 1, "cut off": 1, "in another language": 1, "the same as another": 1}


@pytest.fixture
def files(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "eval.txt").write_text("\n".join(SENTENCES[:10]))
    rows = [{"messages": [{"role": "user", "content": f"Привет {n}"}]} for n in range(3)]
    rows += [{"instruction": "Сложи", "input": str(n)} for n in range(3)] + [{"prompt": "Кто ты?"}, {"prompt": "Кто ты?"}]
    (tmp_path / "prompts.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
    return tmp_path


def test_what_is_written_can_be_trained_on(files):
    model = make.folder(files, "llama")
    heard = []
    around = replace(AROUND, load=lambda *_: None, language=lambda t: "ru",
                     answers=lambda live, prompts, limit, chat: [Said(f"Ответ на {heard.append(p) or p}") for p in prompts])
    step = calibrate_step(around)
    config = step.config(corpus={"ru": "text.txt"}, prompts={"ru": "prompts.jsonl"}, model="m", against=("eval.txt",), answers=6)
    assert "6 prompts answered" in " ".join(step.plan(config, context(files, model)).lines)
    out = files / "out"
    out.mkdir()
    result = step.run(config, context(files, model), out)
    rows = list(examples.read_jsonl(out / OUT))
    assert len(heard) == len(set(heard)) == 6 and result.data["kinds"]["own answer"] == 6
    copies = [r["messages"] for r in rows if not r["messages"][1]["content"].startswith("Ответ")]
    assert copies and all(a["content"] in q["content"] for q, a in copies)
    assert not any(s in q["content"] for s in SENTENCES[:10] for q, _ in copies)
    tokens = examples.tokenize(rows[0], load_tokenizer(model), 10_000)
    assert any(label != examples.IGNORE for label in tokens["labels"])
    assert [p.name for p in out.iterdir()] == [OUT]  # what an interrupted run would have gone on from is gone
    again = files / "again"
    again.mkdir()
    step.run(config, context(files, model), again)
    assert (again / OUT).read_bytes() == (out / OUT).read_bytes()


def test_an_interrupted_run_does_not_ask_again(files, monkeypatch):
    monkeypatch.setattr("polygraft.vocab.calibrate.TOGETHER", 2)
    heard = []

    def answers(live, prompts, limit, chat):
        if len(heard) == 4:
            heard.append("killed")
            raise KeyboardInterrupt
        heard.extend(prompts)
        return [Said(f"Ответ на {p}") for p in prompts]

    step = calibrate_step(replace(AROUND, load=lambda *_: None, language=lambda t: "ru", answers=answers))
    config, model = Calibrate(prompts={"ru": "prompts.jsonl"}, model="m", answers=7), make.folder(files, "llama")
    out = files / "out"
    out.mkdir()
    with pytest.raises(KeyboardInterrupt):
        step.run(config, context(files, model), out)
    step.run(config, context(files, model), out)
    assert len(list(examples.read_jsonl(out / OUT))) == 7 == len(set(heard) - {"killed"}) == len(heard) - 1


@pytest.mark.parametrize("fields", [{}, {"prompts": {"ru": "p.jsonl"}}, {"model": "m", "corpus": {"ru": "t.txt"}}])
def test_what_asks_for_nothing_is_refused(fields):
    with pytest.raises(ValueError, match=r"prompts|nothing"):
        Calibrate(**fields)


def test_text_without_prose_and_prompts_without_words_are_refused(files):
    (files / "code.txt").write_text("x = [1, 2, 3] # 12 == 34 / 56\n" * 9)
    (files / "bad.jsonl").write_text('{"output": "x"}\n')
    step = calibrate_step(AROUND)
    with pytest.raises(InputError, match="no sentence or paragraph"):
        step.run(Calibrate(corpus={"ru": "code.txt"}), context(files), files)
    with pytest.raises(InputError, match=r"bad\.jsonl:1: no prompt"):
        step.plan(Calibrate(prompts={"ru": "bad.jsonl"}, model="m"), context(files, make.folder(files, "llama")))
    around = replace(AROUND, load=lambda *_: None, answers=lambda live, prompts, limit, chat: [Said("") for _ in prompts])
    with pytest.raises(RecipeError, match=r"(?s)no example is left.*7 answers: 7 empty"):
        calibrate_step(around).run(Calibrate(prompts={"ru": "prompts.jsonl"}, model="m"),
                                   context(files, make.folder(files, "llama")), files)
