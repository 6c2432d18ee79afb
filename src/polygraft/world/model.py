"""A random llama of a few million parameters and a tokenizer for a world's languages, as a model folder."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SPECIALS = ("<pad>", "<s>", "</s>")
LONGEST = 8192  # entries of the vocabulary: every word and syllable that is needed, with room to spare
HEAD = 32  # values of one attention head


def tokenizer(texts: Iterable[str]) -> Any:
    """Byte-level BPE learnt from texts: any text can be written, and every word of theirs that occurs twice is one token."""
    import transformers as hf
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=LONGEST, min_frequency=2, special_tokens=list(SPECIALS), show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))  # fmt: skip
    return hf.PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def write(folder: Path, texts: Iterable[str], *, layers: int, hidden: int, ffn: int, length: int, seed: int) -> int:
    """Write the model with float32 weights drawn from the seed and its tokenizer. Returns its parameters."""
    import torch
    import transformers as hf

    from polygraft.model import quiet

    words = tokenizer(texts)
    heads = hidden // HEAD
    config = hf.LlamaConfig(
        vocab_size=-(-len(words) // 8) * 8, hidden_size=hidden, intermediate_size=ffn, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=length, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, tie_word_embeddings=False, initializer_range=hidden**-0.5)  # fmt: skip
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        net = hf.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():  # what is added to the stream starts small, as in GPT-2: the deep model learns sooner
            for layer in net.model.layers:
                layer.self_attn.o_proj.weight.mul_((2 * layers) ** -0.5)
                layer.mlp.down_proj.weight.mul_((2 * layers) ** -0.5)
        net.save_pretrained(folder)
        words.save_pretrained(folder)
    return sum(p.numel() for p in net.parameters())


def windows(layers: int, size: int, count: int, seed: int) -> dict[str, tuple[int, ...]]:
    """`count` different sets of `size` layers drawn at random, by name; fewer where there are no more: what a choice of layers has
    to beat."""
    rng, size = random.Random(f"windows/{seed}"), min(size, layers)
    found: list[tuple[int, ...]] = []
    while len(found) < min(count, math.comb(layers, size)):
        drawn = tuple(sorted(rng.sample(range(layers), size)))
        if drawn not in found:
            found.append(drawn)
    return {f"random.{i}": w for i, w in enumerate(found)}


def parameters(*, layers: int, hidden: int, ffn: int, vocabulary: int) -> int:
    """Parameters of such a model: embedding and head apart, biases nowhere."""
    return layers * (4 * hidden * hidden + 3 * hidden * ffn + 2 * hidden) + hidden + 2 * vocabulary * hidden
