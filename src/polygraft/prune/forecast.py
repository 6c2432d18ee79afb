"""`prune plan`: what each way of pruning would leave on disk, in memory and to be read for a token, and where it would be faster.

From headers alone. Writing one token at a time, a runtime reads every weight that the token passes once, so that tokens a second
are at most the memory's bandwidth over those bytes and the cache's; zeros are read like any other number unless the runtime leaves
them out, and next to none does. What is known of runtimes is of September 2026, from their release notes and issues.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from polygraft.anatomy import Anatomy
from polygraft.checkpoint import Weights
from polygraft.config import Strict
from polygraft.errors import RecipeError, UserError
from polygraft.prune import experts as expert_pruning
from polygraft.prune import shallower
from polygraft.prune.costs import Extent
from polygraft.prune.pruning import anatomy_of
from polygraft.result import Result, Table
from polygraft.step import Context, ModelRef, Plan, Step

Bits = Literal[2, 3, 4, 5, 6, 8]
BLOCKS = {2: "Q2_K", 3: "Q3_K", 4: "Q4_K", 5: "Q5_K", 6: "Q6_K", 8: "Q8_0"}  # llama.cpp's types for the matrices of layers
OUTER = "Q6_K"  # and for embedding and head, unless the layers have more
CACHE_BYTES = 2  # of a number in the key-value cache
YES, NO = "yes", "no"

# runtime -> (zeros anywhere, 2 of 4 zeros, low bits, why); what makes the shapes smaller is faster everywhere
TARGETS = {
    "transformers, PyTorch": (NO, "prototype: from about 1,280 tokens at once", YES, "dense kernels; low bits through torchao"),
    "vLLM": (NO, NO, YES, "2:4 kernels were taken out in March 2026; a sparsity_config is refused since 0.24"),
    "SGLang": (NO, NO, YES, "2:4 came from vLLM and is broken"),
    "TensorRT-LLM": (NO, "at most a few percent", YES, "users measured 0 to 5 %"),
    "llama.cpp, Ollama": (NO, NO, YES, "dense blocks; low bits with an importance matrix (`polygraft prune imatrix`)"),
    "CPU runtimes for sparsity": (NO, NO, YES, "DeepSparse ended in June 2025; none of its kind is maintained"),
    "research kernels": ("one sequence, some consumer GPUs", NO, NO, "MACKO-SpMV, Flash-LLM: not in any server"),
}


class Forecast(Strict):
    """What pruning would leave on disk, in memory and to be read for a token; where it would be faster, and what would instead."""

    model: ModelRef = Field(description="the model", json_schema_extra={"argument": True})
    sparsity: float = Field(0.5, ge=0, le=1, description="share of the layers' weights that would become zero")
    layers: int | None = Field(None, ge=1, description="layers that would go (default: a quarter)")
    experts: int | None = Field(None, ge=1, description="experts of every layer that would go, of a mixture (default: a quarter)")
    tokens: int | None = Field(None, ge=1, description="tokens that would stay in the vocabulary (default: half)")
    bits: Bits = Field(4, description="bits of a weight in a low-bit file")
    context: int = Field(4096, ge=1, description="tokens that a sequence would hold in the cache")
    sequences: int = Field(1, ge=1, description="sequences at once")
    bandwidth: float | None = Field(None, gt=0, description="what the machine's memory gives, GB a second: for tokens a second")


@dataclass(frozen=True)
class Parts:
    """Parameters of a model by what becomes of them: `matrices` of layers (without experts), `experts`, `embed`, `head` (0: tied),
    `other` (norms, biases, routers, positions); `stored` bytes of a weight on average; `used` share of the experts a token passes;
    `cache` bytes a token in the key-value cache."""

    matrices: float
    experts: float
    embed: float
    head: float
    other: float
    stored: float
    used: float
    cache: float

    @property
    def total(self) -> float:
        return self.matrices + self.experts + self.embed + self.head + self.other

    @property
    def passed(self) -> float:
        """Weights that one token is multiplied with: the embedding is looked up, not read, unless it is the head too."""
        return self.matrices + self.used * self.experts + (self.head or self.embed) + self.other


@dataclass(frozen=True)
class Way:
    """One way: bytes on disk, of weights in memory, and read for a token (cache too); `work` weights that a token meets."""

    name: str
    disk: float
    memory: float
    read: float
    work: float
    makes: str


def parts_of(weights: Weights, anatomy: Anatomy) -> Parts:
    """From headers."""
    extent = Extent.of(weights, anatomy)
    kinds = {key: anatomy.parts[key] for key in weights.tensors if anatomy.parts[key].kind != "outside"}
    sizes = {key: weights.tensors[key].numel for key in kinds}
    experts = sum(n for key, n in sizes.items() if kinds[key].expert is not None)
    embed = sum(n for key, n in sizes.items() if kinds[key].label == "embed")
    head = sum(n for key, n in sizes.items() if kinds[key].kind == "head" and not anatomy.tied)
    matrices = sum(extent.sizes.values()) - experts
    total = sum(sizes.values()) - sum(n for key, n in sizes.items() if kinds[key].kind == "head" and anatomy.tied)
    s = anatomy.sizes
    used = int(anatomy.config.get("num_experts_per_tok") or 1) / s.experts if experts else 1.0
    return Parts(matrices, experts, embed, head, total - matrices - experts - embed - head,
                 sum(weights.tensors[k].nbytes for k in kinds) / sum(sizes.values()), used,
                 2 * anatomy.layers * s.kv_heads * s.head_dim * CACHE_BYTES)  # fmt: skip


def bits_of(kind: str) -> float:
    """Bits of a weight in a type of llama.cpp's files, scales included."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    return 8 * size / block


def ways(config: Forecast, parts: Parts, anatomy: Anatomy) -> list[Way]:
    """The model as it is, and every way of pruning it by itself."""
    whole, context = parts.stored, config.context * config.sequences
    matrices = parts.matrices + parts.experts
    coded = ((1 - config.sparsity) * 8 * whole + 1) / (8 * whole)  # what stays, and a bit for every weight

    def plain(name: str, p: Parts, makes: str) -> Way:
        return Way(name, p.total * whole, p.total * whole, p.passed * whole + p.cache * context, p.passed, makes)

    now, zeros = plain("as it is", parts, ""), f"zeros, {config.sparsity:.0%}"
    found = [now, replace(now, name=zeros, makes="nothing smaller: zeros are stored and read"),
             replace(now, name=f"{zeros}, in an archive", disk=now.disk - matrices * whole * (1 - min(1.0, coded)),
                     makes="a file with a bit for each weight; the model must be unpacked before it is used")]  # fmt: skip
    keep = 1 - (config.layers or max(1, anatomy.layers // 4)) / anatomy.layers
    fewer = replace(parts, matrices=parts.matrices * keep, experts=parts.experts * keep, cache=parts.cache * keep)
    went = f"{round((1 - keep) * anatomy.layers)} of {anatomy.layers} layers go"
    found.append(plain(went, fewer, "everything smaller and faster (`prune depth`)"))
    if parts.experts:
        count = anatomy.sizes.experts
        gone = config.experts or max(1, count // 4)
        left = replace(parts, experts=parts.experts * (1 - gone / count), used=parts.used * count / max(1, count - gone))
        found.append(plain(f"{gone} of {count} experts go", left, "memory and files; a token takes as much work (`prune experts`)"))
    stay = (config.tokens or anatomy.sizes.vocab // 2) / anatomy.sizes.vocab
    fewer = replace(parts, embed=parts.embed * stay, head=parts.head * stay)
    kept = f"{round(stay * anatomy.sizes.vocab):,} of {anatomy.sizes.vocab:,} tokens stay"
    found.append(plain(kept, fewer, "embedding and head smaller (`vocab trim`)"))
    return [*found, low(config, parts)]


def low(config: Forecast, parts: Parts) -> Way:
    """A low-bit file as llama.cpp writes it, about: it mixes types."""
    inner = bits_of(BLOCKS[config.bits]) / 8
    outer = max(inner, bits_of(OUTER) / 8)
    table = parts.head or parts.embed
    size = inner * (parts.matrices + parts.experts) + outer * (parts.embed + parts.head) + 4 * parts.other
    read = inner * (parts.matrices + parts.used * parts.experts) + outer * table + 4 * parts.other
    return Way(f"{config.bits} bits ({BLOCKS[config.bits]})", size, size, read + parts.cache * config.context * config.sequences,
               parts.passed, "everything smaller; what it costs each language: `polygraft prune lowbit`")  # fmt: skip


# -------------------------------------------------------------------------------------------------------------------- step


def problems(config: Forecast, weights: Weights, anatomy: Anatomy) -> tuple[UserError, ...]:
    """What was asked for and cannot be."""
    found: list[UserError | None] = [
        shallower.fault(anatomy, config.layers) if config.layers else None,
        expert_pruning.fault(weights, anatomy, config.experts) if config.experts else None,
    ]
    if config.tokens and config.tokens > anatomy.sizes.vocab:
        found.append(RecipeError("more tokens would stay than there are", where="tokens", found=f"{config.tokens:,}",
                                 expected=f"{anatomy.sizes.vocab:,} at most"))  # fmt: skip
    return tuple(e for e in found if e is not None)


def plan(config: Forecast, context: Context) -> Plan:
    source = context.model(config.model)
    return Plan((f"a forecast for {config.model}, from headers",), peak_bytes=200 << 20, seconds=1,
                problems=problems(config, source.weights, anatomy_of(source)))


def run(config: Forecast, context: Context, folder: Path) -> Result:
    """Tables; nothing is written but the result."""
    source = context.model(config.model)
    anatomy = anatomy_of(source)
    for error in problems(config, source.weights, anatomy):
        raise error
    parts = parts_of(source.weights, anatomy)
    found = ways(config, parts, anatomy)
    data = {"ways": [vars(w) for w in found], "parts": vars(parts), "cache_bytes": parts.cache * config.context * config.sequences,
            "sparsity_of_all": config.sparsity * (parts.matrices + parts.experts) / parts.total}  # fmt: skip
    title = f"What pruning would make of {config.model}"
    return Result("prune.plan", "", title, said(config, parts, found),
                  tables=(forecast(config, found), runtimes()), inputs=(source.ref("model"),),
                  caveats=CAVEATS, data=data)  # fmt: skip


CAVEATS = (
    "Bytes are exact for what is stored as it is, and close for low bits, whose files mix types. Tokens a second are a bound, for "
    "few sequences, which memory limits; many at once are limited by arithmetic.",
    "What each way costs in every language is not in headers: measure it (`prune depth`, `prune experts`, `prune lowbit`, `eval`).",
)


def said(config: Forecast, parts: Parts, found: Sequence[Way]) -> tuple[str, ...]:
    """The honest answer in sentences."""
    now, best = found[0], min((w for w in found[3:]), key=lambda w: w.read)
    share = config.sparsity * (parts.matrices + parts.experts) / parts.total
    return (
        f"Zeros in {config.sparsity:.0%} of the layers' weights ({share:.0%} of all parameters) leave {gigabytes(now.disk)} on "
        "disk and in memory, and make no maintained runtime faster: they are for studying a model.",
        "2:4 is no different in 2026: vLLM took its kernels out, PyTorch's is a prototype.",
        f"What would: {best.name}: {gigabytes(best.memory)} in memory instead of {gigabytes(now.memory)}, at most "
        f"{now.read / best.read:.1f} times as many tokens a second for {sequences(config)}.",
    )


def sequences(config: Forecast) -> str:
    return "one sequence" if config.sequences == 1 else f"{config.sequences:,} sequences"


def gigabytes(n: float) -> str:
    return f"{n / 1e9:,.2f} GB" if n >= 1e8 else f"{n / 1e6:,.2f} MB"


def forecast(config: Forecast, found: Sequence[Way]) -> Table:
    now = found[0]
    speed, given = ("tokens a second at most",) if config.bandwidth else (), config.bandwidth
    rows = tuple((w.name, gigabytes(w.disk), gigabytes(w.memory), gigabytes(w.read),
                  *((round(given * 1e9 / w.read, 1),) if given else ()), round(now.read / w.read, 2), round(now.work / w.work, 2),
                  w.makes) for w in found)  # fmt: skip
    columns = ("way", "on disk", "weights in memory", "read for a token", *speed, "writing: times faster at most",
               "reading: times less work", "what gets smaller")  # fmt: skip
    return Table("What each way would leave", columns, rows, "read for a token: weights, and the cache of "
                 f"{config.context:,} tokens in {sequences(config)}, 16 bits a number")  # fmt: skip


def runtimes() -> Table:
    rows = tuple((name, zeros, two, YES, YES, low_bits, why) for name, (zeros, two, low_bits, why) in TARGETS.items())
    return Table("Faster where", ("runtime", "zeros", "2:4", "fewer layers", "fewer tokens", "low bits", "why"), rows,
                 "as of September 2026; fewer experts save memory everywhere and time nowhere")


STEP = Step("prune.plan", 1, Forecast, plan, run, headers=True)
