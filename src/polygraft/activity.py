"""What one reading of text left behind, per language: counts, sums and more of every neuron and layer, as arrays by name.

A folder with `activity.json` and `activity.LANGUAGE.safetensors`, one language in memory at a time. Neuron arrays are
[layers, neurons]; a mixture's neurons stand one expert after another, and a layer with fewer neurons is filled with zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from polygraft import arrays, files
from polygraft.errors import InputError

FILE = "activity.json"

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


@dataclass(frozen=True)
class Activity:
    """`sizes[l]` neurons of layer l (experts together), `hidden` width, `edges` of the histogram's bins, `identity` of the model.

    `languages` -> {"tokens", "documents", "groups", "digest", "path"} in the order asked. `parallel`: group g and document i mean
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

    @classmethod
    def open(cls, folder: Path) -> Activity:
        """Read `activity.json`; arrays are read when asked for. Raises InputError where the folder is not such a reading."""
        value: dict[str, Any] = files.read_json(Path(folder) / FILE)
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
        try:
            return cls(Path(folder), **fields)
        except TypeError as e:
            raise InputError("not a reading of activity", where=Path(folder) / FILE, found=str(e)[:200],
                             fix="make it again with `polygraft analyze activity`") from e

    def save(self) -> None:
        """Write `activity.json`; the arrays lie beside it already."""
        files.write_json(self.folder / FILE, {k: v for k, v in asdict(self).items() if k != "folder"})

    def path(self, language: str) -> Path:
        return self.folder / f"activity.{language}.safetensors"

    def of(self, language: str) -> Mapping[str, np.ndarray]:
        """The arrays of one language, read one at a time. Raises InputError for a language that was not read."""
        if language not in self.languages:
            raise InputError("no text of this language was read", where=self.folder, found=language,
                             expected=", ".join(self.languages))
        return arrays.Arrays(self.path(language))

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
        return np.arange(max(self.sizes, default=0)) < np.asarray(self.sizes)[:, None]

    def probability(self) -> np.ndarray:
        """float64 [layers, neurons, languages]: share of tokens at which a > 0."""
        return self.stacked("positive") / np.array([max(1, self.tokens(g)) for g in self.languages])
