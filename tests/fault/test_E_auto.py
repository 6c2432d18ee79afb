"""Group E, sources that say nothing about layers, and evidence of another model: refused in a sentence, and nothing is written."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import polygraft as pg
from folders import config, llama, shapes, values, write
from polygraft import arrays, selectionfile
from polygraft.errors import UserError
from polygraft.selectionfile import Entry

pytestmark = pytest.mark.group("E")
LAYERS = 4
UP = "model.layers.{}.mlp.up_proj.weight"


@pytest.fixture
def trio(tmp_path):
    for name, more in (("base", {}), ("math", {"seed": 1, "noise": 0.01}), ("sw", {"seed": 2, "noise": 0.01})):
        llama(tmp_path / name, layers=LAYERS, dtype="F32", **more)
    return {"task": tmp_path / "math", "language": tmp_path / "sw", "base": tmp_path / "base"}


def refused(trio, words, out, code=3, **options):
    with pytest.raises(UserError, match=words) as caught:
        pg.choose.auto.merge(out=out, **(trio | options))
    assert caught.value.exit_code == code and caught.value.what.count("\n") == 0
    assert not out.exists() and not list(out.parent.glob("*.partial*"))


def copied(trio, role, of):
    """The files of one model in another folder: another identity, the same content."""
    shutil.rmtree(trio[role])
    shutil.copytree(trio[of], trio[role])
    (trio[role] / "config.json").write_text(json.dumps(config(layers=LAYERS) | {"note": role}))
    return {}


def rewritten(trio, role, change, base=None):
    """A model whose tensors are the base's but for what `change(key, value)` does."""
    tensors = values(shapes(layers=LAYERS), 0) if base is None else base
    shutil.rmtree(trio[role])
    write(trio[role], {k: change(k, v.copy()) for k, v in tensors.items()}, config(layers=LAYERS), dtype="F32")
    return {}


def zeroed(trio):
    """A base with an up that is all zero, and a language expert that changed nothing else."""
    base = {k: np.zeros_like(v) if k == UP.format(1) else v for k, v in values(shapes(layers=LAYERS), 0).items()}
    rewritten(trio, "base", lambda k, v: v, base)
    return rewritten(trio, "language", lambda k, v: v + 1 if k == UP.format(1) else v, base)


MODELS = {
    "the task expert is the base": (lambda t: {"task": t["base"]}, "the task expert and the base are the same model"),
    "the language expert is the base": (lambda t: {"language": t["base"]}, "the language expert and the base are the same model"),
    "both experts are one": (lambda t: {"language": t["task"]}, "the task expert and the language expert are the same model"),
    "a copy of the base": (lambda t: copied(t, "language", "base"), "the language expert equals the base in every tensor"),
    "a copy of the other expert": (lambda t: copied(t, "language", "task"), "changed the base alike in every layer"),
    "only the embedding changed": (lambda t: rewritten(t, "task", lambda k, v: v + ("embed" in k)),
                                   "the task expert equals the base in every weight matrix of its layers"),
    "only norms changed": (lambda t: rewritten(t, "language", lambda k, v: v + ("norm" in k)), "in every weight matrix"),
    "only what is 0 in the base changed": (zeroed, "changed only matrices that are 0 in the base"),
    "a number that is not finite": (lambda t: rewritten(t, "task", lambda k, v: v * np.float32("nan") if k == UP.format(2) else v),
                                    "not finite"),
    "a base of another depth": (lambda t: {"base": llama(t["base"].parent / "deep", layers=6, dtype="F32")}, "not trained from this base"),
    "a base of another width": (lambda t: {"base": llama(t["base"].parent / "wide", layers=4, ffn=32, dtype="F32")},
                                "not trained from this base"),
    "an expert of another width": (lambda t: {"language": llama(t["base"].parent / "wide", layers=4, ffn=32, dtype="F32")},
                                   "not trained from this base"),
    "no such base": (lambda t: {"base": t["base"].parent / "nowhere"}, "no such|not found|does not exist|nothing"),
    "a base in another number format": (lambda t: {"base": llama(t["base"].parent / "half", layers=4)}, "the models differ"),
    "a quantised expert": (lambda t: {"task": llama(t["base"].parent / "q", layers=4, dtype="F32",
                                                    change={"quantization_config": {"quant_method": "gptq"}})}, "quantised"),
    "another positional encoding": (lambda t: {"task": llama(t["base"].parent / "r", layers=4, dtype="F32", seed=1, noise=0.1,
                                                             change={"rope_theta": 5e5})}, "the models differ"),
}  # fmt: skip


@pytest.mark.parametrize("case", MODELS)
def test_models_that_cannot_tell_are_refused(tmp_path, trio, case):
    make, words = MODELS[case]
    refused(trio | make(trio), words, tmp_path / "out")


@pytest.mark.parametrize("name", ["base", "task", "language"])
def test_a_model_that_is_not_named_is_missed(tmp_path, trio, name):
    with pytest.raises(UserError, match=f"{name}: Field required") as caught:
        pg.choose.auto.merge(out=tmp_path / "out", **{k: v for k, v in trio.items() if k != name})
    assert caught.value.exit_code == 2


def selection(folder, entries, layers=LAYERS, sizes=24, about="analyze.neurons", name="sw"):
    folder.mkdir()
    selectionfile.write(folder / "selection.json", {name: entries})
    data = {"layers": layers, "neurons": sizes, "sizes": [sizes] * layers}
    (folder / "result.json").write_text(json.dumps({"step": about, "data": data}))
    return folder


def bare(folder, entries):
    selection(folder, entries)
    (folder / "result.json").unlink()
    return folder


def deviated(folder, curve, name="msd"):
    folder.mkdir()
    arrays.write(folder / "deviation.safetensors", {name: np.array(curve, dtype=np.float64)})
    return folder


ROWS = np.arange(3)
EVIDENCE = {  # what it is -> (rule, evidence of a folder, words)
    "neurons of a deeper model": ("neurons", lambda f: selection(f, [Entry(1, "ffn", "neuron", ROWS)], layers=9), "another depth"),
    "neurons of a shallower model": ("neurons", lambda f: selection(f, [Entry(1, "ffn", "neuron", ROWS)], layers=2), "another depth"),
    "neurons of a wider model": ("neurons", lambda f: selection(f, [Entry(1, "ffn", "neuron", ROWS)], sizes=99), "other neurons"),
    "a layer beyond, nothing else known": ("neurons", lambda f: bare(f, [Entry(7, "ffn", "neuron", ROWS)]), "no such layer"),
    "a neuron beyond, nothing else known": ("neurons", lambda f: bare(f, [Entry(1, "ffn", "neuron", ROWS + 40)]), "beyond the tensor"),
    "not neurons": ("neurons", lambda f: bare(f, [Entry(1, "attn", "q", ROWS)]), "not FFN neurons"),
    "no neurons": ("neurons", lambda f: bare(f, []), "names no layer"),
    "a chosen layer beyond": ("deviation", lambda f: f"{bare(f, [Entry(7, 'ffn', 'up')])}:sw", "a layer beyond the model's"),
    "a deviation of a deeper model": ("deviation", lambda f: deviated(f, np.ones(9)), "another depth"),
    "a deviation that is 0 everywhere": ("deviation", lambda f: deviated(f, np.zeros(4)), "names no layer"),
    "a deviation that is not finite": ("deviation", lambda f: deviated(f, [1, np.nan, 1, 1]), "not finite"),
    "arrays of something else": ("deviation", lambda f: deviated(f, np.ones(4), "entropy"), "no deviation is kept"),
    "a folder of neurons for a deviation": ("deviation", lambda f: selection(f, [Entry(1, "ffn", "neuron", ROWS)]), "no deviation is kept"),
}  # fmt: skip


@pytest.mark.parametrize("case", EVIDENCE)
def test_evidence_that_does_not_fit_is_refused(tmp_path, trio, case):
    rule, make, words = EVIDENCE[case]
    refused(trio, words, tmp_path / "out", rule=rule, evidence=make(tmp_path / "evidence"))


def test_a_selection_that_is_not_there(tmp_path, trio):
    folder = selection(tmp_path / "evidence", [Entry(1, "ffn", "neuron", ROWS)])
    refused(trio, "no selection of this name", tmp_path / "out", code=2, rule="neurons", evidence=f"{folder}:th")
    refused(trio, "no such file|cannot be read|nothing", tmp_path / "out", rule="neurons", evidence=f"{tmp_path / 'nowhere'}:sw")
