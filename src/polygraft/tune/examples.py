"""Training examples: read as JSON lines, or made by a named generator, and turned into token ids with the loss on answers only.

An example is `{"messages": [...]}` (chat), `{"instruction": ..., "input": ..., "output": ...}` (one turn of a chat, Alpaca's
columns), `{"question": ..., "answer": ...}` (the same, GSM8K's columns), `{"prompt": ..., "completion": ...}` or `{"text": ...}`.
Each stretch of text is tokenised by itself, exactly as it stands at generation time: the prompt alone, then what the model is to
add.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from polygraft import data, files
from polygraft.errors import InputError

IGNORE = -100  # the label that torch's cross entropy leaves out
ROLES = ("system", "user", "assistant", "tool")
KINDS = {"messages": frozenset({"messages"}), "prompt/completion": frozenset({"prompt", "completion"}),
         "instruction": frozenset({"instruction", "output"}), "text": frozenset({"text"}),
         "question": frozenset({"question", "answer"})}  # fmt: skip
CALCULATOR = re.compile(r"<<[^<>]*>>")  # GSM8K's notes for a calculator, `<<48/2=24>>`, which no answer should hold
ARRAY = "one array becomes JSON lines by `jq -c '.[]'`"
CORPORA = (".txt", ".txt.gz", ".txt.xz", ".parquet")  # files of plain text; JSON lines may be any kind of example
CHAT, HUMAN = "chat", "human-assistant"  # how messages become text
NO_TEMPLATE = ("this model has no chat template", "use `prompt` and `completion`, or a model with a template")  # and what to do

Generator = Callable[[str], Iterable[Mapping[str, Any]]]


class Tokens(TypedDict):
    """One example as the trainer takes it: token ids, and the ids again where they carry loss (-100 elsewhere)."""

    input_ids: list[int]
    labels: list[int]


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Examples of a `.jsonl[.gz|.xz]` file. Raises InputError with file:line for what is not an example."""
    for where, line in data.lines(path):
        if line.strip():
            yield check_example(_parsed(line, where), where)


def _parsed(line: bytes, where: str) -> Any:
    """The JSON value of one line. Raises InputError for what is not JSON, not UTF-8, or an object with a key twice."""
    try:
        return files.parse_json(line, where)
    except InputError as e:
        data.decode(line, where)  # whose words are better where it is not UTF-8
        fix = ARRAY if line.strip() in (b"[", b"{") else "mend the line, or get the file again"
        raise InputError("not a JSON line", where=where, found=e.found, expected="one JSON object a line", fix=fix) from e


def check_example(row: Any, where: str) -> dict[str, Any]:
    """The example itself, if it is of one of the kinds. Keys beyond those of its kind are dropped. Raises InputError."""
    if not isinstance(row, dict):
        raise InputError("not an example", where=where, found=type(row).__name__, expected="a JSON object",
                         fix=ARRAY if isinstance(row, list) else "write one JSON object a line")  # fmt: skip
    kind = next((k for k, keys in KINDS.items() if keys <= row.keys()), None)
    if kind is None:
        raise InputError("not an example", where=where, found=f"keys {sorted(row)}"[:200],
                         expected="`messages`, or `prompt` and `completion`, or `instruction` and `output`, or `question` and "
                         "`answer`, or `text`", fix="rename the columns to those of one of these kinds")  # fmt: skip
    if kind == "messages":
        return {"messages": _check_messages(row["messages"], where)}
    if kind == "instruction":
        asked = "\n".join(str(x) for x in (row["instruction"], row.get("input")) if x)
        return _turn(asked, row["output"], where)
    if kind == "question":
        answer = row["answer"]
        return _turn(row["question"], CALCULATOR.sub("", answer) if isinstance(answer, str) else answer, where)
    for key in KINDS[kind]:
        if not isinstance(row[key], str) or (key != "prompt" and not row[key]):
            empty = row[key] == ""
            raise InputError(f"`{key}` is {'empty' if empty else 'not text'}", where=where, found=repr(row[key])[:80],
                             expected="text that is not empty", fix="take the line out" + ("" if empty else ", or make it text"))
        data.check_text(row[key], where)
    return {key: row[key] for key in sorted(KINDS[kind])}


def _turn(asked: Any, answered: Any, where: str) -> dict[str, Any]:
    """One question and its answer as a chat. Raises InputError unless both are text, the answer not empty."""
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answered if answered != "" else None}]
    return {"messages": _check_messages(turns, where)}


def _check_messages(messages: Any, where: str) -> list[dict[str, str]]:
    if not isinstance(messages, list) or not messages:
        raise InputError("`messages` is not a list of messages", where=where, found=repr(messages)[:80],
                         expected='[{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]',
                         fix="take the line out, or give it a question and an answer")  # fmt: skip
    for m in messages:
        if not isinstance(m, dict) or m.get("role") not in ROLES or not isinstance(m.get("content"), str):
            raise InputError("not a message", where=where, found=repr(m)[:80],
                             expected=f"role ({', '.join(ROLES)}) and content (text)",
                             fix="rename the role, or take the line out")  # fmt: skip
        data.check_text(m["content"], where)
    if not any(m["role"] == "assistant" and m["content"] for m in messages):
        raise InputError("no assistant message to learn from", where=where, fix="add an answer with the role assistant")
    return [{"role": m["role"], "content": m["content"]} for m in messages]


def load(spec: str, generators: Mapping[str, Generator], path: Callable[[str], Path]) -> list[dict[str, Any]]:
    """All examples that `spec` names: `problems:en?n=2000&seed=1` asks the generator `problems`, anything else is a file: of plain
    text, whose documents are `text`, or of JSON lines."""
    name, colon, rest = spec.partition(":")
    if colon and name in generators:
        examples = [check_example(dict(row), f"{spec} #{i}") for i, row in enumerate(generators[name](rest), 1)]
    elif data.ending(file := path(spec)) in CORPORA:
        examples = [{"text": text} for text in data.open_corpus("und", file).documents()]
    else:
        examples = list(read_jsonl(file))
    if not examples:
        raise InputError("no examples", where=spec, found="an empty file" if not colon else None, expected="at least one",
                         fix="check the file: one example a line")
    return examples


def no_answer(named: str | None, limit: int, length: int) -> InputError:
    """What to raise where no example has an answer within `limit` tokens, which are the `length` asked for or fewer."""
    if limit < length:
        return InputError("no example has an answer within what the model was made to see", where=named, found=f"{limit} tokens",
                          fix="shorten the examples, or take a model with a longer context")
    return InputError("no example has an answer within the length", where=named, found=f"length {limit}", fix="raise `length`")


SORTED = json.JSONEncoder(sort_keys=True, ensure_ascii=False)


def digest(examples: Iterable[Mapping[str, Any]]) -> str:
    """SHA-256 (hex) of the examples in their order, whatever file or generator they came from."""
    h = hashlib.sha256()
    for row in examples:
        h.update(SORTED.encode(row).encode("utf-8", "surrogatepass") + b"\n")
    return h.hexdigest()


# ----------------------------------------------------------------------------------------------------------------- tokens


def tokenize(row: Mapping[str, Any], tokenizer: Any, length: int, answer_only: bool = True, template: str = CHAT) -> Tokens:
    """Token ids and labels, cut to `length` from the start. `text` always carries loss everywhere."""
    ids: list[int] = []
    labels: list[int] = []
    for text, answer, special in _segments(row, tokenizer, template):
        new = tokenizer(text, add_special_tokens=special)["input_ids"]
        ids += new
        labels += new if answer or not answer_only else [IGNORE] * len(new)
    if ("messages" not in row or template == HUMAN) and tokenizer.eos_token_id is not None:
        ids.append(tokenizer.eos_token_id)
        labels.append(tokenizer.eos_token_id)
    return {"input_ids": ids[:length], "labels": labels[:length]}


def _segments(row: Mapping[str, Any], tokenizer: Any, template: str) -> Iterator[tuple[str, bool, bool]]:
    """(text, is it an answer, may the tokenizer add its opening tokens) in order."""
    if "messages" in row and template == HUMAN:
        for i, (text, answer) in enumerate(human_segments(row["messages"])):
            yield text, answer, i == 0
    elif "messages" in row:
        for text, answer in chat_segments(row["messages"], tokenizer):
            yield text, answer, False  # a chat template writes its special tokens itself
    elif "text" in row:
        yield row["text"], True, True
    else:
        yield row["prompt"], False, True
        yield row["completion"], True, False


def human_segments(messages: Sequence[Mapping[str, str]]) -> Iterator[tuple[str, bool]]:
    """Turns as plain text, `Human: ...\\nAssistant: ...`, for base models: LLaMA-Factory's default, with which SLAM trains.

    A later turn begins on a new line; what a system message says stands first.
    """
    asked = ""
    for message in messages:
        if message["role"] == "assistant":
            yield asked + "Assistant: ", False
            yield message["content"], True
            asked = "\n"
        else:
            asked += ("Human: " if message["role"] == "user" else "") + message["content"] + "\n"


def chat_segments(messages: Sequence[Mapping[str, str]], tokenizer: Any) -> Iterator[tuple[str, bool]]:
    """The rendered chat, split where an assistant message begins and ends. Raises InputError if the template is no help.

    A template must render a prefix of a chat as a prefix of its text; the few that rewrite earlier turns are refused.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(NO_TEMPLATE[0], fix=NO_TEMPLATE[1])
    done = ""
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = tokenizer.apply_chat_template(messages[:i], tokenize=False, add_generation_prompt=True) if i else ""
        after = tokenizer.apply_chat_template(messages[: i + 1], tokenize=False)
        if not before.startswith(done) or not after.startswith(before):
            raise InputError("the chat template rewrites earlier turns, so that answers cannot be told from prompts",
                             fix="split chats so that each has one assistant message, or set answer_only to false")  # fmt: skip
        yield before[len(done) :], False
        yield after[len(before) :], True
        done = after


def order(n: int, count: int, seed: int) -> list[int]:
    """Which of n examples is used at each of `count` places: every example once before any twice, shuffled anew each time round."""
    out: list[int] = []
    while len(out) < count:
        turn = list(range(n))
        random.Random(f"order/{seed}/{len(out)}").shuffle(turn)
        out += turn
    return out[:count]
