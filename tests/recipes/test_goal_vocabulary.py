"""`polygraft init vocabulary` prints a recipe that plans and runs from text to a judged model, for any language."""

import json
import random

import pytest

from polygraft import cli
from polygraft import recipe as engine
from polygraft.steps import TABLE

SHORTER = {"size: 16000": "size: 60", "length: 1024": "length: 64\n    steps: 2", "accumulate: 32": "accumulate: 1",
           "mix: {dev: 0.01, dev_every: 100}": "mix: {dev: 0.2}", "weight_decay: 0.1\n\n": "weight_decay: 0.1\n    steps: 2\n    length: 64\n\n",
           "against: [texts/held.sw.jsonl]": "against: [texts/held.sw.jsonl]\n    sentences: 8\n    paragraphs: 2",
           "    tasks: [\"darumeru:sw\"]": "    limit: 1\n    max_bytes: 2000\n    tasks: [copy-sentence] #",
           "    start: instruct\n": "    start: instruct\n    sentences: 2\n    paragraphs: 1\n    max_bytes: 1500\n"}
WORDS = ["nyumba", "mto", "msitu", "anga", "maji", "asubuhi", "siku", "jioni", "kitabu", "mji", "mtaa", "dirisha", "mlango", "mkono",
         "sauti", "neno", "wakati", "rafiki"]  # fmt: skip


@pytest.fixture
def written(tmp_path, tiny):
    base, instruct = tiny("llama"), tiny("llama", noise=0.02, seed=3)
    assert cli.run(["init", "vocabulary", "--lang", "sw", "--model", str(base), "--out", str(tmp_path / "goal.yaml")]) == 0
    text = (tmp_path / "goal.yaml").read_text(encoding="utf-8").replace("org/instruct-model", str(instruct))
    for shipped, shorter in SHORTER.items():
        assert shipped in text, shipped
        text = text.replace(shipped, shorter)
    (tmp_path / "goal.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "texts").mkdir()
    draw = random.Random(0)
    for kind, count in (("learn", 30), ("held", 8)):
        texts = ["\n".join(" ".join(" ".join(draw.choices(WORDS, k=9)).capitalize() + "." for _ in range(6)) for _ in range(3))
                 for _ in range(count)]  # fmt: skip
        (tmp_path / "texts" / f"{kind}.sw.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in texts), encoding="utf-8")
    return tmp_path / "goal.yaml"


def test_the_goal_plans(written, tmp_path):
    planned = engine.plan(engine.read_recipe(written, TABLE), tmp_path / "runs", offline=True)
    assert [str(e) for e in planned.errors] == [] and len(planned.steps) == 10


@pytest.mark.slow
def test_the_goal_makes_an_adapted_model_and_judges_it(written, tmp_path):
    done = engine.run(engine.read_recipe(written, TABLE), tmp_path / "runs", offline=True)
    found = {r.id: r for r in done.results}
    assert json.loads(next(tmp_path.glob("runs/*/steps/calibrated-*/model/config.json")).read_text())["vocab_size"] > 264
    assert {row["model"] for row in found["scores"].data["scores"]} == {"instruct", "swap", "conversion", "calibrated"}
    assert set(found["gate"].data["criteria"]) == {"passed", "reasons"}
