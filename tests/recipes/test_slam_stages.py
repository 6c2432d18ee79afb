"""SLAM's recipe and that of the two stages plan and run as they are shipped, on a tiny model and made-up questions."""

from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path

import pytest

from polygraft import recipe as engine
from polygraft.checkpoint import Checkpoint
from polygraft.steps import TABLE

RECIPES = Path(__file__).parent.parent.parent / "recipes"
SHORTER = {"n=2000": "n=40", "steps: 60": "steps: 2", "steps: 40": "steps: 2", "tokens: 6000": "tokens: 600\n    draws: 20\n    top: 1", "limit: 50": "limit: 2",
           "length: 256": "length: 128", "per_language: 200": "per_language: 12"}


def shipped(name: str, root: Path, model: Path) -> Path:
    """The recipe beside questions in three alphabets, its model a tiny one, its trainings short."""
    words = {"en": "abcde", "es": "FGHIJ", "sw": "KLMNO"}
    rows = {tag: [{"i": i, "question": letters[i % 5] * 4 + letters[i // 5 % 5] * 3 + str(i), "answer": "1"} for i in range(40)]
            for tag, letters in words.items()}
    for folder in ("gsm8k", "gsm8k_multiq"):
        (root / "data" / folder).mkdir(parents=True)
    (root / "data" / "gsm8k" / "train.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows["en"])).encode()))
    for tag in ("es", "sw"):
        (root / "data" / "gsm8k_multiq" / f"gsm8k_train_{tag}.jsonl.xz").write_bytes(lzma.compress("\n".join(map(json.dumps, rows[tag])).encode()))
    text = (RECIPES / name).read_text(encoding="utf-8").replace("demo:smollm2", str(model))
    for long, short in SHORTER.items():
        text = text.replace(long, short)
    (root / name).write_text(text, encoding="utf-8")
    return root / name


@pytest.mark.parametrize("name", ["slam.yaml", "slam-two-stages.yaml"])
def test_the_recipe_plans_and_answers(name, tmp_path, tiny):
    path = shipped(name, tmp_path, tiny("llama", layers=4))
    planned = engine.plan(engine.read_recipe(path, TABLE), tmp_path / "runs", offline=True)
    assert [str(e) for e in planned.errors] == []
    done = engine.run(engine.read_recipe(path, TABLE), tmp_path / "runs", offline=True)
    found = {r.id: r for r in done.results}
    folders = {f.name.rpartition("-")[0]: f for f in (done.folder / "steps").iterdir()}
    before, after = ("english", "slam") if name == "slam.yaml" else (None, "aligned")
    start = Checkpoint.open(folders[before] / "model") if before else Checkpoint.open(tiny("llama", layers=4))
    made = Checkpoint.open(folders[after] / "model")
    changed = {k for k in made.tensors if made.read(k) != start.read(k)}
    if before:
        (layer,) = found["layers"].data["chosen"]
        assert changed <= {f"model.layers.{layer}.mlp.{role}_proj.weight" for role in ("up", "down")}
    else:
        assert len(changed) > 20
    assert [c["used"] for c in found[after].data["alignment"]] == [12, 12]
    assert all(found[s].data["seconds"] > 0 for s in (after, "english" if before else "reasoned")), "what the comparison reads"


def test_both_recipes_train_on_the_same(tmp_path):
    one, two = (engine.read_recipe(RECIPES / name, TABLE) for name in ("slam.yaml", "slam-two-stages.yaml"))
    pick = {use.id: use.config for use in (*one.steps, *two.steps)}
    for a, b, fields in (("slam", "aligned", ("pairs", "english", "per_language", "balance", "steps", "batch", "accumulate", "length", "seed")),
                         ("english", "reasoned", ("data", "method", "steps", "batch", "accumulate", "length", "lr", "seed"))):
        assert {f: getattr(pick[a], f) for f in fields} == {f: getattr(pick[b], f) for f in fields}
