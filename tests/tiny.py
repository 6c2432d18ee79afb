"""Tiny random decoders of every contract family, written as real model folders: config, safetensors, tokenizer.

`folder(root, "llama", layers=4, seed=1)` writes one and gives its path; the `tiny` fixture in conftest caches them for the session.
Every parameter is random (norms and biases too), so that nothing can hide behind a zero or a one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

FAMILIES = ("llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gemma2", "gemma3", "phi3",
            "gpt2", "gpt_neox", "opt", "falcon", "bloom", "cohere", "olmo2")  # fmt: skip
TIED = ("gemma2", "gemma3", "gpt2", "opt", "falcon", "bloom", "cohere")
MOE = ("mixtral", "qwen3_moe")
VOCAB = 264  # 256 bytes and 4 specials, padded to a multiple of 8: the usual case of more rows than tokens
HIDDEN, FFN, HEADS, KV_HEADS, EXPERTS = 32, 48, 4, 2, 3
CHAT = (
    "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


def config(family: str, layers: int = 2, **more: Any) -> Any:
    """The transformers config of a tiny model: hidden 32, ffn 48, 4 heads over 2 key-value heads where the family has them."""
    import transformers as hf

    common = {"vocab_size": VOCAB, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    llama = common | {"hidden_size": HIDDEN, "intermediate_size": FFN, "num_hidden_layers": layers, "num_attention_heads": HEADS,
                      "num_key_value_heads": KV_HEADS, "max_position_embeddings": 128}  # fmt: skip
    plain = common | {
        "hidden_size": HIDDEN,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "max_position_embeddings": 128,
    }
    short = common | {"n_layer": layers, "n_head": HEADS}
    head_dim = {"head_dim": 8}
    moe = {"moe_intermediate_size": 24, "num_experts": EXPERTS, "num_experts_per_tok": 2}
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "llama": ("LlamaConfig", llama),
        "mistral": ("MistralConfig", llama | head_dim),
        "mixtral": ("MixtralConfig", llama | {"num_local_experts": EXPERTS, "num_experts_per_tok": 2}),
        "qwen2": ("Qwen2Config", llama),
        "qwen3": ("Qwen3Config", llama | head_dim),
        "qwen3_moe": ("Qwen3MoeConfig", llama | head_dim | moe),
        "gemma2": ("Gemma2Config", llama | head_dim | {"query_pre_attn_scalar": 8}),
        "gemma3": ("Gemma3TextConfig", llama | head_dim | {"query_pre_attn_scalar": 8}),
        "phi3": ("Phi3Config", llama),
        "gpt2": ("GPT2Config", short | {"n_embd": HIDDEN, "n_positions": 128, "n_inner": FFN}),
        "gpt_neox": ("GPTNeoXConfig", plain | {"intermediate_size": FFN}),
        "opt": ("OPTConfig", plain | {"ffn_dim": FFN, "word_embed_proj_dim": HIDDEN}),
        "falcon": ("FalconConfig", plain | {"ffn_hidden_size": FFN, "num_kv_heads": KV_HEADS, "new_decoder_architecture": True}),
        "bloom": ("BloomConfig", short | {"hidden_size": HIDDEN}),
        "cohere": ("CohereConfig", llama | {"logit_scale": 1.0}),
        "olmo2": ("Olmo2Config", llama),
    }
    name, values = kinds[family]
    return getattr(hf, name)(**(values | more))


def model(family: str, *, layers: int = 2, seed: int = 0, noise: float = 0.0, dtype: str = "float32", **more: Any) -> Any:
    """A random causal LM in eval mode. With `noise`, the model of seed 0 plus `noise` * N(0, 1) of `seed`: a sibling."""
    import torch
    import transformers as hf

    net = hf.AutoModelForCausalLM.from_config(config(family, layers, **more), dtype=torch.float32)
    first, second = torch.Generator().manual_seed(0 if noise else seed), torch.Generator().manual_seed(seed + 1000)
    with torch.no_grad():
        for name, value in net.named_parameters():
            is_gain = value.dim() == 1 and name.endswith("weight")
            drawn = torch.randn(value.shape, generator=first) * 0.2 + float(is_gain)
            value.copy_(drawn + noise * torch.randn(value.shape, generator=second) if noise else drawn)
    return net.to(getattr(torch, dtype)).eval()


def tokenizer(chat: bool = True) -> Any:
    """A byte-level tokenizer: 4 specials (<pad> <s> </s> <unk>) and 256 bytes, one token a byte, lossless for any text."""
    import transformers as hf
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    specials = ["<pad>", "<s>", "</s>", "<unk>"]
    vocab = {token: i for i, token in enumerate([*specials, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    made = hf.PreTrainedTokenizerFast(tokenizer_object=core, **names)
    if chat:
        made.chat_template = CHAT
    return made


def folder(root: Path, family: str = "llama", *, chat: bool = True, shard: str = "50GB", **more: Any) -> Path:
    """Write a tiny model folder under `root` and return its path; `shard="20KB"` makes it many-sharded."""
    name = "-".join([family, *(f"{k}={v}" for k, v in sorted({"chat": chat, "shard": shard, **more}.items()))]).replace("/", "_")
    out = root / name
    if not (out / "tokenizer.json").exists():
        model(family, **more).save_pretrained(out, max_shard_size=shard)
        tokenizer(chat).save_pretrained(out)
    return out
