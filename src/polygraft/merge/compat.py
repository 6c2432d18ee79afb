"""Can these checkpoints be merged? Judged from configs and headers alone; the first difference is named with both values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polygraft.checkpoint import Weights
from polygraft.errors import InputError
from polygraft.writer import natural

# Config fields that change what the same weights compute. Sizes that show in a tensor's shape are judged there first.
FIELDS = (
    "model_type",
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "tie_word_embeddings",
    "rms_norm_eps",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "norm_epsilon",
    "hidden_act",
    "hidden_activation",
    "activation_function",
    "sliding_window",
    "layer_types",
    "partial_rotary_factor",
    "rotary_pct",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "query_pre_attn_scalar",
    "logit_scale",
    "use_parallel_residual",
    "num_local_experts",
    "num_experts",
    "num_experts_per_tok",
    "norm_topk_prob",
    "attention_bias",
    "qk_norm",
    "use_qk_norm",
    "alibi",
    "parallel_attn",
    "new_decoder_architecture",
    "do_layer_norm_before",
    "residual_multiplier",
    "embedding_multiplier",
    "attention_multiplier",
    "logits_scaling",
)
ALIASES = {
    "num_hidden_layers": ("n_layer", "num_layers"),
    "hidden_size": ("n_embd", "d_model"),
    "num_attention_heads": ("n_head",),
    "intermediate_size": ("n_inner", "ffn_dim", "ffn_hidden_size"),
    "num_key_value_heads": ("num_kv_heads",),
}
ROPE_DEFAULT = 10000.0
REMEDY = "merge models that were trained from the same base, with the same tokenizer"


def check(models: Sequence[tuple[str, Weights]]) -> None:
    """Raise InputError unless all models have the same tensors, dtypes and meaning; the first of (name, weights) leads."""
    for name, model in models:
        _unquantised(name, model)
    lead_name, lead = models[0]
    for name, other in models[1:]:
        _same_tensors(lead_name, lead, name, other)
        _same_config(lead_name, lead.config, name, other.config)


def _unquantised(name: str, model: Weights) -> None:
    quantised = model.config.get("quantization_config")
    method = quantised.get("quant_method", "quantized") if isinstance(quantised, dict) else quantised
    if quantised:
        raise InputError(
            "the model is quantised and cannot be blended",
            where=name,
            found=f"quantization_config: {method}",
            expected="bf16, fp16 or fp32 weights",
            fix="name the unquantised model that it was made from",
        )
    for key, info in model.tensors.items():
        if info.dtype.startswith(("F8", "F6", "F4")) or (info.dtype in ("I8", "U8", "I32") and key.endswith(("weight", "qweight"))):
            raise InputError(
                "the tensor is quantised and cannot be blended",
                where=f"{name}: {key}",
                found=info.dtype,
                expected="BF16, F16 or F32",
                fix="name the unquantised model that it was made from",
            )


def _same_tensors(a: str, first: Weights, b: str, second: Weights) -> None:
    for key in sorted(first.tensors.keys() | second.tensors.keys(), key=natural):
        one, two = first.tensors.get(key), second.tensors.get(key)
        if one is None or two is None:
            has, lacks = (a, b) if two is None else (b, a)
            _differ(key, has, "present", lacks, "absent", _why(first.config, second.config, a, b))
        elif tuple(one.shape) != tuple(two.shape):
            _differ(key, a, f"shape {list(one.shape)}", b, f"shape {list(two.shape)}", _why(first.config, second.config, a, b))
        elif one.dtype != two.dtype:
            _differ(key, a, one.dtype, b, two.dtype, "convert one of them, so that both have the same number format")


def _differ(key: str, a: str, one: object, b: str, two: object, fix: str = REMEDY) -> None:
    raise InputError(
        "the models differ and cannot be merged",
        where=key,
        found=f"{a}: {one}; {b}: {two}",
        expected="the same in every model",
        fix=fix,
    )


def _why(one: Mapping[str, Any], two: Mapping[str, Any], a: str, b: str) -> str:
    """The config field behind a difference of tensors, when there is one."""
    for field, x, y in _differing(one, two):
        return f"{REMEDY} (config {field}: {a} has {x}, {b} has {y})"
    return REMEDY


def _same_config(a: str, one: Mapping[str, Any], b: str, two: Mapping[str, Any]) -> None:
    for field, x, y in _differing(one, two):
        _differ(f"config.json {field}", a, x, b, y)


def _differing(one: Mapping[str, Any], two: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    x, y = meaning(one), meaning(two)
    return [(f, x[f], y[f]) for f in x if f in y and x[f] != y[f]]


def meaning(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that matter, in one spelling: aliases resolved, derived sizes and rope filled in. Absent ones are left out."""
    config = {**config, **_text_config(config)}
    out: dict[str, Any] = {}
    for field in FIELDS:
        value = next((config[n] for n in (field, *ALIASES.get(field, ())) if config.get(n) is not None), None)
        if value is not None:
            out[field] = value
    heads = out.get("num_attention_heads")
    if isinstance(heads, int) and heads > 0:
        out.setdefault("num_key_value_heads", heads)
        if isinstance(out.get("hidden_size"), int):
            out.setdefault("head_dim", out["hidden_size"] // heads)
    return out | _rope(config)


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    nested = config.get("text_config")
    return nested if isinstance(nested, dict) else {}


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary settings of transformers 4 (rope_theta, rope_scaling) and 5 (rope_parameters) in one form."""
    both = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(both, dict):
        return {"rope": both}
    if any(isinstance(v, dict) for v in both.values()):  # one set per kind of layer
        return {"rope": {k: _rope({"rope_parameters": v}) for k, v in both.items()}}
    scaling = {
        k: v for k, v in both.items() if k not in ("rope_theta", "type", "rope_type", "partial_rotary_factor") and v is not None
    }
    kind = both.get("rope_type") or both.get("type") or "default"
    theta = both.get("rope_theta") or config.get("rope_theta") or config.get("rotary_emb_base") or ROPE_DEFAULT
    return {"rope theta": float(theta), "rope scaling": {"type": kind, **scaling}}


def check_donor(donor: str, config: Mapping[str, Any], model: Weights, layers: int, tied: bool) -> None:
    """Config and tokenizer come from the donor: they must describe the result. Raises InputError."""
    said = meaning(config)
    if said.get("num_hidden_layers", layers) != layers:
        _differ("config.json num_hidden_layers", donor, said["num_hidden_layers"], "the result", layers)
    if "tie_word_embeddings" in config and bool(config["tie_word_embeddings"]) != tied:
        _differ("config.json tie_word_embeddings", donor, config["tie_word_embeddings"], "the result", tied)
    rows = max(
        (
            t.shape[0]
            for k, t in model.tensors.items()
            if k.endswith(("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight")) and len(t.shape) == 2
        ),
        default=None,
    )
    if rows is not None and isinstance(said.get("vocab_size"), int) and said["vocab_size"] > rows:
        _differ("config.json vocab_size", donor, said["vocab_size"], "the result", f"{rows} rows of embedding")
