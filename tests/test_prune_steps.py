"""The verb `prune`: what it writes and says, for every family; what it refuses; plans; the group of verbs that it is."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil

import numpy as np
import pytest

import tiny as make
from polygraft import cli, files
from polygraft.blocks import Blocks
from polygraft.prune.config import Masking
from polygraft.prune.writing import Masks
from polygraft.recipe import plan_step, run_step
from polygraft.result import Result
from polygraft.sources import resolve
from pruned import STEP, configured, masks, modules, pruned, tensors
from reload import assert_reloads


@pytest.mark.group("P")
@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
@pytest.mark.parametrize("family", make.FAMILIES)
def test_every_family_is_written_dense_with_its_masks_and_loads(tiny, tmp_path, family, method):
    model = tiny(family)
    out, result = pruned(model, tmp_path, method=method)
    before, after, keep, told = tensors(model), tensors(out), masks(out), modules(out)
    assert keep.keys() == told.keys() and before.keys() == after.keys() and len(keep) >= 8
    for key, mask in keep.items():
        assert not after[key][~mask].any() and abs((~mask).mean() - 0.5) < 0.02
        assert told[key]["zeros"] == (after[key] == 0).sum() and told[key]["sparsity"] == pytest.approx((after[key] == 0).mean())
        assert told[key]["pruned"] == (~mask).sum() and 0 < told[key]["error"] < 1
        if method == "wanda":
            assert (before[key][mask] == after[key][mask]).all()
    for key in before.keys() - keep.keys():
        assert before[key].tobytes() == after[key].tobytes()
    assert_reloads(out)
    assert files.verify_folder(out) == [] and result.data["modules"] == told


def test_an_output_head_bias_and_an_untied_head_stay(tiny, tmp_path):
    model = tiny("llama", layers=3, dtype="bfloat16", shard="20KB")
    out, _ = pruned(model, tmp_path, dtype="auto")
    a, b = resolve(str(model)).weights, resolve(str(out)).weights
    assert a.read("lm_head.weight") == b.read("lm_head.weight") and a.config == b.config
    assert b.tensors["model.layers.0.mlp.up_proj.weight"].dtype == "BF16" and b.warnings == ()


def test_the_digest_of_the_masks_is_that_of_their_content(tiny, tmp_path):
    out, result = pruned(tiny("llama"), tmp_path)
    packed = {k: np.packbits(m.ravel(), bitorder="little") for k, m in masks(out).items()}
    each = {k: hashlib.sha256(v.tobytes()).hexdigest() for k, v in packed.items()}
    assert result.data["masks"]["sha256"] == Masks(out).digest == files.digest(each)
    assert all((Masks(out)[k] == m).all() for k, m in masks(out).items())


def test_the_result_is_drawn_and_comes_back_from_its_file(tiny, tmp_path):
    out, result = pruned(tiny("llama"), tmp_path)
    stored = json.loads((out / "result.json").read_text())
    assert Result.from_json(stored).data == result.data and "NaN" not in json.dumps(stored)
    assert {m.title for m in result.maps} == {"Weights that went", "Relative error of each matrix' output"}
    assert result.maps[0].values[0] == (0.5, 0.5) and result.maps[0].layers == 2
    assert {r.name for r in result.inputs} == {"model", "en", "sw"} and all(r.digest for r in result.inputs[1:])
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["calibration"]["languages"]["sw"]["windows"] == 2 and manifest["masks"] == result.data["masks"]
    assert any("no runtime" in c for c in result.caveats)


def test_the_same_command_gives_the_same_bytes_and_another_seed_others(tiny, tmp_path):
    digests = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        out, _ = pruned(tiny("llama"), tmp_path / name, seed=seed)
        digests.append(((out / "model.safetensors").read_bytes(), (out / "masks.safetensors").read_bytes()))
    assert digests[0] == digests[1] and digests[0] != digests[2]


def test_what_a_language_reads_decides_what_stays(tiny, tmp_path):
    """Shares of 0 are those of a language that is not there; other shares give other masks."""
    found = []
    for i, shares in enumerate([{"en": 1.0, "sw": 0.0}, {"en": 0.0, "sw": 1.0}, {"en": 0.5, "sw": 0.5}]):
        (tmp_path / str(i)).mkdir()
        out, result = pruned(tiny("llama"), tmp_path / str(i), calibrate=shares)
        assert list(result.data["calibration"]["languages"]) == [g for g, s in shares.items() if s]
        found.append(masks(out))
    differ = [sum(int((a[k] != b[k]).sum()) for k in a) for a, b in ((found[0], found[1]), (found[0], found[2]))]
    assert differ[0] > 0 and differ[1] > 0


def test_an_adapter_is_pruned_as_its_merge_would_be(tiny, tmp_path):
    from peft import LoraConfig, get_peft_model

    from polygraft.model import load_folder

    grown = get_peft_model(load_folder(tiny("llama")).model, LoraConfig(r=2, target_modules=["up_proj"], init_lora_weights=False))
    grown.peft_config["default"].base_model_name_or_path = str(tiny("llama"))
    grown.save_pretrained(tmp_path / "adapter")
    out, _ = pruned(tmp_path / "adapter", tmp_path)
    merged = resolve(str(tmp_path / "adapter"), base=str(tiny("llama"))).weights
    after, key = tensors(out), "model.layers.1.mlp.up_proj.weight"
    keep, expected = masks(out)[key], merged.f32(key).reshape(after[key].shape)
    assert (after[key][keep] == expected[keep]).all() and (tensors(tiny("llama"))[key][keep] != expected[keep]).all()
    assert_reloads(out)


def test_in_a_recipe_a_pruned_model_is_pruned_further(tiny, tmp_path):
    """Steps name one another; what was zero stays zero, and leftovers of the work do not lie beside the model."""
    from polygraft.recipe import parse_recipe, run
    from polygraft.steps import TABLE

    configured(tiny("llama"), tmp_path)
    text = f"""
recipe: 1
name: twice
steps:
- {{id: half, use: prune@1, model: {tiny("llama")}, corpus: {{sw: sw.txt}}, samples: 2, seq_len: 32}}
- {{id: more, use: prune@1, model: half, corpus: {{sw: sw.txt}}, samples: 2, seq_len: 32, sparsity: 0.75, method: magnitude}}
"""
    done = run(parse_recipe(text, TABLE, folder=tmp_path), tmp_path / "runs")
    half, more = (next((tmp_path / "runs").rglob(f"{id}-*/model")) for id in ("half", "more"))
    first, second = masks(half), masks(more)
    assert all((first[k] | ~second[k]).all() and (~second[k]).mean() == 0.75 for k in first) and done.ran == ("half", "more")
    assert sorted(p.name for p in half.parent.iterdir()) == ["manifest.json", "model", "result.json"]
    assert files.verify_folder(half) == [] == files.verify_folder(half.parent)


@pytest.mark.parametrize("allocate", ["owl", "across", "worst"])
def test_allocation_moves_sparsity_between_layers_and_keeps_the_whole(tiny, tmp_path, allocate):
    model = tmp_path / "model"
    shutil.copytree(tiny("llama", layers=3), model)
    loud = tensors(model)
    loud["model.layers.1.mlp.up_proj.weight"][:2] *= 100  # outliers: layer 1 should keep more
    from safetensors.numpy import save_file

    save_file(loud, model / "model.safetensors", metadata={"format": "pt"})
    out, result = pruned(model, tmp_path, allocate=allocate)
    layers = result.data["layers"]
    assert layers[1] == min(layers) and layers[1] < max(layers) and max(layers) - min(layers) <= 0.16 + 1e-9
    gone, size = (sum(m[n] for m in modules(out).values()) for n in ("pruned", "size"))
    assert gone / size == pytest.approx(0.5, abs=0.02)
    assert [c.title for c in result.curves] == ["How sparse each layer became", "Outliers among each layer's scores"]


@pytest.mark.parametrize("allocate", ["owl", "worst"])
def test_allocation_reads_more_text_than_memory_has_room_for(tiny, tmp_path, monkeypatch, allocate):
    _, plenty = pruned(tiny("llama"), tmp_path, allocate=allocate)
    monkeypatch.setattr(Blocks, "open", functools.partial(Blocks.open, limit=0))
    (tmp_path / "little").mkdir()
    _, little = pruned(tiny("llama"), tmp_path / "little", allocate=allocate)
    assert little.data["layers"] == plenty.data["layers"] and little.data["masks"] == plenty.data["masks"]


def test_swaps_make_the_error_smaller_at_the_same_sparsity(tiny, tmp_path):
    results = []
    for swaps in (0, 10):
        (tmp_path / str(swaps)).mkdir()
        results.append(modules(pruned(tiny("llama"), tmp_path / str(swaps), swaps=swaps)[0]))
    first = [k for k in results[0] if ".layers.0." in k and "q_proj" in k]  # behind it the texts' states differ
    assert all(results[1][k]["error"] < results[0][k]["error"] and results[1][k]["pruned"] == results[0][k]["pruned"] for k in first)


def test_magnitude_needs_no_text(tiny, tmp_path):
    out, result = pruned(tiny("llama"), tmp_path, method="magnitude", corpus={}, pattern="1:4")
    assert all(m["error"] is None and m["sparsity"] == 0.75 for m in modules(out).values())
    assert all((mask.reshape(-1, 4).sum(1) == 1).all() for mask in masks(out).values())
    assert result.data["calibration"] is None and len(result.maps) == 1


def test_a_finished_pruning_is_not_done_again_and_another_is_refused(tiny, tmp_path):
    out, _ = pruned(tiny("llama"), tmp_path)
    stamp = (out / "model.safetensors").stat().st_mtime_ns
    run_step(STEP, configured(tiny("llama"), tmp_path), out)
    assert (out / "model.safetensors").stat().st_mtime_ns == stamp
    with pytest.raises(Exception, match="not empty"):
        run_step(STEP, configured(tiny("llama"), tmp_path, sparsity=0.6), out)


def test_the_plan_tells_matrices_text_and_memory_without_torch(tiny, tmp_path):
    planned = plan_step(STEP, configured(tiny("llama"), tmp_path))
    assert planned.errors == () and "7,680 of 15,360 weights in 14 matrices" in planned.plan.lines[0]
    assert "en 2, sw 2" in planned.plan.lines[1] and planned.plan.peak_bytes > 0
    assert planned.plan.disk_bytes >= sum(p.stat().st_size for p in tiny("llama").glob("*.safetensors"))
    bad = plan_step(STEP, configured(tiny("llama"), tmp_path, pattern="3:5", seq_len=4096))
    assert len(bad.errors) >= 2 and any("multiple of 5" in str(e) for e in bad.errors)


def test_the_config_names_what_does_not_go_together(tmp_path):
    for more, said in [
        ({"method": "wanda", "corpus": {}}, "reads text"), ({"pattern": "2:4", "sparsity": 0.6}, "disagree"),
        ({"calibrate": {"de": 1.0}}, "no corpus"), ({"calibrate": {"en": -1.0, "sw": 2.0}}, "below 0"),
        ({"calibrate": {"en": 0.0, "sw": 0.0}}, "are 0"), ({"method": "sparsegpt", "swaps": 3}, "leave weights as they are"),
        ({"allocate": "owl", "pattern": "2:4"}, "no pattern"), ({"damping": 0.1}, "sparsegpt's alone"), ({"pattern": "5:4"}, "pattern"),
        ({"sparsity": 1.5}, "less than or equal to 1"), ({"method": "wnda"}, "wanda"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=said):
            configured(tmp_path / "m", tmp_path, **more)
    assert Masking(model="m", corpus={"en": "x"}, pattern="1:4").asked.sparsity == 0.75


# ---------------------------------------------------------------------------------------------------- a group that is a verb


def test_the_first_word_decides_between_the_verb_and_those_it_holds(capsys, monkeypatch, tmp_path):
    import click

    from polygraft.cli.group import VerbItself

    said = []

    def load(name):
        return click.Command(name, callback=lambda **given: said.append((name, given)), params=[
            click.Argument(["model"], required=False), click.Option(["--n"], type=int)])

    group = VerbItself({"": ("own", "itself"), "study": ("study", "a study")}, load, {}, name="prune")
    root = click.Group("polygraft", commands={"prune": group})
    monkeypatch.chdir(tmp_path)
    for args in (["m", "--n", "2"], ["--n", "2", "m"], ["study", "m"], ["./stduy"], ["study/x"]):
        root.main(["prune", *args], standalone_mode=False)
    assert [name for name, _ in said] == ["own", "own", "study", "own", "own"] and said[0][1] == said[1][1]
    with pytest.raises(click.UsageError, match="did you mean `study`"):
        root.main(["prune", "stduy", "m"], standalone_mode=False)
    (tmp_path / "stduy").mkdir()
    root.main(["prune", "stduy"], standalone_mode=False)
    assert said[-1] == ("own", {"model": "stduy", "n": None})
    root.main(["prune", "--help"], standalone_mode=False)
    out = capsys.readouterr().out
    assert "prune [OPTIONS] [MODEL]" in out and "prune study: a study" in out


def test_the_verb_from_the_command_line(tiny, tmp_path, capsys, monkeypatch):
    configured(tiny("llama"), tmp_path)
    monkeypatch.chdir(tmp_path)
    words = ["prune", str(tiny("llama")), "--corpus", "sw=sw.txt", "--corpus", "en=en.txt", "--calibrate", "sw=0.75,en=0.25",
             "--samples", "4", "--seq-len", "32", "--method", "ria", "--sparsity", "0.25", "--out", "small"]  # fmt: skip
    assert cli.run(words) == 0
    out = capsys.readouterr().out
    assert "ria at 0.25" in out and "use: prune@1" in out
    assert {m["sparsity"] for m in modules(tmp_path / "small").values()} == {0.25}
    assert cli.run(["prune", "--help"]) == 0 and "polygraft prune [OPTIONS] MODEL" in capsys.readouterr().out
