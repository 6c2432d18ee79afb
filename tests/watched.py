"""A model that drifts: v0 knows nothing (every token as likely), each update is a soup of the last one and a model that is wrong.

The head of `v{k}` is (1 - 0.8 ** k) of the wrong model's, so its loss rises a little at every update: what the drift is, is known.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from safetensors.numpy import load_file, save_file

import tiny
from polygraft import cli
from polygraft.evals.steps import STEPS, EvalConfig
from polygraft.recipe import run_step

UPDATES, WRONG = 3, 8  # so sure that every share of it is worse than knowing nothing
WORDS = ("a small model", "drifts a little", "at every update", "and nobody sees it", "until somebody looks", "back to the first")


def corpus(path: Path, shift: int = 0) -> Path:
    """30 short documents."""
    texts = [" ".join(WORDS[(i * k + shift) % len(WORDS)] for k in (1, 2, 3)) + f" {i}" for i in range(30)]
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    return path


def family(root: Path) -> Path:
    """`root` with v0 .. v3, each but the first with a manifest that names the one before, and a corpus."""
    shutil.copytree(tiny.folder(root / "tiny", "llama", seed=3, max_position_embeddings=128), root / "wrong")
    shutil.copytree(root / "wrong", root / "v0")
    for name, factor in (("wrong", WRONG), ("v0", 0)):
        path = root / name / "model.safetensors"
        weights = load_file(path)
        save_file(weights | {"lm_head.weight": weights["lm_head.weight"] * factor}, path, {"format": "pt"})
    for k in range(1, UPDATES + 1):
        assert cli.run(["merge", "soup", str(root / f"v{k - 1}"), str(root / "wrong"), "--weights", "0.8,0.2", "--out", str(root / f"v{k}")]) == 0
    corpus(root / "en.jsonl")
    return root


def evaluation(root: Path, out: Path, model: str = "v0") -> Path:
    """What `polygraft eval` leaves, of bits per byte alone: no task needs to be asked."""
    config = EvalConfig(models=(model,), tasks=(), corpora={"en": "en.jsonl"}, device="cpu", dtype="float32", store="none")
    run_step(STEPS[0], config, out, folder=root)
    return out


def criteria(path: Path, loss: float | None = None, **more: object) -> Path:
    row = {"metric": "bits per byte", "task": "bpb", "language": "en", **({"tolerated_loss": loss} if loss is not None else {}), **more}
    path.write_text(json.dumps({"criteria": [row]}))
    return path
