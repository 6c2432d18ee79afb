"""Llama-shaped model folders made with numpy alone: for tests that must be fast, or run in a process without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from polygraft.checkpoint import Checkpoint
from polygraft.floats import from_f32, to_f32
from polygraft.header import build

TOKENIZER = {
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2}, "merges": []},
    "added_tokens": [{"id": 3, "content": "<s>"}],
}


def shapes(
    layers: int = 4, hidden: int = 16, ffn: int = 24, heads: int = 4, kv: int = 2, vocab: int = 40, tied: bool = False
) -> dict[str, tuple]:
    """Keys and shapes of a llama."""
    dim = hidden // heads
    layer = {"self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (kv * dim, hidden), "self_attn.v_proj": (kv * dim, hidden),
             "self_attn.o_proj": (hidden, hidden), "mlp.gate_proj": (ffn, hidden), "mlp.up_proj": (ffn, hidden), "mlp.down_proj": (hidden, ffn),
             "input_layernorm": (hidden,), "post_attention_layernorm": (hidden,)}  # fmt: skip
    out = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)} | (
        {} if tied else {"lm_head.weight": (vocab, hidden)}
    )
    return out | {f"model.layers.{i}.{k}.weight": s for i in range(layers) for k, s in layer.items()}


def config(
    layers: int = 4, hidden: int = 16, ffn: int = 24, heads: int = 4, kv: int = 2, vocab: int = 40, tied: bool = False
) -> dict[str, Any]:
    return {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": layers, "hidden_size": hidden,
            "intermediate_size": ffn, "num_attention_heads": heads, "num_key_value_heads": kv, "vocab_size": vocab, "rms_norm_eps": 1e-6,
            "tie_word_embeddings": tied, "rope_theta": 10000.0, "hidden_act": "silu", "max_position_embeddings": 128}  # fmt: skip


def values(sizes: Mapping[str, tuple], seed: int = 0, noise: float = 0.0) -> dict[str, np.ndarray]:
    """Random float32 tensors; with `noise`, those of seed 0 plus noise * N(0, 1) of this seed."""
    base = np.random.default_rng(0 if noise else seed)
    drawn = {k: base.normal(0, 0.2, s).astype(np.float32) for k, s in sizes.items()}
    if noise:
        own = np.random.default_rng(seed)
        drawn = {k: v + (own.normal(0, noise, v.shape)).astype(np.float32) for k, v in drawn.items()}
    return drawn


def write(folder: Path, tensors: Mapping[str, np.ndarray], settings: Mapping[str, Any], *, dtype: str = "BF16", shards: int = 1,
          tokenizer: Any = TOKENIZER) -> Path:  # fmt: skip
    """A model folder with these tensors, cut into `shards` files."""
    folder.mkdir(parents=True)
    keys = list(tensors)
    groups = [keys[i::shards] for i in range(shards)]
    names = ["model.safetensors"] if shards == 1 else [f"model-{i + 1:05d}-of-{shards:05d}.safetensors" for i in range(shards)]
    for name, group in zip(names, groups, strict=True):
        head, infos = build({k: (dtype, tensors[k].shape) for k in group}, {"format": "pt"}, name)
        (folder / name).write_bytes(head + b"".join(from_f32(tensors[t.key], dtype) for t in infos))
    if shards > 1:
        index = {
            "metadata": {"total_size": sum(t.size for t in tensors.values())},
            "weight_map": {k: n for n, g in zip(names, groups) for k in g},
        }
        index["metadata"]["total_size"] *= {"BF16": 2, "F16": 2, "F32": 4}[dtype]
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(dict(settings)))
    if tokenizer is not None:
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


def llama(folder: Path, *, seed: int = 0, noise: float = 0.0, dtype: str = "BF16", shards: int = 1, change: Mapping[str, Any] | None = None,
          **sizes: Any) -> Path:  # fmt: skip
    """A random llama; `change` goes over its config."""
    return write(folder, values(shapes(**sizes), seed, noise), config(**sizes) | dict(change or {}), dtype=dtype, shards=shards)


def read(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor in float64."""
    model = Checkpoint.open(folder)
    return {k: to_f32(model.read(k), t.dtype).astype(np.float64).reshape(t.shape) for k, t in model.tensors.items()}


def raw(folder: Path) -> dict[str, bytes]:
    model = Checkpoint.open(folder)
    return {k: model.read(k) for k in model.tensors}


def rounded(x: np.ndarray, dtype: str) -> np.ndarray:
    """float64 values rounded to a checkpoint's number format and back."""
    return to_f32(from_f32(x.astype(np.float32), dtype), dtype).astype(np.float64).reshape(x.shape)
