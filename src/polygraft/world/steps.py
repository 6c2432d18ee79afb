"""`world`: make a small world of artificial languages, the texts and tasks in them, and a random model to train."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from polygraft import selectionfile
from polygraft.config import Strict
from polygraft.files import digest, list_files, sha256_file
from polygraft.result import Result, Table
from polygraft.selectionfile import WITHIN, Entry
from polygraft.step import Context, Plan, Step
from polygraft.world import files, meaning, model
from polygraft.world.grammar import TAGS, Language, languages

WORD = 9  # bytes of a word and its space, about


class World(Strict):
    """Make a small world where the truth is known: languages with shared meanings, texts and tasks in them, a model to train.

    Languages share no word and no script. What is told, asked and parallel is drawn once for all of them, from a seed.
    """

    seed: int = Field(0, ge=0, description="seed of everything: words, facts, texts, questions, the model's first weights")
    languages: int = Field(2, ge=2, le=len(TAGS), description=f"how many: {', '.join(TAGS)} (SVO, SOV and VSO)")
    numbers: Literal["digits", "words"] = Field("digits", description="numbers are digits everywhere, or words of each language")
    documents: int = Field(12_000, ge=10, description="documents of the text that the model learns first")
    shares: tuple[float, ...] = Field((0.6, 0.4, 0.3), description="how these are dealt to the languages; scaled to 1")
    translation: float = Field(0.3, ge=0, lt=1, description="share of them that are sentences with their translations")
    noted: float = Field(0.5, ge=0, le=1, description="share of documents in which what counts is noted too, alike everywhere")
    language: int = Field(3_000, ge=1, description="further documents of each language, for a language expert")
    stories: int = Field(2_000, ge=2, description="sums told as stories to train on, in every language")
    items: int = Field(200, ge=4, description="questions of a task in each language")
    parallel: int = Field(200, ge=1, description="documents told in all languages, to find things in; as many others to read")
    sentences: int = Field(8, ge=2, le=50, description="sentences of a document")
    layers: int = Field(8, ge=1, description="the model's layers")
    hidden: int = Field(128, ge=model.HEAD, multiple_of=model.HEAD, description="its width")
    ffn: int = Field(448, ge=8, description="neurons of a layer")
    window: int = Field(3, ge=1, description="layers in each of the random sets of layers that are written beside the model")
    windows: int = Field(5, ge=1, le=100, description="how many such sets")
    length: int = Field(256, ge=64, description="its longest text in tokens")

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if len(self.shares) < self.languages or min(self.shares) <= 0:
            raise ValueError(f"`shares` needs a number over 0 for each of {self.languages} languages, found {list(self.shares)}")
        return self

    @property
    def told(self) -> tuple[Language, ...]:
        return languages(self.languages, self.seed, self.numbers)

    @property
    def size(self) -> files.Sizes:
        some = self.shares[: self.languages]
        return files.Sizes(self.documents, tuple(s / sum(some) for s in some), self.translation, self.noted, self.language,
                           self.stories, self.items, self.parallel, self.sentences)


def plan(config: World, context: Context) -> Plan:
    for n, split in ((config.stories, "train"), (config.items, "test")):
        meaning.stories(n, config.seed, split)  # refuses more than there are
    count = model.parameters(layers=config.layers, hidden=config.hidden, ffn=config.ffn, vocabulary=len(meaning.CONCEPTS) * 5)
    several = config.documents + config.languages * (config.language + 2 * config.parallel)
    disk = 4 * count + several * config.sentences * 5 * WORD + config.languages * config.stories * 300
    lines = (f"{config.languages} languages, {config.documents:,} documents, {config.stories:,} stories, a model of about "
             f"{count / 1e6:.1f}M parameters",)  # fmt: skip
    return Plan(lines, peak_bytes=disk * 8 + (600 << 20), disk_bytes=disk, seconds=10)


def run(config: World, context: Context, folder: Path) -> Result:
    """Write texts, tasks and `folder/model`; the same config gives the same bytes, whose digest is in the result."""
    told = config.told
    context.progress(0, 3, "texts")
    found = files.contents(told, config.seed, config.size)
    files.write(folder, found, told)
    context.progress(1, 3, "model")
    texts = (row["text"] for rows in found.values() for row in rows if isinstance(row, dict) and "text" in row)
    count = model.write(folder / "model", texts, layers=config.layers, hidden=config.hidden, ffn=config.ffn, length=config.length,
                        seed=config.seed)
    sets = model.windows(config.layers, config.window, config.windows, config.seed)
    named = {name: [Entry(i, kind) for i in layers for kind in WITHIN] for name, layers in sets.items()}
    selectionfile.write(folder / "layers.json", named, {"method": "random layers", "seed": config.seed})
    context.progress(2, 3, "digest")
    made = {p.relative_to(folder).as_posix(): sha256_file(p) for p in list_files(folder)}
    data: dict[str, Any] = {"digest": digest(made), "parameters": count, "chance": files.CHANCE,
                            "layers": {name: list(layers) for name, layers in sets.items()}}  # fmt: skip
    return Result(
        step="world", id=context.step_id, title=f"A world of {len(told)} languages",
        summary=(f"{len(told)} languages that share no word, {len(meaning.facts(config.seed))} facts; in each language "
                 f"{config.stories:,} stories to train on and {config.items} others to be asked.",
                 f"The model has {count:,} random parameters. Digest of all of it: {data['digest'][:16]}."),
        tables=(spoken(told), written(folder, found)), data=data,
        caveats=("a made world shows what a method can do where nothing else is in the way, not what it does on a real language",),
    )  # fmt: skip


def spoken(told: tuple[Language, ...]) -> Table:
    """One story in every language."""
    story = meaning.Story(0, 0, 5, 2, "get")
    rows = tuple((x.tag, x.order, x.text(story.clauses()), x.words[f"number.{story.answer}"]) for x in told)
    return Table("One story", ("language", "order", "told", "answer"), rows)


def written(folder: Path, found: dict[str, Any]) -> Table:
    rows = tuple((name, len(rows), (folder / name).stat().st_size) for name, rows in found.items())
    return Table("Files", ("file", "lines", "bytes"), rows)


STEPS = (Step("world", 1, World, plan, run),)
