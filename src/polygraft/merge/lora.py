"""Merging in adapter space: experts that are LoRA adapters on one base become one adapter, exactly.

An adapter changes a matrix by s B A (Hu et al. 2021, arXiv 2106.09685), and a linear profile asks for sum_i w_i s_i B_i A_i. Taken
from one expert whole, both factors are copied byte for byte. A blend is the concatenation along the rank,
B = [w_1 s_1/s B_1, w_2 s_2/s B_2, ...], A = [A_1; A_2; ...] at scale s = s_1, so its rank is the sum of the ranks and nothing is
approximated but the one rounding of B. What no expert changes stays absent, which is the base's own weight.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from polygraft import files
from polygraft.adapter import Adapter, Pair
from polygraft.anatomy import Anatomy
from polygraft.errors import InputError
from polygraft.floats import from_f32, to_f32
from polygraft.header import build
from polygraft.merge import blend
from polygraft.merge.profile import Profile

FILE, CONFIG = "adapter_model.safetensors", "adapter_config.json"
ELSEWHERE = "merge into full weights instead (space: weights)"


@dataclass(frozen=True)
class Made:
    """One tensor of the new adapter."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True)
class Module:
    """One adapted module of the result: rank, scale and its factors by file key."""

    rank: int
    scale: float
    tensors: dict[str, Made]


def check(adapters: Sequence[tuple[str, Adapter]]) -> None:
    """Raise InputError when the adapters cannot be put into one: other base, number format, layout."""
    name, lead = adapters[0]
    for other, adapter in adapters[1:]:
        if lead.base and adapter.base and Path(lead.base).name != Path(adapter.base).name:
            raise InputError(
                "the adapters stand on different bases",
                where="base_model_name_or_path",
                found=f"{name}: {lead.base}; {other}: {adapter.base}",
                expected="one base",
                fix="merge each into its own base first",
            )
        for field in ("fan_in_fan_out", "bias"):
            if lead.config.get(field, False) != adapter.config.get(field, False):
                raise InputError(
                    "the adapters differ and cannot be one",
                    where=field,
                    found=f"{name}: {lead.config.get(field)}; {other}: {adapter.config.get(field)}",
                    expected="the same in both",
                    fix=ELSEWHERE,
                )
        one, two = ({t.dtype for t in a.tensors.values()} for a in (lead, adapter))
        if one != two:
            raise InputError(
                "the adapters differ in number format",
                where=f"{name}, {other}",
                found=f"{sorted(one)}, {sorted(two)}",
                expected="the same in both",
                fix=ELSEWHERE,
            )


def merge(profile: Profile, anatomy: Anatomy, adapters: Sequence[Adapter | None]) -> tuple[dict[str, Module], dict[str, Made]]:
    """Modules and whole tensors of the new adapter. `adapters` follow the profile's sources; None is the base: no change."""
    modules: dict[str, Module] = {}
    names = keys_by_name(anatomy)
    for name in sorted({m for a in adapters if a for m in a.pairs}):
        weights = weights_of(profile, names, f"{name}.weight")
        active = [(a, a.pairs[name], w) for a, w in zip(adapters, weights) if a and w and name in a.pairs]
        if active:
            modules[name] = _copied(*active[0][:2]) if len(active) == 1 and active[0][2] == 1.0 else _concatenated(active)
    whole = {}
    for name in sorted({n for a in adapters if a for n in a.replaced}):
        made = _whole(name, weights_of(profile, names, name), adapters)
        if made is not None:
            whole[next(a.replaced[name] for a in adapters if a and name in a.replaced)] = made
    return modules, whole


def keys_by_name(anatomy: Anatomy) -> dict[str, str]:
    """The base's tensor key for every name it may have in a live model or a file, with and without the outermost prefix."""
    table: dict[str, str] = {}
    for key in anatomy.parts:
        for name in (key, anatomy.live_name(key) or key):
            for known in (name, name.partition(".")[2], f"model.{name}", f"transformer.{name}"):
                table.setdefault(known, key)
    return table


def weights_of(profile: Profile, names: dict[str, str], name: str) -> tuple[float, ...]:
    """The profile's weights of the base tensor behind an adapter's name."""
    if name not in names:
        raise InputError(
            "the adapter changes a tensor that the base does not have", where=name, fix="name the base that it was trained on"
        )
    return profile.weights[names[name]]


def _copied(adapter: Adapter, pair: Pair) -> Module:
    tensors = {k: Made(adapter.tensors[k].dtype, tuple(adapter.tensors[k].shape), adapter.read(k)) for k in (pair.a, pair.b)}
    return Module(pair.rank, pair.scale, tensors)


def _concatenated(active: Sequence[tuple[Adapter, Pair, float]]) -> Module:
    _, lead, _ = active[0]
    down, up = [], []
    for adapter, pair, weight in active:
        a, b = (adapter.f32(k).reshape(adapter.tensors[k].shape) for k in (pair.a, pair.b))
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            raise InputError("a number that is not finite cannot be blended", where=f"{adapter.path}: {pair.module}")
        down.append(a)
        up.append(b * np.float32(weight * pair.scale / lead.scale))
    dtype = active[0][0].tensors[lead.a].dtype
    both = {lead.a: np.concatenate(down, axis=0), lead.b: np.concatenate(up, axis=1)}
    rank = sum(pair.rank for _, pair, _ in active)
    return Module(rank, lead.scale, {k: Made(dtype, v.shape, from_f32(v, dtype)) for k, v in both.items()})


def _whole(name: str, weights: Sequence[float], adapters: Sequence[Adapter | None]) -> Made | None:
    """A tensor that the adapters store whole (modules_to_save): copied, or blended when every source of weight has it."""
    used = [(a, w) for a, w in zip(adapters, weights) if w]
    held = [(a, a.replaced[name], w) for a, w in used if a and name in a.replaced]
    if not held:
        return None
    if len(held) != len(used):
        raise InputError(
            "only some of the adapters store this tensor whole, so a blend needs the base's", where=name, fix=ELSEWHERE
        )
    adapter, key, weight = held[0]
    info = adapter.tensors[key]
    if len(held) == 1 and weight == 1.0:
        return Made(info.dtype, tuple(info.shape), adapter.read(key))
    raws, shares = [a.read(k) for a, k, _ in held], [w for _, _, w in held]
    order = blend.order(raws, shares)
    mixed = blend.affine([to_f32(raws[i], info.dtype) for i in order], [shares[i] for i in order])
    return Made(info.dtype, tuple(info.shape), from_f32(mixed, info.dtype))


# ----------------------------------------------------------------------------------------------------------------- write


def config(lead: Adapter, base: str, modules: dict[str, Module], base_modules: Sequence[str]) -> dict[str, Any]:
    """adapter_config.json of the result: the lead's settings, with rank and alpha patterns where a module departs from them."""
    common = _common(lead, modules)
    ranks = {n: m.rank for n, m in modules.items() if m.rank != common[0]}
    alphas = {n: _number(m.scale * m.rank) for n, m in modules.items() if m.scale * m.rank != common[1]}
    made = {
        **lead.config,
        "base_model_name_or_path": lead.base or base,
        "inference_mode": True,
        "use_rslora": False,
        "r": common[0],
        "lora_alpha": _number(common[1]),
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "target_modules": _targets(modules, base_modules),
    }
    return made | {
        n: None for n in ("layers_to_transform", "layers_pattern", "exclude_modules", "megatron_config") if n in lead.config
    }


def _common(lead: Adapter, modules: dict[str, Module]) -> tuple[int, float]:
    pairs = [(m.rank, m.scale * m.rank) for m in modules.values()] or [
        (int(lead.config.get("r", 8)), float(lead.config.get("lora_alpha", 8)))
    ]
    return max(sorted(set(pairs)), key=pairs.count)


def _number(value: float) -> int | float:
    return int(value) if float(value).is_integer() else value


def _targets(modules: dict[str, Module], base_modules: Sequence[str]) -> list[str]:
    """Short names when they fit exactly the adapted modules of the base, else every full name."""
    leaves = {n.rsplit(".", 1)[-1] for n in modules}
    fits = {n for n in base_modules if n.rsplit(".", 1)[-1] in leaves}
    return sorted(leaves) if len(fits) == len(modules) else sorted(modules)


def write(folder: Path, settings: dict[str, Any], modules: dict[str, Module], whole: dict[str, Made]) -> dict[str, str]:
    """Write config and tensors; returns {tensor key: sha256}."""
    tensors = {k: made for m in modules.values() for k, made in m.tensors.items()} | whole
    if not tensors:
        raise InputError(
            "the merged adapter would be empty: every tensor comes from the base", fix="swap fewer layers, or use the base itself"
        )
    head, infos = build({k: (t.dtype, t.shape) for k, t in tensors.items()}, {"format": "pt"}, FILE)
    files.write_atomic(folder / FILE, head + b"".join(tensors[t.key].data for t in infos))
    files.write_atomic(folder / CONFIG, (json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode())
    return {k: files.hashlib.sha256(t.data).hexdigest() for k, t in sorted(tensors.items())}
