"""Models of any family whose neurons are wired to fire on one language's tokens and on nothing else.

Languages are alphabets that correspond letter by letter: all that the rest of the model sees is which letter it is, so that every
other neuron fires equally often in every language.
"""

from __future__ import annotations

import numpy as np

import tiny
from polygraft.model import load_folder, rows, view
from wired import ALPHABETS

CONSTANT = len(ALPHABETS)  # dimensions 0 ... say the language, this one is the same for every token, the rest the letter
EACH = 2  # planted neurons of a language in every layer


def plant(folder, seed=0):
    """(live model, {language: {(layer, neuron)}}). Nothing is added to the stream, so every layer sees the token's embedding."""
    import torch

    live, rng = load_folder(folder), np.random.default_rng(seed)
    with torch.no_grad():
        for key, part in live.anatomy.parts.items():
            value = view(live.model, live.anatomy, key)
            if value is None:
                continue
            if part.kind == "norm" or "norm" in part.label:
                value.fill_(0.0 if key.endswith("bias") else 1.0)
            elif part.kind == "position" or part.role.rpartition(".")[2] in ("o", "down"):
                value.zero_()
            elif part.role.rpartition(".")[2] == "router":
                value.zero_()
                value[:2, CONSTANT] = 5.0  # the first two experts always, the third never
        _embed(live)
        wired = {language: set() for language in ALPHABETS}
        for layer in range(live.anatomy.layers):
            _wire(live, layer, wired, rng)
    return live, wired


def _embed(live):
    import torch

    weight, g = live.model.get_input_embeddings().weight, torch.Generator().manual_seed(0)
    size = len(next(iter(ALPHABETS.values())))
    letters = torch.randn((size, weight.shape[1] - CONSTANT - 1), generator=g)
    letters -= letters.mean(1, keepdim=True)
    for k, alphabet in enumerate(ALPHABETS.values()):
        ids = live.tokenizer(alphabet, add_special_tokens=False)["input_ids"]
        weight[ids, : len(ALPHABETS)] = -1.0
        weight[ids, k] = 2.0
        weight[ids, CONSTANT] = 1.0
        weight[ids, CONSTANT + 1 :] = letters


def _wire(live, layer, wired, rng):
    """Gate (or up where there is none): own dimension for planted neurons, letters alone for the others."""
    first = 0
    blocks = live.anatomy.neurons(layer)
    busy = blocks[:2] if len(blocks) > 1 else blocks
    for block in blocks:
        chosen = rng.permutation(block.size)[: len(ALPHABETS) * EACH].reshape(len(ALPHABETS), EACH)
        chosen = chosen[:, : EACH // len(busy)] if block in busy else chosen[:, :0]
        for address in block.gate or block.up:
            value = rows(live.model, live.anatomy, address)
            value = value.T if address.axis else value
            if value.dim() == 1:
                value.zero_()
                continue
            value[:, : CONSTANT + 1] = 0.0
            for k, own in enumerate(chosen):
                value[own] = 0.0
                value[own, k] = 1.0
        for language, own in zip(ALPHABETS, chosen):
            wired[language] |= {(layer, first + int(j)) for j in own}
        first += block.size


def write(root, documents=24, length=40, seed=0):
    """{language: path} of parallel texts, a document a line: the same letters by number, in each language's alphabet."""
    drawn = np.random.default_rng(seed).integers(0, len(next(iter(ALPHABETS.values()))), (documents, length))
    out = {}
    for language, alphabet in ALPHABETS.items():
        out[language] = root / f"{language}.txt"
        out[language].write_text("".join("".join(alphabet[i] for i in row) + "\n" for row in drawn))
    return out


def folder(root, family, **more):
    """A tiny model's folder to plant in."""
    return tiny.folder(root, family, **more)
