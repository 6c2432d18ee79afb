"""The user's texts, dealt once: what methods learn from, what is found on, and what is measured on that nobody learned from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from polygraft.data import open_corpus
from polygraft.errors import InputError
from polygraft.evals.tasks import sampler
from polygraft.files import canonical, digest
from polygraft.poc.config import Poc
from polygraft.recipetext import dump

MOST = 64 << 20  # bytes of a text that are used: a proof of concept on one machine reads no more
HELD = 8  # one document of so many is held out
PIECE = 2000  # characters beyond which a document is cut into several, at line breaks and spaces
LEAST = 4  # documents without which nothing can be held out
ENGLISH, DEFAULT = "en", ("es", "ru")  # languages of the sampler in which losses are looked for
OPENING, SENTENCE = 200, 120  # characters of a text that is to be continued, and of a sentence that is to be copied
CONTINUED, COPIED = 48, 96  # new tokens of a continuation, and of a copy


@dataclass(frozen=True)
class Dealt:
    """A text in two halves that share no document. `cut`: it was longer than is used."""

    learn: tuple[str, ...]
    held: tuple[str, ...]
    cut: bool = False

    @property
    def bytes(self) -> int:
        return sum(len(t.encode()) for t in self.learn)


def deal(documents: Iterable[str], every: int = HELD, most: int = MOST) -> Dealt:
    """Every so manyth piece is held out, the others are learned from; pieces that come twice are used once (ours).

    Raises ValueError for fewer than `LEAST` different pieces.
    """
    seen: dict[str, None] = {}
    size, cut = 0, False
    for document in documents:
        for piece in pieces(document):
            size += len(piece.encode()) if piece not in seen else 0
            seen[piece] = None
        if cut := size >= most:
            break
    if len(seen) < LEAST:
        raise ValueError(f"{len(seen)} different passages")
    out = [i % every == every // 2 - 1 for i in range(len(seen))]  # not the last of a few
    return Dealt(tuple(p for p, o in zip(seen, out) if not o), tuple(p for p, o in zip(seen, out) if o), cut)


def pieces(document: str, size: int = PIECE) -> list[str]:
    """A document cut at the last line break, else the last space, within every `size` characters."""
    out, text = [], document.strip()
    while len(text) > size:
        at = next((i for sign in ("\n", " ") if (i := text.rfind(sign, size // 2, size)) > 0), size)
        out.append(text[:at].strip())
        text = text[at:].strip()
    return [p for p in (*out, text) if p]


def dealt(language: str, path: Path) -> Dealt:
    """A user's file. Raises InputError for one that is missing, damaged, or too little to hold something out."""
    try:
        return deal(open_corpus(language, path).documents())
    except ValueError as e:
        raise InputError("too little text to learn from and to measure on", where=path, found=str(e),
                         expected=f"at least {LEAST}; thousands help") from None


# ------------------------------------------------------------------------------------------------------------------ files


@dataclass(frozen=True)
class Texts:
    """All texts of a proof of concept: `files` to write (name -> bytes), and which file is what.

    learn, held: of the target language ("" where no text is given). others: language -> (text to find on, text to measure on), and
    `sampled` those that are the sampler's. write, copy: task files on the held-out text. bytes, characters: of what is to learn.
    """

    files: Mapping[str, bytes]
    learn: str
    held: str
    others: Mapping[str, tuple[str, str]]
    sampled: tuple[str, ...]
    write: str
    copy: str
    bytes: int
    characters: int
    cut: bool


def texts(config: Poc) -> Texts:
    """Read and deal everything that is given. Raises InputError."""
    files: dict[str, bytes] = {}
    learn = held = write = copy = ""
    own = dealt(config.lang, Path(config.text).expanduser()) if config.text else None
    if own:
        learn, held = (_named(files, f"{kind}-{config.lang}", some) for kind, some in (("learn", own.learn), ("held", own.held)))
        write, copy = _task(files, "continue", own.held, config.lang), _task(files, "copy", own.held, config.lang)
    others = {}
    wanted = {**dict.fromkeys((ENGLISH, *DEFAULT), ""), **config.other}
    for language, path in wanted.items():
        if language == config.lang:
            continue
        some = dealt(language, Path(path).expanduser()) if path else deal(sampler.paragraphs(language), every=2)
        others[language] = (_named(files, f"found-{language}", some.learn), _named(files, f"held-{language}", some.held))
    sampled = tuple(g for g in others if not wanted[g])
    return Texts(files, learn, held, others, sampled, write, copy, own.bytes if own else 0,
                 sum(map(len, own.learn)) if own else 0, bool(own and own.cut))


def _named(files: dict[str, bytes], kind: str, documents: Sequence[str]) -> str:
    """Put documents among the files, one object a line; the name tells their content."""
    data = b"".join(canonical({"text": text}) + b"\n" for text in documents)
    name = f"{kind}-{digest(list(documents))[:12]}.jsonl"
    files[name] = data
    return name


def _task(files: dict[str, bytes], kind: str, held: Sequence[str], language: str) -> str:
    """A written task on the held-out text: go on from its beginning, or write its first sentence back."""
    size = OPENING if kind == "continue" else SENTENCE
    openings = dict.fromkeys(opening(text, size) for text in held)
    rows = _named(files, f"{kind}-{language}", [o for o in openings if o])
    task = {"task": kind, "output_type": "generate_until", "source": {"files": [rows]}}
    if kind == "continue":
        task |= {"doc_to_text": "{{text}}", "target_delimiter": " ", "metrics": ["language fidelity", "repetition", "refusal"],
                 "generation": {"max_gen_toks": CONTINUED}}
    else:
        task |= {"like": "copy-sentence", "words": "", "languages": {}, "id": "", "metrics": ["copy characters"],
                 "generation": {"max_gen_toks": COPIED, "until": ["\n"]}}
    name = f"{rows.removesuffix('.jsonl')}.yaml"
    files[name] = dump(task).encode()
    return name


def opening(text: str, size: int) -> str:
    """The first words of a text on one line, at most `size` characters and at most half of it."""
    line = " ".join(text.split())
    cut = line[: min(size, max(1, len(line) // 2))]
    return cut if cut == line or " " not in cut else cut[: cut.rfind(" ")]
