"""What a model is calibrated on: windows of text, so many of each language as its share asks for, and a record of what they were.

Documents of a language are packed into windows without padding, from which a seed draws. A language's draw depends on its own
corpus and the seed alone: adding another language, or reading more windows of it, leaves the draws of the others as they were.
Every window begins with BOS where the tokenizer has one; BOS is read and never counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from polygraft.anatomy import Anatomy
from polygraft.data import Corpus, open_corpus
from polygraft.errors import InputError, RecipeError, UserError
from polygraft.result import Table
from polygraft.step import Context
from polygraft.windows import Stream, bos_of, check_window, tokenized

if TYPE_CHECKING:
    import torch

    from polygraft.prune.config import Calibrating

POOL = 8  # windows that are read for each one that is drawn, where the corpus has them
BYTES_A_TOKEN = 3  # of text, about: 4 in English, 1.5 in scripts that a tokenizer does not know
LOOKED = 32  # windows of a language whose language is looked at
MOSTLY = 0.5  # share of them that should be in it
Spoken = Callable[[str, str], "bool | None"]  # (text, tag) -> whether it is in that language; None: cannot be said
Mixture = Literal["target", "english", "hybrid", "equal"]


# ---------------------------------------------------------------------------------------------------------------- mixtures


def mixture(name: Mixture, target: str, languages: Iterable[str] = ()) -> dict[str, float]:
    """Shares of the calibration texts that are compared: the target language alone, English alone, half of each, or all alike.

    For shares in proportion to a model's pre-training text (MBS, arXiv 2404.04748), give those as they are: they are scaled.
    """
    found = {"target": {target: 1.0}, "english": {"en": 1.0}, "hybrid": {target: 0.5, "en": 0.5},
             "equal": dict.fromkeys([*languages] or [target], 1.0)}[name]  # fmt: skip
    return {"en": 1.0} if name == "hybrid" and target == "en" else found


def quotas(shares: Mapping[str, float], samples: int) -> dict[str, int]:
    """Windows of each language: largest remainders of `share * samples`, and at least one of every language with a share, as MBS
    has it; ties to the language that is named first. Languages whose share is 0 are left out.

    Raises RecipeError where there are more languages than windows.
    """
    kept = {g: float(share) for g, share in shares.items() if share > 0}
    if not kept or samples < len(kept):
        raise RecipeError("fewer windows than languages", where="samples", found=f"{samples} for {len(kept)}",
                          fix="ask for more samples, or calibrate on fewer languages")  # fmt: skip
    ideal = {g: share / sum(kept.values()) * samples for g, share in kept.items()}
    found = {g: max(1, int(x)) for g, x in ideal.items()}
    while (off := samples - sum(found.values())) != 0:
        step = 1 if off > 0 else -1
        able = [g for g in found if step > 0 or found[g] > 1]
        found[max(able, key=lambda g: step * (ideal[g] - found[g]))] += step
    return found


def shares_of(config: Calibrating) -> dict[str, float]:
    """The share of every corpus, as asked for or equal."""
    return dict(config.calibrate) if config.calibrate else dict.fromkeys(config.corpus, 1.0)


# ----------------------------------------------------------------------------------------------------------------- windows


@dataclass(frozen=True)
class Drawn:
    """The windows of one language: `ids` int64 [windows, seq_len], the first `skip` columns (BOS) uncounted; `at`: which of the
    `pool` windows that were read; `corpus` they are from."""

    corpus: Corpus
    ids: np.ndarray
    skip: int
    at: np.ndarray
    pool: int

    @property
    def tokens(self) -> int:
        return int(self.ids.shape[0] * (self.ids.shape[1] - self.skip))


def drawn(corpus: Corpus, tokenizer: Any, windows: int, seq_len: int, seed: int) -> Drawn:
    """So many windows of a corpus, from the first `POOL` times as many. Raises InputError for a corpus that is too short."""
    width = seq_len - (bos_of(tokenizer) is not None)
    stream = tokenized(corpus, tokenizer, most=POOL * windows * width)
    pool = min(stream.tokens // width, POOL * windows)
    if pool < windows:
        raise InputError("the corpus is too short for its part of the calibration text", where=corpus.path,
                         found=f"{stream.tokens:,} tokens: {pool:,} windows of {seq_len:,}", expected=f"{windows:,} windows",
                         fix="fewer --samples, a shorter --seq-len, a smaller share, or more text")  # fmt: skip
    own = int.from_bytes(hashlib.sha256(corpus.language.encode()).digest()[:8], "little")
    order = np.argsort(np.random.default_rng([seed, own]).random(pool), kind="stable")
    at = np.sort(order[:windows])
    return Drawn(corpus, _rows(stream, at, width), int(stream.bos is not None), at, pool)


def _rows(stream: Stream, at: np.ndarray, width: int) -> np.ndarray:
    ids = stream.ids[: (int(at.max()) + 1) * width].reshape(-1, width)[at].astype(np.int64)
    return ids if stream.bos is None else np.concatenate([np.full((len(ids), 1), stream.bos, np.int64), ids], axis=1)


# ------------------------------------------------------------------------------------------------------------------- texts


@dataclass(frozen=True)
class Told:
    """What the windows of one language are: text per token, and of how many the language is as was said."""

    language: str
    path: str
    digest: str  # SHA-256 of the corpus as it lies on the disk
    windows: int
    share: float
    tokens: int
    pool: int
    characters_per_token: float
    bytes_per_token: float
    spoken: int  # windows in the language, of the `judged` ones whose language can be told
    judged: int


@dataclass(frozen=True)
class Calibration:
    """Text to read. `batches`: {"input_ids": int64 [rows, seq_len]}, each of one language, `of[i]`; `weighing[i]` float32 [rows,
    seq_len], 1 where a token counts; `told`: what it is; `notes`: what must be said of it; `digest` (SHA-256) of all ids."""

    batches: tuple[dict[str, torch.Tensor], ...]
    weighing: tuple[torch.Tensor, ...]
    of: tuple[str, ...]
    told: tuple[Told, ...]
    seed: int
    seq_len: int
    digest: str
    notes: tuple[str, ...] = ()

    @property
    def languages(self) -> tuple[str, ...]:
        return tuple(t.language for t in self.told)

    @property
    def provenance(self) -> dict[str, Any]:
        """For the manifest and the result: all that decides these windows."""
        return {"seed": self.seed, "seq_len": self.seq_len, "samples": sum(t.windows for t in self.told), "digest": self.digest,
                "languages": {t.language: {k: v for k, v in vars(t).items() if k != "language"} for t in self.told}}  # fmt: skip

    @property
    def table(self) -> Table:
        columns = ("language", "share", "windows", "tokens", "read of", "characters / token", "bytes / token", "in the language")
        rows = tuple((t.language, round(t.share, 4), t.windows, t.tokens, f"{t.pool:,} windows", round(t.characters_per_token, 2),
                      round(t.bytes_per_token, 2), f"{t.spoken} of {t.judged}" if t.judged else None)
                     for t in self.told)  # fmt: skip
        note = f"windows of {self.seq_len:,} tokens; the last column: of those among the first {LOOKED} whose language can be told"
        return Table("What the model was calibrated on", columns, rows, note)


def calibration(config: Calibrating, context: Context, tokenizer: Any, spoken: Spoken | None = None) -> Calibration:
    """The text that a config asks for. `spoken` looks whether texts are in their language.

    Raises RecipeError for more languages than windows, InputError for a corpus that cannot be read or is too short.
    """
    parts = quotas(shares_of(config), config.samples)
    found = {g: drawn(c, tokenizer, parts[g], config.seq_len, config.seed) for g, c in opened(config, context).items()}
    return assembled(found, tokenizer, config.rows, config.seed, spoken)


def opened(config: Calibrating, context: Context) -> dict[str, Corpus]:
    """The corpora that have a share, in the order of the config; nothing of them is read."""
    wanted = quotas(shares_of(config), config.samples)
    return {g: open_corpus(g, context.data(ref), config.field) for g, ref in config.corpus.items() if g in wanted}


def assembled(found: Mapping[str, Drawn], tokenizer: Any, rows: int, seed: int = 0, spoken: Spoken | None = None) -> Calibration:
    """Batches of `rows` windows, language by language."""
    import torch

    batches, weighing, of, whole = [], list[torch.Tensor](), list[str](), hashlib.sha256()
    total = sum(len(d.ids) for d in found.values())
    for language, d in found.items():
        whole.update(f"{language} {d.ids.shape}".encode() + np.ascontiguousarray(d.ids, "<i8").tobytes())
        for first in range(0, len(d.ids), rows):
            ids = torch.from_numpy(d.ids[first : first + rows])
            weights = torch.ones(ids.shape)
            weights[:, : d.skip] = 0
            batches.append({"input_ids": ids})
            weighing.append(weights)
            of.append(language)
    told = tuple(_told(d, tokenizer, len(d.ids) / total, spoken) for d in found.values())
    seq_len = next(iter(found.values())).ids.shape[1]
    return Calibration(tuple(batches), tuple(weighing), tuple(of), told, seed, seq_len, whole.hexdigest(), _notes(told))


def _told(d: Drawn, tokenizer: Any, share: float, spoken: Spoken | None) -> Told:
    texts = [tokenizer.decode(row[d.skip :], skip_special_tokens=True) for row in d.ids]
    verdicts = [v for text in texts[:LOOKED] if spoken is not None and (v := spoken(text, d.corpus.language)) is not None]
    return Told(d.corpus.language, str(d.corpus.path), d.corpus.digest, len(d.ids), share, d.tokens, d.pool,
                sum(map(len, texts)) / d.tokens, sum(len(t.encode("utf-8", "replace")) for t in texts) / d.tokens,
                sum(verdicts), len(verdicts))  # fmt: skip


def _notes(told: Iterable[Told]) -> tuple[str, ...]:
    """What a reader of the result must know: text that is not what it was said to be, or that the tokenizer breaks into bytes."""
    notes = []
    for t in told:
        if t.judged and t.spoken < MOSTLY * t.judged:
            notes.append(f"Of the calibration text for {t.language}, {t.spoken} of {t.judged} windows are in that language: "
                         f"is {t.path} the right file?")  # fmt: skip
        if t.characters_per_token < 1:
            notes.append(f"The tokenizer cuts {t.language} into {1 / t.characters_per_token:.1f} tokens a character: what was "
                         "measured is how the model reads single bytes, and a window holds little text.")  # fmt: skip
    return tuple(notes)


# -------------------------------------------------------------------------------------------------------------------- plan


@dataclass(frozen=True)
class Planned:
    """What reading would cost: tokens (BOS included), bytes of corpora, lines to show, and why it would fail."""

    tokens: int = 0
    read_bytes: int = 0
    lines: tuple[str, ...] = ()
    problems: tuple[UserError, ...] = ()


def planned(config: Calibrating, context: Context, anatomy: Anatomy) -> Planned:
    """From headers and file sizes alone; a first document of every corpus is looked at."""
    if not config.corpus:
        return Planned()
    problems, read = list[UserError](), 0
    try:
        parts = quotas(shares_of(config), config.samples)
    except UserError as e:
        return Planned(problems=(e,))
    try:
        check_window(anatomy, config.seq_len)
    except UserError as e:
        problems.append(e)
    for language, windows in parts.items():
        try:
            corpus = open_corpus(language, context.data(config.corpus[language]), config.field)
            next(corpus.documents())
            read += corpus.path.stat().st_size
            if corpus.size < windows * config.seq_len:  # a token stands for a byte at least, nearly always
                problems.append(_short(corpus, windows, config.seq_len))
        except UserError as e:
            problems.append(e)
    mixed = ", ".join(f"{g} {n}" for g, n in parts.items())
    line = f"calibrated on {config.samples:,} windows of {config.seq_len:,} tokens: {mixed}"
    return Planned(config.samples * config.seq_len, read, (line,), tuple(problems))


def _short(corpus: Corpus, windows: int, seq_len: int) -> InputError:
    return InputError("the corpus is too short for its part of the calibration text", where=corpus.path,
                      found=f"about {corpus.size // BYTES_A_TOKEN:,} tokens", expected=f"{windows:,} windows of {seq_len:,}",
                      fix="fewer --samples, a shorter --seq-len, a smaller share, or more text")  # fmt: skip
