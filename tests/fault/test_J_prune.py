"""Group J: pruning at the edge of numbers and words. Every case ends in defined values or a refusal that names its place; never NaN."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from polygraft import cli
from polygraft.errors import UserError
from polygraft.recipe import run_step
from polygraft.result import Result
from pruned import STEP, configured, masks, modules, pruned, tensors

UP, DOWN, GATE = (f"model.layers.0.mlp.{name}_proj.weight" for name in ("up", "down", "gate"))
Q, OUT = (f"model.layers.0.self_attn.{name}_proj.weight" for name in "qo")
METHODS = ("magnitude", "wanda", "wanda-variant", "ria", "sparsegpt")


def changed(model: Path, root: Path, change: Callable[[dict[str, np.ndarray]], Any]) -> Path:
    """A copy of a model with other weights."""
    copy = root / "changed"
    shutil.copytree(model, copy)
    weights = tensors(model)
    change(weights)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


def checked(out: Path, result: Result) -> None:
    """No NaN anywhere, and every weight that the mask takes out is 0."""
    assert "NaN" not in (text := (out / "result.json").read_text()) and "Infinity" not in text
    after = tensors(out)
    for key, mask in masks(out).items():
        assert np.isfinite(after[key]).all() and not after[key][~mask].any()
    assert all(m["error"] is None or 0 <= m["error"] < 10 for m in result.data["modules"].values())


# ------------------------------------------------------------------------------------------------------------- odd numbers


def dead_columns(w):
    """Neurons that never fire: the down projection reads zeros there, and the Hessian's diagonal has zeros."""
    w[GATE][:5] = 0


def nothing_comes(w):
    """A norm of zeros: q, k and v read nothing at all, and their Hessian is zero."""
    w["model.layers.0.input_layernorm.weight"][:] = 0


def zero_matrix(w):
    w[UP][:] = 0


def all_equal(w):
    w[UP][:] = 0.25


def sixteen_levels(w):
    for key in (UP, DOWN, Q, OUT):
        w[key][:] = np.round(w[key] * 8) / 8


def one_huge_input(w):
    w["model.layers.0.input_layernorm.weight"][3] = 1e4


def collinear(w):
    """Inputs of the down projection that are copies of each other: a singular Hessian."""
    w[GATE][1::2], w[UP][1::2] = w[GATE][::2], w[UP][::2]


def tiny_weights(w):
    w[UP][:] *= 1e-30


NUMBERS = (dead_columns, nothing_comes, zero_matrix, all_equal, sixteen_levels, one_huge_input, collinear, tiny_weights)


@pytest.mark.group("J")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", NUMBERS, ids=lambda c: c.__name__)
def test_odd_weights_give_defined_results_at_the_asked_sparsity(tiny, tmp_path, case, method):
    out, result = pruned(changed(tiny("llama"), tmp_path, case), tmp_path, method=method)
    checked(out, result)
    for key, module in modules(out).items():
        assert module["pruned"] / module["size"] == pytest.approx(0.5, abs=0.02), key


@pytest.mark.group("J")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sparsity", [0.0, 1e-9, 0.999999, 1.0])
def test_all_or_nothing_may_go(tiny, tmp_path, sparsity, method):
    out, result = pruned(tiny("llama"), tmp_path, method=method, sparsity=sparsity)
    checked(out, result)
    before, after = tensors(tiny("llama")), tensors(out)
    for key, module in modules(out).items():
        if sparsity < 0.5:
            assert module["pruned"] == 0 and module["error"] == 0
            np.testing.assert_allclose(after[key], before[key], rtol=1e-6)
        elif sparsity == 1:
            assert not after[key].any() and module["sparsity"] == 1
            assert module["error"] == pytest.approx(1.0)


@pytest.mark.group("J")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pattern, kept", [("2:4", 2), ("1:4", 1), ("4:4", 4), ("1:16", 1), ("3:8", 3)])
def test_n_of_m_stay_in_every_group(tiny, tmp_path, method, pattern, kept):
    out, result = pruned(tiny("llama"), tmp_path, method=method, pattern=pattern)
    checked(out, result)
    group = int(pattern.partition(":")[2])
    assert all((mask.reshape(-1, group).sum(1) == kept).all() for mask in masks(out).values())


@pytest.mark.group("J")
def test_ties_go_by_the_lowest_index(tiny, tmp_path):
    """All scores equal in magnitude's eyes: the first ones of the matrix go; of every group, the first M - N."""
    model = changed(tiny("llama"), tmp_path, all_equal)
    for i, more in enumerate(({"sparsity": 0.5}, {"pattern": "2:4"})):
        (tmp_path / str(i)).mkdir()
        out, _ = pruned(model, tmp_path / str(i), method="magnitude", **more)
        mask = masks(out)[UP]
        if i == 0:
            assert not mask[: len(mask) // 2].any() and mask[len(mask) // 2 :].all()
        else:
            assert (mask.reshape(-1, 4) == [False, False, True, True]).all()


@pytest.mark.group("J")
def test_a_module_that_cannot_be_solved_is_named(tiny, tmp_path):
    """Nothing reaches q, k and v: they and what o reads (zeros) go by another rule, and the result says so."""
    out, result = pruned(changed(tiny("llama"), tmp_path, nothing_comes), tmp_path, method="sparsegpt")
    told = [c for c in result.caveats if "q_proj" in c]
    assert told and "4 matrices" in told[0] and modules(out)[Q]["note"]


@pytest.mark.group("J")
@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_an_expert_that_no_token_chose_is_pruned_and_named(tiny, tmp_path, family):
    """The router of layer 0 sends everything to the same two experts."""

    def one_way(w):
        key = next(k for k in w if "layers.0" in k and k.endswith(("gate.weight", "router.weight")))
        w[key][:] = 0  # equal logits: the first experts are chosen

    out, result = pruned(changed(tiny(family), tmp_path, one_way), tmp_path)
    checked(out, result)
    idle = {k: m for k, m in modules(out).items() if "layers.0" in k and "experts" in k and m.get("note")}
    assert len(idle) == 3 and all(m["sparsity"] == 0.5 and m["error"] is None for m in idle.values())
    assert any("no token reached it" in c for c in result.caveats)


# --------------------------------------------------------------------------------------------------------------- refusals


def nan_weight(w):
    w[UP][3, 4] = np.nan


def infinite_norm(w):
    w["model.layers.0.input_layernorm.weight"][0] = np.inf


@pytest.mark.group("J")
@pytest.mark.parametrize("case, said", [(nan_weight, "up_proj"), (infinite_norm, "input_layernorm")], ids=["weight", "norm"])
def test_numbers_that_are_none_are_refused_by_name(tiny, tmp_path, case, said):
    model = changed(tiny("llama"), tmp_path, case)
    with pytest.raises(UserError, match="not finite") as e:
        run_step(STEP, configured(model, tmp_path), tmp_path / "out")
    assert said in str(e.value) and not (tmp_path / "out").exists()


def corpus(root: Path, text: bytes, name: str = "bad.txt") -> dict[str, Any]:
    (root / name).write_bytes(text)
    return {"corpus": {"sw": str(root / name)}}


WRONG: dict[str, tuple[Callable[[Path], dict[str, Any]], str]] = {
    "a corpus that is not there": (lambda r: {"corpus": {"sw": str(r / "none.txt")}}, "no such"),
    "an empty corpus": (lambda r: corpus(r, b""), "bad.txt"),
    "blank lines alone": (lambda r: corpus(r, b"\n \n\n"), "bad.txt"),
    "too little text": (lambda r: corpus(r, b"habari ya leo"), "too short"),
    "text that is not UTF-8": (lambda r: corpus(r, b"\xff\xfa" * 4000), "UTF"),
    "a NUL in the text": (lambda r: corpus(r, b"abc\0" * 4000), "NUL"),
    "an object without text": (lambda r: corpus(r, b'{"body": "x"}\n' * 300, "bad.jsonl"), "`text`"),
    "a broken object": (lambda r: corpus(r, b'{"text": \n' * 300, "bad.jsonl"), "bad.jsonl:1"),
    "a kind of file that is no corpus": (lambda r: corpus(r, b"x" * 4000, "bad.csv"), "csv"),
    "windows longer than the model sees": (lambda r: {"seq_len": 4096}, "128"),
    "fewer windows than languages": (lambda r: {"samples": 1}, "windows"),
    "more windows than text": (lambda r: {"samples": 5000}, "too short"),
    "a pattern that does not divide": (lambda r: {"pattern": "3:5"}, "multiple of 5"),
    "groups wider than a row": (lambda r: {"pattern": "2:64"}, "multiple of 64"),
    "a model that is not there": (lambda r: {"model": str(r / "none")}, "none"),
    "a device that is not there": (lambda r: {"device": "cuda:7"}, "CUDA"),
    "a selection that is not there": (lambda r: {"protect": str(r / "none.json")}, "none.json"),
}


@pytest.mark.group("J")
@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_done_is_refused_and_leaves_nothing(tiny, tmp_path, case):
    make, said = WRONG[case]
    (tmp_path / "own").mkdir()
    asked = {"model": tiny("llama")} | make(tmp_path / "own")
    with pytest.raises(UserError) as e:
        run_step(STEP, configured(asked.pop("model"), tmp_path, **asked), tmp_path / "out")
    assert said in str(e.value) and e.value.exit_code in (2, 3) and not (tmp_path / "out").exists()


TYPED = {
    "an unknown method": (["--method", "wandda"], "did you mean `wanda`"),
    "sparsity above 1": (["--sparsity", "1.5"], "at most 1"),
    "sparsity below 0": (["--sparsity", "-0.1"], "at least 0"),
    "sparsity that is no number": (["--sparsity", "half"], "a number"),
    "sparsity NaN": (["--sparsity", ".nan"], "sparsity"),
    "a pattern that is none": (["--pattern", "2/4"], "N:M"),
    "0 of M": (["--pattern", "0:4"], "N:M"),
    "more kept than there are": (["--pattern", "5:4"], "N:M"),
    "pattern and sparsity": (["--pattern", "2:4", "--sparsity", "0.7"], "disagree"),
    "a share for no corpus": (["--calibrate", "de=1"], "no corpus"),
    "a share that is no number": (["--calibrate", "sw=much"], "a number"),
    "a share below 0": (["--calibrate", "sw=-1"], "below 0"),
    "no share at all": (["--calibrate", "sw=0"], "all shares"),
    "no samples": (["--samples", "0"], "at least 1"),
    "windows of one token": (["--seq-len", "1"], "at least 2"),
    "a language that is none": (["--corpus", "qqq=x.txt"], "language"),
    "a corpus without a language": (["--corpus", "x.txt"], "NAME=VALUE"),
    "a language twice": (["--corpus", "sw=x.txt"], "twice"),
    "swaps of what was changed": (["--method", "sparsegpt", "--swaps", "3"], "sparsegpt"),
    "damping without a Hessian": (["--damping", "0.1"], "sparsegpt"),
    "allocation of a pattern": (["--allocate", "owl", "--pattern", "2:4"], "N:M"),
    "protection and allocation": (["--allocate", "owl", "--protect", "auto"], "protect"),
    "no output": ([], "--out"),
}


@pytest.mark.group("J")
@pytest.mark.parametrize("case", TYPED)
def test_what_is_typed_wrong_exits_2_in_one_sentence(tiny, tmp_path, capsys, monkeypatch, case):
    configured(tiny("llama"), tmp_path)  # writes sw.txt
    monkeypatch.chdir(tmp_path)
    words, said = TYPED[case]
    out = ["--out", "small"] if case != "no output" else []
    assert cli.run(["prune", str(tiny("llama")), "--corpus", "sw=sw.txt", *words, *out]) == 2
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err and not (tmp_path / "small").exists()


@pytest.mark.group("J")
@pytest.mark.parametrize("change", [
    lambda p: p.write_bytes(p.read_bytes()[:-20]), lambda p: p.write_bytes(b""), lambda p: p.unlink(),
    lambda p: save_file({"a": np.zeros(3, np.uint8)}, p), lambda p: save_file({"a": np.zeros(3, np.uint8)}, p, metadata={"shapes": "{}"}),
    lambda p: save_file({"a": np.zeros(3, np.uint8)}, p, metadata={"shapes": json.dumps({"a": [100]})}),
    lambda p: save_file({"a": np.zeros(3, np.float32)}, p, metadata={"shapes": json.dumps({"a": [20]})}),
    lambda p: save_file({"a": np.zeros(3, np.uint8)}, p, metadata={"shapes": json.dumps({"a": ["x"]})}),
], ids=["cut", "empty", "gone", "no shapes", "other shapes", "wrong size", "wrong kind", "words"])  # fmt: skip
def test_a_file_of_masks_that_is_none_is_refused(tiny, tmp_path, change):
    from polygraft.prune.writing import Masks

    out, _ = pruned(tiny("llama"), tmp_path, method="magnitude", corpus={})
    change(out / "masks.safetensors")
    with pytest.raises(UserError, match=r"masks\.safetensors"):
        found = Masks(out)
        [found[key] for key in found]


@pytest.mark.group("J")
def test_a_disk_that_changed_the_model_is_noticed(tiny, tmp_path, monkeypatch):
    """Masks and weights are read again when they lie on the disk: one weight that came back stops the step."""
    from polygraft.prune import pruning

    real = pruning.verified

    def flipped(out, found, *more):
        weights = tensors(out)
        key = next(iter(found))
        weights[key][~masks(out)[key]] += 1e-3
        save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
        return real(out, found, *more)

    monkeypatch.setattr(pruning, "verified", flipped)
    with pytest.raises(UserError, match="not as it was pruned"):
        run_step(STEP, configured(tiny("llama"), tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.group("J")
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_as_many_zeros_in_other_groups_are_noticed(tiny, tmp_path, monkeypatch, family):
    """Model and masks agree and hold as many zeros as was told, but one lies in a group that has its own already."""
    from polygraft import arrays
    from polygraft.prune import pruning

    real = pruning.verified

    def moved(out, found, *more):
        weights, keep = tensors(out), masks(out)
        key = next(iter(found))
        w, k = (a[key].T if family == "gpt2" else a[key] for a in (weights, keep))  # views, [out, in]
        gone, stays = int(np.flatnonzero(~k[0, :4])[0]), 4 + int(np.flatnonzero(k[0, 4:8])[0])
        w[0, gone], w[0, stays], k[0, gone], k[0, stays] = 1.0, 0.0, True, False
        save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
        packed = arrays.Arrays(out / "masks.safetensors")
        each = {name: np.packbits(m.ravel(), bitorder="little") for name, m in keep.items()}
        arrays.write(out / "masks.safetensors", each, dict(packed.metadata))
        return real(out, found, *more)

    monkeypatch.setattr(pruning, "verified", moved)
    with pytest.raises(UserError, match="a group of neighbours lost more"):
        run_step(STEP, configured(tiny(family), tmp_path, pattern="2:4"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
