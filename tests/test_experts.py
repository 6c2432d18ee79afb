"""The two adapters that come with the package: whole, small, from the data that their manifests name."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import polygraft
from polygraft.adapter import Adapter
from polygraft.evals.tasks.problems.examples import examples as generate
from polygraft.files import read_json, verify_folder
from polygraft.tune.examples import digest

FOLDER = Path(polygraft.__file__).parent / "experts"
NAMES = ("math-en", "read-es")
RECIPE = Path(__file__).parent.parent / "recipes" / "train-demo-experts.yaml"


@pytest.mark.parametrize("name", NAMES)
def test_whole_small_and_plain_lora(name):
    assert verify_folder(FOLDER / name) == []
    assert sum(p.stat().st_size for p in (FOLDER / name).iterdir()) <= 8_000_000
    adapter = Adapter.open(FOLDER / name)
    assert adapter.base == "demo:smollm2" and len(adapter.pairs) == 30 * 7
    assert {t.dtype for t in adapter.tensors.values()} == {"BF16"}


@pytest.mark.parametrize("name", NAMES)
def test_the_generator_still_makes_the_training_data(name):
    """A change to the problems that alters these examples must come with experts trained anew."""
    inputs = [i for i in read_json(FOLDER / name / "manifest.json")["inputs"] if i["name"].startswith("problems:")]
    assert inputs
    for i in inputs:
        assert digest(list(generate(i["name"].partition(":")[2]))) == i["digest"]


@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_says_what_the_manifest_says(name):
    step = next(s for s in yaml.safe_load(RECIPE.read_text())["steps"] if s["id"] == name)
    made = read_json(FOLDER / name / "manifest.json")["recipe"]
    assert {k: float(v) if k == "lr" else v for k, v in step.items()} == {k: made[k] for k in step}


def test_the_language_expert_saw_no_solution():
    spec = read_json(FOLDER / "read-es" / "manifest.json")["recipe"]["data"]
    rows = [row for s in spec for row in generate(s.partition(":")[2])]
    assert rows and not any("=" in text or "Answer" in text or "Respuesta" in text for row in rows for text in row.values())
