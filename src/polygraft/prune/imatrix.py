"""`prune imatrix`: what each input of every matrix is worth in a mixture of languages, as a file that llama.cpp's quantiser reads.

llama.cpp weighs the rounding error of an input column by the mean square of that input over the text: `in_sum2` / `counts`.
Format (llama.cpp, tools/imatrix and common/imatrix-loader, since July 2025): GGUF with general.type "imatrix", imatrix.datasets,
imatrix.chunk_count, imatrix.chunk_size, and of each tensor `NAME.in_sum2` F32 [matrices, in] and `NAME.counts` F32 [matrices, 1];
loaders round counts to whole numbers. The older .dat: int32 entries; of each: length, name, calls, values, float32 [values] = mean
square x calls; then int32 chunks, length and name of the text. Both are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from polygraft import files
from polygraft.anatomy import Anatomy
from polygraft.blocks import block_bytes
from polygraft.errors import StepFailed
from polygraft.maps import Cell, layer_map
from polygraft.meter import LIBRARIES
from polygraft.prune import languages
from polygraft.prune.calibration import Calibration, Spoken, planned
from polygraft.prune.costs import FLOPS, Extent, states
from polygraft.prune.harm import WithText
from polygraft.prune.pruning import anatomy_of, read
from polygraft.prune.sites import Site
from polygraft.prune.statistics import Moments
from polygraft.result import InputRef, Result, Table
from polygraft.step import Context, Plan, Step

NAMES = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "qkv": "attn_qkv", "o": "attn_output", "gate": "ffn_gate", "up": "ffn_up",
         "gate_up": "ffn_up", "down": "ffn_down"}  # fmt: skip
WHOSE = {"": "", "experts": "_exps", "shared": "_shexp"}
KNOWN_AS = {"mistral": "llama", "mixtral": "llama", "qwen2_moe": "qwen2moe", "qwen3_moe": "qwen3moe", "gemma3_text": "gemma3",
            "gpt_neox": "gptneox", "cohere": "command-r"}  # model_type -> llama.cpp's name, where they differ  # fmt: skip
FILE = {"gguf": "imatrix.gguf", "dat": "imatrix.dat"}


class Imatrix(WithText):
    """Write llama.cpp's importance matrix from text in several languages, so that its low-bit files round for all of them."""

    format: Literal["gguf", "dat"] = Field("gguf", description="gguf, or the .dat of llama.cpp before July 2025")


@dataclass(frozen=True)
class Entry:
    """One tensor of llama.cpp: `means` float64 [matrices, in], the mean square of every input; `tokens` int64 [matrices], 0 where
    no token came (an expert that was never chosen)."""

    means: np.ndarray
    tokens: np.ndarray

    @property
    def sums(self) -> np.ndarray:
        """float32 [matrices, in]: what a reader divides by the tokens."""
        return (self.means * self.tokens[:, None]).astype(np.float32)


def name(anatomy: Anatomy, key: str) -> str:
    """llama.cpp's name of a matrix; experts of a layer share one, as its files stack them."""
    part = anatomy.parts[key]
    whose, _, role = part.role.rpartition(".")
    return f"blk.{part.layer}.{NAMES[role]}{WHOSE[whose]}.weight"


def entries(anatomy: Anatomy, found: Mapping[Site, Sequence[str]], moments: Mapping[Site, Moments]) -> dict[str, Entry]:
    """The tensors of one layer. Weights of tokens need not be whole: means are exact, their count is rounded up to one at least."""
    grouped: dict[str, dict[int, Moments]] = {}
    for site, keys in found.items():
        for key in keys:
            grouped.setdefault(name(anatomy, key), {})[max(0, site.expert)] = moments[site]
    out = {}
    for tensor, by_expert in grouped.items():
        count = anatomy.sizes.experts if "_exps" in tensor else 1
        width = len(next(iter(by_expert.values())).squares)
        means, tokens = np.ones((count, width)), np.zeros(count, np.int64)
        for i, m in by_expert.items():
            if m.tokens > 0:
                means[i], tokens[i] = m.squares / m.tokens, max(1, round(m.tokens))
        out[tensor] = Entry(means, tokens)
    return out


def mixed(every: languages.Every) -> dict[Site, Moments]:
    """Moments of all languages together: the text's own mixture."""
    out: dict[Site, Moments] = {}
    for moments in every.values():
        for site, m in moments.items():
            out[site] = out[site] + m if site in out else m
    return out


# --------------------------------------------------------------------------------------------------------------------- files


def write_gguf(path: Path, found: Mapping[str, Entry], texts: Sequence[str], window: int, architecture: str) -> None:
    """The file that llama-quantize --imatrix reads, since July 2025."""
    import gguf

    keys = gguf.Keys.IMatrix
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type(gguf.GGUFType.IMATRIX)
    writer.add_array(keys.DATASETS, list(texts))
    writer.add_uint32(keys.CHUNK_COUNT, chunks(found, window))
    writer.add_uint32(keys.CHUNK_SIZE, window)
    for tensor, entry in sorted(found.items()):
        writer.add_tensor(f"{tensor}.in_sum2", entry.sums)
        writer.add_tensor(f"{tensor}.counts", entry.tokens[:, None].astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_dat(path: Path, found: Mapping[str, Entry], texts: Sequence[str], window: int) -> None:
    """The older file. It has one count for all experts of a tensor; one that no token chose weighs all inputs alike."""
    def packed() -> Iterable[bytes]:
        yield struct.pack("<i", len(found))
        for tensor, entry in sorted(found.items()):
            calls = max(1, -(-int(entry.tokens.max()) // window))
            label = tensor.encode()
            yield struct.pack("<i", len(label)) + label + struct.pack("<ii", calls, entry.means.size)
            yield (entry.means * calls).astype("<f4").tobytes()
        text = ", ".join(texts).encode()
        yield struct.pack("<ii", chunks(found, window), len(text)) + text

    files.write_atomic(path, b"".join(packed()))


def chunks(found: Mapping[str, Entry], window: int) -> int:
    """Windows of text that any tensor has seen."""
    return -(-max(int(e.tokens.max()) for e in found.values()) // window)


def check_file(path: Path, found: Mapping[str, Entry]) -> None:
    """Raise StepFailed unless a GGUF file has these means when it is read as llama.cpp reads it."""
    import gguf

    read = {t.name: np.array(t.data) for t in gguf.GGUFReader(path).tensors}
    for tensor, entry in found.items():
        sums, counts = read.get(f"{tensor}.in_sum2"), read.get(f"{tensor}.counts")
        if (sums is None or counts is None or not np.array_equal(sums, entry.sums)
                or not np.array_equal(counts.reshape(-1), entry.tokens)):  # fmt: skip
            raise StepFailed("the file does not read as it was written", where=path, found=tensor,
                             fix="check the disk and run again")


# --------------------------------------------------------------------------------------------------------- what languages say


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation of two importances of the same inputs, 1 where both are constant."""
    from scipy.stats import rankdata

    x, y = rankdata(a), rankdata(b)
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size > 0 else 1.0


class Agreements:
    """How alike languages rank the inputs of every matrix: `cells` the least agreement of any two, by part and layer; `pairs` the
    mean over matrices of every two."""

    def __init__(self, names: Sequence[str]):
        self.couples = list(combinations(names, 2))
        self.cells: dict[Cell, float] = {}
        self.every: dict[tuple[str, str], list[float]] = {pair: [] for pair in self.couples}

    def add(self, anatomy: Anatomy, found: Mapping[Site, Sequence[str]], every: languages.Every) -> None:
        for site, keys in found.items():
            for a, b in self.couples:
                x, y = every[a][site], every[b][site]
                if not (x.tokens > 0 and y.tokens > 0):
                    continue
                value = agreement(x.norms, y.norms)
                self.every[a, b].append(value)
                for key in keys:
                    cell = (anatomy.parts[key].label, site.layer)
                    self.cells[cell] = min(value, self.cells.get(cell, 1.0))

    @property
    def table(self) -> Table:
        rows = tuple((a, b, round(float(np.mean(v)), 4), round(min(v), 4)) for (a, b), v in self.every.items() if v)
        return Table("How alike two languages rank the inputs of a matrix", ("language", "and", "mean of matrices", "least"), rows,
                     "Spearman's rank correlation of mean squares; 1: one language's importance matrix would do for the other")


# ---------------------------------------------------------------------------------------------------------------------- step


def architecture(anatomy: Anatomy) -> tuple[str, bool]:
    """llama.cpp's name of the model's family, and whether the installed gguf library knows it."""
    import gguf

    kind = str(anatomy.config.get("model_type"))
    known = KNOWN_AS.get(kind, kind)
    return known, known in gguf.MODEL_ARCH_NAMES.values()


def plan(config: Imatrix, context: Context) -> Plan:
    """From headers alone."""
    source = context.model(config.model)
    weights, anatomy = source.weights, anatomy_of(source)
    text, extent = planned(config, context, anatomy), Extent.of(weights, anatomy)
    numbers = sum(width for _, width in extent.matrices.values())
    lines = (f"importance of {numbers:,} inputs of {len(extent.matrices):,} matrices, {4 * numbers / 1e6:,.1f} MB", *text.lines)
    return Plan(lines, LIBRARIES + block_bytes(weights, anatomy, "float32") + states(config, weights, anatomy), 8 * numbers,
                sum(t.nbytes for t in weights.tensors.values()) + text.read_bytes,
                2 * sum(extent.sizes.values()) * text.tokens / FLOPS, problems=text.problems)  # fmt: skip


def run(config: Imatrix, context: Context, folder: Path, spoken: Spoken | None = None) -> Result:
    """Write `imatrix.gguf` (or `imatrix.dat`) from one reading of the text by the dense model."""
    from polygraft.model import device_for, dtype_for

    source = context.model(config.model)
    anatomy, device = anatomy_of(source), device_for(config.device)
    text = read(config, context, source, spoken)
    assert text is not None  # a config without a corpus is refused
    found, agreements = dict[str, Entry](), Agreements(text.languages)

    def visit(layer: languages.Layer, every: languages.Every) -> None:
        found.update(entries(anatomy, layer.sites, mixed(every)))
        agreements.add(anatomy, layer.sites, every)

    reading = languages.Reading.calibrated(source, text, dtype_for(device, config.dtype)[0], device)
    languages.read(reading, visit, gram=False, spill=folder / "states", progress=context.progress)
    path, texts = folder / FILE[config.format], [f"{t.language} {t.share:.4f} {Path(t.path).name}" for t in text.told]
    kind, known = architecture(anatomy)
    if config.format == "gguf":
        write_gguf(path, found, texts, config.seq_len, kind)
        check_file(path, found)
    else:
        write_dat(path, found, texts, config.seq_len)
    return told(config, source, anatomy, text, found, agreements, known)


def told(config: Imatrix, source: Any, anatomy: Anatomy, text: Calibration, found: Mapping[str, Entry], agreements: Agreements,
         known: bool) -> Result:  # fmt: skip
    """The result: what was written, how to use it, and how alike the languages are."""
    file, kind = FILE[config.format], anatomy.config.get("model_type")
    unseen = [tensor for tensor, e in found.items() if (e.tokens == 0).any()]
    summary = (f"{file}: the importance of {sum(e.means.size for e in found.values()):,} inputs of {len(found):,} tensors, from "
               f"{sum(t.tokens for t in text.told):,} tokens in {', '.join(text.languages)}.",
               f"Use it: llama-quantize --imatrix {file} MODEL-bf16.gguf MODEL-Q4_K_M.gguf Q4_K_M")  # fmt: skip
    caveats = [*text.notes, "Embedding and head have no entry, as llama-imatrix writes none for them either unless it is asked to."]
    if not known:
        caveats.append(f"The installed gguf library knows no architecture `{kind}`: llama.cpp may not convert this model.")
    if unseen:
        caveats.append(f"{len(unseen)} tensors have experts that no token chose; all inputs of these count alike: {unseen[0]}, ...")
    inputs = (source.ref("model"), *(InputRef(t.language, t.path, digest=t.digest) for t in text.told))
    maps = (layer_map(anatomy, agreements.cells, "Least agreement of two languages on what matters", unit="rank correlation",
                      low=0.0, high=1.0),) if agreements.cells else ()  # fmt: skip
    tables = (*((agreements.table,) if agreements.couples else ()), text.table)
    data = {"file": file, "tensors": len(found), "calibration": text.provenance, "unseen": unseen,
            "agreement": {f"{a} {b}": float(np.mean(v)) for (a, b), v in agreements.every.items() if v}}  # fmt: skip
    return Result("prune.imatrix", "", f"Importance matrix of {config.model}", summary, maps, tables, inputs=inputs,
                  caveats=tuple(caveats), data=data)  # fmt: skip


def imatrix_step(spoken: Spoken | None = None) -> Step:
    return Step("prune.imatrix", 1, Imatrix, plan, partial(run, spoken=spoken))
