"""`vocab trim`: tokens that text of some languages does not use leave the tokenizer, and their rows the model.

Rows are copied as bytes, so that what the model computes for the tokens that stay is what it computed before, bit for bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from polygraft import files
from polygraft.anatomy import Anatomy
from polygraft.checkpoint import Weights
from polygraft.config import Strict, changed
from polygraft.data import Corpus, open_corpus
from polygraft.errors import InputError, StepFailed
from polygraft.result import Result, Table
from polygraft.sources import Source
from polygraft.step import Context, DataRef, Language, ModelRef, Plan, Step
from polygraft.tokenfile import Vocabulary
from polygraft.vocab import control, tables
from polygraft.vocab.metrics.counting import Reader, batches
from polygraft.vocab.scripts import script_of, script_of_token
from polygraft.vocab.tokenizer import checks, folder, sentencefile, trim
from polygraft.vocab.writing import Rows, write_model

EVERY = 10  # one document of so many is not counted: whether it is cut as before says what the choice does to unseen text
READ = 8 << 20  # bytes of a table that are in memory at a time
SHARE = 1e-3  # of a text's letters: a script that has fewer is not one of its scripts
START = 8  # seconds until transformers is there, which checks what was made
SPEED = 1e6  # bytes of text a second, about, that a tokenizer cuts
SMALL = 600 << 20  # resident bytes of Python and transformers
TOKEN = 2 << 10  # resident bytes of a token: its names, bytes and merges, in two vocabularies
EXAMPLES, SCRIPTS = 8, 20  # tokens shown of a script, scripts shown
GENERATION = "generation_config.json"


class Trim(Strict):
    """Take the tokens that text of these languages does not use out of tokenizer and model. All other weights stay as they are."""

    model: ModelRef = Field(description="the model to make smaller", json_schema_extra={"argument": True})
    corpus: dict[Language, DataRef] = Field(
        min_length=1, description="text by language, for every language that is to stay: .txt, .jsonl or .parquet",
        json_schema_extra={"metavar": "LANG=PATH"},
    )
    field: str = Field("text", description="what holds the text in .jsonl and .parquet")
    min_count: int = Field(1, ge=1, description="tokens stay that are seen at least so often")
    keep_top: int | None = Field(None, ge=1, description="or: so many of the most frequent tokens")
    coverage: float | None = Field(None, gt=0, le=1, description="or: the most frequent that make up this share of each language")
    keep_scripts: bool = Field(False, description="all tokens stay that are written in the scripts of these languages")
    multiple: int = Field(1, ge=1, description="rows are filled up to a multiple of this, with further tokens")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if len(given := changed(self, ("min_count", "keep_top", "coverage"))) > 1:
            raise ValueError(f"{' and '.join(given)} are different ways to choose: give one")
        return self


@dataclass(frozen=True)
class Job:
    """What is trimmed: the model, its tokenizer (with the tokens that only tokenizer_config.json names), and the text."""

    source: Source
    anatomy: Anatomy
    tokenizer: folder.TokenizerFolder
    vocabulary: Vocabulary
    corpora: tuple[Corpus, ...]

    @property
    def weights(self) -> Weights:
        return self.source.weights

    @property
    def rows(self) -> int:
        return tables.tables(self.weights, self.anatomy)["in"].shape[0]

    @property
    def row_bytes(self) -> int:
        """Bytes that one token takes in all tables together."""
        return sum(self.weights.tensors[key].nbytes for key in tables.stored(self.weights, self.anatomy)) // self.rows


def opened(config: Trim, context: Context) -> Job:
    """Headers and tokenizer. Raises InputError for a tokenizer that does not fit the model, or cannot be trimmed."""
    source = context.model(config.model)
    weights = source.weights
    anatomy = Anatomy.of(weights.config, weights.tensors, where=config.model)
    tokenizer = folder.read_tokenizer(weights.extras)
    vocabulary = tokenizer.whole
    trim.refuse_kind(vocabulary)
    tables.check_fits(vocabulary, tables.tables(weights, anatomy), config.model)
    for name, ids in (("config.json", control.named(weights.config)), (GENERATION, control.named(generation(weights)))):
        if lost := sorted(ids - vocabulary.names.keys()):
            raise InputError("an id that no token has", where=f"{config.model}: {name}", found=lost[0],
                             expected="the id of a token", fix="correct the config first: its row would be taken out")
    corpora = tuple(open_corpus(tag, context.data(path), config.field) for tag, path in config.corpus.items())
    return Job(source, anatomy, tokenizer, vocabulary, corpora)


def plan(config: Trim, context: Context) -> Plan:
    """From headers: what is there to be saved. How much of it will be, only the text can tell."""
    job = opened(config, context)
    size = sum(t.nbytes for t in job.weights.tensors.values())
    text = sum(c.path.stat().st_size for c in job.corpora)
    share = job.row_bytes * job.rows / max(1, size)
    lines = (f"{job.vocabulary.size:,} tokens, {job.rows:,} rows: {job.row_bytes * job.rows:,} bytes, {share:.1%} of the model",
             f"read {text:,} bytes of text in {', '.join(config.corpus)} twice: to count tokens, and to cut it anew")
    peak, seconds = SMALL + TOKEN * job.vocabulary.size + 4 * READ, START + 2 * text / SPEED + size / 5e8
    return Plan(lines, peak, size, size + 2 * text, seconds, like=job.source)


def run(config: Trim, context: Context, folder_: Path) -> Result:
    """Write `tokenizer/` and `model/`."""
    job = opened(config, context)
    seen = {c.language: look(job.vocabulary, c, context) for c in job.corpora}
    kept = chosen(config, job, seen)
    made = trim.without(job.vocabulary, kept)
    stale = folder.write_tokenizer(folder_ / "tokenizer", made.tree, job.tokenizer)
    if (own := sentencepiece(job, made.old)) is not None:
        files.write_atomic(folder_ / "tokenizer" / sentencefile.FILE, own)
        stale = tuple(name for name in stale if name != sentencefile.FILE)
    new = Vocabulary.open(folder_ / "tokenizer")
    held = {c.language: compared(job.vocabulary, new, made.old, c) for c in job.corpora}
    context.progress(0, 1, "the model")
    write(job, made.old, new, folder_)
    found = checks.loadable(folder_ / "model", before=job.weights.extras)
    context.progress(1, 1, "the model")
    return told(context, job, made.old, seen, held, found, stale)


# ----------------------------------------------------------------------------------------------------------- what is used


@dataclass(frozen=True)
class Seen:
    """What was counted of one language: `tokens` int64 [size], `letters` by script, documents and characters."""

    tokens: np.ndarray
    letters: Counter[str]
    documents: int

    @property
    def scripts(self) -> set[str]:
        return {name for name, n in self.letters.items() if n >= SHARE * self.letters.total()}


def parts(corpus: Corpus, held: bool) -> Iterator[list[str]]:
    """The documents that are counted, or those that are held out, some megabytes at a time."""
    return batches(text for i, text in enumerate(corpus.documents()) if (i % EVERY == EVERY - 1) is held)


def look(vocabulary: Vocabulary, corpus: Corpus, context: Context) -> Seen:
    """Count the tokens of a corpus, without the part held out, and the scripts of its letters."""
    tokens, characters, documents = np.zeros(vocabulary.size, np.int64), Counter[str](), 0
    for batch in parts(corpus, held=False):
        for text, ids in zip(batch, Reader(vocabulary).encode(batch)):
            tokens += np.bincount(np.asarray(ids, np.int64), minlength=vocabulary.size)
            characters.update(text)
        documents += len(batch)
        context.progress(0, 1, f"{corpus.language}: {documents:,} documents")
    letters = Counter[str]()
    for character, n in characters.items():
        if name := script_of(character):
            letters[name] += n
    return Seen(tokens, letters, documents)


def chosen(config: Trim, job: Job, seen: Mapping[str, Seen]) -> np.ndarray:
    """Ids that stay, int64 ascending: what text uses, what the model's config names, scripts, and the pieces of them all."""
    counts = {language: s.tokens for language, s in seen.items()}
    wanted = set(trim.used(counts, min_count=config.min_count, top=config.keep_top, coverage=config.coverage).tolist())
    wanted |= control.named(job.weights.config) | control.named(generation(job.weights))
    if config.keep_scripts:
        wanted |= written_in(job.vocabulary, set().union(*(s.scripts for s in seen.values())))
    kept = trim.closed(job.vocabulary, wanted)
    if config.multiple > 1:
        total = np.sum(list(counts.values()), axis=0)
        order = [int(i) for i in np.argsort(-total, kind="stable") if int(i) in job.vocabulary.names]
        kept = trim.filled(job.vocabulary, kept, config.multiple, order)
    return kept


def written_in(vocabulary: Vocabulary, scripts: set[str]) -> set[int]:
    """Ids of text whose letters are all of these scripts; text without letters is of every script, half a character of none."""
    found = set[int]()
    for i, content in enumerate(vocabulary.contents):
        try:
            text = content.decode() if content is not None else None
        except UnicodeDecodeError:
            continue
        if text is not None and {name for c in text if (name := script_of(c))} <= scripts:
            found.add(i)
    return found


def generation(weights: Weights) -> dict:
    """generation_config.json, empty where there is none."""
    return files.read_json(weights.extras[GENERATION]) if GENERATION in weights.extras else {}


# ------------------------------------------------------------------------------------------------------------- the result


@dataclass(frozen=True)
class Held:
    """Documents that were held out: how many are cut into the same tokens, their characters, and tokens before and after."""

    documents: int = 0
    same: int = 0
    characters: int = 0
    before: int = 0
    after: int = 0
    gone: int = 0  # tokens, of `before`, that are no more


def compared(old: Vocabulary, new: Vocabulary, kept: np.ndarray, corpus: Corpus) -> Held:
    """Cut the held-out documents with both. Raises StepFailed where all old tokens are there and the new cut is another."""
    at = np.full(old.size, -1, np.int64)
    at[kept] = np.arange(len(kept))
    documents = same = characters = before = after = gone = 0
    for batch in parts(corpus, held=True):
        for text, was, now in zip(batch, Reader(old).encode(batch), Reader(new).encode(batch)):
            expected = at[np.asarray(was, np.int64)]
            equal = expected.tolist() == now
            if not equal and (expected >= 0).all():
                raise StepFailed("text is cut otherwise although no token of it is gone", where=corpus.path, found=repr(text[:80]),
                                 fix="please report it with the tokenizer")
            documents, same, characters = documents + 1, same + equal, characters + len(text)
            before, after, gone = before + len(was), after + len(now), gone + int((expected < 0).sum())
    return Held(documents, same, characters, before, after, gone)


def sentencepiece(job: Job, kept: np.ndarray) -> bytes | None:
    """tokenizer.model with the pieces that stay; None where there is none, or its ids are not those of tokenizer.json."""
    if (path := job.weights.extras.get(sentencefile.FILE)) is None:
        return None
    data = path.read_bytes()
    pieces = sentencefile.pieces(data, path)
    if pieces != [job.vocabulary.names.get(i) for i in range(len(pieces))]:
        return None
    return sentencefile.kept(data, kept[kept < len(pieces)].tolist())


def write(job: Job, kept: np.ndarray, new: Vocabulary, folder_: Path) -> None:
    """The model with the rows `kept` of its tables, ids by their meaning, and the tokenizer's files."""
    weights = job.weights
    rows = {key: gathered(weights, key, kept) for key in tables.stored(weights, job.anatomy)}
    config = control.remap(weights.config, job.vocabulary, new, "config.json", len(kept))
    extras: dict[str, bytes | Path] = dict(folder.model_files(weights.extras, folder_ / "tokenizer"))
    if (own := folder_ / "tokenizer" / sentencefile.FILE).is_file():
        extras[sentencefile.FILE] = own
    if GENERATION in extras:
        moved = control.remap(generation(weights), job.vocabulary, new, GENERATION, len(kept))
        extras[GENERATION] = files.canonical(moved)
    write_model(weights, folder_ / "model", len(kept), rows, config, extras)


def gathered(weights: Weights, key: str, ids: np.ndarray) -> Rows:
    """Rows of a tensor of any number of dimensions, as bytes."""
    tensor = weights.tensors[key]
    width = tensor.nbytes // tensor.shape[0]
    step = max(1, READ // width)

    def blocks() -> Iterator[np.ndarray]:
        if len(tensor.shape) == 1:
            yield np.frombuffer(weights.read(key), np.uint8).reshape(-1, width)[ids]
            return
        for start in range(0, len(ids), step):
            yield tables.Table(weights, key).raw(ids[start : start + step])

    return blocks


# ---------------------------------------------------------------------------------------------------------- in words


def told(context: Context, job: Job, kept: np.ndarray, seen: Mapping[str, Seen], held: Mapping[str, Held],
         found: list[checks.Check], stale: tuple[str, ...]) -> Result:  # fmt: skip
    size = sum(t.nbytes for t in job.weights.tensors.values())
    saved = job.row_bytes * (job.rows - len(kept))
    numbers = sum(t.numel for t in job.weights.tensors.values())
    row_numbers = sum(job.weights.tensors[key].numel for key in tables.stored(job.weights, job.anatomy)) // job.rows
    summary = (
        f"{len(kept):,} of {len(job.vocabulary.names):,} tokens stay: {len(kept):,} rows instead of {job.rows:,}, "
        f"{saved:,} bytes less ({saved / size:.1%} of the model).",
        *(f"{language}: {sentence(h)}" for language, h in held.items()),
        *((f"Left out, since they hold the old vocabulary: {', '.join(stale)}.",) if stale else ()),
    )
    caveats = ["the scores of tokens that stay are those of before, bit for bit; their probabilities are shares among fewer tokens"]
    if lost := checks.failed(found):
        caveats += [f"a check found what it should not: {line}" for line in lost]
    shrunk = {"rows": {"before": job.rows, "after": len(kept)}, "tokens": {"before": len(job.vocabulary.names), "after": len(kept)},
              "bytes": {"before": size, "after": size - saved},
              "parameters": {"before": numbers, "after": numbers - row_numbers * (job.rows - len(kept))}}  # fmt: skip
    return Result("vocab.trim", context.step_id, f"{job.source.spec} trimmed to {', '.join(seen)}", summary,
                  tables=(cut(seen, held), sizes(shrunk), gone(job, kept), checks.table(found)), inputs=(job.source.ref("model"),),
                  caveats=tuple(caveats), data={**shrunk, "held": {language: vars(h) for language, h in held.items()}})  # fmt: skip


def sentence(h: Held) -> str:
    if not h.documents:
        return f"too few documents to hold one of {EVERY} out, so nothing says how unseen text fares."
    longer = f", {h.after / h.before - 1:+.2%} tokens in all" if h.after != h.before else ""
    return f"{h.same:,} of {h.documents:,} held-out documents are cut into the same tokens{longer}."


def cut(seen: Mapping[str, Seen], held: Mapping[str, Held]) -> Table:
    """What held-out text costs with both tokenizers."""
    rows = []
    for language, h in held.items():
        after, before = (h.characters / n if n else None for n in (h.after, h.before))
        rows.append((language, seen[language].documents, h.documents, h.same, h.gone, before, after))
    columns = ("language", "documents counted", "held out", "cut alike", "tokens that are gone", "characters/token before", "after")
    return Table("Held-out text before and after", columns, tuple(rows))


def sizes(data: Mapping[str, Mapping[str, int]]) -> Table:
    rows = tuple((name, data[name]["before"], data[name]["after"], 1 - data[name]["after"] / data[name]["before"])
                 for name in ("tokens", "rows", "parameters", "bytes"))  # fmt: skip
    return Table("Sizes", ("", "before", "after", "share saved"), rows)


def gone(job: Job, kept: np.ndarray) -> Table:
    """What was taken out, by script, most tokens first."""
    stay = set(kept.tolist())
    counts, shown = Counter[str](), dict[str, list[str]]()
    for i, name in job.vocabulary.names.items():
        if i not in stay:
            content = job.vocabulary.contents[i]
            of = script_of_token(content).lower()
            counts[of] += 1
            if len(some := shown.setdefault(of, [])) < EXAMPLES:
                some.append(repr((content or name.encode()).decode("utf-8", "replace"))[1:-1])
    rows = tuple((of, n, "  ".join(shown[of])) for of, n in counts.most_common(SCRIPTS))
    return Table("Tokens that were taken out", ("script", "tokens", "the first"), rows)


STEP = Step("vocab.trim", 1, Trim, plan, run, makes_model=True)
