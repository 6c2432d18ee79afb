"""The recipe of the language-neuron study plans and runs as it is shipped, on a tiny model and made-up texts."""

from pathlib import Path

import numpy as np
import pytest

from polygraft import recipe as engine
from polygraft.result import Estimate
from polygraft.steps import TABLE

RECIPE = Path(__file__).parent.parent.parent / "recipes" / "language-neurons.yaml"
LANGUAGES = ("en", "de", "es", "sw", "ru", "zh")
SHORTER = {"tokens: 8192": "tokens: 600", "method: lape": "method: lape\n    top_rate: 0.3\n    draws: 5", "documents: 20": "documents: 2",
           "documents: 40": "documents: 2"}


@pytest.fixture(scope="module")
def written(tmp_path_factory, tiny):
    """The recipe beside texts of six alphabets, its model a tiny random one."""
    root, rng = tmp_path_factory.mktemp("study"), np.random.default_rng(0)
    (root / "ntrex").mkdir()
    for i, language in enumerate(LANGUAGES):
        letters = [chr(ord("A") + 9 * i + k) for k in range(9)]
        for kind, count in (("find", 20), ("read", 5)):
            lines = ["".join(rng.choice(letters, 40)) for _ in range(count)]
            (root / "ntrex" / f"{language}.{kind}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = RECIPE.read_text(encoding="utf-8").replace("demo:smollm2", str(tiny("llama")))
    for shipped, shorter in SHORTER.items():
        assert shipped in text
        text = text.replace(shipped, shorter)
    (root / RECIPE.name).write_text(text, encoding="utf-8")
    return root / RECIPE.name


def test_the_recipe_plans(written, tmp_path):
    planned = engine.plan(engine.read_recipe(written, TABLE), tmp_path, offline=True)
    assert [str(e) for e in planned.errors] == [] and [s.id for s in planned.steps] == ["read", "neurons", "matrix", "verdict"]


def test_the_recipe_answers_its_question(written, tmp_path):
    done = engine.run(engine.read_recipe(written, TABLE), tmp_path, offline=True)
    found = {r.id: r for r in done.results}
    matrix, verdict = found["matrix"], found["verdict"]
    assert tuple(matrix.data["matrix"]["units"]["token"]["read"]) == LANGUAGES
    specific = next(t for t in matrix.tables if t.title.startswith("Specific"))
    assert [row[0] for row in specific.rows] == list(LANGUAGES)
    assert all(isinstance(cell, Estimate) and cell.n == 2 for row in specific.rows for cell in row[1:])
    assert verdict.data["verdict"]["answer"] in ("yes", "no") and verdict.data["verdict"]["measure"] == "nats sw"
    assert any(line.lower().startswith(f"{verdict.data['verdict']['answer']}:") for line in verdict.summary)
