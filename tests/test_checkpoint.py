"""Reading a model folder: what is said about it, what is read of it, and that numbers survive."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from polygraft.checkpoint import Checkpoint, from_f32, tied_conflict, to_f32
from polygraft.errors import InputError
from polygraft.header import build


def descriptors() -> int:
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def model(tiny, tmp_path):
    """A private copy of a tiny model, to be spoiled."""
    shutil.copytree(tiny("llama"), tmp_path / "m")
    return tmp_path / "m"


def test_reads_what_the_reference_reads(tiny):
    from safetensors import safe_open

    for options in ({}, {"shard": "20KB"}, {"dtype": "bfloat16"}, {"dtype": "float16"}):
        folder = tiny("llama", **options)
        checkpoint = Checkpoint.open(folder)
        seen = set()
        for file in folder.glob("*.safetensors"):
            with safe_open(file, "pt") as reference:
                for key in reference.keys():  # noqa: SIM118
                    tensor = reference.get_tensor(key)
                    seen.add(key)
                    assert checkpoint.tensors[key].shape == tuple(tensor.shape)
                    assert np.array_equal(checkpoint.f32(key), tensor.float().numpy().reshape(-1))
                    assert b"".join(map(bytes, checkpoint.chunks(key, 100))) == checkpoint.read(key)
        assert seen == set(checkpoint.tensors)
        assert {"tokenizer.json", "tokenizer_config.json", "generation_config.json"} <= set(checkpoint.extras)
        assert checkpoint.config["model_type"] == "llama" and checkpoint.warnings == ()


def test_ranges_and_their_limits(tiny):
    checkpoint = Checkpoint.open(tiny("llama"))
    key = "model.norm.weight"
    whole = checkpoint.read(key)
    assert checkpoint.read_range(key, 3, 11) == whole[3:11]
    assert checkpoint.read_range(key, 5, 5) == b""
    assert np.array_equal(checkpoint.f32(key, 2, 7), checkpoint.f32(key)[2:7])
    out = np.empty(5, np.float32)
    assert checkpoint.f32(key, 2, 7, out) is out
    for start, stop in ((-1, 3), (4, 3), (0, len(whole) + 1)):
        with pytest.raises(InputError, match="outside the tensor"):
            checkpoint.read_range(key, start, stop)
    with pytest.raises(InputError, match="no tensor of this name"):
        checkpoint.read("nothing")


def test_identity_is_cheap_and_notices_change(model):
    first = Checkpoint.open(model).identity
    assert Checkpoint.open(model).identity == first
    weights = model / "model.safetensors"
    state = weights.stat()
    os.utime(weights, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    second = Checkpoint.open(model).identity
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"rope_theta": 5.0}))
    third = Checkpoint.open(model).identity
    assert len({first, second, third}) == 3
    assert Checkpoint.open(model, identity="hub:a/b@c").identity == "hub:a/b@c"


def test_a_file_that_changes_under_the_reader_is_refused(model):
    checkpoint = Checkpoint.open(model)
    weights = model / "model.safetensors"
    os.utime(weights, ns=(1, 1))
    with pytest.raises(InputError, match="changed after its header was read"):
        checkpoint.read("model.norm.weight")


def test_a_file_shortened_while_read(model):
    checkpoint = Checkpoint.open(model)
    checkpoint.read("model.norm.weight")
    weights = model / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 4000)
    last = max(checkpoint.tensors.values(), key=lambda t: t.end).key
    with pytest.raises(InputError, match="shortened"):
        checkpoint.read(last)
    with pytest.raises(InputError, match="shortened"):
        list(checkpoint.chunks(last))


@pytest.mark.group("O")
def test_reading_leaves_no_more_than_a_handful_of_descriptors(tiny):
    before = descriptors()
    checkpoint = Checkpoint.open(tiny("llama", layers=24, shard="6KB"))
    assert len(list(checkpoint.path.glob("*.safetensors"))) > 40
    for key in checkpoint.tensors:
        checkpoint.read(key)
        assert descriptors() - before <= 16
    checkpoint.close()
    assert descriptors() == before
    checkpoint.read(next(iter(checkpoint.tensors)))
    del checkpoint
    assert descriptors() == before


def sparse(folder: Path, layers: int, experts: int = 0, shards: int = 4) -> Path:
    """A checkpoint of many gigabytes that takes no room: headers, and files extended without writing."""
    hidden, ffn, vocab = 4096, 14336, 128256
    specs = {"model.embed_tokens.weight": (vocab, hidden), "lm_head.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    for i in range(layers):
        names = {"self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (1024, hidden), "self_attn.v_proj": (1024, hidden),
                 "self_attn.o_proj": (hidden, hidden), "input_layernorm": (hidden,), "post_attention_layernorm": (hidden,)}  # fmt: skip
        for mlp in [f"mlp.experts.{e}" for e in range(experts)] or ["mlp"]:
            names |= {f"{mlp}.gate_proj": (ffn, hidden), f"{mlp}.up_proj": (ffn, hidden), f"{mlp}.down_proj": (hidden, ffn)}
        specs |= {f"model.layers.{i}.{n}.weight": s for n, s in names.items()}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": vocab, "num_hidden_layers": layers}))
    weight_map = {}
    for n in range(shards):
        name = f"model-{n + 1:05d}-of-{shards:05d}.safetensors"
        head, tensors = build({k: ("BF16", s) for k, s in list(specs.items())[n::shards]}, {"format": "pt"}, name)
        (folder / name).write_bytes(head)
        os.truncate(folder / name, tensors[-1].end)
        weight_map |= {t.key: name for t in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


@pytest.mark.group("O")
@pytest.mark.parametrize("layers, experts, shards", [(32, 0, 4), (48, 64, 16), (126, 0, 500)], ids=["8B", "9,500 tensors", "500 shards"])
def test_opening_costs_headers_only(tmp_path, layers, experts, shards):
    folder = sparse(tmp_path / "m", layers, experts, shards)
    before, start = descriptors(), time.process_time()
    checkpoint = Checkpoint.open(folder)
    assert time.process_time() - start < 1.0 and descriptors() == before
    assert sum(t.nbytes for t in checkpoint.tensors.values()) > 15e9
    assert sum(len(h.raw) for h in checkpoint.headers.values()) < 4 << 20


def test_threads_share_a_reader(tiny):
    checkpoint = Checkpoint.open(tiny("llama", layers=24, shard="6KB"))
    expected = {k: checkpoint.tensor_sha256(k) for k in checkpoint.tensors}
    wrong = []

    def work(offset):
        keys = list(expected)
        for key in keys[offset:] + keys[:offset]:
            if checkpoint.tensor_sha256(key) != expected[key]:
                wrong.append(key)

    threads = [threading.Thread(target=work, args=(i * 7,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_integers_are_read_but_not_blended(tmp_path):
    from safetensors.numpy import save_file

    (tmp_path / "config.json").write_text("{}")
    save_file({"a": np.arange(6, dtype=np.int8)}, tmp_path / "model.safetensors")
    checkpoint = Checkpoint.open(tmp_path)
    assert checkpoint.read("a") == bytes(range(6))
    with pytest.raises(InputError, match="unquantised"):
        checkpoint.f32("a")


def test_two_different_heads_under_a_tie_flag_are_found(tiny, model):
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    checkpoint = Checkpoint.open(model)
    assert tied_conflict(checkpoint) == "lm_head.weight"
    assert any("lm_head.weight" in w for w in checkpoint.warnings)
    assert tied_conflict(Checkpoint.open(tiny("gemma2"))) is None


# ------------------------------------------------------------------------------------------------------------ numbers


def oracle_bf16(x: float) -> int:
    """Round a float32 value to bfloat16 by choosing the nearer neighbour in exact arithmetic; ties to the even one."""
    bits = int(np.float32(x).view(np.uint32))
    low, high = bits >> 16, (bits >> 16) + 1
    a, b = (float(np.uint32(v << 16).view(np.float32)) for v in (low, high))
    if not np.isfinite(b):
        b = float(np.copysign(2.0**128, x))  # the next step beyond the largest number, for judging the distance
    da, db = abs(x - a), abs(b - x)
    return low if da < db or (da == db and low % 2 == 0) else high


@given(hnp.arrays(np.uint32, st.integers(0, 40)))
def test_bf16_rounds_to_nearest_even(bits):
    values = bits.view(np.float32)
    got = np.frombuffer(from_f32(values, "BF16"), np.uint16)
    for value, result in zip(values.tolist(), got.tolist(), strict=True):
        if np.isnan(value):
            assert np.isnan(to_f32(np.uint16(result).tobytes(), "BF16")[0])
        elif np.isinf(value):
            assert to_f32(np.uint16(result).tobytes(), "BF16")[0] == value
        else:
            assert result == oracle_bf16(value)


def test_every_bf16_survives_the_way_there_and_back():
    raw = np.arange(65536, dtype=np.uint16).tobytes()
    values = to_f32(raw, "BF16")
    back = np.frombuffer(from_f32(values, "BF16"), np.uint16)
    number = ~np.isnan(values)
    assert np.array_equal(back[number], np.frombuffer(raw, np.uint16)[number])
    assert np.isnan(to_f32(back.tobytes(), "BF16")[~number]).all()


@pytest.mark.parametrize("dtype, kind", [("F32", np.float32), ("F16", np.float16), ("F64", np.float64)])
def test_other_floats_convert_as_numpy_does(dtype, kind):
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(size=500), [0.0, -0.0, 1e-8, 65504, 65520, 1e30, np.inf, -np.inf, np.nan]]).astype(np.float32)
    with np.errstate(over="ignore"):
        expected = values.astype(kind)
    assert from_f32(values, dtype) == expected.tobytes()
    assert np.array_equal(to_f32(expected.tobytes(), dtype), expected.astype(np.float32), equal_nan=True)


@pytest.mark.parametrize("dtype", ["I8", "U8", "F8_E4M3", "BOOL", "I64", "F4"])
def test_what_cannot_be_computed_with(dtype):
    with pytest.raises(InputError, match="cannot be computed with"):
        to_f32(b"", dtype)
    with pytest.raises(InputError, match="cannot be computed with"):
        from_f32(np.zeros(1, np.float32), dtype)
