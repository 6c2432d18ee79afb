"""Rows of a task: from JSON lines, JSON, CSV, TSV or parquet (also .gz and .xz), or from the hub. Every row knows its place."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polygraft.errors import InputError, UserError, suggestion
from polygraft.evals.tasks import shapes
from polygraft.evals.tasks.schema import Hub, Rows
from polygraft.evals.tasks.templates import LONGEST

PACKAGED = Path(__file__).parent / "data"  # rows that come along; a data folder that has the same file goes first
LARGEST = 1 << 29  # bytes of a file, unpacked
FORMATS = (".txt", ".jsonl", ".json", ".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class Row:
    """One row and where it stands: `file:line`, or the file and the row's number."""

    where: str
    fields: dict[str, Any]


def read(source: Rows, words: Mapping[str, Any], *, data: Path | None, offline: bool, folder: Path | None = None,
         named: str = "") -> list[Row]:
    """All rows of a source, filtered and shaped. `folder` is that of a user's task file, where files are also looked for, and
    `named` the line of it that names them.

    Raises InputError naming the place, what was found and expected, and a fix.
    """
    paths = find(source, words, data, folder, named)
    if not paths:
        rows, name = _from_hub(source, words, offline)
    else:
        rows, name = [r for path in paths for r in _from_file(source, path)], str(paths[0] if len(paths) == 1 else paths[0].parent)
    for column, wanted in source.where.items():
        rows = [r for r in rows if _matches(r, column, wanted)]
    if source.shape:
        rows = _shaped(source.shape, rows, words, name)
    if not rows:
        fix = "check the file, and `where:` in the task" if source.where else "check the file"
        raise InputError("no rows", where=name, expected="at least one", fix=fix)
    return rows


def filled(pattern: str, words: Mapping[str, Any]) -> str:
    """`{code}` and other words put into a file's name; nothing else of Python's formatting works here."""
    return re.sub(r"\{(\w+)\}", lambda m: str(words.get(m[1], m[0])), pattern)


def _from_file(source: Rows, path: Path) -> list[Row]:
    """Rows of one local file, with what stands beside it; where several are read, `part` is the file's name."""
    rows = list(parse(path, path.read_bytes(), source.columns))
    for column, files in source.beside.items():
        rows = _with_column(rows, column, path, next((p for f in files if (p := path.parent / f).is_file()), None))
    if any("*" in f for f in source.files):
        rows = [Row(r.where, {"part": path.name.split(".")[0], **r.fields}) for r in rows]
    return rows


def find(source: Rows, words: Mapping[str, Any], data: Path | None, folder: Path | None = None,
         named: str = "") -> list[Path]:
    """The local files (several where the name has a `*`), none when the hub is to be asked. Raises InputError when a named folder
    lacks them."""
    names = [filled(f, words) for f in source.files]
    folders = [Path(f) for f in (data, folder) if f is not None]
    for place in [*folders, PACKAGED]:
        for name in names:
            some = place.glob(name) if "*" in name else (p for p in (place / name, place / Path(name).name))
            if found := sorted(p for p in some if p.is_file()):
                return found if "*" in name else found[:1]
    if not names or (data is None and source.hub is not None):
        return []
    where = folders[0] if folders else None
    fix = f"put the file into {where}, or correct the path" if where else "name the folder that holds it (`data:`, `--data`)"
    if where and source.hub:
        fix = f"put the file into {where}, or name no data folder to fetch it from {source.hub.path}"
    raise InputError("the task's file is not here", where=named or where, expected=" or ".join(names), fix=fix)


def _matches(row: Row, column: str, wanted: Any) -> bool:
    if column not in row.fields:
        raise InputError("`where:` asks for a column that the row does not have", where=row.where, found=column,
                         expected="one of " + ", ".join(map(str, row.fields)), fix=suggestion(column, row.fields))
    return str(row.fields[column]) in ([str(w) for w in wanted] if isinstance(wanted, list) else [str(wanted)])


def _shaped(name: str, rows: Sequence[Row], words: Mapping[str, Any], file: str) -> list[Row]:
    shape = shapes.get(name)
    try:
        made = shape([r.fields for r in rows], words)
    except (LookupError, TypeError, ValueError, AttributeError) as e:
        expected = (shape.__doc__ or name).strip().splitlines()[0]
        raise InputError(f"the file does not have the layout `{name}`", where=file, found=_said(e)[:200],
                         expected=expected, fix="check the file, and `shape:` in the task") from e
    return [Row(f"{file}, row {n}", fields) for n, fields in enumerate(made, 1)]


def _said(e: Exception) -> str:
    """What a shape stumbled over, without Python's name for it."""
    if isinstance(e, KeyError):
        return f"a row without `{e.args[0]}`"
    return str(e) if isinstance(e, ValueError) else f"{type(e).__name__}: {e}"


# ---------------------------------------------------------------------------------------------------------------- files


def parse(path: Path, raw: bytes, columns: Sequence[str] = ()) -> Iterator[Row]:
    """Rows of a file's bytes, by the endings of its name. Raises InputError."""
    raw, suffix = unpacked(path, raw)
    if suffix not in FORMATS:
        raise InputError("not a kind of file that tasks are read from", where=path, found=suffix or "no ending",
                         expected=", ".join(FORMATS) + ", also .gz and .xz", fix="convert it to JSON lines")
    if suffix == ".parquet":
        return _parquet(path, raw)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = raw[: e.start].count(b"\n") + 1
        raise InputError("the text is not UTF-8", where=f"{path}:{line}", found=f"byte 0x{raw[e.start]:02x}",
                         fix="save it as UTF-8") from e
    if suffix == ".txt":
        lines = enumerate(text.removesuffix("\n").split("\n"), 1)
        return (Row(f"{path}:{n}", {"text": line.rstrip("\r"), "line": n}) for n, line in lines)
    if suffix == ".jsonl":
        return _json_lines(path, text)
    return _json(path, text) if suffix == ".json" else _table(path, text, columns, tabs=suffix == ".tsv")


def unpacked(path: Path, raw: bytes) -> tuple[bytes, str]:
    """(bytes, ending) without .gz or .xz. Raises InputError for damage and for what would unpack to more than LARGEST."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".gz":
            with gzip.GzipFile(fileobj=io.BytesIO(raw)) as f:
                raw = f.read(LARGEST + 1)
        elif suffix == ".xz":
            with lzma.LZMAFile(io.BytesIO(raw)) as x:
                raw = x.read(LARGEST + 1)
    except (OSError, EOFError, lzma.LZMAError) as e:
        raise InputError(f"cannot be unpacked as {suffix}", where=path, found=str(e)[:120], fix="get the file again") from e
    if len(raw) > LARGEST:
        raise InputError("too large for a task's data", where=path, expected=f"at most {LARGEST:,} bytes", fix="split it")
    return raw, Path(path.stem).suffix.lower() if suffix in (".gz", ".xz") else suffix


def _with_column(rows: list[Row], column: str, path: Path, other: Path | None) -> list[Row]:
    """The rows with a column from the first cells of a file that has a line for each of them (and perhaps a header)."""
    if other is None:
        return rows
    raw, _ = unpacked(other, other.read_bytes())
    lines = raw.decode("utf-8-sig", "replace").removesuffix("\n").split("\n")
    if len(lines) - len(rows) not in (0, 1):
        raise InputError("the two files do not have a line for each other's", where=other, found=f"{len(lines)} lines",
                         expected=f"{len(rows)}, as {path.name} has", fix="get both from the same release")
    cells = [line.split("\t")[0].rstrip("\r") for line in lines[len(lines) - len(rows):]]
    return [Row(r.where, {**r.fields, column: cell}) for r, cell in zip(rows, cells)]


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def _loads(text: str, where: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as e:
        raise InputError("not JSON", where=where, found=f"{text[:60]!r} ({e})"[:200], expected="a JSON object",
                         fix="mend or remove the line") from e


def _object(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise InputError("not a row", where=where, found=type(value).__name__, expected='a JSON object, such as {"question": ...}',
                         fix="mend or remove the line")
    return Row(where, value)


def _json_lines(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield _object(_loads(line, f"{path}:{number}"), f"{path}:{number}")


def _json(path: Path, text: str) -> Iterator[Row]:
    """A list of objects, one object, or (as some data sets name it) JSON lines."""
    if re.match(r"\s*\{[^\n]*\}\s*\n\s*\{", text):
        yield from _json_lines(path, text)
        return
    found = _loads(text, str(path))
    if not isinstance(found, list):
        found = [found]
    for number, value in enumerate(found, 1):
        yield _object(value, f"{path}, row {number}")


def _table(path: Path, text: str, columns: Sequence[str], tabs: bool) -> Iterator[Row]:
    """CSV as spreadsheets write it; TSV without quoting, one row a line."""
    cells: Iterable[tuple[int, list[str]]]
    if tabs:
        cells = ((n, line.rstrip("\r").split("\t")) for n, line in enumerate(text.split("\n"), 1) if line.strip())
    else:
        cells = _csv(path, text)
    names = list(columns)
    for number, row in cells:
        if not names:
            names = [c.strip() for c in row]
            if len(set(names)) < len(names):
                raise InputError("two columns have one name", where=f"{path}:{number}", found=", ".join(names), fix="rename one")
            continue
        if len(row) != len(names):
            raise InputError("not as many cells as columns", where=f"{path}:{number}", found=f"{len(row)}: {' | '.join(row)[:80]}",
                             expected=f"{len(names)}: {', '.join(names)}",
                             fix="mend the row" if tabs else "mend the row; quote cells that hold commas")
        yield Row(f"{path}:{number}", dict(zip(names, row)))


def _csv(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    start = 1
    longest = csv.field_size_limit(LONGEST)  # Python's, and the whole process's: put back between rows
    try:
        while (row := next(reader, None)) is not None:
            csv.field_size_limit(longest)
            if row:
                yield start, row
            start = reader.line_num + 1
            csv.field_size_limit(LONGEST)
    except csv.Error as e:
        if "field limit" in str(e):
            raise InputError("a cell is too long", where=f"{path}:{start}", expected=f"at most {LONGEST:,} characters",
                             fix="shorten it; if it runs on over many rows, a quote is not closed") from e
        raise InputError("not CSV", where=f"{path}:{start}", found=str(e), fix="save it again as CSV, with quotes closed") from e
    finally:
        csv.field_size_limit(longest)


def _parquet(path: Path, raw: bytes) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(raw))
    except (pyarrow.ArrowException, OSError) as e:
        raise InputError("not a parquet file", where=path, found=str(e)[:120], fix="get the file again") from e
    for number, fields in enumerate(table.to_pylist(), 1):
        yield Row(f"{path}, row {number}", fields)


# ------------------------------------------------------------------------------------------------------------------ hub


def _from_hub(source: Rows, words: Mapping[str, Any], offline: bool) -> tuple[list[Row], str]:
    """Rows from the hub and what they are called. Raises InputError when they do not come."""
    hub = source.hub
    assert hub is not None
    name = f"{hub.path}/{filled(hub.file or hub.name, words)}"
    if offline:
        raise InputError(f"the task's data would come from the hub ({hub.path}), and this run is offline",
                         fix="name a folder that holds it (`data:`, `--data`)")
    with fetching(name):
        return _fetch(hub, words, name, source.columns), name


@contextmanager
def fetching(name: str) -> Iterator[None]:
    """What the hub's clients raise, as an InputError: they raise many kinds, and all of them mean that the data did not come."""
    try:
        yield
    except UserError:
        raise
    except Exception as e:
        raise InputError("the task's data did not come from the hub", where=name, found=f"{type(e).__name__}: {e}"[:200],
                         fix="check the network, or name a folder that holds it (`data:`, `--data`)") from e


def _fetch(hub: Hub, words: Mapping[str, Any], name: str, columns: Sequence[str]) -> list[Row]:
    if hub.file:
        from huggingface_hub import hf_hub_download

        path = Path(hf_hub_download(hub.path, filled(hub.file, words), repo_type="dataset", revision=hub.revision))
        return list(parse(path, path.read_bytes(), columns))
    from datasets import load_dataset

    def rows(config: str) -> Iterator[dict[str, Any]]:
        yield from load_dataset(hub.path, filled(config, words) or None, split=filled(hub.split, words), revision=hub.revision)

    if hub.names:
        parts = dict.fromkeys(filled(c, words) for c in hub.names)
        return [Row(f"{hub.path}/{c}, row {n}", {"part": c, **row}) for c in parts for n, row in enumerate(rows(c), 1)]
    return [Row(f"{name}, row {n}", dict(row)) for n, row in enumerate(rows(hub.name), 1)]
