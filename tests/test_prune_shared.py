"""Shared experts of a mixture are pruned, scored and weighed as other matrices are: qwen2_moe."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tiny as tinymodels
from polygraft.anatomy import Anatomy
from polygraft.blocks import Blocks
from polygraft.prune.gather import gather
from polygraft.prune.imatrix import name
from polygraft.prune.sites import Site, sites
from polygraft.sources import resolve
from pruned import masks, modules, pruned, tensors
from reload import assert_reloads

SHARED = "model.layers.{}.mlp.shared_expert.{}_proj.weight"


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    import transformers as hf

    out = tmp_path_factory.mktemp("qwen2moe")
    config = hf.Qwen2MoeConfig(
        vocab_size=tinymodels.VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, moe_intermediate_size=24, shared_expert_intermediate_size=40,
        num_experts=3, num_experts_per_tok=2, bos_token_id=1, eos_token_id=2, pad_token_id=0)  # fmt: skip
    torch.manual_seed(0)
    net = hf.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape) * 0.2 + float(p.dim() == 1))
    net.eval().save_pretrained(out)
    tinymodels.tokenizer().save_pretrained(out)
    return out


def test_what_shared_experts_read_is_what_hooks_see(mixture):
    source, ids = resolve(str(mixture)), torch.randint(4, 260, (2, 16), generator=torch.Generator().manual_seed(0))
    with Blocks.open(source, dtype="float32") as blocks:
        blocks.feed([{"input_ids": ids}])
        shapes = {key: t.shape for key, t in blocks.weights.tensors.items()}
        found = sites(blocks.live.anatomy, shapes, 0)
        widths = {site: shapes[keys[0]][1] for site, keys in found.items()}
        for block in blocks:
            moments = gather(block, blocks.live, found, widths, [torch.ones(2, 16)], gram=True)
            break
    assert found[Site(0, "input.ffn")] == tuple(SHARED.format(0, r) for r in ("gate", "up"))
    assert found[Site(0, "shared")] == (SHARED.format(0, "down"),)

    from transformers import AutoModelForCausalLM

    net, seen = AutoModelForCausalLM.from_pretrained(mixture, dtype=torch.float32).eval(), {}
    expert = net.model.layers[0].mlp.shared_expert
    for point, module in (("input.ffn", expert.gate_proj), ("shared", expert.down_proj)):
        module.register_forward_pre_hook(lambda _m, args, point=point: seen.update({point: args[0].detach().reshape(-1, args[0].shape[-1])}))
    with torch.no_grad():
        net(input_ids=ids)
    for point, x in seen.items():
        assert moments[Site(0, point)].tokens == 32
        np.testing.assert_allclose(moments[Site(0, point)].gram, (x.T @ x).numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_they_are_pruned_and_nothing_else_of_the_mixture_changes(mixture, tmp_path, method):
    out, _ = pruned(mixture, tmp_path, method=method)
    found, before, after = modules(out), tensors(mixture), tensors(out)
    for layer in (0, 1):
        for role in ("gate", "up", "down"):
            key = SHARED.format(layer, role)
            assert found[key]["pruned"] == found[key]["size"] // 2 and (after[key][~masks(out)[key]] == 0).all()
    for key in before:
        assert (key in found) or (before[key] == after[key]).all(), key
    assert not any(part in key for key in found for part in ("gate.weight", "shared_expert_gate"))
    assert_reloads(out)


def test_llama_cpp_finds_their_importance(mixture):
    weights = resolve(str(mixture)).weights
    anatomy = Anatomy.of(weights.config, weights.tensors)
    assert [name(anatomy, SHARED.format(1, r)) for r in ("gate", "up", "down")] == [
        "blk.1.ffn_gate_shexp.weight", "blk.1.ffn_up_shexp.weight", "blk.1.ffn_down_shexp.weight"]  # fmt: skip
    import gguf

    known = {template.format(bid=1) for template in gguf.TENSOR_NAMES.values() if "{bid}" in template}
    assert {"blk.1.ffn_gate_shexp", "blk.1.ffn_up_shexp", "blk.1.ffn_down_shexp"} <= known
