"""Where a model comes from: the chain of manifests, from a folder back to the first ancestor that is at hand.

What a model was made from stands in the manifest of its folder, or of the step's folder around it. Of several models that went in,
the chain follows the one that the step changes: what a training starts from, what a swap takes its middle from (`LINE`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polygraft.errors import UserError
from polygraft.files import MANIFEST, read_json
from polygraft.sources import Source
from polygraft.store import KEY_LENGTH

LINE = ("model", "instruct", "task", "expert", "models", "base")  # fields of steps that make models, the first that is filled
LONGEST = 1000  # links
OTHER = "not the model of then: its tensors are others"
MOVED = "moved, copied or changed since: nothing tells whether it is the model of then"
Open = Callable[..., Source]  # (spec, base=Source | None) -> Source; raises UserError


@dataclass(frozen=True)
class Link:
    """A model of the chain: how it was named, the model itself, the step that made it ("" for one without a manifest), and what is
    to be said of it."""

    name: str
    source: Source
    made_by: str = ""
    note: str = ""


@dataclass(frozen=True)
class Chain:
    """The model that is looked at, its parent, and so on; `broken` says why the chain ends where its last model has a manifest."""

    links: tuple[Link, ...]
    broken: str = ""

    @property
    def ancestors(self) -> tuple[Link, ...]:
        return self.links[1:]


def chain(spec: str, find: Open) -> Chain:
    """Follow the manifests from a model. Raises UserError where the model itself cannot be opened."""
    links = [_link(name_of(spec), find(spec), "")]
    seen = {links[0].source.path.resolve()}
    while len(links) < LONGEST:
        here = links[-1]
        manifest = here.source.path and manifest_of(here.source.path)
        if not manifest:
            return Chain(tuple(links))
        if isinstance(manifest, str):
            return Chain(tuple(links), manifest)
        found = _parent(here, manifest, find)
        if isinstance(found, str):
            return Chain(tuple(links), found)
        if (place := found.source.path.resolve()) in seen:
            return Chain(tuple(links), f"the chain comes back to {found.name}")
        seen.add(place)
        links.append(found)
    return Chain(tuple(links), f"more than {LONGEST} models")


def name_of(spec: str) -> str:
    """A short name: the last part of a path; of `steps/swap-<key>/model`, the step's id."""
    from polygraft.evals.models import labels

    return labels([spec.rstrip("/") or spec])[0]


def manifest_of(folder: Path) -> dict[str, Any] | str | None:
    """The manifest that says what a model was made from; None where there is none, a sentence where it cannot be read."""
    places = [folder, *([folder.parent] if folder.name == "model" else [])]
    for place in places:
        if not (place / MANIFEST).is_file():
            continue
        try:
            found = read_json(place / MANIFEST)
        except UserError as e:
            return f"the manifest of {place.name} cannot be read: {e.what}"
        if isinstance(found, dict) and found.get("inputs"):
            return found
    return f"the manifest of {folder.name} names no inputs" if any((p / MANIFEST).is_file() for p in places) else None


def _link(name: str, source: Source, note: str) -> Link:
    manifest = manifest_of(source.path)
    recipe = manifest.get("recipe") if isinstance(manifest, dict) else None
    return Link(name, source, str(recipe.get("use", "")) if isinstance(recipe, dict) else "", note)


# -------------------------------------------------------------------------------------------------------------- the parent


def _parent(child: Link, manifest: Mapping[str, Any], find: Open) -> Link | str:
    """The model that a model was made from, or why it is not to be had."""
    entry = parent_input(manifest)
    if entry is None:
        return f"the manifest of {child.name} does not say which of its inputs is the model it was made from"
    spec, errors = str(entry.get("spec", "")), []
    for words, base in candidates(child, entry):
        try:
            under = find(base) if base else None
            source = find(words, base=under) if under else find(words)
        except UserError as e:
            errors.append(e.what)
            continue
        if (said := changed(source, entry)) == OTHER:
            errors.append(f"{words}: {said}")
            continue
        return _link(name_of(words), source, said)
    return f"{spec or 'its parent'}, from which {child.name} was made, is not here any more" + (f" ({errors[0]})" if errors else "")


def parent_input(manifest: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The entry of `inputs` on the chain's line; None where the manifest is of another shape or names none."""
    recipe, inputs = manifest.get("recipe"), manifest.get("inputs")
    if not isinstance(recipe, dict) or not isinstance(inputs, list) or not all(isinstance(i, dict) for i in inputs):
        return None
    for field in LINE:
        value = recipe.get(field)
        ref = value[0] if isinstance(value, list) and value else value
        if not isinstance(ref, str):
            continue
        named = [i for i in inputs if ref in (i.get("name"), i.get("spec"))]
        return named[0] if named else inputs[0] if field in ("task", "expert", "models") else None
    return None


def candidates(child: Link, entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(words, words of the base or "") that may open a parent: as the manifest has them, then beside the child, then by name.

    A step of the same run is found by its key; a model of the hub at the revision that was read.
    """
    spec, identity, revision = (str(entry.get(k) or "") for k in ("spec", "identity", "revision"))
    around = child.source.path.resolve()
    step = around.parent if around.name == "model" else around
    if spec.startswith("step "):
        yield from ((str(p / "model"), "") for p in sorted(step.parent.glob(f"*-{identity[:KEY_LENGTH]}")) if identity)
        return
    words, on, base = spec.partition(" on ")
    away = Path(words).is_absolute()
    places = [Path()] if away else [Path(), *step.parents]
    for place in places:
        path = place / Path(words).expanduser()
        if path.exists():
            yield str(path), str(place / base) if on and (place / base).exists() else base
    if away and (moved := step.parent / Path(words).name).exists():
        yield str(moved), base
    if not any((p / words).exists() for p in places):
        yield (f"{words.partition('@')[0]}@{revision}" if revision and not words.startswith("demo:") else words), base


def changed(source: Source, entry: Mapping[str, Any]) -> str:
    """`OTHER` or `MOVED` where a parent is not, byte for byte and in the same place, what its child was made from; "" where it is.

    A model that was moved or copied has other times; its own manifest's digests of tensors then say whether it is the same.
    """
    if entry.get("identity") in (source.identity, *_keys(source.path)):
        return ""
    manifest = manifest_of(source.path)
    tensors = manifest.get("tensors") if isinstance(manifest, dict) else None
    if isinstance(tensors, dict) and entry.get("tensors_sha256"):
        from polygraft.files import digest

        return "" if digest(tensors) == entry["tensors_sha256"] else OTHER
    return MOVED


def _keys(model: Path) -> Iterator[str]:
    """The key of the step that made a model, as its manifest or that of the folder around it has it: equal keys, equal content."""
    for place in (model, model.parent):
        try:
            found = read_json(place / MANIFEST) if (place / MANIFEST).is_file() else None
        except UserError:
            continue
        if isinstance(found, dict) and found.get("key"):
            yield str(found["key"])
