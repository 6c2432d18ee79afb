"""What text an analysis reads and what it wants of it: the part of every analysis' config that is the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from polygraft import arrays
from polygraft.activity import Activity
from polygraft.config import Strict
from polygraft.errors import InputError, UserError
from polygraft.step import Context, DataRef, Detail, FolderRef, Language, ModelRef

READING = "activity"  # the folder of a reading below that of the analysis which made it


@dataclass(frozen=True)
class Wanted:
    """What is gathered beyond counts, sums and squares of every neuron: the arrays of `activity.NAMES` by family.

    `percentile`: the 90th of each window, off its histogram. `groups`: into how many groups documents are dealt, 0 for none.
    `norms` and `grams` name roles: qkv, o, ffn, down.
    """

    histogram: bool = False
    percentile: bool = False
    groups: int = 0
    residual: bool = False
    attention: bool = False
    norms: tuple[str, ...] = ()
    grams: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.percentile:  # read off the histogram
            object.__setattr__(self, "histogram", True)

    @property
    def names(self) -> list[str]:
        """Names (of roles: their beginnings) of every array that this asks for."""
        found = ["positive", "sum", "square"]
        found += ["histogram"] if self.histogram else []
        found += ["window.percentile"] if self.percentile else []
        found += ["residual", "square.residual"] if self.residual else []
        found += ["attention", "attention.positive"] if self.attention else []
        if self.groups:
            found += ["group.tokens", "group.positive", "group.sum"]
            found += [f"group.{n}" for n in ("residual", "attention") if n in found]
        return found + [f"input.{r}." for r in self.norms] + [f"gram.{r}." for r in self.grams]


class Texts(Strict):
    """Text in several languages, read once by one model."""

    model: ModelRef = Field(description="the model that reads", json_schema_extra={"argument": True})
    corpus: dict[Language, DataRef] = Field(
        default_factory=dict, description="text by language; one document a line (.txt), object (.jsonl) or row (.parquet)",
        json_schema_extra={"metavar": "LANG=PATH"},
    )
    activity: FolderRef | None = Field(None, description="a reading made before: its step or folder, instead of corpora")
    field: str = Field("text", description="what holds the text in .jsonl and .parquet")
    tokens: int | None = Field(None, ge=1, description="tokens read of each language (default: as many as all of them have)")
    parallel: bool = Field(False, description="document i says the same in every language: the same documents are read of each")
    window: int | None = Field(None, ge=2, description="tokens seen together, BOS included (default: 512, or all it can)")
    seed: int = Field(0, ge=0, description="seed of everything that is drawn")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="numbers that the model computes with")
    device: Annotated[str, Detail] = Field("auto", description="cpu, cuda, or auto")
    batch: Annotated[int, Detail] = Field(8, ge=1, description="windows read together")
    blocks: Annotated[Literal["auto", "yes", "no"], Detail] = Field(
        "auto", description="one layer in memory at a time; auto: where the model does not fit"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.corpus) == (self.activity is not None):
            raise ValueError("give either corpora (corpus: {sw: PATH, ...}) or a reading made before (activity: FOLDER)")
        return self


def open_activity(config: Texts, wanted: Wanted, context: Context, folder: Path) -> Activity:
    """The reading that `config` names, or a new one in `folder / "activity"`.

    Raises InputError where the reading named lacks something of `wanted`, or is another model's.
    """
    if config.activity is None:
        from polygraft.analysis.reading.passing import read

        return read(config, wanted, context, folder / READING)
    found = reading_at(context.folder(config.activity))
    check(found, config, wanted, context)
    return found


def reading_at(path: Path) -> Activity:
    """The reading in a folder, or below that of the step which made it. Raises InputError."""
    return Activity.open(path / READING if (path / READING).is_dir() else path)


def named(config: Texts, context: Context) -> Activity | None:
    """The reading that `config` names; None where it names none, or while planning where none can be opened yet."""
    if config.activity is None:
        return None
    try:
        return reading_at(context.folder(config.activity))
    except InputError:
        if context.planning:  # made later, or told by `planned`
            return None
        raise


def languages_of(config: Texts, context: Context) -> tuple[tuple[str, ...], object]:
    """The languages that are read and what names them; none of a reading that is not made yet."""
    if config.activity is None:
        return tuple(config.corpus), "corpus"
    found = named(config, context)
    return (tuple(found.languages), found.folder) if found else ((), "activity")


def several(languages: tuple[str, ...], where: object) -> None:
    """Raise InputError for one language alone: nothing shows what is its own."""
    if len(languages) < 2:
        raise InputError("languages are told apart beside one another only", where=where, found=", ".join(languages) or "none",
                         expected="two languages or more", fix="read text in more languages: --corpus L=PATH for each")


def refused(config: Texts, context: Context, check: Callable[[tuple[str, ...]], None] = lambda _: None) -> list[UserError]:
    """What is wrong with the languages to be read, told before any text is; `check` raises what else an analysis asks of them."""
    languages, where = languages_of(config, context)
    try:
        if languages:
            several(languages, where)
            check(languages)
    except UserError as e:
        return [e]
    return []


def short(identity: str) -> str:
    """An identity with its digests cut to what a person compares."""
    return re.sub(r"[0-9a-f]{40,}", lambda m: m[0][:12], identity)[:160]


def check(found: Activity, config: Texts, wanted: Wanted, context: Context) -> None:
    """Raise InputError where a reading is another model's or lacks something of `wanted`; reads headers only."""
    identity = context.model(config.model).identity
    if found.identity and found.identity != identity:
        raise InputError("the reading is another model's", where=found.folder,
                         found=f"that of {found.model or 'a model'} ({short(found.identity)})",
                         expected=f"one of {config.model} ({short(identity)})",
                         fix="read the text with this model: leave out `activity` and give corpora")
    for language in found.languages:
        names = tuple(arrays.Arrays(found.path(language)))
        lacking = [n.rstrip(".") for n in wanted.names if not any(m == n or (n[-1] == "." and m.startswith(n)) for m in names)]
        if lacking:
            raise InputError("the reading lacks what this analysis needs", where=found.path(language),
                             found=f"no {', '.join(lacking)}", fix="leave out `activity` and give corpora, or read them again")
