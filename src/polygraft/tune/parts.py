"""Words for places in a model: `0-5,28-`, `attn`, `up`, `ffn.down`, as layer numbers and as a Selection."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator

from polygraft import selectionfile
from polygraft.errors import RecipeError, did_you_mean
from polygraft.selection import Selection
from polygraft.selectionfile import FUSED, WITHIN, Entry

if TYPE_CHECKING:
    from polygraft.anatomy import Anatomy
    from polygraft.selection import Shapes

RUN = re.compile(r"(\d{1,9})(?:(-)(\d{0,9}))?\Z", re.ASCII)
WITHIN_FUSED = {"qkv": ("q", "k", "v"), "gate_up": ("gate", "up")}

Place = tuple[str, str]  # kind and role


def listed(value: Any) -> Any:
    """One number or word, or a list of them, as words: what a recipe may write for a field of spans."""
    values = value if isinstance(value, list | tuple) else [value]
    return tuple(str(v) if isinstance(v, int) and not isinstance(v, bool) else v for v in values)


Listed = Annotated[tuple[str, ...], BeforeValidator(listed)]


def numbers(words: Sequence[str], count: int, what: str, where: str) -> list[int]:
    """`3`, `0-5` (both ends), `7-` (to the last), `last` among 0 to count - 1, rising and each once. Raises RecipeError naming the
    word."""
    found: set[int] = set()
    for word in (w.strip() for given in words for w in str(given).split(",")):
        run = RUN.match(str(count - 1) if word == "last" else word)
        start, stop = (int(run[1]), int(run[3] or count - 1) if run[2] else int(run[1])) if run else (1, 0)
        if start > stop or stop >= count:
            raise RecipeError(f"this model has no such {what}", where=where, found=repr(word)[:80], expected=f"0 to {count - 1}",
                              fix=f"one as `3`, several as `0-{min(5, count - 1)}`, from one to the last as `{count // 2}-`, "
                                  "that alone as `last`")
        found.update(range(start, stop + 1))
    return sorted(found)


def layers(words: Sequence[str], anatomy: Anatomy) -> list[int]:
    """Layers by number; all of them where no word is given."""
    return numbers(words, anatomy.layers, "layer", "layers") if words else list(range(anatomy.layers))


def places(words: Iterable[str], anatomy: Anatomy) -> list[Place]:
    """The (kind, role) of `attn`, `ffn`, `norm`, `up`, `ffn.down` ...; a bare role means that of experts, too, and none of a norm.

    Raises RecipeError for a word that means nothing in this model.
    """
    stored = {(p.kind, p.role) for p in anatomy.parts.values() if p.kind in WITHIN and p.role}
    inner = {(kind, r) for kind, role in stored for r in WITHIN_FUSED.get(role, ()) if FUSED[r] == kind}
    meant: dict[str, set[Place]] = {}
    for kind, role in stored | inner:
        bare = {role.removeprefix("experts.")} if kind != "norm" else set()
        for word in {f"{kind}.{role}", *bare, *({kind} if (kind, role) in stored else ())}:
            meant.setdefault(word, set()).add((kind, role))
    for word in words:
        if word not in meant:
            raise RecipeError("this model has no such part", where="parts", found=repr(word)[:80],
                              expected=", ".join(sorted(meant)),
                              fix=f"did you mean `{near}`?" if (near := did_you_mean(str(word), meant)) else "name one of these")
    return sorted({place for word in words for place in meant[word]})


def select(words: Iterable[str], chosen: Iterable[int], anatomy: Anatomy, shapes: Shapes) -> Selection:
    """These parts of these layers: whole tensors, and rows of fused ones. A layer without one of the parts gives none of it."""
    wanted, entries = places(words, anatomy), []
    for layer in chosen:
        stored = {(p.kind, p.role) for key in anatomy.keys(layer=layer) for p in (anatomy.parts[key],)}
        there = stored | {(kind, r) for kind, role in stored for r in WITHIN_FUSED.get(role, ())}
        entries += [Entry(layer, kind, role) for kind, role in wanted if (kind, role) in there]
    return selectionfile.on(entries, anatomy, shapes)


def within(chosen: Iterable[int], anatomy: Anatomy) -> Selection:
    """All of these layers."""
    return Selection({key: None for layer in chosen for key in anatomy.keys(layer=layer)})
