"""The oracle of group P: a written model folder opens with the reference reader and loads with transformers, nothing left over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def assert_reloads(folder: Path, *, tokens: int = 24) -> Any:
    """Reference safetensors on every shard, index complete, transformers `missing == unexpected == []`, finite logits.

    Returns the loaded model, so that a test may compare its logits with an oracle.
    """
    import torch
    import transformers as hf
    from safetensors import safe_open

    shards = sorted(set(folder.glob("*.safetensors")) - {folder / "masks.safetensors"})
    assert shards, f"no safetensors in {folder}"
    owner: dict[str, str] = {}
    for shard in shards:
        with safe_open(shard, "pt") as opened:
            for key in list(opened.keys()):
                assert key not in owner, f"{key} is in {owner[key]} and {shard.name}"
                owner[key] = shard.name
                assert torch.isfinite(opened.get_tensor(key).float()).all(), f"{key} is not finite"
    index = folder / "model.safetensors.index.json"
    assert index.exists() == (len(shards) > 1 or (folder / "masks.safetensors").exists())  # loaders of all files need it there
    if index.exists():
        assert json.loads(index.read_text())["weight_map"] == owner
    load: Any = hf.AutoModelForCausalLM.from_pretrained
    model, info = load(folder, output_loading_info=True, local_files_only=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
    vocab = model.config.get_text_config().vocab_size
    ids = torch.randint(0, vocab, (1, tokens), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.isfinite(model.eval()(ids).logits).all()
    if (folder / "tokenizer.json").exists():
        assert len(hf.AutoTokenizer.from_pretrained(folder, local_files_only=True)) <= vocab
    return model
