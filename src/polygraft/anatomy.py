"""Anatomy: what every tensor of a checkpoint is. A total, checked map from tensor keys to (layer, kind, role), for any decoder.

Keys are the names in the files; live names are those of the model in memory (transformers 5 renames and fuses on load). Both are
mapped here, from patterns and a short table (`anatomy_rules`), with no class per architecture and without importing transformers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from polygraft import addresses
from polygraft.addresses import Address, Neurons
from polygraft.anatomy_rules import (
    DRAWN,
    FAMILIES,
    IN_LAYER,
    LAYER,
    OUTER,
    OUTSIDE,
    PREFIX,
    Rule,
    Traits,
    extra_rules,
    stem,
    suggested_row,
)
from polygraft.errors import InputError


@dataclass(frozen=True)
class Part:
    """Where a tensor lives. `layer` is None outside the decoder layers, `expert` is None where there is no single expert."""

    layer: int | None
    kind: str
    role: str = ""
    expert: int | None = None

    @property
    def label(self) -> str:
        """The name of its row in a picture: `attn.q`, `ffn.experts.up`, `embed`."""
        return f"{self.kind}.{self.role}" if self.role else self.kind


@dataclass(frozen=True)
class Sizes:
    """Numbers of a decoder from its config: widths in elements, counts of heads, experts and tokens."""

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    moe_ffn: int
    experts: int
    vocab: int


@dataclass(frozen=True)
class Anatomy:
    """The map of one checkpoint. Build it with `Anatomy.of`; `parts` has an entry for every key."""

    parts: dict[str, Part]
    layers: int
    tied: bool
    config: dict[str, Any]
    traits: Traits
    where: Any = None

    @classmethod
    def of(
        cls, config: Mapping[str, Any], keys: Iterable[str], *, extra: Iterable[Mapping[str, Any] | Rule] = (), where: Any = None
    ) -> Anatomy:
        """Classify `keys` (of files or of a live model) by `config` (config.json as a dict). `where` opens error messages.

        Raises InputError for a key that no rule knows (naming it and the row that would add it), for layers that disagree with
        the config and for a missing embedding or head; RecipeError for a malformed `extra` row.
        """
        flat = flatten(config)
        traits = FAMILIES.get(str(flat.get("model_type")), Traits())
        if "text_config" in config:
            traits = Traits(**{**vars(traits), "prefix": "model.language_model."})
        own = extra_rules(extra)
        parts = {key: classify(key, own, where) for key in keys}
        layers = _checked_layers(flat, parts, where)
        tied = bool(config.get("tie_word_embeddings", flat.get("tie_word_embeddings", traits.tied)))
        made = cls(parts, layers, tied, flat, traits, where)
        made._check_ends()
        return made

    def _check_ends(self) -> None:
        kinds = {part.kind for part in self.parts.values() if part.role == ""}
        if "embed" not in kinds:
            raise InputError(
                "no token embedding among the tensors", where=self.where, expected="a key such as model.embed_tokens.weight"
            )
        if "head" not in kinds and not self.tied:
            fix = "the folder is incomplete, or config.json should say tie_word_embeddings: true"
            raise InputError("no output head among the tensors", where=self.where, expected="lm_head.weight", fix=fix)

    @cached_property
    def rows(self) -> list[str]:
        """Labels of what lies in layers, in drawing order; buffers are left out."""
        found = {p.label for p in self.parts.values() if p.layer is not None and p.kind in ("attn", "ffn", "norm")}
        return sorted(found, key=lambda label: (DRAWN.index(label) if label in DRAWN else len(DRAWN), label))

    @cached_property
    def outside(self) -> list[str]:
        """Labels of what lies in no layer, in the order data meets it."""
        order = ("embed", "position", "final_norm", "head", "outside")
        found = {(p.kind, p.label) for p in self.parts.values() if p.layer is None}
        return [label for _, label in sorted(found, key=lambda x: (order.index(x[0]) if x[0] in order else 9, x[1]))]

    def keys(
        self, *, layer: int | None = None, kind: str | None = None, role: str | None = None, expert: int | None = None
    ) -> list[str]:
        """The keys whose part has all of the given values, in the order of the checkpoint."""
        wanted = {"kind": kind, "role": role, "expert": expert}
        asked = {name: value for name, value in wanted.items() if value is not None}
        within = self.parts if layer is None else self._buckets.get((layer, expert), ())
        return [key for key in within if all(getattr(self.parts[key], name) == value for name, value in asked.items())]

    @cached_property
    def _buckets(self) -> dict[tuple[int | None, int | None], list[str]]:
        """Keys by layer, and by layer and expert: a mixture has hundreds of tensors a layer."""
        found: dict[tuple[int | None, int | None], list[str]] = {}
        for key, part in self.parts.items():
            for expert in {None, part.expert}:
                found.setdefault((part.layer, expert), []).append(key)
        return found

    @cached_property
    def sizes(self) -> Sizes:
        """Widths and counts from the config, with the families' own names and defaults. Raises InputError when one is unknown."""
        return _sizes(self.config, self.traits, self.where)

    @property
    def context(self) -> int | None:
        """How many tokens the model was made to see; None where its config does not say."""
        found = [self.config.get(n) for n in ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length")]
        return next((int(n) for n in found if n), None)

    def live_name(self, key: str) -> str | None:
        """The name of `key`'s parameter in the loaded model; None for buffers and towers. Experts share one stacked name."""
        return _live_name(key, self.parts[key], self.traits.prefix)

    @cached_property
    def _files(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for key in self.parts:
            if name := self.live_name(key):
                found[name] = (*found.get(name, ()), key)
        if self.tied:
            found.setdefault("lm_head.weight", tuple(k for k, p in self.parts.items() if p.label == "embed"))
        return found

    def file_keys(self, name: str) -> tuple[str, ...]:
        """Every key that goes into the live parameter `name` (several for stacked experts). Raises InputError if there is none."""
        if name not in self._files:
            raise InputError("no tensor of the files makes up this live parameter", where=self.where, found=name)
        return self._files[name]

    def file_key(self, name: str) -> str:
        """The one key of the live parameter `name`. Raises InputError when it has several."""
        keys = self.file_keys(name)
        if len(keys) != 1:
            raise InputError(
                "several tensors make up this live parameter", where=self.where, found=f"{name}: {', '.join(keys[:3])} ..."
            )
        return keys[0]

    def neurons(self, layer: int) -> tuple[Neurons, ...]:
        """Where the FFN neurons of `layer` are: one block for a dense MLP, one per expert for a mixture."""
        return addresses.neurons(self, layer)

    def heads(self, layer: int) -> dict[str, tuple[tuple[Address, ...], ...]]:
        """Where the heads of `layer` are: "q", "k", "v", "o" -> for each (key-value) head the addresses of its weight and bias."""
        return addresses.heads(self, layer)


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """The decoder's own config: a multimodal config's `text_config` over the outer fields."""
    inner = config.get("text_config")
    return {**config, **inner} if isinstance(inner, Mapping) else dict(config)


def classify(key: str, extra: tuple[Rule, ...] = (), where: Any = None) -> Part:
    """The part that `key` belongs to; `extra` rules are asked first.

    Raises InputError naming the key and the row that would add it.
    """
    for rule in extra:
        if found := rule.match.fullmatch(key):
            return _part(found, rule, re.search(r"\b(?:layers|h|blocks)\.(\d+)\.", key))
    if OUTSIDE.fullmatch(key):
        return Part(None, "outside")
    rest = PREFIX.sub("", key, count=1)
    inner = IN_LAYER.fullmatch(rest)
    name = stem(rest)
    if inner:
        name = name[inner.start("tail") :]
    for rule in LAYER if inner else OUTER:
        if found := rule.match.fullmatch(name):
            return _part(found, rule, inner)
    raise InputError("unknown tensor", where=where, found=key, expected="a key of a known family", fix=suggested_row(key))


def _part(found: re.Match[str], rule: Rule, layer: re.Match[str] | None) -> Part:
    groups = found.groupdict()
    number = groups.get("layer") or (layer.group(1) if layer else None)
    expert = groups.get("expert")
    outer = rule.kind in ("embed", "final_norm", "head")
    return Part(None if number is None or outer else int(number), rule.kind, rule.role, None if expert is None else int(expert))


def _checked_layers(config: Mapping[str, Any], parts: Mapping[str, Part], where: Any) -> int:
    names = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
    said = next((config[n] for n in names if config.get(n) is not None), None)
    found = {p.layer for p in parts.values() if p.layer is not None}
    if not isinstance(said, int) or isinstance(said, bool) or not 0 < said <= 10_000:
        raise InputError(
            "config.json does not say how many layers there are", where=where, found=said, expected="num_hidden_layers, 1 to 10000"
        )
    if missing := sorted(set(range(said)) - found):
        raise InputError(
            "layers are missing", where=where, found=_span(sorted(found)), expected=f"0 to {said - 1}; {missing[0]} is missing"
        )
    if beyond := sorted(found - set(range(said))):
        raise InputError("more layers than config.json says", where=where, found=f"layer {beyond[0]}", expected=f"0 to {said - 1}")
    return said


def _span(numbers: list[int]) -> str:
    return f"{len(numbers)} layers, {numbers[0]} to {numbers[-1]}" if numbers else "no layers"


def _sizes(config: Mapping[str, Any], traits: Traits, where: Any) -> Sizes:
    def first(*names: str, default: int | None = None) -> int:
        value = next((config[n] for n in names if isinstance(config.get(n), int)), default)
        if value is None:
            raise InputError("config.json lacks a size", where=where, expected=" or ".join(names))
        return value

    known = traits.defaults
    hidden = first("hidden_size", "n_embd", "n_embed", "d_model")
    heads = first("num_attention_heads", "n_head", "num_heads", default=known.get("num_attention_heads"))
    if traits.qkv == "groups" and not config.get("new_decoder_architecture"):
        kv_heads = 1 if config.get("multi_query", True) else heads
    else:
        kv_heads = first("num_key_value_heads", "num_kv_heads", default=known.get("num_key_value_heads", heads))
    ffn = first("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", default=4 * hidden)
    return Sizes(
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=first("head_dim", default=known.get("head_dim", hidden // heads)),
        ffn=ffn,
        moe_ffn=first("moe_intermediate_size", default=ffn),
        experts=first("num_local_experts", "num_experts", "n_routed_experts", default=0),
        vocab=first("vocab_size"),
    )


def _live_name(key: str, part: Part, prefix: str) -> str | None:
    if part.kind == "outside" or part.role in ("rotary", "mask"):
        return None
    if part.label == "head":
        return "lm_head." + key.rpartition(".")[2]
    rest = re.sub(r"(?<=\.)block_sparse_moe\.", "mlp.", PREFIX.sub("", key, count=1))
    if part.expert is not None:
        rest = re.sub(r"experts\..*", "experts." + ("down_proj" if part.role == "experts.down" else "gate_up_proj"), rest)
    return prefix + rest
