"""A tiny model pruned by the verb itself: texts, the step's config, and the keep-masks as the format says, read without our code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from polygraft.prune.pruning import prune_step
from polygraft.recipe import run_step
from polygraft.result import Result

STEP = prune_step()
TEXTS = {"en": "the cat number {} sat on the mat and looked at the {} dogs", "sw": "paka wa {} alikaa juu ya mkeka, mbwa {} wakaja"}


def texts(root: Path, documents: int = 60) -> dict[str, str]:
    """Corpora by language, in `root`."""
    made = {}
    for language, words in TEXTS.items():
        path = root / f"{language}.txt"
        path.write_text("\n".join(words.format(i, i * i) for i in range(documents)))
        made[language] = str(path)
    return made


def foreign(root: Path) -> dict[str, str]:
    """Two corpora without a letter in common, in `root`: random texts."""
    rng, made = np.random.default_rng(0), {}
    for language, letters in (("en", "abcdefg "), ("sw", "uvwxyz ")):
        path = root / f"{language}.txt"
        path.write_text("\n".join("".join(rng.choice(list(letters), 60)) for _ in range(40)) + "\n")
        made[language] = str(path)
    return made


def configured(model: Path, root: Path, **more: Any) -> Any:
    small = {"samples": 4, "seq_len": 32, "dtype": "float32"}
    return STEP.config(**({"model": str(model), "corpus": texts(root)} | small | more))


def pruned(model: Path, root: Path, **more: Any) -> tuple[Path, Result]:
    """The model folder, and its result."""
    out = root / "out"
    return out, run_step(STEP, configured(model, root, **more), out)


def tensors(folder: Path) -> dict[str, np.ndarray]:
    return {k: v for shard in sorted(folder.glob("model*.safetensors")) for k, v in load_file(shard).items()}


def masks(folder: Path) -> dict[str, np.ndarray]:
    """Keep-masks, bool in the shape of the tensor, by the words of the output contract."""
    shapes = {k: v.shape for k, v in tensors(folder).items()}
    packed = load_file(folder / "masks.safetensors")
    return {k: np.unpackbits(v, bitorder="little")[: np.prod(shapes[k])].astype(bool).reshape(shapes[k]) for k, v in packed.items()}


def modules(folder: Path) -> dict[str, dict[str, Any]]:
    return json.loads((folder / "result.json").read_text())["data"]["modules"]
