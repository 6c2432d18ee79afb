"""`analyze.deviation` as a step: files, selections and shares of every family; wired models whose layers are found."""

from __future__ import annotations

import dataclasses
import json
import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import tiny as make
from polygraft import arrays, selectionfile
from polygraft.analysis.layers import steps
from polygraft.anatomy import Anatomy
from polygraft.errors import InputError, RecipeError
from polygraft.result import Result
from polygraft.sources import resolve
from polygraft.step import Context
from test_layers import reading, shares

CONTEXT = Context(resolve, Path)
LLAMA2 = {"7B": (32, 4096, 11008), "13B": (40, 5120, 13824)}


def shifted(layers, planted, neurons=40, languages=3):
    """Shares of neurons that follow the language in the planted layers alone."""
    p = np.full((layers, neurons, languages), 0.4)
    p[list(planted)] += 0.3 * (shares(layers=len(planted), neurons=neurons, languages=languages) - 0.5)
    return p


def measured(tmp_path, model, p, **options):
    out = tmp_path / "out"
    out.mkdir(parents=True)
    (tmp_path / "read").mkdir()
    reading(tmp_path / "read", p, hidden=32, identity=resolve(model).identity)
    config = steps.Deviation(model=str(model), activity=str(tmp_path / "read"), **options)
    return steps.run(config, CONTEXT, out), out, config


@pytest.mark.parametrize("family", make.FAMILIES)
def test_every_family_has_its_up_and_down_selected(tiny, tmp_path, family):
    model = tiny(family, layers=4)
    result, out, config = measured(tmp_path, model, shifted(4, [1]), top=1, draws=20)
    assert result.data["chosen"] == [1]
    weights = resolve(model).weights
    anatomy, shapes = Anatomy.of(weights.config, weights.tensors), {k: t.shape for k, t in weights.tensors.items()}
    named = selectionfile.read(out / "selection.json")
    assert list(named) == ["chosen", "random.0", "random.1", "random.2", "all"]
    found = selectionfile.on(named["chosen"], anatomy, shapes)
    expected = {
        k for k, part in anatomy.parts.items()
        if part.layer == 1 and part.kind == "ffn" and part.role.rpartition(".")[2] in ("up", "down", "gate_up")
    }  # fmt: skip
    assert set(found.rows) == expected
    fused = [k for k in expected if anatomy.parts[k].role == "gate_up"]
    assert all(len(found.rows[k]) * 2 == shapes[k][0] for k in fused)
    parameters = sum(math.prod(shapes[k]) // (2 if k in fused else 1) for k in expected)
    total = sum(math.prod(s) for s in shapes.values())
    assert result.data["trained"]["chosen"] == {"layers": [1], "parameters": parameters, "share": parameters / total}
    assert f"{parameters / total:.2%}" in result.summary[-1] and f"{parameters / total:.2%}" in steps.plan(config, CONTEXT).lines[0]
    assert "final" not in named and result.data["final"] == []  # its stream does not part again
    assert selectionfile.layers(named["all"]) == [0, 1, 2, 3] and len(selectionfile.layers(named["random.0"])) == 1


@pytest.mark.parametrize(("size", "count", "gate", "share"), [
    ("7B", 6, False, 8.03), ("7B", 5, False, 6.69), ("13B", 6, False, 6.53), ("7B", 6, True, 12.04), ("13B", 6, True, 9.79),
])  # fmt: skip
def test_the_published_shares_of_parameters(size, count, gate, share):
    """SLAM: "only 6 layers' feed-forward sub-layers, 6.5-8 % of parameters": up and down, not gate."""
    layers, hidden, ffn = LLAMA2[size]
    own = {f"self_attn.{x}_proj": (hidden, hidden) for x in "qkvo"} | {"mlp.down_proj": (hidden, ffn)}
    own |= {"mlp.gate_proj": (ffn, hidden), "mlp.up_proj": (ffn, hidden), "input_layernorm": (hidden,), "post_attention_layernorm": (hidden,)}
    shapes = {f"model.layers.{i}.{name}.weight": shape for i, (name, shape) in product(range(layers), own.items())}
    shapes |= {"model.embed_tokens.weight": (32000, hidden), "lm_head.weight": (32000, hidden), "model.norm.weight": (hidden,)}
    anatomy = Anatomy.of({"model_type": "llama", "num_hidden_layers": layers, "hidden_size": hidden, "intermediate_size": ffn,
                          "num_attention_heads": 32}, shapes)  # fmt: skip
    found = selectionfile.on(steps.entries(anatomy, range(count), gate), anatomy, shapes)
    assert round(100 * found.share(shapes), 2) == share


def test_the_folder_holds_what_the_result_says(tiny, tmp_path):
    result, out, _ = measured(tmp_path, tiny("llama", layers=6), shifted(6, [0, 2, 5], languages=4), top=2, draws=30)
    found = arrays.Arrays(out / "deviation.safetensors")
    assert found["msd"].shape == (6,) and found["msd"].dtype == np.float64
    assert result.data["chosen"] == [0, 2] and np.argsort(-found["msd"])[:3].tolist() != [0, 2, 1]
    assert set(result.data["languages"]) == set(result.data["tokens"]) and result.data["rules"].keys() == {"top", "above", "block"}
    assert found["often"][[0, 2]].min() == 1 and "without sw" in result.data["fewer"]
    said = json.dumps(result.to_json(), allow_nan=False)
    assert "NaN" not in said and len(result.curves) == 7
    parts = result.maps[1]
    assert list(parts.values[parts.rows.index("ffn.up")]) == [1, 0, 1, 0, 0, 0]
    assert set(parts.values[parts.rows.index("ffn.gate")]) == {0}


def test_the_last_block_is_a_set_of_its_own(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "last_block", lambda share: (2, 3) if len(share) == 5 else ())
    result, out, _ = measured(tmp_path, tiny("llama", layers=4), shifted(4, [1]), top=1, draws=20)
    named = selectionfile.read(out / "selection.json")
    written = json.loads(json.dumps(result.to_json()))
    assert written["chosen"] == written["data"]["chosen"] and Result.from_json(written) == result
    assert selectionfile.layers(named["final"]) == result.data["final"] == result.data["trained"]["final"]["layers"] == [2, 3]


def test_gate_is_selected_where_asked(tiny, tmp_path):
    _, out, _ = measured(tmp_path, tiny("llama", layers=4), shifted(4, [0]), top=1, gate=True, draws=20, controls=0)
    assert {e.role for e in selectionfile.read(out / "selection.json")["chosen"]} == {"gate", "up", "down"}


def test_what_cannot_be_chosen_is_refused_and_writes_nothing(tiny, tmp_path):
    model = tiny("llama", layers=4)
    with pytest.raises(RecipeError, match="more layers are asked for"):
        steps.plan(steps.Deviation(model=str(model), activity="x", top=3), CONTEXT)
    with pytest.raises(InputError, match="more than other documents would"):
        measured(tmp_path / "same", model, np.full((4, 40, 3), 0.4))
    with pytest.raises(InputError, match="beside one another"):
        measured(tmp_path / "one", model, np.full((4, 40, 1), 0.4))
    assert not list((tmp_path / "same" / "out").iterdir()) and not list((tmp_path / "one" / "out").iterdir())


def test_a_plan_tells_the_languages_that_will_not_do(tiny, tmp_path):
    (tmp_path / "en.txt").write_text("some text\n")
    one = {"en": str(tmp_path / "en.txt")}
    model = str(tiny("llama", layers=4))
    (problem,) = steps.plan(steps.Deviation(model=model, corpus=one), CONTEXT).problems
    assert "beside one another" in str(problem)
    (problem,) = steps.plan(steps.Deviation(model=model, corpus=one | {"de": one["en"]}, reference="fr"), CONTEXT).problems
    assert "not among those read" in str(problem)
    found = steps.plan(steps.Deviation(model=model, corpus=one | {"de": one["en"]}), CONTEXT)
    assert not found.problems and found.peak_bytes > 0 and "2 of layers 0 to 1" in found.lines[0]
    with pytest.raises(InputError, match="beside one another"):
        steps.run(steps.Deviation(model=model, corpus=one), CONTEXT, tmp_path)


def test_a_plan_looks_into_a_reading_made_before(tiny, tmp_path):
    model = str(tiny("llama", layers=4))
    made = reading(tmp_path, shares(layers=4, neurons=40), hidden=32, identity=resolve(model).identity)
    assert not steps.plan(steps.Deviation(model=model, activity=str(tmp_path)), CONTEXT).problems
    (problem,) = steps.plan(steps.Deviation(model=model, activity=str(tmp_path), reference="fr"), CONTEXT).problems
    assert "not among those read" in str(problem)
    dataclasses.replace(made, languages={"en": made.languages["en"]}).save()
    (problem,) = steps.plan(steps.Deviation(model=model, activity=str(tmp_path)), CONTEXT).problems
    assert "beside one another" in str(problem) and str(tmp_path) in str(problem.where)
