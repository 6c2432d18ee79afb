"""Calibration text made noisy: some of its tokens replaced, at a rate that is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from polygraft.prune.calibration import Drawn


def noisy(drawn: Drawn, share: float, seed: int) -> Drawn:
    """The same windows with `share` of the counted tokens, chosen at random, dealt anew among their own places (ours).

    The language's words stay as frequent as they were; what stood beside them is lost, as in scraped lists and broken lines.
    """
    counted = drawn.ids[:, drawn.skip :]
    flat = counted.reshape(-1).copy()
    rng = np.random.default_rng([seed, round(share * 1e6)])
    at = rng.permutation(flat.size)[: round(share * flat.size)]
    flat[at] = flat[rng.permutation(at)]
    return replace(drawn, ids=np.concatenate([drawn.ids[:, : drawn.skip], flat.reshape(counted.shape)], axis=1))
