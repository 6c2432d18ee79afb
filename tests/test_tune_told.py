"""What a training tells of its examples, and what a run and a plan tell of a training."""

from __future__ import annotations

import json

import pytest

from polygraft import cli, recipe
from polygraft.errors import InputError
from polygraft.evals.models import labels
from polygraft.result import Result
from polygraft.steps import TABLE
from polygraft.store import RunFolder, verify_run
from polygraft.tune import prediction, training
from polygraft.tune.data.devloss import DevLoss
from polygraft.tune.data.gathering import Example
from polygraft.tune.running import rounds
from polygraft.tune.settings import Settings

STEP = next(s for s in TABLE if s.name == "tune.sft")
SHORT = [{"prompt": f"{i}+1=", "completion": str(i + 1)} for i in range(12)]
LONG = {"prompt": "x" * 60, "completion": "y"}  # no answer within 32 tokens of a byte
CUT = {"prompt": "x" * 20, "completion": "y" * 60}


def config(tiny, folder, rows, **more):
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = {"model": str(tiny("llama")), "data": [str(folder / "rows.jsonl")], "batch": 2, "length": 32, "device": "cpu", "r": 2}
    return STEP.config(**(common | more))


@pytest.mark.parametrize(("steps", "packing", "said", "seen", "round_"), [
    (2, False, "2 steps, 4 of 14 examples read.", 4, 0.29), (14, False, "14 steps, 14 examples read 2 times round.", 28, 2.0),
    (4, True, None, None, None),
])
def test_what_was_read_is_told_and_not_what_is_there(tiny, tmp_path, steps, packing, said, seen, round_):
    """Six examples without an answer are none to read; of those cut short each is counted once."""
    asked = config(tiny, tmp_path, [*SHORT, CUT, CUT | {"prompt": "z" * 9}, *[LONG] * 6], steps=steps, packing=packing)
    done = recipe.run_step(STEP, asked, tmp_path / "out")
    rows = dict(done.tables[0].rows)
    if packing:
        assert rows["examples seen"] > 8 and rows["times round all examples"] == round(rows["examples seen"] / 14, 2)
        return
    assert done.summary[0].endswith(said)
    assert (rows["examples seen"], rows["times round all examples"]) == (seen, round_)
    notes = [line for line in done.caveats if "of 20 examples" in line or "of 14 " in line]
    assert notes == ["6 of 20 examples have no answer within 32 tokens and were left out",
                     notes[1]] and notes[1].startswith("2 of 14 other examples are longer than 32 tokens and were cut there")


def test_rounds():
    assert rounds(80, 6442) == "80 of 6,442 examples read" and rounds(40, 40) == "40 examples read 1 times round"


def test_a_run_prints_the_reasons_of_a_step_once(tiny, tmp_path, capsys, monkeypatch):
    """Rows of the embedding that no example has stay as they were; so that fewer numbers changed than were trained."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text(json.dumps(SHORT[0]))
    one = "use: tune.embeddings, model: base, data: [rows.jsonl], steps: 1, batch: 1, length: 16, device: cpu"
    (tmp_path / "r.yaml").write_text(f"recipe: 1\nname: r\nmodels: {{base: {tiny('llama')}}}\nsteps:\n  - {{id: a, {one}}}\n"
                                     f"  - {{id: b, {one}, seed: 1}}\n")
    assert cli.run(["run", "r.yaml"]) == 0
    out = capsys.readouterr().out
    assert "are as they were: " in out and out.count("a falling training loss says") == 1


def test_many_reasons_are_left_to_the_report(capsys):
    from polygraft.cli import show

    show.headline(Result("a", "a", "A", caveats=tuple(f"reason {i}" for i in range(9))), {"reason 0"})
    out = capsys.readouterr().out
    assert "reason 0" not in out and "reason 5" in out and "reason 6" not in out and "3 more notes are in the report" in out


def test_a_plan_without_a_probe_counts_the_start(tiny, tmp_path):
    planned = recipe.plan_step(STEP, config(tiny, tmp_path, SHORT, steps=1), folder=tmp_path).plan
    assert planned.seconds > prediction.START and f"{prediction.START:.0f} s for the start" in " ".join(planned.notes)


def test_an_adapter_after_one_step_says_why_a_is_as_it_was(tiny, tmp_path):
    done = recipe.run_step(STEP, config(tiny, tmp_path, SHORT, steps=1, warmup=0.0), tmp_path / "out")
    (why,) = [line for line in done.caveats if "as they were" in line]
    assert "A has none in the first step, in which B is still 0" in why and "words that no example has" not in why


@pytest.mark.parametrize(("n", "said"), [(4, True), (8, False)])
def test_too_few_held_out_examples_are_told(n, said):
    dev = DevLoss([Example({"text": "a"}, "en")] * n, None, Settings())
    dev.nats, dev.counts = {0: [2.0 + i / 9 for i in range(n)], 3: [1.0 + i / 7 for i in range(n)]}, [1] * n
    found = dev.said()
    assert found.caveats == ((f"{n} held-out examples of en are too few for a verdict, whatever the interval: hold out more (`dev`)",)
                             if said else ())
    assert found.tables[0].rows[0][-1].verdict == ("not distinguishable" if said else "better")


def test_a_broken_training_without_states_says_so_and_leaves_nothing(tiny, tmp_path, capsys, monkeypatch):
    def poisoned(work):
        live, chosen = opened(work)
        next(live.model.parameters()).data.fill_(float("nan"))
        return live, chosen

    opened = training.opened
    monkeypatch.setattr(training, "opened", poisoned)
    monkeypatch.chdir(tmp_path)
    asked = config(tiny, tmp_path, SHORT)
    words = ["tune", "sft", asked.model, "--data", asked.data[0], "--steps", "2", "--batch", "2", "--length", "32", "--save-every", "0",
             "--device", "cpu", "--out", "out"]  # fmt: skip
    assert cli.run(words) == 5
    error = capsys.readouterr().err
    assert "is not a number any more" in error and "fp32" not in error and "kept" not in error
    assert not list(tmp_path.glob("out*"))


def test_models_of_runs_are_named_by_their_steps():
    assert labels(["runs/x/steps/slam-0123456789ab/model", "runs/x/steps/part-one-ba9876543210/model", "b/model"]) == ["slam", "part-one", "b"]
    assert labels(["x/steps/slam-0123456789ab/model", "y/steps/slam-0123456789ab/model"])[0].startswith("x/")


def test_the_end_of_a_step_is_no_time_left():
    from polygraft.cli.progress import _left

    assert _left(recipe.Event("progress", "", done=3, total=3, eta=0.0)) == "finishing"
    assert _left(recipe.Event("progress", "", done=1, total=3, eta=60.0)).startswith("about")


def test_a_run_with_nothing_finished_is_one(tmp_path):
    (tmp_path / "steps").mkdir()
    (tmp_path / "run.json").write_text('{"steps": []}')
    with pytest.raises(InputError, match="no step of this run is finished yet"):
        verify_run(tmp_path)
    (tmp_path / "run.json").rename(tmp_path / "result.json")
    with pytest.raises(InputError, match="what a single verb made has no report"):
        RunFolder(tmp_path).folders()
