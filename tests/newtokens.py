"""A tiny model's tokenizer with more tokens, as a folder: merges learnt from text, every old id kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from test_tokenfile import TEXT, byte_level

BESIDE = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def extended(model: Path, out: Path, *, more: int = 60, specials: tuple[str, ...] = (), text: list[str] = TEXT) -> Path:
    """`model`'s byte-level tokenizer with about `more` merged tokens of `text` and further control tokens behind its own."""
    out.mkdir(parents=True)
    tree = json.loads((model / "tokenizer.json").read_text())
    learnt = json.loads(byte_level(256 + more, text, ()).to_str())["model"]
    vocab, merges = tree["model"]["vocab"], tree["model"]["merges"]
    for pair in learnt["merges"]:
        if (token := "".join(pair)) not in vocab:
            vocab[token] = max(vocab.values()) + 1
            merges.append(pair)
    for name in specials:
        vocab[name] = max(vocab.values()) + 1
        tree["added_tokens"].append({"id": vocab[name], "content": name, "single_word": False, "lstrip": False, "rstrip": False,
                                     "normalized": False, "special": True})
    (out / "tokenizer.json").write_text(json.dumps(tree))
    for name in BESIDE:
        if (model / name).is_file():
            shutil.copy(model / name, out / name)
    return out
