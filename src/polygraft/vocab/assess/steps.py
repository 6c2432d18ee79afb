"""`vocab assess`: before anything is trained, what another vocabulary would gain and cost, which way fits, and whether to go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from polygraft.anatomy import Anatomy
from polygraft.config import Strict
from polygraft.data import Corpus
from polygraft.errors import InputError
from polygraft.result import InputRef, Result
from polygraft.sources import Source
from polygraft.step import Context, DataRef, Language, ModelRef, Plan, Step
from polygraft.tokenfile import Vocabulary
from polygraft.vocab.assess import decide, gains, words
from polygraft.vocab.assess.costs import Shape
from polygraft.vocab.assess.gains import Sized, Split
from polygraft.vocab.metrics import digits, figures
from polygraft.vocab.metrics.counting import Counted, Reader, sample
from polygraft.vocab.tables import check_fits, tables
from polygraft.vocab.tokenizer import parted, trim
from polygraft.vocab.tokenizer.folder import read_tokenizer
from polygraft.vocab.tokenizer.texts import corpora

PEAK = 900 << 20  # bytes: the libraries, two vocabularies, a sample's words
FEWEST = 10_000  # characters of a language, below which nothing is decided: some pages
SPEED = 2e5  # characters a second that are counted, merged and measured, about


class Assess(Strict):
    """What another vocabulary would gain, what it would cost, and which way fits: none, trim, extend or replace.

    From the model's headers and tokenizer and a sample of text; nothing is trained, no weight is read.
    """

    model: ModelRef = Field(description="the model whose vocabulary is looked at", json_schema_extra={"argument": True})
    corpus: dict[Language, DataRef] = Field(
        min_length=1, description="a sample of what the model is to read and write, by language", json_schema_extra={
            "metavar": "LANG=PATH"})
    field: str = Field("text", description="what holds the text in .jsonl and .parquet")
    sample: int = Field(5_000_000, ge=1000, description="characters read of each corpus, from its beginning")
    sizes: tuple[Annotated[int, Field(ge=1)], ...] = Field((4000, 8000, 16_000, 32_000), min_length=1,
                                                  description="new tokens that are tried")
    available: float | None = Field(None, gt=0, description="bytes of text to train on (default: the corpora as they are)")
    served: float | None = Field(None, gt=0, description="tokens a month that the model reads and writes, as it counts them now")
    months: float = Field(12, gt=0, description="within which the arithmetic of training should be saved by serving")
    text: float = Field(40e9, gt=0, description="bytes of text that embeddings are trained on; 40 GB is the least according to "
                        "LEP's authors (arXiv 2412.21140), for models of 7 to 8 billion parameters")
    sightings: int = Field(100, ge=1, description="how often a new token should be seen in training at least; as many contexts as "
                           "Token Distillation takes of each (arXiv 2505.20133)")
    gain: float = Field(1.3, ge=1, description="characters per token, new over old, below which a vocabulary is left as it is: "
                        "LEP's extension of LLaMa-3 gained 1.31 and ended level with the original (arXiv 2412.21140, tables 2, 4)")
    speed: float = Field(1.1, ge=1, description="characters generated in the same time, new over old: less is not worth a training")
    step: float = Field(0.05, ge=0, description="a larger size is taken where it makes generation faster by this share at least")
    share: float = Field(0.5, gt=0, le=1, description="of all parameters, what embedding and head may be")
    trimmed: float = Field(0.3, ge=0, le=1, description="share of rows that the text does not need from which on trimming pays")
    unwritten: float = Field(0.001, ge=0, le=1, description="share of unknown tokens from which on a vocabulary is replaced")

    @property
    def limits(self) -> decide.Limits:
        return decide.Limits(self.gain, self.speed, self.share, self.trimmed, self.unwritten)


@dataclass(frozen=True)
class Job:
    """What is looked at."""

    source: Source
    vocabulary: Vocabulary
    shape: Shape
    corpora: dict[str, Corpus]


def opened(config: Assess, context: Context) -> Job:
    source = context.model(config.model)
    weights = source.weights
    anatomy = Anatomy.of(weights.config, weights.tensors, where=config.model)
    vocabulary = read_tokenizer(weights.extras).vocabulary
    trim.refuse_kind(vocabulary)
    check_fits(vocabulary, tables(weights, anatomy), config.model)
    return Job(source, vocabulary, Shape.of(weights, anatomy), corpora(config.corpus, config.field, context))


def plan(config: Assess, context: Context) -> Plan:
    """From headers and the sizes of files."""
    job = opened(config, context)
    size = sum(min(config.sample, c.size) for c in job.corpora.values())
    lines = (f"{job.vocabulary.size:,} tokens, {job.shape.parameters(job.shape.rows) / 1e6:,.0f}M parameters "
             f"({job.shape.share(job.shape.rows):.0%} of them in the tables); sizes tried: "
             f"{', '.join(f'{k:,}' for k in sorted(config.sizes))}",)  # fmt: skip
    return Plan(lines, PEAK, 1 << 20, int(size), size / SPEED + 10)


def _there(corpus: Corpus, read: Counted, sample: int) -> int:
    """Bytes of text in a corpus: counted where all of it was read, else from the size of its file."""
    return max(read.total("bytes"), corpus.size) if read.total("characters") >= 0.99 * sample else read.total("bytes")


def run(config: Assess, context: Context, folder: Path) -> Result:
    """Measure on the sample and decide; everything is in the result's data."""
    job = opened(config, context)
    splits = {x: Split.of(partial(_documents, c, config.sample), job.vocabulary) for x, c in job.corpora.items()}
    reader = Reader(job.vocabulary)
    counted = {x: reader.count(_documents(c, config.sample), words=False) for x, c in job.corpora.items()}
    short(splits)
    found = gains.sizes(job.vocabulary, splits, config.sizes, context.progress)
    context.progress(1, 1, "a vocabulary of the same size in place of the old one")
    other = gains.replaced(job.vocabulary, splits, job.vocabulary.size)
    seen = np.flatnonzero(np.sum([c.counts for c in counted.values()], axis=0))
    kept = len(trim.closed(job.vocabulary, seen.tolist()))
    limits = parted.found({x: s.held for x, s in splits.items()}, job.vocabulary)
    return words.result(judged(config, job, found, other, counted, kept, limits), _inputs(config, job), context.step_id)


def short(splits: dict[str, Split]) -> None:
    """Raise InputError for a sample that a decision cannot rest on."""
    for language, split in splits.items():
        characters = split.characters + sum(map(len, split.held))
        if characters < FEWEST or not sum(map(len, split.held)) or not split.counted.seen:
            raise InputError("too little text to learn from and to measure on", where=f"corpus.{language}",
                             found=f"{characters:,} characters", expected=f"at least {FEWEST:,}; millions help",
                             fix="give more text of this language, or leave it out")


def _documents(corpus: Corpus, characters: int) -> Iterator[str]:
    return sample(corpus.documents(), characters)


def _inputs(config: Assess, job: Job) -> tuple[InputRef, ...]:
    return (job.source.ref("model"), *(InputRef(x, str(c.path), digest=c.digest) for x, c in job.corpora.items()))


def judged(config: Assess, job: Job, found: list[Sized], other: Sized | None, counted: dict[str, Counted],
           kept: int, limits: dict[str, parted.Parted]) -> words.Assessed:  # fmt: skip
    """Put together what was measured, and decide."""
    shape, size = job.shape, job.vocabulary.size
    rate = [s.estimate().value for s in found]
    options = [decide.option(shape, rate[0], s.added, max(shape.rows, size + s.added), r, s.apart) for s, r in zip(found, rate)]
    new = decide.option(shape, rate[0], other.added, other.added, other.estimate().value, 0.0) if other else None
    totals = np.sum([c.totals for c in counted.values()], axis=0)
    unwritten = float(totals[figures.column("unknown")] / max(1, totals[figures.column("tokens")]))
    bytes_per = float(totals[figures.column("bytes")] / totals[figures.column("characters")])
    available = config.available or float(sum(_there(c, counted[x], config.sample) for x, c in job.corpora.items()))
    chosen = decide.best(options, config.step, lambda o: decide.needed(o, config.sightings, bytes_per) <= available) \
        if len(options) > 1 else new or options[0]
    way, why = decide.route(job.vocabulary.kind, chosen, kept, shape.rows, unwritten, config.limits)
    chosen = new if way == "replace" and new else chosen
    least = max(available, decide.needed(chosen, config.sightings, bytes_per))
    cost = words.training(shape, options[0], chosen, bytes_per, min(config.text, least), config.served)
    return words.Assessed(
        vocabulary=job.vocabulary, shape=shape, found=found, options=options, other=other, replacement=new, chosen=chosen,
        route=way, why=why, kept=kept, counted=counted, bytes_per_character=bytes_per, available=available, cost=cost,
        digits=digits.scheme(job.vocabulary), text=config.text, sightings=config.sightings, served=config.served,
        months=config.months, limits=config.limits, parted=limits)


STEPS = (Step("vocab.assess", 1, Assess, plan, run, headers=True),)
