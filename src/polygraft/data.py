"""Text corpora: one document a line (.txt), one object a line (.jsonl), one row (.parquet); .txt and .jsonl also as .gz or .xz.

Everything is streamed. What cannot be text (bytes that are not UTF-8, NUL, half a surrogate pair) is refused with file and line.
"""

from __future__ import annotations

import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from polygraft import files, languages
from polygraft.errors import InputError, RecipeError
from polygraft.header import open_plain

ENDINGS = (".txt", ".txt.gz", ".txt.xz", ".jsonl", ".jsonl.gz", ".jsonl.xz", ".parquet")
MAX_LINE = 64 << 20
PACKED = 5  # bytes of text in one of a compressed file, about
BROKEN = (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error)


@dataclass(frozen=True)
class Corpus:
    """Text in one language. `language` is a checked tag; `field` names the text in .jsonl objects and .parquet columns."""

    language: str
    path: Path
    field: str = "text"

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the file as it lies on the disk; reads it."""
        return files.sha256_file(self.path)

    @property
    def size(self) -> int:
        """Bytes of text, about: those of the file, and several times as many where it is compressed. Reads nothing."""
        return self.path.stat().st_size * (PACKED if self.path.suffix in (".gz", ".xz") else 1)

    def documents(self, *, aligned: bool = False) -> Iterator[str]:
        """Every document in file order, empty ones left out. Raises InputError naming file and line, also when there is none.

        `aligned`: document i stands in line or row i, as in parallel files: an empty one ahead of others is refused.
        """
        count = 0
        for where, text in _read(self.path, self.field):
            check_text(text, where)
            if text.strip():
                count += 1
                if aligned and not where.endswith(f":{count}"):
                    raise InputError("an empty document among parallel ones, which would shift those behind it",
                                     where=f"{self.path}:{count}", fix="take this line or row out of the file of every language")
                yield text
        if not count:
            raise InputError("the corpus holds no text", where=self.path, expected="at least one document")


def parse_corpus(words: str, root: Path | None = None) -> Corpus:
    """`sw=PATH` (relative to `root`). Raises RecipeError for the words or the tag, InputError for the file."""
    tag, equals, name = words.partition("=")
    if not equals or not name:
        raise RecipeError("a corpus is named LANGUAGE=PATH", found=repr(words)[:200], expected="for example sw=texts/swahili.txt")
    return open_corpus(languages.check(tag), Path(root or ".") / Path(name).expanduser())


def open_corpus(language: str, path: Path, field: str = "text") -> Corpus:
    """A corpus whose file exists and has a known ending; nothing of it is read. Raises InputError."""
    if ending(path) not in ENDINGS:
        raise InputError(
            "a kind of file that is not read as a corpus",
            where=path,
            found=path.suffix or "no ending",
            expected=", ".join(ENDINGS),
            fix="convert it to .jsonl with a text field",
        )
    if not path.is_file():
        raise InputError("no such corpus", where=path, fix="check the path")
    return Corpus(language, path, field)


def ending(path: Path) -> str:
    """The ending that says how to read a file, with its compression."""
    last = path.suffix.lower()
    return Path(path.stem).suffix.lower() + last if last in (".gz", ".xz") else last


def lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """(`file:number`, bytes) of each line that is not blank, without its end and without a byte-order mark."""
    with _opened(path) as stream:
        number = 0
        try:
            while line := stream.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    raise InputError(
                        "a line longer than any document", where=f"{path}:{number}", expected=f"at most {MAX_LINE:,} bytes"
                    )
                if number == 1:
                    _refuse_utf16(line, path)
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if line := line.rstrip(b"\r\n"):
                    yield f"{path}:{number}", line
        except BROKEN as e:
            raise InputError(
                "the compressed file is damaged", where=f"{path}:{number + 1}", found=str(e)[:200], fix="get the file again"
            ) from e
        except OSError as e:
            raise InputError("the file cannot be read", where=path, found=e.strerror or str(e), fix="check the disk") from e


def _opened(path: Path) -> IO[bytes]:
    if path.is_dir():
        raise InputError("a folder, where a file of texts or examples is expected", where=path, expected=", ".join(ENDINGS),
                         fix="name a file in it")
    raw = io.BufferedReader(io.FileIO(open_plain(path), "rb"), 1 << 20)  # a FIFO or a folder is refused, never waited for
    kind = path.suffix.lower()
    return gzip.GzipFile(fileobj=raw) if kind == ".gz" else lzma.LZMAFile(raw) if kind == ".xz" else raw  # type: ignore[return-value]


def _refuse_utf16(line: bytes, path: Path) -> None:
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError("the text is UTF-16", where=path, expected="UTF-8", fix=f"iconv -f UTF-16 -t UTF-8 {path.name}")


def decode(line: bytes, where: str) -> str:
    """UTF-8 text of a line; InputError names the byte that is not."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as e:
        raise InputError(
            "not UTF-8",
            where=where,
            found=f"byte 0x{line[e.start]:02x} at position {e.start:,}",
            expected="UTF-8 text",
            fix="convert the file to UTF-8",
        ) from e


def check_text(text: str, where: str) -> None:
    """Raises InputError for what no text holds: NUL, half a surrogate pair."""
    """Raises InputError for a NUL character or half a surrogate pair, which no text has."""
    if "\0" in text:
        raise InputError(
            "a NUL character in the text", where=where, expected="text", fix="remove the line, or check that this is a text file"
        )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as e:
        raise InputError(
            "half a surrogate pair, which no text has", where=where, found=f"\\u{ord(text[e.start]):04x}", fix="remove the line"
        ) from e


def objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(`file:number`, object) of each line of a .jsonl file, compressed or not. Raises InputError naming file and line."""
    for where, line in lines(path):
        value = files.parse_json(line, where) if line.strip() else None
        if value is None:
            continue
        if not isinstance(value, dict):
            raise InputError("a line that is not an object", where=where, found=type(value).__name__, expected='{"text": "..."}')
        yield where, value


def _read(path: Path, field: str) -> Iterator[tuple[str, str]]:
    kind = ending(path)
    if kind.startswith(".txt"):
        yield from ((where, decode(line, where)) for where, line in lines(path))
    elif kind == ".parquet":
        yield from _parquet(path, field)
    else:
        for where, value in objects(path):
            if not isinstance(text := value.get(field), str):
                raise InputError(
                    f"no text under `{field}`",
                    where=where,
                    found=", ".join(map(str, list(value)[:8])) or "an empty object",
                    expected=f'{{"{field}": "..."}}',
                )
            yield where, text


def _parquet(path: Path, field: str) -> Iterator[tuple[str, str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path)
        kind = table.schema_arrow.field(field).type if field in table.schema_arrow.names else None
        if kind is None or not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise InputError(
                f"no text column `{field}`",
                where=path,
                found=", ".join(table.schema_arrow.names)[:200],
                expected=f"a column `{field}`",
            )
        row = 0
        for batch in table.iter_batches(batch_size=1024, columns=[field]):
            for text in batch.column(0).to_pylist():
                row += 1
                if text is not None:
                    yield f"{path}:{row}", text
    except (pa.ArrowException, OSError, UnicodeDecodeError) as e:
        raise InputError(
            "not a readable parquet file", where=path, found=str(e).splitlines()[0][:200], fix="get the file again"
        ) from e
