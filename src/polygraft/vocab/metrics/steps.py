"""`analyze tokenizer`: what tokenizers do to text, and what their vocabularies hold, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from itertools import chain
from pathlib import Path, PurePath
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from polygraft import languages
from polygraft.anatomy import Anatomy
from polygraft.config import Strict
from polygraft.data import Corpus
from polygraft.errors import InputError, RecipeError
from polygraft.result import InputRef, Result
from polygraft.step import Context, DataRef, FolderRef, Language, ModelRef, Plan, Step
from polygraft.tokenfile import Vocabulary
from polygraft.vocab.metrics import tables
from polygraft.vocab.metrics.counting import sample
from polygraft.vocab.metrics.figures import PER_TOKEN
from polygraft.vocab.metrics.study import Parity, Studied, Texts, gains, parity, study
from polygraft.vocab.tables import Side, Table, check_fits
from polygraft.vocab.tables import tables as tables_of
from polygraft.vocab.tokenizer.folder import read_tokenizer
from polygraft.vocab.tokenizer.texts import corpora

PEAK = 500 << 20  # bytes: the libraries, and a batch of encodings with its texts
SPEED = 4e5  # characters a second that one tokenizer encodes, decodes and has counted on two cores, about
TOLD = 6  # languages that a summary tells one by one
Opened = tuple[str, Vocabulary, dict[Side, Table]]


class Tokenizers(Strict):
    """What tokenizers do to text, and what their vocabularies hold, side by side.

    The first one named (models before tokenizers) is what the others are compared with.
    """

    models: tuple[ModelRef, ...] = Field((), description="models, whose tokenizers and rows are looked at",
                                         json_schema_extra={"argument": True})
    tokenizers: tuple[FolderRef, ...] = Field((), json_schema_extra={"flag": "--tokenizer"},
                                              description="tokenizers alone: folders with tokenizer.json, or what `vocab` made")
    corpus: dict[Language, DataRef] = Field(
        default_factory=dict, description="text by language; one document a line (.txt), object (.jsonl) or row (.parquet)",
        json_schema_extra={"metavar": "LANG=PATH"},
    )
    parallel: dict[Language, DataRef] = Field(
        default_factory=dict, json_schema_extra={"metavar": "LANG=PATH"},
        description="text whose line i says the same in every language: what each costs beside the reference",
    )
    reference: Language = Field("en", description="the language of the parallel text that the others are compared with")
    field: str = Field("text", description="what holds the text in .jsonl and .parquet")
    sample: int = Field(10_000_000, ge=1, description="characters read of each corpus, from its beginning")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.models or self.tokenizers):
            raise ValueError("name a model, or a tokenizer (`tokenizers`)")
        if not (self.corpus or self.parallel):
            raise ValueError("give text to read: `corpus` or `parallel`, LANG=PATH")
        if self.parallel and (len(self.parallel) < 2 or self.reference not in self.parallel):
            raise ValueError(f"`parallel` needs two languages or more, and among them the `reference` ({self.reference})")
        return self


def opened(config: Tokenizers, context: Context) -> list[Opened]:
    """Every tokenizer with its name, and the tables of those that are models'. Raises UserError."""
    specs = [s.rstrip("/") for s in (*config.models, *config.tokenizers)]
    short = [PurePath(s.split("@")[0].removesuffix("/tokenizer")).name or s for s in specs]
    names = short if len(set(short)) == len(short) else specs
    if len(set(names)) != len(names):
        raise RecipeError("the same tokenizer is named twice", where="tokenizers", found=", ".join(specs))
    found: list[Opened] = []
    for name, ref in zip(names, config.models):
        weights = context.model(ref).weights
        vocabulary = read_tokenizer(weights.extras).vocabulary
        looked = tables_of(weights, Anatomy.of(weights.config, weights.tensors, where=ref))
        check_fits(vocabulary, looked, ref)
        found.append((name, vocabulary, looked))
    for name, ref in zip(names[len(config.models) :], config.tokenizers):
        found.append((name, read_tokenizer(context.folder(ref)).vocabulary, {}))
    return found


def plan(config: Tokenizers, context: Context) -> Plan:
    """Tokenizers are opened and files looked for; no text is read."""
    found = opened(config, context)
    texts = [*corpora(config.corpus, config.field, context).values(), *corpora(config.parallel, config.field, context).values()]
    characters = sum(min(config.sample, c.size) for c in texts)
    bytes_read = sum(t.weights.tensors[t.key].nbytes for _, _, looked in found for side, t in looked.items() if side == "in")
    lines = (f"{len(found)} tokenizers ({', '.join(f'{n}: {v.size:,} tokens' for n, v, _ in found)}) read text of "
             f"{', '.join(dict.fromkeys(c.language for c in texts))}",)  # fmt: skip
    return Plan(lines, PEAK, 1 << 20, bytes_read + characters, (characters / SPEED + 3) * len(found))


def _documents(corpus: Corpus, characters: int) -> Iterable[str]:
    return sample(corpus.documents(), characters)


def run(config: Tokenizers, context: Context, folder: Path) -> Result:
    """Read the text with every tokenizer; all figures are in the result's data."""
    named = opened(config, context)
    parallel = corpora(config.parallel, config.field, context)
    texts: dict[str, Texts] = {language: partial(_documents, c, config.sample)
                               for language, c in corpora(config.corpus, config.field, context).items()}  # fmt: skip
    aligned: dict[str, Texts] = {language: partial(c.documents, aligned=True) for language, c in parallel.items()}
    found = study(named, texts or aligned, context.progress)
    paired = [_parity(config, s, aligned, same=not texts) for s in found] if aligned else []
    first = {language: next(iter(opened_text())) for language, opened_text in (texts or aligned).items()}
    made = (tables.per_token(found), tables.words(found), tables.changes(found), tables.use(found),
            tables.parities(paired) if paired else None, tables.vocabularies(found), *map(tables.suspects, found))  # fmt: skip
    return Result(
        "analyze.tokenizer", "", f"Tokenizers over text: {', '.join(s.name for s in found)}", summary(found, paired),
        tables=tuple(t for t in made if t is not None), curves=tables.curves(found), samples=tables.samples(found, first),
        inputs=_inputs(config, context), caveats=caveats(found), data=tables.as_data(found, paired),
    )  # fmt: skip


def _inputs(config: Tokenizers, context: Context) -> tuple[InputRef, ...]:
    texts = chain(corpora(config.corpus, config.field, context).values(), corpora(config.parallel, config.field, context).values())
    return (*(context.model(m).ref(m) for m in config.models), *(InputRef(t, str(t)) for t in config.tokenizers),
            *(InputRef(c.language, str(c.path), digest=c.digest) for c in texts))  # fmt: skip


def _parity(config: Tokenizers, studied: Studied, aligned: Mapping[str, Texts], same: bool) -> Parity:
    counted = studied.counted if same else {x: studied.reader.count(t(), words=False) for x, t in aligned.items()}
    try:
        return parity(studied.name, counted, config.reference)
    except ValueError as e:
        raise InputError("the files are not parallel", where="parallel", found=str(e), expected="as many lines in every language",
                         fix="give files whose line i says the same in each") from None


# ------------------------------------------------------------------------------------------------------------------ words


def summary(found: list[Studied], parallel: list[Parity]) -> tuple[str, ...]:
    """What the tables say, in sentences."""
    said = [_rates(found[0])] if len(found) == 1 else []
    for other in found[1:]:
        said += _gained(found[0], other)
        if len(other.added):
            said.append(f"{other.name}: {other.emitted:,} of {len(other.added):,} added tokens came in the text "
                        f"({100 * other.emitted / len(other.added):.0f} %).")
    for p in parallel:
        dear = max(p.premiums, key=lambda x: p.premiums[x].value)
        said.append(f"{p.tokenizer}: the same sentences cost {p.premiums[dear].value:.1f} times the tokens of "
                    f"{languages.name(p.reference)} in {languages.name(dear)}; Gini {p.gini.value:.2f}.")
    return (*said, *(x for s in found for x in faults(s)))


def _rates(s: Studied) -> str:
    """Characters per token of one tokenizer; of many languages, the ends."""
    rates = sorted(((e[PER_TOKEN.name].value, languages.name(x)) for x, e in s.estimates.items()), reverse=True)
    words = [f"{name} {rate:.2f}" for rate, name in rates]
    return f"Characters per token: {', '.join(words if len(words) <= TOLD else (*words[:3], '...', *words[-3:]))}."


def _gained(first: Studied, other: Studied) -> list[str]:
    """How much more text a token holds, by language; of many languages, those with the most and the least."""
    found = sorted(gains(first, other).items(), key=lambda item: -item[1].value)
    said = []
    for language, g in found if len(found) <= TOLD else (found[0], found[-1]):
        old, new = (s.estimates[language][PER_TOKEN.name].value for s in (first, other))
        name = languages.name(language)
        if not g.value:
            said.append(f"{name}: {new:.2f} characters a token in both.")
        else:
            said.append(f"{name}: {other.name} puts {new:.2f} characters into a token, {first.name} {old:.2f} ({g.value:+.0f} %, "
                        f"{g.low:+.0f} to {g.high:+.0f}).")
    if len(found) > TOLD:
        said.append(f"Of {len(found)} languages, these two gain the most and the least.")
    return said


def faults(s: Studied) -> list[str]:
    """What is wrong with a vocabulary, or worth knowing before another takes its place."""
    said = [f"{s.name} cuts numbers so: {s.digits.words}."]
    if s.unreachable:
        said.append(f"{s.name}: {len(s.unreachable):,} tokens that no text brings about, such as "
                    f"{', '.join(tables.token_text(s, i) for i in list(s.unreachable)[:3])}.")
    if s.parted_control:
        said.append(f"{s.name}: control tokens that are not read as one id: {', '.join(s.parted_control[:5])}.")
    if s.rows is not None and s.rows.suspects is not None:
        n, new = len(s.rows.suspects), int(np.isin(s.rows.suspects, s.added).sum())
        of = f", {new:,} of them added ones ({len(s.added):,} were added)" if len(s.added) else ""
        said.append(f"{s.name}: {n:,} tokens have rows like untrained ones{of}." if n else
                    f"{s.name}: no token's row is like the untrained ones.")
    return said


def caveats(found: list[Studied]) -> tuple[str, ...]:
    """What the figures cannot tell."""
    said = ["No figure of a tokenizer predicts how good a model becomes with it: compare bits per byte and tasks."]
    bare = [languages.name(x) for x, c in found[0].counted.items() if c.words is None]
    if bare:
        said.append(f"No figures per word for {', '.join(bare)}: written without spaces, so that words are a segmenter's choice.")
    if "vi" in found[0].counted:
        said.append("In Vietnamese spaces part syllables: its figures per word are figures per syllable.")
    for s in found:
        if s.rows is not None and s.rows.suspects is None:
            said.append(f"{s.name}: {len(s.rows.unused) or 'no'} rows are known to be unused, too few to tell others from them.")
    return tuple(said)


STEPS = (Step("analyze.tokenizer", 1, Tokenizers, plan, run),)
