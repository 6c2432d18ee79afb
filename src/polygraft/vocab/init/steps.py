"""`vocab init`: a model takes on a new tokenizer; its old tokens keep their rows, new ones get rows made of them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from polygraft import files
from polygraft.anatomy import Anatomy
from polygraft.config import Strict, changed
from polygraft.data import Corpus, open_corpus
from polygraft.errors import InputError
from polygraft.result import InputRef, Result, Table
from polygraft.sources import Source
from polygraft.step import Context, DataRef, Detail, FolderRef, Language, ModelRef, Plan, Step
from polygraft.tokenfile import FILE, Vocabulary
from polygraft.versions import versions
from polygraft.vocab import tables
from polygraft.vocab.around import Around
from polygraft.vocab.init import making, probe, vectors
from polygraft.vocab.init.making import Job, Made
from polygraft.vocab.init.methods import Donor, Method
from polygraft.vocab.init.mixture import ROOM
from polygraft.vocab.init.weights import Weighting
from polygraft.vocab.metrics.digits import scheme
from polygraft.vocab.metrics.rows import undertrained
from polygraft.vocab.tables import Side
from polygraft.vocab.tokenizer import checks
from polygraft.vocab.tokenizer.folder import read_tokenizer

SMALL = 400 << 20  # resident bytes of Python, numpy, scipy and two vocabularies of 250,000 tokens
TRIAL = ("probe_seeds", "probe_texts", "probe_lr", "probe_batch", "probe_length", "device")
SHORT = 1.5  # seconds for 1 GB to be read, written and read back


class Init(Strict):
    """Give a model a new tokenizer. Tokens that it had keep their rows bit for bit, rows of new ones are made of old rows.

    With --probe, several methods are tried: each model is trained for a few steps, rows of new tokens only, and the best is kept.
    """

    model: ModelRef = Field(description="the model that takes on the tokenizer", json_schema_extra={"argument": True})
    tokenizer: FolderRef = Field(description="the new tokenizer: a folder with tokenizer.json, or what a step wrote")
    method: tuple[Method, ...] = Field(("composed",), min_length=1, json_schema_extra={"metavar": "METHOD,..."}, description=
                                       "composed, piece-mean, omp, focus, mean, random, hewitt; several with --probe")
    weights: Weighting = Field("uniform", description="piece-mean: how its pieces are weighted")
    spaces: float = Field(1.0, ge=0, le=1, description="piece-mean: scales the weight of pieces of nothing but spaces")
    donor: ModelRef | None = Field(None, description="omp: a model that has the new tokens")
    k: int = Field(64, ge=1, description="omp: old tokens that a new one is made of, at most")
    corpus: dict[Language, DataRef] = Field({}, description="focus and --probe: text by language, .txt, .jsonl or .parquet",
                                            json_schema_extra={"metavar": "LANG=PATH"})
    field: str = Field("text", description="what holds the text in .jsonl and .parquet")
    multiple: int = Field(64, ge=1, description="rows are filled up to a multiple of this, where there are more than before")
    seed: int = Field(0, ge=0, description="of what is drawn")
    probe: int | None = Field(None, ge=1, description="try every method by so many steps of training, and keep the best")
    probe_seeds: int = Field(1, ge=1, description="orders of text that each method is tried with")
    probe_texts: int = Field(64, ge=2, description="texts that trials are judged by; every tenth document is held out for that")
    probe_lr: float = Field(1e-3, gt=0, le=10, description="learning rate of a trial")
    probe_batch: int = Field(8, ge=1, description="blocks of text in one step of a trial")
    probe_length: int = Field(256, ge=16, description="tokens of a block")
    device: Annotated[str, Detail] = Field("auto", pattern="^(auto|cpu|cuda)$", description="where a trial runs")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        methods, idle = set(self.method), []
        if len(methods) < len(self.method):
            raise ValueError("`method` names one twice")
        if len(methods) > 1 and self.probe is None:
            raise ValueError("several methods need `probe`: it says which is kept")
        idle += changed(self, ("weights", "spaces")) if "piece-mean" not in methods else []
        idle += changed(self, ("donor", "k")) if "omp" not in methods else []
        idle += changed(self, ("corpus", "field")) if "focus" not in methods and self.probe is None else []
        idle += changed(self, TRIAL) if self.probe is None else []
        if idle:
            raise ValueError(f"{', '.join(idle)} would do nothing with {', '.join(self.method)}")
        if "omp" in methods and self.donor is None:
            raise ValueError("`omp` needs `donor`: a model that has the new tokens")
        if not self.corpus and ("focus" in methods or self.probe is not None):
            raise ValueError("`focus` and `probe` need `corpus`: text of the language")
        return self


def opened(config: Init, context: Context) -> tuple[Job, Source, Donor | None, tuple[Corpus, ...]]:
    """Everything that is read, checked from headers and tokenizers."""
    source = context.model(config.model)
    job = making.job(source.weights, read_tokenizer(context.folder(config.tokenizer)), config.multiple, config.model)
    donor = donor_of(config.donor, context) if config.donor is not None else None
    if "omp" in config.method and (was := scheme(job.old)) != (now := scheme(job.new)):
        raise InputError("the new tokenizer cuts numbers otherwise, which costs models their arithmetic under `omp`",
                         where=config.tokenizer, found=now.words, expected=f"{was.words}, as in {config.model}",
                         fix="make the tokenizer with the model's digit scheme, or use another method")
    corpora = tuple(open_corpus(tag, context.data(path), config.field) for tag, path in config.corpus.items())
    return job, source, donor, corpora


def donor_of(ref: str, context: Context) -> Donor:
    weights = context.model(ref).weights
    found = tables.tables(weights, Anatomy.of(weights.config, weights.tensors, where=ref))
    vocabulary = Vocabulary.open(weights.extras.get(FILE), ref)
    tables.check_fits(vocabulary, found, ref)
    return Donor(vocabulary, found)


def untrained(vocabulary: Vocabulary, found: Mapping[Side, tables.Table]) -> frozenset[int]:
    """Ids of rows that training hardly met."""
    seen = undertrained(vocabulary, dict(found))
    return frozenset(seen.unused.tolist()) | frozenset([] if seen.suspects is None else seen.suspects.tolist())


def plan(config: Init, context: Context) -> Plan:
    """From headers and tokenizers: tokens that stay and that are new, bytes, memory, time."""
    job, _, donor, corpora = opened(config, context)
    size = sum(t.nbytes for t in job.weights.tensors.values())
    before, width = job.tables["in"].shape
    row = sum(job.weights.tensors[k].nbytes for k in tables.stored(job.weights, job.anatomy)) // before
    after = size + (job.rows - before) * row
    both = len(set(job.old.by_bytes) & set(job.new.by_bytes))
    lines = (f"{len(job.new.names):,} tokens, {both:,} of them old ones that keep their rows; {job.rows:,} rows after {before:,}",
             f"rows of new tokens: {', '.join(config.method)}")
    peak, tried = SMALL + 4 * ROOM, len(config.method) > 1 or config.probe is not None
    peak += 3 * 8 * width**2 if "hewitt" in config.method else 0
    seconds = SHORT * (size + after) / 1e9 * len(config.method)
    if donor is not None:
        shared = len(set(donor.vocabulary.by_bytes) & set(job.old.by_bytes))
        across = donor.tables["in"].shape[1]
        peak += 8 * shared * across
        seconds += 2.0 * (len(job.new.names) - both) * config.k * shared * across * len(job.tables) / 1e11
    read = size + sum(c.path.stat().st_size for c in corpora)
    return Plan(lines, peak, after * (2 if tried else 1), read, seconds + probe.seconds(config, job), (), (),
                digits(job))  # like no model that is there: a later step would be planned with the old tokenizer


def digits(job: Job) -> tuple[str, ...]:
    """What to hear about numbers that are cut otherwise than before."""
    was, now = scheme(job.old), scheme(job.new)
    text = f"numbers are cut otherwise: {now.words}, before {was.words}; what the model learnt of arithmetic may be lost"
    return () if was == now else (text,)


def run(config: Init, context: Context, folder: Path, around: Around) -> Result:
    """Write `model/`, and in it `init.json` and `decompositions.jsonl.gz`."""
    shutil.rmtree(folder / "model", ignore_errors=True)  # what an interrupted run had not finished
    job, source, donor, corpora = opened(config, context)
    counted = None
    if "focus" in config.method:
        context.progress(0, 1, "counting text")
        text = probe.texts(corpora, held=False)  # what judges methods is not counted
        counted = vectors.vectors(vectors.tokenised(text, job.new), job.new.size, config.seed)
    hardly = frozenset[int]()
    if donor is not None:
        context.progress(0, 1, "rows hardly trained")
        hardly, donor = untrained(job.old, job.tables), replace(donor, untrained=untrained(donor.vocabulary, donor.tables))
    material = making.material(job, weighting=config.weights, spaces=config.spaces, seed=config.seed, k=config.k, donor=donor,
                               untrained=hardly, vectors=counted, progress=context.progress)
    found: probe.Tried | None = None
    if config.probe is None:
        method = config.method[0]
        made = making.write(job, method, material, folder / "model")
    else:
        found = probe.tried(config, job, material, corpora, folder, around, context)
        method, made = found.best, found.made
    making.write_log(made, material, folder / "model" / "decompositions.jsonl.gz")
    said = {"method": method, "options": options(config, method)} | made.facts(job, material)
    said |= {"probe": found.facts()} if found else {}
    files.write_json(folder / "model" / "init.json", said)
    loads = checks.loadable(folder / "model", before=job.weights.extras)
    seal(config, source, made, folder / "model")
    return told(config, context, job, said, found, source, loads)


def options(config: Init, method: Method) -> dict[str, Any]:
    names = {"piece-mean": ("weights", "spaces"), "omp": ("donor", "k"), "focus": ("corpus",)}.get(method, ())
    return config.model_dump(mode="json", include={*names, "seed", "multiple"})


def seal(config: Init, source: Source, made: Made, model: Path) -> None:
    """The model's own manifest: what it was made of, and by what."""
    recipe = {"use": "vocab.init@1", **config.model_dump(mode="json", exclude_defaults=False)}
    ref = source.ref("model")
    files.seal(model, {"kind": "model", "tensors": dict(made.digests), "recipe": recipe, "versions": versions(("numpy", "scipy")),
                       "inputs": [{"name": ref.name, "spec": ref.spec, "revision": ref.revision, "identity": ref.identity}]})


def told(config: Init, context: Context, job: Job, said: Mapping[str, Any], found: probe.Tried | None, source: Source,
         loads: list[checks.Check]) -> Result:  # fmt: skip
    origins = said["origins"]
    copied = origins["same bytes"] + origins["same control token"]
    summary = [f"{said['tokens']:,} tokens ({said['rows']:,} rows) after {said['tokens before']:,}: {copied:,} keep their rows bit "
               f"for bit, {origins['pieces']:,} are made by {said['method']}, {said['mean of old rows']:,} are the mean of all."]
    if said["suspicious"]:
        summary.append(f"{said['suspicious']:,} tokens have coefficients or rows out of all proportion: see init.json.")
    summary += [f"It does not load everywhere: {words}." for words in checks.failed(loads)]
    rows = (*((name, n) for name, n in origins.items()), ("rows of padding", said["rows"] - job.new.size))
    results = Result(
        "vocab.init", context.step_id, f"A new vocabulary for {config.model}", tuple(summary),
        tables=(Table("Where rows come from", ("tokens of the new vocabulary", "number"), rows), checks.table(loads)),
        caveats=digits(job),
        inputs=(source.ref("model"), InputRef("tokenizer", config.tokenizer, digest=files.sha256_file(job.new.path))),
        data=dict(said))  # fmt: skip
    return found.into(results) if found else results


def init_step(around: Around) -> Step:
    return Step("vocab.init", 1, Init, plan, partial(run, around=around), makes_model=True,
                resumable=True)

