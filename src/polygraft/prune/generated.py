"""`prune text`: calibration text in the model's own words, for languages of which there is little other (or none that may be used).

Text that a model writes itself serves as calibration about as well as real text (self-calibration, NAACL 2025, long.509). There the
model starts from nothing; here from the first tokens of documents in each language (ours), since most models write English unasked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from polygraft import files
from polygraft.anatomy import Anatomy
from polygraft.blocks import whole_bytes
from polygraft.config import Strict
from polygraft.data import Corpus, open_corpus
from polygraft.errors import InputError, UserError
from polygraft.meter import LIBRARIES
from polygraft.prune.calibration import POOL, Spoken
from polygraft.prune.costs import FLOPS
from polygraft.prune.harm import Judge
from polygraft.result import InputRef, Result, Sample, Table
from polygraft.step import Context, DataRef, Detail, Language, ModelRef, Plan, Step
from polygraft.windows import Stream, check_window, tokenized

if TYPE_CHECKING:
    from polygraft.model import Live

SHOWN = 2  # texts of each language in the report


class Text(Strict):
    """Write calibration text with the model itself, from the first words of documents in each language."""

    model: ModelRef = Field(description="the model that writes", json_schema_extra={"argument": True})
    corpus: dict[Language, DataRef] = Field(min_length=1, description="documents whose first words it goes on from, by language",
                                            json_schema_extra={"metavar": "LANG=PATH"})  # fmt: skip
    field: str = Field("text", description="what holds the text in .jsonl and .parquet")
    documents: int = Field(64, ge=1, description="texts that are written in each language")
    tokens: int = Field(512, ge=2, description="tokens of a text at most, its first words included")
    opening: int = Field(8, ge=1, description="tokens that are taken from a document to start from")
    temperature: float = Field(1.0, gt=0, le=5, description="of sampling; 1 samples what the model believes")
    seed: int = Field(0, ge=0, description="seed of everything that is drawn")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="numbers that the model computes with")
    device: Annotated[str, Detail] = Field("auto", description="cpu, cuda, or auto")
    batch: int = Field(16, ge=1, description="texts that are written together")


def openings(corpus: Corpus, tokenizer: Any, count: int, length: int, seed: int) -> np.ndarray:
    """int64 [count, length (+ 1 with BOS)]: the first tokens of documents that a seed draws. Raises InputError for too few."""
    stream: Stream = tokenized(corpus, tokenizer, most=POOL * count * length * 64)
    starts = stream.starts[:-1][np.diff(stream.starts) >= length]
    if len(starts) < count:
        raise InputError("too few documents to start from", where=corpus.path, found=f"{len(starts):,} of {length} tokens or more",
                         expected=f"{count:,}", fix="write fewer --documents, or shorten --opening")  # fmt: skip
    at = np.sort(np.random.default_rng(seed).permutation(len(starts))[:count])
    ids = np.stack([stream.ids[s : s + length] for s in starts[at]]).astype(np.int64)
    return ids if stream.bos is None else np.concatenate([np.full((count, 1), stream.bos, np.int64), ids], axis=1)


def written(live: Live, starts: np.ndarray, config: Text) -> Iterator[str]:
    """What the model goes on to write, the first words included, sampled from its own distribution."""
    import torch
    from transformers import GenerationConfig

    tokenizer = live.tokenizer
    end = tokenizer.eos_token_id
    how = GenerationConfig(do_sample=True, temperature=config.temperature, top_k=0, top_p=1.0, eos_token_id=end,
                           max_new_tokens=max(1, config.tokens - config.opening),
                           pad_token_id=tokenizer.pad_token_id if end is None else end)  # fmt: skip
    for first in range(0, len(starts), config.batch):
        ids = torch.from_numpy(starts[first : first + config.batch]).to(live.device)
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(config.seed + first)
            out = live.model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=how)
        yield from tokenizer.batch_decode(out, skip_special_tokens=True)


# -------------------------------------------------------------------------------------------------------------------- step


def plan(config: Text, context: Context) -> Plan:
    """From headers; a first document of every corpus is looked at."""
    source = context.model(config.model)
    weights = source.weights
    problems = list[UserError]()
    try:
        check_window(Anatomy.of(weights.config, weights.tensors, where=source.spec), config.tokens + 1)
    except UserError as e:
        problems.append(e)
    for language, ref in config.corpus.items():
        try:
            next(open_corpus(language, context.data(ref), config.field).documents())
        except UserError as e:
            problems.append(e)
    count = config.documents * len(config.corpus)
    parameters = sum(t.numel for t in weights.tensors.values())
    lines = (f"{count:,} texts of up to {config.tokens:,} tokens, {config.documents:,} in each of {', '.join(config.corpus)}",)
    whole = whole_bytes(weights, "float32" if config.dtype == "auto" else config.dtype)
    return Plan(lines, LIBRARIES + 2 * whole, count * config.tokens * 8, sum(t.nbytes for t in weights.tensors.values()),
                count * config.tokens * parameters * 2 / FLOPS, problems=tuple(problems))  # fmt: skip


def run(config: Text, context: Context, folder: Path, judge: Judge, spoken: Spoken | None = None) -> Result:
    """Write `LANG.jsonl` for every language: corpora as any other."""
    source = context.model(config.model)
    live = judge.load(source, config.dtype, config.device)
    if live.tokenizer is None:
        raise InputError("the model has no tokenizer", where=config.model, fix="give a folder that has one")
    check_window(live.anatomy, config.tokens + 1)
    corpora = [open_corpus(g, context.data(ref), config.field) for g, ref in config.corpus.items()]
    starts = {c.language: openings(c, live.tokenizer, config.documents, config.opening, config.seed) for c in corpora}
    rows, shown, notes = list[tuple[Any, ...]](), list[Sample](), list[str]()
    for i, (language, ids) in enumerate(starts.items()):
        texts = [t for t in written(live, ids, config) if t.strip()]
        if not texts:
            raise InputError("the model wrote nothing", where=language, fix="another model, or real text")
        files.write_atomic(folder / f"{language}.jsonl", _lines(texts))
        said = [v for t in texts if spoken is not None and (v := spoken(t, language)) is not None]
        rows.append((language, len(texts), sum(map(len, texts)), f"{sum(said)} of {len(said)}" if said else None))
        shown += [Sample(f"{language} {n}", language, "", {config.model: t}) for n, t in enumerate(texts[:SHOWN])]
        if said and sum(said) < len(said) / 2:
            notes.append(f"Most of what the model wrote for {language} is in another language: it stands for how the model reads "
                         "that one.")  # fmt: skip
        context.progress(i + 1, len(starts), language)
    table = Table("What the model wrote", ("language", "texts", "characters", "in the language"), tuple(rows),
                  "the last column: of those whose language can be told")  # fmt: skip
    inputs = (source.ref("model"), *(InputRef(c.language, str(c.path), digest=c.digest) for c in corpora))
    first, each = rows[0][0], "a corpus" if len(rows) == 1 else f"in {len(rows)} languages, each a corpus"
    summary = f"{sum(r[1] for r in rows):,} texts, {each}: --corpus {first}=OUT/{first}.jsonl."
    return Result("prune.text", "", f"Text that {config.model} wrote", (summary,), tables=(table,), samples=tuple(shown),
                  inputs=inputs, caveats=tuple(notes), data={"files": [f"{g}.jsonl" for g in starts]})


def _lines(texts: list[str]) -> bytes:
    """.jsonl; bytes that make no character were decoded to U+FFFD already, and a corpus holds no NUL."""
    return "".join(json.dumps({"text": t.replace("\0", "")}, ensure_ascii=False) + "\n" for t in texts).encode()


def text_step(judge: Judge, spoken: Spoken | None = None) -> Step:
    return Step("prune.text", 1, Text, plan, partial(run, judge=judge, spoken=spoken))
