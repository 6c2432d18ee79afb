"""Group P: what a merge writes opens with the reference reader, loads with nothing left over, and computes what an oracle computes.

Every family, four merges each: plain files, many bf16 shards with transitions, an average without chat template, task arithmetic
on tied or untied heads. The oracle blends in float64 by the layer number in a key's name and knows nothing of Anatomy.
"""

from __future__ import annotations

import json
import re

import pytest
import torch
from safetensors.torch import load_file

import tiny as make
from polygraft import merge
from reload import assert_reloads

LAYERS = 4


def tensors(folder):
    return {k: v.double() for shard in sorted(folder.glob("*.safetensors")) for k, v in load_file(shard).items()}


def language_share(key: str, by_layer: list[float], other: float) -> float:
    layer = re.search(r"\b(?:layers|h)\.(\d+)\.", key)
    return by_layer[int(layer.group(1))] if layer else other


def expected_logits(like, weights, dtype, folder):
    """Logits of a model that transformers loads from the oracle's tensors, saved by the reference writer."""
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    folder.mkdir()
    (folder / "config.json").write_text((like / "config.json").read_text())
    save_file({k: v.to(dtype).contiguous() for k, v in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    return logits(AutoModelForCausalLM.from_pretrained(folder))


@torch.no_grad()
def logits(model):
    return model.float().eval()(torch.arange(4, 36)[None]).logits


CASES = ("plain swap", "sharded bf16 swap", "soup without chat", "task arithmetic")


@pytest.mark.group("P")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", make.FAMILIES)
def test_merged_models_reload(tiny, tmp_path, family, case):
    options = {"layers": LAYERS}
    if case == "sharded bf16 swap":
        options |= {"dtype": "bfloat16", "shard": "30KB"}
    if case == "soup without chat":
        options |= {"chat": False}
    base, one, two = tiny(family, **options), *(tiny(family, seed=s, noise=0.05, **options) for s in (1, 2))
    out, zero = tmp_path / "out", tensors(base)
    first, second = tensors(one), tensors(two)

    if case == "plain swap":
        merge.swap(task=str(one), language=str(two), bottom=1, top=1, transition=0, out=out)
        share = [1.0, 0.0, 0.0, 1.0]
    elif case == "sharded bf16 swap":
        merge.swap(task=str(one), language=str(two), bottom=1, top=1, transition=1, shard_bytes=30_000, out=out)
        share = [1.0, 0.5, 0.5, 1.0]
    elif case == "soup without chat":
        merge.soup(models=[str(one), str(two)], out=out)
        share = [0.5] * LAYERS
    else:
        merge.task(base=str(base), models=[str(one), str(two)], scales=[0.75, 0.5], out=out)
    if case == "task arithmetic":
        blend = {k: zero[k] + 0.75 * (first[k] - zero[k]) + 0.5 * (second[k] - zero[k]) for k in zero}
    else:
        blend = {k: torch.lerp(first[k], second[k], language_share(k, share, 0.5)) for k in zero}

    model = assert_reloads(out)
    assert (len(list(out.glob("*.safetensors"))) > 1) == (case == "sharded bf16 swap")
    dtype = torch.bfloat16 if "bf16" in case else torch.float32
    assert model.dtype == dtype
    assert model.config.tie_word_embeddings == (family in make.TIED)
    assert torch.allclose(logits(model), expected_logits(base, blend, dtype, tmp_path / "oracle"), atol=2e-3 if "bf16" in case else 1e-4)
    assert (out / "chat_template.jinja").exists() == (case != "soup without chat")
    kept, given = (json.loads((f / "generation_config.json").read_text()) for f in (out, one))
    assert kept == given
