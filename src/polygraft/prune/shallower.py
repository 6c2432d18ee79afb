"""A model with fewer layers: its config, and its tensors under their new numbers. What a config says of layers is many things."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polygraft.anatomy import Anatomy
from polygraft.checkpoint import Weights
from polygraft.errors import InputError
from polygraft.prune.reshaped import Reshaped, decoder, renumbered

COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
EACH = ("layer_types", "no_rope_layers", "mlp_layer_types")  # one entry a layer; made explicit where the family would count
NUMBERS = ("mlp_only_layers",)  # numbers of layers
FIRST = ("first_k_dense_replace", "max_window_layers")  # how many of the first layers
EVERY = ("decoder_sparse_step", "moe_layer_freq")  # counted from the first layer: every so many of them
REFUSED = {"scale_attn_by_inverse_layer_idx": "scales attention by the number of its layer",
           "num_kv_shared_layers": "lets layers share keys and values"}  # fmt: skip


def fault(anatomy: Anatomy, removed: int) -> InputError | None:
    """Why layers cannot be taken out of this model, None where they can."""
    where = anatomy.where
    if removed >= anatomy.layers:
        return InputError("no layer would be left", where=where, found=f"{removed} of {anatomy.layers} layers go",
                          fix=f"ask for {anatomy.layers - 1} at most")  # fmt: skip
    for name, why in REFUSED.items():
        if anatomy.config.get(name):
            return InputError(f"no layer can be taken out: the model {why}", where=where, found=f"{name}: {anatomy.config[name]}")
    return None


def shortened(config: Mapping[str, Any], anatomy: Anatomy, kept: Sequence[int],
              told: Mapping[str, Sequence[Any]] | None = None) -> dict[str, Any]:  # fmt: skip
    """config.json of the model with the layers `kept`, in their order. `told`: what the family itself says of every layer (the
    names of EACH), where the config says it by a rule that counts layers.

    Raises InputError for a list whose length is not the number of layers.
    """
    whole, inner = decoder(config)
    for name in COUNTS:
        if name in inner:
            inner[name] = len(kept)
    for name in EACH:
        if (said := (told or {}).get(name) or inner.get(name)) is not None:
            if len(said) < anatomy.layers:
                raise InputError("a list of the config is shorter than there are layers", where=anatomy.where,
                                 found=f"{name}: {len(said)}", expected=f"{anatomy.layers}")  # fmt: skip
            inner[name] = [said[i] for i in kept]
    for name in NUMBERS:
        if isinstance(inner.get(name), list):
            inner[name] = [new for new, old in enumerate(kept) if old in inner[name]]
    for name in FIRST:
        if isinstance(inner.get(name), int):
            inner[name] = sum(i < inner[name] for i in kept)
    _every(inner, anatomy, kept)
    return whole


def _every(inner: dict[str, Any], anatomy: Anatomy, kept: Sequence[int]) -> None:
    """Mixtures in every so many layers: which layers are dense is said one by one instead."""
    for name in EVERY:
        if isinstance(inner.get(name), list):
            inner[name] = [inner[name][i] for i in kept]
    if inner.get("decoder_sparse_step", 1) != 1:
        inner["decoder_sparse_step"] = 1
        inner["mlp_only_layers"] = [new for new, old in enumerate(kept) if not anatomy.keys(layer=old, role="router")]
    if isinstance(inner.get("moe_layer_freq"), int) and inner["moe_layer_freq"] != 1:
        raise InputError("layers cannot be taken out: the config says by counting which of them are mixtures", where=anatomy.where,
                         found=f"moe_layer_freq: {inner['moe_layer_freq']}")  # fmt: skip


def of_live(model: Any) -> dict[str, list[Any]]:
    """What the family says of every layer, from the config of a model that transformers made."""
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    found = {name: getattr(config, name, None) for name in EACH}
    return {name: list(value) for name, value in found.items() if isinstance(value, list | tuple)}


def without(weights: Weights, anatomy: Anatomy, removed: Sequence[int],
            told: Mapping[str, Sequence[Any]] | None = None) -> Reshaped:  # fmt: skip
    """The model without some of its layers; every byte that stays is as it was."""
    kept = [i for i in range(anatomy.layers) if i not in set(removed)]
    new = {old: i for i, old in enumerate(kept)}
    names = {}
    for key in weights.tensors:
        layer = anatomy.parts[key].layer
        if layer is None:
            names[key] = key
        elif layer in new:
            names[renumbered(key, layer, new[layer])] = key
    return Reshaped(weights, names, shortened(weights.config, anatomy, kept, told))
