"""tune lora: which matrices, layers, rows and columns get an adapter, and that merging it changes these and nothing else."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tiny as make
from oracle import lora_oracle
from polygraft import selectionfile
from polygraft.checkpoint import Checkpoint
from polygraft.errors import RecipeError
from polygraft.evals.callback import WATCHERS
from polygraft.model import load
from polygraft.selectionfile import Entry
from polygraft.sources import merged_view, resolve
from polygraft.step import Context
from polygraft.tune.config import Around
from polygraft.tune.lora import Lora, chosen, lora_step

ROWS = [{"prompt": f"{a}+{b}=", "completion": str(a + b)} for a in range(3) for b in range(3)]
STEP = lora_step(Around({"toy": lambda spec: ROWS}, WATCHERS))
FIVE = Entry(1, "ffn", "neuron", np.array([0, 3, 7, 8, 40]))


@pytest.fixture
def at(tiny, tmp_path):
    """`at("llama", FIVE, ...) -> Context` of a tiny model, with these entries as the selection."""

    def made(family="llama", *entries):
        selectionfile.write(tmp_path / "selection.json", {"x": entries})
        return Context(model=lambda ref: resolve(tiny(family)), data=lambda ref: tmp_path, step_id="t",
                       folder=lambda ref: tmp_path / "selection.json")

    return made


def config(**more) -> Lora:
    return Lora(**({"model": "m", "data": ["toy:a"], "r": 2, "steps": 2, "batch": 3, "length": 32, "device": "cpu", "lr": 1e-2,
                    "weight_decay": 0.1, "save_every": 0} | more))


def picked(context, **more):
    """The selection that a config makes, and what it leaves."""
    checkpoint = context.model("m").checkpoint
    from polygraft.anatomy import Anatomy

    shapes = {k: t.shape for k, t in checkpoint.tensors.items()}
    return chosen(config(**more), context, Anatomy.of(checkpoint.config, checkpoint.tensors), shapes)


def moved(base, folder):
    """Which elements a merge changes: key -> bool [as the tensor], of the tensors of which one does."""
    view = merged_view(base.checkpoint, resolve(folder / "model", base=base).adapter)
    arrays = {k: (base.checkpoint.f32(k).reshape(t.shape), view.f32(k).reshape(t.shape)) for k, t in base.checkpoint.tensors.items()}
    return {k: a != b for k, (a, b) in arrays.items() if (a != b).any()}


# ------------------------------------------------------------------------------------------------------- parts and layers


@pytest.mark.parametrize("family", make.FAMILIES)
def test_parts_and_layers_of_every_family(family, at, tiny, tmp_path):
    """Attention and FFN of one layer (a mixture: attention): merged, these matrices change and no other tensor by one byte."""
    context, base = at(family), resolve(tiny(family))
    if family in make.MOE:
        with pytest.raises(RecipeError, match="experts of a mixture"):
            STEP.plan(config(parts=["ffn"]), context)
    asked = config(layers=["1"], parts=["attn"] if family in make.MOE else ["attn", "ffn"])
    plan, result = STEP.plan(asked, context), STEP.run(asked, context, tmp_path / "out")
    parts = load(base, dtype="float32").anatomy.parts
    wanted = {k for k, p in parts.items() if p.layer == 1 and p.kind in ("attn", "ffn") and k.endswith(".weight") and
              len(base.checkpoint.tensors[k].shape) == 2 and (p.kind == "attn" or family not in make.MOE)}
    assert moved(base, tmp_path / "out").keys() == wanted
    trained = dict(result.tables[0].rows)["trained parameters"]
    adapter = resolve(tmp_path / "out" / "model", base=base).adapter
    assert trained == sum(t.numel for t in adapter.tensors.values()) and f"{trained:,} trained parameters" in plan.lines[0]
    assert result.maps[0] == plan.maps[0] and result.maps[1] == plan.maps[1] and result.tables[1].rows[0][1] == trained
    assert {r: v for r, v in zip(result.maps[1].rows, result.maps[1].values) if any(v)}.keys() == {parts[k].label for k in wanted}


def test_a_merge_is_the_formula(at, tiny, tmp_path):
    for family in ("llama", "gpt2"):
        base = resolve(tiny(family))
        STEP.run(config(parts=["up", "o"], alpha=3.0), at(family), tmp_path / family)
        source = resolve(tmp_path / family / "model", base=base)
        live = load(base, dtype="float32")
        names = {n: p.detach().numpy() for n, p in live.model.named_parameters()}
        truth, merged = lora_oracle.merged(tmp_path / family / "model", names), load(source, dtype="float32").model
        assert all(np.allclose(p.detach().numpy(), truth[n], rtol=1e-6, atol=1e-7) for n, p in merged.named_parameters())


@pytest.mark.parametrize(("words", "labels"), [
    (["q"], {"attn.q"}), (["attn.q", "down"], {"attn.q", "ffn.down"}), (["ffn"], {"ffn.gate", "ffn.up", "ffn.down"}),
    (["attn"], {"attn.q", "attn.k", "attn.v", "attn.o"})])  # fmt: skip
def test_words_of_parts(words, labels, at, tiny):
    context = at()
    parts = load(resolve(tiny("llama"))).anatomy.parts
    selection, left = picked(context, parts=words)
    assert {parts[k].label for k in selection.rows} == labels and not left
    assert {parts[k].layer for k in picked(context, parts=words, layers=["1-"])[0].rows} == {1}
    assert {parts[k].layer for k in picked(context, parts=words, layers=["last"])[0].rows} == {1}
    assert {parts[k].layer for k in picked(context, parts=words, layers=[0, "last"])[0].rows} == {0, 1}


def test_words_of_fused_parts_are_rows(at):
    selection, _ = picked(at("phi3"), parts=["gate", "k"], layers=[0])
    rows = {k.split(".")[-2]: (int(r[0]), len(r)) for k, r in selection.rows.items()}
    assert rows == {"gate_up_proj": (0, make.FFN), "qkv_proj": (make.HIDDEN, make.HIDDEN // 2)}


# ------------------------------------------------------------------------------------------------------- neurons


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt2", "opt", "falcon"])  # apart, fused, transposed, with biases, ungated
def test_rows_of_neurons_and_nothing_else(family, at, tiny, tmp_path):
    """Merged, an adapter on neurons changes their rows of gate and up and their columns of down; decay changes nothing more."""
    context, base = at(family, FIVE), resolve(tiny(family))
    result = STEP.run(config(select="x"), context, tmp_path / "out")
    selection, left = picked(context, select="x")
    changed = moved(base, tmp_path / "out")
    assert changed.keys() == selection.rows.keys()
    for key, where in changed.items():
        axis = selection.axis.get(key, 0)
        rows = np.flatnonzero(where.any(1 - axis))
        assert set(rows) <= set(selection.rows[key]) if family == "opt" else np.array_equal(rows, selection.rows[key])  # dead ReLUs
    assert bool(left) == any(k.endswith(".bias") for k in selectionfile.on([FIVE], load(base).anatomy, shapes_of(base)).rows)
    assert sum(where.sum() for where in changed.values()) <= result.tables[1].rows[3][1] == selection.count(shapes_of(base))


def shapes_of(base):
    return {k: t.shape for k, t in base.checkpoint.tensors.items()}


def test_the_first_step_is_that_of_full_lora(at, tiny, tmp_path):
    """B begins at zero, so that after one step (no clipping) B's trained rows are those of an adapter without limits."""
    one = {"steps": 1, "clip": 1e9, "schedule": "constant", "warmup": 0.0, "parts": ["gate", "up"]}
    STEP.run(config(select="x", **one), at("llama", FIVE), tmp_path / "some")
    STEP.run(config(layers=["1"], **one), at(), tmp_path / "all")
    some, full = (resolve(tmp_path / n / "model", base=resolve(tiny("llama"))).adapter for n in ("some", "all"))
    for module, pair in some.pairs.items():
        b, whole = (x.f32(x.pairs[module].b).reshape(-1, 2) for x in (some, full))
        assert np.array_equal(b[FIVE.rows], whole[FIVE.rows]) and not np.delete(b, FIVE.rows, 0).any() and whole.any(1).all()
        assert some.read(pair.a) == full.read(full.pairs[module].a)


def test_only_the_trained_rows_are_held(at, tiny):
    """What takes gradients, and so optimiser state, is as large as the count that is printed, and smaller than the pairs."""
    import torch

    from polygraft.tune import adapters

    base = resolve(tiny("llama"))
    selection, _ = picked(at("llama", FIVE), select="x")
    live = load(base, dtype="float32")
    laid = adapters.lay(live, base, config().settings(), selection)
    held = [p for p in laid.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(held, lr=1e-2)
    laid.model(torch.arange(4, 20)[None]).logits.square().mean().backward()
    optimizer.step()
    moments = sum(v.numel() for s in optimizer.state_dict()["state"].values() for v in s.values() if v.dim())
    assert sum(p.numel() for p in held) == laid.trainable and moments == 2 * laid.trainable
    assert laid.trainable < sum(2 * sum(slot.size) for slot in laid.slots) and all(p.grad is None or p.requires_grad
                                                                                 for p in laid.model.parameters())


@pytest.mark.parametrize("rows", [False, True])
def test_bf16_holds_the_base_in_bfloat16_and_the_pairs_in_float32(at, tiny, tmp_path, rows):
    """As of a selection. In fp32 everything is float32. The written adapter is memory's, whatever the base was held in."""
    import torch

    from polygraft.tune import memory
    from polygraft.tune.training import Work, prepared, train

    base, context = resolve(tiny("llama", dtype="bfloat16")), at("llama", FIVE)
    selection = picked(context, select="x")[0] if rows else None
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        work = Work(base, ROWS, config(dtype=name).settings(), selection)
        laid = prepared(work).laid
        found = {n: p.dtype for n, p in laid.model.named_parameters()}
        assert {d for n, d in found.items() if "lora_" in n} == {torch.float32}
        assert {d for n, d in found.items() if "lora_" not in n} == {dtype}
        if not rows:  # autocast's copies: of the pairs alone, since the base is what it computes in; in fp32 there are none
            trained = {slot.key: slot.parameters(2) for slot in laid.slots}
            copies = 2 * laid.trainable * (name == "bf16")
            assert memory.weights(work.settings, shapes_of(base), trained) == copies + sum(p.nbytes for p in laid.model.parameters())
        done = train(work, tmp_path / name)
        assert done.proof.selected == done.trainable and done.proof.changed > 0.5 * done.trainable
    assert np.isfinite(done.losses).all()


def test_masked_lora_of_neurons_beside_attention(at, tiny, tmp_path):
    """Mondal et al.: the neurons' rows of gate alone, and attention whole in every layer."""
    base = resolve(tiny("llama"))
    STEP.run(config(select="x", parts=["gate"], attention=["q", "k", "v", "o"]), at("llama", FIVE), tmp_path / "out")
    changed, parts = moved(base, tmp_path / "out"), load(base).anatomy.parts
    assert {(parts[k].layer, parts[k].label) for k in changed} == \
        {(1, "ffn.gate"), *((i, f"attn.{r}") for i in range(2) for r in "qkvo")}
    (gate,) = (where for k, where in changed.items() if parts[k].kind == "ffn")
    assert np.array_equal(np.flatnonzero(gate.any(1)), FIVE.rows)


def test_resume_with_limits_is_exact(at, tiny, tmp_path):
    class Cut(Exception):
        pass

    def cut(done, *_):
        if done == 3:
            raise Cut

    import dataclasses

    context, asked = at("llama", FIVE), config(select="x", steps=4, save_every=2, dropout=0.3)
    STEP.run(asked, context, tmp_path / "whole")
    with pytest.raises(Cut):
        STEP.run(asked, dataclasses.replace(context, progress=cut), tmp_path / "cut")
    assert STEP.run(asked, context, tmp_path / "cut").data["resumed_at"] == 2
    one, two = ((tmp_path / n / "model" / "adapter_model.safetensors").read_bytes() for n in ("whole", "cut"))
    assert one == two


def test_folder_is_pefts_own(at, tiny, tmp_path):
    import torch
    from peft import PeftModel

    base = resolve(tiny("gpt2"))
    STEP.run(config(select="x"), at("gpt2", FIVE), tmp_path / "out")
    ids = torch.arange(8)[None]
    theirs = PeftModel.from_pretrained(load(base, dtype="float32").model, tmp_path / "out" / "model")(ids).logits
    ours = load(resolve(tmp_path / "out" / "model", base=base), dtype="float32").model(ids).logits
    assert torch.allclose(theirs, ours, atol=1e-4) and not torch.allclose(theirs, load(base, dtype="float32").model(ids).logits)
    assert json.loads((tmp_path / "out" / "model" / "adapter_config.json").read_text())["fan_in_fan_out"] is True


# ------------------------------------------------------------------------------------------------------- the proof


def test_the_proof_finds_what_is_outside(at, tiny, tmp_path):
    from polygraft.errors import StepFailed
    from polygraft.tune import adapters
    from polygraft.tune.output import adapter_tensors

    base = resolve(tiny("llama"))
    selection, _ = picked(at("llama", FIVE), select="x")
    laid = adapters.lay(load(base, dtype="float32"), base, config().settings(), selection)
    fresh = laid.write(base, tmp_path / "fresh")
    assert fresh.changed == 0 and fresh.reach == selection.count(shapes_of(base)) and fresh.selected == laid.trainable
    memory = {k: adapters._bytes(v) for k, v in adapter_tensors(laid.model, base.checkpoint).items()}
    with pytest.raises(StepFailed, match="not what memory held"):
        adapters.prove_adapter(tmp_path / "fresh", laid, {k: bytes(len(v)) for k, v in memory.items()}, 1)
    up = next(slot.module for slot in laid.slots if slot.outs is not None)
    outside = laid.model.get_submodule(f"base_model.model.{up}").lora_B["default"].weight
    outside.data[1] = 1.0  # no selected row
    with pytest.raises(StepFailed, match="outside the selection"):
        laid.write(base, tmp_path / "out")


def test_a_mixture_keeps_its_experts_and_says_so(at, tiny, tmp_path):
    result = STEP.run(config(), at("mixtral"), tmp_path / "out")
    parts = load(resolve(tiny("mixtral"))).anatomy.parts
    assert {parts[k].kind for k in moved(resolve(tiny("mixtral")), tmp_path / "out")} == {"attn"}
    assert any("experts" in line for line in result.caveats)
    with pytest.raises(RecipeError, match="experts of a mixture"):
        STEP.plan(config(select="x"), at("mixtral", Entry(0, "ffn", "neuron", np.array([1]))))


def test_bf16_base(tiny, tmp_path):
    base = resolve(tiny("llama", dtype="bfloat16"))
    context = Context(model=lambda ref: base, data=lambda ref: tmp_path, step_id="t")
    STEP.run(config(dtype="bf16", parts=["down"]), context, tmp_path / "out")
    made = Checkpoint.open(tiny("llama", dtype="bfloat16"))
    assert {t.dtype for t in resolve(tmp_path / "out" / "model", base=base).adapter.tensors.values()} == {"BF16"}
    assert moved(base, tmp_path / "out").keys() == {k for k in made.tensors if "down_proj" in k}
