"""Retention: a tiny model taught A forgets it while it learns B; replay and KL keep A, a bound stops, and the table tells."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polygraft.config import parse
from polygraft.errors import InputError, RecipeError
from polygraft.evals.callback import WATCHERS
from polygraft.sources import resolve
from polygraft.step import Context
from polygraft.tune import retain
from polygraft.tune.config import Around
from polygraft.tune.data.text import key
from polygraft.tune.settings import Settings
from polygraft.tune.sft import Sft, sft_step
from polygraft.tune.training import Work, train
from polygraft.yamltext import parse_document

STEP = sft_step(Around({}, WATCHERS))
ANIMALS = ("cat", "dog", "cow", "fox", "hen", "owl", "ant", "bee")
A = [{"text": f"the {a} sees the {b}."} for a in ANIMALS for b in ANIMALS]
B = [{"text": f"ZU {a.upper()} QO {b.upper()} XI!"} for a in ANIMALS for b in ANIMALS]


@pytest.fixture(scope="module")
def world(tiny, tmp_path_factory):
    """A model that has learnt A, and files of both languages."""
    root = tmp_path_factory.mktemp("world")
    for name, rows in {"a": A, "b": B[::2], "b-dev": B[1::2]}.items():
        (root / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (root / "a.txt").write_text("\n".join(row["text"] for row in A))
    fast = Settings(method="full", steps=90, batch=8, lr=1.2e-2, length=32, save_every=0, device="cpu")
    learnt = train(Work(resolve(tiny("llama")), A, fast), root / "base")
    assert learnt.losses[-1] < 0.1 * learnt.losses[0]
    return SimpleNamespace(root=root, base=resolve(learnt.path))


@pytest.fixture
def context(world):
    return Context(model=lambda ref: world.base, data=lambda ref: world.root / ref, step_id="t")


def config(watch=None, **retained) -> Sft:
    more = {"text": "a.txt", "target": "b-dev.jsonl"} | retained
    often = {"every": 5} if more.get("stop") or watch else {}
    return Sft(model="m", data=["b.jsonl"], method="full", steps=20, batch=8, lr=1e-2, length=32, save_every=10, device="cpu",
               retain={k: v for k, v in more.items() if v is not None}, watch=often | (watch or {}))  # fmt: skip


@pytest.fixture(scope="module")
def free(world, tmp_path_factory):
    """Tuning on B with nothing that keeps A."""
    context = Context(model=lambda ref: world.base, data=lambda ref: world.root / ref, step_id="t")
    return STEP.run(config(), context, tmp_path_factory.mktemp("free"))


def lost(result) -> float:
    return result.data["retention"]["text to keep"]["change"]


def gained(result) -> float:
    return -result.data["retention"]["target text"]["change"]


def table(result, title):
    return next(t for t in result.tables if t.title == title)


def test_tuning_on_b_forgets_a_and_the_table_tells(free):
    assert lost(free) > 0.5 and gained(free) > 1
    kept, target = table(free, "Gained and lost").rows
    assert (kept[0], kept[-1], kept[4].verdict) == ("text to keep", "lost", "worse") and kept[4].low > 0
    assert (target[0], target[-1], target[4].verdict) == ("target text", "gained", "better") and target[4].high < 0
    assert kept[1] == 13 and target[1] == 32 and kept[3].value == pytest.approx(kept[2].value + kept[4].value)
    assert any("Text to keep: loss" in line and "lost" in line for line in free.summary)
    assert [row[0] for row in table(free, "Keeping what was known").rows] == ["measuring before and after"]
    assert [i.name for i in free.inputs][2:] == ["text to keep", "target text"]


@pytest.mark.parametrize("means", [{"replay": ["a.jsonl"], "share": 0.3}, {"kl": 3.0, "kl_rows": 8, "kl_length": 32}], ids=["replay", "kl"])
def test_keeps_a_and_still_learns_b(free, context, tmp_path, means):
    held = STEP.run(config(**means), context, tmp_path)
    assert lost(held) < 0.2 * lost(free) and gained(held) > 0.8 * gained(free)
    what, did, seconds = table(held, "Keeping what was known").rows[0]
    assert what in ("replay", "KL to the start") and seconds > 0
    if "replay" in means:
        assert did.startswith("14 of 46 examples")
    else:
        curve = next(c for c in held.curves if c.title.startswith("KL"))
        assert curve.series["KL"][0] == 0 < curve.series["KL"][-1] and held.data["kl"]["seconds"] == pytest.approx(seconds, abs=0.01)


def test_stops_at_the_bound_and_keeps_the_last_step_that_held_it(free, world, context, tmp_path):
    bound = 0.3 * lost(free)
    held = STEP.run(config(stop=bound), context, tmp_path)
    readings = held.data["watch"]["readings"]
    assert held.data["steps"] < 20 and readings[-1]["failed"] and not any(r["failed"] for r in readings[:-1])
    assert lost(held) <= bound
    assert any(f"Stopped at step {readings[-1]['step']} of 20: the loss on the text to keep rose by" in line for line in held.summary)
    assert f"The weights of step {readings[-2]['step']} were kept: the last that held the bound." in held.summary
    assert held.data["watch"]["readings"][-2]["scores"]["retention/kept/loss"]["value"] == pytest.approx(
        held.data["retention"]["text to keep"]["after"])
    assert "criteria" not in held.data
    assert table(held, "Keeping what was known").rows[0][:2] == ("stop", f"{len(readings)} checks")


def test_a_bound_that_holds_changes_nothing(context, free, tmp_path):
    held = STEP.run(config(stop=1e6), context, tmp_path)
    assert held.data["steps"] == 20 and lost(held) == lost(free) and gained(held) == gained(free)


def test_a_bound_no_step_holds_leaves_the_start(context, world, tmp_path):
    """The first check after the start already breaks it: the start's weights are what is written."""
    held = STEP.run(config(stop=1e-9), context, tmp_path)
    assert held.data["steps"] == 5 and lost(held) == 0 == gained(held)
    assert "The weights of step 0 were kept: the last that held the bound." in held.summary
    made = resolve(tmp_path / "model").checkpoint
    assert all(made.read(k) == world.base.checkpoint.read(k) for k in made.tensors)


class Cut(Exception):
    pass


def test_stop_and_kl_resume_exactly(context, tmp_path):
    """Cut between two saved states: the same readings, the same stop, the same bytes as without the interruption."""

    def cut(done, total, text=""):
        if done == 8:
            raise Cut

    asked = config(stop=0.3, kl=1e-4).model_copy(update={"save_every": 3})
    whole = STEP.run(asked, context, tmp_path / "a")
    assert whole.data["steps"] == 10 and lost(whole) <= 0.3
    with pytest.raises(Cut):
        STEP.run(asked, dataclasses.replace(context, progress=cut), tmp_path / "b")
    again = STEP.run(asked, context, tmp_path / "b")
    assert again.data["resumed_at"] == 6 and again.data["retention"] == whole.data["retention"]
    readings = [[(r["step"], r["scores"], r["failed"]) for r in found.data["watch"]["readings"]] for found in (whole, again)]
    assert readings[0] == readings[1]
    one, two = (resolve(tmp_path / name / "model").checkpoint for name in "ab")
    assert all(one.read(k) == two.read(k) for k in one.tensors)


def test_lora_with_kl(free, context, tmp_path):
    short = {"method": "lora", "r": 4, "lr": 3e-2, "steps": 10}
    lora, loose = (config(**kl).model_copy(update=short) for kl in ({"kl": 3.0, "kl_rows": 8, "kl_length": 32}, {}))
    a, b = STEP.run(lora, context, tmp_path / "kl"), STEP.run(loose, context, tmp_path / "free")
    assert lost(a) < 0.6 * lost(b) and gained(a) > 0 and b.data["retention"]["text to keep"]["verdict"] == "lost"


def test_held_out_examples_of_the_data_stand_in_the_table(context, tmp_path):
    some = config(target=None).model_copy(update={"mix": config().mix.model_copy(update={"dev": 0.3})})
    done = STEP.run(some, context, tmp_path)
    rows = table(done, "Gained and lost").rows
    assert not any(t.title == "Held-out examples" for t in done.tables) and any(c.title == "Loss of held-out examples" for c in done.curves)
    assert sum("eld-out examples of b.jsonl" in line for line in done.summary) == 1 and done.data["dev"]["b.jsonl"][1] == rows[1][3].value
    assert [row[0] for row in rows] == ["text to keep", "held-out examples of b.jsonl"] and rows[1][-1] == "gained"


def test_plan_says_it_and_what_it_costs(context):
    bare = STEP.plan(config(text=None, target=None), context)
    plan = STEP.plan(config(kl=1.0, stop=0.1, replay=["a.jsonl"]), context)
    said = "\n".join(plan.lines)
    assert "replay: 4 of the 36 examples" in said and "4 windows of 256 tokens" in said and "13 of the text to keep" in said
    assert "more than 0.1 nats" in said and plan.peak_bytes > bare.peak_bytes and plan.seconds > bare.seconds


def test_watch_and_bound_together(context, world, tmp_path):
    """What is watched is scored as before; the bound is one score more, and its best step is the watch's among those within."""
    watch = {"corpora": {"de": "b.jsonl"}, "best": "bpb/de/bits per byte"}
    found = STEP.run(config(stop=1e6, watch=watch).model_copy(update={"steps": 5}), context, tmp_path)
    names = found.data["watch"]["readings"][0]["scores"]
    assert "retention/kept/loss" in names and any("/de/" in name for name in names)
    assert any("within the bound" in line for line in found.summary)


# ------------------------------------------------------------------------------------------------------------ pure functions


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from("abcdefghijklmnop"), min_size=1, max_size=40), st.randoms())
def test_divided_by_content(words, random):
    rows = [{"text": w} for w in words]
    held, left = retain.divided(rows)
    different = len({key(r) for r in rows})
    assert len(held) == max(1, -(-different // 5)) and len(held) + len(left) == different
    assert not {key(r) for r in held} & {key(r) for r in left}
    random.shuffle(rows)
    assert retain.divided(rows) == (held, left)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 30), st.floats(0.01, 0.9))
def test_replay_has_its_share(new, old, share):
    found, _ = retain.replayed(new, [{"text": f"old {i}"} for i in range(old)], [], share, 0)
    assert len(found) == max(1, round(new * share / (1 - share)))
    counts = [sum(r["text"] == f"old {i}" for r in found) for i in range(old)]
    assert max(counts) - min(counts) <= 1  # none again before all have been taken


def test_what_is_measured_is_not_replayed():
    old = [{"text": f"old {i}"} for i in range(4)]
    found, excluded = retain.replayed(9, [*old, {"text": "OLD  1"}], old[1:2], 0.5, 0)
    assert excluded == 2 and {r["text"] for r in found} == {"old 0", "old 2", "old 3"}
    with pytest.raises(InputError, match="every replay example"):
        retain.replayed(1, old[:1], old[:1], 0.5, 0)


# ------------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(("line", "word"), [
    ("kl: 1", "`kl` needs `text`"), ("stop: 0.1", "`stop` needs `text`"), ("text: a.txt\n  kl: -1", "kl"), ("stop: 0\n  text: a", "stop"),
    ("share: 1", "share"), ("share: 0", "share"), ("kl_every: 0", "kl_every"), ("text: a\n  kl: .inf", "kl"), ("repaly: [a]", "repaly")])
def test_what_is_typed_is_checked(line, word):
    with pytest.raises(RecipeError, match=word) as found:
        parse(Sft, parse_document(f"model: m\ndata: [a]\nretain:\n  {line}\n", "r.yaml"))
    assert "r.yaml:" in str(found.value.render())


@pytest.mark.parametrize(("name", "content", "word"), [
    ("gone.txt", None, "no such corpus"), ("gone.jsonl", None, "missing"), ("empty.txt", "\n\n", "no text"),
    ("empty.jsonl", "", "no examples"), ("one.txt", "only one document\n", "cannot be both"), ("same.txt", "twice\nTwice\n", "cannot be both"),
    ("nul.txt", "a\0b\nc\n", "NUL")])
def test_text_that_is_no_help_is_refused_in_the_plan(context, tmp_path, name, content, word):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=word):
        STEP.plan(config(text="x", kl=1.0), dataclasses.replace(context, data=lambda ref: (tmp_path / name) if ref == "x" else context.data(ref)))


@pytest.mark.parametrize(("more", "said"), [
    ({"kl_every": 2}, "`kl_every` without `kl`"), ({"kl_rows": 1, "kl_length": 9}, "`kl_rows`, `kl_length` without `kl`"),
    ({"share": 0.2}, "`share` without `replay`")])
def test_what_would_do_nothing_is_refused(more, said):
    with pytest.raises(ValueError, match=said):
        config(**more)


def test_a_model_in_shards_is_refused(context, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(RecipeError, match="in shards"):
        STEP.plan(config(), context)


def test_a_model_without_a_tokenizer_is_refused(context, world, tmp_path):
    import shutil

    bare = tmp_path / "bare"
    shutil.copytree(world.base.path, bare)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (bare / name).unlink()
    with pytest.raises(InputError, match="no tokenizer"):
        STEP.run(config(kl=1.0), dataclasses.replace(context, model=lambda ref: resolve(bare)), tmp_path / "out")
    assert not (tmp_path / "out" / "model").exists()


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", ["1", "2"])
def test_two_processes_keep_what_one_keeps(tiny, tmp_path, accumulate):
    """KL, replay and bound: the weights of one process within float tolerance, and the same readings."""
    from test_tune_processes import call, tensors

    for name, rows in {"a": A, "b": B}.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ("sft", str(tiny("llama")), "--data", "b.jsonl", "--method", "full", "--accumulate", accumulate, "--retain-text", "a.jsonl", "--retain-kl", "5",
             "--retain-kl-rows", "2", "--retain-kl-length", "32", "--retain-replay", "a.jsonl", "--retain-stop", "1", "--watch-every", "2")  # fmt: skip
    done = [call(tmp_path, n, out, *words) for n, out in ((1, "one"), (2, "two"))]
    assert all(d.returncode == 0 for d in done), done[0].stderr + done[1].stderr
    a, b = (tensors(tmp_path / out / "model.safetensors") for out in ("one", "two"))
    for k in a:
        assert abs(a[k] - b[k]).max() < 2e-5, k  # steps of 1e-3
    one, two = (json.loads((tmp_path / out / "result.json").read_text())["data"] for out in ("one", "two"))
    assert one["kl"]["last"] == pytest.approx(two["kl"]["last"], rel=1e-3) and one["kl"]["last"] > 0
    assert one["retention"]["text to keep"]["after"] == pytest.approx(two["retention"]["text to keep"]["after"], rel=1e-4)
