"""`merge revert --select`: the parts that a selection file names go back to the base, and nothing else does."""

from __future__ import annotations

import pytest
from safetensors.numpy import load_file

from polygraft import cli, merge
from polygraft.errors import UserError
from polygraft.selectionfile import FILE, Entry, write

LAYERS = 3
CHOSEN = {"layers.1.mlp.up_proj", "layers.1.mlp.down_proj", "layers.2.self_attn.q_proj", "layers.2.self_attn.o_proj"}
NAMED = {
    "chosen": (Entry(1, "ffn", "up"), Entry(1, "ffn", "down")), "queries": (Entry(2, "attn", "q"), Entry(2, "attn", "o")),
    "rows": (Entry(1, "ffn", "neuron", [3]),), "deep": (Entry(LAYERS, "ffn", "up"),), "empty": (),
}  # fmt: skip


@pytest.fixture
def given(tiny, tmp_path):
    write(tmp_path / FILE, NAMED)
    return {"expert": str(tiny("llama", layers=LAYERS, seed=5)), "base": str(tiny("llama", layers=LAYERS))}


def test_the_named_parts_are_the_base_and_the_rest_the_expert(given, tmp_path):
    result = merge.revert(**given, select=f"{tmp_path}:chosen+queries", out=tmp_path / "out")
    expert, base, made = (load_file(f"{folder}/model.safetensors") for folder in (given["expert"], given["base"], tmp_path / "out"))
    for key, value in made.items():
        reverted = any(name in key for name in CHOSEN)
        assert value.tobytes() == (base if reverted else expert)[key].tobytes() and (base[key] != expert[key]).any(), key
    assert result.data["profile"]["params"]["selected"] == sorted(k for k in made if any(name in k for name in CHOSEN))
    assert any("layer" in line for line in result.summary)


def test_the_verb_says_what_it_would_do(given, tmp_path, capsys):
    words = ["merge", "revert", "--expert", given["expert"], "--base", given["base"], "--select", f"{tmp_path / FILE}:chosen"]
    assert cli.run([*words, "--plan"]) == 0
    assert "ffn.up" in capsys.readouterr().out
    assert cli.run([*words, "--out", str(tmp_path / "out")]) == 0 and (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.parametrize("name, more, what", [
    ("rows", {}, "each tensor is taken whole"), ("deep", {}, "no such layer"), ("empty", {}, "nothing is selected"),
    ("other", {}, "no selection of this name"), ("chosen", {"zone": "middle"}, "says all that goes back"),
    ("chosen", {"bottom": 1, "head": "base"}, "says all that goes back"),
])  # fmt: skip
def test_what_cannot_be_meant_is_refused_and_nothing_is_written(given, tmp_path, name, more, what):
    with pytest.raises(UserError, match=what):
        merge.revert(**given, **more, select=f"{tmp_path}:{name}", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_in_a_recipe_an_earlier_step_is_named(given, tmp_path):
    from polygraft.recipe import parse_recipe, plan
    from polygraft.steps import TABLE

    text = (f"recipe: 1\nsteps:\n  - {{id: layers, use: analyze.deviation, model: {given['expert']}, corpus: {{en: en.txt, sw: sw.txt}}}}\n"
            f"  - {{id: back, use: merge.revert, expert: {given['expert']}, base: {given['base']}, select: 'layers:chosen'}}\n")
    for language in ("en", "sw"):
        (tmp_path / f"{language}.txt").write_text("one\ntwo\n" * 20)
    planned = plan(parse_recipe(text, TABLE, tmp_path), tmp_path / "runs", offline=True)
    assert planned.errors == () and "the step `layers` has not run yet" in planned.steps[1].plan.notes[0]
