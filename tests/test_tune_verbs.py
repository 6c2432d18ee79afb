"""tune neurons, tune embeddings, tune sft --select: what each selects, what its result says, and what a control is for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import tiny as make
from polygraft import selectionfile
from polygraft.anatomy import Anatomy
from polygraft.checkpoint import Checkpoint
from polygraft.errors import RecipeError
from polygraft.evals.callback import WATCHERS
from polygraft.model import load
from polygraft.selectionfile import Entry
from polygraft.sources import resolve
from polygraft.step import Context
from polygraft.tune import embeddings, neurons, sft
from polygraft.tune.broken import diverged
from polygraft.tune.config import Around

ROWS = [{"prompt": f"{a}+{b}=", "completion": str(a + b)} for a in range(3) for b in range(3)]
AROUND = Around({"toy": lambda spec: ROWS}, WATCHERS)
NEURONS, EMBEDDINGS, SFT = neurons.neurons_step(AROUND), embeddings.embeddings_step(AROUND), sft.sft_step(AROUND)
FAST = {"model": "m", "data": ["toy:a"], "steps": 2, "batch": 3, "length": 32, "device": "cpu", "lr": 1e-2, "save_every": 0,
        "weight_decay": 0.1}
SOME = (Entry(0, "ffn", "neuron", np.array([1, 2])), Entry(1, "ffn", "neuron", np.array([0, 3, 47])))


def context(folder: Path, path: Path, *entries) -> Context:
    if entries:
        selectionfile.write(path / "selection.json", {"x": entries})
    return Context(model=lambda ref: resolve(folder), data=lambda ref: path / ref, step_id="t", folder=lambda ref: path / ref)


def shapes_of(checkpoint):
    return {k: t.shape for k, t in checkpoint.tensors.items()}


def changed(base: Checkpoint, made: Checkpoint) -> dict:
    """key -> bool [as the tensor]: the elements whose bytes differ, of the tensors of which one does."""
    out = {}
    for key, info in base.tensors.items():
        one, two = (np.frombuffer(c.read(key), f"V{info.itemsize}").reshape(info.shape) for c in (base, made))
        if (one != two).any():
            out[key] = one != two
    return out


def agree(plan, result, selection, base):
    """What the plan, the result and the files say of one selection is the same number."""
    count, total = selection.count(shapes_of(base)), sum(t.numel for t in base.tensors.values())
    assert f"{count:,} trained parameters ({count / total:.2%})" in plan.lines[0]
    assert dict(result.tables[0].rows)["trained parameters"] == count == result.tables[1].rows[0][1]
    assert result.maps[0] == plan.maps[0] and any(f"{count:,} trained parameters" in line for line in result.summary)


def test_the_share_that_is_printed_is_the_share_that_changes(tiny, tmp_path):
    """In float32, without weight decay, where every selected row has a gradient: the same number, and nothing to explain."""
    base = Checkpoint.open(tiny("llama"))
    config = sft.Sft(method="full", select="selection.json", **FAST | {"weight_decay": 0.0, "warmup": 0.0})
    result = SFT.run(config, context(tiny("llama"), tmp_path, *SOME), tmp_path / "out")
    moved = sum(int(m.sum()) for m in changed(base, Checkpoint.open(tmp_path / "out" / "model")).values())
    share = moved / sum(t.numel for t in base.tensors.values())
    assert f"{moved:,} trained parameters, {share:.2%} of the model." in result.summary
    assert not any("as they were" in line or "diverged" in line for line in result.caveats)


def test_rows_that_cannot_change_are_explained(tiny, tmp_path):
    """Of five words two are in no example: their rows of the embedding get no gradient, and the result says so."""
    base, tokenizer = Checkpoint.open(tiny("llama")), load(tiny("llama")).tokenizer
    read = tokenizer("0+1=2")["input_ids"][-3:]
    unread = tokenizer("@#")["input_ids"][-2:]
    rows = Entry(None, "embed", None, np.sort(np.array([*read, *unread])))
    config = sft.Sft(method="full", select="selection.json", **FAST | {"weight_decay": 0.0, "warmup": 0.0})
    result = SFT.run(config, context(tiny("llama"), tmp_path, rows), tmp_path / "out")
    (moved,) = changed(base, Checkpoint.open(tmp_path / "out" / "model")).values()
    still = 2 * moved.shape[1]
    assert moved.any(1).sum() == 3 and moved.sum() == 3 * moved.shape[1]
    assert sum(f"{still} of the trained numbers (40.00% of them) are as they were: {still} in whole rows" in c for c in result.caveats) == 1


def test_a_training_that_diverged_says_so(tiny, tmp_path):
    """A rate without sense: the numbers stay finite, a model is written, and its result warns of it."""
    more = {"weight_decay": 0.0, "warmup": 0.0, "lr": 900.0, "steps": 4, "clip": 1e9, "schedule": "constant"}
    config = sft.Sft(method="full", **FAST | more)
    result = SFT.run(config, context(tiny("llama"), tmp_path), tmp_path / "out")
    (said,) = (line for line in result.caveats if "diverged" in line)
    assert "lower the learning rate" in said and "nats at step" in said
    assert not diverged((3.0, 4.9, 2.0), 1000) and not diverged((0.01, 0.9, 0.1), 1000)  # the noise of batches
    assert diverged((0.2, 2.1), 1000) and diverged((6.0, 8.0), 1000) and not diverged((7.5, 8.0), 1000)


# ------------------------------------------------------------------------------------------------------- neurons


@pytest.mark.parametrize(("family", "parts"), [("llama", ()), ("llama", ("down",)), ("phi3", ("gate",)), ("gpt2", ("up",))])
def test_neurons_move_their_rows_and_columns(family, parts, tiny, tmp_path):
    at, base = context(tiny(family), tmp_path, *SOME), Checkpoint.open(tiny(family))
    config = neurons.Neurons(select="selection.json", parts=parts, **FAST)
    plan, result = NEURONS.plan(config, at), NEURONS.run(config, at, tmp_path / "out")
    anatomy, roles = Anatomy.of(base.config, base.tensors), parts or ("gate", "up", "down")
    wanted = {}
    for layer, rows in ((0, [1, 2]), (1, [0, 3, 47])):
        (block,) = anatomy.neurons(layer)
        for address in (a for role in roles for a in getattr(block, role)):
            mask = wanted.setdefault(address.key, np.zeros(base.tensors[address.key].shape, bool))
            mask[(slice(None),) * address.axis + (address.start + np.array(rows),)] = True
    found = changed(base, Checkpoint.open(tmp_path / "out" / "model"))
    assert found.keys() == wanted.keys() and not any((found[k] & ~wanted[k]).any() for k in found)
    agree(plan, result, neurons.task(config, at, AROUND).selection, base)
    assert "5 of 96 (5.21%), in 2 of 2 layers" in plan.lines[-1] and plan.lines[-1] in result.summary
    assert [row[:3] for row in next(t for t in result.tables if t.title == "Neurons by layer").rows] == [(0, 2, 48), (1, 3, 48)]


def test_random_neurons_are_others_as_many_in_each_layer(tiny, tmp_path):
    at = context(tiny("llama"), tmp_path, *SOME)
    anatomy = Anatomy.of(*(lambda c: (c.config, c.tensors))(Checkpoint.open(tiny("llama"))))
    masks = [neurons.found(neurons.Neurons(select="selection.json", random=seed, **FAST), at, anatomy)[0] for seed in (None, 0, 0, 1)]
    own, one, again, other = masks
    assert (one.sum(1) == own.sum(1)).all() and not (one & own).any() and (one == again).all() and (one != other).any()
    crowded = context(tiny("llama"), tmp_path, Entry(1, "ffn", "neuron", np.arange(25)))
    with pytest.raises(RecipeError, match="not as many other neurons"):
        NEURONS.plan(neurons.Neurons(select="selection.json", random=0, **FAST), crowded)


def test_neurons_of_experts(tiny, tmp_path):
    """Counted through the experts one after another: 24 a layer and expert of the tiny qwen3_moe."""
    at, base = context(tiny("qwen3_moe"), tmp_path, Entry(1, "ffn", "neuron", np.array([5, 30]))), Checkpoint.open(tiny("qwen3_moe"))
    NEURONS.run(neurons.Neurons(select="selection.json", parts=["up"], **FAST), at, tmp_path / "out")
    found = changed(base, Checkpoint.open(tmp_path / "out" / "model"))
    rows = {k.split("layers.")[1]: list(np.flatnonzero(m.any(1))) for k, m in found.items()}
    assert rows == {"1.mlp.experts.0.up_proj.weight": [5], "1.mlp.experts.1.up_proj.weight": [6]}


LAYER, NEURON = 1, 7


@pytest.fixture(scope="module")
def planted(tiny, tmp_path_factory):
    """A model in which one neuron alone tells prompts that end in A from those that end in B, and whose output weights are lost.

    Examples: A is answered by `y`, B by the letter that the model finds likeliest. Whoever writes `y` after B too loses what is won.
    """
    import torch

    folder = tmp_path_factory.mktemp("planted") / "model"
    live = load(tiny("llama"), dtype="float32")
    net, tokenizer = live.model, live.tokenizer
    rng, mlp, seen = np.random.default_rng(0), net.model.layers[LAYER].mlp, []
    a, b = (["".join(rng.choice(list("cdefghij"), 4)) + last for _ in range(24)] for last in "AB")

    letters = torch.tensor(tokenizer("klmnopqrstuvwxz", add_special_tokens=False)["input_ids"])

    def answers(prompts):
        logits = net(torch.tensor(tokenizer(prompts, add_special_tokens=False)["input_ids"])).logits[:, -1]
        return letters[logits[:, letters].argmax(-1)]

    with torch.no_grad():
        handle = mlp.register_forward_pre_hook(lambda module, args: seen.append(args[0][:, -1].mean(0)))
        answers(a), answers(b)
        handle.remove()
        apart = seen[0] - (seen[0] @ seen[1]) / (seen[1] @ seen[1]) * seen[1]
        mlp.gate_proj.weight[NEURON] = mlp.up_proj.weight[NEURON] = 3 * apart / (apart @ seen[0])  # silu(3) * 3 at A, 0 at B
        mlp.down_proj.weight[:, NEURON] = 0
        own = [tokenizer.decode([t]) for t in answers(b)]
    tokenizer.eos_token = None  # an answer is one token
    net.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, [{"prompt": p, "completion": "y"} for p in a] + [{"prompt": p, "completion": t} for p, t in zip(b, own, strict=True)]


def test_the_neuron_that_knows_learns_what_random_ones_do_not(planted, tmp_path):
    folder, rows = planted
    at = context(folder, tmp_path, Entry(LAYER, "ffn", "neuron", np.array([NEURON])))
    ends = []  # of trainings that see the same examples in the same order
    for seed in (None, 0, 1, 2):
        more = FAST | {"steps": 25, "batch": 12, "lr": 0.05, "warmup": 0.0, "schedule": "constant", "weight_decay": 0.0}
        config = neurons.Neurons(select="selection.json", parts=["down"], random=seed, **more)
        result = neurons.neurons_step(Around({"toy": lambda spec: rows}, WATCHERS)).run(config, at, tmp_path / f"out{seed}")
        losses = result.curves[0].series["loss (nats per answer token)"]
        ends.append(np.mean(losses[-5:]))
    assert ends[0] < min(ends[1:]) - 1.0


# ------------------------------------------------------------------------------------------------------- embeddings


@pytest.mark.parametrize(("family", "tables", "norm"), [("llama", "both", True), ("llama", "head", False), ("llama", "embed", False),
                                                       ("gpt2", "both", False)])
def test_embeddings_move_their_rows(family, tables, norm, tiny, tmp_path):
    at, base = context(tiny(family), tmp_path), Checkpoint.open(tiny(family))
    config = embeddings.Embeddings(rows=["19", "20-22"], tables=tables, norm=norm, **FAST)
    plan, result = EMBEDDINGS.plan(config, at), EMBEDDINGS.run(config, at, tmp_path / "out")
    found = changed(base, Checkpoint.open(tmp_path / "out" / "model"))
    parts = Anatomy.of(base.config, base.tensors).parts
    labels = {"both": {"embed"} | ({"head"} if family == "llama" else set())}.get(tables, {tables}) | ({"final_norm"} if norm else set())
    assert {parts[k].label for k in found} == labels
    for key, mask in found.items():
        if parts[key].kind != "final_norm":
            assert set(np.flatnonzero(mask.any(1))) <= {19, 20, 21, 22}
    agree(plan, result, embeddings.task(config, at, AROUND).selection, base)
    assert "4 of 264 (" in plan.lines[-1]


def test_all_tokens_and_tokens_of_a_file(tiny, tmp_path):
    at, base = context(tiny("llama"), tmp_path), Checkpoint.open(tiny("llama"))
    everything = embeddings.task(embeddings.Embeddings(**FAST), at, AROUND)
    assert set(everything.selection.rows.values()) == {None} and len(everything.selection) == 2
    vocabulary = json.loads((tiny("llama") / "tokenizer.json").read_text())["model"]["vocab"]
    (tmp_path / "words.txt").write_text("Ġ\r\n\nq\n</s>\n", encoding="utf-8")
    task = embeddings.task(embeddings.Embeddings(tokens="words.txt", rows=["260-"], **FAST), at, AROUND)
    rows = sorted([vocabulary["Ġ"], vocabulary["q"], 2, 260, 261, 262, 263])
    assert all(list(found) == rows for found in task.selection.rows.values()) and task.inputs[-1].name == "tokens"
    assert base.tensors.keys() > task.selection.rows.keys()


# ------------------------------------------------------------------------------------------------------- sft --select


def test_sft_of_a_selection(tiny, tmp_path):
    entries = Entry(1, "ffn", "up", None), Entry(0, "attn", "q", np.array([4, 5]))
    at, base = context(tiny("llama"), tmp_path, *entries), Checkpoint.open(tiny("llama"))
    config = sft.Sft(method="full", select="selection.json", **FAST)
    plan, result = SFT.plan(config, at), SFT.run(config, at, tmp_path / "full")
    selection = selectionfile.on(entries, Anatomy.of(base.config, base.tensors), shapes_of(base))
    found = changed(base, Checkpoint.open(tmp_path / "full" / "model"))
    assert found.keys() == selection.rows.keys()
    assert list(np.flatnonzero(found["model.layers.0.self_attn.q_proj.weight"].any(1))) == [4, 5]
    agree(plan, result, selection, base)
    lora = sft.Sft(method="lora", r=2, select="selection.json", **FAST)
    count = 2 * (32 + 2) + 2 * (32 + make.FFN)
    assert f"{count:,} trained parameters" in SFT.plan(lora, at).lines[0]
    made = SFT.run(lora, at, tmp_path / "lora")
    assert dict(made.tables[0].rows)["trained parameters"] == count and made.tables[1].rows[3][1] == 2 * 32 + 32 * make.FFN
