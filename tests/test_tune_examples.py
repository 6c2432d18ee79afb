"""Examples: reading, refusing, tokenising with the loss on answers only, order."""

from __future__ import annotations

import gzip
import json
import lzma

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polygraft.errors import InputError, RecipeError
from polygraft.evals.tasks.problems.examples import examples as generated
from polygraft.tune import examples

TEXT = {"text": "one two"}
PAIR = {"prompt": "1+1=", "completion": "2"}
CHAT = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"},
                     {"role": "user", "content": "and"}, {"role": "assistant", "content": "so"}]}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tiny):
    from polygraft.model import load

    return load(tiny("llama")).tokenizer


def learnt(tokens, tokenizer) -> str:
    return tokenizer.decode([t for t in tokens["labels"] if t != examples.IGNORE])


def test_prompt_carries_no_loss(tokenizer):
    tokens = examples.tokenize(PAIR, tokenizer, 64)
    assert learnt(tokens, tokenizer) == "2" + tokenizer.eos_token
    everything = examples.tokenize(PAIR, tokenizer, 64, answer_only=False)
    assert everything["labels"] == everything["input_ids"] == tokens["input_ids"]


def test_text_carries_loss_everywhere(tokenizer):
    tokens = examples.tokenize(TEXT, tokenizer, 64)
    assert tokens["labels"] == tokens["input_ids"] and tokens["input_ids"][-1] == tokenizer.eos_token_id


def test_every_assistant_turn_is_learnt_and_nothing_else(tokenizer):
    tokens = examples.tokenize(CHAT, tokenizer, 200)
    text = learnt(tokens, tokenizer)
    assert "yo" in text and "so" in text and "hi" not in text and "and" not in text
    assert tokenizer.decode(tokens["input_ids"]) == tokenizer.apply_chat_template(CHAT["messages"], tokenize=False)


def test_a_template_that_rewrites_turns_is_refused(tokenizer):
    import copy

    odd = copy.deepcopy(tokenizer)
    odd.chat_template = "{{ messages | length }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(InputError, match="rewrites earlier turns"):
        examples.tokenize(CHAT, odd, 64)
    odd.chat_template = None
    with pytest.raises(InputError, match="no chat template"):
        examples.tokenize(CHAT, odd, 64)


def test_cut_at_the_length(tokenizer):
    assert len(examples.tokenize({"text": "x" * 99}, tokenizer, 10)["input_ids"]) == 10


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.xz"])
def test_files(tmp_path, suffix):
    path = tmp_path / f"data{suffix}"
    text = "\ufeff" + "\n".join(json.dumps(r) for r in (TEXT, PAIR, CHAT)) + "\n\n"
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    with opener(path, "wt", encoding="utf-8") as f:
        f.write(text)
    assert examples.load(str(path), {}, lambda s: path) == [TEXT, PAIR, CHAT]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not a JSON line"), ("[]", "not an example"), ('{"txt": "a"}', "not an example"), ('{"text": ""}', "is empty"),
        ('{"text": 3}', "not text"), ('{"prompt": "a", "completion": ""}', "is empty"), ('{"messages": []}', "not a list of messages"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "no assistant"), ('{"messages": [{"role": "bot", "content": "a"}]}', "not a message"),
        ('{"messages": [{"role": "user"}]}', "not a message"), ("", "no examples"),
    ],
)  # fmt: skip
def test_refusals_name_the_line(tmp_path, line, message):
    path = tmp_path / "d.jsonl"
    path.write_text("\n" + line)
    with pytest.raises(InputError, match=message) as e:
        examples.load(str(path), {}, lambda s: path)
    assert f"{path}:2" in str(e.value) or message == "no examples"


def test_unreadable(tmp_path):
    with pytest.raises(InputError, match="the file is missing"):
        list(examples.read_jsonl(tmp_path / "none.jsonl"))
    (tmp_path / "a.jsonl.gz").write_bytes(b"plain")
    with pytest.raises(InputError, match="damaged"):
        list(examples.read_jsonl(tmp_path / "a.jsonl.gz"))
    (tmp_path / "a.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="UTF-16"):
        list(examples.read_jsonl(tmp_path / "a.jsonl"))


def test_questions_and_answers_are_one_turn_without_the_calculators_notes():
    row = examples.check_example({"question": "4/2?", "answer": "4/2 = <<4/2=2>>2.\n#### 2"}, "x:1")
    assert [m["content"] for m in row["messages"]] == ["4/2?", "4/2 = 2.\n#### 2"]
    assert examples.check_example({"question": "q", "answer": "a", "text": "t"}, "x:1") == {"text": "t"}
    for answer in (2, "", "<<1+1=2>>"):
        with pytest.raises(InputError, match="not a message"):
            examples.check_example({"question": "4/2?", "answer": answer}, "x:1")


@given(n=st.integers(1, 20), count=st.integers(1, 70), seed=st.integers(0, 5))
def test_order_uses_every_example_before_any_again(n, count, seed):
    places = examples.order(n, count, seed)
    assert len(places) == count and places == examples.order(n, count, seed)
    for start in range(0, count - n + 1, n):
        assert sorted(places[start : start + n]) == list(range(n))
    assert examples.order(n, count + n, seed)[:count] == places


def test_digest_depends_on_content_and_order():
    assert examples.digest([TEXT, PAIR]) != examples.digest([PAIR, TEXT])
    assert examples.digest([{"completion": "2", "prompt": "1+1="}]) == examples.digest([PAIR])


def test_generated_examples():
    solved = examples.load("problems:en?n=3&operations=+-&seed=4", {"problems": generated}, lambda s: None)
    assert all(r["prompt"].endswith("Answer:") and "=" in r["completion"] for r in solved)
    pairs = list(generated("es?kind=translation&n=3&to=fr"))
    assert all(r["prompt"].startswith("Pregunta:") and r["prompt"].endswith("Question :") for r in pairs)
    digits = [sorted(c for c in r["prompt"] if c.isdigit()) == sorted(c for c in r["completion"] if c.isdigit()) for r in pairs]
    assert all(digits)
    assert all("=" not in r["text"] for kind in ("questions", "stories") for r in generated(f"es?kind={kind}&n=4"))


@pytest.mark.parametrize("spec", ["en?size=3", "en?kind=odd", "en?n=many", "xx?n=1", "en?split=all"])
def test_generated_refusals(spec):
    with pytest.raises(RecipeError):
        list(generated(spec))


def test_instructions_are_one_turn_of_a_chat():
    row = examples.check_example({"instruction": "Translate.", "input": "Hi", "output": "Habari"}, "x:1")
    assert [m["content"] for m in row["messages"]] == ["Translate.\nHi", "Habari"]
    with pytest.raises(InputError, match="not a message"):
        examples.check_example({"instruction": "Translate.", "output": 3}, "x:1")


def test_human_and_assistant_as_plain_text(tokenizer):
    turns = [("system", "Be brief."), ("user", "One?"), ("assistant", "1"), ("user", "Two?"), ("assistant", "2")]
    row = {"messages": [{"role": r, "content": c} for r, c in turns]}
    tokens = examples.tokenize(row, tokenizer, 200, template=examples.HUMAN)
    text = "Be brief.\nHuman: One?\nAssistant: 1\nHuman: Two?\nAssistant: 2"
    assert tokenizer.decode(tokens["input_ids"], skip_special_tokens=True) == text
    assert tokens["input_ids"][-1] == tokenizer.eos_token_id
    assert learnt(tokens, tokenizer).replace(tokenizer.eos_token, "") == "12"
