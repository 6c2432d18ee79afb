"""Pairs of experts whose best window is known: a healthy decoder whose layers were divided among two experts, the others damaged.

The language expert has the healthy bottom and top layers, the task expert the healthy middle; every other layer of either is the
healthy one plus noise. What lies outside the layers is the same in all. The texts are the healthy decoder's own words, so that no
model predicts them better: the swap of exactly these layers is the healthy decoder, bit for bit, and every other window is damaged.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import tiny

LETTERS = "abcdefghijklmnopqrstuvwxyz ,."


@dataclass(frozen=True)
class Pair:
    """Folders of both experts, a corpus (.jsonl), and the window that is planted."""

    task: Path
    language: Path
    corpus: Path
    layers: int
    bottom: int
    top: int


def pair(root: Path, *, layers: int = 6, seed: int = 0, documents: int = 40, tokens: int = 40, noise: float = 0.4) -> Pair:
    """Write both experts and the corpus below `root`; the window depends on the seed: 1 to 3 layers at the bottom, 1 or 2 on top."""
    import torch

    bottom, top = 1 + seed % 3, 1 + seed // 3 % 2
    healthy = tiny.model("llama", layers=layers, seed=seed)
    with torch.no_grad():
        healthy.lm_head.weight.mul_(2.0)  # surer of its words, so that damage shows in fewer of them
    root.mkdir(parents=True, exist_ok=True)
    swapped = [i for i in range(layers) if i < bottom or i >= layers - top]
    for name, damaged in (("task", swapped), ("language", [i for i in range(layers) if i not in swapped])):
        _damaged(healthy, damaged, noise, seed + 1000 * (name == "task")).save_pretrained(root / name)
        tiny.tokenizer().save_pretrained(root / name)
    texts = words(healthy, documents, tokens, seed)
    (root / "own.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    return Pair(root / "task", root / "language", root / "own.jsonl", layers, bottom, top)


def _damaged(healthy, layers: list[int], noise: float, seed: int):
    import copy

    import torch

    made, g = copy.deepcopy(healthy), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for i in layers:
            for value in made.model.layers[i].parameters():
                value.add_(noise * torch.randn(value.shape, generator=g))
    return made


def words(model, documents: int, tokens: int, seed: int) -> list[str]:
    """Texts drawn from the model, of the letters that anything can read."""
    import torch

    coder = tiny.tokenizer()
    allowed = torch.tensor([coder(c, add_special_tokens=False)["input_ids"][0] for c in LETTERS])
    ids = torch.full((documents, 1), coder.bos_token_id)
    g = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        for _ in range(tokens):
            logits = model(ids).logits[:, -1, allowed].float()
            drawn = torch.multinomial(logits.softmax(-1), 1, generator=g)
            ids = torch.cat([ids, allowed[drawn]], 1)
    return ["".join(LETTERS[allowed.tolist().index(i)] for i in row[1:].tolist()) for row in ids]


def hunt(root: Path, seed: int) -> tuple[bool, bool]:
    """(is the planted window found, is every random window rejected by the held-out items) of one pair, searched as `merge search`
    does, over windows up to one layer wider at either side."""
    from polygraft.choose.search.config import Search
    from polygraft.choose.search.steps import STEPS
    from polygraft.recipe import run_step

    p = pair(root / "pair", seed=seed)
    config = Search(task=(str(p.task),), language=(str(p.language),), tasks=(), corpora={"en": str(p.corpus)}, windows=2,
                    bottoms=f"0..{p.bottom + 1}", tops=f"0..{p.top + 1}", seed=seed)
    made = run_step(STEPS[0], config, root / "out", offline=True).data
    chosen = made["chosen"]["params"]
    drawn = [d for d in made["differences"] if d["kind"] == "random" and d["finalist"] == made["chosen"]["name"]]
    return (chosen["bottom"], chosen["top"]) == (p.bottom, p.top), bool(drawn) and all(d["verdict"] == "better" for d in drawn)
