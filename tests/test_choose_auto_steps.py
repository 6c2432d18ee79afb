"""`merge auto` as a step and a function: every family, adapters, evidence, what stands beside the proposal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import polygraft as pg
import tiny as make
from folders import config, llama, raw, read, shapes, values, write
from polygraft import arrays, merge, selectionfile
from polygraft.anatomy import Anatomy
from polygraft.choose.auto import steps
from polygraft.choose.auto.config import Auto
from polygraft.choose.auto.measured import Widened, exact
from polygraft.choose.auto.proposals import spans
from polygraft.choose.auto.units import norm_owner
from polygraft.errors import RecipeError
from polygraft.result import Result
from polygraft.selectionfile import Entry
from polygraft.sources import resolve, with_base
from polygraft.step import Context
from test_merge_adapters import LAYERS as LORA_LAYERS
from test_merge_adapters import lora

CONTEXT = Context(resolve, Path)
LAYERS = 8


@pytest.fixture
def trio(tmp_path):
    """math changes layers 3 to 5, sw layers 0, 1 and 7, a hundredfold."""
    base = values(shapes(layers=LAYERS), 0)
    for name, seed, loud, scale in (("math", 1, {3, 4, 5}, 1e-3), ("sw", 2, {0, 1, 7}, 1e-1)):
        rng = np.random.default_rng(seed)
        changed = {k: rng.normal(0, scale * (1 if ".layers." in k and int(k.split(".")[2]) in loud else 0.1), v.shape) for k, v in base.items()}
        write(tmp_path / name, {k: (v + changed[k]).astype(np.float32) for k, v in base.items()}, config(layers=LAYERS), dtype="F32")
    write(tmp_path / "base", base, config(layers=LAYERS), dtype="F32")
    return {"task": tmp_path / "math", "language": tmp_path / "sw", "base": tmp_path / "base"}


def auto(out, trio, **options) -> Result:
    return pg.choose.auto.merge(out=out, **trio, **options)


def test_the_merge_that_is_written_is_the_proposal(tmp_path, trio):
    result = auto(tmp_path / "out", trio, shape="window", embed="language", norm="task", head="base")
    assert result.step == "merge.auto" and result.data["chosen"] == "relative, window"
    wanted = merge.swap(out=tmp_path / "wanted", **trio, bottom=2, top=1, transition=0, embed="language", norm="task", head="base")
    assert raw(tmp_path / "out") == raw(tmp_path / "wanted")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["recipe"]["use"] == "merge.auto@1" and manifest["profile"]["params"]["layer"]["bottom"] == 2
    assert "merge auto" in (tmp_path / "out/README.md").read_text() and wanted.data["bytes"]


def test_what_stands_beside_the_proposal(tmp_path, trio):
    result = auto(tmp_path / "out", trio, random=4)
    picture = result.maps[0]
    rows = dict(zip(picture.rows, picture.values))
    windows = [f"random window {i}" for i in range(4)]
    assert list(rows)[-9:] == ["= relative", "paper's default", "soup", *windows, "sign", "cosine"] and next(iter(rows)) == "attn.q"
    assert rows["= relative"][0] == 1 and rows["= relative"][4] == -1 and set(rows["soup"]) == {0.0}
    assert rows["paper's default"] == (1, -1, -1, -1, -1, -1, -1, -1)
    for name in windows:
        assert sorted(rows[name]) == sorted(rows["= relative"]) and rows[name] != rows["= relative"]
    assert all(rows["attn.q"][i] > 0.5 for i in (0, 1, 7)) and all(rows["ffn.up"][i] < -0.5 for i in (3, 4, 5))
    table = {row[0]: row[1:] for row in result.tables[0].rows}
    assert table["relative (written)"][0] == table["relative (written)"][1] and table["relative (written)"][3] == 1.0
    assert table["paper's default"][:2] == (1.0, 1.0) and table["soup"][1] == table["soup"][2]
    assert {"sign", "cosine"} <= set(table)
    assert "Weights alone cannot tell" in result.caveats[0] and result.summary[0].startswith("Rule relative, the one published rule")
    assert Result.from_json(json.loads(json.dumps(result.to_json(), allow_nan=False))) == result
    assert {"relative", "sign", "cosine"} == set(result.data["proposals"])


def test_a_proposal_that_has_no_other_place_has_no_random_windows(tmp_path, trio):
    rows = auto(tmp_path / "out", trio, tau=100.0).maps[0].rows
    assert not [r for r in rows if r.startswith("random")] and "= relative" in rows


@pytest.mark.parametrize("family", make.FAMILIES)
def test_every_family_with_its_norms(tiny, tmp_path, family):
    """By part: each tensor is the language's, the task's or half of both as its module is, and the merge loads."""
    base, task, language = tiny(family, layers=4), tiny(family, layers=4, seed=1, noise=0.02), tiny(family, layers=4, seed=2, noise=0.2)
    trio = {"task": task, "language": language, "base": base}
    result = auto(tmp_path / "out", trio, by="part", tau=0.0)  # the shares add up to 1, so both experts have some
    got, one, two = raw(tmp_path / "out"), raw(task), raw(language)
    made, first, second = read(tmp_path / "out"), read(task), read(language)
    weights = resolve(base).weights
    anatomy = Anatomy.of(weights.config, weights.tensors)
    layers = result.data["proposals"]["relative"]["layers"]
    assert {s for kind in layers.values() for s in kind} >= {0.0, 1.0}
    for key, part in anatomy.parts.items():
        share = 0.5
        if part.layer is not None and part.kind in ("attn", "ffn", "norm"):
            owner = part.kind if part.kind != "norm" else norm_owner(anatomy, key)
            both = [layers[kind][part.layer] for kind in (("attn", "ffn") if owner == "both" else (owner,))]
            share = sum(both) / len(both)
        if share in (0.0, 1.0) and part.kind != "outside":
            assert got[key] == (two if share else one)[key], key
        elif part.kind not in ("position", "outside"):
            assert np.allclose(made[key], (1 - share) * first[key] + share * second[key], atol=1e-6), key
    assert np.isfinite([v for m in result.maps for row in m.values for v in row if v is not None]).all()


OWNERS = {"llama": {"input": "attn", "post_attn": "ffn"}, "gemma2": {"input": "attn", "post_attn": "attn", "pre_ffn": "ffn", "post_ffn": "ffn"},
          "olmo2": {"post_attn": "attn", "post_ffn": "ffn", "q": "attn", "k": "attn"}, "cohere": {"input": "both"},
          "falcon": {"input": "attn", "pre_ffn": "ffn"}, "gpt_neox": {"input": "attn", "post_attn": "ffn"},
          "gpt2": {"input": "attn", "post_attn": "ffn"}, "opt": {"input": "attn", "post_attn": "ffn"},
          "qwen3": {"input": "attn", "q": "attn", "k": "attn", "post_attn": "ffn"}}  # fmt: skip


@pytest.mark.parametrize("family", OWNERS)
def test_a_norm_goes_with_the_module_that_it_serves(tiny, family):
    weights = resolve(tiny(family, layers=2)).weights
    anatomy = Anatomy.of(weights.config, weights.tensors)
    found = {p.role: norm_owner(anatomy, k) for k, p in anatomy.parts.items() if p.kind == "norm" and p.layer == 1}
    assert found == OWNERS[family]


# --------------------------------------------------------------------------------------------------------------- adapters


def test_an_adapters_change_is_exact_where_its_merge_would_round_it_away(tmp_path):
    base = llama(tmp_path / "base", layers=LORA_LAYERS, dtype="BF16")
    one = with_base(resolve(lora(tmp_path / "one", 1, alpha=4e-5)), resolve(base))
    key = "model.layers.0.self_attn.q_proj.weight"
    pair = one.adapter.pairs[key.removesuffix(".weight")]
    a, b = (one.adapter.f32(k).astype(np.float64).reshape(one.adapter.tensors[k].shape) for k in (pair.a, pair.b))
    wanted = pair.scale * b @ a
    w = resolve(base).weights.f32(key).astype(np.float64).reshape(wanted.shape)
    got = exact(one).f32(key).reshape(wanted.shape) - w
    rounded = one.weights.f32(key).reshape(wanted.shape) - w
    assert np.abs(got - wanted).max() < 2e-8 and np.count_nonzero(rounded) < 0.1 * rounded.size
    wide = Widened(one.weights)
    assert wide.read_range(key, 6, 23) == wide.read(key)[6:23] and len(wide.read(key)) == wide.info(key).nbytes


@pytest.mark.parametrize("space", ["weights", "adapter"])
def test_adapters_as_experts(tmp_path, space):
    """Adapters that change attention and one FFN matrix: layers 0 and 5 strong in the language's, 1 to 4 in the task's."""
    base = llama(tmp_path / "base", layers=LORA_LAYERS, dtype="F32")
    loud = {"one": {1, 2, 3, 4}, "two": {0, 5}}
    for seed, (name, layers) in enumerate(loud.items()):
        at = lora(tmp_path / name, seed, alpha=1e-3 * 100**seed)
        tensors = {k: v.astype(np.float32) * (1.0 if "lora_A" in k or int(k.split(".")[4]) in layers else 0.1)
                   for k, v in ((k, resolve(at).adapter.f32(k).reshape(t.shape)) for k, t in resolve(at).adapter.tensors.items())}  # fmt: skip
        arrays.write(at / "adapter_model.safetensors", tensors, {"format": "pt"})
    trio = {"task": tmp_path / "one", "language": tmp_path / "two", "base": base}
    result = auto(tmp_path / "out", trio, shape="window", space=space)
    made = result.data["proposals"]["relative, window"]["layer"]
    assert (made["bottom"], made["top"]) == (1, 1)
    wanted = merge.swap(out=tmp_path / "wanted", **trio, bottom=1, top=1, transition=0, space=space)
    name = "adapter_model.safetensors" if space == "adapter" else "model.safetensors"
    assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "wanted" / name).read_bytes() and wanted.summary


# --------------------------------------------------------------------------------------------------------------- evidence


def found_neurons(folder, counts, layers=LAYERS, name="sw", sizes=24):
    folder.mkdir()
    entries = [Entry(i, "ffn", "neuron", np.arange(n)) for i, n in enumerate(counts) if n]
    selectionfile.write(folder / "selection.json", {name: entries, "random.sw": entries[::-1]})
    data = {"layers": layers, "neurons": sizes, "sizes": [sizes] * layers}
    (folder / "result.json").write_text(json.dumps({"step": "analyze.neurons", "layers": layers, "data": data}))
    return folder


def found_deviation(folder, curve, noise=0.0, chosen=(0,)):
    folder.mkdir()
    arrays.write(folder / "deviation.safetensors", {"msd": np.array(curve, float), "msd.noise": np.full(len(curve), noise)})
    selectionfile.write(folder / "selection.json", {"chosen": [Entry(i, "ffn", "up") for i in chosen], "all": [Entry(0, "ffn", "up")]})
    data = {"layers": len(curve), "neurons": [24] * len(curve)}
    (folder / "result.json").write_text(json.dumps({"step": "analyze.deviation", "data": data}))
    return folder


def layers_of(result):
    (own,) = [p for p in result.data["proposals"].values() if p["rule"] in ("neurons", "deviation")]
    return own["layers"]["ffn"]


def test_layers_where_neurons_concentrate_are_the_languages(tmp_path, trio):
    found_neurons(tmp_path / "n", [9, 5, 0, 0, 1, 0, 0, 3])
    result = auto(tmp_path / "out", trio, rule="neurons", evidence=f"{tmp_path / 'n'}:sw")
    assert layers_of(result) == [1, 1, 0, 0, 0, 0, 0, 1] and "18 of 192 FFN neurons" in result.summary[1]
    assert result.curves[0].series["evidence"][0] == pytest.approx(9 / 18 * 8)
    alone = tmp_path / "alone.json"
    alone.write_text((tmp_path / "n/selection.json").read_text())
    again = auto(tmp_path / "again", trio, rule="neurons", evidence=f"{alone}:sw")
    assert layers_of(again) == layers_of(result)


def test_layers_that_deviate_or_were_chosen_for_it(tmp_path, trio):
    found_deviation(tmp_path / "d", [5, 3, 1.5, 1, 1, 1, 1, 4], noise=1.0, chosen=(1, 2))
    curve = auto(tmp_path / "curve", trio, rule="deviation", evidence=tmp_path / "d")
    assert layers_of(curve) == [1, 1, 0, 0, 0, 0, 0, 1]
    chosen = auto(tmp_path / "chosen", trio, rule="deviation", evidence=f"{tmp_path / 'd'}:chosen", shape="window")
    assert layers_of(chosen) == [1, 1, 1, 0, 0, 0, 0, 0]


def test_the_plan_shows_what_evidence_proposes_and_reads_headers_otherwise(tmp_path, trio):
    found_neurons(tmp_path / "n", [9, 5, 0, 0, 1, 0, 0, 3])
    context = Context(resolve, Path, planning=True)
    own = {k: str(v) for k, v in trio.items()}
    told = steps.plan(Auto(**own, rule="neurons", evidence=f"{tmp_path / 'n'}:sw"), context)
    assert any("Layers 0-1, 7 (3 of 8): from sw." in line for line in told.lines) and told.maps[0].values[0][:3] == (1, 1, 0)
    silent = steps.plan(Auto(**own), context)
    assert "the paper's default" in silent.notes[-1] and silent.peak_bytes > 40 << 20 and silent.read_bytes > 0


def test_a_recipe_takes_evidence_from_an_earlier_step(tmp_path, trio, tiny):
    from polygraft import recipe
    from polygraft.steps import TABLE

    text = f"""recipe: 1
models: {{math: {trio['task']}, sw: {trio['language']}, base: {trio['base']}}}
steps:
- id: who
  use: analyze.neurons@1
  model: base
  corpus: {{sw: {tmp_path / 'sw.txt'}, en: {tmp_path / 'en.txt'}}}
- id: graft
  use: merge.auto@1
  task: math
  language: sw
  base: base
  rule: neurons
  evidence: who:sw
"""
    for name in ("sw", "en"):
        (tmp_path / f"{name}.txt").write_text("a b c\n" * 50)
    (tmp_path / "r.yaml").write_text(text)
    planned = recipe.plan(recipe.read_recipe(tmp_path / "r.yaml", TABLE), tmp_path / "runs")
    graft = planned.steps[-1]
    assert graft.use == "merge.auto@1" and not graft.errors and any("`who` has not run yet" in n for n in graft.plan.notes)
    assert graft.plan.like is not None and graft.plan.disk_bytes > 0


def test_experts_that_steps_have_yet_to_train_are_not_one_model(tmp_path, trio):
    from polygraft import recipe
    from polygraft.steps import TABLE

    training = "use: tune.sft@1\n  model: base\n  method: full\n  steps: 1\n  length: 64\n  data:"
    (tmp_path / "r.yaml").write_text(f"""recipe: 1
models: {{base: {trio['base']}}}
steps:
- id: math
  {training} ["problems:en?n=20&seed=1"]
- id: sw
  {training} ["problems:es?n=20&seed=2"]
- {{id: graft, use: merge.auto@1, task: math, language: sw, base: base}}
- {{id: same, use: merge.auto@1, task: base, language: sw, base: base}}
""")
    graft, same = recipe.plan(recipe.read_recipe(tmp_path / "r.yaml", TABLE), tmp_path / "runs").steps[2:]
    assert not graft.errors and not any("same model" in n for n in graft.plan.notes)
    assert "the task expert and the base are the same model" in str(same.errors[0])


def test_neither_torch_nor_transformers_is_imported(trio, tmp_path):
    code = f"""import sys; from polygraft.cli import run
run(["merge", "auto", "--task", {str(trio['task'])!r}, "--language", {str(trio['language'])!r}, "--base", {str(trio['base'])!r}, "--out", {str(tmp_path / 'o')!r}])
print(sorted({{"torch", "transformers", "scipy"}} & set(sys.modules)))"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip().endswith("[]") and (tmp_path / "o/model.safetensors").is_file()


def test_spans():
    assert spans([0, 1, 2, 4, 6, 7]) == "0-2, 4, 6-7" and spans([]) == ""


@pytest.mark.parametrize(("options", "words"), [
    ({"rule": "neurons"}, "needs evidence"),
    ({"evidence": "x:sw"}, "asks the weights alone"),
    ({"rule": "neurons", "evidence": "x:sw", "by": "part"}, "nothing of attention"),
    ({"tau": 0.1, "tau_absolute": 0.001}, "in place of tau"),
    ({"rule": "cosine", "tau_absolute": 0.001}, "one of the rule `relative`"),
    ({"tau": -1.0}, "tau"), ({"alpha": 1.5}, "alpha"), ({"rule": "relativ"}, "rule"), ({"tau": float("nan")}, "tau"),
])  # fmt: skip
def test_options_that_do_not_go_together(tmp_path, trio, options, words):
    with pytest.raises(RecipeError, match=words):
        auto(tmp_path / "out", trio, **options)
    assert not (tmp_path / "out").exists()


def test_tied_embeddings_take_one_policy(tmp_path):
    for name, more in (("base", {}), ("math", {"seed": 1, "noise": 0.01}), ("sw", {"seed": 2, "noise": 0.01})):
        llama(tmp_path / name, tied=True, dtype="F32", **more)
    trio = {"task": tmp_path / "math", "language": tmp_path / "sw", "base": tmp_path / "base"}
    with pytest.raises(RecipeError, match="ties its embedding and head"):
        auto(tmp_path / "out", trio, embed="task", head="language")
    auto(tmp_path / "out", trio, head="language")
    assert raw(tmp_path / "out")["model.embed_tokens.weight"] == raw(tmp_path / "sw")["model.embed_tokens.weight"]
    with pytest.raises(RecipeError, match="the output folder is not empty"):
        auto(tmp_path / "out", trio)
