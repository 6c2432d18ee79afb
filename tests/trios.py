"""Three tiny models that belong together: a base, an instruct model of it, and a donor: the base with more tokens and trained rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from newtokens import BESIDE, extended
from polygraft.anatomy import Anatomy
from polygraft.checkpoint import Checkpoint
from polygraft.floats import from_f32
from polygraft.tokenfile import Vocabulary
from polygraft.vocab.pieces import decompose
from polygraft.vocab.tables import stored
from polygraft.writer import CheckpointWriter

CONTROL = ("<|im_start|>", "<|im_end|>")
CHAT = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" \
       "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
Tensors = dict[str, np.ndarray]


def read(folder: Path) -> tuple[Tensors, dict[str, Any], dict[str, tuple[str, int]]]:
    """Every float tensor as float32, the config, and the tensors with a row a token: key -> (side, dimensions)."""
    c = Checkpoint.open(folder)
    return ({k: c.f32(k).reshape(t.shape) for k, t in c.tensors.items()}, c.config,
            stored(c, Anatomy.of(c.config, c.tensors)))


def write(out: Path, tensors: Mapping[str, np.ndarray], config: Mapping[str, Any], tokenizer: Path, dtype: str = "F32") -> Path:
    """A model folder with the tokenizer's files of another."""
    out.mkdir(parents=True, exist_ok=True)
    with CheckpointWriter(out, {k: (dtype, v.shape) for k, v in tensors.items()}) as writer:
        for key, value in tensors.items():
            writer.write(key, [from_f32(np.ascontiguousarray(value, np.float32).reshape(-1), dtype)])
        writer.close()
    (out / "config.json").write_text(json.dumps(dict(config)))
    for name in ("tokenizer.json", *BESIDE, "generation_config.json"):
        if (tokenizer / name).is_file() and tokenizer != out:
            shutil.copy(tokenizer / name, out / name)
    return out


def instruct(base: Path, out: Path, change: Callable[[str, np.ndarray], np.ndarray]) -> Path:
    """`base` with every tensor changed, two control tokens of its own in its padding, and a chat template that uses them."""
    tensors, config, _ = read(base)
    out.mkdir(parents=True)
    tree = json.loads((base / "tokenizer.json").read_text())
    first = Vocabulary.open(base).size
    tree["added_tokens"] += [tree["added_tokens"][1] | {"id": first + n, "content": name} for n, name in enumerate(CONTROL)]
    (out / "tokenizer.json").write_text(json.dumps(tree))
    settings = json.loads((base / "tokenizer_config.json").read_text()) | {"eos_token": CONTROL[1]}
    (out / "tokenizer_config.json").write_text(json.dumps(settings))
    (out / "chat_template.jinja").write_text(CHAT)
    (out / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, first + 1], "pad_token_id": 0}))
    return write(out, {k: change(k, v) for k, v in tensors.items()}, config | {"eos_token_id": first + 1}, out)


def donor(base: Path, out: Path, *, noise: float = 0.0, seed: int = 5, more: int = 60, padding: int = 8) -> Path:
    """`base` with more tokens: rows are the means of their pieces, with noise as from training; rows padded to a multiple."""
    return trained(base, extended(base, out, more=more), out, noise, seed, padding)


def replaced(base: Path, out: Path, core: Any) -> Path:
    """`base` with another tokenizer altogether."""
    out.mkdir(parents=True)
    core.save(str(out / "tokenizer.json"))
    (out / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}))
    return trained(base, out, out, 0.1, 5, 8)


def trained(base: Path, tokenizer: Path, out: Path, noise: float, seed: int, padding: int) -> Path:
    """`base` with this tokenizer."""
    tensors, config, tables = read(base)
    made = decompose(Vocabulary.open(base), Vocabulary.open(tokenizer))
    rows = -(-len(made) // padding) * padding
    t = np.zeros((rows, len(next(v for k, v in tensors.items() if k in tables))))
    for i in range(len(made)):
        np.add.at(t[i], made.of(i), 1 / max(1, len(made.of(i))))
    rng = np.random.default_rng(seed)
    for key in tables:
        values = t @ tensors[key].astype(np.float64)
        tensors[key] = (values + noise * rng.normal(size=values.shape)).astype(np.float32)
    if config.get("tie_word_embeddings") and "lm_head.weight" in tensors:
        tensors["lm_head.weight"] = next(tensors[k] for k in tables if k != "lm_head.weight")
    return write(out, tensors, config | {"vocab_size": rows}, tokenizer)


def noisy(amount: float, seed: int = 3) -> Callable[[str, np.ndarray], np.ndarray]:
    """A fine-tuning that is noise."""
    rng = np.random.default_rng(seed)
    return lambda key, value: (value + amount * rng.normal(size=value.shape)).astype(np.float32)
