"""The pass: every language's text through the model once, with everything that was asked for gathered on the way.

Only the model's body runs, without its head. What was read is written every half minute, so that a reading that was cut goes on
from there and ends in the same bytes; several processes (torchrun) share the batches of a language by their index.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraft import arrays, edits, files
from polygraft.activity import Activity
from polygraft.analysis.reading import bins, shapes
from polygraft.analysis.reading.collect import Collector, completed
from polygraft.analysis.reading.config import Texts, Wanted
from polygraft.data import Corpus, open_corpus
from polygraft.errors import InputError, StepFailed
from polygraft.ranks import Ranks
from polygraft.step import Context
from polygraft.taps import Taps
from polygraft.windows import Batch, Stream, batch_at, budgeted, check_window, cuts, tokenized

if TYPE_CHECKING:
    from polygraft.anatomy import Anatomy
    from polygraft.blocks import Blocks
    from polygraft.model import Live

WINDOW, STATES = 512, "states"
EVERY = 30.0  # seconds between writings of what was gathered so far
Progress = Callable[..., None]


def _quiet(done: float, total: float, text: str = "") -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class How:
    """How texts are read: `window` tokens at a time, `rows` windows together; `every` seconds what was gathered is written."""

    window: int = WINDOW
    rows: int = 8
    parallel: bool = False
    identity: str = ""
    every: float = EVERY
    ranks: Ranks = field(default_factory=Ranks)
    model: str = ""  # how `identity` was named


def gather(model: Live | Blocks, streams: Mapping[str, Stream], wanted: Wanted, folder: Path, progress: Progress = _quiet,
           how: How = How()) -> Activity:  # fmt: skip
    """Read every stream and write the reading to `folder`; languages that lie there complete are not read again.

    Raises StepFailed where a value is not finite or a layer was not passed by every token, InputError for a window that the model
    cannot see.
    """
    live: Live = getattr(model, "live", model)  # type: ignore[arg-type]
    check_window(live.anatomy, how.window)
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".*.tmp"):  # of a writing that was killed
        left.unlink(missing_ok=True)
    done, total, about = 0, sum(s.tokens for s in streams.values()), dict[str, dict[str, Any]]()
    for language, stream in streams.items():

        def told(tokens: int, language: str = language, before: int = done) -> None:
            progress(before + tokens, total, f"reading {language}")

        _language(model, live, stream, wanted, folder, told, how)
        done += stream.tokens
        about[language] = {"tokens": stream.tokens, "documents": stream.documents, "groups": wanted.groups, "digest": stream.digest,
                           "path": stream.path, "characters": int(stream.characters.sum()),
                           "sha256": files.sha256_file(folder / f"activity.{language}.safetensors")}  # fmt: skip
    anatomy = live.anatomy
    found = Activity(folder, about, anatomy.layers, edits.sizes(anatomy), anatomy.sizes.hidden, shapes.experts(anatomy),
                     tuple(map(float, bins.edges())) if wanted.histogram else (), how.identity, how.parallel, how.window,
                     how.model)
    found.save()
    return found


# --------------------------------------------------------------------------------------------------------------- a language


@dataclass(frozen=True)
class Todo:
    """What this process has to read of a language: batches by number, each made when it is asked for."""

    stream: Stream
    cuts: list[tuple[int, tuple[int, int, int]]]

    def __getitem__(self, i: int) -> Batch:
        return batch_at(self.stream, *self.cuts[i])

    def __iter__(self) -> Iterator[Batch]:
        return (self[i] for i in range(len(self.cuts)))


def _language(model: Any, live: Live, stream: Stream, wanted: Wanted, folder: Path, told: Callable[[int], None],
              how: How) -> None:  # fmt: skip
    out, key = folder / f"activity.{stream.language}.safetensors", _key(stream, wanted, how)
    if _complete(out, key, how.ranks):
        _share(out, key, live.anatomy, wanted, how.ranks)
        return
    collector = Collector(live.anatomy, wanted, _place(live), stream.language)
    shard = Shard(folder / f".reading.{stream.language}.safetensors", key, how)
    read = shard.load(collector)
    groups = stream.groups(wanted.groups) if wanted.groups else np.zeros(stream.documents, np.int64)
    parts = cuts(stream, how.window, how.rows)
    todo = Todo(stream, [(i, part) for i, part in how.ranks.mine(enumerate(parts)) if i >= read.next])
    if hasattr(model, "feed"):
        tokens = _by_blocks(model, collector, todo, groups, wanted, told)
    else:
        tokens = _in_memory(live, collector, todo, groups, wanted, shard, read, told)
    collector.check()
    _counted(tokens, stream, how.ranks)
    found = how.ranks.total(collector.arrays())
    arrays.write(out, completed(found, stream.tokens, live.anatomy), {"key": key})
    shard.path.unlink(missing_ok=True)


def _in_memory(live: Live, collector: Collector, todo: Todo, groups: np.ndarray, wanted: Wanted, shard: Shard,
               read: Read, told: Callable[[int], None]) -> int:  # fmt: skip
    """The tokens that this process has counted, those of an earlier attempt included."""
    import torch

    tokens, body = read.tokens, live.model.base_model
    with torch.inference_mode(), Taps(live.model, live.anatomy, collector, points=shapes.points(wanted)):
        for batch in todo:
            collector.begin(batch, groups)
            body(input_ids=torch.from_numpy(batch.ids).to(collector.device), use_cache=False)
            collector.count()
            tokens += batch.tokens
            told(tokens)
            shard.due(collector, Read(batch.index + 1, tokens))
    return tokens


def _by_blocks(blocks: Blocks, collector: Collector, todo: Todo, groups: np.ndarray, wanted: Wanted,
               told: Callable[[int], None]) -> int:  # fmt: skip
    """Every batch through one layer after another. A cut reading begins the language again: hidden states are not kept."""
    import torch

    live = blocks.live
    blocks.feed({"input_ids": torch.from_numpy(b.ids)} for b in todo)
    tokens = sum(n * width for _, (_, n, width) in todo.cuts)
    for block in blocks:
        with Taps(live.model, live.anatomy, collector, points=shapes.points(wanted), layers=[block.layer]):
            block.run(before=lambda i, _: collector.begin(todo[i], groups))
        told(tokens * (block.layer + 1) // live.anatomy.layers)
    for batch in todo:
        collector.begin(batch, groups)
        collector.count()
    return tokens


def _counted(tokens: int, stream: Stream, ranks: Ranks) -> None:
    if (found := int(ranks.sum(np.array([tokens]))[0])) != stream.tokens:
        raise StepFailed("another number of tokens was read than the text has", where=stream.language, found=f"{found:,}",
                         expected=f"{stream.tokens:,}")  # fmt: skip


def _place(live: Live) -> str:
    device = live.device
    return device if device.startswith(("cpu", "cuda")) else "cuda"


# ------------------------------------------------------------------------------------------------------- stopping and going on


@dataclass(frozen=True)
class Read:
    """How far a language was read: the batch that comes next, and the tokens counted."""

    next: int = 0
    tokens: int = 0


@dataclass
class Shard:
    """Running totals of one language in a file, as exact as in memory. Several processes begin a language again instead."""

    path: Path
    key: str
    how: How
    _last: float = field(default_factory=time.monotonic)

    def load(self, collector: Collector) -> Read:
        """Put into the collector what an interrupted reading of the same text left, and tell how far it came."""
        if self.how.ranks.size > 1 or not self.path.exists():
            return Read()
        try:
            found = arrays.Arrays(self.path)
            if found.metadata.get("key") != self.key:
                return Read()
            read = Read(int(found.metadata["next"]), int(found.metadata["tokens"]))
            collector.load(found)
        except (InputError, KeyError, ValueError):  # half a file of another program: read again from the start
            return Read()
        return read

    def due(self, collector: Collector, read: Read) -> None:
        """Write the totals if the last writing is long enough ago."""
        if self.how.ranks.size == 1 and time.monotonic() - self._last >= self.how.every:
            collector.check()
            about = {"key": self.key, "next": str(read.next), "tokens": str(read.tokens)}
            arrays.write(self.path, collector.arrays(), about)
            self._last = time.monotonic()


def _key(stream: Stream, wanted: Wanted, how: How) -> str:
    """All that decides the arrays of a language."""
    text = hashlib.sha256(np.ascontiguousarray(stream.ids).data)
    text.update(np.ascontiguousarray(stream.starts).data)
    return files.digest([how.identity, text.hexdigest(), stream.bos, asdict(wanted), how.window, how.rows, how.ranks.size])


def _complete(out: Path, key: str, ranks: Ranks) -> bool:
    """Whether process 0 has the language already: the folders of the others are new each time."""
    return bool(ranks.sum(np.array([int(ranks.rank == 0 and _key_of(out) == key)]))[0])


def _key_of(path: Path) -> str | None:
    """The key that a file of arrays was written under; None where there is no whole file."""
    try:
        return arrays.Arrays(path).metadata.get("key") if path.exists() else None
    except InputError:
        return None


def _share(out: Path, key: str, anatomy: Anatomy, wanted: Wanted, ranks: Ranks) -> None:
    """Give the other processes the arrays that process 0 has."""
    if ranks.size == 1:
        return
    nothing = {n: np.zeros(s, k) for n, (k, s) in shapes.shapes(anatomy, wanted).items()}
    found = ranks.total(nothing if ranks.rank else arrays.Arrays(out))
    if ranks.rank:
        arrays.write(out, found, {"key": key})


# ------------------------------------------------------------------------------------------------------------- from a config


def read(config: Texts, wanted: Wanted, context: Context, folder: Path) -> Activity:
    """The corpora of a config, read by its model. Raises InputError for a model without a tokenizer, or unfit texts."""
    from polygraft import ranks
    from polygraft.model import device_for

    corpora = opened(config, context)
    device = ranks.device(device_for(config.device))
    with ranks.joined(device) as here, _model(config, context, device, folder) as model:
        live: Live = getattr(model, "live", model)
        if live.tokenizer is None:
            raise InputError("the model has no tokenizer", where=config.model, fix="give a folder that has one")
        streams, _ = streams_of(corpora, live.tokenizer, config)
        window = window_of(config, live.anatomy)
        identity = context.model(config.model).identity
        how = How(window, config.batch, config.parallel, identity, ranks=here, model=config.model)
        found = gather(model, streams, wanted, folder, context.progress, how)
    with contextlib.suppress(OSError):
        (folder / STATES).rmdir()  # hidden states of a model run block by block lay there
    return found


def window_of(config: Texts, anatomy: Anatomy) -> int:
    """Tokens seen together: as asked, else 512 or as many as the model can."""
    return config.window or min(WINDOW, anatomy.context or WINDOW)


def opened(config: Texts, context: Context) -> list[Corpus]:
    """The corpora of a config in their order; nothing of them is read."""
    return [open_corpus(language, context.data(ref), config.field) for language, ref in config.corpus.items()]


def streams_of(corpora: Iterable[Corpus], tokenizer: Any, config: Texts) -> tuple[dict[str, Stream], list[str]]:
    """The tokens that are read of each corpus, and what must be said of them."""
    most = None if config.parallel else config.tokens
    every = {c.language: tokenized(c, tokenizer, most=most, aligned=config.parallel) for c in corpora}
    return budgeted(every, tokens=config.tokens, parallel=config.parallel)


def _model(config: Texts, context: Context, device: str, folder: Path) -> Any:
    """The model in memory, or block by block; to be used in a `with`."""
    from polygraft.blocks import Blocks, fits
    from polygraft.model import dtype_for, load

    source, (dtype, _) = context.model(config.model), dtype_for(device, config.dtype)
    if config.blocks == "yes" or (config.blocks == "auto" and not fits(source.weights, dtype, device)):
        return Blocks.open(source, dtype=dtype, device=device, spill=folder / STATES, offline=context.offline)
    return contextlib.nullcontext(load(source, dtype=dtype, device=device, offline=context.offline))
