"""`vocab gate`: may the adapted model take the place of the one that it was made from? What must hold, and which of it does not.

Copies as DaruCopy asks for them (arXiv 2412.21140, section 2.3) show a vocabulary that the model cannot write; bits per byte one
that it cannot read; files and template what would fail elsewhere. Every comparison is with the start, on the same texts.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from polygraft import data, files
from polygraft.anatomy import Anatomy
from polygraft.config import Strict
from polygraft.errors import InputError
from polygraft.result import InputRef, Result
from polygraft.step import Context, DataRef, Detail, Language, ModelRef, Plan, Step
from polygraft.tokenfile import FILE, Vocabulary
from polygraft.vocab import copytasks, tables
from polygraft.vocab.gatewords import judged, told
from polygraft.vocab.tokenizer import checks

if TYPE_CHECKING:
    from polygraft.sources import Source
    from polygraft.vocab.around import Answer, Around, Copy, Copying, Scored

KINDS: tuple[Copying, ...] = ("sentence", "paragraph")
PIECE = 2000  # characters of a text that count as one document: an interval needs several
BEGINNING, GOES_ON = 300, 64  # characters of a text that is continued, and tokens that are written then


class Gate(Strict):
    """Compare an adapted model with its start, and fail (exit 6, when all is written) where it lost what it must keep."""

    model: ModelRef = Field(description="the adapted model", json_schema_extra={"argument": True})
    start: ModelRef = Field(description="the instruct model that it was made from")
    corpus: dict[Language, DataRef] = Field(
        min_length=1, description="held-out text by language, that neither model was trained on: .txt, .jsonl or .parquet",
        json_schema_extra={"metavar": "LANG=PATH"})
    sentences: int = Field(50, ge=1, description="sentences to copy, of each language")
    paragraphs: int = Field(20, ge=0, description="paragraphs to copy, of each language")
    max_bytes: int = Field(100_000, ge=1, description="read each text until so many bytes")
    chat: bool = Field(True, description="ask for copies through the chat template")
    copy_drop: float = Field(0.05, ge=0, le=1, description="a copy score (a share of 1) may be this much below the start's")
    bits_rise: float = Field(0.02, ge=0, description="bits per byte may be this much above the start's")
    seed: int = Field(0, ge=0, description="which texts are taken")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="type to compute in")
    device: Annotated[str, Detail] = Field("auto", description="cpu, cuda ...; auto: a GPU where there is one")


@dataclass(frozen=True)
class Texts:
    """What is asked in one language: texts to copy by kind, pieces to read, beginnings to go on from."""

    copies: Mapping[Copying, Sequence[str]]
    read: Sequence[str]

    @property
    def beginnings(self) -> list[str]:
        return [t[:BEGINNING] for t in self.read[: len(self.copies["sentence"])]]


@dataclass(frozen=True)
class Heard:
    """What one model made of them, by language, and the seconds that its copies took. `broken`: why it could not be asked, ""
    where it could."""

    copies: Mapping[str, Mapping[Copying, Sequence[Copy]]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    read: Mapping[str, Sequence[Scored]] = field(default_factory=dict)
    wrote: Mapping[str, Sequence[Answer]] = field(default_factory=dict)
    broken: str = ""


def texts(config: Gate, context: Context) -> dict[str, Texts]:
    """The texts of every language. Raises InputError for one without a sentence to copy."""
    found = {}
    nothing = copytasks.Overlap([])
    wanted: dict[Copying, int] = {"sentence": config.sentences, "paragraph": config.paragraphs}
    for language, ref in config.corpus.items():
        path = context.data(ref)
        read = pieces(data.open_corpus(language, path), config.max_bytes)
        copies = {kind: copytasks.tasks(read, kind, n, nothing, config.seed)[0] for kind, n in wanted.items()}
        if not copies["sentence"]:
            raise InputError("no sentence to copy", where=path, found=f"{config.max_bytes:,} bytes of it",
                             expected="prose of 40 characters or more in a line", fix="raise `max_bytes`, or name another text")
        found[language] = Texts(copies, read)
    return found


def pieces(corpus: data.Corpus, most: int) -> list[str]:
    """The first `most` bytes of a corpus: its documents, long ones cut at line breaks."""
    out, size = list[str](), 0
    for text in corpus.documents():
        part = ""
        for line in text.splitlines(keepends=True):
            if part and len(part) + len(line) > PIECE:
                out.append(part)
                part = ""
            size += len(line.encode())
            part += line
            if size >= most:
                break
        out += [part] if part.strip() else []
        if size >= most:
            break
    return [t for t in out if t.strip()]


def ask(source: Source, asked: Mapping[str, Texts], config: Gate, around: Around, tell: Any) -> Heard:
    """Load a model and ask it everything; a model whose numbers are none is told of, not raised."""
    live = around.load(source, config.dtype, config.device)
    copies: dict[str, dict[Copying, Sequence[Copy]]] = {}
    read, wrote, seconds = dict[str, "Sequence[Scored]"](), dict[str, "Sequence[Answer]"](), dict[str, float]()
    try:
        for n, (language, some) in enumerate(asked.items()):
            tell(3 * n, 3 * len(asked), f"{language}: bits per byte")
            read[language] = around.nats(live, some.read)
            tell(3 * n + 1, 3 * len(asked), f"{language}: copies")
            begun = time.monotonic()
            copies[language] = {kind: around.copies(live, language, kind, t, config.chat) for kind, t in some.copies.items() if t}
            seconds[language] = time.monotonic() - begun
            tell(3 * n + 2, 3 * len(asked), f"{language}: free text")
            wrote[language] = around.answers(live, some.beginnings, GOES_ON, False)
    except InputError as e:
        if "not numbers" not in e.what:
            raise
        return Heard(broken=f"{e.what}: {e.found}")
    finally:
        del live
        gc.collect()
    return Heard(copies, seconds, read, wrote)


def home(source: Source) -> Path:
    """The folder with a model's tokenizer: an adapter's own, where it brings one, else that of its base."""
    return source.path if source.base is None or (source.path / FILE).is_file() else source.base.path


def plan(config: Gate, context: Context) -> Plan:
    asked = texts(config, context)
    sizes = []
    for ref in (config.model, config.start):
        weights = context.model(ref).weights
        sizes.append(sum(t.nbytes for t in weights.tensors.values()))
    counts = ", ".join(f"{language}: {sum(map(len, t.copies.values()))} copies, {len(t.read)} texts to read"
                       for language, t in asked.items())
    return Plan((f"two models are asked the same: {counts}",), peak_bytes=3 * max(sizes), read_bytes=sum(sizes))


def run(config: Gate, context: Context, folder: Path, around: Around) -> Result:
    """Ask both models, check the files, judge. Writes what was copied to `copies.jsonl`."""
    asked = texts(config, context)
    model, start = context.model(config.model), context.model(config.start)
    heard = {name: ask(source, asked, config, around, context.progress) for name, source in (("start", start), ("model", model))}
    if heard["start"].broken:
        raise InputError("the start cannot be asked", where=config.start, found=heard["start"].broken,
                         fix="name the instruct model that was adapted")
    found = checks.loadable(home(model), before=home(start))
    verdict = judged(heard["start"], heard["model"], found, config.copy_drop, config.bits_rise)
    new, old = Vocabulary.open(home(model)), Vocabulary.open(home(start))
    weights = model.weights
    held = tables.tables(weights, Anatomy.of(weights.config, weights.tensors, where=config.model))
    files.write_atomic(folder / "copies.jsonl", _lines(asked, heard))
    inputs = (model.ref("model"), start.ref("start"),
              *(InputRef("data", ref, digest=files.sha256_file(context.data(ref))) for ref in config.corpus.values()))
    return told(context.step_id, config.model, asked, heard, found, verdict, (new, old, held), inputs)


def _lines(asked: Mapping[str, Texts], heard: Mapping[str, Heard]) -> bytes:
    rows = [{"language": language, "kind": kind, "text": text,
             **{name: {"text": h.copies[language][kind][i].text, **h.copies[language][kind][i].scores}
                for name, h in heard.items() if not h.broken}}
            for language, t in asked.items() for kind, some in t.copies.items() for i, text in enumerate(some)]
    return b"".join(files.canonical(row) + b"\n" for row in rows)


def gate_step(around: Around) -> Step:
    return Step("vocab.gate", 1, Gate, plan, partial(run, around=around))
