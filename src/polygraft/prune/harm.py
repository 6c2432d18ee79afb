"""What every language lost: bits per byte of held-out text before and after, over the same documents, with paired intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import log
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from pydantic import Field, model_validator

from polygraft import stats
from polygraft.config import Unfit
from polygraft.data import open_corpus
from polygraft.errors import InputError, UserError
from polygraft.prune.config import Calibrating
from polygraft.result import Estimate, Table
from polygraft.step import Context, DataRef, Language

if TYPE_CHECKING:
    from polygraft.sources import Source

LONGEST = 4000  # characters of a document that are read
READ = 1000  # tokens of a document, about: for plans


class Spent(Protocol):
    """What one document cost: nats, and the UTF-8 bytes that these were spent on."""

    @property
    def nats(self) -> float: ...
    @property
    def bytes(self) -> int: ...


@dataclass(frozen=True)
class Judge:
    """Whoever can evaluate. load(source, dtype, device) -> a model in memory; nats(live, texts) -> what each text cost."""

    load: Callable[[Any, str, str], Any]
    nats: Callable[[Any, Sequence[str]], Sequence[Spent]]


class Held(Protocol):
    """A config that names text which is held out."""

    @property
    def evaluate(self) -> Mapping[str, str]: ...
    @property
    def documents(self) -> int: ...
    @property
    def field(self) -> str: ...


class WithText(Calibrating):
    """A model that must be read with text."""

    @model_validator(mode="after")
    def _corpus(self) -> Self:
        if not self.corpus:
            raise Unfit("give a corpus for each language (--corpus sw=PATH)", found="no corpus")
        return self


class Evaluated(WithText):
    """Text that is held out, to see what every language loses."""

    evaluate: dict[Language, DataRef] = Field(
        default_factory=dict, description="held-out text by language, read before and after: what each language loses",
        json_schema_extra={"metavar": "LANG=PATH"},
    )
    documents: int = Field(64, ge=2, description="documents of each language that are evaluated")


Bits = dict[str, np.ndarray]  # language -> float64 [documents, 2]: nats, bytes


def texts(config: Held, context: Context) -> dict[str, list[str]]:
    """The first documents of every held-out corpus. Raises InputError where there are fewer than two."""
    found = {}
    for language, ref in config.evaluate.items():
        corpus = open_corpus(language, context.data(ref), config.field)
        found[language] = [text[:LONGEST] for text in islice(corpus.documents(), config.documents)]
        if len(found[language]) < 2:
            raise InputError("too few documents for an interval", where=corpus.path, found=len(found[language]),
                             expected="at least 2")
    return found


def faults(config: Held, context: Context) -> tuple[UserError, ...]:
    """What is wrong with the held-out corpora, told before a model is loaded."""
    try:
        texts(config, context)
    except UserError as e:
        return (e,)
    return ()


def bits(judge: Judge, live: Any, held: Mapping[str, Sequence[str]]) -> Bits:
    """What every document cost a model."""
    return {g: np.array([(s.nats, s.bytes) for s in judge.nats(live, some)], np.float64) for g, some in held.items()}


def of_source(judge: Judge, source: Source, held: Mapping[str, Sequence[str]], dtype: str, device: str) -> Bits:
    """The same of a model that is loaded for it, and forgotten."""
    return bits(judge, judge.load(source, dtype, device), held) if held else {}


def value(read: np.ndarray) -> float:
    """Bits per byte of documents: all nats over all bytes."""
    return float(read[:, 0].sum() / (log(2) * read[:, 1].sum()))


def change(before: np.ndarray, after: np.ndarray, seed: int = 0) -> Estimate:
    """Bits per byte after minus before, a 95 % interval by paired bootstrap over documents. More is worse."""
    draws = list(stats.resampled([np.hstack([before, after[:, :1]])], seed=seed))
    sums = np.concatenate([d[0] for d in draws])
    differences = stats.paired(sums[:, 0], sums[:, 2]) / (log(2) * sums[:, 1])
    found = stats.summarise(value(after) - value(before), differences, len(before))
    return Estimate(found.value, found.low, found.high, len(before), "bits/byte",
                    stats.verdict(found.value, found.p, higher_is_better=False))  # fmt: skip


def table(before: Bits, after: Mapping[str, Bits], title: str = "What every language lost") -> Table:
    """Languages down; `after` by the name of what was done: bits per byte and their change from `before`."""
    columns = ("language", "documents", "before", *(w for name in after for w in (name, f"{name}: change")))
    rows = []
    for g, b in before.items():
        cells = [(round(value(read[g]), 4), change(b, read[g])) for read in after.values()]
        rows.append((g, len(b), round(value(b), 4), *(c for pair in cells for c in pair)))
    return Table(title, columns, tuple(rows), "bits per byte of held-out text, lower is better; compare within a language only")


def said(before: Bits, after: Bits) -> tuple[str, ...]:
    """One sentence on what every language lost, and which of them most, as far as the documents tell."""
    if not before:
        return ("What each language lost was not measured: give held-out text with --evaluate LANG=PATH.",)
    found = {g: change(b, after[g]) for g, b in before.items()}
    all_of = ", ".join(f"{g} {e.value:+.3f}" for g, e in found.items())
    losers = [g for g, e in found.items() if e.verdict == "worse"]
    most = max(losers, key=lambda g: found[g].value, default="")
    end = f"{most} loses most" if len(losers) > 1 else f"{most} loses" if most else "no language shows a loss"
    return (f"Bits per byte of held-out text change by {all_of}; {end} (95 % intervals over documents).",)


def data(before: Bits, after: Bits) -> dict[str, Any]:
    """For the result: before, after and change by language."""
    return {g: {"before": value(b), "after": value(after[g]), "documents": len(b)} for g, b in before.items()}
