"""The rules a model folder keeps: which files are its weights, what index and config must say; nothing hostile, nothing pickle."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from polygraft import files
from polygraft.errors import InputError
from polygraft.header import MAX_TENSORS, Header

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
MASKS = "masks.safetensors"  # beside a pruned model: which of its weights stay
MAX_LAYERS = 10_000
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npz", ".npy", ".msgpack", ".h5")
EXTRAS = (
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
    "preprocessor_config.json",
    "processor_config.json",
)
EMBEDDINGS = re.compile(r"(^|\.)(embed_tokens|wte|word_embeddings|embed_in|tok_embeddings)\.weight$")
CONVERT = (
    "pickle files can run code, so they are never read; get the model's safetensors files, or convert once where you trust "
    "the source: AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(NEW_DIR)"
)


def checked_folder(path: str | Path) -> Path:
    """The real path of a model folder. Raises InputError when it is not a readable folder."""
    path = Path(path).expanduser()
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode) and path.suffix in PICKLES:
            raise InputError("pickle is never read", where=path, fix=CONVERT)
        if not stat.S_ISDIR(mode):
            raise InputError("not a folder", where=path, expected="a model folder with config.json and model.safetensors")
        return path.resolve(strict=True)
    except (OSError, ValueError, RuntimeError) as e:
        found = "a name that no file can have" if isinstance(e, ValueError) else getattr(e, "strerror", None) or str(e)
        fix = "check the path" if getattr(e, "errno", errno.ENOENT) == errno.ENOENT else "check its permissions"
        raise InputError("no such model folder", where=str(path)[:300], found=found, fix=fix) from e


def refuse_stray_link(file: Path) -> None:
    """A symbolic link may stay in its folder or follow the hub cache layout (snapshots/REV/name -> blobs/HASH); else InputError."""
    if not file.is_symlink():
        return
    try:
        target = file.resolve(strict=True)
    except (OSError, RuntimeError) as e:
        raise InputError("a link that leads nowhere", where=file, fix="get the file again") from e
    folder = file.parent.resolve()
    blobs = folder.parent.parent / "blobs" if folder.parent.name == "snapshots" else None
    if target.parent not in (folder, blobs):
        raise InputError(
            "a link that leaves the model's folder",
            where=file,
            found=str(target),
            expected="a real file, or the hub's cache layout",
            fix="copy the file into the folder",
        )


class _Shards(list[str]):
    """File names in order, with the parsed index file when there is one."""

    table: dict[str, Any] | None = None


def find_shards(path: Path, elsewhere: Iterable[str] = ()) -> tuple[_Shards, list[str]]:
    """The files that hold a model's weights, and warnings. `elsewhere` are files that belong to the folder but are not in it."""
    present = {e.name for e in os.scandir(path)} | set(elsewhere)
    tensor_files = {n for n in present if n.endswith(".safetensors")}
    shards = _Shards([SINGLE] if SINGLE in present else [])
    if INDEX in present:
        refuse_stray_link(path / INDEX)
        shards = _indexed(path, read_index(path / INDEX), present)
        if SINGLE in present and SINGLE not in shards:
            raise InputError(
                "two sets of weights in one folder",
                where=path,
                found=f"{SINGLE} and {INDEX}",
                expected="one of them",
                fix="move away the one that is not meant",
            )
    if not shards:
        raise _no_weights(path, present)
    for name in shards:
        refuse_stray_link(path / name)
    warnings = [f"{n}: not named in {INDEX}; ignored" for n in sorted(tensor_files - {MASKS, *shards})] if shards.table else []
    warnings += [
        f"{n}: pickle, ignored (only safetensors is read)" for n in sorted(present) if n.endswith((".bin", ".pt", ".pth", ".ckpt"))
    ]
    return shards, warnings


def _no_weights(path: Path, present: set[str]) -> InputError:
    expected = f"{SINGLE}, or {INDEX} with its shards"
    if "adapter_config.json" in present:
        return InputError(
            "a LoRA adapter, not a whole model",
            where=path,
            expected=expected,
            fix="name it with its base: {adapter: DIR, base: MODEL} under `models:`, or --base MODEL",
        )
    if pickles := sorted(n for n in present if n.endswith((*PICKLES, ".bin.index.json"))):
        return InputError("only pickle weights here", where=path, found=", ".join(pickles[:3]), expected=expected, fix=CONVERT)
    if gguf := sorted(n for n in present if n.endswith(".gguf")):
        return InputError(
            "no safetensors here", where=path, found=", ".join(gguf[:3]), expected=expected, fix="name the .gguf file itself"
        )
    if others := sorted(n for n in present if n.endswith(".safetensors")):
        what = "shards without their index" if len(others) > 1 or "-of-" in others[0] else "no file of the expected name"
        return InputError(
            what, where=path, found=", ".join(others[:3]), expected=expected, fix="get the whole folder from its source"
        )
    return InputError("no weights here", where=path, expected=expected, fix="name the folder that holds the model")


def read_index(file: Path) -> dict[str, Any]:
    """`weight_map` and `total_size` of an index file, names checked. Raises InputError."""
    index = files.read_json(file, limit=32 << 20)
    weights = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weights, dict) or not weights:
        raise InputError(
            "the index has no weight_map", where=file, expected='{"weight_map": {tensor: file}}', fix="get the file again"
        )
    if len(weights) > MAX_TENSORS // 2:
        raise InputError("the index names more tensors than any model has", where=file, found=f"{len(weights):,}")
    for key, name in weights.items():
        if not isinstance(name, str):
            raise InputError("the index names something that is no file", where=f"{file}: {key[:120]}", found=repr(name)[:120])
    meta = index.get("metadata")
    return {"weight_map": weights, "total_size": meta.get("total_size") if isinstance(meta, dict) else None}


def _indexed(path: Path, index: dict[str, Any], present: set[str]) -> _Shards:
    names = sorted(set(index["weight_map"].values()))
    folded: dict[str, str] = {}
    for name in names:
        files.plain_name(path, name)
        if (other := folded.setdefault(name.casefold(), name)) != name:
            raise InputError(
                "two shard names differ only in upper and lower case",
                where=path / INDEX,
                found=f"{other}, {name}",
                fix="rename one of them, here and in the index",
            )
    missing = [n for n in names if n not in present]
    if missing:
        raise InputError(
            "shards are missing",
            where=path,
            found=f"{len(missing)} of {len(names)} absent, first {missing[0]}",
            expected=f"every file named in {INDEX}",
            fix="finish the download",
        )
    shards = _Shards(names)
    shards.table = index
    return shards


def check_one_owner(path: Path, headers: dict[str, Header]) -> None:
    owner: dict[str, str] = {}
    folded: dict[str, str] = {}
    for name, header in headers.items():
        for t in header.tensors:
            if owner.setdefault(t.key, name) != name:
                raise InputError(
                    "one tensor in two shards",
                    where=path,
                    found=f"{t.key} in {owner[t.key]} and {name}",
                    fix="get the folder again",
                )
            if (other := folded.setdefault(t.key.casefold(), t.key)) != t.key:
                raise InputError(
                    "two tensor names differ only in upper and lower case", where=path / name, found=f"{other}, {t.key}"
                )
    if not owner:
        raise InputError("the checkpoint holds no tensors", where=path, fix="get the folder again")


def check_index(path: Path, index: dict[str, Any], headers: dict[str, Header]) -> list[str]:
    listed = index["weight_map"]
    held = {t.key: name for name, h in headers.items() for t in h.tensors}
    for key in sorted(listed.keys() | held.keys()):
        if listed.get(key) != held.get(key):
            raise InputError(
                "index and shards disagree",
                where=path / INDEX,
                found=f"{key[:200]} is in {held.get(key, 'no shard')}",
                expected=f"in {listed.get(key, 'no shard (the index does not name it)')}",
                fix="get the folder again",
            )
    total = sum(t.nbytes for h in headers.values() for t in h.tensors)
    if index["total_size"] not in (None, total):
        return [f"{INDEX}: total_size is {index['total_size']}, the tensors have {total:,} bytes"]
    return []


# ------------------------------------------------------------------------------------------------------------ config.json


def read_config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    if not file.exists() and not file.is_symlink():
        if (path / "adapter_config.json").exists():
            raise _no_weights(path, {"adapter_config.json"})
        fix = "get the whole folder from its source"
        if (path / "tokenizer.json").exists():
            fix = "a tokenizer without a model goes where one is asked for (--tokenizer)"
        raise InputError("config.json is missing", where=path, fix=fix)
    refuse_stray_link(file)
    config = files.read_json(file, limit=4 << 20)
    if not isinstance(config, dict):
        raise InputError("config.json is not an object", where=file, found=type(config).__name__, fix="get the file again")
    return config


def config_value(config: dict[str, Any], *names: str) -> Any:
    """The first of these names that is set, also inside `text_config` (models with several towers)."""
    inner = config.get("text_config")
    for place in (config, inner if isinstance(inner, dict) else {}):
        for name in names:
            if place.get(name) is not None:
                return place[name]
    return None


def check_config(path: Path, config: dict[str, Any], headers: dict[str, Header]) -> list[str]:
    where = path / "config.json"
    layers = config_value(config, "num_hidden_layers", "n_layer", "num_layers", "n_layers")
    if layers is not None and (type(layers) is not int or not 1 <= layers <= MAX_LAYERS):
        raise InputError(
            "an impossible number of layers",
            where=where,
            found=repr(layers)[:60],
            expected=f"1 to {MAX_LAYERS:,}",
            fix="get the file again",
        )
    vocab = config_value(config, "vocab_size")
    if vocab is not None and (type(vocab) is not int or vocab < 1):
        raise InputError("an impossible vocabulary size", where=where, found=repr(vocab)[:60], expected="a positive whole number")
    tensors = {t.key: t for h in headers.values() for t in h.tensors}
    for t in tensors.values():
        if vocab and EMBEDDINGS.search(t.key) and len(t.shape) == 2 and t.shape[0] != vocab and "vision" not in t.key:
            raise InputError(
                "config and weights disagree on the vocabulary",
                where=where,
                found=f"vocab_size {vocab:,}",
                expected=f"{t.shape[0]:,}, the rows of {t.key}",
                fix="set vocab_size to the rows of the embedding",
            )
    if config_value(config, "tie_word_embeddings") is True and "lm_head.weight" in tensors:
        return ["lm_head.weight is stored although tie_word_embeddings is true; loaders use the embedding instead"]
    return []
