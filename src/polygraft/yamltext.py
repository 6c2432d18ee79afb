"""Strict YAML: what a person wrote is what the program reads, and every value knows its line.

A subset of YAML 1.2 (core schema): `no`, `on` and dates stay text, `1e-5` is a number, `1_000` and `0o7` are text. Aliases,
anchors, tags, repeated keys, tabs, several documents, deep nesting and files over 256 kB are refused with their line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from polygraft.errors import InputError, RecipeError

LIMIT = 256_000  # bytes; a recipe is a page, not a data file, and a parser in Python takes seconds for more
DEPTH = 24
Place = tuple[str | int, ...]


@dataclass
class Document:
    """A tree of dicts, lists and scalars; `lines[path]` is the line of the key (or list item) at that path, counted from 1.

    What came from a `--set` has that text as its line.
    """

    tree: Any
    file: str
    lines: dict[Place, int | str] = field(default_factory=dict)

    def where(self, path: Place) -> str:
        """`file:line` of the nearest place that exists in the text."""
        while path and path not in self.lines:
            path = path[:-1]
        line = self.lines.get(path, 1)
        return line if isinstance(line, str) else f"{self.file}:{line}"


_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z")
_FLOAT = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\Z")
_WORDS: dict[str, bool | None] = {
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False, "~": None, "null": None,
}


def scalar(text: str) -> str | int | float | bool | None:
    """The value of a plain (unquoted) scalar. Raises ValueError for a number that no computer holds."""
    if text == "" or text in _WORDS:
        return _WORDS.get(text)
    if _INT.match(text) or _FLOAT.match(text):
        value = int(text) if _INT.match(text) else float(text)
        if abs(value) > 1e300:
            raise ValueError("the number is too large")
        return value
    return text


def read_document(path: Path, kind: str = "recipe") -> Document:
    """Read a YAML file; `kind` is what messages call it.

    Raises InputError when it cannot be read, RecipeError (with file:line) when it is not strict YAML.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise InputError(f"a folder, not a {kind}", where=path, fix="name the .yaml file itself")
        with path.open("rb") as f:
            data = f.read(LIMIT + 1)
    except OSError as e:
        raise InputError("cannot be read", where=path, found=e.strerror, fix="check the path") from e
    return parse_document(data, path.name, kind)


def parse_document(data: bytes | str, file: str, kind: str = "recipe") -> Document:
    """Turn YAML text into a Document. Raises RecipeError."""
    text = _decode(data, file, kind)
    try:
        _check_events(text, file, kind)
        loader = yaml.BaseLoader(text)  # every scalar stays text: our own rules type it, by its style
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as e:
        raise _syntax_error(e, text, file) from e
    except yaml.reader.ReaderError as e:
        line = text[: e.position].count("\n") + 1
        found = f"U+{ord(text[e.position]):04X}"
        raise RecipeError("a control character", where=f"{file}:{line}", found=found, fix="remove it") from e
    if node is None:
        fix = "start from `polygraft init`" if kind == "recipe" else "is it the right file? docs/ has examples"
        raise RecipeError("the file is empty", where=file, expected=f"a {kind}", fix=fix)
    document = Document(None, file)
    document.tree = _build(node, (), document)
    return document


def _decode(data: bytes | str, file: str, kind: str) -> str:
    if len(data) > LIMIT:
        raise RecipeError(f"too large to be a {kind}", where=file, found=f"more than {LIMIT:,} bytes",
                          expected=f"at most {LIMIT:,}")
    if isinstance(data, str):
        return data.removeprefix("\ufeff")
    try:
        text = data.decode("utf-8-sig")  # some editors start a file with a byte order mark
    except UnicodeDecodeError as e:
        line = data[: e.start].count(b"\n") + 1
        found = f"byte 0x{data[e.start]:02x}"
        raise RecipeError("the text is not UTF-8", where=f"{file}:{line}", found=found, fix="save the file as UTF-8") from e
    return text.replace("\r\n", "\n")


def _check_events(text: str, file: str, kind: str) -> None:
    """Refuse, before anything is built, what such a file never needs and an attacker might."""
    depth = documents = 0
    for event in _events(text):
        line = event.start_mark.line + 1
        documents += isinstance(event, yaml.DocumentStartEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        what = None
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            what, fix = f"YAML anchors and aliases are not used in {kind}s", "write the value out where it is needed"
        elif getattr(event, "tag", None):
            what, fix = f"YAML tags are not used in {kind}s", "remove the word that starts with `!`"
        elif documents > 1:
            what, fix = "a second YAML document", f"keep one {kind} in one file, without `---` between"
        elif depth > DEPTH:
            what, fix = f"nested deeper than {DEPTH} levels", f"a {kind} is three or four levels deep"
        if what:
            raise RecipeError(what, where=f"{file}:{line}", fix=fix)


def _events(text: str) -> Iterator[Any]:
    return yaml.parse(text, Loader=yaml.BaseLoader)


def _syntax_error(e: yaml.MarkedYAMLError, text: str, file: str) -> RecipeError:
    mark = e.problem_mark or e.context_mark
    line = mark.line + 1 if mark else 1
    rows = text.split("\n")
    row = rows[line - 1] if line <= len(rows) else ""
    if row[: len(row) - len(row.lstrip())].count("\t"):
        return RecipeError("a tab in the indentation", where=f"{file}:{line}", found=repr(row[:40]), fix="indent with spaces")
    fix = "check the indentation, quotes and colons near this line"
    return RecipeError("not valid YAML", where=f"{file}:{line}", found=e.problem, fix=fix)


def _build(node: yaml.Node, path: Place, document: Document) -> Any:
    document.lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, document)
    if isinstance(node, yaml.SequenceNode):
        return [_build(v, (*path, i), document) for i, v in enumerate(node.value)]
    assert isinstance(node, yaml.ScalarNode)
    if node.style is not None:  # quoted or block text is text
        return node.value
    try:
        return scalar(node.value)
    except ValueError as e:
        raise RecipeError("a number that is too large", where=document.where(path), found=node.value[:40]) from e


def _mapping(node: yaml.MappingNode, path: Place, document: Document) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for k, v in node.value:
        line = k.start_mark.line + 1
        if not isinstance(k, yaml.ScalarNode):
            raise RecipeError("a key must be plain text", where=f"{document.file}:{line}", found="a list or a mapping as a key")
        here = (*path, k.value)
        if k.value in out:
            first = f"first on line {document.lines[here]}"
            raise RecipeError(f"`{k.value}` is given twice", where=f"{document.file}:{line}", found=first, fix="keep one of them")
        document.lines[here] = line
        out[k.value] = _build(v, here, document)
    return out
