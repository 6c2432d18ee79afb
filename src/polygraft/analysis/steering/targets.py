"""From what was typed to edits: which neurons, whose statistics, which random controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import comb
from pathlib import Path

import numpy as np

from polygraft import arrays, files, languages, selectionfile
from polygraft.activity import Activity
from polygraft.analysis.reading.config import Wanted, open_activity
from polygraft.analysis.steering import controls
from polygraft.analysis.steering.config import Steer
from polygraft.analysis.steering.ways import Way, Where, make, parse
from polygraft.anatomy import Anatomy
from polygraft.edits import Edits, sizes
from polygraft.errors import InputError, RecipeError, UserError
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
        name = _language(config, word, context)
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
    entries = selectionfile.pick(word, context.folder)
    return selectionfile.neurons(entries, anatomy.layers, sizes(anatomy), anatomy.sizes.experts)


def _languages(word: str, context: Context) -> list[str]:
    """`FILE` as `FILE:NAME` for each of its names that is a language."""
    file, names = selectionfile.split(word)
    if names:
        return [f"{file}:{name}" for name in names]
    held = _held(file, context)
    found = [name for name in held if _tag(name)]
    if not found:
        raise RecipeError("no selection is named after a language", where=word, found=", ".join(held)[:200])
    return [f"{file}:{name}" for name in found]


def _held(file: str, context: Context) -> selectionfile.Named:
    path = context.folder(file)
    return selectionfile.read(path / selectionfile.FILE if path.is_dir() else path)


def _tag(name: str) -> str | None:
    try:
        return languages.check(name)
    except UserError:
        return None


def _only(config: Steer, word: str, context: Context) -> tuple[str, ...]:
    """The name of the one selection in a file. Raises RecipeError for several, and says how one of them is named."""
    held = _held(word, context)
    if len(held) < 2:
        return tuple(held)
    named = [name for name in held if _tag(name)] or [*held]
    wanted = [name for name in (config.language, *config.langs, *config.read) if name in named]
    first = next(iter(wanted), next((name for name in named if name != "en"), named[0]))
    raise RecipeError("the file holds several selections, and one language's neurons are edited", where=f"select: {word}",
                      found=", ".join(held)[:200], fix=f"name one: --select {word}:{first}")


def _language(config: Steer, word: str, context: Context) -> str:
    names = selectionfile.split(word)[1] or _only(config, word, context)
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
    rest = silenced(config, context, anatomy, base)
    every = taken(config, context, anatomy, [*masks.values(), *(at.neurons for at in rest)])
    off = sum((make(config.deactivate_way, at, config.positions) for at in rest), Edits())
    out = []
    for language, neurons in masks.items():
        at = replace(base, neurons=neurons, language=language)
        for way in config.tried[:1] if config.matrix else config.tried:
            own = make(way, at, config.positions)
            drawn = controls.several(way, at, config.controls, config.seed, avoid=every, positions=config.positions)
            out.append(Row(language if config.matrix else way.word, way, language, own + off,
                           tuple(c + _silenced_at_random(config, rest, c, every, i) for i, c in enumerate(drawn))))
    return _different(out)


def faults(config: Steer, context: Context, anatomy: Anatomy, masks: Mapping[str, np.ndarray]) -> list[UserError]:
    """What making the edits would fail on: they are made where all that they need is there, else only languages are compared."""
    if config.corpus and wanted(config) is not None:  # has yet to be read
        words = [way.word for way in config.tried if way.kind in ("diff", "residual-diff")]
        lacking = [g for g in masks if g not in config.corpus]
        if lacking:
            return [RecipeError("the target language is not among the texts", where="corpus", found=lacking[0] or "no language",
                                expected=", ".join(config.corpus), fix="add its text, or name the language")]
        if words and len(config.corpus) < 2:
            return [RecipeError("a difference between languages needs text of another one", where="corpus",
                                found=", ".join(config.corpus), fix=f"give another language, or leave out {', '.join(words)}")]
        return []
    try:
        activity = None if wanted(config) is None else statistics(config, context, Path())
        rows(config.model_copy(update={"controls": 0}), context, anatomy, masks, activity)
    except UserError as e:
        return [e]
    return []


def _different(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Raises RecipeError for two ways that come to the same edits: they would be one condition under two names."""
    seen: dict[tuple[str, str], Row] = {}
    for row in rows:
        first = seen.setdefault((row.language, row.edits.digest), row)
        if first is not row:
            raise RecipeError("two ways that make the same edits", where="way", found=f"{first.way.word} and {row.way.word}",
                              fix="leave one out")
    return tuple(rows)


def taken(config: Steer, context: Context, anatomy: Anatomy, masks: Sequence[np.ndarray]) -> np.ndarray:
    """bool [layers, most neurons]: what controls take last: these neurons, and those of every language of the selection files."""
    out = np.any(np.stack(masks), axis=0)
    for file in dict.fromkeys(selectionfile.split(word)[0] for word in (*config.select, *config.deactivate)):
        for name, entries in _held(file, context).items():
            if _tag(name):
                out |= selectionfile.neurons(entries, anatomy.layers, sizes(anatomy), anatomy.sizes.experts)
    return out


def _basis(config: Steer, context: Context) -> Mapping[str, np.ndarray]:
    if config.subspace is None:
        return {}
    path, identity = context.folder(config.subspace), context.model(config.model).identity
    if (found := maker(path)) not in ("", identity):
        raise InputError("the language subspace is another model's", where=path, found=found[:80], expected=identity[:80],
                         fix="run `polygraft analyze subspace` with this model")
    return arrays.Arrays(path / "subspace.safetensors")


def maker(path: Path) -> str:
    """The identity of the model that an analysis in this folder (or beside this file) was of; "" where nothing says."""
    told = (path if path.is_dir() else path.parent) / "result.json"
    if not told.is_file():
        return ""
    inputs = files.read_json(told).get("inputs", [])
    return next((str(i.get("identity") or "") for i in inputs if i.get("name") == "model"), "")


def foreign(config: Steer, context: Context) -> tuple[str, ...]:
    """A sentence on every selection that was found in another model: its neurons may mean something else here."""
    identity = context.model(config.model).identity
    words = dict.fromkeys(selectionfile.split(word)[0] for word in (*config.select, *config.deactivate))
    return tuple(f"The neurons of {word} were found in another model, and may do something else in this one."
                 for word in words if maker(context.folder(word)) not in ("", identity))


def silenced(config: Steer, context: Context, anatomy: Anatomy, base: Where) -> list[Where]:
    """The neurons to deactivate, each selection with the language that its name says."""
    found = []
    for word in config.deactivate:
        names = selectionfile.split(word)[1]
        language = (_tag(names[0]) or "") if len(names) == 1 else ""
        found.append(replace(base, neurons=mask(word, context, anatomy), language=language))
    return found


def _silenced_at_random(config: Steer, rest: Sequence[Where], own: Edits, avoid: np.ndarray, i: int) -> Edits:
    """As many neurons as are deactivated, drawn beside the control `own`: else the control would silence the found ones."""
    out = Edits()
    for k, at in enumerate(rest):
        away = avoid | controls.edited(own + out, at.neurons.shape)
        seed = [*controls.seeds(config.seed, at.language, i), k, 1]
        out = out + (controls.draw(config.deactivate_way, at, seed, avoid=away, positions=config.positions) or Edits())
    return out


def few(config: Steer, anatomy: Anatomy) -> tuple[str, ...]:
    """A sentence where there are fewer other layers than controls of layer-off were asked for."""
    off = len(set(config.layers)) or 1
    n = comb(max(0, anatomy.layers - off), off)
    if n >= config.controls or all(way.kind != "layer-off" for way in config.tried):
        return ()
    left = f"only {n} random control{'s' * (n != 1)}" if n else "no random control"
    known = "hardly known" if n else "not known"
    return (f"layer-off has {left} instead of {config.controls}, for the model has {anatomy.layers} layers: what it does beyond "
            f"random layers is {known}.",)


def both(config: Steer, context: Context, anatomy: Anatomy, masks: Mapping[str, np.ndarray]) -> int:
    """How many neurons are selected and deactivated at once."""
    off = [mask(word, context, anatomy) for word in config.deactivate]
    return int((np.any(np.stack([*masks.values()]), axis=0) & np.any(np.stack(off), axis=0)).sum()) if off else 0
