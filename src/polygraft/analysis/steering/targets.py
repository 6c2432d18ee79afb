"""From what was typed to edits: which neurons, whose statistics, which random controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from polygraft import arrays, languages, selections
from polygraft.activity import Activity
from polygraft.analysis.reading.config import Wanted, open_activity
from polygraft.analysis.steering import controls
from polygraft.analysis.steering.config import Steer
from polygraft.analysis.steering.ways import Way, Where, make, parse
from polygraft.anatomy import Anatomy
from polygraft.edits import Edits, sizes
from polygraft.errors import RecipeError, UserError
from polygraft.step import Context


@dataclass(frozen=True, eq=False)
class Row:
    """One row of what is tried: its name, its way, the language that it is about ("" where none was said), its edits and the
    random ones beside them."""

    name: str
    way: Way
    language: str
    edits: Edits
    controls: tuple[Edits, ...]


def chosen(config: Steer, context: Context, anatomy: Anatomy) -> dict[str, np.ndarray]:
    """The neurons to edit by language, bool [layers, most neurons]: one entry, or with `matrix` one for each language.

    Raises UserError for a selection that is not there, or a language that cannot be told from its name.
    """
    words = [w for word in config.select for w in (_languages(word, context) if config.matrix else [word])]
    found: dict[str, np.ndarray] = {}
    for word in words:
        name = _language(config, word)
        found[name] = found.get(name, False) | mask(word, context, anatomy)
    if config.matrix:  # a language without neurons of its own is read, not edited
        found = {name: m for name, m in found.items() if m.any()}
    if not found and all(not way.neurons for way in config.tried):
        found[config.language or ""] = np.zeros((anatomy.layers, max(sizes(anatomy))), bool)
    if not found:
        raise RecipeError("which neurons?", where="select", expected="FILE:NAME", fix="find some: polygraft analyze neurons")
    if len(found) > 1 and not config.matrix:
        raise RecipeError("neurons of several languages", where="select", found=", ".join(found),
                          fix="name the language whose statistics are meant, or ask for the matrix")
    return found


def mask(word: str, context: Context, anatomy: Anatomy) -> np.ndarray:
    """bool [layers, most neurons]: the neurons of `FILE:NAME`."""
    entries = selections.pick(word, context.folder)
    return selections.neurons(entries, anatomy.layers, sizes(anatomy), anatomy.sizes.experts)


def _languages(word: str, context: Context) -> list[str]:
    """`FILE` as `FILE:NAME` for each of its names that is a language."""
    file, names = selections.split(word)
    if names:
        return [f"{file}:{name}" for name in names]
    path = context.folder(file)
    held = selections.read(path / selections.FILE if path.is_dir() else path)
    found = [name for name in held if _tag(name)]
    if not found:
        raise RecipeError("no selection is named after a language", where=word, found=", ".join(held)[:200])
    return [f"{file}:{name}" for name in found]


def _tag(name: str) -> str | None:
    try:
        return languages.check(name)
    except UserError:
        return None


def _language(config: Steer, word: str) -> str:
    names = selections.split(word)[1]
    if config.language and not config.matrix:
        return config.language
    if len(names) == 1 and (tag := _tag(names[0])):
        return tag
    needing = [way.word for way in config.tried if way.needs]
    if needing or config.matrix:
        raise RecipeError("the selection's name does not say whose language it is", where=word, found=", ".join(names) or "no name",
                          fix="name it: --language sw")
    return ""


# ------------------------------------------------------------------------------------------------------------------ edits


def wanted(config: Steer) -> Wanted | None:
    """What must have been read of the model; None when no way needs statistics."""
    used = [*config.tried, *([parse(config.deactivate_way)] if config.deactivate else [])]
    needs = {way.needs for way in used} & {"neurons", "residual"}
    if not needs:
        return None
    return Wanted(histogram=any(way.of.startswith("p") for way in used), residual="residual" in needs)


def statistics(config: Steer, context: Context, folder: Path) -> Activity | None:
    """The reading that the ways need, made or found. Raises UserError where they need one and no text was named."""
    need = wanted(config)
    if need is None:
        return None
    if not config.corpus and config.activity is None:
        raise unread(config)
    return open_activity(config, need, context, folder)


def unread(config: Steer) -> RecipeError:
    words = [way.word for way in config.tried if way.needs in ("neurons", "residual")] or [config.deactivate_way]
    return RecipeError("these ways need what was read of the model", where="way", found=", ".join(words),
                       fix="name a reading (activity) or texts (corpus), or use zero, value=V, scale=S")


def rows(config: Steer, context: Context, anatomy: Anatomy, masks: Mapping[str, np.ndarray],
         activity: Activity | None) -> tuple[Row, ...]:
    """What is tried: each way on the one target, or with `matrix` the first way on each language."""
    base = Where(sizes(anatomy), anatomy.sizes.hidden, np.zeros((anatomy.layers, max(sizes(anatomy))), bool), "", activity,
                 _basis(config, context), config.layers, anatomy.sizes.experts)
    rest = _silenced(config, context, anatomy, base)
    every = np.any([*masks.values()], axis=0)
    out = []
    for language, neurons in masks.items():
        at = replace(base, neurons=neurons, language=language)
        for way in config.tried[:1] if config.matrix else config.tried:
            own = make(way, at, config.positions)
            drawn = controls.several(way, at, config.controls, config.seed, avoid=every, positions=config.positions)
            out.append(Row(language if config.matrix else way.word, way, language, own + rest, tuple(c + rest for c in drawn)))
    return tuple(out)


def _basis(config: Steer, context: Context) -> Mapping[str, np.ndarray]:
    return {} if config.subspace is None else arrays.Arrays(context.folder(config.subspace) / "subspace.safetensors")


def _silenced(config: Steer, context: Context, anatomy: Anatomy, base: Where) -> Edits:
    found = Edits()
    for word in config.deactivate:
        names = selections.split(word)[1]
        at = replace(base, neurons=mask(word, context, anatomy), language=(_tag(names[0]) or "") if len(names) == 1 else "")
        found = found + make(config.deactivate_way, at, config.positions)
    return found
