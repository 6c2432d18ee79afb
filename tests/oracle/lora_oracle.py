"""Merged weights of a LoRA adapter, straight from equation 3 of arXiv 2106.09685, in float64: W + s B A, rounded to float32."""

from __future__ import annotations

import json

import numpy as np


def merged(folder, base: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`base`: live names -> float32 [out, in] (or [in, out] under fan_in_fan_out). Every weight after the merge."""
    from safetensors.numpy import load_file

    config, tensors = json.loads((folder / "adapter_config.json").read_text()), load_file(folder / "adapter_model.safetensors")
    out = dict(base)
    for key, a in tensors.items():
        if key.endswith("lora_A.weight"):
            b = tensors[key.replace("lora_A", "lora_B")]
            delta = config["lora_alpha"] / config["r"] * (b.astype(np.float64) @ a.astype(np.float64))
            name = key.removeprefix("base_model.model.").replace(".lora_A", "")
            out[name] = (base[name] + (delta.T if config["fan_in_fan_out"] else delta)).astype(np.float32)
    return out
