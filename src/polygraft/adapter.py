"""LoRA adapters in peft's folder format, and a base model seen with one merged in: W + scale * B @ A.

Source: Hu et al. 2021, "LoRA", arXiv 2106.09685, equation 3 (scale = alpha / r); rank-stabilised scale alpha / sqrt(r):
Kalajdzievski 2023, arXiv 2312.03732.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np

from polygraft import files
from polygraft.checkpoint import CHUNK, FileWeights, Weights, config_value
from polygraft.errors import InputError
from polygraft.floats import from_f32, refuse_not_float
from polygraft.folder import CONVERT, checked_folder, refuse_stray_link
from polygraft.header import read_header

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
SUFFIX = re.compile(r"^(?P<module>.+)\.(?:lora_(?P<side>[AB])\.weight|lora_embedding_(?P<emb>[AB]))$")
FOREIGN = (
    "lora_magnitude_vector",
    "lora_",
    "trainable_tokens",
    "prompt_",
    "adaption_",
    "hada_",
    "lokr_",
    "oft_",
    "vera_",
    "ia3_",
    "token_adapter",
)
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
BLOCK = 1 << 20  # elements of W per product; fixed, so that the bytes never depend on who asks for which range


@dataclass(frozen=True)
class Pair:
    """The low-rank update of one module: A is [r, in], B is [out, r]; `transposed` when W is stored [in, out]."""

    module: str
    a: str
    b: str
    rank: int
    scale: float
    transposed: bool


class Adapter(FileWeights):
    """A peft LoRA folder. `pairs` maps a module's name to its update; `replaced` maps a tensor's name to one stored whole."""

    base: str
    pairs: dict[str, Pair]
    replaced: dict[str, str]

    @classmethod
    def open(cls, path: str | Path) -> Adapter:
        """Config and header only. Raises InputError for what is not plain LoRA, with the reason in one sentence."""
        path = checked_folder(path)
        for name in (CONFIG, TENSORS):
            refuse_stray_link(path / name)
        if not (path / TENSORS).exists() and any(path.glob("adapter_model.*")):
            raise InputError("only a pickle adapter here", where=path, expected=TENSORS, fix=CONVERT)
        config = files.read_json(path / CONFIG, limit=4 << 20)
        _check_kind(config, path / CONFIG)
        header = read_header(path / TENSORS)
        self = cls(path, {TENSORS: header})
        self.config, self.extras, self.base = config, {}, str(config.get("base_model_name_or_path") or "")
        self.identity = "adapter:" + files.digest(
            [files.sha256_file(path / CONFIG), header.size, header.mtime_ns, hashlib.sha256(header.raw).hexdigest()]
        )
        self.pairs, self.replaced = _sort_keys(self)
        return self


def is_adapter(path: Path) -> bool:
    """Whether a folder holds an adapter rather than a whole model."""
    return (path / CONFIG).exists() and not (path / "config.json").exists()


def _check_kind(config: Any, where: Path) -> None:
    if not isinstance(config, dict):
        raise InputError("not an object", where=where, found=type(config).__name__, fix="get the file again")
    kind = config.get("peft_type")
    start = str(config.get("init_lora_weights", "")).lower()
    odd = [
        n
        for n in (
            "use_dora",
            "use_qalora",
            "use_bdlora",
            "layer_replication",
            "target_parameters",
            "trainable_token_indices",
            "alora_invocation_tokens",
            "kasa_config",
            "velora_config",
            "monteclora_config",
            "arrow_config",
        )
        if config.get(n)
    ]
    if kind != "LORA":
        raise InputError("this kind of adapter cannot be merged here", where=where, found=str(kind), expected="LORA")
    if odd:
        raise InputError(
            "this LoRA variant is more than W + scale * B @ A",
            where=where,
            found=", ".join(odd),
            expected="plain LoRA",
            fix="merge it with peft (merge_and_unload) and use the result as a model",
        )
    if start.startswith(CHANGES_BASE):
        raise InputError(
            "this adapter was made against a changed base",
            where=where,
            found=f"init_lora_weights {start}",
            expected="plain LoRA",
            fix="convert it with peft's save_pretrained(path_initial_model_for_weight_conversion=...)",
        )


def _pattern(table: dict[str, Any], module: str, default: Any) -> Any:
    """peft's rule: the first pattern that matches the end of the module's name."""
    for pattern, value in table.items():
        try:
            if re.match(rf"(.*\.)?({pattern})$", module):
                return value
        except re.error as e:
            raise InputError("a broken pattern", where=CONFIG, found=pattern[:80]) from e
    return default


def _sort_keys(adapter: Adapter) -> tuple[dict[str, Pair], dict[str, str]]:
    sides: dict[str, dict[str, str]] = {}
    replaced = {}
    for key in adapter.tensors:
        name = key.removeprefix("base_model.model.")
        if m := SUFFIX.match(name):
            sides.setdefault(m["module"], {})["embedding" if m["emb"] else "linear"] = key
            sides[m["module"]][m["side"] or m["emb"]] = key
        elif any(part.startswith(FOREIGN) for part in name.split(".")):
            raise InputError(
                "a tensor that plain LoRA does not have",
                where=adapter.path,
                found=key[:200],
                expected="lora_A and lora_B",
                fix="merge it with peft (merge_and_unload) and use the result as a model",
            )
        else:
            replaced[re.sub(r"\.(base_layer|original_module|modules_to_save(\.default)?)\.", ".", name)] = key
    if not sides and not replaced:
        raise InputError("the adapter is empty", where=adapter.path)
    return {module: _pair(adapter, module, keys) for module, keys in sorted(sides.items())}, replaced


def _pair(adapter: Adapter, module: str, keys: dict[str, str]) -> Pair:
    where = f"{adapter.path}: {module}"
    if "A" not in keys or "B" not in keys:
        raise InputError(
            "half of a pair is missing",
            where=where,
            found=", ".join(sorted(keys.keys() & {"A", "B"})),
            expected="lora_A and lora_B",
        )
    a, b, config = adapter.tensors[keys["A"]], adapter.tensors[keys["B"]], adapter.config
    rank = _pattern(config.get("rank_pattern") or {}, module, config.get("r"))
    alpha = _pattern(config.get("alpha_pattern") or {}, module, config.get("lora_alpha"))
    for t in (a, b):
        refuse_not_float(t.dtype, where)
    if len(a.shape) != 2 or len(b.shape) != 2 or not a.shape[0] == b.shape[1] == rank:
        raise InputError(
            "the pair does not have the rank that the config names",
            where=where,
            found=f"A {a.shape}, B {b.shape}",
            expected=f"rank {rank}",
        )
    if not isinstance(alpha, int | float) or isinstance(alpha, bool):
        raise InputError("lora_alpha is not a number", where=where, found=repr(alpha)[:60])
    scale = alpha / sqrt(rank) if config.get("use_rslora") else alpha / rank
    return Pair(module, keys["A"], keys["B"], rank, scale, bool(config.get("fan_in_fan_out")) or "embedding" in keys)


# ----------------------------------------------------------------------------------------------------------- seen as merged


class MergedView(Weights):
    """A base with an adapter merged in, computed as it is read; tensors that the adapter leaves alone are the base's own bytes.

    Updates are summed in float64, added to W in float32 and rounded once to W's dtype.
    """

    def __init__(self, base: Weights, adapter: Adapter):
        self.base, self.adapter = base, adapter
        self.path, self.config, self.extras, self.tensors = base.path, base.config, base.extras, base.tensors
        self.identity = "merged:" + files.digest([base.identity, adapter.identity])
        self.warnings = base.warnings
        self.updates = {_base_key(base, adapter, f"{m}.weight"): p for m, p in adapter.pairs.items()}
        self.swapped = {_base_key(base, adapter, n): k for n, k in adapter.replaced.items()}
        self._check()
        self._factors = lru_cache(2)(self._load_factors)
        self._block = lru_cache(2)(self._compute)

    def _check(self) -> None:
        tied = config_value(self.config, "tie_word_embeddings") is True
        for key, pair in self.updates.items():
            w, a, b = self.base.info(key), self.adapter.info(pair.a), self.adapter.info(pair.b)
            refuse_not_float(w.dtype, f"{self.path}: {key}")
            shape = (a.shape[1], b.shape[0]) if pair.transposed else (b.shape[0], a.shape[1])
            if w.shape != shape:
                raise InputError(
                    "the adapter was made for another base",
                    where=self.adapter.path,
                    found=f"{pair.module}: {shape}",
                    expected=f"{w.shape}, as in {self.path}",
                    fix=f"use the base it names: {self.adapter.base or 'unknown'}",
                )
            if tied and "embedding" in pair.a.rsplit(".", 1)[-1]:
                raise InputError(
                    "LoRA on tied embeddings acts on input only and cannot be merged",
                    where=self.adapter.path,
                    found=pair.module,
                    fix="train without the embedding among target_modules, or untie the base",
                )
        for key, own in self.swapped.items():
            if self.base.info(key).shape != self.adapter.info(own).shape:
                raise InputError(
                    "the adapter was made for another base",
                    where=self.adapter.path,
                    found=f"{own}: {self.adapter.info(own).shape}",
                    expected=str(self.base.info(key).shape),
                    fix=f"use the base it names: {self.adapter.base or 'unknown'}",
                )

    def changed(self) -> set[str]:
        """The tensors that differ from the base's."""
        return set(self.updates) | set(self.swapped)

    def _load_factors(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Left [rows, r] in float32 (it has as many rows as W) and right [r, columns] in float64 with the scale."""
        pair = self.updates[key]
        a, b = (self.adapter.f32(k).reshape(self.adapter.info(k).shape) for k in (pair.a, pair.b))
        left, right = (a.T, b.T) if pair.transposed else (b, a)
        return left, right.astype(np.float64) * pair.scale

    def _compute(self, key: str, block: int) -> bytes:
        t = self.base.info(key)
        rows = _block_rows(t.shape)
        start, stop = block * rows, min((block + 1) * rows, t.shape[0])
        w = self._whole(key, start * t.shape[1], stop * t.shape[1])
        left, right = self._factors(key)
        w += (left[start:stop].astype(np.float64) @ right).astype(np.float32).reshape(-1)
        return from_f32(w, t.dtype)

    def _whole(self, key: str, start: int, stop: int) -> np.ndarray:
        own = self.swapped.get(key)
        return self.adapter.f32(own, start, stop) if own else self.base.f32(key, start, stop)

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Bytes of the merged tensor; only the blocks that the range touches are computed."""
        t = self.info(key)
        if key in self.updates:
            size = _block_rows(t.shape) * t.shape[1] * t.itemsize
            first = start // size
            blocks = [self._block(key, i) for i in range(first, -(-stop // size))]
            return b"".join(blocks)[start - first * size : stop - first * size]
        if key in self.swapped:
            lo, hi = start // t.itemsize, -(-stop // t.itemsize)
            return from_f32(self._whole(key, lo, hi), t.dtype)[start - lo * t.itemsize :][: stop - start]
        return self.base.read_range(key, start, stop)

    def chunks(self, key: str, size: int = CHUNK) -> Iterator[bytes | memoryview]:
        """The tensor's bytes in order; the base's own chunks where the adapter changes nothing."""
        return super().chunks(key, size) if key in self.changed() else self.base.chunks(key, size)

    def close(self) -> None:
        """Close both."""
        self.base.close()
        self.adapter.close()


def _block_rows(shape: tuple[int, ...]) -> int:
    return max(1, BLOCK // max(1, shape[1]))


def _base_key(base: Weights, adapter: Adapter, name: str) -> str:
    """The base's own key for a live name: files of some families lack the leading `model.` or `transformer.`, or add one."""
    tails = [".".join(name.split(".")[i:]) for i in range(min(3, name.count(".")))]
    for key in (*tails, *(f"{p}.{name}" for p in ("model", "transformer", "language_model", "model.language_model"))):
        if key in base.tensors:
            return key
    raise InputError(
        "the adapter changes a tensor that the base does not have",
        where=adapter.path,
        found=name,
        expected=f"a tensor of {base.path}",
        fix=f"use the base it names: {adapter.base or 'unknown'}",
    )


def merged_view(base: Weights, adapter: Adapter) -> MergedView:
    """`base` with `adapter` merged in, as Checkpoint-like weights. Raises InputError when they do not belong together."""
    return MergedView(base, adapter)
