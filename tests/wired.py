"""A tiny llama wired by hand: neurons that help to predict one language's bytes, and, where asked, some that hinder it."""

from __future__ import annotations

import numpy as np

import tiny

ALPHABETS = {"aa": "abcdefghijklm", "bb": "nopqrstuvwxyz", "cc": "NOPQRSTUVWXYZ"}
OWN = {"aa": [0, 1, 2, 3], "bb": [4, 5, 6, 7], "cc": [8, 9, 10, 11]}  # neurons of layer 0 that write "this language goes on"
HINDER = [0, 1, 2, 3]  # neurons of layer 1 that fire on "aa" and write that it does not
FIRST_PLAIN = 12  # neurons of both layers from here on are random


def folder(root, *, hinder=False, seed=0):
    """A model folder. Languages are alphabets; width 32: 0-2 "what is read", 3-5 "what comes next", the rest noise."""
    import torch

    net, tokenizer, g = tiny.model("llama", seed=seed), tiny.tokenizer(), torch.Generator().manual_seed(seed)
    wide = 8

    def noise(*shape):
        return torch.randn(shape, generator=g) * 0.2

    with torch.no_grad():
        for p in net.parameters():
            p.fill_(1.0) if p.dim() == 1 else p.zero_()
        embed, head = net.get_input_embeddings().weight, net.lm_head.weight
        embed[:, wide:], head[:, wide:] = noise(len(embed), 32 - wide), noise(len(head), 32 - wide)
        for layer in net.model.layers:
            mlp = layer.mlp
            mlp.gate_proj.weight[FIRST_PLAIN:, wide:] = noise(48 - FIRST_PLAIN, 32 - wide)
            mlp.up_proj.weight[FIRST_PLAIN:, wide:] = noise(48 - FIRST_PLAIN, 32 - wide)
            mlp.down_proj.weight[wide:, FIRST_PLAIN:] = noise(32 - wide, 48 - FIRST_PLAIN)
        for i, (language, letters) in enumerate(ALPHABETS.items()):
            ids = tokenizer(letters, add_special_tokens=False)["input_ids"]
            embed[ids, i], head[ids, 3 + i] = 1.0, 1.0
            _neurons(net.model.layers[0].mlp, OWN[language], reads=i, writes=3 + i, strength=1.0)
        if hinder:
            _neurons(net.model.layers[1].mlp, HINDER, reads=0, writes=3, strength=-100.0)
    out = root / f"wired-{hinder}-{seed}"
    net.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


def _neurons(mlp, rows, *, reads, writes, strength):
    mlp.gate_proj.weight[rows, reads], mlp.up_proj.weight[rows, reads] = 1.0, 1.0
    mlp.down_proj.weight[writes, rows] = strength / len(rows)


def texts(documents=12, length=24, seed=0):
    """Random documents of each language."""
    rng = np.random.default_rng(seed)
    return {language: ["".join(rng.choice(list(letters), length)) for _ in range(documents)]
            for language, letters in ALPHABETS.items()}
