"""Writing: the reference's bytes, the same digests whatever the shards or the order, and nothing accepted that is not whole."""

from __future__ import annotations

import hashlib
import json
import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polygraft import files, writer
from polygraft.checkpoint import Checkpoint
from polygraft.errors import InputError, ResourceError
from polygraft.header import BITS, spec_bytes
from polygraft.writer import CheckpointWriter, natural, split

NUMPY = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
         "U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "U64": np.uint64, "BOOL": np.bool_}  # fmt: skip
keys = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(lambda k: k != "__metadata__")
shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
models = st.dictionaries(keys, st.tuples(st.sampled_from(sorted(NUMPY)), shapes), min_size=1, max_size=8)


def descriptors() -> int:
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def content(key: str, spec: tuple[str, tuple[int, ...]]) -> bytes:
    """Bytes that depend on the name alone (0 or 1 each, so that they are booleans too)."""
    return bytes(random.Random(key).randrange(2) for _ in range(spec_bytes(*spec)))


def save(folder, specs, shard_bytes=5e9, order=None, chunk=7):
    folder.mkdir(exist_ok=True)
    out = CheckpointWriter(folder, specs, shard_bytes)
    for key in order or specs:
        raw = content(key, specs[key])
        out.write(key, (raw[i : i + chunk] for i in range(0, len(raw), chunk)))
    return out.close()


@given(specs=models)
@settings(max_examples=60, deadline=None)
def test_one_file_equals_the_reference_byte_for_byte(tmp_path_factory, specs):
    from safetensors.numpy import save_file

    folder = tmp_path_factory.mktemp("w")
    result = save(folder / "ours", specs)
    arrays = {k: np.frombuffer(content(k, s), NUMPY[s[0]]).reshape(s[1]) for k, s in specs.items()}
    save_file(arrays, folder / "theirs.safetensors", metadata={"format": "pt"})
    ours = (folder / "ours" / "model.safetensors").read_bytes()
    assert ours == (folder / "theirs.safetensors").read_bytes()
    assert result["files"] == {"model.safetensors": {"sha256": hashlib.sha256(ours).hexdigest(), "size": len(ours)}}
    assert result["tensors"] == {k: hashlib.sha256(content(k, s)).hexdigest() for k, s in sorted(specs.items())}


SPECS = {f"layers.{i}.{n}": ("BF16" if i % 3 else "F32", (i + 1, 4)) for i in range(12) for n in "ab"}


@pytest.mark.group("N")
@pytest.mark.parametrize("shard_bytes", [5e9, 300, 100, 1])
@pytest.mark.parametrize("shuffled", [False, True])
def test_digests_do_not_depend_on_shards_or_order(tmp_path, shard_bytes, shuffled):
    order = sorted(SPECS)
    if shuffled:
        random.Random(1).shuffle(order)
    first, again = (save(tmp_path / n, SPECS, shard_bytes, order) for n in "ab")
    assert first == again
    assert first["tensors"] == {k: hashlib.sha256(content(k, SPECS[k])).hexdigest() for k in sorted(SPECS)}
    (tmp_path / "a" / "config.json").write_text("{}")
    back = Checkpoint.open(tmp_path / "a")
    assert {k: back.read(k) for k in SPECS} == {k: content(k, SPECS[k]) for k in SPECS} and not back.warnings
    for name, entry in first["files"].items():
        assert files.sha256_file(tmp_path / "a" / name) == entry["sha256"]
    if shard_bytes < 1000:
        index = json.loads((tmp_path / "a" / "model.safetensors.index.json").read_text())
        assert index["metadata"]["total_size"] == sum(spec_bytes(*s) for s in SPECS.values())
        for name in set(index["weight_map"].values()):
            held = [k for k, v in index["weight_map"].items() if v == name]
            assert len(held) == 1 or sum(spec_bytes(*SPECS[k]) for k in held) <= shard_bytes


@pytest.mark.group("N")
@pytest.mark.parametrize("workers", [2, 8])
def test_threads_write_the_same_bytes(tmp_path, workers):
    expected = save(tmp_path / "one", SPECS, 100)
    (tmp_path / "many").mkdir()
    out = CheckpointWriter(tmp_path / "many", SPECS, 100)
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(lambda k: out.write(k, content(k, SPECS[k])), sorted(SPECS, reverse=True)))
    assert out.close() == expected


def test_natural_order_and_greedy_split():
    assert sorted(["l.10.a", "l.2.a", "embed", "l.2.B"], key=natural) == ["embed", "l.2.B", "l.2.a", "l.10.a"]
    specs = {f"l.{i}": ("U8", (40,)) for i in range(12)}
    assert split(specs, 100)[0] == ["l.0", "l.1"] and split(specs, 100)[5] == ["l.10", "l.11"]
    assert split(specs | {"l.3": ("U8", (999,))}, 100)[2] == ["l.3"]
    assert split({}, 100) == [[]]


@pytest.mark.parametrize("raw, match", [(b"1234567", "fewer bytes"), (b"123456789", "more bytes"), ([b"12345678", b"9"], "more bytes")])
def test_bytes_must_fill_the_tensor(tmp_path, raw, match):
    with pytest.raises(InputError, match=match), CheckpointWriter(tmp_path, {"a": ("U8", (8,))}) as out:
        out.write("a", raw)


def test_every_tensor_once_and_only_once(tmp_path):
    with CheckpointWriter(tmp_path, {"a": ("U8", (1,)), "b": ("U8", (1,))}) as out:
        out.write("a", b"1")
        with pytest.raises(InputError, match="written twice"):
            out.write("a", b"1")
        with pytest.raises(InputError, match="not announced"):
            out.write("c", b"1")
        with pytest.raises(InputError, match="never written"):
            out.close()


def test_no_room_is_said_before_the_first_byte(tmp_path, monkeypatch):
    monkeypatch.setattr(writer.files, "free_space", lambda _: 10)
    with pytest.raises(ResourceError, match="not enough room") as e:
        CheckpointWriter(tmp_path, {"a": ("F32", (100,))})
    assert "10 bytes free" in str(e.value) and not list(tmp_path.iterdir())


class Flip(files.Ops):
    """A disk that stores one bit wrong."""

    def __init__(self, at: int):
        self.at = at

    def pwrite(self, fd, data, offset):
        data = bytearray(data)
        if offset <= self.at < offset + len(data):
            data[self.at - offset] ^= 1
        return os.pwrite(fd, data, offset)


@pytest.mark.group("G")
@pytest.mark.parametrize("at", [0, 9, 60, -1])
def test_a_bit_stored_wrong_is_found_before_the_commit(tmp_path, monkeypatch, at):
    specs = {"a": ("U8", (50,)), "b": ("F32", (50,))}
    save(tmp_path / "good", specs)
    size = (tmp_path / "good" / "model.safetensors").stat().st_size
    monkeypatch.setattr(files, "OPS", Flip(at % size))
    with pytest.raises(ResourceError, match="other bytes than were written"), files.commit(tmp_path / "out") as part:
        save(part, specs)
    assert not (tmp_path / "out").exists() and not files.partial_path(tmp_path / "out").exists()


class Short(files.Ops):
    """A disk that takes one byte at a time."""

    def pwrite(self, fd, data, offset):
        return os.pwrite(fd, bytes(data[:1]), offset)


@pytest.mark.group("G")
def test_short_writes_are_continued(tmp_path, monkeypatch):
    expected = save(tmp_path / "a", SPECS)
    monkeypatch.setattr(files, "OPS", Short())
    assert save(tmp_path / "b", SPECS) == expected


@pytest.mark.parametrize("mask, mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_get_the_mode_that_umask_allows(tmp_path, mask, mode):
    old = os.umask(mask)
    try:
        save(tmp_path / "m", SPECS, 100)
    finally:
        os.umask(old)
    assert {f.stat().st_mode & 0o777 for f in (tmp_path / "m").iterdir()} == {mode}


def test_an_error_leaves_no_descriptor_and_no_thread(tmp_path):
    before = descriptors(), threading.active_count()
    with pytest.raises(InputError), CheckpointWriter(tmp_path, SPECS, 100) as out:
        out.write("layers.0.a", content("layers.0.a", SPECS["layers.0.a"]))
        out.write("layers.1.a", b"")
    assert (descriptors(), threading.active_count()) == before


def test_every_known_dtype_has_a_size():
    assert all(spec_bytes(dtype, (8,)) == bits for dtype, bits in BITS.items())
    with pytest.raises(InputError, match="whole byte"):
        spec_bytes("F4", (3,))
