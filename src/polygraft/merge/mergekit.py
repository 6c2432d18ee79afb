"""The same merge as a mergekit configuration, where it can be said there; judged by reading it back with mergekit's own rules.

Its filters are plain substrings, the first that matches wins; the embedding belongs to the first slice, final norm and head to the
last. What that reading does not reproduce weight for weight is not written.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from polygraft.anatomy import Anatomy, Part
from polygraft.merge.card import yaml_text
from polygraft.merge.profile import Profile

OUTER = (
    "embed_tokens",
    "lm_head",
    "model.norm",
    "wte",
    "wpe",
    "ln_f",
    "embed_in",
    "embed_out",
    "final_layer_norm",
    "word_embeddings",
)
INNER = (
    "q_norm",
    "k_norm",
    "norm",
    "ln_",
    "self_attn",
    "self_attention",
    "attention",
    "attn",
    "mlp",
    "block_sparse_moe",
    "fc1",
    "fc2",
)
DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
Tree = dict[str, Any]


def config(profile: Profile, anatomy: Anatomy, specs: Sequence[str], donor: str, dtype: str) -> str | None:
    """YAML text, or None when mergekit cannot express this merge (a random drop, a slerp per part, unknown names)."""
    makers = {"linear": _linear, "ties": _ties, "slerp": _slerp}
    if profile.method not in makers or dtype not in DTYPES or len(set(specs)) != len(specs):
        return None
    tree = makers[profile.method](profile, anatomy, specs, donor)
    if tree is None:
        return None
    tree |= {"dtype": "float32", "out_dtype": DTYPES[dtype]}
    return "# The same merge for mergekit 0.1.x, within rounding.\n" + "\n".join(_yaml(tree)) + "\n"


def _linear(profile: Profile, anatomy: Anatomy, specs: Sequence[str], donor: str) -> Tree | None:
    slices: list[Tree] = []
    for first, stop in _runs(profile, anatomy):
        sources = [
            {"model": spec, "layer_range": [first, stop], "parameters": {"weight": _filters(profile, anatomy, i, first, stop)}}
            for i, spec in enumerate(specs)
        ]
        slices.append({"sources": sources})
    for key, part in anatomy.parts.items():
        s = _slice_of(part, slices)
        read = tuple(_read(src["parameters"]["weight"], key) for src in s["sources"])
        if part.kind != "outside" and any(abs(a - b) > 1e-12 for a, b in zip(read, profile.weights[key])):
            return None
    return {"merge_method": "linear", "base_model": donor, "parameters": {"normalize": False}, "slices": slices}


def _runs(profile: Profile, anatomy: Anatomy) -> list[tuple[int, int]]:
    said: list[set[tuple[str, tuple[float, ...]]]] = [set() for _ in range(anatomy.layers)]
    for key, part in anatomy.parts.items():
        if part.layer is not None and part.kind != "outside":
            said[part.layer].add((part.kind, profile.weights[key]))
    cuts = [0, *(i for i in range(1, anatomy.layers) if said[i] != said[i - 1]), anatomy.layers]
    return list(pairwise(cuts))


def _filters(profile: Profile, anatomy: Anatomy, i: int, first: int, stop: int) -> Any:
    """A number, or mergekit's list of {filter, value} for tensors of this slice that differ from the rest of it."""
    mine = {k: profile.weights[k][i] for k, p in anatomy.parts.items() if p.kind != "outside" and _within(p, anatomy, first, stop)}
    values = set(mine.values())
    if len(values) == 1:
        return values.pop()
    layer = [v for k, v in mine.items() if anatomy.parts[k].layer is not None]
    default = max(set(layer), key=layer.count)
    rules = []
    for outer, words in ((True, OUTER), (False, INNER)):
        keys = [k for k in mine if (anatomy.parts[k].layer is None) == outer]
        for word in words:
            hit = {mine[k] for k in keys if word in k}
            if len(hit) == 1 and hit != {default}:
                rules.append({"filter": word, "value": hit.pop()})
    return [*rules, {"value": default}]


def _within(part: Part, anatomy: Anatomy, first: int, stop: int) -> bool:
    if part.layer is not None:
        return first <= part.layer < stop
    return first == 0 if part.kind in ("embed", "position") else stop == anatomy.layers


def _slice_of(part: Part, slices: list[Tree]) -> Tree:
    if part.layer is None:
        return slices[0] if part.kind in ("embed", "position") else slices[-1]
    return next(s for s in slices if s["sources"][0]["layer_range"][0] <= part.layer < s["sources"][0]["layer_range"][1])


def _read(weight: Any, key: str) -> float:
    """What mergekit would take for this tensor: the first rule whose substring matches."""
    if not isinstance(weight, list):
        return float(weight)
    return float(next(rule["value"] for rule in weight if rule.get("filter", "") in key))


def _ties(profile: Profile, anatomy: Anatomy, specs: Sequence[str], donor: str) -> Tree | None:
    weights = profile.params["weights"]
    models = [{"model": s, "parameters": {"weight": w, "density": profile.params["density"]}} for s, w in zip(specs[1:], weights)]
    return {
        "merge_method": "ties",
        "base_model": specs[0],
        "models": models,
        "parameters": {"normalize": True, "lambda": profile.params["scale"]},
    }


def _slerp(profile: Profile, anatomy: Anatomy, specs: Sequence[str], donor: str) -> Tree | None:
    t = {w[1] for w in profile.weights.values()}
    if len(t) != 1:
        return None
    return {"merge_method": "slerp", "base_model": specs[0], "models": [{"model": s} for s in specs], "parameters": {"t": t.pop()}}


def _yaml(value: Any, indent: str = "") -> list[str]:
    """Block YAML of dicts, lists, numbers, booleans and quoted strings."""
    lines: list[str] = []
    for name, item in value.items() if isinstance(value, dict) else ((None, v) for v in value):
        head = f"{indent}-" if name is None else f"{indent}{name}:"
        if isinstance(item, dict) or (isinstance(item, list) and item and isinstance(item[0], dict)):
            inner = _yaml(item, indent + "  ")
            if name is None:
                inner[0] = f"{head} {inner[0].lstrip()}"
                lines += inner
            else:
                lines += [head, *inner]
        else:
            lines.append(f"{head} {_scalar(item)}")
    return lines


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(map(_scalar, value)) + "]"
    return yaml_text(value) if isinstance(value, str) else repr(value)
