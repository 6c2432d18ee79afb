"""Taking out layers: influence as defined, the right layers go, every family loads with the layers that stay, config and all."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import tiny as tinymodels
from polygraft.checkpoint import Checkpoint
from polygraft.errors import InputError, RecipeError
from polygraft.model import load
from polygraft.prune import shallower
from polygraft.prune.depth import chosen, lowest, together
from polygraft.prune.pruning import anatomy_of
from polygraft.prune.reshaped import proved, renumbered, write
from polygraft.sources import resolve

BATCH = {"input_ids": torch.randint(4, 260, (2, 12), generator=torch.Generator().manual_seed(0))}


def hidden_without(live, removed):
    """Logits of the live model whose removed layers hand on what they get."""
    from polygraft.taps import Taps

    entered = {}

    def skip(passing):
        if passing.point == "input.layer":
            entered[passing.layer] = passing.value
            return None
        return entered[passing.layer]

    with torch.no_grad(), Taps(live.model, live.anatomy, skip, points=("input.layer", "residual"), layers=removed):
        return live.model(**BATCH).logits


@pytest.mark.parametrize("family", tinymodels.FAMILIES)
def test_every_family_computes_what_it_computed_with_its_layers_skipped(tiny, tmp_path, family):
    source = resolve(str(tiny(family, layers=6)))
    anatomy, live = anatomy_of(source), load(source, dtype="float32")
    removed = (1, 2, 4)
    smaller = shallower.without(source.weights, anatomy, removed, shallower.of_live(live.model))
    write(smaller, tmp_path / "model", BATCH, {})
    after = load(tmp_path / "model", dtype="float32")
    assert after.anatomy.layers == 3
    with torch.no_grad():
        logits = after.model(**BATCH).logits
    torch.testing.assert_close(logits, hidden_without(live, removed), rtol=1e-5, atol=1e-5)
    model = Checkpoint.open(tmp_path / "model")
    for key, old in smaller.names.items():
        assert model.read(key) == source.weights.read(old)
