"""Pickle is never read: every form of it is refused with the way to convert, and a canary inside is never run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from polygraft.adapter import Adapter
from polygraft.checkpoint import Checkpoint
from polygraft.data import open_corpus
from polygraft.errors import InputError
from polygraft.sources import open_model, resolve


def canary_pickle(target: Path) -> bytes:
    """A protocol-0 pickle, written out by hand, that creates `target` when it is loaded."""
    return f"cos\nmkdir\n(V{target}\ntR.".encode()


@pytest.fixture
def canary(tmp_path):
    return tmp_path / "the-canary-flew"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    return tmp_path / "m"


WEIGHTS = ["pytorch_model.bin", "model.pt", "model.pth", "last.ckpt", "model.pkl", "weights.npz", "flax_model.msgpack", "tf_model.h5"]


@pytest.mark.group("D")
@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("as_file", [False, True], ids=["folder", "file"])
def test_pickled_weights(folder, canary, name, as_file):
    (folder / name).write_bytes(canary_pickle(canary))
    with pytest.raises(InputError, match="pickle") as e:
        open_model(folder / name if as_file else folder)
    assert "save_pretrained" in str(e.value) and name in str(e.value)
    assert not canary.exists()


@pytest.mark.group("D")
def test_pickle_index(folder):
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": "pytorch_model-1.bin"}}))
    with pytest.raises(InputError, match="only pickle weights"):
        open_model(folder)


@pytest.mark.group("D")
def test_pickle_adapter(folder, canary):
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4}')
    (folder / "adapter_model.bin").write_bytes(canary_pickle(canary))
    with pytest.raises(InputError, match="only a pickle adapter"):
        Adapter.open(folder)
    with pytest.raises(InputError, match="only a pickle adapter"):
        resolve(folder)
    assert not canary.exists()


@pytest.mark.group("D")
def test_pickle_under_the_right_name(folder, canary):
    (folder / "model.safetensors").write_bytes(canary_pickle(canary))
    with pytest.raises(InputError):
        Checkpoint.open(folder)
    assert not canary.exists()


@pytest.mark.group("D")
@pytest.mark.parametrize("name", ["corpus.pkl", "corpus.pickle", "corpus.npy", "corpus.arrow"])
def test_pickle_as_a_corpus(tmp_path, canary, name):
    (tmp_path / name).write_bytes(canary_pickle(canary))
    with pytest.raises(InputError, match="not read as a corpus"):
        open_corpus("en", tmp_path / name)
    assert not canary.exists()


@pytest.mark.group("D")
def test_pickled_tokenizer_is_not_among_what_travels(tiny, tmp_path, canary):
    import shutil

    shutil.copytree(tiny("llama"), tmp_path / "m")
    (tmp_path / "m" / "tokenizer.pickle").write_bytes(canary_pickle(canary))
    assert "tokenizer.pickle" not in Checkpoint.open(tmp_path / "m").extras and not canary.exists()


def test_the_canary_would_fly(canary):
    """The bytes are a real pickle: its opcodes call os.mkdir on the target (read, not run)."""
    import pickletools

    seen = [(op.name, arg) for op, arg, _ in pickletools.genops(canary_pickle(canary))]
    assert ("GLOBAL", "os mkdir") in seen and ("REDUCE", None) in seen and ("UNICODE", str(canary)) in seen
