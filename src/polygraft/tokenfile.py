"""What the ids of a tokenizer.json stand for: the bytes of every token, and how bytes are cut into tokens.

Tokens are compared by their bytes and by nothing else: byte-level vocabularies write them in GPT-2's alphabet of 256 printable
characters, SentencePiece ones with `▁` for a space and `<0xNN>` for a byte. A token that is half a character has bytes, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from polygraft import files
from polygraft.errors import InputError

FILE = "tokenizer.json"
LIMIT = 256 << 20
LONGEST = 1 << 16  # characters of a token
SPARE = 1 << 20  # ids that may be without a token
SPACE = "▁"
BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
Alphabet = Literal["bytes", "metaspace", "text"]


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's alphabet: character -> byte. Printable bytes stand for themselves, the others for characters from 256 on."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [b for b in range(256) if b not in set(plain)]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


BYTE_OF = _byte_alphabet()
CHARACTER_OF = {b: c for c, b in BYTE_OF.items()}


def surrogate(content: bytes) -> str:
    """Bytes as a byte-level vocabulary writes them: `Ġ` for a space, one character a byte."""
    return "".join(CHARACTER_OF[b] for b in content)


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of one tokenizer.json: `ids` are the model's own, `added` the entries of added_tokens by id, which win."""

    path: Path
    tree: dict[str, Any]
    alphabet: Alphabet
    ids: dict[str, int]
    added: dict[int, dict[str, Any]]

    @classmethod
    def open(cls, path: Path | None, where: object = None) -> Vocabulary:
        """Read a tokenizer.json (`path`, or a folder that holds it).

        Raises InputError where there is none, for a kind of model that is not read (WordPiece), where two tokens share an id, or
        two ids a token (naming both), where a merge names no token, and for what no vocabulary is: empty, ids that are no numbers
        or lie millions apart, tokens of book length.
        """
        if path is None:
            raise InputError("the model has no tokenizer that can be read", where=where, expected=FILE,
                             fix="save the tokenizer again with transformers to get tokenizer.json")
        path = path / FILE if path.is_dir() else path
        if not path.is_file():
            raise InputError("no tokenizer here", where=path, expected=FILE, fix="name the folder that holds tokenizer.json")
        tree = files.read_json(path, LIMIT)
        try:
            model, entries = tree["model"], tree.get("added_tokens") or []
            added = {_id(t["id"], t["content"], path): dict(t) | {"content": str(t["content"])} for t in entries}
            ids = _own(model, path)
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            raise InputError("not a tokenizer", where=path, found=str(e)[:80], expected="a tokenizer.json of `tokenizers`",
                             fix="save the tokenizer again with transformers") from None
        _check_added(entries, ids, path)
        found = cls(path, tree, _alphabet(tree, path), ids, added)
        _check_bounds(found)
        _check_merges(found.merges, ids, path)
        return found

    @property
    def model(self) -> dict[str, Any]:
        """The section `model`: its type, vocabulary and merges."""
        return self.tree["model"]

    @property
    def kind(self) -> str:
        """BPE, Unigram, WordLevel."""
        return str(self.model.get("type") or ("BPE" if "merges" in self.model else "Unigram"))

    @cached_property
    def merges(self) -> list[tuple[str, str]]:
        """Pairs of tokens in order of rank, whichever of both forms the file has them in; none outside BPE. Raises InputError."""
        found, entries = [], self.model.get("merges") or []
        if not isinstance(entries, list):
            raise InputError("merges that are no list", where=self.path, found=str(entries)[:80], expected='[["a", "b"], ...]')
        for entry in entries:
            pair = entry.split(" ") if isinstance(entry, str) else entry
            if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)):
                raise InputError("a merge that is not two tokens", where=self.path, found=str(entry)[:80], expected='["a", "b"]')
            found.append((pair[0], pair[1]))
        return found

    @cached_property
    def names(self) -> dict[int, str]:
        """Id -> token, as the file writes it."""
        return {i: t for t, i in self.ids.items()} | {i: t["content"] for i, t in self.added.items()}

    @cached_property
    def size(self) -> int:
        """One more than the largest id: the rows that an embedding needs."""
        return max(self.names, default=-1) + 1

    @cached_property
    def holes(self) -> tuple[int, ...]:
        """Ids below `size` that no token has."""
        return tuple(i for i in range(self.size) if i not in self.names)

    @cached_property
    def control(self) -> dict[str, int]:
        """Special added tokens -> id: they stand for no text (`<s>`, `<|im_start|>`)."""
        return {t["content"]: i for i, t in sorted(self.added.items()) if t.get("special")}

    def id_of(self, token: str) -> int | None:
        """The id of a token as the file writes it, added ones first; None where there is none."""
        return self.by_name.get(token)

    @cached_property
    def by_name(self) -> dict[str, int]:
        """Token, as the file writes it -> id, added ones first."""
        return self.ids | {t["content"]: i for i, t in self.added.items()}

    @cached_property
    def contents(self) -> list[bytes | None]:
        """What each id stands for; None for control tokens and holes. Length `size`."""
        found: list[bytes | None] = [None] * self.size
        for token, i in self.ids.items():
            found[i] = self.bytes_of(token)
        for i, entry in self.added.items():
            found[i] = None if entry.get("special") else entry["content"].encode()
        return found

    def bytes_of(self, token: str) -> bytes:
        """The bytes of a token of the model's own vocabulary, as the file writes it."""
        if self.alphabet == "bytes":
            if all(c in BYTE_OF for c in token):
                return bytes(BYTE_OF[c] for c in token)
            return token.encode()  # a token that was put into the vocabulary as text
        if self.falls_back and (byte := BYTE.fullmatch(token)):
            return bytes([int(byte[1], 16)])
        return (token.replace(SPACE, " ") if self.alphabet == "metaspace" else token).encode()

    def write_of(self, content: bytes) -> str | None:
        """How the model's own vocabulary writes these bytes; None where it cannot (half a character outside byte-level ones)."""
        if self.alphabet == "bytes":
            return surrogate(content)
        try:
            text = content.decode()
        except UnicodeDecodeError:
            return None
        return text.replace(" ", SPACE) if self.alphabet == "metaspace" else text

    @property
    def falls_back(self) -> bool:
        """Whether characters out of the vocabulary are written as byte tokens."""
        return bool(self.model.get("byte_fallback"))

    @cached_property
    def by_bytes(self) -> dict[bytes, int]:
        """Bytes -> id. Of two ids with equal bytes the one that is text wins over a byte token, then the lower one."""
        found: dict[bytes, int] = {}
        plain: set[bytes] = set()
        for i, content in enumerate(self.contents):
            if content is None:
                continue
            byte = bool(self.falls_back and BYTE.fullmatch(self.names[i]))
            if content not in found or (not byte and content not in plain):
                found[content] = i
            if not byte:
                plain.add(content)
        return found

    # ------------------------------------------------------------------------------------------------------------ cutting

    @cached_property
    def _replay(self) -> Any:
        """The model alone, without normaliser and pre-tokeniser: it replays merges over whatever it is given."""
        from tokenizers import Tokenizer

        plain: dict[str, Any] = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
                 "pre_tokenizer": None, "post_processor": None, "decoder": None,
                 "model": self.model | ({"dropout": None} if self.kind == "BPE" else {})}
        return Tokenizer.from_str(files.canonical(plain).decode()).model

    def replay(self, text: str) -> list[int]:
        """The ids that the model alone makes of a text in its own alphabet, as a pre-tokeniser hands it over."""
        return [t.id for t in self._replay.tokenize(text)]

    def segment(self, content: bytes) -> tuple[int, ...] | None:
        """The ids whose bytes together are `content`, as the tokenizer's own model cuts it; None where no tokens cover it.

        A token of exactly these bytes is itself. Otherwise merges (or Unigram scores) decide; where they lead to something else
        than these bytes (unknown characters, half a character), the cut into the fewest tokens does.
        """
        if not content:
            return ()
        if (whole := self.by_bytes.get(content)) is not None:
            return (whole,)
        if (text := self.write_of(content)) is not None:
            found = tuple(self.replay(text))
            parts = [self.contents[i] for i in found]
            if None not in parts and b"".join(parts) == content:  # type: ignore[arg-type]
                return found
        return self._fewest(content)

    @cached_property
    def _longest(self) -> int:
        return max((len(b) for b in self.by_bytes), default=0)

    def _fewest(self, content: bytes) -> tuple[int, ...] | None:
        """The cut into the fewest tokens, of equal ones that with the longest tokens first."""
        n = len(content)
        best: list[tuple[int, int] | None] = [None] * n + [(0, n)]  # tokens from here to the end, and where the next begins
        for start in range(n - 1, -1, -1):
            for stop in range(min(n, start + self._longest), start, -1):
                rest, so_far = best[stop], best[start]
                if rest is not None and content[start:stop] in self.by_bytes and (so_far is None or rest[0] + 1 < so_far[0]):
                    best[start] = (rest[0] + 1, stop)
        if best[0] is None:
            return None
        found, at = [], 0
        while at < n:
            stop = best[at][1]  # type: ignore[index]
            found.append(self.by_bytes[content[at:stop]])
            at = stop
        return tuple(found)

    @cached_property
    def tokenizer(self) -> Any:
        """The whole tokenizer of the tokenizers library, without truncation or padding."""
        from tokenizers import Tokenizer

        try:
            made = Tokenizer.from_file(str(self.path))
        except Exception as e:  # the library's own kind
            raise InputError("the tokenizers library cannot read this tokenizer", where=self.path, found=str(e)[:200],
                             fix="save the tokenizer again with transformers") from None
        made.no_truncation()
        made.no_padding()
        return made


def _own(model: Mapping[str, Any], path: Path) -> dict[str, int]:
    """Token -> id of the model section. Raises InputError for duplicates and for prefixes that are not read."""
    if model.get("type") == "WordPiece" or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise InputError("a tokenizer that marks the inside of words, which no decoder of today has", where=path,
                         found=str(model.get("type")), expected="BPE or Unigram over bytes or with `▁` for spaces")
    vocab = model["vocab"]
    if isinstance(vocab, Mapping):
        ids = {str(token): _id(i, token, path) for token, i in vocab.items()}
    else:
        ids = {}
        for i, (token, _) in enumerate(vocab):
            if (first := ids.setdefault(str(token), i)) != i:
                raise _twice(path, f"{token!r} has the ids {first} and {i}")
    owner: dict[int, str] = {}
    for token, i in ids.items():
        if (other := owner.setdefault(i, token)) != token:
            raise _twice(path, f"id {i} is {other!r} and {token!r}")
    return ids


def _id(value: Any, token: Any, path: Path) -> int:
    if type(value) is not int:
        raise InputError("an id that is no whole number", where=path, found=f"{str(token)[:40]!r}: {value!r}"[:80])
    if value < 0:
        raise InputError("a token has an id below 0", where=path, found=f"{str(token)[:40]!r}: {value}")
    return value


def _check_bounds(found: Vocabulary) -> None:
    """Raise InputError for a vocabulary whose lists and tables would not fit into any memory, or that is empty."""
    if not found.names:
        raise InputError("the vocabulary is empty", where=found.path, found="0 tokens", expected="at least one")
    if found.size > len(found.names) + SPARE:
        raise InputError("ids far beyond the number of tokens", where=found.path,
                         found=f"id {found.size - 1:,} among {len(found.names):,} tokens", expected=f"at most {SPARE:,} holes")
    if (longest := max(map(len, found.names.values()))) > LONGEST:
        raise InputError("a token longer than any that is learned from text", where=found.path, found=f"{longest:,} characters",
                         expected=f"at most {LONGEST:,}")


def _check_added(entries: list[dict[str, Any]], ids: dict[str, int], path: Path) -> None:
    """Raise InputError where two added tokens share an id or a content, or one takes the id of another token of the model."""
    by_id: dict[int, str] = {}
    by_content: dict[str, int] = {}
    own = {i: token for token, i in ids.items()}
    for entry in entries:
        i, content = int(entry["id"]), str(entry["content"])
        if by_id.setdefault(i, content) != content:
            raise _twice(path, f"id {i} is {by_id[i]!r} and {content!r}")
        if by_content.setdefault(content, i) != i:
            raise _twice(path, f"{content!r} has the ids {by_content[content]} and {i}")
        if own.get(i, content) != content:
            raise _twice(path, f"id {i} is {own[i]!r} and {content!r}")
        if ids.get(content, i) != i:
            raise _twice(path, f"{content!r} has the ids {ids[content]} and {i}")


def _check_merges(merges: list[tuple[str, str]], ids: Mapping[str, int], path: Path) -> None:
    """Raise InputError, naming the pair, where a merge joins what is no token, or makes none."""
    for a, b in merges:
        if not (a in ids and b in ids and a + b in ids):
            missing = next(token for token in (a, b, a + b) if token not in ids)
            raise InputError("a merge names a token that the vocabulary lacks", where=path,
                             found=f"{a!r} + {b!r}: no {missing!r}"[:200], expected="three tokens of the vocabulary",
                             fix="get the tokenizer again from its source")


def _twice(path: Path, found: str) -> InputError:
    return InputError("the vocabulary has duplicates", where=path, found=found, expected="one token an id, one id a token",
                      fix="get the tokenizer again from its source")


def _types(section: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every component of a section, with its type, however nested."""
    if isinstance(section, Mapping):
        yield str(section.get("type")), section
        for inner in section.values():
            yield from _types(inner)
    elif isinstance(section, list):
        for inner in section:
            yield from _types(inner)


def _alphabet(tree: Mapping[str, Any], path: Path) -> Alphabet:
    found = [(kind, part) for name in ("normalizer", "pre_tokenizer", "decoder") for kind, part in _types(tree.get(name))]
    kinds = {kind for kind, _ in found}
    if "ByteLevel" in kinds:
        return "bytes"
    marks = any(kind == "Replace" and SPACE in (part.get("content"), *_patterns(part)) for kind, part in found)
    return "metaspace" if "Metaspace" in kinds or marks else "text"


def _patterns(part: Mapping[str, Any]) -> tuple[Any, ...]:
    pattern = part.get("pattern")
    return tuple(pattern.values()) if isinstance(pattern, Mapping) else (pattern,)
