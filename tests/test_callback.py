"""Scores taken while training: same training with and without, curves, best step, stops, resuming, any transformers Trainer."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from polygraft.errors import RecipeError
from polygraft.evals import callback
from polygraft.evals.run import Job
from polygraft.result import Estimate
from polygraft.sources import resolve
from polygraft.step import Context
from polygraft.tune.settings import Settings
from polygraft.tune.training import STATE, Watched, Work, train
from polygraft.watching import Log, Reading, Watch, told

ROWS = [{"prompt": f"{a}+{b}=", "completion": str(a + b)} for a in range(4) for b in range(5)]
FAST = Settings(r=2, steps=6, batch=4, lr=1e-2, save_every=2, length=32, device="cpu")
ASKED = {"tasks": ("problems",), "langs": ("en",), "every": 2, "items": 4}


class Cut(Exception):
    pass


class Planted:
    """A watcher whose scores are written down: what the trainer does with them is seen."""

    def __init__(self, values, fails_at=None):
        self.values, self.fails_at, self.seen = values, fails_at, []

    def read(self, model, tokenizer, step):
        import torch

        torch.rand(3)  # a watcher that draws must not change the training
        model.eval()
        self.seen.append(step)
        failed = ("copying fell",) if step == self.fails_at else ()
        return Reading(step, 0.0, {"copy/sw/accuracy": Estimate(self.values[step], unit="%")}, self.values[step], failed)


@pytest.fixture(scope="module")
def base(tiny):
    return resolve(tiny("llama"))


@pytest.fixture
def context(tmp_path):
    return Context(resolve, Path)


def weights(done) -> bytes:
    return (done.path / "adapter_model.safetensors").read_bytes()


def test_training_is_the_same_with_and_without(base, context, tmp_path):
    watch = Watch(**ASKED)
    settings = dataclasses.replace(FAST, dropout=0.1)  # draws random numbers at every step
    plain = train(Work(base, ROWS, settings), tmp_path / "plain")
    log = Log(2)
    seen = train(Work(base, ROWS, settings, watched=Watched(callback.TaskWatcher(watch, context, tmp_path), log)), tmp_path / "seen")
    assert weights(plain) == weights(seen) and plain.losses == seen.losses
    assert [r.step for r in log.readings] == [0, 2, 4, 6]
    first, last = log.readings[0].scores, log.readings[-1].scores
    assert set(first) == set(last) and any(first[k].value != last[k].value for k in first)
    assert {c.title for c in log.curves()} >= {"problems: accuracy while training"} and log.table().columns[0] == "score"
    assert told(log, 6, 6, 10.0)[0].startswith("Watched in 4 checks")


def test_the_best_step_is_kept(base, tmp_path):
    watcher, log = Planted({0: 1.0, 2: 5.0, 4: 9.0, 6: 3.0}), Log(2)
    best = train(Work(base, ROWS, FAST, watched=Watched(watcher, log, best=True)), tmp_path / "best")
    four = train(Work(base, ROWS, FAST, watched=Watched(Planted({0: 0, 2: 0, 4: 0, 6: 0}, fails_at=4), Log(2))), tmp_path / "four")
    assert log.best.step == 4 and four.steps == 4 and best.steps == 6
    assert weights(best) == weights(four)
    assert not (tmp_path / "best" / STATE).exists()


def test_a_failed_bound_stops_and_still_writes(base, tmp_path):
    log = Log(2)
    done = train(Work(base, ROWS, FAST, watched=Watched(Planted({0: 1.0, 2: 1.0, 4: 1.0}, fails_at=4), log)), tmp_path)
    assert done.steps == 4 and done.planned == 6 and done.path.is_dir()
    assert "Stopped at step 4 of 6: copying fell." in told(log, done.steps, done.planned, 1.0)


@pytest.mark.parametrize("at", [1, 3, 5])
def test_a_resumed_training_gives_the_same_curve(base, tmp_path, at):
    values = {0: 1.0, 2: 5.0, 4: 4.0, 6: 3.0}

    def cut(done, total, text=""):
        if done == at:
            raise Cut
    whole = Log(2)
    want = train(Work(base, ROWS, FAST, watched=Watched(Planted(values), whole, best=True)), tmp_path / "whole")
    with pytest.raises(Cut):
        train(Work(base, ROWS, FAST, watched=Watched(Planted(values), Log(2), best=True)), tmp_path / "cut", cut)
    again, log = Planted(values), Log(2)
    done = train(Work(base, ROWS, FAST, watched=Watched(again, log, best=True)), tmp_path / "cut")
    assert [r.step for r in log.readings] == [0, 2, 4, 6] and again.seen == [s for s in (0, 2, 4, 6) if s > at - 1 or at == 1]
    assert weights(done) == weights(want)


def test_a_resumed_watch_compares_with_the_start_that_it_kept(base, context, tmp_path):
    from polygraft.model import load

    watch = Watch(**ASKED, best="problems/en/nats")
    live = load(base, dtype="float32", device="cpu")
    one = callback.TaskWatcher(watch, context, tmp_path)
    one.read(live.model, live.tokenizer, 0)
    two = callback.TaskWatcher(watch, context, tmp_path)
    reading = two.read(live.model, live.tokenizer, 2)
    assert two.start == one.start and reading.better < 0  # nats: lower is better
    assert Reading.from_json(json.loads(json.dumps(reading.to_json()))) == reading


def test_criteria_stop_a_training(base, context, tmp_path):
    from polygraft.model import load

    (tmp_path / "criteria.yaml").write_text("criteria:\n- {metric: accuracy, task: problems, language: en, floor: 100}\n")
    watcher = callback.TaskWatcher(Watch(**ASKED, criteria=str(tmp_path / "criteria.yaml")), context)
    live = load(base, dtype="float32", device="cpu")
    assert not watcher.read(live.model, live.tokenizer, 0).failed  # the start is what is compared with
    assert "floor 100: failed" in watcher.read(live.model, live.tokenizer, 2).failed[0]


def test_criteria_may_demand_what_only_an_evaluation_shows(base, context, tmp_path):
    """The average of a suite and the language of the answers are judged in a check as `eval` judges them."""
    from polygraft.model import load

    (tmp_path / "criteria.yaml").write_text(
        "criteria:\n- {metric: truncated, task: problems-generate, language: en, floor: 0}\n"
        "- {metric: accuracy, task: problems, language: macro, floor: 100}\n")
    watch = Watch(tasks=("problems", "problems-generate"), langs=("en", "es"), items=8, criteria=str(tmp_path / "criteria.yaml"))
    assert not callback.faults(watch, context)
    live = load(base, dtype="float32", device="cpu")
    watcher = callback.TaskWatcher(watch, context)
    watcher.read(live.model, live.tokenizer, 0)
    failed = watcher.read(live.model, live.tokenizer, 2).failed
    assert len(failed) == 2 and "truncated" in failed[0] and "no score" not in failed[0] and "mean of languages" in failed[1]


def test_criteria_that_nothing_can_meet_are_told_before_training(context, tmp_path):
    (tmp_path / "criteria.yaml").write_text("criteria:\n- {metric: acuracy, task: problems, language: en, floor: 1}\n")
    found = callback.faults(Watch(**ASKED, criteria=str(tmp_path / "criteria.yaml")), context)
    assert found and "acuracy" in found[0].render()


def test_items_are_shared_and_chosen_once(context):
    watch = Watch(tasks=("problems",), langs=("en", "sw"), items=7)
    one, two = callback.TaskWatcher(watch, context), callback.TaskWatcher(watch, context)
    assert [len(j.items) for j in one.jobs] == [3, 4] and one.jobs == two.jobs
    assert [len(j.documents) for j in callback.some([Job("en", documents=("a", "b", "c")), Job("sw", documents=("d",))], 3)] == [2, 1]


def test_a_time_budget_spreads_the_checks():
    log = Log(10, budget=35.0)
    log.add(Reading(0, 10.0, {}))
    log.spread(100)  # two more checks fit: every 50 steps
    assert log.every == 50 and log.due(50, 100) and log.due(100, 100) and not log.due(20, 100)
    assert "every 50 steps instead of 10" in log.note
    poor = Log(10, budget=1.0)
    poor.add(Reading(0, 10.0, {}))
    poor.spread(100)
    assert poor.every == 100


def test_the_best_is_the_earliest_of_equals():
    log = Log(1)
    assert [log.add(Reading(s, 0.0, {}, b)) for s, b in ((0, 1.0), (1, 2.0), (2, 2.0), (3, None))] == [True, True, False, False]
    assert log.best.step == 1


@pytest.mark.parametrize(("wrong", "said"), [
    ({"tasks": ("blinp",)}, "no such task"), ({"langs": ("xx-nope",)}, "language"), ({"best": "accuracy"}, "not the name of a score"),
    ({"time_budget": "ten"}, "not a length of time"), ({"criteria": "nowhere.yaml"}, "nowhere.yaml"),
])
def test_faults_are_told_before_training(context, wrong, said):
    found = callback.faults(Watch(**(ASKED | wrong)), context)
    assert found and said in " ".join(e.render() for e in found)


def test_a_score_that_does_not_exist_is_named(base, context):
    from polygraft.model import load

    live = load(base, dtype="float32", device="cpu")
    with pytest.raises(RecipeError, match="problems/en/accuracy"):
        callback.TaskWatcher(Watch(**ASKED, best="problems/en/acuracy"), context).read(live.model, live.tokenizer, 0)


def test_in_any_transformers_trainer(base, tmp_path):
    from datasets import Dataset
    from transformers import Trainer, TrainingArguments

    from polygraft.model import load

    live = load(base, dtype="float32", device="cpu")
    ids = live.tokenizer("one and two are three")["input_ids"]
    watch = callback.watch(**ASKED, tokenizer=live.tokenizer)
    trainer = Trainer(model=live.model, args=TrainingArguments(str(tmp_path), max_steps=2, report_to="none", use_cpu=True, save_strategy="no"),
                      train_dataset=Dataset.from_list([{"input_ids": ids, "labels": ids}] * 16), callbacks=[watch])
    trainer.train()
    assert [r.step for r in watch.log.readings] == [0, 2]
    assert any("watch/problems/en/accuracy" in row for row in trainer.state.log_history)


def test_a_task_may_name_its_own_language(context):
    watcher = callback.TaskWatcher(Watch(tasks=("problems:sw", "problems-generate"), langs=("en",), items=4), context)
    assert [(j.task.task, j.language) for j in watcher.jobs] == [("problems", "sw"), ("problems-generate", "en")]
    assert "no such language" in callback.faults(Watch(tasks=("problems:ko",)), context)[0].render()
