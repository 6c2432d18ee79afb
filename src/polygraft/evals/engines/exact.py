"""Whether a model may be read as a row of branches: some place or see tokens by their column, not by position and mask.

What a configuration says rules out the long sequences; whether the short ones come out right is tried, once per model.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from polygraft.evals.engines import padded, tree
from polygraft.evals.engines.row import Walk

CLOSE = {"float32": 1e-4, "float64": 1e-4}  # of the nats, and at least of 1 nat
CLOSE_HALF = 1e-2
ENDLESS = 1 << 40


def reach(model: Any) -> int:
    """The longest sequence whose tokens all see one another, with positions that no other sequence's length changes."""
    config = model.config.get_text_config()
    found = [ENDLESS]
    if getattr(config, "use_sliding_window", True):
        found.append(getattr(config, "sliding_window", None) or ENDLESS)
    found.append(getattr(config, "attention_chunk_size", None) or ENDLESS)
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if rope.get("rope_type", rope.get("type")) in ("dynamic", "longrope"):
        found.append(rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
                     or config.max_position_embeddings)
    return min(found)


def branches(model: Any) -> tuple[bool, str]:
    """(whether likelihoods of branching sequences are those of the same sequences alone, why not)."""
    import torch

    sequences = probes(model.get_input_embeddings().weight.shape[0])
    scored = [len(s) - 1 for s in sequences]
    alone = np.array([padded.tails(model, [s], [n])[0][0] for s, n in zip(sequences, scored)])
    walk = Walk(model, tree.build(sequences, scored), 7)  # fewer than a sequence: the path is carried on, too
    try:
        with torch.inference_mode():
            while walk.at < len(walk.trie):
                walk.step()
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError, AssertionError) as error:
        return False, f"{type(error).__name__} on a row of branches"
    together = np.array([walk.total(i)[0] for i in range(len(sequences))])
    bound = CLOSE.get(str(model.dtype).removeprefix("torch."), CLOSE_HALF) * np.maximum(1, np.abs(alone))
    off = np.abs(together - alone)
    return bool((off <= bound).all()), f"likelihoods of branches are off by {off.max():.2g} nats"


def probes(vocabulary: int) -> list[list[int]]:
    """Sequences that share a beginning, a part of it, or nothing."""
    draw = np.random.default_rng(0).integers(0, vocabulary, 40).tolist()
    stem = draw[:9]
    return [stem + draw[9:12], stem + draw[9:15], stem + draw[9:10] + draw[20:24], stem[:4] + draw[24:34], draw[34:]]
