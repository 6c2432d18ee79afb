"""Merging in adapter space is exact: the new adapter changes the base as the float64 mixture of the experts' changes does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from folders import llama, read
from oracle import merge_oracle as oracle
from polygraft import files, merge
from polygraft.adapter import Adapter
from polygraft.errors import InputError
from polygraft.floats import from_f32
from polygraft.header import build
from polygraft.sources import resolve

SHAPES = {"self_attn.q_proj": (16, 16), "self_attn.v_proj": (8, 16), "mlp.down_proj": (16, 24)}
LAYERS = 6


def lora(
    at: Path,
    seed: int,
    *,
    rank: int = 2,
    alpha: float = 4,
    rslora: bool = False,
    dtype: str = "F32",
    modules=tuple(SHAPES),
    more=None,
) -> Path:
    """A random adapter on every layer; `more` are tensors stored whole."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for i in range(LAYERS):
        for m in modules:
            name = f"base_model.model.model.layers.{i}.{m}.lora_"
            tensors[f"{name}A.weight"] = rng.normal(0, 0.3, (rank, SHAPES[m][1]))
            tensors[f"{name}B.weight"] = rng.normal(0, 0.3, (SHAPES[m][0], rank))
    tensors |= more or {}
    head, infos = build({k: (dtype, v.shape) for k, v in tensors.items()}, {"format": "pt"}, "adapter_model.safetensors")
    at.mkdir()
    (at / "adapter_model.safetensors").write_bytes(
        head + b"".join(from_f32(tensors[t.key].astype(np.float32), dtype) for t in infos)
    )
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": alpha, "use_rslora": rslora, "bias": "none",
                "base_model_name_or_path": "base", "target_modules": sorted({m.rsplit(".")[-1] for m in modules}), "rank_pattern": {},
                "alpha_pattern": {}, "fan_in_fan_out": False}  # fmt: skip
    (at / "adapter_config.json").write_text(json.dumps(settings))
    return at


def merged(adapter: Path, base: Path) -> dict[str, np.ndarray]:
    """The base with an adapter merged in, in float64, from the definition."""
    found, out = Adapter.open(adapter), read(base)
    for pair in found.pairs.values():
        a, b = (found.f32(k).astype(np.float64).reshape(found.tensors[k].shape) for k in (pair.a, pair.b))
        out[f"{pair.module}.weight"] = out[f"{pair.module}.weight"] + pair.scale * b @ a
    for name, key in found.replaced.items():
        out[name] = found.f32(key).astype(np.float64).reshape(found.tensors[key].shape)
    return out


@pytest.fixture
def base(tmp_path):
    return llama(tmp_path / "base", layers=LAYERS, dtype="F32")


def close(got: dict, wanted: dict) -> None:
    for key, value in wanted.items():
        assert np.allclose(got[key], value, rtol=0, atol=1e-6), key


@pytest.mark.parametrize("second", [{}, {"rank": 5, "alpha": 3}, {"rslora": True}, {"rank": 3, "alpha": 7, "rslora": True}])
def test_swap_in_adapter_space_is_the_swap_of_the_merged_models(tmp_path, base, second):
    one, two = lora(tmp_path / "one", 1), lora(tmp_path / "two", 2, **second)
    fields = {
        "task": resolve(str(one), base=str(base)),
        "language": resolve(str(two), base=str(base)),
        "bottom": 2,
        "top": 1,
        "transition": 1,
    }
    merge.swap(**fields, space="adapter", out=tmp_path / "out")
    wanted = oracle.swap(merged(one, base), merged(two, base), 2, 1, 1, 1)
    close(merged(tmp_path / "out", base), wanted)
    merge.swap(**fields, space="weights", out=tmp_path / "whole")
    close(read(tmp_path / "whole"), wanted)
    assert files.verify_folder(tmp_path / "out") == []


def test_factors_taken_whole_are_copied_byte_for_byte(tmp_path, base):
    one, two = lora(tmp_path / "one", 1, dtype="BF16"), lora(tmp_path / "two", 2, dtype="BF16")
    merge.swap(task=one, language=two, base=base, bottom=2, top=1, transition=0, space="adapter", out=tmp_path / "out")
    got, a, b = (Adapter.open(p) for p in (tmp_path / "out", one, two))
    for key in got.tensors:
        layer = oracle.layer_of(key)
        assert got.read(key) == (b if layer < 2 or layer >= 5 else a).read(key), key
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["rank_pattern"] == {}


def test_soup_task_arithmetic_and_revert_in_adapter_space(tmp_path, base):
    one, two = lora(tmp_path / "one", 1), lora(tmp_path / "two", 2, rank=3)
    sources = [resolve(str(p), base=str(base)) for p in (one, two)]
    merge.soup(models=sources, weights=(1, 3), space="adapter", out=tmp_path / "soup")
    close(merged(tmp_path / "soup", base), oracle.soup([merged(one, base), merged(two, base)], [1, 3]))
    merge.task(models=sources, base=base, scales=(0.8, -0.5), space="adapter", out=tmp_path / "task")
    close(merged(tmp_path / "task", base), oracle.task_arithmetic(read(base), [merged(one, base), merged(two, base)], [0.8, -0.5]))
    merge.revert(expert=sources[0], base=base, bottom=2, top=1, transition=0, space="adapter", out=tmp_path / "revert")
    wanted = merged(one, base) | {
        k: v for k, v in read(base).items() if (i := oracle.layer_of(k)) is not None and (i < 2 or i >= 5)
    }
    close(merged(tmp_path / "revert", base), wanted)
    assert not any(".layers.0." in k for k in Adapter.open(tmp_path / "revert").tensors)


def test_modules_that_only_one_expert_adapts(tmp_path, base):
    one, two = lora(tmp_path / "one", 1, modules=("self_attn.q_proj",)), lora(tmp_path / "two", 2, modules=("mlp.down_proj",))
    merge.swap(task=one, language=two, base=base, bottom=2, top=1, transition=1, space="adapter", out=tmp_path / "out")
    close(merged(tmp_path / "out", base), oracle.swap(merged(one, base), merged(two, base), 2, 1, 1, 1))


def test_tensors_stored_whole_are_copied_or_blended_like_weights(tmp_path, base):
    extra = {"base_model.model.model.embed_tokens.weight": np.random.default_rng(5).normal(size=(40, 16))}
    one, two = lora(tmp_path / "one", 1, more=extra), lora(tmp_path / "two", 2, more={k: v + 1 for k, v in extra.items()})
    merge.swap(task=one, language=two, base=base, bottom=2, top=1, space="adapter", out=tmp_path / "out")
    close(merged(tmp_path / "out", base), oracle.swap(merged(one, base), merged(two, base), 2, 1, 0, 0))
    alone = lora(tmp_path / "alone", 3)
    with pytest.raises(InputError, match="only some of the adapters"):
        merge.swap(task=one, language=alone, base=base, bottom=2, top=1, space="adapter", out=tmp_path / "no")


def test_peft_loads_the_merged_adapter_and_agrees(tmp_path, tiny):
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    base = tiny("llama", layers=LAYERS)
    paths = []
    for seed, rank in ((1, 2), (2, 4)):
        torch.manual_seed(seed)
        net = get_peft_model(AutoModelForCausalLM.from_pretrained(base),
                             LoraConfig(r=rank, lora_alpha=8, use_rslora=seed == 2, target_modules=["q_proj", "down_proj"]))  # fmt: skip
        for name, p in net.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(p, std=0.2)
        net.save_pretrained(tmp_path / str(seed))
        paths.append(tmp_path / str(seed))
    fields = {
        "task": paths[0],
        "language": paths[1],
        "base": base,
        "bottom": 2,
        "top": 1,
        "transition": 1,
        "embed": "base",
        "norm": "base",
        "head": "base",
    }
    merge.swap(**fields, space="adapter", out=tmp_path / "adapter")
    merge.swap(**fields, space="weights", out=tmp_path / "whole")
    joined = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "adapter").eval()
    assert len([n for n, _ in joined.named_parameters() if "lora_A" in n]) == 2 * LAYERS
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "whole").eval()
    ids = torch.randint(4, 260, (2, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(joined(ids).logits, whole(ids).logits, atol=1e-4)


def test_an_empty_result_is_refused(tmp_path, base):
    one = lora(tmp_path / "one", 1)
    with pytest.raises(InputError, match="would be empty"):
        merge.revert(expert=one, base=base, bottom=LAYERS, top=0, space="adapter", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
