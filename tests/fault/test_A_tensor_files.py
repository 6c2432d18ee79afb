"""Hostile tensor files: each is refused by name and reason, fast, in little memory, with no other exception."""

from __future__ import annotations

import gzip
import json
import os
import resource
import struct
import time
import zipfile
from pathlib import Path

import pytest

from polygraft.checkpoint import Checkpoint
from polygraft.errors import InputError
from polygraft.header import MAX_HEADER, MAX_TENSORS, STRICTER, parse, read_header

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def pack(header: object, body: bytes = b"\0" * 8, length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + body


def entry(**change: object) -> bytes:
    return pack({"a": F32 | change})


def bomb() -> bytes:
    """A header of 23 MB that declares 400,000 empty tensors."""
    return pack(b"{" + b",".join(b'"tensor%06d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % i for i in range(400_000)) + b"}", b"")


REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "seven bytes": (b"\1\0\0\0\0\0\0", "too short"),
    "header longer than the file": (pack({"a": F32}, length=1 << 12), "past the end"),
    "header length 2^63": (pack({"a": F32}, length=1 << 63), "larger than any real one"),
    "header length over 100 MB": (pack({"a": F32}, length=101 << 20), "larger than any real one"),
    "header length zero": (pack(b""), "does not begin with"),
    "header over 16 MB": (pack(b"{" + b" " * MAX_HEADER + b"}", b""), "larger than any real one"),
    "header bomb": (bomb(), "larger than any real one"),
    "not UTF-8": (pack(b'{"a\xff":{}}'), "not valid JSON"),
    "not JSON": (pack(b"{oops}"), "not valid JSON"),
    "an array": (pack([1]), "does not begin with"),
    "deep nesting": (pack(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "not valid JSON"),
    "NaN in the header": (pack(b'{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,8]}}'), "not valid JSON"),
    "unknown dtype": (entry(dtype="F33"), "unknown dtype"),
    "negative shape": (entry(shape=[-2]), "whole numbers"),
    "minus nought": (pack(b'{"a":{"dtype":"U8","shape":[0,9],"data_offsets":[0,-0]}}', b""), "whole numbers"),
    "fractional shape": (entry(shape=[2.0]), "whole numbers"),
    "shape overflow": (entry(shape=[1 << 40, 1 << 40, 0]), "does not fill"),
    "metadata not text": (pack({"__metadata__": {"a": 1}, "a": F32}), "must map text to text"),
    "metadata null": (pack({"__metadata__": None, "a": F32}), "must map text to text"),
    "body truncated": (pack({"a": F32}, b"\0" * 7), "cut short"),
    "trailing bytes": (pack({"a": F32}, b"\0" * 8 + b"PK\3\4"), "follow the last tensor"),
    "hole": (pack({"a": F32, "b": F32 | {"data_offsets": [12, 20]}}, b"\0" * 20), "hole"),
    "overlap": (pack({"a": F32, "b": F32 | {"data_offsets": [4, 12]}}, b"\0" * 12), "overlap"),
    "reversed offsets": (entry(data_offsets=[8, 0]), "not larger"),
    "shape does not fill the bytes": (entry(shape=[3]), "does not fill"),
    "leading spaces": (pack(b"  " + json.dumps({"a": F32}).encode()), "does not begin with"),
    "duplicate key": (pack(b'{"a":%s,"a":%s}' % ((json.dumps(F32).encode(),) * 2)), "given twice"),
    "extra field": (entry(note="x"), "exactly dtype, shape and data_offsets"),
    "control characters in a name": (pack({"a\x1b[2J": F32}), "control characters"),
    "Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "Git LFS pointer"),
    "web page": (b"\n<!DOCTYPE html><html><body>404</body></html>", "web page"),
    "gzip": (gzip.compress(pack({"a": F32})), "gzip"),
    "zip": (b"PK\3\4" + b"\0" * 60, "zip archive"),
    "pickle": (b"\x80\x02}q\x00(X\x01" + b"\0" * 60, "pickle"),
}


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def refusal(folder: Path, match: str) -> InputError:
    """Open the folder; it must be refused within 0.2 s and 64 MB, naming the file."""
    before, start = peak(), time.process_time()
    with pytest.raises(InputError, match=match) as e:
        Checkpoint.open(folder)
    assert time.process_time() - start < 0.2 and peak() - before < 64 << 20
    assert "model" in str(e.value) and len(str(e.value)) < 2000
    return e.value


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return tmp_path / "model"


@pytest.mark.group("A")
@pytest.mark.parametrize("case", REFUSED)
def test_hostile_bytes(folder, case):
    data, match = REFUSED[case]
    (folder / "model.safetensors").write_bytes(data)
    error = refusal(folder, match)
    assert error.fix and error.exit_code == 3


@pytest.mark.group("A")
def test_more_tensors_than_any_model_has(tmp_path):
    one = b'"a":{"dtype":0}'
    with pytest.raises(InputError, match="more tensors"):
        parse(b"{" + one * (MAX_TENSORS + 1) + b"}", 0, tmp_path / "model.safetensors")


@pytest.mark.group("A")
@pytest.mark.parametrize("kind", ["folder", "fifo", "device", "link out", "dangling link", "link loop", "unreadable"])
def test_not_a_file_of_this_folder(folder, tmp_path, kind):
    file = folder / "model.safetensors"
    outside = tmp_path / "outside.safetensors"
    outside.write_bytes(pack({"a": F32}))
    match = {"folder": "not a plain file", "fifo": "not a plain file", "device": "leaves the model's folder"}.get(kind, "link")
    if kind == "folder":
        file.mkdir()
    elif kind == "fifo":
        os.mkfifo(file)
    elif kind == "unreadable":
        match = "cannot be read"
        file.write_bytes(pack({"a": F32}))
        file.chmod(0)
        if os.access(file, os.R_OK):  # root reads everything: let the system call say what it would say to others
            file.unlink()
            file.symlink_to("model.safetensors" + "x" * 300)
            match = "leads nowhere"
    else:
        file.symlink_to({"device": Path("/dev/zero"), "link out": outside, "dangling link": tmp_path / "no", "link loop": file}[kind])
    refusal(folder, match)


def test_permission_denied_is_said(folder, monkeypatch):
    (folder / "model.safetensors").write_bytes(pack({"a": F32}))
    real = os.open

    def denied(path, *args, **kwargs):
        if str(path).endswith(".safetensors"):
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", denied)
    refusal(folder, "cannot be read")


def test_the_hub_cache_layout_is_followed(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for name, data in {"config.json": b"{}", "model.safetensors": pack({"a": F32})}.items():
        (blobs / name[:3]).write_bytes(data)
        (snapshot / name).symlink_to(Path("../../blobs") / name[:3])
    assert set(Checkpoint.open(snapshot).tensors) == {"a"}
    (tmp_path / "link").symlink_to(snapshot)
    assert set(Checkpoint.open(tmp_path / "link").tensors) == {"a"}


@pytest.mark.parametrize("header, body", [({"a": F32}, bytes(8)), ({"a": F32 | {"shape": [0], "data_offsets": [0, 0]}}, b""),
                                          ({"a": F32 | {"shape": [], "data_offsets": [0, 4]}}, b"\0\0\xc0\x7f"),
                                          ({"__metadata__": {"format": "pt"}, "a": F32}, bytes(8))])  # fmt: skip
def test_plain_files_zero_sized_tensors_and_nan_are_accepted(tmp_path, header, body):
    file = tmp_path / "model.safetensors"
    file.write_bytes(pack(header, body))
    assert [t.key for t in read_header(file).tensors] == ["a"]


def test_zip_archives_are_recognised_as_made(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.safetensors", "w") as z:
        z.writestr("data.pkl", b"x")
    with pytest.raises(InputError, match="zip archive"):
        read_header(tmp_path / "model.safetensors")


def test_every_stricter_rule_says_why():
    assert all(STRICTER.values()) and len(STRICTER) == 8
