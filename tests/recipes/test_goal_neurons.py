"""`polygraft init neurons` prints a study that plans and runs: text is read once, and every step builds on an earlier one."""

import numpy as np
import pytest

from polygraft import cli
from polygraft import recipe as engine
from polygraft.steps import TABLE

SHORTER = {"tokens: 100000": "tokens: 500", "method: lape": "method: lape\n    top_rate: 0.3\n    draws: 3",
           "verdict: true": "verdict: true\n    way: [zero]", "matrix: true": "matrix: true\n    controls: 1",
           "activity: read\n\n  - id: matrix": "activity: read\n    draws: 20\n\n  - id: matrix"}  # fmt: skip


@pytest.fixture
def written(tmp_path, tiny, capsys):
    assert cli.run(["init", "neurons", "--lang", "sw", "--model", str(tiny("llama", layers=4)), "--out", str(tmp_path / "study.yaml")]) == 0
    text, rng = (tmp_path / "study.yaml").read_text(encoding="utf-8"), np.random.default_rng(0)
    for shipped, shorter in SHORTER.items():
        assert shipped in text
        text = text.replace(shipped, shorter)
    (tmp_path / "study.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "texts").mkdir()
    for i, language in enumerate(("en", "es", "ru", "sw")):
        letters = [chr(ord("A") + 12 * i + k) for k in range(12)]
        for kind, count in (("find", 20), ("read", 2)):
            lines = ["".join(rng.choice(letters, 40)) for _ in range(count)]
            (tmp_path / "texts" / f"{language}.{kind}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path / "study.yaml"


def test_the_study_runs_and_the_second_time_there_is_nothing_to_do(written):
    recipe = engine.read_recipe(written, TABLE)
    planned = engine.plan(recipe, written.parent / "runs", offline=True)
    assert [str(e) for e in planned.errors] == [] and all(s.key for s in planned.steps)
    done = engine.run(recipe, written.parent / "runs", offline=True)
    assert done.ran == ("read", "neurons", "layers", "matrix", "verdict")
    folders = {f.name.rpartition("-")[0]: f for f in (done.folder / "steps").iterdir()}
    assert [name for name, f in folders.items() if list(f.rglob("activity.json"))] == ["read"], "text is read once"
    assert done.results[2].data["chosen"] and done.results[4].data["verdict"]["answer"] in ("yes", "no")
    assert engine.run(recipe, written.parent / "runs", offline=True).ran == ()
