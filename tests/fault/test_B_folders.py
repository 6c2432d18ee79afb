"""Broken indexes and folders: refused or warned about exactly as documented, and nothing outside the folder is opened."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polygraft.checkpoint import Checkpoint, tied_conflict
from polygraft.errors import InputError
from polygraft.folder import INDEX, SINGLE
from polygraft.writer import CheckpointWriter

SPECS = {"model.embed_tokens.weight": ("F32", (4, 2)), "model.norm.weight": ("F32", (2,)), "lm_head.weight": ("F32", (4, 2))}
CONFIG = {"model_type": "llama", "vocab_size": 4, "num_hidden_layers": 1}
opened: list[str] = []


def watch(event: str, args: tuple[Any, ...]) -> None:
    if event == "open" and opened and isinstance(args[0], str | bytes):
        opened.append(args[0] if isinstance(args[0], str) else args[0].decode("utf-8", "replace"))


sys.addaudithook(watch)  # cannot be removed; it only listens while `opened` is not empty


def write(folder: Path, shard_bytes: float = 41) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    out = CheckpointWriter(folder, SPECS, shard_bytes)
    for i, (key, (_, shape)) in enumerate(SPECS.items()):
        out.write(key, np.full(shape, i, np.float32).tobytes())
    out.close()
    return folder


@pytest.fixture
def model(tmp_path):
    (tmp_path / "secret.safetensors").write_bytes(b"private")
    return write(tmp_path / "model")


def change_index(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    index = json.loads((folder / INDEX).read_text())
    result = change(index)
    (folder / INDEX).write_text(json.dumps(index if result is None else result))


def change_config(folder: Path, **values: Any) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG | values))


def first_shard(index: dict[str, Any], name: Any) -> None:
    index["weight_map"]["model.norm.weight"] = name


def open_watched(folder: Path) -> Checkpoint:
    """Open a folder and see to it that nothing outside it is opened."""
    root = str(folder.resolve())
    opened[:] = ["watching"]
    try:
        return Checkpoint.open(folder)
    finally:
        seen, opened[:] = opened[1:], []
        strays = [p for p in seen if not p.startswith(root) and not p.endswith((".py", ".pyc")) and not p.startswith(("/proc", "/sys"))]
        assert not strays, strays


HOSTILE = ["../secret.safetensors", "/etc/passwd.safetensors", "a/b.safetensors", "..\\secret.safetensors", "C:\\x.safetensors",
           "C:x.safetensors", "\\\\host\\share\\x.safetensors", "a\\b.safetensors", "./x.safetensors", "x.safetensors/", "", ".safetensors",
           "x.bin", "a\0.safetensors", "~/x.pt"]  # fmt: skip


@pytest.mark.group("B")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names(model, name):
    change_index(model, lambda index: first_shard(index, name))
    with pytest.raises(InputError, match="not plain") as e:
        open_watched(model)
    assert "\0" not in str(e.value)


def case_only(folder: Path) -> None:
    change_index(folder, lambda i: first_shard(i, "MODEL-00002-of-00002.safetensors"))


def both(folder: Path) -> None:
    write(folder.parent / "other", 5e9)
    (folder.parent / "other" / SINGLE).rename(folder / SINGLE)


def twice(folder: Path) -> None:
    shards = sorted(folder.glob("model-*.safetensors"))
    shards[0].write_bytes(shards[1].read_bytes())


def only_pickle(folder: Path) -> None:
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def no_index(folder: Path) -> None:
    (folder / INDEX).unlink()


def key_case(folder: Path) -> None:
    (folder / "one").mkdir()
    out = CheckpointWriter(folder / "one", {"a.weight": ("U8", (1,)), "A.weight": ("U8", (1,))})
    out.write("a.weight", b"1")
    out.write("A.weight", b"2")
    out.close()
    for file in folder.glob("model*"):
        file.unlink()
    (folder / "one" / SINGLE).rename(folder / SINGLE)
    (folder / "one").rmdir()


def raw_index(data: bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / INDEX).write_bytes(data)


def index(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
    return lambda folder: change_index(folder, change)


def config(data: bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / "config.json").write_bytes(data)


def values(**changes: Any) -> Callable[[Path], Any]:
    return lambda folder: change_config(folder, **changes)


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "name over 255 bytes": (index(lambda i: first_shard(i, "x" * 300 + ".safetensors")), "not plain"),
    "non-string value": (index(lambda i: first_shard(i, 3)), "something that is no file"),
    "shard missing": (lambda f: (f / "model-00002-of-00002.safetensors").unlink(), "1 of 2 absent"),
    "key in two shards": (twice, "one tensor in two shards"),
    "key in index, not in shard": (index(lambda i: i["weight_map"].update(ghost="model-00001-of-00002.safetensors")), "ghost is in no shard"),
    "key in shard, not in index": (index(lambda i: i["weight_map"].pop("model.norm.weight") and None), "no shard .the index does not"),
    "key in another shard than told": (index(lambda i: first_shard(i, "model-00001-of-00002.safetensors")), "disagree"),
    "index and single file": (both, "two sets of weights"),
    "index too large": (raw_index(b'{"weight_map": {' + b" " * (33 << 20) + b"}}"), "too large"),
    "a million entries": (raw_index(b'{"weight_map":{' + b",".join(b'"%x":"a"' % i for i in range(1_000_000)) + b"}}"), "more tensors than"),
    "duplicate keys in the index": (raw_index(b'{"weight_map":{"a":"b","a":"c"}}'), "given twice"),
    "index without weight_map": (raw_index(b"{}"), "no weight_map"),
    "index is a list": (raw_index(b"[]"), "no weight_map"),
    "index is not JSON": (raw_index(b"<html>"), "not valid JSON"),
    "shard names differ in case": (case_only, "differ only in upper and lower case"),
    "tensor names differ in case": (key_case, "differ only in upper and lower case"),
    "shards without index": (no_index, "shards without their index"),
    "config missing": (lambda f: (f / "config.json").unlink(), "config.json is missing"),
    "config not an object": (config(b"[]"), "not an object"),
    "config of 50 MB": (config(b'{"a": "' + b"x" * (50 << 20) + b'"}'), "too large"),
    "config not JSON": (config(b"{'a': 1}"), "not valid JSON"),
    "config twice the same key": (config(b'{"vocab_size": 4, "vocab_size": 5}'), "given twice"),
    "no layers": (values(num_hidden_layers=0), "impossible number of layers"),
    "10^9 layers": (values(num_hidden_layers=10**9), "impossible number of layers"),
    "layers not a number": (values(num_hidden_layers="many"), "impossible number of layers"),
    "vocabulary of nothing": (values(vocab_size=0), "impossible vocabulary"),
    "vocabulary not the embedding's rows": (values(vocab_size=5), "disagree on the vocabulary"),
    "only pickle": (only_pickle, "only pickle weights"),
}


@pytest.mark.group("B")
@pytest.mark.parametrize("case", REFUSED)
def test_refused(model, case):
    spoil, match = REFUSED[case]
    spoil(model)
    with pytest.raises(InputError, match=match) as e:
        open_watched(model)
    assert str(model) in str(e.value) and e.value.exit_code == 3 and len(str(e.value)) < 2000


def extra_shard(folder: Path) -> None:
    (folder / "consolidated.safetensors").write_bytes(b"x")


WARNED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "shard present but unlisted": (extra_shard, "consolidated.safetensors: not named"),
    "wrong total_size": (index(lambda i: i["metadata"].update(total_size=7)), "total_size is 7"),
    "pickle beside safetensors": (lambda f: (f / "pytorch_model.bin").write_bytes(b"\x80"), "pytorch_model.bin: pickle, ignored"),
    "tied but both present": (values(tie_word_embeddings=True), "lm_head.weight is stored although"),
}


@pytest.mark.group("B")
@pytest.mark.parametrize("case", WARNED)
def test_warned(model, case):
    spoil, words = WARNED[case]
    spoil(model)
    checkpoint = open_watched(model)
    assert any(words in w for w in checkpoint.warnings), checkpoint.warnings
    assert set(checkpoint.tensors) == set(SPECS)


@pytest.mark.group("B")
def test_accepted_with_an_unknown_model_type(model):
    """What a model is called does not matter here: its tensors are what anatomy judges."""
    change_config(model, model_type="nobody-knows")
    assert not open_watched(model).warnings


@pytest.mark.group("B")
def test_tied_and_unequal_is_named(model):
    change_config(model, tie_word_embeddings=True)
    assert tied_conflict(open_watched(model)) == "lm_head.weight"


@pytest.mark.parametrize("name", ["no such folder", "config.json", "x" * 4000, "a\0b", ""])
def test_not_a_folder(model, name):
    with pytest.raises(InputError):
        Checkpoint.open(model / name if name else model.parent / "secret.safetensors")


def test_an_adapter_is_told_apart(model):
    for file in model.iterdir():
        file.unlink()
    (model / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="a LoRA adapter, not a whole model"):
        Checkpoint.open(model)


def test_a_good_folder_is_good(model):
    assert not open_watched(model).warnings
