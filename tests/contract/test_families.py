"""Every contract family obeys every law: what Anatomy says about a model is what the running model does."""

from __future__ import annotations

import re

import pytest
import torch
from safetensors.torch import load_file

import tiny as make
from polygraft import model as live_models
from polygraft.errors import InputError, StepFailed
from polygraft.selection import Selection
from polygraft.taps import Taps

FAMILY = pytest.mark.parametrize("family", make.FAMILIES)
DENSE = pytest.mark.parametrize("family", [f for f in make.FAMILIES if f not in make.MOE])


@pytest.fixture
def net(tiny, family):
    return live_models.load_folder(tiny(family))


def prompt(n: int = 40, seed: int = 0) -> torch.Tensor:
    return torch.randint(4, 260, (2, n), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def logits(net, ids: torch.Tensor) -> torch.Tensor:
    return net.model(ids).logits


@FAMILY
def test_live_names_round_trip(net, family):
    names = dict(net.model.named_parameters(remove_duplicate=False))
    anatomy = net.anatomy
    assert {anatomy.live_name(k) for k in anatomy.parts} | ({"lm_head.weight"} if anatomy.tied else set()) == set(names)
    for name in names:
        keys = anatomy.file_keys(name)
        assert all(anatomy.live_name(k) == name for k in keys) or (anatomy.tied and name == "lm_head.weight")
        if len(keys) == 1:
            assert anatomy.file_key(name) == keys[0]
        else:
            with pytest.raises(InputError):
                anatomy.file_key(name)
    with pytest.raises(InputError):
        anatomy.file_keys("model.layers.0.mlp.unheard_of.weight")


@FAMILY
def test_views_hold_what_the_files_hold(net, tiny, family):
    for key, value in load_file(tiny(family) / "model.safetensors").items():
        assert torch.equal(live_models.view(net.model, net.anatomy, key), value), key


@FAMILY
def test_live_names_are_classified_too(net, family):
    from polygraft.anatomy import Anatomy

    live = Anatomy.of(net.anatomy.config, net.model.state_dict())
    for key, part in net.anatomy.parts.items():
        other = live.parts[net.anatomy.live_name(key)]
        assert (other.layer, other.kind) == (part.layer, part.kind)


@FAMILY
@pytest.mark.parametrize("point", ["act", "residual"])
def test_taps_fire_once_a_layer_a_pass_and_a_token(net, family, point):
    seen = []
    with Taps(
        net.model, net.anatomy, lambda p: seen.append((p.layer, p.expert, p.value.numel() // p.value.shape[-1])), points=[point]
    ):
        logits(net, prompt(12))
        logits(net, prompt(7))
    per_token = 2 if family in make.MOE and point == "act" else 1
    for layer in range(2):
        assert sum(n for i, _, n in seen if i == layer) == (24 + 14) * per_token
    width = {e for _, e, _ in seen}
    assert width == ({0, 1, 2} if family in make.MOE and point == "act" else {None})


@FAMILY
def test_taps_leave_no_trace(net, family):
    ids = prompt()
    before = logits(net, ids)
    with Taps(net.model, net.anatomy, lambda p: None, points=["act", "residual"]):
        inside = logits(net, ids)
    assert torch.allclose(before, inside, atol=1e-5)
    with Taps(net.model, net.anatomy, lambda p: p.value * 0, points=["act"]):
        assert not torch.allclose(before, logits(net, ids), atol=1e-4)
    assert torch.equal(before, logits(net, ids))
    assert not [1 for m in net.model.modules() if m._forward_hooks or m._forward_pre_hooks]


@DENSE
def test_the_down_tap_sees_what_down_gets(net, family):
    """Zeroing the input of down removes the MLP: only its bias is left, so the result is that of a zero down projection."""
    ids = prompt()
    with Taps(net.model, net.anatomy, lambda p: torch.zeros_like(p.value), points=["down"]):
        edited = logits(net, ids)
    for layer in range(2):
        for address in net.anatomy.neurons(layer)[0].down:
            live_models.rows(net.model, net.anatomy, address).zero_()
    assert torch.allclose(edited, logits(net, ids), atol=1e-5)


@pytest.mark.parametrize("family", make.MOE)
def test_experts_refuse_the_down_tap_in_a_sentence(net, family):
    with pytest.raises(InputError, match="experts compute their down projection"):
        Taps(net.model, net.anatomy, lambda p: None, points=["down"])


@FAMILY
@pytest.mark.parametrize("sides", ["down", "all"])
def test_neuron_addresses_are_the_neurons_that_the_tap_sees(net, family, sides):
    """Zero some neurons through their addresses; zero the same activations at the tap: the same logits, and not the old ones."""
    ids, chosen, layer = prompt(), [0, 5, 23], 1
    blocks = net.anatomy.neurons(layer)
    block = blocks[-1]
    assert len(blocks) == (make.EXPERTS if family in make.MOE else 1)
    before = logits(net, ids)

    def silence(p):
        if p.layer != layer or p.expert != block.expert:
            return None
        assert p.value.shape[-1] == block.size
        value = p.value.clone()
        value[..., chosen] = 0
        return value

    with Taps(net.model, net.anatomy, silence):
        edited = logits(net, ids)
    # act(0) = 0 for every activation of these families, so zeroed rows on the way in silence a neuron as zeroed columns of down do
    for j in chosen:
        for address in block.neuron(j) if sides == "all" else [a.at(j) for a in block.down]:
            live_models.rows(net.model, net.anatomy, address).zero_()
    after = logits(net, ids)
    assert torch.allclose(edited, after, atol=1e-5)
    assert (before - after).abs().max() > 1e-3


@FAMILY
def test_gate_and_up_are_the_halves_they_claim(net, family):
    """With gate's rows zeroed the activation is act(0) = 0 at the tap; with up's rows zeroed it is untouched, where there is a gate."""
    ids, layer = prompt(), 0
    seen: dict[str, torch.Tensor] = {}

    def activations(name):
        rows = []
        keep = lambda p: rows.append(p.value[..., 3]) if (p.layer, p.expert) == (layer, block.expert) else None  # noqa: E731
        with Taps(net.model, net.anatomy, keep):
            logits(net, ids)
        seen[name] = torch.cat([r.flatten() for r in rows])

    block = net.anatomy.neurons(layer)[0]
    activations("before")
    for address in block.up:
        live_models.rows(net.model, net.anatomy, address.at(3)).zero_()
    activations("no up")
    for address in block.gate:
        live_models.rows(net.model, net.anatomy, address.at(3)).zero_()
    activations("no gate")
    assert seen["before"].abs().max() > 1e-3
    assert torch.allclose(seen["no up"], seen["before"], atol=1e-6) == bool(block.gate)
    assert seen["no gate"].abs().max() == 0


def silence_head(net, layer: int, head: int) -> None:
    for address in net.anatomy.heads(layer)["o"][head]:
        live_models.rows(net.model, net.anatomy, address).zero_()


@FAMILY
def test_heads_are_slices_of_the_output_projection(net, family):
    """Zeroing head j's columns of o equals zeroing its slice of what o gets."""
    ids, layer, head = prompt(), 1, 2
    dim = net.anatomy.sizes.head_dim
    key = next(k for k in net.anatomy.keys(layer=layer, kind="attn", role="o") if k.endswith("weight"))
    module = net.model.get_submodule(net.anatomy.live_name(key).removesuffix(".weight"))

    def cut(_module, args):
        value = args[0].clone()
        value[..., head * dim : (head + 1) * dim] = 0
        return (value, *args[1:])

    before, hook = logits(net, ids), module.register_forward_pre_hook(cut)
    edited = logits(net, ids)
    hook.remove()
    silence_head(net, layer, head)
    after = logits(net, ids)
    assert torch.allclose(edited, after, atol=1e-5)
    assert (before - after).abs().max() > 1e-3


@FAMILY
def test_value_rows_feed_the_heads_of_their_group(net, family):
    """Zeroing the v rows of key-value head g makes the input of o exactly zero for the q heads of g, and for no other."""
    ids, layer, sizes = prompt(), 0, net.anatomy.sizes
    per = sizes.heads // sizes.kv_heads
    found = net.anatomy.heads(layer)
    assert {r: len(a) for r, a in found.items()} == {"q": sizes.heads, "k": sizes.kv_heads, "v": sizes.kv_heads, "o": sizes.heads}
    group = sizes.kv_heads - 1
    for address in found["v"][group]:
        live_models.rows(net.model, net.anatomy, address).zero_()
    at_o = input_of_o(net, layer, ids)
    silent = [j for j in range(sizes.heads) if at_o[j] == 0]
    assert silent == list(range(group * per, (group + 1) * per))


@FAMILY
@pytest.mark.parametrize("role", ["q", "k"])
def test_query_and_key_rows_steer_their_own_heads_only(net, family, role):
    """Changing the q (k) rows of one head changes the input of o for that head (its group), and for no other."""
    ids, layer, sizes = prompt(), 0, net.anatomy.sizes
    per = sizes.heads // sizes.kv_heads
    before = whole_input_of_o(net, layer, ids)
    index = 1
    for address in net.anatomy.heads(layer)[role][index]:
        live_models.rows(net.model, net.anatomy, address).mul_(-1.5)
    after = whole_input_of_o(net, layer, ids)
    dim = sizes.head_dim
    moved = [float((before - after)[..., j * dim : (j + 1) * dim].abs().max()) for j in range(sizes.heads)]
    own = [index] if role == "q" else list(range(index * per, (index + 1) * per))
    others = [m for j, m in enumerate(moved) if j not in own]
    assert min(moved[j] for j in own) > 1e-4
    if family == "olmo2":  # its q and k norms run over all heads at once, so every head moves, but the changed ones most
        assert max(moved[j] for j in own) > 1.2 * max(others)
    else:
        assert max(others) < 1e-4


def whole_input_of_o(net, layer: int, ids: torch.Tensor) -> torch.Tensor:
    key = next(k for k in net.anatomy.keys(layer=layer, kind="attn", role="o") if k.endswith("weight"))
    module = net.model.get_submodule(net.anatomy.live_name(key).removesuffix(".weight"))
    seen = []
    hook = module.register_forward_pre_hook(lambda _m, args: seen.append(args[0].clone()))
    logits(net, ids)
    hook.remove()
    return seen[0]


def input_of_o(net, layer: int, ids: torch.Tensor) -> list[float]:
    dim, value = net.anatomy.sizes.head_dim, whole_input_of_o(net, layer, ids)
    return [float(value[..., j * dim : (j + 1) * dim].abs().max()) for j in range(net.anatomy.sizes.heads)]


@FAMILY
def test_head_rows_tile_their_tensors(net, family):
    """The heads' rows cover every row of q, k, v and every column of o exactly once."""
    for layer in range(2):
        addresses = [a for heads in net.anatomy.heads(layer).values() for head in heads for a in head]
        selected = Selection.of(addresses)
        shapes = {k: tuple(live_models.view(net.model, net.anatomy, k).shape) for k in selected.rows}
        assert selected.normal(shapes) == Selection(dict.fromkeys(shapes))
        assert selected.count(shapes) == sum((a.stop - a.start) * numel(shapes[a.key]) // shapes[a.key][a.axis] for a in addresses)


def numel(shape) -> int:
    return int(torch.tensor(shape).prod())


@FAMILY
def test_neuron_rows_tile_their_tensors(net, family):
    for layer in range(2):
        addresses = [a for block in net.anatomy.neurons(layer) for a in (*block.gate, *block.up, *block.down)]
        shapes = {a.key: tuple(live_models.view(net.model, net.anatomy, a.key).shape) for a in addresses}
        assert Selection.of(addresses).normal(shapes) == Selection(dict.fromkeys(shapes))
        ffn = {k for k in net.anatomy.keys(layer=layer, kind="ffn") if net.anatomy.parts[k].role != "router"}
        assert {k for k in ffn if not re.search(r"(down_proj|c_proj|4h_to_h|fc2)\.bias", k)} == set(shapes)


@pytest.mark.parametrize("family", ["llama", "mixtral", "gpt2"])
def test_taps_count_through_generation_with_a_cache(net, family):
    total: list[int] = []
    with Taps(net.model, net.anatomy, lambda p: total.append(p.value.numel() // p.value.shape[-1]), points=["residual"]):
        net.model.generate(prompt(9), max_new_tokens=5, min_new_tokens=5, do_sample=False)
    assert sum(total) == 2 * 2 * (9 + 4)


@pytest.mark.parametrize("family", make.MOE)
def test_experts_get_the_tokens_that_chose_them(net, family):
    """For each expert: act(gate_e(x)) of the tokens the tap names equals what the tap saw."""
    ids, inputs, seen = prompt(10), [], []
    experts = net.model.model.layers[0].mlp.experts
    hook = experts.register_forward_pre_hook(lambda _m, args: inputs.append(args[0].reshape(-1, args[0].shape[-1])))
    with Taps(net.model, net.anatomy, lambda p: seen.append(p) if p.layer == 0 else None):
        logits(net, ids)
    hook.remove()
    assert sorted(p.expert for p in seen) == [0, 1, 2]
    for p in seen:
        gate = live_models.rows(net.model, net.anatomy, net.anatomy.neurons(0)[p.expert].gate[0])
        assert torch.allclose(torch.nn.functional.silu(inputs[0][p.tokens] @ gate.T), p.value, atol=1e-5)


def test_a_tap_that_does_not_fire_is_an_error(tiny):
    net = live_models.load_folder(tiny("llama"))
    block = net.model.model.layers[1].mlp
    block.forward = lambda x: block.down_proj(torch.nn.functional.silu(block.gate_proj(x)) * block.up_proj(x))  # a fused kernel
    with pytest.raises(StepFailed, match="layer 1"), Taps(net.model, net.anatomy, lambda p: None):
        logits(net, prompt())
    assert not [1 for m in net.model.modules() if m._forward_hooks]


def test_an_activation_that_is_no_module_is_refused(tiny):
    net = live_models.load_folder(tiny("llama"))
    for layer in net.model.model.layers:
        del layer.mlp.act_fn
    with pytest.raises(InputError, match="no activation module"):
        Taps(net.model, net.anatomy, lambda p: None)
    with pytest.raises(InputError, match="unknown tap"):
        Taps(net.model, net.anatomy, lambda p: None, points=["gate"])


@pytest.mark.parametrize("family, more", [("falcon", {"new_decoder_architecture": False, "multi_query": True}),
                                          ("falcon", {"new_decoder_architecture": False, "multi_query": False, "num_kv_heads": 4}),
                                          ("falcon", {"new_decoder_architecture": False, "multi_query": False, "num_kv_heads": 4, "bias": True}),
                                          ("gpt_neox", {"attention_bias": False}), ("llama", {"attention_bias": True, "mlp_bias": True}),
                                          ("cohere", {"use_qk_norm": True}), ("opt", {"do_layer_norm_before": False}),
                                          ("llama", {"tie_word_embeddings": True})])  # fmt: skip
def test_variants_of_a_family(tiny, family, more):
    net = live_models.load_folder(tiny(family, **more))
    test_value_rows_feed_the_heads_of_their_group(net, family)
    test_head_rows_tile_their_tensors(net, family)
    test_neuron_addresses_are_the_neurons_that_the_tap_sees(net, family, "all")
