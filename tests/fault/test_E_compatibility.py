"""Sources that cannot be merged are refused from headers: the first difference is named, with both values."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from folders import TOKENIZER, config, llama, shapes, values, write
from polygraft.errors import InputError, UserError
from polygraft.header import build
from polygraft.merge import configs, steps
from polygraft.sources import resolve
from polygraft.step import Context

pytestmark = pytest.mark.group("E")
CONTEXT = Context(resolve, Path, planning=True)
UP = "model.layers.0.mlp.up_proj.weight"
Q = "model.layers.0.self_attn.q_proj.weight"


def sized(**sizes):
    return lambda at: llama(at, **sizes)


def configured(**fields):
    return lambda at: llama(at, change=fields)


def without(*keys):
    return lambda at: write(at, {k: v for k, v in values(shapes()).items() if k not in keys}, config())


def with_more(make):
    return lambda at: write(at, values(shapes() | make), config())


def retyped(key, dtype):
    """One tensor stored in another number format."""

    def make(at):
        folder = llama(at)
        sizes, width = shapes(), {"F32": 4, "F16": 2, "I8": 1, "F8_E4M3": 1, "U8": 1}[dtype]
        specs = {k: (dtype if k == key else "BF16", s) for k, s in sizes.items()}
        head, infos = build(specs, None, "model.safetensors")
        body = b"".join(bytes(int(np.prod(t.shape)) * (width if t.key == key else 2)) for t in infos)
        (folder / "model.safetensors").write_bytes(head + body)
        return folder

    return make


def quantised(method):
    return configured(quantization_config={"quant_method": method, "bits": 4})


def tokenized(vocab):
    return lambda at: write(
        at, values(shapes()), config(), tokenizer={**TOKENIZER, "model": {"type": "BPE", "vocab": vocab, "merges": []}}
    )


# case -> (makes the other source, what the message must name, both values)
CASES = {
    "fewer layers": (sized(layers=3), "model.layers.3.", ("present", "absent")),
    "more layers": (sized(layers=5), "model.layers.4.", ("present", "absent")),
    "hidden size": (sized(hidden=24, heads=6, kv=2), "lm_head.weight", ("[40, 16]", "[40, 24]")),
    "ffn size": (sized(ffn=32), "model.layers.0.mlp.down_proj", ("[16, 24]", "[16, 32]")),
    "heads of another size": (configured(num_attention_heads=8, head_dim=2), "num_attention_heads", ("4", "8")),
    "key-value heads": (sized(kv=1), "model.layers.0.self_attn.k_proj", ("[8, 16]", "[4, 16]")),
    "vocabulary": (sized(vocab=48), "lm_head.weight", ("[40, 16]", "[48, 16]")),
    "number format of all": (lambda at: llama(at, dtype="F32"), "lm_head.weight", ("BF16", "F32")),
    "number format of one": (retyped(UP, "F16"), UP, ("BF16", "F16")),
    "rope base": (configured(rope_theta=500000.0), "rope theta", ("10000.0", "500000.0")),
    "rope base, new spelling": (configured(rope_theta=None, rope_parameters={"rope_type": "default", "rope_theta": 1e6}), "rope theta",
                                ("10000.0", "1000000.0")),
    "rope scaling": (configured(rope_scaling={"type": "linear", "factor": 4.0}), "rope scaling", ("default", "linear")),
    "tied against untied": (lambda at: llama(at, tied=True), "lm_head.weight", ("present", "absent")),
    "tied flag alone": (configured(tie_word_embeddings=True), "tie_word_embeddings", ("False", "True")),
    "a norm is missing": (without("model.layers.2.post_attention_layernorm.weight"), "model.layers.2.post_attention_layernorm", ("present", "absent")),
    "norm epsilon": (configured(rms_norm_eps=1e-5), "rms_norm_eps", ("1e-06", "1e-05")),
    "another family": (configured(model_type="mistral"), "model_type", ("llama", "mistral")),
    "q_norm on one side": (with_more({f"model.layers.{i}.self_attn.q_norm.weight": (4,) for i in range(4)}), "q_norm", ("absent", "present")),
    "extra biases": (with_more({f"model.layers.{i}.self_attn.q_proj.bias": (16,) for i in range(4)}), "q_proj.bias", ("absent", "present")),
    "activation": (configured(hidden_act="gelu"), "hidden_act", ("silu", "gelu")),
    "4-bit weights": (quantised("bitsandbytes"), "quantization_config", ("bitsandbytes", "bf16")),
    "fp8 weights": (retyped(UP, "F8_E4M3"), UP, ("F8_E4M3", "BF16")),
    "int8 weights": (retyped(UP, "I8"), UP, ("I8", "BF16")),
    "tokens in another order": (tokenized({"a": 0, "c": 1, "b": 2}), "token 1", ("'b'", "'c'")),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_refused_at_plan_time(tmp_path, case):
    make, place, both = CASES[case]
    task, other = llama(tmp_path / "task"), make(tmp_path / "other")
    for kind, fields in ((configs.Swap, {"task": task, "language": other}), (configs.Ties, {"models": (other,), "base": task})):
        with pytest.raises(InputError) as e:
            steps.plan(kind(**json.loads(json.dumps(fields, default=str))), CONTEXT)
        told = str(e.value)
        assert place in told
        assert all(value in told for value in both), told
        assert "fix:" in told


def adapter(at: Path, width: int, base: str = "base") -> Path:
    """A LoRA on layer 0's q_proj of a model this wide."""
    at.mkdir()
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": base, "target_modules": ["q_proj"]}
    (at / "adapter_config.json").write_text(json.dumps(settings))
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    specs = {f"{name}A.weight": ("F32", (2, width)), f"{name}B.weight": ("F32", (width, 2))}
    head, infos = build(specs, None, "adapter_model.safetensors")
    (at / "adapter_model.safetensors").write_bytes(head + bytes(sum(t.nbytes for t in infos)))
    return at


def test_an_adapter_made_for_another_base(tmp_path):
    base, wrong = llama(tmp_path / "base"), adapter(tmp_path / "adapter", 24)
    with pytest.raises(InputError, match="made for another base"):
        steps.plan(configs.Task(models=(str(wrong),), base=str(base)), CONTEXT)


def test_adapters_that_stand_on_two_bases(tmp_path):
    base = llama(tmp_path / "base")
    one, two = adapter(tmp_path / "one", 16, "base"), adapter(tmp_path / "two", 16, "elsewhere")
    with pytest.raises(UserError, match="different bases"):
        steps.plan(configs.Swap(task=str(one), language=str(two), base=str(base), space="adapter"), CONTEXT)


def test_a_whole_model_where_an_adapter_is_needed(tmp_path):
    base, one = llama(tmp_path / "base"), adapter(tmp_path / "one", 16)
    with pytest.raises(InputError, match="not an adapter"):
        steps.plan(configs.Swap(task=str(one), language=str(llama(tmp_path / "whole")), base=str(base), space="adapter"), CONTEXT)


def test_equal_meaning_in_two_spellings_is_accepted(tmp_path):
    old = llama(tmp_path / "old")
    new = llama(tmp_path / "new", change={"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "head_dim": 4,
                                          "_name_or_path": "elsewhere", "torch_dtype": "bfloat16"})  # fmt: skip
    plan = steps.plan(configs.Swap(task=str(old), language=str(new)), CONTEXT)
    assert plan.disk_bytes > 0
    assert not plan.problems
