"""The tables that `Anatomy` reads: name patterns that hold across families, and one short row per family that departs from them.

A pattern is matched against the whole of a key without its prefix (`model.`, `transformer.h.3.`) and without `.weight` or `.bias`.
Adding a family is adding rows here, or passing them in a recipe (`anatomy: [{match: ..., kind: ..., role: ...}]`), never a class.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from polygraft.errors import RecipeError, suggestion

KINDS = ("embed", "position", "attn", "ffn", "norm", "final_norm", "head", "outside")

# Order of the rows of a picture: attention, feed-forward, norms; a role that is not listed follows, by name.
DRAWN = ("attn.q", "attn.k", "attn.v", "attn.qkv", "attn.o", "ffn.router", "ffn.gate", "ffn.up", "ffn.gate_up", "ffn.down",
         "ffn.experts.gate", "ffn.experts.up", "ffn.experts.gate_up", "ffn.experts.down", "ffn.shared.router", "ffn.shared.gate",
         "ffn.shared.up", "ffn.shared.down", "norm.input", "norm.q", "norm.k", "norm.post_attn", "norm.pre_ffn",
         "norm.post_ffn")  # fmt: skip

_ATTN = r"(?:self_attn|self_attention|attention|attn)\."
_MOE = r"(?:mlp|block_sparse_moe)\."
_EXPERT = _MOE + r"experts\.(?P<expert>\d+)\."
_SHARED = r"mlp\.shared_experts?\."


@dataclass(frozen=True)
class Rule:
    """Keys that `match` (a whole-string regular expression) are of this kind and role; groups `layer`, `expert` carry numbers."""

    match: re.Pattern[str]
    kind: str
    role: str = ""


def _rules(*rows: tuple[str, str, str]) -> tuple[Rule, ...]:
    return tuple(Rule(re.compile(match), kind, role) for match, kind, role in rows)


LAYER = _rules(
    (_ATTN + "q_proj", "attn", "q"),
    (_ATTN + "k_proj", "attn", "k"),
    (_ATTN + "v_proj", "attn", "v"),
    (_ATTN + "(?:o_proj|out_proj|dense|c_proj)", "attn", "o"),
    (_ATTN + "(?:qkv_proj|query_key_value|c_attn)", "attn", "qkv"),
    (_ATTN + "q_norm", "norm", "q"),
    (_ATTN + "k_norm", "norm", "k"),
    (r"mlp\.gate_proj", "ffn", "gate"),
    (r"mlp\.(?:up_proj|c_fc|dense_h_to_4h)|fc1", "ffn", "up"),
    (r"mlp\.gate_up_proj", "ffn", "gate_up"),
    (r"mlp\.(?:down_proj|c_proj|dense_4h_to_h)|fc2", "ffn", "down"),
    (_MOE + "gate", "ffn", "router"),
    (_EXPERT + "(?:w1|gate_proj)", "ffn", "experts.gate"),
    (_EXPERT + "(?:w3|up_proj)", "ffn", "experts.up"),
    (_EXPERT + "(?:w2|down_proj)", "ffn", "experts.down"),
    (_MOE + r"experts\.gate_up_proj", "ffn", "experts.gate_up"),  # as transformers 5 holds them in memory
    (_MOE + r"experts\.down_proj", "ffn", "experts.down"),
    (r"mlp\.shared_expert_gate", "ffn", "shared.router"),
    (_SHARED + "gate_proj", "ffn", "shared.gate"),
    (_SHARED + "up_proj", "ffn", "shared.up"),
    (_SHARED + "down_proj", "ffn", "shared.down"),
    (r"input_layernorm|ln_1|ln_attn|self_attn_layer_norm", "norm", "input"),
    (r"post_attention_layernorm|ln_2|final_layer_norm", "norm", "post_attn"),
    (r"pre_feedforward_layernorm|ln_mlp", "norm", "pre_ffn"),
    (r"post_feedforward_layernorm", "norm", "post_ffn"),
    (_ATTN + r"rotary_emb\.inv_freq", "position", "rotary"),
    (_ATTN + r"(?:bias|masked_bias)", "outside", "mask"),  # causal masks that old files carry; no model reads them
)

OUTER = _rules(
    (r"embed_tokens|wte|embed_in|word_embeddings", "embed", ""),
    (r"word_embeddings_layernorm", "embed", "norm"),
    (r"project_in", "embed", "project"),
    (r"wpe|embed_positions", "position", ""),
    (r"rotary_emb\.inv_freq", "position", "rotary"),
    (r"norm|ln_f|final_layer_norm|final_layernorm", "final_norm", ""),
    (r"lm_head|embed_out", "head", ""),
    (r"project_out", "head", "project"),
)

# Towers beside the decoder: carried along, never merged or measured.
OUTSIDE = re.compile(r"(?:model\.)?(?:vision_tower|vision_model|visual|audio_tower|multi_modal_projector|embed_vision)\..+")
PREFIX = re.compile(
    r"(?:model\.language_model\.|language_model\.model\.|language_model\.|model\.decoder\.|decoder\.|gpt_neox\.|transformer\.|model\.)?"
)
IN_LAYER = re.compile(r"(?:layers|h)\.(?P<layer>\d+)\.(?P<tail>.+)")
BUFFER = re.compile(r"(?:.+\.)?(?:inv_freq|masked_bias)|" + r"(?:layers|h)\.\d+\." + _ATTN + "bias")


@dataclass(frozen=True)
class Traits:
    """How a family departs from the llama shape. `tied`: the default when config.json is silent. `qkv`: layout of fused rows."""

    prefix: str = "model."
    tied: bool = False
    transposed: bool = False  # Conv1D: weights are stored (in, out)
    qkv: str | None = None  # "stacked" [q|k|v], "heads" [q k v] a head, "groups" [q.. k v] a key-value head
    defaults: Mapping[str, int] = field(default_factory=dict)


FAMILIES = {
    "gpt2": Traits("transformer.", tied=True, transposed=True, qkv="stacked"),
    "gpt_neox": Traits("gpt_neox.", qkv="heads"),
    "bloom": Traits("transformer.", tied=True, qkv="heads"),
    "falcon": Traits("transformer.", tied=True, qkv="groups"),
    "opt": Traits("model.decoder.", tied=True),
    "phi3": Traits(qkv="stacked"),
    "cohere": Traits(tied=True),
    "gemma2": Traits(tied=True, defaults={"head_dim": 256}),
    "gemma3_text": Traits(tied=True, defaults={"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256}),
}


def stem(rest: str) -> str:
    """A key without its `.weight` or `.bias`; buffers and stacked experts have neither, and a mask called `bias` keeps its name."""
    if BUFFER.fullmatch(rest):
        return rest
    return rest.removesuffix(".weight").removesuffix(".bias")


def extra_rules(rows: Iterable[Mapping[str, Any] | Rule]) -> tuple[Rule, ...]:
    """A recipe's `anatomy:` rows. Raises RecipeError for an unknown field or kind, or a pattern that does not compile."""
    return tuple(row if isinstance(row, Rule) else _extra(dict(row)) for row in rows)


def _extra(row: dict[str, Any]) -> Rule:
    for name in row:
        if name not in ("match", "kind", "role"):
            raise RecipeError("unknown field", where="anatomy", found=name, fix=suggestion(name, ("match", "kind", "role")))
    if row.get("kind") not in KINDS:
        raise RecipeError("unknown kind", where="anatomy", found=row.get("kind"), fix=suggestion(str(row.get("kind")), KINDS))
    try:
        return Rule(re.compile(str(row["match"])), row["kind"], str(row.get("role", "")))
    except (KeyError, re.error) as error:
        fix = r"a regular expression such as model\.layers\.(?P<layer>\d+)\.mlp\.extra\.weight"
        raise RecipeError("`match` is missing or does not compile", where="anatomy", found=f"{row} ({error})", fix=fix) from None


def suggested_row(key: str) -> str:
    """The recipe line that would classify `key`, with its layer number captured."""
    pattern = re.sub(r"\b(layers|h|blocks)\\\.\d+", r"\1\\.(?P<layer>\\d+)", re.escape(key))
    kind = "ffn" if "mlp" in key else "attn" if "att" in key else "norm" if "norm" in key else "outside"
    role = stem(key).rpartition(".")[2]
    return f"if you know what it is, say so: anatomy: [{{match: '{pattern}', kind: {kind}, role: {role}}}]"
