"""Fuzzed headers: we accept what the reference accepts, or are stricter by a listed rule; never another exception, never a hang."""

from __future__ import annotations

import json
import random
import struct

import pytest

from polygraft.errors import InputError
from polygraft.header import BITS, read_header

# Our words for the listed rules (`STRICTER`): any other refusal must be the reference's too.
BY_RULE = ("larger than any real one", "does not begin with {", "given twice", "exactly dtype, shape and data_offsets", "more tensors than",
           "must map text to text", "control characters", "not a safetensors file", "short list of whole numbers")  # fmt: skip
SEEDS = (
    {"a": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]}, "b.c": {"dtype": "BF16", "shape": [3], "data_offsets": [8, 14]}},
    {"__metadata__": {"format": "pt", "x": "y"}, "w": {"dtype": "U8", "shape": [0, 9], "data_offsets": [0, 0]}},
    {"é": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}, "z": {"dtype": "I64", "shape": [], "data_offsets": [2, 10]}},
)


def valid(seed: dict) -> bytes:
    raw = json.dumps(seed).encode()
    raw += b" " * (-len(raw) % 8)
    end = max(e["data_offsets"][1] for k, e in seed.items() if k != "__metadata__")
    return struct.pack("<Q", len(raw)) + raw + bytes(end)


def mutate(rng: random.Random) -> bytes:
    """A valid file with 1 to 16 bytes changed, inserted or removed, sometimes with its length field kept true."""
    data = bytearray(valid(rng.choice(SEEDS)))
    for _ in range(rng.randint(1, 16) if rng.random() < 0.3 else rng.randint(1, 2)):
        at = rng.randrange(len(data))
        pick = rng.random()
        byte = rng.choice(b'0123456789-+.eE{}[]:," \\untfalsep\n') if rng.random() < 0.7 else rng.randrange(256)
        if pick < 0.6:
            data[at] = byte
        elif pick < 0.8:
            data.insert(at, byte)
        elif len(data) > 1:
            del data[at]
    if rng.random() < 0.5 and (end := data.rfind(b"}")) > 8:
        data[:8] = struct.pack("<Q", end + 1 - 8)
    return bytes(data)


def value(rng: random.Random, depth: int = 0) -> object:
    """Some JSON value, often one that a header could hold."""
    plain = [0, 1, 8, -1, 2**63, 2**64, 1.0, 1e400, "", "F32", "\ud800", "\0", None, True, [], {}, [0, 0], [0, 4], [1], [2, 3], "__metadata__"]
    if depth > 2 or rng.random() < 0.6:
        return rng.choice(plain)
    if rng.random() < 0.5:
        return [value(rng, depth + 1) for _ in range(rng.randrange(3))]
    return {str(value(rng, 3)): value(rng, depth + 1) for _ in range(rng.randrange(3))}


def invented(rng: random.Random) -> bytes:
    """A file whose header is made up, with offsets that often fit."""
    header: dict[str, object] = {}
    position = 0
    for i in range(rng.randrange(4)):
        shape = [rng.randrange(4) for _ in range(rng.randrange(4))]
        dtype = rng.choice(list(BITS))
        size = BITS[dtype]
        for n in shape:
            size *= n
        entry: dict[str, object] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + size // 8]}
        position += size // 8
        if rng.random() < 0.2:
            entry[rng.choice(["dtype", "shape", "data_offsets", "more"])] = value(rng)
        header[rng.choice(["a", "b", "c.weight", "é", f"t{i}", "\x07", "\ud800"])] = entry
    if rng.random() < 0.4:
        header["__metadata__"] = rng.choice([{"format": "pt"}, value(rng), {"a": value(rng)}])
    raw = json.dumps(header, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    if rng.random() < 0.1:
        raw = rng.choice([b" ", b"\n", b"\xef\xbb\xbf"]) + raw
    return struct.pack("<Q", len(raw)) + raw + bytes(max(0, position + rng.choice([0, 0, 0, 0, 1, -1])))


def judge(data: bytes, path) -> str | None:
    """A sentence about a disagreement, or None."""
    from safetensors import SafetensorError, deserialize

    try:
        reference = {k: (t["dtype"], tuple(t["shape"]), bytes(t["data"])) for k, t in deserialize(data)}
    except (SafetensorError, UnicodeError):
        reference = None
    path.write_bytes(data)
    try:
        ours = {t.key: (t.dtype, t.shape, data[t.start : t.end]) for t in read_header(path).tensors}
    except InputError as e:
        if reference is None or any(rule in str(e) for rule in BY_RULE):
            return None
        return f"refused what the reference accepts: {e}"
    if reference is None:
        return f"accepted what the reference refuses: {ours}"
    return None if ours == reference else f"read {ours}, the reference {reference}"


def run(examples: int, seed: int, path) -> list[tuple[bytes, str]]:
    rng = random.Random(seed)
    faults = []
    for i in range(examples):
        data = mutate(rng) if i % 2 else invented(rng)
        if fault := judge(data, path):
            faults.append((data, fault))
    return faults


@pytest.mark.group("A2")
def test_fuzz(tmp_path, record_property):
    record_property("cases", 2000)
    faults = run(2000, 20240607, tmp_path / "f.safetensors")
    assert not faults, faults[:3]


@pytest.mark.slow
def test_fuzz_long(tmp_path):
    faults = run(200_000, random.SystemRandom().randrange(1 << 30), tmp_path / "f.safetensors")
    assert not faults, faults[:3]


def test_the_fuzzer_makes_both_kinds(tmp_path):
    """A fuzzer whose files are all refused would prove nothing."""
    rng, path, taken = random.Random(1), tmp_path / "f.safetensors", 0
    for i in range(600):
        path.write_bytes(mutate(rng) if i % 2 else invented(rng))
        try:
            read_header(path)
            taken += 1
        except InputError:
            pass
    assert 60 < taken < 540
