"""`vocab extend` and `vocab train`: tokenizers made from a model's own and text, and what they do to text that was not used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from polygraft import languages
from polygraft.errors import StepFailed
from polygraft.result import InputRef, Result, Table
from polygraft.sources import Source
from polygraft.step import Context, Plan, Step
from polygraft.tokenfile import Vocabulary
from polygraft.vocab.metrics import digits, tables
from polygraft.vocab.metrics.study import Studied, study
from polygraft.vocab.tokenizer import checks, extend, filters, optimise, parted, texts, train
from polygraft.vocab.tokenizer.folder import TokenizerFolder, read_tokenizer, write_tokenizer

SHOWN = 40  # new tokens in the result
COUNTED = 2e6  # bytes of text a second that are counted, about
MERGED = 400.0  # merges a second, about
SMALL = 400 << 20  # resident bytes of Python, the libraries and two vocabularies
PER_BYTE = 12  # resident bytes for each of text, as far as its words are distinct
MOST = 1 << 31  # what the bounds on distinct words and symbols come to
TRAINED = 1.5e6  # bytes of text a second that the library's trainers take in, about


class Extend(texts.Texts):
    """Extend a model's BPE tokenizer by merges learned from text. Every old token keeps its id, every old merge its place.

    With `keep`, its least used tokens are dropped first, and ids are new. The model is adapted by `vocab init` and what follows.
    """

    size: int = Field(ge=1, description="new tokens")
    keep: int | None = Field(None, ge=1, description="first drop old tokens, all but so many that this text uses most")
    min_count: int = Field(2, ge=1, description="a pair of tokens is merged that is seen at least so often")
    script: tuple[str, ...] = Field((), description="new tokens are made of letters of these scripts only: cyrillic, latin, ...")
    digits: Literal["keep", "single"] = Field("keep", description="digits in a new token: as the old tokenizer has them, or never")


class Train(texts.Texts):
    """Train a new tokenizer in place of a model's. Control tokens, template, digits and the way to cut text stay; ids do not."""

    size: int = Field(ge=1, description="tokens in all")
    kind: train.Kind = Field("bpe", description="bpe or unigram")
    min_count: int = Field(2, ge=1, description="bpe: a pair is merged that is seen at least so often")


@dataclass(frozen=True)
class Job:
    """The tokenizer to start from, whole."""

    source: Source
    folder: TokenizerFolder
    vocabulary: Vocabulary

    @property
    def scheme(self) -> digits.Digits:
        return digits.scheme(self.folder.vocabulary)


def opened(config: texts.Texts, context: Context) -> Job:
    source = context.model(config.model)
    folder = read_tokenizer(source.weights.extras)
    return Job(source, folder, folder.whole)


def planned(config: texts.Texts, context: Context, job: Job, seconds: float, speed: float) -> Plan:
    """From the sizes of files: no text is read."""
    files = [*texts.corpora(config.corpus, config.field, context).values(),
             *texts.corpora(config.measure, config.field, context).values()]  # fmt: skip
    text = sum(c.size for c in files)
    own = job.folder.vocabulary.path.stat().st_size
    lines = (f"{job.vocabulary.size:,} tokens ({job.vocabulary.kind}); about {text:,} bytes of text in "
             f"{', '.join(dict.fromkeys(c.language for c in files))}",)  # fmt: skip
    return Plan(lines, SMALL + 20 * own + min(MOST, PER_BYTE * text), 3 * own, text, text / speed + seconds)


def plan_extend(config: Extend, context: Context) -> Plan:
    job = opened(config, context)
    extend.refuse_kind(job.vocabulary)
    for name in config.script:
        filters.check_script(name)
    return planned(config, context, job, config.size / MERGED, COUNTED)


def run_extend(config: Extend, context: Context, folder: Path) -> Result:
    """Write `tokenizer/`."""
    job = opened(config, context)
    extend.refuse_kind(job.vocabulary)
    scripts = [filters.check_script(name) for name in config.script]
    read = texts.read(config, job.vocabulary, context)
    words = texts.weighed(read.counted, config.share)
    start = job.vocabulary
    if config.keep is not None:
        start = extend.of_tree(optimise.most_used(start, words, config.keep).tree, start)
    single = config.digits == "single"
    allowed = filters.allowed(start, scripts=scripts, digits=1 if single else job.scheme.longest,
                              joined=not single and filters.joins_digits(job.vocabulary), longest=config.longest)  # fmt: skip
    made = extend.extend(start, words, config.size, allowed=allowed, min_count=config.min_count, progress=context.progress)
    if not made.tokens:
        raise StepFailed("the text has no pair of tokens to merge", where="corpus", found=f"{words.total():,} words",
                         fix="give more text, or a smaller --min-count; --script names what new tokens may be made of")
    stale = write_tokenizer(folder / "tokenizer", made.tree, job.folder)
    new = Vocabulary.open(folder / "tokenizer")
    if config.keep is None:
        for held in read.held.values():
            extend.check_coarser(job.folder.vocabulary, new, held)
    first = (said(made, config, start),)
    return told("vocab.extend", job, new, read, context, folder, first, stale, (new_tokens(made, new),),
                {"new_tokens": made.tokens, "new_characters": made.characters, "merges": len(made.learned.merges),
                 "kept": start.size, "pruned": made.pruned})  # fmt: skip


def said(made: extend.Extended, config: Extend, start: Vocabulary) -> str:
    less = "" if made.tokens == config.size else f" of {config.size:,}: no pair that may be merged is seen {config.min_count} times"
    letters = f", {made.characters:,} of them characters that it lacked" if made.characters else ""
    old = f"{start.size:,} tokens were kept" if config.keep is not None else f"all {start.size:,} old ids stay"
    return f"{made.tokens:,} new tokens{less}{letters}; {old}; {len(made.learned.merges):,} merges were added."


def new_tokens(made: extend.Extended, new: Vocabulary) -> Table:
    """The first new tokens, and some of all the others, with how often the pair was seen."""
    fresh = [m for m in made.learned.merges if m.token in made.learned.added]
    fresh = list({m.token: m for m in reversed(fresh)}.values())[::-1]
    step = max(1, len(fresh) // SHOWN)
    rows = tuple((m.token, visible(new.contents[m.token]), visible(new.contents[m.left]), visible(new.contents[m.right]), m.count)
                 for m in (fresh if len(fresh) <= SHOWN else fresh[::step][:SHOWN]))  # fmt: skip
    return Table("New tokens", ("id", "token", "of", "and", "seen"), rows, f"one of every {step} in order" if step > 1 else "")


def visible(content: bytes | None) -> str:
    """A token's text; bytes that are no characters as \\xNN."""
    return repr((content or b"").decode("utf-8", "backslashreplace")).replace(r"\\x", r"\x")


def plan_train(config: Train, context: Context) -> Plan:
    job = opened(config, context)
    train.refuse_kind(job.vocabulary)
    return planned(config, context, job, config.size / MERGED, TRAINED if config.kind == "bpe" else TRAINED / 3)


def run_train(config: Train, context: Context, folder: Path) -> Result:
    """Write `tokenizer/`."""
    job = opened(config, context)
    train.refuse_kind(job.vocabulary)
    stream = texts.Stream(config, context)
    tree = train.replacement(job.vocabulary, stream, config.kind, config.size, min_count=config.min_count,
                             longest=config.longest, digits=job.scheme.longest)  # fmt: skip
    stale = write_tokenizer(folder / "tokenizer", tree, job.folder, {"tokenizer_class": "PreTrainedTokenizerFast"})
    new = Vocabulary.open(folder / "tokenizer")
    both = sum(1 for content in new.contents if content is not None and content in job.vocabulary.by_bytes)
    less = f" {config.size:,} were asked for; this text has no more." if new.size < config.size else ""
    first = (f"A {new.kind} tokenizer of {new.size:,} tokens in place of {job.vocabulary.size:,}; {both:,} of them are old ones."
             f"{less}",)
    return told("vocab.train", job, new, stream.read(), context, folder, first, stale, (), {"tokens": new.size, "shared": both})


# ------------------------------------------------------------------------------------------------------------- the result


def told(step: str, job: Job, new: Vocabulary, read: texts.Read, context: Context, folder: Path, first: Sequence[str],
         stale: Sequence[str], more: Sequence[Table], data: dict[str, Any]) -> Result:  # fmt: skip
    """What the new tokenizer does to held-out text beside the old one, and whether it loads elsewhere."""
    opened_texts = {language: (lambda held=held: iter(held)) for language, held in read.held.items()}
    found = study([("original", job.folder.vocabulary, {}), ("new", new, {})], opened_texts, context.progress) if read.held else []
    checked = checks.loadable(folder / "tokenizer", job.source.weights.extras)
    measured = (tables.per_token(found), tables.words(found), tables.changes(found), tables.use(found),
                tables.vocabularies(found)) if found else ()  # fmt: skip
    limits = parted.found(read.held, job.folder.vocabulary)
    gone = (f"Left out, since they hold the old vocabulary: {', '.join(stale)}.",) if stale else ()
    return Result(
        step, context.step_id, f"A tokenizer for {', '.join(read.counted)}",
        (*first, *map(gain, both(found)), *parted.said(limits), *gone),
        tables=(*(t for t in measured if t is not None), *more, checks.table(checked)),
        curves=tables.curves(found) if found else (),
        inputs=(job.source.ref("model"), *(InputRef(language, str(path)) for language, path in read.paths.items())),
        caveats=caveats(read, checked), data=data | {"bytes": read.bytes, "read": reading(read), "parted": parted.as_data(limits)}
        | ({"tokenizers": tables.as_data(found, [])} if found else {}),
    )  # fmt: skip


def both(found: Sequence[Studied]) -> list[tuple[str, float, float]]:
    """Characters per token under both, by language."""
    return [(language, *(s.estimates[language]["characters per token"].value for s in found))  # type: ignore[misc]
            for language in (found[0].counted if found else ())]


def gain(measured: tuple[str, float, float]) -> str:
    language, old, new = measured
    return f"{languages.name(language)}: {new:.2f} characters per token instead of {old:.2f} ({new / old:.2f} times)."


def reading(read: texts.Read) -> dict[str, dict[str, int]]:
    return {language: {"bytes": c.bytes} | ({"words": c.seen, "distinct": len(c.words), "pruned": c.pruned} if c.seen else {})
            for language, c in read.counted.items()}  # fmt: skip


def caveats(read: texts.Read, checked: Sequence[checks.Check]) -> tuple[str, ...]:
    found = [f"{language}: {c.pruned / c.seen:.2%} of all words were too rare to be held in memory"
             for language, c in read.counted.items() if c.pruned]  # fmt: skip
    if missing := [language for language in read.counted if language not in read.held]:
        found.append(f"nothing was held out to measure on in {', '.join(missing)}: fewer than {texts.EVERY} documents; name some "
                     "with `measure`")
    return (*found, *(f"a check found what it should not: {line}" for line in checks.failed(checked)))


STEPS = (Step("vocab.extend", 1, Extend, plan_extend, run_extend), Step("vocab.train", 1, Train, plan_train, run_train))
