"""Whether a model may be read as a row of branches: some place or see tokens by their column, not by position and mask.

What a configuration says rules out the long sequences; whether the short ones come out right is tried, once per model.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from polygraft.evals.engines import padded, tree
from polygraft.evals.engines.row import Walk, window

CLOSE = {"float32": 1e-4, "float64": 1e-4}  # of the nats, and at least of 1 nat
CLOSE_HALF = 1e-2
ENDLESS = 1 << 40
FAILS = (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError, AssertionError)  # of code not made for branches


def horizon(model: Any) -> int:
    """The longest sequence that is computed alike whatever is computed beside it."""
    config = model.config.get_text_config()
    found = [getattr(config, "attention_chunk_size", None) or ENDLESS]
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if rope.get("rope_type", rope.get("type")) in ("dynamic", "longrope"):  # angles that change with the longest one present
        found.append(rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
                     or config.max_position_embeddings)
    return min(found)


class Branches:
    """What of a model's reading as branches is exact, tried when it is first asked for; `why` says what is not.

    trial: how it is tried, for a model whose own forward cannot be: the length of the beginning that is shared -> as `agree`.
    """

    def __init__(self, model: Any, trial: Callable[[int], tuple[bool, str]] | None = None):
        self.trial = trial or (lambda stem: agree(model, stem))
        self.model, self.horizon, self.window = model, horizon(model), window(model) or ENDLESS
        self.why = ""

    def exact(self, length: int) -> bool:
        """Whether a sequence of so many tokens may be a branch."""
        return length <= self.horizon and self._short and (length <= self.window or self._long)

    @cached_property
    def _short(self) -> bool:
        return self._agree(9)

    @cached_property
    def _long(self) -> bool:
        """Beyond the attention window."""
        return self._agree(self.window)

    def _agree(self, stem: int) -> bool:
        agreed, why = self.trial(stem)
        self.why = self.why if agreed else why
        return agreed


def agree(model: Any, stem: int = 9) -> tuple[bool, str]:
    """(whether likelihoods of sequences that branch after `stem` tokens are those of the same sequences alone, why not)."""
    import torch

    sequences = probes(model.get_input_embeddings().weight.shape[0], stem)
    scored = [min(24, len(s) - 1) for s in sequences]
    alone = np.array([padded.tails(model, [s], [n])[0][0] for s, n in zip(sequences, scored)])
    walk = Walk(model, tree.build(sequences, scored), max(7, stem // 2))  # fewer than a sequence: the path is carried on, too
    try:
        with torch.inference_mode():
            while walk.at < len(walk.trie):
                walk.step()
    except FAILS as error:
        return False, f"{type(error).__name__} on a row of branches"
    return judged(model.dtype, alone, np.array([walk.total(i)[0] for i in range(len(sequences))]))


def judged(dtype: Any, alone: np.ndarray, together: np.ndarray) -> tuple[bool, str]:
    """(whether these likelihoods are the same but for rounding, why not), in nats, computed in this dtype."""
    bound = CLOSE.get(str(dtype).removeprefix("torch."), CLOSE_HALF) * np.maximum(1, np.abs(alone))
    off = np.abs(together - alone)
    return bool((off <= bound).all()), f"likelihoods of branches are off by {off.max():.2g} nats"


def probes(vocabulary: int, stem: int) -> list[list[int]]:
    """Sequences that share a beginning of `stem` tokens, a part of it, or nothing."""
    draw = np.random.default_rng(0).integers(0, vocabulary, stem + 31).tolist()
    first, rest = draw[:stem], draw[stem:]
    return [first + rest[:3], first + rest[:6], first + rest[:1] + rest[11:15], first[:4] + rest[15:25], rest[25:]]
