"""Several examples in one row must not see each other: whether a model keeps them apart is found by trying."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polygraft.errors import RecipeError

MIXES, FIX = "this model cannot train on packed examples: in one row, they read each other", "train without packing"
CLOSE = 0.1  # rounding differs by some per cent of the logits' size at most in bfloat16; seeing another example, by far more


KNOWN = {"opt", "bloom", "falcon"}  # model types that build a plain causal mask, whatever the positions


def check_known(config: Mapping[str, Any]) -> None:
    """Raise RecipeError for a model type of which it is known before it is loaded."""
    if config.get("model_type") in KNOWN:
        raise RecipeError(MIXES, where="packing", found=config["model_type"], fix=FIX)


def check_apart(model: Any) -> None:
    """Raise RecipeError unless an example behind another one in a packed row has the logits that it has alone.

    Positions that start again at 0 are all that tells packed examples apart (no attention mask is given): most decoders of
    transformers make a mask of blocks from them, and those that do not would let each example read the ones before it.
    """
    if (share := mixed(model)) > CLOSE:
        raise RecipeError(MIXES, where="packing", found=f"logits off by {share:.0%} of their size", fix=FIX)


def mixed(model: Any) -> float:
    """How far a packed example's logits are from those that it has alone, relative to their size (root mean square)."""
    import torch

    device, most = next(model.parameters()).device, model.get_input_embeddings().weight.shape[0]
    first, second = torch.arange(6, device=device) * 7 % most, (torch.arange(5, device=device) * 5 + 3) % most
    places = torch.cat([torch.arange(6, device=device), torch.arange(5, device=device)])[None]
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            packed = model(input_ids=torch.cat([first, second])[None], position_ids=places, use_cache=False).logits[0, 6:].float()
            alone = model(input_ids=second[None], use_cache=False).logits[0].float()
    finally:
        model.train(training)
    return float((packed - alone).square().mean().sqrt() / alone.square().mean().sqrt())
