"""Mixed, filtered and held-out data through `tune sft`: planned, trained, told; evaluation items by the real tasks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from polygraft.errors import InputError, RecipeError
from polygraft.evals import held
from polygraft.evals.callback import WATCHERS
from polygraft.evals.tasks.problems.examples import examples as problems
from polygraft.result import Estimate, Result
from polygraft.sources import resolve
from polygraft.step import Context
from polygraft.tune.config import Around
from polygraft.tune.sft import Sft, sft_step
from polygraft.watching import Watch

AROUND = Around({"problems": problems}, WATCHERS, held.texts)
STEP = sft_step(AROUND)
MGSM = ("Janet sells sixteen duck eggs a day at the market for two dollars each. How much does she make every day?\t32\n"
        "A robe takes two bolts of blue fiber and half that much white fiber. How many bolts in total does it take?\t3\n")


@pytest.fixture
def context(tiny, tmp_path):
    def write(name: str, rows: list[dict]) -> None:
        (tmp_path / name).write_text("\n".join(json.dumps(r) for r in rows))

    write("sw.jsonl", [{"text": f"swahili row number {i}"} for i in range(40)])
    write("en.jsonl", [{"instruction": f"Say {i}", "input": "", "output": f"It is {i} now"} for i in range(10)])
    (tmp_path / "mgsm").mkdir()
    (tmp_path / "mgsm" / "mgsm_en.tsv").write_text(MGSM)
    write("leaky.jsonl", [{"question": MGSM.split("\t")[0].upper(), "answer": "32"}, {"question": "Two and two?", "answer": "#### 4"}])
    return Context(model=lambda ref: resolve(tiny("llama")), data=lambda ref: tmp_path / ref, step_id="t")


def config(data: list[str], **mix) -> Sft:
    return Sft(model="m", data=data, mix=mix, method="full", lr=1e-2, steps=6, batch=4, length=48, device="cpu", save_every=2)


def table(result: Result, title: str) -> list[dict]:
    found = next(t for t in result.tables if t.title == title)
    return [dict(zip(found.columns, row)) for row in found.rows]


def test_plan_and_run_tell_the_same_of_a_mixture(context, tmp_path):
    asked = config(["sw=sw.jsonl", "en=en.jsonl"], weights={"sw": 0.75, "en": 0.25}, dev=0.2, dev_every=2, dedup="near")
    plan = STEP.plan(asked, context)
    result = STEP.run(asked, context, tmp_path / "out")
    rows = {r["examples"]: r for r in table(result, "Examples")}
    n = sum(r["in the mixture"] for r in rows.values())
    assert plan.lines[0].startswith(f"{n} examples") and plan.lines[1].startswith("sw: 40 read")
    assert rows["sw"]["in the mixture"] == rows["sw"]["asked"] and abs(rows["sw"]["in the mixture"] / n - 0.75) < 0.05
    dev = {r["examples"]: r for r in table(result, "Held-out examples")}
    assert {s: r["n"] for s, r in dev.items()} == {s: r["held out"] for s, r in rows.items()}
    assert dev["sw"]["after"].value < dev["sw"]["before"].value and isinstance(dev["sw"]["change"], Estimate)
    curve = next(c for c in result.curves if c.title == "Loss of held-out examples")
    assert curve.x == (0.0, 2.0, 4.0, 6.0) and curve.series["sw"][-1] == pytest.approx(dev["sw"]["after"].value)
    assert Result.from_json(json.loads(json.dumps(result.to_json()))) == result
    again = STEP.run(asked, context, tmp_path / "again")
    assert (tmp_path / "out/model/model.safetensors").read_bytes() == (tmp_path / "again/model/model.safetensors").read_bytes()
    assert again.tables[-1] == result.tables[-1]


def test_reading_the_held_out_examples_does_not_disturb_the_training(context, tmp_path):
    """The weights are those of a training on the same rows without any held out."""
    asked = config(["sw=sw.jsonl"], dev=0.2, dev_every=1)
    result = STEP.run(asked, context, tmp_path / "a")
    from polygraft.tune.config import gather

    kept = gather(asked, context, AROUND).rows
    (tmp_path / "kept.jsonl").write_text("\n".join(map(json.dumps, kept)))
    STEP.run(config(["kept.jsonl"]), context, tmp_path / "b")
    assert len(kept) < 40 and table(result, "Held-out examples")[0]["n"] == 40 - len(kept)
    assert (tmp_path / "a/model/model.safetensors").read_bytes() == (tmp_path / "b/model/model.safetensors").read_bytes()


def test_a_leaked_problem_is_left_out_refused_or_kept(context, tmp_path):
    mix = {"against": ["mgsm:en"], "against_data": "."}
    plan = STEP.plan(config(["leaky.jsonl"], **mix), context)
    assert plan.lines[0].startswith("1 examples") and "1 evaluation item" in plan.lines[1]
    result = STEP.run(config(["leaky.jsonl"], **mix), context, tmp_path / "out")
    [leak] = table(result, "Evaluation items among the examples")
    assert leak["task"] == "mgsm en" and leak["text"].startswith("Question: Janet sells")
    with pytest.raises(InputError, match="1 of 2 examples hold items of evaluations"):
        STEP.plan(config(["leaky.jsonl"], leaks="refuse", **mix), context)
    assert STEP.plan(config(["leaky.jsonl"], leaks="keep", **mix), context).lines[0].startswith("2 examples")
    assert STEP.plan(config(["leaky.jsonl"]), context).lines[0].startswith("2 examples")


def test_watched_tasks_and_texts_are_held_without_being_named(context, tmp_path):
    (tmp_path / "t.txt").write_text(f"{MGSM.split(chr(9))[0]}\nshort\n")
    for watch in (Watch(tasks=("mgsm",), data="."), Watch(corpora={"en": "t.txt"})):
        asked = config(["leaky.jsonl"]).model_copy(update={"watch": watch})
        found = AROUND.held(watch, (), None, context)
        assert len(found) == 2 and all(len(item) == 4 for item in found)
        assert STEP.plan(asked, context).lines[0].startswith("1 examples")


def test_a_task_that_does_not_exist_is_refused_while_planning(context):
    with pytest.raises(RecipeError, match="mgsn"):
        STEP.plan(config(["leaky.jsonl"], against=["mgsn:en"]), context)


def test_made_problems_of_the_training_side_are_not_taken_for_those_asked(context):
    """Both come from the same templates; other numbers and names make other problems."""
    asked = config(["problems:en?n=300"], against=["problems:en"])
    assert STEP.plan(asked.model_copy(update={"length": 128}), context).lines[0].startswith("300 examples")


SHARED = Path(__file__).parent.parent.parent / "shared" / "data"


@pytest.mark.real
def test_real_training_sets_hold_no_item_of_mgsm_and_its_own_source_does():
    if not SHARED.is_dir():
        pytest.skip(f"the data sets are not at {SHARED}")
    here = Context(model=lambda ref: None, data=lambda ref: SHARED / ref, planning=True)
    from polygraft.tune.config import gather

    def leaked(*data: str) -> dict:
        asked = Sft(model="m", data=data, mix={"against": ["mgsm:en"], "against_data": "."})
        return gather(asked, here, AROUND).data["examples"]

    train, test = leaked("gsm8k/train.jsonl.gz"), leaked("gsm8k/test.jsonl.gz")
    assert train["gsm8k/train.jsonl.gz"].get("leaked", 0) == 0
    assert test["gsm8k/test.jsonl.gz"]["leaked"] == 250, "MGSM is 250 of GSM8K's test set"
