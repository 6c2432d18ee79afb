"""The eval step on tiny models: tables and verdicts, resume after a cut, what the plan refuses."""

import json
import multiprocessing
import os
import random
import re
import signal
from pathlib import Path

import numpy as np
import pytest

from polygraft import files, recipe
from polygraft.errors import InputError, RecipeError
from polygraft.evals import estimate, steps, tasks
from polygraft.evals import models as models_of
from polygraft.evals.engines import hf
from polygraft.evals.run import Job
from polygraft.evals.steps import EvalConfig
from polygraft.result import Result
from polygraft.sources import resolve
from polygraft.step import Context

CONTEXT = Context(model=lambda ref: resolve(ref), data=Path, offline=True)


@pytest.fixture(scope="module")
def models(tiny):
    return [str(tiny("llama", layers=2, seed=seed)) for seed in (1, 2)]


def config(models, **more):
    return EvalConfig(**({"models": models, "langs": ("en", "es"), "limit": 6, "corpora": {"en": "sampler"}} | more))


def evaluate(config, folder):
    folder.mkdir(parents=True, exist_ok=True)
    return steps.run_step(config, CONTEXT, folder)


def sample_bytes(folder):
    """Every record of a run, but for how long it took."""
    return {p.name: re.sub(rb'"seconds": [^,]+, ', b"", p.read_bytes()) for p in sorted((folder / "samples").iterdir())}


def rounded(samples):
    """Records with likelihoods to a hundredth of a nat: what is left to ask after a cut is batched anew, and sums differ in their
    last digits."""
    return {name: re.sub(rb"-?\d+\.\d+", lambda m: b"%.2f" % float(m[0]), data) for name, data in samples.items()}


@pytest.fixture(scope="module")
def done(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("eval")
    return evaluate(config(models, generate=2), folder), folder


def test_tables_scores_and_verdicts(done, models):
    result, _ = done
    first, second = models_of.labels(models)
    assert [t.title for t in result.tables] == [
        "problems: accuracy", f"problems: accuracy, difference from {first}", "problems: nats",
        f"problems: nats, difference from {first}", "bits per byte", f"bits per byte, difference from {first}",
        "How sure and how right"]
    for table in result.tables:
        assert all(len(row) == len(table.columns) for row in table.rows)
    accuracy, differs = result.tables[0], result.tables[1]
    assert accuracy.columns == ("model", "en", "es", "mean of languages", "worst language") and [r[0] for r in accuracy.rows] == [first, second]
    assert [r[0] for r in differs.rows] == [second]
    assert differs.rows[0][1].verdict in ("better", "worse", "not distinguishable")
    assert differs.rows[0][1].value == pytest.approx(accuracy.rows[1][1].value - accuracy.rows[0][1].value)
    assert Result.from_json(json.loads(json.dumps(result.to_json(), allow_nan=False))) == result


def test_every_number_traces_to_its_sample_log(done, models):
    result, folder = done
    files = {(r["task"].partition("@")[0], r["language"], r["model"]): folder / r["file"] for r in result.data["records"]}
    for score in result.data["scores"]:
        lines = files[score["task"], score["language"], score["model"]].read_text("utf-8").splitlines()
        rows = [json.loads(x) for x in lines]
        if score["metric"] == "bits per byte":
            want = sum(r["nats"] for r in rows) / np.log(2) / sum(r["bytes"] for r in rows)
        elif score["metric"] == "nats":
            want = sum(r["choice_nats"][r["gold"]] for r in rows) / len(rows)
        else:
            want = 100 * np.mean([r["choice_nats"][0] < min(r["choice_nats"][1:]) for r in rows])  # the right one stands first here
        assert score["value"] == pytest.approx(want) and score["n"] == len(rows)
    assert not (folder / "responses").exists()


def test_samples_are_side_by_side_and_chosen_by_hash(done, models):
    result, _ = done
    assert len(result.samples) == 4 and {s.language for s in result.samples} == {"en", "es"}
    assert all(set(s.outputs) == set(models_of.labels(models)) for s in result.samples)
    assert [s.id for s in result.samples[:2]] == [s.id for s in result.samples[2:]]  # parallel items, the same ones chosen


def test_the_same_evaluation_gives_the_same_bytes(models, done, tmp_path):
    again = evaluate(config(models, generate=2), tmp_path / "again")
    assert again.to_json() == done[0].to_json()
    assert sample_bytes(tmp_path / "again") == sample_bytes(done[1])


class Cut(BaseException):
    """Stands for a kill: nothing catches it."""


def test_a_cut_after_any_batch_costs_no_batch(models, tmp_path, monkeypatch):
    """Stop after each batch in turn; the next attempt asks only what is not yet in the log, and the bytes are those of a quiet run."""
    wanted = config(models[:1], batch_tokens=256, corpora={}, limit=5)
    evaluate(wanted, tmp_path / "quiet")
    asked = []

    class Counted(hf.Walk):
        def step(self):
            if asked:
                raise Cut
            asked.append("cut")
            super().step()

    monkeypatch.setattr(hf, "Walk", Counted)
    attempts = 0
    while True:
        asked.clear()
        attempts += 1
        try:
            evaluate(wanted, tmp_path / "cut")
            break
        except Cut:
            assert not (tmp_path / "cut" / "samples").exists()
    assert attempts >= 4
    assert rounded(sample_bytes(tmp_path / "cut")) == rounded(sample_bytes(tmp_path / "quiet"))


def attempt(wanted, folder, seconds):
    """The step in a process of its own, killed after so many seconds; its exit code."""
    child = multiprocessing.get_context("fork").Process(target=_child, args=(wanted, folder))
    child.start()
    child.join(seconds)
    if child.is_alive():
        os.kill(child.pid, signal.SIGKILL)
        child.join()
    return child.exitcode


def _child(wanted, folder):
    import torch

    torch.set_num_threads(1)
    evaluate(wanted, folder)


@pytest.mark.slow
@pytest.mark.group("F")
@pytest.mark.parametrize("round_", range(40))
def test_a_killed_evaluation_ends_with_the_same_bytes(models, tmp_path, round_, quiet_run):
    wanted, samples, seconds = quiet_run
    rng = random.Random(round_)
    for _ in range(2):
        attempt(wanted, tmp_path / "cut", rng.uniform(0, 1) * seconds)
    assert attempt(wanted, tmp_path / "cut", None) == 0
    assert rounded(sample_bytes(tmp_path / "cut")) == rounded(samples)


@pytest.fixture(scope="module")
def quiet_run(models, tmp_path_factory):
    import time

    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    wanted = config(models[:1], tasks=("problems", "problems-generate"), batch_tokens=256, limit=4)
    evaluate(wanted, tmp_path_factory.mktemp("warm"))
    start, folder = time.monotonic(), tmp_path_factory.mktemp("quiet")
    assert attempt(wanted, folder, None) == 0
    yield wanted, sample_bytes(folder), time.monotonic() - start
    torch.set_num_threads(threads)


def test_what_a_killed_write_left_is_not_sealed_into_the_step(models, tmp_path):
    """The whole path of `polygraft eval --out`: the folder of an interrupted run holds a torn temporary file and a response log."""
    part = tmp_path / "out.partial"
    (part / "samples").mkdir(parents=True)
    for name in (".result.json.77-77.tmp", "samples/.x.jsonl.77-77.tmp", "samples/old.jsonl"):
        (part / name).write_text("torn")
    recipe.run_step(steps.STEPS[0], config(models[:1], limit=2, corpora={}), tmp_path / "out", offline=True)
    found = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert len(found) == 4 and {"manifest.json", "result.json"} < found and not any("tmp" in f or "old" in f for f in found), found
    assert files.verify_folder(tmp_path / "out") == []


# --------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(("more", "says"), [
    ({"langs": ("en", "sv")}, "no such language"), ({"tasks": (), "corpora": {}}, "nothing"),
    ({"langs": (), "corpora": {}}, "no language"),
    ({"reference": "other"}, "not one of the models"), ({"tasks": ("mgsm",)}, "offline"), ({"tasks": ("mgsm",), "langs": ("sv",)}, "language"),
    ({"corpora": {"tlh": "sampler"}}, "no text in this language"), ({"problems": {"operations": "^"}}, "no word problems of this kind"),
    ({"tasks": ("mgsm",), "data": "."}, "not here"), ({"corpora": {"en": "no/such.txt"}}, "no/such.txt"),
])
def test_the_plan_names_what_would_fail(models, more, says):
    planned = steps.plan(config(models, **more), CONTEXT)
    assert any(says in str(p) for p in planned.problems), planned.problems


@pytest.mark.parametrize(("more", "says"), [({"tasks": ("mgms",)}, "did you mean `mgsm`"), ({"langs": ("englsh",)}, "did you mean `en`"),
                                            ({"corpora": {"swx": "sampler"}}, "did you mean `sw`")])
def test_a_word_that_is_no_task_or_language_is_refused_as_it_is_read(models, more, says):
    with pytest.raises(ValueError, match=says):
        config(models, **more)


def test_the_plan_tells_all_faults_at_once_and_counts_the_items(models):
    assert len(steps.plan(config(models, tasks=("mgsm", "problems"), langs=("sv",)), CONTEXT).problems) == 3
    planned = steps.plan(config(models), CONTEXT)
    assert not planned.problems and planned.seconds > 0 and planned.peak_bytes > 1 << 20
    assert any("problems@1 es: 6 items" in line for line in planned.lines)


def test_the_time_counts_what_is_written_and_worked_examples_once(tmp_path):
    (tmp_path / "d.jsonl").write_text("".join(f'{{"q": "{n} {"word " * 99}", "a": "1"}}\n' for n in range(53)))
    (tmp_path / "t.yaml").write_text("task: t\noutput_type: generate_until\nsource: {files: [d.jsonl]}\ndoc_to_text: '{{q}}'\n"
                                     "golds: ['{{a}}']\ngeneration: {max_gen_toks: 384}\n")
    task = tasks.load(str(tmp_path / "t.yaml"))
    plain, shown = (estimate.work([Job("en", task, tuple(tasks.items(task, "en", shots=shots, limit=50)))]) for shots in (0, 3))
    assert plain.written == shown.written == 50 * 384 and plain.read == pytest.approx(50 * (497 / 2.5 + 10), rel=0.01)
    assert shown.read - plain.read == pytest.approx(3 * 498 / 2.5, rel=0.01), "the same examples stand before every item"
    assert 200 < plain.seconds(135_000_000) < 400 and "19,000" in plain.note() and "not in it" in plain.note(True)
    assert estimate.Work(0, 0).seconds(10**9) == 0 and "not known" in estimate.Work(0, 0).note()


def test_a_model_whose_numbers_are_not_finite_is_refused(models, tmp_path, monkeypatch):
    load = __import__("polygraft.model", fromlist=["load"]).load

    def broken(*args, **kwargs):
        live = load(*args, **kwargs)
        live.model.model.norm.weight.data[0] = float("nan")
        return live

    monkeypatch.setattr("polygraft.model.load", broken)
    for more in ({}, {"tasks": ()}):
        with pytest.raises(InputError, match="not numbers"):
            evaluate(config(models[:1], **more), tmp_path / "nan")
    assert not (tmp_path / "nan" / "samples").exists()


def test_chat_needs_a_template_and_uses_it(tiny, tmp_path):
    plain, chat = str(tiny("llama", layers=2, chat=False)), str(tiny("llama", layers=2))
    with pytest.raises(InputError, match="no chat template"):
        evaluate(config([plain], chat=True), tmp_path / "plain")
    told = [steps.plan(config([model], chat=True), CONTEXT).problems for model in (plain, chat)]
    assert "no chat template" in str(told[0][0]) and told[1] == ()
    with_template = evaluate(config([chat], chat=True, limit=3, corpora={}), tmp_path / "chat")
    without = evaluate(config([chat], limit=3, corpora={}), tmp_path / "no")
    assert with_template.data["scores"] != without.data["scores"]


def test_corpora_stop_at_their_limit_and_say_so(models, tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(f"line {n}" for n in range(50)))
    wanted = config(models[:1], tasks=(), corpora={"en": str(tmp_path / "text.txt")}, max_bytes=40)
    result = evaluate(wanted, tmp_path / "out")
    assert result.data["scores"][0]["n"] == 7 and any("40 bytes" in c for c in result.caveats)
    with pytest.raises((InputError, RecipeError)):
        (tmp_path / "empty.txt").write_text("\n\n")
        evaluate(config(models[:1], tasks=(), corpora={"en": str(tmp_path / "empty.txt")}), tmp_path / "none")


def test_short_names():
    assert models_of.labels(["base", "a/b/model", "runs/x/model"]) == ["base", "b", "x"]
    assert models_of.labels(["base", "a/b/swapped"]) == ["base", "swapped"]


def test_answers_are_drawn_at_a_temperature_by_the_seed(tiny):
    from polygraft import evals
    from polygraft.model import load

    live = load(tiny("llama"), dtype="float32")

    def written(**how):
        result = evals.score(live.model, live.tokenizer, tasks=["problems-generate"], limit=6, identity="tiny", **how)
        return [s.outputs for s in result.samples]
    greedy, warm = written(), written(temperature=2.0)
    assert written(temperature=0) == greedy != warm
    assert written(temperature=2.0) == warm != written(temperature=2.0, seed=1)
