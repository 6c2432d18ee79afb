"""`inspect`: what a model is made of, from its headers; with `check`, the proof on the running model that every tensor counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from polygraft.anatomy import Anatomy
from polygraft.checkpoint import Weights
from polygraft.maps import Cell, layer_map
from polygraft.result import InputRef, LayerMap, Result, Table

if TYPE_CHECKING:
    import torch

    from polygraft.model import Live
    from polygraft.sources import Source

FLOOR = 1e-4  # a change of the logits below this part of the largest logit is rounding, not an effect
LENGTHS = (16, 96, 512)  # tokens of the random prompts; a longer one is asked only if the shorter ones saw nothing (idle experts)

Progress = Callable[[float, float, str], None]


def inspect(source: Source, *, check: bool = False, progress: Progress | None = None, extra: Any = ()) -> Result:
    """Layers, sizes, kinds, tied weights and dtypes of a source (headers only), and with `check` which tensors change the logits.

    `extra` are a recipe's `anatomy` rows. Raises InputError for an unknown tensor, naming it and the row that would add it.
    """
    weights, extra = source.weights, tuple(extra)
    anatomy = Anatomy.of(weights.config, weights.tensors, extra=extra, where=source.spec)
    facts, kinds = _facts(anatomy, weights), _kinds(anatomy, weights)
    summary, caveats, data = [_sentence(anatomy, weights)], list(weights.warnings), {}
    if "auto_map" in weights.config:
        caveats.append("it brings Python code (auto_map), which is never run: it loads only if transformers knows the family")
    if check:
        from polygraft.model import load

        live = load(source, dtype="float32", extra=extra)
        silent = silent_tensors(live, anatomy, progress)
        summary.append(_verdict(anatomy, silent))
        data = {"silent": silent}
    ref = InputRef("model", source.spec, source.revision, source.identity)
    return Result("inspect", "inspect", f"Anatomy of {source.spec}", tuple(summary), (_map(anatomy, weights),), (facts, kinds),
                  inputs=(ref,), caveats=tuple(caveats), data=data)  # fmt: skip


def _sentence(anatomy: Anatomy, weights: Weights) -> str:
    total = sum(t.numel for t in weights.tensors.values())
    family = anatomy.config.get("model_type", "unknown family")
    tied = "tied" if anatomy.tied else "separate"
    size = f"{total / 1e6:,.1f} M" if total >= 1e6 else f"{total:,}"
    return f"{family}: {size} parameters in {len(weights.tensors)} tensors, {anatomy.layers} layers, {tied} head."


def _facts(anatomy: Anatomy, weights: Weights) -> Table:
    sizes = anatomy.sizes
    dtypes = Counter(t.dtype for t in weights.tensors.values())
    rows: list[tuple[str, Any]] = [
        ("family", str(anatomy.config.get("model_type", "?"))),
        ("layers", anatomy.layers),
        ("hidden", sizes.hidden),
        ("heads", sizes.heads),
        ("key-value heads", sizes.kv_heads),
        ("head width", sizes.head_dim),
        ("ffn neurons a layer", sizes.moe_ffn if _is_mixture(anatomy) else sizes.ffn),
        ("experts a layer", sizes.experts if _is_mixture(anatomy) else 0),
        ("vocabulary", sizes.vocab),
        ("head", "tied to the embedding" if anatomy.tied else "its own"),
        ("dtype", ", ".join(f"{name} ({n})" for name, n in dtypes.most_common())),
        ("tokenizer", "yes" if {"tokenizer.json", "tokenizer.model", "vocab.json"} & set(weights.extras) else "none"),
    ]
    return Table("What it is", ("property", "value"), tuple(rows))


def _is_mixture(anatomy: Anatomy) -> bool:
    return bool(anatomy.keys(role="experts.down"))


def _kinds(anatomy: Anatomy, weights: Weights) -> Table:
    tensors, params, size = Counter[str](), Counter[str](), Counter[str]()
    for key, part in anatomy.parts.items():
        info = weights.tensors[key]
        tensors[part.kind] += 1
        params[part.kind] += info.numel
        size[part.kind] += info.nbytes
    total = sum(params.values()) or 1
    rows = [(kind, tensors[kind], n, size[kind], n / total) for kind, n in params.most_common()]
    return Table("Parameters by kind", ("kind", "tensors", "parameters", "bytes", "share"), tuple(rows))


def _map(anatomy: Anatomy, weights: Weights) -> LayerMap:
    counts = Counter[Cell]()
    for key, part in anatomy.parts.items():
        counts[part.label, part.layer] += weights.tensors[key].numel
    return layer_map(anatomy, {k: float(n) for k, n in counts.items()}, "Parameters", unit="parameters")


def _verdict(anatomy: Anatomy, silent: dict[str, str]) -> str:
    tested = len(anatomy.parts) - len(silent)
    if not silent:
        return f"Perturbing each of the {tested} tensors changed the logits."
    named = "; ".join(f"{key} ({why})" for key, why in list(silent.items())[:5])
    more = f" and {len(silent) - 5} more" if len(silent) > 5 else ""
    return f"Perturbing each of {tested} tensors changed the logits; {len(silent)} did not or could not: {named}{more}."


def silent_tensors(live: Live, anatomy: Anatomy, progress: Progress | None = None) -> dict[str, str]:
    """Perturb every tensor in turn, by its address in the live model, and name those that leave the logits as they were, with why.

    Noise has the tensor's own standard deviation (0.02 at least); a change must exceed 1e-4 of the largest logit, on one of three
    random prompts (16, 96, 512 tokens). The weights are put back exactly.
    """
    import torch

    silent: dict[str, str] = {}
    prompts = [_prompt(live, length) for length in LENGTHS]
    with torch.inference_mode():
        before = [live.model(ids).logits for ids in prompts]
        for done, key in enumerate(anatomy.parts):
            if progress:
                progress(done, len(anatomy.parts), key)
            if why := _silence(live, anatomy, key, prompts, before):
                silent[key] = why
    return silent


def _prompt(live: Live, length: int) -> torch.Tensor:
    import torch

    config = live.model.config.get_text_config()
    length = min(length, int(getattr(config, "max_position_embeddings", None) or length))
    ids = torch.randint(0, config.vocab_size, (1, length), generator=torch.Generator().manual_seed(length))
    return ids.to(live.model.device)


def _silence(live: Live, anatomy: Anatomy, key: str, prompts: list[torch.Tensor], before: list[torch.Tensor]) -> str:
    """Why perturbing the tensor did nothing, or "" if it did something."""
    import torch

    from polygraft.model import view

    target = view(live.model, anatomy, key)
    if target is None:
        part = anatomy.parts[key]
        return "a buffer that the model computes itself" if part.role else "not part of the decoder"
    kept = target.clone()
    scale = max(float(kept.float().std(correction=0)), 0.02)
    noise = torch.randn(kept.shape, generator=torch.Generator().manual_seed(7)).to(kept)
    target.add_(noise * scale)
    try:
        if any(_moved(live.model(ids).logits, old) for ids, old in zip(prompts, before)):
            return ""
    finally:
        target.copy_(kept)
    if key.endswith(".bias") and anatomy.parts[key].label == "attn.k":
        return "the same shift of all scores of a query, which softmax takes out"
    return "the logits did not change"


def _moved(now: torch.Tensor, before: torch.Tensor) -> bool:
    return bool((now - before).abs().max() > FLOOR * before.abs().max())
