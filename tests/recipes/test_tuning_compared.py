"""The recipe that compares ways of tuning plans as it is shipped, on the real texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from polygraft import embedded, gguf
from polygraft import recipe as engine
from polygraft.files import MANIFEST
from polygraft.steps import TABLE

ROOT = Path(__file__).parent.parent.parent
DATA = ROOT.parent / "shared" / "data"


@pytest.mark.real
def test_the_recipe_plans(tmp_path):
    if not DATA.is_dir():
        pytest.skip(f"the data sets are not at {DATA}")
    if not (gguf.converted(embedded.SHA256) / MANIFEST).exists():
        pytest.skip("the embedded model is not in the cache; `polygraft inspect demo:smollm2` fetches it")
    (tmp_path / "data").symlink_to(DATA)
    (tmp_path / "tuning").mkdir()
    for name in ("pairs", "texts"):
        rows = [json.dumps({"prompt": f"¿Cuántas son {i} y {i + 7}?", "completion": f"How many are {i} and {i + 7}?"}) for i in range(60)]
        (tmp_path / "tuning" / f"{name}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    recipe = tmp_path / "tuning-compared.yaml"
    recipe.write_bytes((ROOT / "recipes" / recipe.name).read_bytes())
    planned = engine.plan(engine.read_recipe(recipe, TABLE), tmp_path / "runs", offline=True)
    assert [str(e) for e in planned.errors] == []
