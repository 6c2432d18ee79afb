"""files.py: atomic writes, commits, names and verification."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polygraft import files
from polygraft.errors import InputError, RecipeError

HOSTILE = ["", ".", "..", "../x.safetensors", "/etc/x.safetensors", "a/b.safetensors", "..\\x.safetensors", "C:x.safetensors", "\\\\srv\\s\\x.safetensors",
           "C:\\x.safetensors", "x\0.safetensors", "x.bin", ".safetensors", "a\\b.safetensors", "x\n.safetensors", "n" * 300 + ".safetensors",
           "x.safetensors/", "x.safetensors:stream", "\udc80.safetensors/..", 7, None]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused(tmp_path, name):
    with pytest.raises(InputError):
        files.plain_name(tmp_path, name)


def test_plain_names_pass(tmp_path):
    for name in ("model.safetensors", "model-00001-of-00002.safetensors", "模型.safetensors", "a b.safetensors", "..a.safetensors"):
        assert files.plain_name(tmp_path, name) == tmp_path / name


def test_commit_is_absent_or_complete(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(RuntimeError), files.commit(out) as part:
        (part / "a.txt").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    manifest = {"kind": "test"}
    with files.commit(out, manifest) as part:
        (part / "sub").mkdir()
        (part / "sub" / "a.txt").write_text("whole")
        manifest["late"] = 1
    written = json.loads((out / "manifest.json").read_text())
    assert written["kind"] == "test" and written["late"] == 1
    assert written["files"]["sub/a.txt"]["size"] == 5
    assert files.verify_folder(out) == []


def test_commit_refuses_what_is_there(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("full", "file"):
        with pytest.raises(RecipeError), files.commit(tmp_path / name):
            pytest.fail("the block must not run")
    assert (tmp_path / "full" / "x").read_text() == "mine" and (tmp_path / "file").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    with files.commit(tmp_path / "empty") as part:
        (part / "x").write_text("1")
    assert files.verify_folder(tmp_path / "empty") == []


def test_leftovers_of_a_killed_run_are_cleared(tmp_path):
    part = files.partial_path(tmp_path / "out")
    part.mkdir()
    (part / "junk").write_text("half")
    with files.commit(tmp_path / "out") as p:
        assert list(p.iterdir()) == []
    assert not part.exists()


def test_verify_names_every_kind_of_damage(tmp_path):
    with files.commit(tmp_path / "o") as part:
        for name in "abcd":
            (part / name).write_text(name * 100)
    o = tmp_path / "o"
    (o / "a").unlink()
    (o / "b").write_text("b" * 99)
    data = bytearray((o / "c").read_bytes())
    data[50] ^= 1
    (o / "c").write_bytes(data)
    (o / "extra").write_text("?")
    found = {p.file: p.what for p in files.verify_folder(o)}
    assert found["a"] == "missing" and "size 99" in found["b"] and "digest" in found["c"] and found["extra"] == "not in the manifest"
    assert "d" not in found
    assert "c" not in {p.file for p in files.verify_folder(o, full=False)}


@given(st.integers(0, 8 * 300 - 1))
def test_any_flipped_bit_is_found(tmp_path_factory, bit):
    root = tmp_path_factory.mktemp("bits")
    with files.commit(root / "o") as part:
        (part / "x").write_bytes(bytes(range(256)) + b"z" * 44)
    data = bytearray((root / "o" / "x").read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    (root / "o" / "x").write_bytes(data)
    assert [p.file for p in files.verify_folder(root / "o")] == ["x"]
    shutil.rmtree(root)


def test_verify_without_a_manifest_says_so(tmp_path):
    with pytest.raises(InputError, match="no manifest"):
        files.verify_folder(tmp_path)


def test_duplicate_json_keys_are_refused(tmp_path):
    (tmp_path / "c.json").write_text('{"a": 1, "a": 2}')
    with pytest.raises(InputError, match="given twice"):
        files.read_json(tmp_path / "c.json")


def test_json_limit_and_kind(tmp_path):
    (tmp_path / "big.json").write_text(" " * 100)
    with pytest.raises(InputError, match="too large"):
        files.read_json(tmp_path / "big.json", limit=10)
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", ".", "absent"):
        with pytest.raises(InputError):
            files.read_json(tmp_path / name)


def test_canonical_is_one_text():
    assert files.canonical({"b": 1, "a": [True, None, "é"]}) == '{"a":[true,null,"é"],"b":1}'.encode()
    assert files.digest({"a": 1, "b": 2}) == files.digest({"b": 2, "a": 1})


def test_output_may_not_touch_an_input(tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for out in (tmp_path / "in", tmp_path / "in" / "new", tmp_path):
        with pytest.raises(RecipeError, match="touch an input"):
            files.refuse_overlap(out, [tmp_path / "in"])
    files.refuse_overlap(tmp_path / "in2", [tmp_path / "in"])
