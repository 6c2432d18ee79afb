"""Anatomy: total classification, counts that must agree, messages that say what to do."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

import tiny as make
from polygraft.anatomy import Anatomy, Part, classify
from polygraft.anatomy_rules import KINDS, Rule
from polygraft.errors import InputError, RecipeError

KEYS = [
    "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight",
    *(f"model.layers.{i}.{n}.weight" for i in range(2) for n in ("self_attn.q_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")),
]  # fmt: skip
CONFIG = {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 12,
          "vocab_size": 16, "tie_word_embeddings": False}  # fmt: skip


def parts_of(folder):
    shapes = {key: value.shape for key, value in load_file(folder / "model.safetensors").items()}
    return Anatomy.of(json.loads((folder / "config.json").read_text()), shapes), shapes


@pytest.mark.parametrize("family", make.FAMILIES)
def test_every_tensor_has_its_place(tiny, family):
    anatomy, shapes = parts_of(tiny(family))
    assert set(anatomy.parts) == set(shapes)
    assert anatomy.layers == 2
    assert anatomy.tied == (family in make.TIED)
    assert not any(p.kind == "outside" for p in anatomy.parts.values())
    for layer in range(2):
        assert (
            anatomy.keys(layer=layer, kind="attn")
            and anatomy.keys(layer=layer, kind="ffn")
            and anatomy.keys(layer=layer, kind="norm")
        )


OLD = {  # keys as files on the hub have them, not as they are saved today
    "h.0.attn.bias": Part(0, "outside", "mask"),
    "h.11.attn.c_attn.bias": Part(11, "attn", "qkv"),
    "wte.weight": Part(None, "embed"),
    "wpe.weight": Part(None, "position"),
    "ln_f.bias": Part(None, "final_norm"),
    "gpt_neox.layers.3.attention.masked_bias": Part(3, "outside", "mask"),
    "gpt_neox.layers.3.attention.bias": Part(3, "outside", "mask"),
    "gpt_neox.layers.3.attention.rotary_emb.inv_freq": Part(3, "position", "rotary"),
    "embed_out.weight": Part(None, "head"),
    "model.layers.1.self_attn.rotary_emb.inv_freq": Part(1, "position", "rotary"),
    "model.layers.7.block_sparse_moe.experts.5.w2.weight": Part(7, "ffn", "experts.down", 5),
    "model.layers.7.block_sparse_moe.gate.weight": Part(7, "ffn", "router"),
    "model.layers.7.mlp.experts.12.up_proj.weight": Part(7, "ffn", "experts.up", 12),
    "model.layers.7.mlp.experts.gate_up_proj": Part(7, "ffn", "experts.gate_up"),
    "decoder.layers.2.fc1.bias": Part(2, "ffn", "up"),
    "decoder.final_layer_norm.weight": Part(None, "final_norm"),
    "model.decoder.layers.2.final_layer_norm.weight": Part(2, "norm", "post_attn"),
    "model.decoder.project_in.weight": Part(None, "embed", "project"),
    "word_embeddings_layernorm.bias": Part(None, "embed", "norm"),
    "transformer.h.9.self_attention.query_key_value.weight": Part(9, "attn", "qkv"),
    "language_model.model.layers.4.self_attn.q_norm.weight": Part(4, "norm", "q"),
    "language_model.lm_head.weight": Part(None, "head"),
    "vision_tower.vision_model.encoder.layers.4.self_attn.q_proj.weight": Part(None, "outside"),
    "multi_modal_projector.mm_input_projection_weight": Part(None, "outside"),
}


@pytest.mark.parametrize("key", OLD)
def test_keys_of_hub_files(key):
    assert classify(key) == OLD[key]


@pytest.mark.parametrize("key", ["", "weight", "model.layers.0.mlp.extra.weight", "model.layers.x.mlp.up_proj.weight", "model.layers.0.",
                                 "model.layers.0.self_attn.q_proj.qweight", "transformer.lm_head.extra", "model.layers.0.attention"])  # fmt: skip
def test_unknown_key_is_named_with_the_row_that_would_add_it(key):
    with pytest.raises(InputError) as error:
        classify(key)
    assert error.value.found == key and "anatomy: [{match: '" in error.value.fix


@given(st.text(alphabet="abmlp.weightslayer0123_hnodk", max_size=60))
def test_any_text_is_a_part_or_a_named_refusal(key):
    try:
        assert classify(key).kind in KINDS
    except InputError as error:
        assert error.found == key
        row = error.fix.partition("{match: '")[2].partition("', kind")[0]
        assert classify(key, (Rule(re.compile(row), "ffn", "x"),)).kind == "ffn"  # and the row that it suggests does match


@given(st.sampled_from([*OLD]), st.integers(0, 9999))
def test_layer_numbers_are_read_whole(key, number):
    part = classify(key)
    moved = classify(re.sub(r"(layers|h)\.\d+", rf"\1.{number}", key, count=1))
    assert moved == (part if part.layer is None else replace(part, layer=number))


def test_the_suggested_row_does_add_it():
    key = "model.layers.1.mlp.extra.weight"
    with pytest.raises(InputError) as error:
        Anatomy.of(CONFIG, [*KEYS, key], where="m")
    row = error.value.fix.partition("anatomy: [{match: '")[2].partition("'")[0]
    made = Anatomy.of(CONFIG, [*KEYS, key], extra=[{"match": row, "kind": "ffn", "role": "extra"}])
    assert made.parts[key] == Part(1, "ffn", "extra")
    assert made.rows[-1] == "ffn.extra" and made.live_name(key) == key


@pytest.mark.parametrize(
    "row",
    [{"match": "(", "kind": "ffn"}, {"kind": "ffn"}, {"match": "x", "kind": "fnn"}, {"match": "x", "kind": "ffn", "rol": "q"}],
)
def test_a_malformed_row_is_refused(row):
    with pytest.raises(RecipeError):
        Anatomy.of(CONFIG, KEYS, extra=[row])


@pytest.mark.parametrize("change, words", [
    ({"num_hidden_layers": 3}, "2 is missing"), ({"num_hidden_layers": 1}, "layer 1"), ({"num_hidden_layers": 0}, "how many layers"),
    ({"num_hidden_layers": 10**9}, "how many layers"), ({"num_hidden_layers": None}, "how many layers"), ({"num_hidden_layers": "2"}, "how many"),
])  # fmt: skip
def test_layers_must_agree_with_the_config(change, words):
    with pytest.raises(InputError, match=words):
        Anatomy.of(CONFIG | change, KEYS)


@pytest.mark.parametrize("gone, words", [("lm_head.weight", "no output head"), ("model.embed_tokens.weight", "no token embedding")])
def test_missing_ends_are_refused(gone, words):
    with pytest.raises(InputError, match=words):
        Anatomy.of(CONFIG, [k for k in KEYS if k != gone])


def test_rows_are_in_drawing_order_and_tied_heads_lead_to_the_embedding():
    anatomy = Anatomy.of(CONFIG | {"tie_word_embeddings": True}, [k for k in KEYS if "lm_head" not in k])
    assert anatomy.rows == ["attn.q", "ffn.gate", "ffn.up", "ffn.down"] and anatomy.outside == ["embed", "final_norm"]
    assert anatomy.file_key("lm_head.weight") == "model.embed_tokens.weight"


def test_multimodal_configs_lead_to_their_decoder():
    text = {"model_type": "gemma3_text", "num_hidden_layers": 2, "hidden_size": 8, "intermediate_size": 12, "vocab_size": 16}
    keys = ["vision_tower.x.weight", *("language_model." + k for k in KEYS if "lm_head" not in k)]
    anatomy = Anatomy.of({"model_type": "gemma3", "text_config": text}, keys)
    assert anatomy.tied and anatomy.sizes.heads == 8 and anatomy.sizes.head_dim == 256
    assert (
        anatomy.live_name("language_model.model.layers.1.mlp.up_proj.weight") == "model.language_model.layers.1.mlp.up_proj.weight"
    )
    assert anatomy.live_name("vision_tower.x.weight") is None
