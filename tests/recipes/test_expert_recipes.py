"""The recipes of a math expert and of a language expert plan and run as they are shipped, on a tiny model and made-up examples."""

from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path

import pytest

from polygraft import recipe as engine
from polygraft.steps import TABLE

RECIPES = Path(__file__).parent.parent.parent / "recipes"
SHORTER = {"steps: 30": "steps: 2", "every: 15": "every: 2", "items: 30": "items: 2", "limit: 50": "limit: 2",
           "examples: 2000": "examples: 60", "dev: 0.01\n": "dev: 0.2\n", "dev: 0.005": "dev: 0.2"}
PROBLEM = "{} rolls and {} more?"


def jsonl(rows: list[dict]) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


def shipped(name: str, root: Path, model: Path) -> Path:
    """The recipe beside examples of which one is a problem of MGSM, one is given twice, and one is too long."""
    data = root / "data"
    for folder in ("gsm8k", "mgsm", "xinstruct", "african_storybook"):
        (data / folder).mkdir(parents=True)
    problems = [{"question": PROBLEM.format(i, i + 7) + f" Day{i}x week{i}y a{i} b{i}", "answer": f"#### {i}"} for i in range(40)]
    leak = {"question": "Janet sells sixteen duck eggs a day at the market for two dollars each. How much is it?", "answer": "#### 32"}
    rows = [*problems, leak, problems[3], {"question": "w " * 900, "answer": "1"}]
    (data / "gsm8k/train.jsonl.gz").write_bytes(gzip.compress(jsonl(rows)))
    (data / "gsm8k/test.jsonl.gz").write_bytes(gzip.compress(jsonl([{"question": "How many?", "answer": "#### 3"}])))
    for tag in ("en", "sw"):
        (data / f"mgsm/mgsm_{tag}.tsv").write_text(leak["question"] + "\t32\nHow many is that, then?\t3\n")
    turns = [{"instruction": r["question"], "input": "", "output": r["answer"]} for r in rows]
    (data / "xinstruct/sw.jsonl.xz").write_bytes(lzma.compress(jsonl(turns)))
    stories = [{"text": " ".join(f"s{i}w{k}" for k in range(20))} for i in range(20)]
    (data / "african_storybook/en.jsonl.gz").write_bytes(gzip.compress(jsonl(stories)))
    text = (RECIPES / name).read_text(encoding="utf-8").replace("demo:smollm2", str(model))
    for long, short in SHORTER.items():
        text = text.replace(long, short)
    (root / name).write_text(text, encoding="utf-8")
    return root / name


@pytest.mark.parametrize("name, label", [("math-expert.yaml", "en"), ("language-expert.yaml", "sw")])
def test_the_recipe_plans_and_answers(name, label, tmp_path, tiny):
    path = shipped(name, tmp_path, tiny("llama"))
    planned = engine.plan(engine.read_recipe(path, TABLE), tmp_path / "runs", offline=True)
    assert [str(e) for e in planned.errors] == []
    done = engine.run(engine.read_recipe(path, TABLE), tmp_path / "runs", offline=True)
    expert = next(r for r in done.results if r.id == "expert")
    told = expert.data["examples"][label]
    assert (told["read"], told["long"], told["leaked"]) == (43, 1, 1) and told["same"] + told.get("near", 0) >= 1
    assert set(expert.data["dev"]) >= {label} and expert.data["watch"]["readings"]
    assert {t.title for t in expert.tables} >= {"Examples", "Evaluation items among the examples", "Held-out examples", "Watched scores"}
