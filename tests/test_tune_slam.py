"""tune slam: which tensors train, how pairs are built and asked, that it resumes, and what its result says."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny as make
from oracle.pairs_oracle import counted
from polygraft import selectionfile
from polygraft.anatomy import Anatomy
from polygraft.checkpoint import Checkpoint
from polygraft.config import parse
from polygraft.errors import InputError, RecipeError, UserError
from polygraft.evals.callback import WATCHERS
from polygraft.header import build
from polygraft.result import Result
from polygraft.selectionfile import Entry
from polygraft.sources import resolve
from polygraft.step import Context
from polygraft.tune import slam, translation
from polygraft.tune.config import Around
from polygraft.tune.translation import INSTRUCTION
from polygraft.yamltext import parse_document

AROUND = Around({"toy": lambda spec: [{"prompt": f"{spec}{i}", "completion": "y"} for i in range(4)]}, WATCHERS)
STEP = slam.slam_step(AROUND)
ENGLISH = [f"How many apples has {name}?" for name in ("Ann", "Ben", "Cem", "Dan", "Eve", "Fay")]


def lines(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    return path


@pytest.fixture
def files(tmp_path):
    """English questions, Swahili ones by number, German ones of fewer."""
    lines(tmp_path / "en.jsonl", [{"question": q, "answer": f"She has {i}."} for i, q in enumerate(ENGLISH)])
    lines(tmp_path / "sw.jsonl", [{"i": i, "question": f"{q[20:-1]} ana matofaa mangapi?", "answer": f"Ana {i}."} for i, q in enumerate(ENGLISH)])
    lines(tmp_path / "de.jsonl", [{"i": i, "question": f"Wie viele Äpfel hat {ENGLISH[i][20:]}", "answer": str(i)} for i in (4, 1)])
    return tmp_path


@pytest.fixture
def context(tiny, files):
    return Context(model=lambda ref: resolve(tiny("llama", layers=4)), data=lambda ref: files / ref, step_id="t", folder=lambda ref: files / ref)


def config(**more) -> slam.Slam:
    base = {"model": "m", "pairs": {"sw": "sw.jsonl"}, "english": "en.jsonl", "steps": 2, "batch": 2, "accumulate": 1, "length": 160,
            "device": "cpu", "save_every": 1}
    chosen = {} if {"layers", "select", "everything"} & more.keys() else {"layers": ("0-1",)}
    return slam.Slam(**(base | chosen | more))


# ----------------------------------------------------------------------------------------------------- what is trained

LLAMA2 = {"7B": (32, 4096, 11008), "13B": (40, 5120, 13824)}


def llama2(size: str) -> dict[str, tuple[int, ...]]:
    layers, hidden, ffn = LLAMA2[size]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (32000, hidden), "lm_head.weight": (32000, hidden), "model.norm.weight": (hidden,)}
    for i in range(layers):
        at = f"model.layers.{i}."
        shapes |= {f"{at}self_attn.{p}_proj.weight": (hidden, hidden) for p in "qkvo"}
        shapes |= {f"{at}mlp.gate_proj.weight": (ffn, hidden), f"{at}mlp.up_proj.weight": (ffn, hidden), f"{at}mlp.down_proj.weight": (hidden, ffn)}
        shapes |= {f"{at}input_layernorm.weight": (hidden,), f"{at}post_attention_layernorm.weight": (hidden,)}
    return shapes


def settings(size: str) -> dict:
    layers, hidden, ffn = LLAMA2[size]
    return {"model_type": "llama", "num_hidden_layers": layers, "hidden_size": hidden, "intermediate_size": ffn, "vocab_size": 32000,
            "num_attention_heads": hidden // 128, "tie_word_embeddings": False}


@pytest.mark.parametrize(("size", "layers", "gate", "percent"), [
    ("13B", 6, False, "6.53"), ("7B", 6, False, "8.03"), ("7B", 5, False, "6.69"), ("7B", 4, False, "5.35"),
    ("13B", 6, True, "9.79"), ("7B", 6, True, "12.04"), ("7B", 5, True, "10.04"), ("7B", 4, True, "8.03")])  # fmt: skip
def test_the_published_shares_follow_from_shapes(size, layers, gate, percent):
    shapes = llama2(size)
    found = slam.feed_forward(range(layers), Anatomy.of(settings(size), shapes), shapes, gate)
    assert f"{100 * found.share(shapes):.2f}" == percent
    assert len(found) == layers * (3 if gate else 2) and all(r is None for r in found.rows.values())


def test_a_plan_tells_the_share_of_a_13b_from_headers(files, tmp_path):
    folder = tmp_path / "big"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings("13B")))
    head, tensors = build({k: ("BF16", s) for k, s in llama2("13B").items()}, {"format": "pt"}, "model.safetensors")
    (folder / "model.safetensors").write_bytes(head)
    os.truncate(folder / "model.safetensors", tensors[-1].end)  # 26 GB of holes: nothing but headers can be read
    plan = STEP.plan(config(layers=("0-5",)), Context(model=lambda ref: resolve(folder), data=lambda ref: files / ref, planning=True))
    assert "849,346,560 trained parameters (6.53%)" in plan.lines[0] and "alignment pairs: sw 6" in plan.lines


@pytest.mark.parametrize("family", make.FAMILIES)
def test_up_and_down_of_the_layer_and_nothing_else(family, tiny):
    checkpoint = Checkpoint.open(tiny(family))
    anatomy = Anatomy.of(checkpoint.config, checkpoint.tensors)
    shapes = {k: t.shape for k, t in checkpoint.tensors.items()}
    found = slam.feed_forward([1], anatomy, shapes)
    names = ("up_proj", "gate_up", "down_proj", "c_fc", "mlp.c_proj", "dense_h_to_4h", "dense_4h_to_h", "fc1", "fc2", ".w2.", ".w3.")
    own = {k for k in shapes if ".1." in k.replace("experts.1.", "experts.x.") and any(n in k for n in names)}
    assert set(found.rows) == own and own
    for key, rows in found.rows.items():
        half = shapes[key][0] // 2
        assert (rows is None) if "gate_up" not in key else np.array_equal(rows, np.arange(half, 2 * half))


@pytest.mark.parametrize("words", [("0-4",), ("4",), ("2-1",), ("x",), ("-1",), ("0", "9")])
def test_layers_that_are_not_there(context, words):
    with pytest.raises(RecipeError, match="no such layer"):
        STEP.plan(config(layers=words), context)


@pytest.mark.parametrize(("text", "message"), [
    ("", "one of `layers`, `select` or `everything`"), ("layers: 0-1\neverything: true", "one of `layers`"),
    ("everything: true\ngate: true", "part of `everything`"), ("layers: 0\npairs: {en: a.jsonl}", "lead from other languages"),
    ("layers: 0\npairs: {}", "pairs"), ("layers: 0\npairs: {swahilli: a}", "did you mean"), ("layers: 0\nblance: true", "balance"),
    ("layers: 0\nper_language: 0", "per_language")])  # fmt: skip
def test_what_is_typed_is_checked(text, message):
    document = "model: m\n" + text + ("" if "pairs" in text else "\npairs: {sw: a}") + "\n"
    with pytest.raises(UserError, match=r"r\.yaml:\d(.|\n)*" + message):
        parse(slam.Slam, parse_document(document, "r.yaml"))


def test_layers_may_be_numbers_or_spans():
    typed = parse(slam.Slam, parse_document("model: m\npairs: {swh: a}\nlayers: [0, 2-3]\n", "r.yaml"))
    assert typed.layers == ("0", "2-3") and list(typed.pairs) == ["sw"]
    assert parse(slam.Slam, parse_document("model: m\npairs: {sw: a}\nlayers: 3\n", "r.yaml")).layers == ("3",)


UP_DOWN = {"chosen": [Entry(2, "ffn", "up"), Entry(2, "ffn", "down")], "random.0": [Entry(0, "ffn", "up"), Entry(0, "ffn", "down")]}


@pytest.mark.parametrize(("select", "gate", "layer", "roles"), [
    ("dev", False, 2, "up down"), ("dev/selection.json", True, 2, "gate up down"), ("dev:random.0", False, 0, "up down")])  # fmt: skip
def test_layers_of_a_deviation_result(context, files, select, gate, layer, roles):
    (files / "dev").mkdir()
    selectionfile.write(files / "dev" / "selection.json", UP_DOWN)
    made = slam.task(config(select=select, gate=gate), context, AROUND)
    assert set(made.selection.rows) == {f"model.layers.{layer}.mlp.{r}_proj.weight" for r in roles.split()}


@pytest.mark.parametrize("family", ["llama", "phi3", make.MOE[0]])
def test_whole_feed_forward_parts_are_up_and_down_of_them(files, tiny, family):
    at = Context(model=lambda ref: resolve(tiny(family)), data=lambda ref: files / ref, folder=lambda ref: files / ref)
    selectionfile.write(files / "s.json", {"chosen": [Entry(1, "ffn")], "gate": [Entry(1, "ffn", "up"), Entry(1, "ffn", "gate")]})
    for gate in (False, True):
        made = slam.task(config(select="s.json:chosen", gate=gate), at, AROUND)
        shapes = {k: t.shape for k, t in made.checkpoint.tensors.items()}
        assert made.selection.normal(shapes) == slam.feed_forward([1], made.anatomy, shapes, gate).normal(shapes)
    if family == "llama":  # what a selection names by itself stays
        assert len(slam.task(config(select="s.json:gate"), at, AROUND).selection.rows) == 2


@pytest.mark.parametrize("entry", [Entry(0, "ffn", "neuron", np.array([1])), Entry(0, "attn", "q"), Entry(None, "embed")])
def test_a_selection_of_other_things_is_refused(context, files, entry):
    selectionfile.write(files / "s.json", {"chosen": [entry]})
    with pytest.raises(RecipeError, match="whole feed-forward parts"):
        STEP.plan(config(select="s.json"), context)


# ------------------------------------------------------------------------------------------------------------ the pairs


def rows_of(made: translation.Aligned) -> list[dict]:
    return [e.row for e in made.examples]


def gathered(context, **more) -> translation.Aligned:
    return translation.gather(config(**more), context, 0)


def test_pairs_are_matched_by_number_and_asked_as_qalign_does(context):
    made = gathered(context, pairs={"de": "de.jsonl", "sw": "sw.jsonl"})
    asked = [r["messages"][0]["content"] for r in rows_of(made)]
    assert asked[0] == "Translate the following sentences from German to English. Wie viele Äpfel hat Eve?"
    assert [r["messages"][1]["content"] for r in rows_of(made)] == [ENGLISH[4], ENGLISH[1], *ENGLISH]
    assert {r["messages"][0]["role"] for r in rows_of(made)} == {"user"} and {len(r["messages"]) for r in rows_of(made)} == {2}
    assert [(c.language, c.rows, c.used) for c in made.counts] == [("de", 2, 2), ("sw", 6, 6)]
    assert "uneven: 6 pairs of sw, 2 of de" in made.caveats()[0]
    assert made.table().rows == (("de", 2, 2), ("sw", 6, 6))


def test_a_column_a_language(context, files):
    lines(files / "table.jsonl", [{"en": e, "sw": f"s{i}", "de": f"d{i}"} for i, e in enumerate(ENGLISH)])
    made = gathered(context, pairs={"sw": "table.jsonl", "de": "table.jsonl"}, english=None)
    assert [r["messages"][1]["content"] for r in rows_of(made)] == ENGLISH * 2 and not made.caveats()
    assert rows_of(made)[0]["messages"][0]["content"].endswith(" s0") and rows_of(made)[6]["messages"][0]["content"].endswith(" d0")


def test_plain_text_by_line(context, files):
    (files / "sw.txt").write_text("moja\n\ntatu\n")
    (files / "en.txt").write_text("one\ntwo\nthree\n")
    with pytest.raises(InputError, match="differ in length"):
        gathered(context, pairs={"sw": "sw.txt"}, english="en.txt")
    (files / "en.txt").write_text("one\n\nthree\n")
    made = gathered(context, pairs={"sw": "sw.txt"}, english="en.txt")
    assert [r["messages"][1]["content"] for r in rows_of(made)] == ["one", "three"]


def test_answers_are_tasks_of_their_own(context):
    made = gathered(context, answers=True)
    assert [r["messages"][1]["content"] for r in rows_of(made)[:4]] == [ENGLISH[0], "She has 0.", ENGLISH[1], "She has 1."]
    assert made.counts[0].rows == 6 and made.counts[0].used == 12
    with pytest.raises(InputError, match="bare numbers"):
        gathered(context, answers=True, pairs={"de": "de.jsonl"})


@given(rows=st.lists(st.tuples(st.integers(0, 6), st.sampled_from(["", " a", "b", "c ", "Q1"])), min_size=1, max_size=20, unique_by=lambda r: r[0]),
       english=st.dictionaries(st.integers(0, 5), st.sampled_from(["", "Q1", "Q2 "]), min_size=1))
def test_pairs_equal_the_long_way(rows, english):
    source = {n: (f"f:{n + 1}", {"i": n, "question": text}) for n, text in rows}
    target = {n: (f"e:{n + 1}", {"question": text}) for n, text in english.items()}
    pairs, lost = counted(rows, english)
    if not pairs:
        with pytest.raises(InputError, match="no pair of Swahili is left"):
            translation.collect("sw", source, target, False, Path("f"))
        return
    found, count = translation.collect("sw", source, target, False, Path("f"))
    assert [(p.source, p.target) for p in found] == pairs
    assert {k: getattr(count, k) for k in lost} == lost and count.used == len(pairs) and count.rows == len(rows)


@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=4), most=st.none() | st.integers(1, 9), balance=st.booleans(), seed=st.integers(0, 3))
def test_limits_keep_order_and_count(sizes, most, balance, seed):
    tags = ["sw", "de", "ru", "zh"]
    found = {t: ([translation.Pair(t, f"s{i}", f"e{i}") for i in range(n)], translation.Count(t, n, n)) for t, n in zip(tags, sizes)}
    kept = translation.limited(found, most, balance, seed)
    want = [min([n, *([most] if most else []), *([min(sizes)] if balance else [])]) for n in sizes]
    assert [len(pairs) for pairs, _ in kept.values()] == want == [c.used for _, c in kept.values()]
    for tag, (pairs, count) in kept.items():
        places = [found[tag][0].index(p) for p in pairs]
        assert places == sorted(set(places)) and count.used + count.spare == count.rows
    assert kept == translation.limited(found, most, balance, seed)


@pytest.mark.parametrize(("text", "message"), [
    ("Put it into English.", "does not say once"), ("{question} {question}", "does not say once"), ("{Soruce}: {question}", "Source"),
    ("{question!r}", "unknown field"), ("{question.__class__}", "unknown field"), ("{} {question}", "write {{"), ("{question", "not an instruction"),
    ("", "does not say once"), ("{question:>9}", "unknown field")])  # fmt: skip
def test_an_instruction_without_its_fields(context, files, text, message):
    with pytest.raises(RecipeError, match=message):
        gathered(context, instruction=text)
    (files / "t.txt").write_text(text)
    with pytest.raises(RecipeError, match=message) as e:
        gathered(context, instruction_file="t.txt")
    assert str(files / "t.txt") in str(e.value) and e.value.fix


def test_an_instruction_of_ones_own(context, files):
    (files / "t.txt").write_text("{Source}, {{so}}:\n{question}\n", encoding="utf-8-sig")
    made = gathered(context, instruction_file="t.txt")
    assert rows_of(made)[0]["messages"][0]["content"] == "Swahili, {so}:\nAnn ana matofaa mangapi?"
    with pytest.raises(InputError, match="cannot be read") as e:
        gathered(context, instruction_file="none.txt")
    assert "none.txt" in str(e.value) and e.value.fix
    with pytest.raises(RecipeError, match="two instructions"):
        gathered(context, instruction_file="t.txt", instruction=INSTRUCTION)


# ------------------------------------------------------------------------------------------------------------- the step


def test_pairs_too_long_for_an_answer_are_named(context, tmp_path):
    for call in (lambda: STEP.plan(config(length=8), context), lambda: STEP.run(config(length=8), context, tmp_path / "out")):
        with pytest.raises(InputError, match=r"sw=sw\.jsonl: no example has an answer within the length"):
            call()


def changed(a: Path, b: Path) -> set[str]:
    one, two = Checkpoint.open(a), Checkpoint.open(b)
    return {k for k in one.tensors if one.read(k) != two.read(k)}


def test_it_trains_resumes_and_tells(context, files, tmp_path, tiny):
    asked = config(steps=4, pairs={"sw": "sw.jsonl", "de": "de.jsonl"}, data=("toy:a",), lr=1e-3)
    done = STEP.run(asked, context, tmp_path / "a")
    assert changed(tiny("llama", layers=4), tmp_path / "a" / "model") == {
        f"model.layers.{i}.mlp.{r}_proj.weight" for i in (0, 1) for r in ("up", "down")}
    tables = {t.title: t for t in done.tables}
    assert tables["Alignment data"].rows == (("sw", 6, 6), ("de", 2, 2))
    assert tables["Settings beside the released ones"].rows[0] == ("examples a step", 512, 2)
    assert "4 further examples were mixed in." in done.summary
    assert ["uneven: 6 pairs" in c for c in done.caveats if "uneven" in c] == [True]
    assert done.data["alignment"][0]["used"] == 6 and done.step == "tune.slam"
    assert Result.from_json(json.loads(json.dumps(done.to_json()))) == done
    assert [i.spec for i in done.inputs][1:] == ["sw=sw.jsonl", "de=de.jsonl", "toy:a"]

    class Cut(Exception):
        pass

    def cut(step, total, text=""):
        if step == 3:
            raise Cut

    with pytest.raises(Cut):
        STEP.run(asked, dataclasses.replace(context, progress=cut), tmp_path / "b")
    again = STEP.run(asked, context, tmp_path / "b")
    assert again.data["resumed_at"] == 2 and changed(tmp_path / "a" / "model", tmp_path / "b" / "model") == set()


def test_an_example_is_plain_text_with_the_loss_on_its_english(context, tiny):
    from polygraft.model import load
    from polygraft.tune import examples

    words, s = load(tiny("llama", layers=4)).tokenizer, config().settings()
    made = slam.task(config(), context, AROUND)
    tokens = examples.tokenize(made.rows[0], words, 400, s.answer_only, s.template)
    learnt = [t for t in tokens["labels"] if t != examples.IGNORE]
    asked = "Human: Translate the following sentences from Swahili to English. Ann ana matofaa mangapi?\nAssistant: "
    assert words.decode(tokens["input_ids"], skip_special_tokens=True) == asked + ENGLISH[0]
    assert words.decode(learnt) == ENGLISH[0] + words.eos_token
    assert (s.rate, s.schedule, s.warmup, s.template) == (2e-5, "cosine", 0.0, "human-assistant") and slam.Slam.model_fields["epochs"].default == 4


def test_pairs_are_mixed_held_out_and_searched_as_other_examples_are(context):
    from polygraft.tune.data.config import Mix

    both = {"pairs": {"sw": "sw.jsonl", "de": "de.jsonl"}, "data": ("more=toy:a",)}
    made = slam.task(config(**both, mix=Mix(weights={"sw": 0.5, "de": 0.25, "more": 0.25}, examples=4)), context, AROUND)
    assert sorted(made.gathered.labels) == ["de", "more", "sw", "sw"] and made.summary == ("1 further examples were mixed in.",)
    held = dataclasses.replace(AROUND, held=lambda *_: [("mgsm", "en", "3", "Put simply: " + " ".join("abcdefghijkl"))])
    leaky = [{"sw": f"s{i}", "en": " ".join("abcdefghijkl") if i == 2 else f"e{i}"} for i in range(4)]
    lines(context.data("leaky.jsonl"), leaky)
    found = slam.task(config(pairs={"sw": "leaky.jsonl"}, english=None), context, held)
    assert len(found.rows) == 3 and found.data["alignment"][0]["used"] == 4


def test_the_first_of_two_stages_trains_everything_on_the_same_examples(context, tmp_path, tiny):
    one, two = slam.task(config(), context, AROUND), slam.task(config(everything=True), context, AROUND)
    assert one.rows == two.rows and two.selection is None
    done = STEP.run(config(everything=True, lr=1e-2), context, tmp_path)
    assert len(changed(tiny("llama", layers=4), tmp_path / "model")) > 30
    assert done.title.startswith("Question alignment, every weight, of")


def test_the_check_warns_of_a_model_that_cannot_reason(context, tmp_path, monkeypatch):
    monkeypatch.setattr(slam, "CHECKED", 6)
    done = STEP.run(config(check=True, steps=1), context, tmp_path)
    assert [r["step"] for r in done.data["watch"]["readings"]] == [0, 1]
    assert any(line.startswith("English problems solved: 0 %") for line in done.summary)
    assert any("start from a model that has it" in c for c in done.caveats)


def test_the_check_joins_a_watch_and_is_silent_about_an_able_model():
    from polygraft.watching import Watch

    joined = slam.watched(config(check=True, watch=Watch(tasks=("blimp",), langs=("de",)))).watch
    assert joined.tasks == ("blimp", "problems-generate") and joined.langs == ("de", "en")
    there = slam.watched(config(check=True, watch=Watch(tasks=("problems-generate",), langs=("es",)))).watch
    assert there.tasks == ("problems-generate",) and there.langs == ("es", "en")
    score = {"value": 40.0, "low": 30.0, "high": 50.0, "n": 50, "unit": "%", "verdict": ""}
    readings = [{"scores": {"problems-generate/en/accuracy": score | {"value": v}}} for v in (40.0, 38.0)]
    told = slam.english(Result(step="", id="", title="", summary=(), data={"watch": {"readings": readings}}))
    assert told == (("English problems solved: 40 % (30 to 50, of 50) before the training, 38 % (30 to 50, of 50) after.",), ())
