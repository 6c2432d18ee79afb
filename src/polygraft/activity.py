"""What one reading of text left behind, per language: counts, sums and more of every neuron and layer, as arrays by name.

A folder with `activity.json` and `activity.LANGUAGE.safetensors`, one language in memory at a time. Neuron arrays are
[layers, neurons]; a mixture's neurons stand one expert after another, and a layer with fewer neurons is filled with zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from polygraft import arrays, files
from polygraft.errors import InputError

FILE = "activity.json"
LARGEST = float(np.finfo(np.float64).max)

# name of an array -> what it holds. L layers, N neurons (most of any layer), D hidden width, B bins, G groups of documents.
# "pass" dtypes; neuron values are a = act_fn(gate(x)) (act_fn(up(x)) without a gate), tokens without BOS and padding.
NAMES = {
    "positive": "int64 [L, N]: tokens with a > 0",
    "sum": "float64 [L, N]: sum of a over tokens",
    "square": "float64 [L, N]: sum of a^2",
    "histogram": "int32 [L, N, B]: tokens whose a fell into each bin of `edges`",
    "window.percentile": "float64 [L, N]: sum over windows of their tokens times the 90th percentile of a within the window",
    "group.tokens": "int64 [G]: tokens of each group of documents",
    "group.positive": "int32 [G, L, N]: `positive` of each group",
    "group.sum": "float32 [G, L, N]: `sum` of each group",
    "residual": "float64 [L + 1, D]: sum of the residual stream after the embedding (0) and after each layer (1 ... L)",
    "group.residual": "float32 [G, L + 1, D]: `residual` of each group",
    "attention": "float64 [L, D]: sum of what the attention of each layer adds to the stream",
    "group.attention": "float32 [G, L, D]: `attention` of each group",
    "square.residual": "float64 [L + 1]: sum of squared norms of the residual stream",
    "attention.positive": "int64 [L, D]: tokens at which an entry of the attention's output is > 0",
    "input.ROLE.LAYER": "float64 [D_in]: sum of x^2 over tokens at the input of the matrices of a role (qkv, o, ffn, down)",
    "gram.ROLE.LAYER": "float32 [D_in, D_in]: sum of x x^T there",
}


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _language(about: Any) -> bool:
    return (isinstance(about, dict) and all(_count(about.get(n)) for n in ("tokens", "documents", "groups"))
            and all(isinstance(about.get(n), str) for n in ("digest", "path")) and _count(about.get("characters", 0))
            and isinstance(about.get("sha256", ""), str))  # fmt: skip


def _edges(value: Any) -> bool:
    if not isinstance(value, list) or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
        return False
    return len(value) != 1 and all(abs(v) <= LARGEST for v in value) and all(a < b for a, b in pairwise(value))


# field of `activity.json` -> what it holds, and whether a value read from JSON is that
FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "languages": ('{"LANGUAGE": {"tokens", "documents", "groups", "digest", "path"}}',
                  lambda v: isinstance(v, dict) and bool(v) and all(map(_language, v.values()))),
    "layers": ("a number of layers", _count),
    "sizes": ("neurons of each layer", lambda v: isinstance(v, list) and all(map(_count, v))),
    "hidden": ("a width", _count),
    "experts": ("a number of experts", _count),
    "edges": ("finite numbers that rise", _edges),
    "identity": ("a text", lambda v: isinstance(v, str)),
    "parallel": ("true or false", lambda v: isinstance(v, bool)),
    "window": ("a number of tokens", _count),
    "model": ("a text", lambda v: isinstance(v, str)),
}  # fmt: skip


def _not_one(where: Path | str, found: str, expected: str) -> InputError:
    return InputError("not a reading of activity", where=where, found=found, expected=expected,
                      fix="make it again with `polygraft analyze activity`")


@lru_cache(maxsize=1024)
def _check_whole(path: Path, sha256: str, size: int, changed: int) -> None:
    """Raise InputError unless the file is what was written; once for each state (bytes, nanoseconds) that it is seen in."""
    if (found := files.sha256_file(path)) != sha256:
        raise InputError("the reading was damaged or changed after it was written", where=path, found=f"sha256 {found[:12]}",
                         expected=f"{sha256[:12]}, as {FILE} says", fix="read the text again")


def real(sizes: Sequence[int]) -> np.ndarray:
    """bool [layers, neurons]: False where a layer has fewer neurons than the widest."""
    return np.arange(max(sizes, default=0)) < np.asarray(sizes, np.int64)[:, None]


@dataclass(frozen=True)
class Activity:
    """`sizes[l]` neurons of layer l (experts together), `hidden` width, `edges` of the histogram's bins, `identity` of the model
    and `model`, how it was named.

    `languages` -> {"tokens", "documents", "groups", "digest", "path", "sha256"} in the order asked; `digest` is that of the text,
    `sha256` that of the file of arrays, which is checked when it is first opened. `parallel`: group g and document i mean
    the same text in every language.
    """

    folder: Path
    languages: dict[str, dict[str, Any]]
    layers: int
    sizes: tuple[int, ...]
    hidden: int
    experts: int = 0
    edges: tuple[float, ...] = ()
    identity: str = ""
    parallel: bool = False
    window: int = 0
    model: str = ""

    @classmethod
    def open(cls, folder: Path) -> Activity:
        """Read `activity.json`; arrays are read when asked for. Raises InputError, naming the field, where it is no reading."""
        path = Path(folder) / FILE
        value = files.read_json(path)
        if not isinstance(value, dict):
            raise _not_one(path, f"a {type(value).__name__}", "an object")
        needed = [f.name for f in fields(cls) if f.name != "folder" and f.default is MISSING]
        if lacking := [name for name in needed if name not in value]:
            raise _not_one(path, f"no `{lacking[0]}`", ", ".join(needed))
        for name, given in value.items():
            if name not in FIELDS:
                raise _not_one(path, f"`{name}`", ", ".join(FIELDS))
            if not FIELDS[name][1](given):
                raise _not_one(f"{path}: {name}", repr(given)[:80], FIELDS[name][0])
        if len(value["sizes"]) != value["layers"]:
            raise _not_one(f"{path}: sizes", f"{len(value['sizes'])} of them", f"one for each of {value['layers']} layers")
        for language in value["languages"]:  # a part of a file's name
            files.plain_name(Path(folder), f"activity.{language}.safetensors")
        found: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
        return cls(Path(folder), **found)

    def save(self) -> None:
        """Write `activity.json`; the arrays lie beside it already."""
        files.write_json(self.folder / FILE, {k: v for k, v in asdict(self).items() if k != "folder"})

    def path(self, language: str) -> Path:
        return self.folder / f"activity.{language}.safetensors"

    def of(self, language: str) -> Mapping[str, np.ndarray]:
        """The arrays of one language, read one at a time. Raises InputError for a language that was not read, or a damaged file."""
        if language not in self.languages:
            raise InputError("no text of this language was read", where=self.folder, found=language,
                             expected=", ".join(self.languages))
        path, sha256 = self.path(language), self.languages[language].get("sha256")
        opened = arrays.Arrays(path)  # tells what is no such file at all
        if sha256:
            state = path.stat()
            _check_whole(path, sha256, state.st_size, state.st_mtime_ns)
        return opened

    def array(self, language: str, name: str) -> np.ndarray:
        """One array (see NAMES). Raises InputError where the reading did not gather it."""
        found = self.of(language)
        if name not in found:
            raise InputError("this was not gathered when the text was read", where=self.path(language), found=name,
                             expected=", ".join(sorted({n.split(".")[0] for n in found})), fix="read the text again and ask for it")
        return found[name]

    def tokens(self, language: str) -> int:
        return int(self.languages[language]["tokens"])

    def stacked(self, name: str) -> np.ndarray:
        """One array of all languages, float64, languages last: [layers, neurons, languages] for `positive`."""
        return np.stack([self.array(language, name).astype(np.float64) for language in self.languages], axis=-1)

    @property
    def real(self) -> np.ndarray:
        """bool [layers, neurons]: False where a layer has fewer neurons than the widest."""
        return real(self.sizes)

    def probability(self) -> np.ndarray:
        """float64 [layers, neurons, languages]: share of tokens at which a > 0."""
        return self.stacked("positive") / np.array([max(1, self.tokens(g)) for g in self.languages])
