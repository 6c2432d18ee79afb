"""The recipe of the pruning study plans and runs as it is shipped, on a tiny model and made-up texts."""

from pathlib import Path

import numpy as np
import pytest

from polygraft import recipe as engine
from polygraft.steps import TABLE

RECIPE = Path(__file__).parent.parent.parent / "recipes" / "prune-study.yaml"
LANGUAGES = ("en", "de", "sw", "ru", "zh")
SHORTER = {"samples: 32": "samples: 2", "seq_len: 256": "seq_len: 24", "tokens: 12000": "tokens: 80", "diagnose: 4096": "diagnose: 80",
           "seeds: 3": "seeds: 1"}  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory, tiny):
    """The recipe beside texts of five alphabets, its model a tiny random one."""
    root, rng = tmp_path_factory.mktemp("study"), np.random.default_rng(0)
    (root / "ntrex").mkdir()
    for i, language in enumerate(LANGUAGES):
        letters = [chr(ord("A") + 9 * i + k) for k in range(9)]
        for kind in ("calibrate", "read"):
            lines = ["".join(rng.choice(letters, 40)) for _ in range(20)]
            (root / "ntrex" / f"{language}.{kind}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = RECIPE.read_text(encoding="utf-8").replace("demo:smollm2", str(tiny("llama")))
    for shipped, shorter in SHORTER.items():
        assert shipped in text
        text = text.replace(shipped, shorter)
    (root / RECIPE.name).write_text(text, encoding="utf-8")
    return root / RECIPE.name


def test_the_recipe_plans_and_answers_its_question(written, tmp_path):
    recipe = engine.read_recipe(written, TABLE)
    planned = engine.plan(recipe, tmp_path, offline=True)
    assert [str(e) for e in planned.errors] == []
    [result] = engine.run(recipe, tmp_path, offline=True).results
    assert len(result.data["cells"]) == 9 and result.data["languages"] == list(LANGUAGES)
    advice = next(t for t in result.tables if t.title.startswith("Which calibration"))
    assert [row[0] for row in advice.rows] == list(LANGUAGES) and all(row[3] for row in advice.rows)
