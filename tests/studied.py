"""A study of a tiny model: texts in languages that share few letters, run as `polygraft prune study` would."""

from __future__ import annotations

import numpy as np

from polygraft.config import filled
from polygraft.prune.study.config import Study
from polygraft.recipe import run_step
from polygraft.steps import TABLE

STEP = next(s for s in TABLE if s.name == "prune.study")
LETTERS = {"en": "abcdefgh", "sw": "ijklmnop", "de": "qrstuvwx"}


def texts(root, part, languages=("en", "sw"), documents=40, seed=0):
    """{language: path} of made-up documents, other ones for every `part`."""
    root.mkdir(parents=True, exist_ok=True)
    found = {}
    for language in languages:
        rng = np.random.default_rng([seed, len(part), ord(language[0])])
        lines = [" ".join("".join(rng.choice(list(LETTERS[language]), 4)) for _ in range(12)) for _ in range(documents)]
        found[language] = root / f"{language}.{part}.txt"
        found[language].write_text("\n".join(lines) + "\n")
    return found


def configured(model, root, languages=("en", "sw"), **more):
    fields = {"model": str(model), "corpus": texts(root, "calibrate", languages), "evaluate": texts(root, "read", languages),
              "samples": 4, "seq_len": 24, "seeds": 2, "tokens": 300, "diagnose": 96, "parallel": True, "dtype": "float32"}
    found = fields | more
    return filled(Study, found | {k: {g: str(p) for g, p in found[k].items()} for k in ("corpus", "evaluate")})


def studied(model, root, **more):
    """(folder, result) of a finished study."""
    out = root / "study"
    return out, run_step(STEP, configured(model, root, **more), out)
