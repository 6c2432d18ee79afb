"""Evidence that was found by reading text: language neurons, or layers whose firing differs between languages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from polygraft import arrays, edits, files, selectionfile
from polygraft.anatomy import Anatomy
from polygraft.errors import InputError
from polygraft.selectionfile import Entry
from polygraft.step import PickedName

CURVE, NOISE = "msd", "msd.noise"
DEVIATION = "deviation.safetensors"


class EvidenceName(PickedName):
    """Named as a selection is, but all that the step wrote decides what it means."""


Found = tuple[np.ndarray, str]  # float64 [layers] >= 0, and what it is in words


def neurons(word: EvidenceName, folder: Callable[[str], Path], anatomy: Anatomy) -> Found:
    """The share of each layer's FFN neurons that a selection names. Raises InputError, for one of another model above all."""
    same_model(folder(word.target), anatomy)
    entries, sizes = selectionfile.pick(str(word), folder), edits.sizes(anatomy)
    mask = selectionfile.neurons(entries, anatomy.layers, sizes, anatomy.sizes.experts)
    counts = mask.sum(axis=1)
    what = f"{int(counts.sum()):,} of {sum(sizes):,} FFN neurons, those of {word.names or word.target}"
    return counts / np.maximum(1, sizes), what


def deviation(word: EvidenceName, folder: Callable[[str], Path], anatomy: Anatomy) -> Found:
    """The deviation over languages less its noise, by layer; or, where a selection is named, the layers in it."""
    path = folder(word.target)
    same_model(path, anatomy)
    if word.names or path.is_file():
        entries = selectionfile.pick(str(word), folder)
        return chosen(entries, anatomy), f"the layers of {word.names or word.target}, found by deviation"
    return _curve(path / DEVIATION, anatomy), f"the deviation of neurons over languages, less its noise, in {word.target}"


def chosen(entries: tuple[Entry, ...], anatomy: Anatomy) -> np.ndarray:
    """1 for layers that are selected, else 0. Raises InputError for a layer that the model does not have."""
    layers = selectionfile.layers(entries)
    if layers and layers[-1] >= anatomy.layers:
        raise _another("a layer beyond the model's", "evidence", f"layer {layers[-1]}", f"0 to {anatomy.layers - 1}")
    return np.isin(np.arange(anatomy.layers), layers).astype(np.float64)


def _curve(path: Path, anatomy: Anatomy) -> np.ndarray:
    if not path.is_file():
        raise InputError("no deviation is kept here", where=path.parent, expected=f"{DEVIATION}, of `polygraft analyze deviation`",
                         fix="name that folder, or a selection: FILE:chosen")
    found = arrays.Arrays(path)
    if CURVE not in found:
        raise InputError("no deviation is kept here", where=path, found=", ".join(found)[:200], expected=f"an array `{CURVE}`")
    if found.shape(CURVE) != (anatomy.layers,):
        raise _another("the evidence was found in a model of another depth", path, f"a curve of shape {found.shape(CURVE)}",
                       f"{anatomy.layers} layers")
    noise = found[NOISE] if NOISE in found and found.shape(NOISE) == found.shape(CURVE) else 0.0
    values = found[CURVE].astype(np.float64) - noise
    if not np.isfinite(values).all():
        raise InputError("a deviation that is not finite", where=path, fix="make it again with `polygraft analyze deviation`")
    return np.maximum(values, 0.0)


def same_model(path: Path, anatomy: Anatomy) -> None:
    """Raise InputError where the result beside the evidence says that it was found in a model of other layers or neurons."""
    result = (path if path.is_dir() else path.parent) / "result.json"
    if not result.is_file():
        return  # a selection alone does not say; layers and rows beyond the model's are refused when it is read
    said = files.read_json(result)
    data: Any = said.get("data") if isinstance(said, dict) else None
    if not isinstance(data, dict) or not str(said.get("step", "")).startswith("analyze."):
        return
    layers, sizes = data.get("layers"), data.get("sizes", data.get("neurons"))
    if isinstance(layers, int) and layers != anatomy.layers:
        raise _another("the evidence was found in a model of another depth", result, f"{layers} layers", f"{anatomy.layers} layers")
    if isinstance(sizes, list) and tuple(sizes) != edits.sizes(anatomy):
        raise _another("the evidence was found in a model of other neurons", result, f"{sizes[0] if sizes else 0:,} in a layer",
                       f"{edits.sizes(anatomy)[0]:,}")


def _another(what: str, where: object, found: str, expected: str) -> InputError:
    return InputError(what, where=where, found=found, expected=expected,
                      fix="analyze the base of these experts, or one of them, and name that")
