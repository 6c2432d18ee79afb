"""The recipe from text to an adapted instruct model plans and runs as it is shipped, on a tiny model and made-up text."""

from __future__ import annotations

import gzip
import json
import lzma
import random
from pathlib import Path

import pytest

from polygraft import recipe as engine
from polygraft.steps import TABLE

NAME = "adapt-vocabulary-russian.yaml"
RECIPES = Path(__file__).parent.parent.parent / "recipes"
SHORTER = {"size: 8000": "size: 60", "steps: 40": "steps: 3", "steps: 12": "steps: 2", "steps: 16": "steps: 2", "dev: 0.03": "dev: 0.2",
           "answers: 24": "answers: 3",
           "max_tokens: 64": "max_tokens: 4", "sentences: 200": "sentences: 12", "paragraphs: 40": "paragraphs: 3",
           "examples: 60": "examples: 10", "limit: 12": "limit: 2", "max_bytes: 16000": "max_bytes: 1500", "sentences: 12\n": "sentences: 3\n",
           "paragraphs: 4": "paragraphs: 1", "examples: 200": "examples: 20", "dev_every: 20": "dev_every: 2"}
WORDS = ["дом", "река", "лес", "небо", "вода", "утро", "день", "вечер", "книга", "город", "улица", "окно", "дверь", "рука",
         "голос", "слово", "время", "друг"]  # fmt: skip


def sentence(random: random.Random) -> str:
    return " ".join(random.choices(WORDS, k=9)).capitalize() + "."


def shipped(root: Path, model: Path) -> Path:
    """The recipe beside made-up text, a few instructions and parallel lines."""
    draw, data = random.Random(0), root / "data"
    for folder in ("seed_tasks", "xinstruct", "gsm8k", "ntrex128"):
        (data / folder).mkdir(parents=True)
    (root / "adapt").mkdir()
    for name, n in (("train", 30), ("held", 6)):
        texts = ["\n".join(" ".join(sentence(draw) for _ in range(6)) for _ in range(4)) for _ in range(n)]
        (root / "adapt" / f"{name}.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in texts))
    turns = [{"instruction": sentence(draw), "input": "", "output": sentence(draw)} for _ in range(30)]
    (data / "xinstruct/ru.jsonl.xz").write_bytes(lzma.compress("\n".join(map(json.dumps, turns)).encode()))
    sums = "\n".join(json.dumps({"question": f"What is {i} + 1?", "answer": f"#### {i + 1}"}) for i in range(20))
    (data / "gsm8k/train.jsonl.gz").write_bytes(gzip.compress(sums.encode()))
    for tag in ("ru", "en"):
        (data / f"seed_tasks/seed_tasks_{tag}.jsonl").write_text("\n".join(map(json.dumps, turns)))
    for tag in ("eng.src", "rus"):
        (data / f"ntrex128/{tag}.txt.xz").write_bytes(lzma.compress("\n".join(sentence(draw) for _ in range(40)).encode()))
    text = (RECIPES / NAME).read_text(encoding="utf-8").replace("demo:smollm2", str(model))
    for long, short in SHORTER.items():
        assert long in text, long
        text = text.replace(long, short)
    (root / NAME).write_text(text, encoding="utf-8")
    return root / NAME


def test_the_recipe_plans(tmp_path, tiny):
    planned = engine.plan(engine.read_recipe(shipped(tmp_path, tiny("llama")), TABLE), tmp_path / "runs", offline=True)
    assert [str(e) for e in planned.errors] == []


@pytest.mark.slow
def test_the_recipe_makes_an_adapted_model_and_judges_it(tmp_path, tiny):
    path = shipped(tmp_path, tiny("llama"))
    done = engine.run(engine.read_recipe(path, TABLE), tmp_path / "runs", offline=True)
    found = {r.id: r for r in done.results}
    model = next(tmp_path.glob("runs/*/steps/calibrated-*/model"))
    assert json.loads((model / "config.json").read_text())["vocab_size"] > 264
    assert any(c.title == "Bits per byte of held-out text" for c in found["donor"].curves)
    assert {row["model"] for row in found["scores"].data["scores"]} == {"instruct", "swap", "overlap", "conversion", "calibrated"}
    assert not [c for c in found["scores"].caveats if "one document" in c], "modes can be told apart by bits per byte"
    said = found["gate"].data
    assert set(said["criteria"]) == {"passed", "reasons"} and 0 <= said["adoption"]["ru copies"]["share"] <= 1
