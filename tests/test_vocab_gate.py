"""vocab gate: a model that lost something fails by the criterion of what it lost; what new tokens a model writes."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import tiny as make
from polygraft.errors import CriteriaFailed, InputError
from polygraft.evals.verdicts.criteria import raise_failed
from polygraft.sources import resolve
from polygraft.step import Context
from polygraft.steps import AROUND, TABLE
from polygraft.tokenfile import Vocabulary
from polygraft.vocab.adoption import adoption, new_tokens
from polygraft.vocab.gate import Gate, gate_step, pieces
from polygraft.vocab.gatewords import bits, copy
from test_vocab_around import longer

LINES = [f"Предложение номер {n} говорит о том, что дом {n * 7} стоит у реки и виден издалека." for n in range(30)]


@dataclass(frozen=True)
class Said:
    text: str
    tokens: int = 9
    finished: bool = True
    ids: tuple[int, ...] = (7, 8)
    scores: dict = field(default_factory=dict)
    source_tokens: int = 9


@dataclass(frozen=True)
class Read:
    nats: float
    bytes: int = 100
    tokens: int = 20


def around(good=(1.0, 1.0, 1.0), nats=70.0, broken=False):
    """An Around whose second model (the adapted one) copies and reads so well; the start copies at 1.0 and reads at 70 nats."""
    turn = []

    def load(*_):
        turn.append(1)
        return len(turn)

    def read(live, texts):
        if broken and live == 2:
            raise InputError("the model's likelihoods are not numbers", where="m", found="nan nats")
        return [Read(70.0 if live == 1 else nats) for _ in texts]

    def copies(live, language, kind, texts, chat):
        length, characters, whole = (1.0, 1.0, 1.0) if live == 1 else good
        return [Said(t, scores={"copy length": length, "copy characters": characters, "copy reliability": whole}) for t in texts]

    return replace(AROUND, load=load, nats=read, copies=copies, answers=lambda live, texts, n, chat: [Said(t) for t in texts])


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    root = tmp_path_factory.mktemp("gate")
    start = make.folder(root, "llama")
    longer(start, root / "model")
    (root / "held.txt").write_text("\n".join([*LINES, *(" ".join(LINES[i : i + 6]) for i in range(0, 30, 6))]))
    return root, start


def gate(places, out, using, model="model", **fields):
    root, start = places
    context = Context(lambda ref: resolve(root / ref if ref == model else start), lambda ref: root / ref, step_id="g")
    config = Gate(model=model, start="start", corpus={"ru": "held.txt"}, sentences=10, paragraphs=3, device="cpu", **fields)
    step = gate_step(using)
    assert "two models are asked the same" in step.plan(config, context).lines[0]
    out.mkdir(exist_ok=True)
    return step.run(config, context, out)


def test_a_model_that_lost_nothing_passes(places, tmp_path):
    result = gate(places, tmp_path / "o", around())
    assert result.data["criteria"] == {"passed": True, "reasons": []}
    raise_failed(result.data, "g")
    speed = next(t for t in result.tables if t.title == "Speed of copies")
    assert [row[1] for row in speed.rows] == ["characters per token", "characters per second"] and speed.rows[0][4] == 1.0
    rows = [json.loads(line) for line in (tmp_path / "o" / "copies.jsonl").read_text().splitlines()]
    assert len(rows) == 13 and rows[0]["model"]["copy length"] == 1.0


@pytest.mark.parametrize(("using", "named"), [
    (around(good=(0.9, 1.0, 1.0)), "copy length, sentences, ru"),
    (around(good=(1.0, 1.0, 0.4)), "copy reliability, paragraphs, ru"),
    (around(nats=75.0), "bits per byte, ru"),
    (around(broken=True), "finite numbers"),
])
def test_what_fails_is_named_and_ends_with_6(places, tmp_path, using, named):
    result = gate(places, tmp_path / "o", using)
    assert next(r.partition(":")[0] for r in result.data["criteria"]["reasons"]) == named
    with pytest.raises(CriteriaFailed) as e:
        raise_failed(result.data, "g")
    assert e.value.exit_code == 6


def test_bounds_are_those_that_were_given(places, tmp_path):
    assert gate(places, tmp_path / "a", around(nats=75.0), bits_rise=0.08).data["criteria"]["passed"]
    assert gate(places, tmp_path / "b", around(good=(0.9, 0.9, 0.9)), copy_drop=0.11).data["criteria"]["passed"]


@pytest.mark.parametrize("what", ["template", "control"])
def test_files_that_changed_fail(places, tmp_path, what):
    root, start = places
    made = root / f"without-{what}"
    shutil.copytree(start, made, dirs_exist_ok=True)
    if what == "template":
        (made / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    else:
        tree = json.loads((made / "tokenizer.json").read_text())
        tree["added_tokens"] = [t for t in tree["added_tokens"] if t["content"] != "</s>"]
        (made / "tokenizer.json").write_text(json.dumps(tree))
        settings = json.loads((made / "tokenizer_config.json").read_text())
        settings.pop("added_tokens_decoder", None)
        settings["eos_token"] = "<pad>"
        (made / "tokenizer_config.json").write_text(json.dumps(settings))
    reasons = gate(places, tmp_path / "o", around(), model=made.name).data["criteria"]["reasons"]
    assert len(reasons) == 1 and reasons[0].startswith("files, control tokens, template")


def test_a_real_model_with_a_broken_row_has_no_finite_numbers(places, tmp_path):
    root, start = places
    for name, value in (("same", None), ("broken", np.nan)):
        shutil.copytree(start, root / name, dirs_exist_ok=True)
        tensors = load_file(start / "model.safetensors")
        if value is not None:
            tensors["lm_head.weight"][5] = value
        save_file(tensors, root / name / "model.safetensors", metadata={"format": "pt"})
    assert gate(places, tmp_path / "a", AROUND, model="same", max_bytes=2000).data["criteria"]["passed"]
    reasons = gate(places, tmp_path / "b", AROUND, model="broken", max_bytes=2000).data["criteria"]["reasons"]
    assert len(reasons) == 1 and reasons[0].startswith("finite numbers")


def test_new_tokens_that_are_written_are_counted(places):
    root, start = places
    new, old = Vocabulary.open(root / "model"), Vocabulary.open(start)
    ids = new_tokens(new, old)
    assert ids.tolist() == [make.VOCAB, make.VOCAB + 1]
    whole = new.tokenizer.encode("one", add_special_tokens=False).ids
    small = old.tokenizer.encode("one", add_special_tokens=False).ids
    found = adoption(new, ids, [whole, small], ["one", "one"])
    assert (found.written, found.new, found.different, found.there) == (len(whole) + 3, 1, 1, 2)
    assert found.own == pytest.approx(2 / (2 * len(whole))) and found.share == pytest.approx(1 / (len(whole) + 3))
    assert found.used == 0.5 and adoption(new, ids, [], []).share == 0.0


@given(st.lists(st.tuples(st.floats(1, 50), st.floats(1, 50), st.integers(5, 40)), min_size=2, max_size=20))
def test_bits_are_all_bits_over_all_bytes(rows):
    start, model = [(a, n) for a, _, n in rows], [(b, n) for _, b, n in rows]
    found = bits("ru", start, model, 0.1)
    size = sum(n for *_, n in rows) * np.log(2)
    expected = (sum(b for _, b, _ in rows) - sum(a for a, *_ in rows)) / size
    assert found.difference.value == pytest.approx(expected, abs=1e-9) and found.ok == (expected <= 0.1)
    assert found.difference.low <= found.difference.high


def test_copies_are_means_of_pairs():
    found = copy("x", [1.0, 0.5, 0.75], [0.5, 0.5, 0.75], 0.2)
    assert found.difference.value == pytest.approx(-1 / 6) and found.ok and not copy("x", [1.0] * 3, [0.5] * 3, 0.2).ok


def test_long_documents_are_cut_at_line_breaks(tmp_path):
    from polygraft.data import open_corpus

    (tmp_path / "t.jsonl").write_text(json.dumps({"text": "строка текста\n" * 1000}))
    found = pieces(open_corpus("ru", tmp_path / "t.jsonl"), 10_000)
    assert all(t.endswith("\n") and len(t) <= 2000 for t in found[:-1]) and 10_000 <= len("".join(found).encode()) < 10_100


def asks(folder, tmp_path, source=resolve):
    (tmp_path / "held.txt").write_text("\n".join(LINES[:4]))
    context = Context(lambda ref: source(folder) if ref == "model" else resolve(folder), lambda ref: tmp_path / ref, step_id="g")
    config = Gate(model="model", start="start", corpus={"ru": "held.txt"}, sentences=1, paragraphs=0, max_bytes=300, device="cpu")
    return gate_step(AROUND).run(config, context, tmp_path)


@pytest.mark.parametrize("family", [f if f in ("gpt2", "gemma3") else pytest.param(f, marks=pytest.mark.slow) for f in make.FAMILIES])
def test_a_model_of_any_family_passes_beside_itself(family, tmp_path):
    result = asks(make.folder(tmp_path, family), tmp_path)
    assert result.data["criteria"] == {"passed": True, "reasons": []} and result.summary[-1] == "No token of the model is new."


def test_an_adapter_is_judged_with_its_base(tmp_path):
    folder = make.folder(tmp_path, "llama")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "a", "completion": "b" * 9}))
    step = next(s for s in TABLE if s.name == "tune.lora")
    context = Context(lambda ref: resolve(folder), lambda ref: tmp_path / ref, step_id="l")
    step.run(step.config(model="m", data=("rows.jsonl",), steps=2, lr=0.1, r=2, save_every=0, device="cpu"), context, tmp_path / "lora")
    result = asks(folder, tmp_path, lambda base: resolve(tmp_path / "lora" / "model", base=str(base)))
    changed = result.data["measured"]["bits per byte, ru"]
    assert changed["start"] != changed["model"] and "files, control tokens, template" not in " ".join(result.data["criteria"]["reasons"])
