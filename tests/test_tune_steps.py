"""tune.sft as a recipe's step: planned from headers, run, resumed, refused."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from polygraft.checkpoint import Checkpoint
from polygraft.config import parse
from polygraft.errors import RecipeError, UserError
from polygraft.evals.callback import WATCHERS
from polygraft.result import Result
from polygraft.sources import resolve
from polygraft.step import Context
from polygraft.tune.config import Around
from polygraft.tune.sft import Sft, sft_step
from polygraft.yamltext import parse_document

TWO = {"toy": lambda spec: [{"prompt": f"{spec}{i}", "completion": "y"} for i in range(4)]}
STEP = sft_step(Around(TWO, WATCHERS))


@pytest.fixture
def context(tiny, tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"line {i}"}) for i in range(5)))
    return Context(model=lambda ref: resolve(tiny("llama")), data=lambda ref: path, step_id="t")


def config(**more) -> Sft:
    rank = {} if more.get("method") == "full" else {"r": 2}
    return Sft(**({"model": "m", "data": ["toy:a", "d.jsonl"], **rank, "steps": 2, "batch": 2, "length": 32, "device": "cpu"} | more))


def test_plan_counts_what_will_be_trained(context, tiny, tmp_path):
    plan = STEP.plan(config(), context)
    result = STEP.run(config(), context, tmp_path / "out")
    adapter = resolve(tmp_path / "out" / "model", base=resolve(tiny("llama"))).adapter
    trained = sum(t.shape[0] * t.shape[1] for t in adapter.tensors.values())
    assert f"{trained:,} trained parameters" in plan.lines[0] and plan.lines[0].startswith("9 examples, 2 steps of 2")
    assert dict(result.tables[0].rows)["trained parameters"] == trained
    assert plan.like is None and plan.peak_bytes > 0 and plan.seconds > 0


def test_full_tuning_makes_a_model_like_its_base(context, tmp_path):
    plan = STEP.plan(config(method="full", lr=1e-3), context)
    assert plan.like is not None and set(plan.maps[0].outside.values()) == {1.0}
    STEP.run(config(method="full", lr=1e-3), context, tmp_path / "out")
    made = Checkpoint.open(tmp_path / "out" / "model")
    assert {k: t.shape for k, t in made.tensors.items()} == {k: t.shape for k, t in plan.like.checkpoint.tensors.items()}


def test_targets_limit_what_is_trained(context):
    rows = dict(zip(*(lambda m: (m.rows, m.values))(STEP.plan(config(targets=["q_proj"]), context).maps[0])))
    assert rows["attn.q"][0] > 0 and rows["attn.v"][0] == 0
    with pytest.raises(RecipeError, match=r"no module .*\n.*found: kk_proj\n.*did you mean `k_proj`"):
        STEP.plan(config(targets=["q_proj", "kk_proj"]), context)


@pytest.mark.parametrize(("more", "said"), [
    ({"method": "full", "targets": ["q_proj"]}, "`targets` would do nothing"),
    ({"method": "full", "r": 4, "alpha": 8.0, "dropout": 0.1, "rslora": True}, "`r`, `alpha`, `dropout`, `rslora` would do nothing"),
    ({"mix": {"repeat": True}}, "`repeat` without"), ({"mix": {"against_data": "x"}}, "`against_data` without `against`"),
    ({"mix": {"leaks": "refuse"}}, "`leaks` of `mix` without"), ({"watch": {"every": 5}}, "`every` of `watch` without")])
def test_what_would_do_nothing_is_refused(more, said):
    with pytest.raises(ValueError, match=said):
        config(**more)
    config(method="full", retain={"text": "a.txt", "stop": 1.0}, watch={"every": 5}, mix={"against": ["mgsm"], "ngram": 13})


def test_result_is_json_and_tells_inputs(context, tmp_path):
    result = STEP.run(config(), context, tmp_path / "out")
    assert Result.from_json(json.loads(json.dumps(result.to_json()))) == result
    assert [i.spec for i in result.inputs][1:] == ["toy:a", "d.jsonl"] and all(i.digest for i in result.inputs[1:])
    assert len(result.curves[0].series["loss (nats per answer token)"]) == 2


@pytest.mark.parametrize("line", ["bacth: 3", "r: 0", "method: qlora", "steps: 1.5", "lr: -1", "data: []", "dropout: 1"])
def test_what_is_typed_is_checked(line):
    text = "model: m\n" + ("" if line.startswith("data") else "data: [a]\n") + line + "\n"
    with pytest.raises(UserError, match=r"r\.yaml:\d"):
        parse(Sft, parse_document(text, "r.yaml"))


def test_planning_imports_nothing_heavy():
    code = "import sys, polygraft.tune.steps, polygraft.tune.sft as s; s.Sft(model='m', data=['d']); print({'torch','trl','peft','transformers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"
