"""The response store: what names a response, what survives, what is computed again; which bytes make a model's digest."""

import json
import multiprocessing
import os
import shutil
import string
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny as make
from fakeengine import Cut, FakeEngine
from polygraft import files
from polygraft.errors import ResourceError
from polygraft.evals.asking import Asker, chunks
from polygraft.evals.engines.base import Decoding
from polygraft.evals.engines.hf import Scorer
from polygraft.evals.identity import model_digest
from polygraft.evals.lm import decoding, lm_class
from polygraft.evals.responses import About, Store, response_key, store_root
from polygraft.sources import resolve

ABOUT = About("mgsm@1", "sw", 0, 0)
HF = {"backend": "hf", "dtype": "float32"}
PAIRS = [(ABOUT, "Q", " 1"), (ABOUT, "Q", " 2"), (ABOUT, "Q", " 1"), (ABOUT, "other", " 1")]
PROMPTS = [(ABOUT, "write", Decoding(8)), (ABOUT, "write", Decoding(9)), (ABOUT, "more", Decoding(8))]
TEXTS = [(ABOUT, "one text"), (ABOUT, "another")]


def asker(root, engine=None, model="abc", computed=HF):
    return Asker(engine or FakeEngine(), Store(root, model), computed=computed)


def all_three(one, about=ABOUT):
    return (one.pairs([(about, *rest) for _, *rest in PAIRS]), one.generate([(about, *rest) for _, *rest in PROMPTS]),
            one.documents([(about, text) for _, text in TEXTS]))


# ------------------------------------------------------------------------------------------------------------- the key


def test_a_second_run_computes_nothing_and_gives_the_same(tmp_path):
    first, second = asker(tmp_path), asker(tmp_path)
    found = all_three(first)
    assert first.engine.asked == {"pairs": 3, "generate": 3, "documents": 2}  # each once, also where it is asked twice
    assert found[0][0] == found[0][2]
    assert all_three(second) == found and not second.engine.asked


CHANGES = {
    "model": lambda d: all_three(asker(d, model="abd")),
    "task": lambda d: all_three(asker(d), ABOUT._replace(task="mgsm@2")),
    "language": lambda d: all_three(asker(d), ABOUT._replace(language="en")),
    "shots": lambda d: all_three(asker(d), ABOUT._replace(shots=1)),
    "seed": lambda d: all_three(asker(d), ABOUT._replace(seed=1)),
    "decoding: dtype": lambda d: all_three(asker(d, computed=HF | {"dtype": "bfloat16"})),
    "decoding: backend": lambda d: all_three(asker(d, computed=HF | {"backend": "vllm"})),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_the_key_computes_everything_again_and_back_nothing(name, tmp_path, monkeypatch):
    before, counted = asker(tmp_path), []
    all_three(before)
    monkeypatch.setattr(FakeEngine, "_batches", lambda self, kind, n, answer, done: (counted.append(n), done([(i, answer(i)) for i in range(n)])))
    CHANGES[name](tmp_path)
    assert sum(counted) == 6
    CHANGES[name](tmp_path)
    all_three(asker(tmp_path))
    assert sum(counted) == 6


@pytest.mark.parametrize(("asked", "new"), [
    ([(ABOUT, "Q", " 3")], 1), ([(ABOUT, "Q ", "1")], 1), ([(ABOUT, "Q", " 2"), (ABOUT, "Q", " 4")], 1), ([(ABOUT, "Q 1", "")], 1), ([], 0),
])
def test_a_new_prompt_computes_that_prompt_alone(asked, new, tmp_path):
    all_three(asker(tmp_path))
    one = asker(tmp_path)
    one.pairs(asked + PAIRS)
    assert one.engine.asked["pairs"] == new


@pytest.mark.parametrize("how", [Decoding(7), Decoding(8, ("\n",)), Decoding(8, temperature=0.5), Decoding(8, top_p=0.9), Decoding(8, seed=1)])
def test_another_decoding_computes_only_what_is_written(how, tmp_path):
    all_three(asker(tmp_path))
    one = asker(tmp_path)
    one.generate([(ABOUT, "write", how), (ABOUT, "write", Decoding(8))])
    assert one.engine.asked == {"generate": 1}


def test_one_more_task_computes_only_that_one(tmp_path):
    all_three(asker(tmp_path))
    one, other = asker(tmp_path), About("xnli@1", "sw")
    one.pairs([*PAIRS, (other, "Q", " 1")])
    assert one.engine.asked == {"pairs": 1}
    assert len(list(tmp_path.rglob("*.jsonl"))) == 2, "a run that does not ask a task does not read its file"


@settings(max_examples=60)
@given(*[st.lists(st.text(max_size=3), min_size=1, max_size=3)] * 2)
def test_keys_are_equal_only_for_equal_prompts(left, right):
    keys = [response_key("m", ABOUT, p, "{}") for p in (left, right)]
    assert (keys[0] == keys[1]) == (left == right)


def test_odd_texts_have_keys_and_come_back(tmp_path):
    odd = ["\ud800 lone", "\0", "é", "e\u0301", "\u2028\x85\r\n", "x" * 1_000_000, ""]
    one = asker(tmp_path)
    found = one.pairs([(ABOUT, t, "a") for t in odd])
    again = asker(tmp_path)
    assert again.pairs([(ABOUT, t, "a") for t in odd]) == found and not again.engine.asked
    assert len({p.nats for p in found}) == len(odd)


def test_what_a_model_writes_comes_back_whatever_it_holds(tmp_path):
    texts = ["\u2028\x85\r\n\x1c", "\0 \ufffd", "שלום\u202e", ""]
    with Store(tmp_path, "m") as store:
        store.put(ABOUT, {str(i): {"text": t} for i, t in enumerate(texts)})
    assert [Store(tmp_path, "m").get(ABOUT, str(i))["text"] for i in range(4)] == texts


# ----------------------------------------------------------------------------------------------------- cuts and damage


@pytest.mark.parametrize("batches", range(4))
def test_a_cut_costs_the_batch_under_way(batches, tmp_path):
    asked = [(ABOUT, "Q", f" {i}") for i in range(10)]
    cut = asker(tmp_path, FakeEngine(batch=3, cut=batches))
    with pytest.raises(Cut):
        cut.pairs(asked)
    again = asker(tmp_path)
    assert [(p.nats, p.greedy) for p in again.pairs(asked)] == [(p.nats, p.greedy) for p in asker(None).pairs(asked)]
    assert again.engine.asked["pairs"] == 10 - 3 * batches


def one_file(root: Path) -> Path:
    [path] = root.rglob("*.jsonl")
    return path


def test_a_line_cut_at_any_byte_is_asked_again_and_is_no_damage(tmp_path):
    found = asker(tmp_path / "whole").pairs(PAIRS)
    data = one_file(tmp_path / "whole").read_bytes()
    last = data.rfind(b"\n", 0, -1) + 1
    for at in range(last, len(data), 7):
        root = tmp_path / str(at)
        shutil.copytree(tmp_path / "whole", root)
        one_file(root).write_bytes(data[:at])
        again = asker(root)
        assert [p.nats for p in again.pairs(PAIRS)] == [p.nats for p in found] and again.engine.asked["pairs"] == 1
        assert len(one_file(root).read_bytes().splitlines()) == 3
        once_more = asker(root)
        once_more.pairs(PAIRS)
        assert not once_more.engine.asked and once_more.store.notes == ()


@pytest.mark.parametrize("line", range(3))
def test_a_damaged_line_is_asked_again_and_told(line, tmp_path):
    found = asker(tmp_path).pairs(PAIRS)
    lines = one_file(tmp_path).read_bytes().splitlines(keepends=True)
    lines[line] = lines[line].replace(b'"nats":-', b'"nats":-1')
    one_file(tmp_path).write_bytes(b"".join(lines))
    again = asker(tmp_path)
    assert [p.nats for p in again.pairs(PAIRS)] == [p.nats for p in found] and again.engine.asked["pairs"] == 1
    assert "1 damaged line" in again.store.notes[0] and "mgsm@1.sw" in again.store.notes[0]


@settings(max_examples=40)
@given(st.binary(max_size=200))
def test_any_bytes_are_damage_not_a_crash(tmp_path_factory, data):
    root = tmp_path_factory.mktemp("store")
    asker(root).pairs(PAIRS)
    path = one_file(root)
    path.write_bytes(data)
    assert len(asker(root).pairs(PAIRS)) == len(PAIRS)


def writer(root, n, seed):
    with Store(root, "m") as store:
        for i in range(n):
            store.put(ABOUT, {f"{seed}-{i}-{k}": {"text": "x" * (500 * k)} for k in range(3)})


def test_processes_that_write_at_once_lose_nothing(tmp_path):
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=writer, args=(tmp_path, 40, seed)) for seed in range(4)]
    for c in children:
        c.start()
    for c in children:
        c.join()
    store = Store(tmp_path, "m")
    assert all(store.get(ABOUT, f"{s}-{i}-{k}") for s in range(4) for i in range(40) for k in range(3)) and store.notes == ()


def test_a_reader_beside_a_writer_sees_whole_rows(tmp_path):
    child = multiprocessing.get_context("fork").Process(target=writer, args=(tmp_path, 60, 0))
    child.start()
    while child.is_alive():
        store = Store(tmp_path, "m")
        assert store.get(ABOUT, "none") is None and store.notes == ()
        time.sleep(0.002)
    assert child.exitcode == 0


def test_a_full_disk_is_told_and_earlier_rows_stay(tmp_path, monkeypatch):
    one = asker(tmp_path)
    one.pairs(PAIRS)

    class Full(files.Ops):
        def write(self, fd, data):
            if len(data) > 40:
                return os.write(fd, data[:40])
            raise OSError(28, "No space left on device")
    monkeypatch.setattr(files, "OPS", Full())
    with pytest.raises(ResourceError, match="No space left"):
        one.pairs([(ABOUT, "new", " 1")])
    monkeypatch.undo()
    again = asker(tmp_path)
    again.pairs([*PAIRS, (ABOUT, "new", " 1")])
    assert again.engine.asked["pairs"] == 1 and again.store.notes == ()


def test_a_secret_of_the_environment_is_not_stored(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    with Store(tmp_path, "m") as store:
        store.put(ABOUT, {"k": {"text": "my token is hf_secretsecret"}})
    assert b"secretsecret" not in one_file(tmp_path).read_bytes()


def test_where_the_store_is(tmp_path, monkeypatch):
    monkeypatch.setenv("POLYGRAFT_CACHE", str(tmp_path))
    monkeypatch.delenv("POLYGRAFT_RESPONSES")
    assert store_root() == tmp_path / "responses" and store_root("none") is None and store_root("x") == Path("x")
    monkeypatch.setenv("POLYGRAFT_RESPONSES", str(tmp_path / "there"))
    assert store_root() == tmp_path / "there" and store_root("x") == Path("x")
    monkeypatch.setenv("POLYGRAFT_RESPONSES", "none")
    assert store_root() is None


def test_tasks_of_any_name_have_files_of_their_own(tmp_path):
    names = ["a/b@1", "a_b@1", "../up@1", "a.b", "ж" * 300, "lm-eval:x,y", "", "."]
    with Store(tmp_path, "m") as store:
        for n in names:
            store.put(About(n), {"k": {"n": n}})
    assert [Store(tmp_path, "m").get(About(n), "k") for n in names] == [{"n": n} for n in names]
    assert len(list(tmp_path.rglob("*.jsonl"))) == len(names) and len([p for p in tmp_path.rglob("*") if p.is_file()]) == len(names)


def test_many_responses_are_small_and_quick(tmp_path):
    rows = [(f"{i:032x}", {"nats": -i / 7, "greedy": False, "seconds": 0.001}) for i in range(20_000)]
    start = time.process_time()
    with Store(tmp_path, "m") as store:
        for at in range(0, len(rows), 100):
            store.put(ABOUT, dict(rows[at:at + 100]))
    assert Store(tmp_path, "m").get(ABOUT, rows[-1][0]) == rows[-1][1]
    assert time.process_time() - start < 5 and one_file(tmp_path).stat().st_size < 150 * len(rows)


# ---------------------------------------------------------------------------------------------------- the model's digest


@pytest.fixture
def model(tiny, tmp_path):
    return Path(shutil.copytree(tiny("llama", layers=2, seed=1), tmp_path / "model"))


def digest(path):
    return model_digest(resolve(path))


def flip(path: Path, at: int = -1) -> None:
    """Another byte, and the same times: only the content tells."""
    state = path.stat()
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def edit_json(path, **more):
    path.write_text(json.dumps(json.loads(path.read_text()) | more))


CHANGED = {
    "a weight": lambda d: flip(d / "model.safetensors"),
    "the config": lambda d: edit_json(d / "config.json", rms_norm_eps=1e-3),
    "the tokenizer": lambda d: (d / "tokenizer.json").write_text((d / "tokenizer.json").read_text() + " "),
    "the tokenizer's config": lambda d: edit_json(d / "tokenizer_config.json", bos_token=None),
    "the chat template": lambda d: (d / "chat_template.jinja").write_text("{{ messages }}"),
    "a chat template that is new": lambda d: ((d / "additional_chat_templates").mkdir(), (d / "additional_chat_templates/x.jinja").write_text("x")),
    "what generation takes by default": lambda d: (d / "generation_config.json").write_text('{"repetition_penalty": 2}'),
}
SAME = {
    "nothing": lambda d: None,
    "its times": lambda d: [os.utime(p, (1, 1)) for p in d.iterdir()],
    "a readme, a manifest and pictures": lambda d: [(d / n).write_text("x") for n in ("README.md", "manifest.json", "a.png", "trainer_state.json")],
    "a checkpoint within": lambda d: shutil.copytree(d, d.parent / "x") and shutil.move(d.parent / "x", d / "checkpoint-5"),
}


@pytest.mark.parametrize("what", CHANGED)
def test_a_change_of_a_model_is_another_model(what, model, tiny):
    before = digest(model)
    CHANGED[what](model)
    assert digest(model) != before == digest(tiny("llama", layers=2, seed=1))


@pytest.mark.parametrize("what", SAME)
def test_what_decides_no_answer_does_not_change_the_model(what, model, tmp_path):
    before = digest(model)
    SAME[what](model)
    moved = shutil.copytree(model, tmp_path / "elsewhere")
    assert digest(model) == before == digest(moved)


def test_large_files_are_hashed_once_and_again_when_they_change(tmp_path, monkeypatch, model):
    from polygraft.evals import identity

    monkeypatch.setenv("POLYGRAFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(identity, "SMALL", 1)
    first, hashed = digest(model), []
    whole = files.sha256_file
    monkeypatch.setattr(files, "sha256_file", lambda p: hashed.append(Path(p).name) or whole(p))
    assert digest(model) == first and hashed == ["config.json"], "the headers' own identity reads the config; nothing else is read"
    hashed.clear()
    flip(model / "model.safetensors")
    assert digest(model) != first and "model.safetensors" in hashed


def adapter(root: Path, base: Path, seed: int) -> Path:
    import peft
    import torch
    import transformers

    torch.manual_seed(seed)
    net = peft.get_peft_model(transformers.AutoModelForCausalLM.from_pretrained(base),
                              peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    net.save_pretrained(root)
    return root


def test_an_adapter_is_itself_and_its_base(tiny, tmp_path):
    one, other = tiny("llama", layers=2, seed=1), tiny("llama", layers=2, seed=2)
    a, b = adapter(tmp_path / "a", one, 1), adapter(tmp_path / "b", one, 2)
    found = [model_digest(resolve(x, base=y)) for x, y in ((a, one), (b, one), (a, other))] + [digest(one)]
    assert len(set(found)) == 4


# ---------------------------------------------------------------------------------------------------------------- lm-eval


class Request:
    def __init__(self, *args, task="jobs"):
        self.args, self.task_name, self.doc_id, self.idx = args, task, 0, 0


def lm(root=None, engine=None, **about):
    return lm_class()(asker(root, engine), about)


def test_lm_answers_from_the_store_and_asks_the_rest(tmp_path):
    requests = [Request("Q", " 1"), Request("Q", " 2"), Request("Q", " 1")]
    one = lm(tmp_path)
    first = one.loglikelihood(requests)
    assert first[0] == first[2] and one.asker.engine.asked["pairs"] == 2
    other = lm(tmp_path)
    assert other.loglikelihood([*requests, Request("Q", " 3")])[:3] == first and other.asker.engine.asked["pairs"] == 1


def test_lm_names_responses_by_the_task_that_asks(tmp_path):
    about = {"mgsm.sw": About("mgsm@1", "sw", 8, 3), "mgsm.en": About("mgsm@1", "en", 8, 3)}
    one = lm(tmp_path, **about)
    one.loglikelihood([Request("Q", " 1", task="mgsm.sw"), Request("Q", " 1", task="mgsm.en"), Request("Q", " 1", task="arc_easy")])
    assert one.asker.engine.asked["pairs"] == 3
    assert sorted(p.name.rpartition("-")[0] for p in tmp_path.rglob("*.jsonl")) == ["lm-eval_arc_easy.", "mgsm@1.en", "mgsm@1.sw"]


def test_lm_generates_with_each_requests_own_options():
    scorer = Scorer(make.model("llama", layers=2, seed=3), make.tokenizer(), batch_tokens=64)
    out = lm(None, scorer).generate_until([
        Request("one", {"until": ["\n"], "max_gen_toks": 2}), Request("one", {"until": [], "max_gen_toks": 5}),
        Request("one", {"until": "\n", "max_gen_toks": 2})])
    assert out[0] == out[2] and len(out[1]) > len(out[0])


def test_lm_draws_again_when_a_sampled_prompt_is_repeated():
    sampled, greedy = {"temperature": 0.7, "do_sample": True}, {"temperature": 0.7, "do_sample": False}
    out = lm().generate_until([Request("one", sampled), Request("one", sampled), Request("one", greedy), Request("one", greedy)])
    assert out[0] != out[1] and out[2] == out[3]


@pytest.mark.parametrize(("options", "want"), [
    ({}, Decoding(256)), ({"until": "x", "max_gen_toks": "7"}, Decoding(7, ("x",))), ({"temperature": 0.0, "top_p": None}, Decoding(256)),
    ({"temperature": 0.5, "top_p": 0.9}, Decoding(256, (), 0.5, 0.9, 3)), ({"temperature": 0.5, "do_sample": False}, Decoding(256)),
])
def test_lm_evals_options_as_ours(options, want):
    assert decoding(options, seed=3) == want


def test_lm_rolling_is_the_likelihood_from_bos():
    from oracle import bpb_oracle as oracle

    scorer = Scorer(make.model("llama", layers=2, seed=3), make.tokenizer(), batch_tokens=64)
    [got] = lm(None, scorer).loglikelihood_rolling([Request("some text")])
    assert got == pytest.approx(oracle.continuation(scorer.model, [1], scorer.ids("some text"))[0], abs=1e-3)


def test_lm_is_registered_with_lm_eval():
    from lm_eval.api.registry import get_model

    assert get_model("polygraft") is lm_class()


def test_lm_writes_chats_as_the_engine_does():
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert lm().apply_chat_template(turns[:1]) == "<user>a" and lm().apply_chat_template(turns, add_generation_prompt=False) == "<user>ab"


# ----------------------------------------------------------------------------------------------------------------- parts


@given(st.lists(st.text(string.ascii_letters + "ж", max_size=400), max_size=100))
def test_chunks_hold_every_text_in_order(texts):
    found = chunks([t * 50 for t in texts])
    assert [t for c in found for t in c] == [t * 50 for t in texts] and all(found)
    assert all(sum(len(t.encode()) for t in c[:-1]) < 16_384 for c in found)


def test_progress_counts_every_request_once(tmp_path):
    told = []
    one = Asker(FakeEngine(), Store(tmp_path, "m"), progress=told.append)
    one.pairs(PAIRS)
    one.pairs([*PAIRS, (ABOUT, "Q", " 9")])
    assert sum(told) == 2 * len(PAIRS) + 1


def test_a_base_is_evaluated_once_for_many_comparisons(tiny, tmp_path, monkeypatch):
    """The whole step: the second evaluation asks only the model and the language that are new, from another folder too."""
    from polygraft.evals import steps
    from polygraft.evals.settings import EvalConfig
    from polygraft.step import Context

    asked, whole = [], Scorer.likelihoods
    monkeypatch.setattr(Scorer, "likelihoods", lambda self, rows, scored, done: (asked.append(len(rows)), whole(self, rows, scored, done))[1])
    base, other = tiny("llama", layers=2, seed=1), tiny("llama", layers=2, seed=2)
    copied = shutil.copytree(base, tmp_path / "copied")

    def evaluate(name, **more):
        asked.clear()
        (tmp_path / name).mkdir()
        config = EvalConfig(**({"models": (str(base),), "limit": 3, "corpora": {"en": "sampler"}, "max_bytes": 500, "store": str(tmp_path / "store")} | more))
        result = steps.run_step(config, Context(model=resolve, data=Path, offline=True), tmp_path / name)
        return result.data["scores"], sum(asked)
    scores, n = evaluate("first")
    assert n > 9 and not (tmp_path / "first" / "responses").exists()
    assert evaluate("second") == (scores, 0)
    _, more = evaluate("with-another", models=(str(copied), str(other)))
    assert more == n, "the copy of the base is the base: only the other model is asked"
    _, spanish = evaluate("with-a-language", langs=("en", "es"))
    assert 0 < spanish < n
    assert evaluate("none", store="none")[1] == n
