"""Models wired so that only known layers hear which language is read: those layers are chosen, from text, in one run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tiny as make
from polygraft import arrays
from polygraft.analysis.layers import steps
from polygraft.errors import InputError
from polygraft.sources import resolve
from polygraft.step import Context

ALPHABETS = {"en": "abcdefgh", "de": "ijklmnop", "sw": "qrstuvwx"}  # letter i of each is the same word
LAYERS, PLANTED = 6, (0, 2)
CONTEXT = Context(resolve, Path)


def wired(root, family):
    """Every layer sees the letter (dimensions 3 and up); only the planted ones see the language (dimensions 0 to 2)."""
    import torch

    model, tokenizer = make.model(family, layers=LAYERS), make.tokenizer()
    rng = np.random.default_rng(0)
    letters = rng.normal(0, 1, (8, make.HIDDEN - 3))
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        for k, alphabet in enumerate(ALPHABETS.values()):
            for letter, value in zip(alphabet, letters):
                row = np.concatenate([2.0 * np.eye(3)[k], value])
                table[tokenizer.convert_tokens_to_ids(letter)] = torch.tensor(row, dtype=torch.float32)
        for i, layer in enumerate(model.model.layers):
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
            inward = layer.mlp.gate_up_proj if family == "phi3" else layer.mlp.gate_proj
            layer.post_attention_layernorm.weight.fill_(1.0)
            if i not in PLANTED:
                inward.weight[:, :3] = 0
    model.save_pretrained(root)
    tokenizer.save_pretrained(root)
    return root


def texts(root, alike=False):
    """The same documents in three alphabets; `alike`: all in the first."""
    rng = np.random.default_rng(1)
    lines = ["".join(rng.choice(list(ALPHABETS["en"]), 40)) for _ in range(30)]
    found = {}
    for language, alphabet in ALPHABETS.items():
        turned = lines if alike else [line.translate(str.maketrans(ALPHABETS["en"], alphabet)) for line in lines]
        found[language] = root / f"{language}{alike}.txt"
        found[language].write_text("\n".join(turned))
    return {language: str(path) for language, path in found.items()}


@pytest.mark.parametrize("family", ["llama", "phi3"])
def test_the_layers_that_hear_the_language_are_chosen(tmp_path, family):
    model = wired(tmp_path / "model", family)
    out = tmp_path / "out"
    out.mkdir()
    config = steps.Deviation(model=str(model), corpus=texts(tmp_path), parallel=True, window=64, within="all", top=2, draws=20)
    result = steps.run(config, CONTEXT, out)
    msd = arrays.Arrays(out / "deviation.safetensors")["msd"]
    assert result.data["chosen"] == list(PLANTED)
    assert (msd[list(PLANTED)] > 1e-3).all() and np.delete(msd, PLANTED).max() < 1e-6  # the rest: rounding of one norm
    assert min(result.data["fewer"].values()) == max(result.data["fewer"].values()) == list(PLANTED)

    (same := tmp_path / "same").mkdir()
    with pytest.raises(InputError, match="no layer tells the languages apart"):
        steps.run(config.model_copy(update={"corpus": texts(tmp_path, alike=True)}), CONTEXT, same)
