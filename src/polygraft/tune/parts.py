"""Words for places in a model: `0-5,28-`, `attn`, `up`, `ffn.down`, as layer numbers and as a Selection."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import product
from typing import TYPE_CHECKING

from polygraft import selections
from polygraft.errors import RecipeError, suggestion
from polygraft.selections import FUSED, WITHIN, Entry

if TYPE_CHECKING:
    from polygraft.anatomy import Anatomy
    from polygraft.selection import Selection, Shapes

RUN = re.compile(r"(\d+)(?:(-)(\d*))?\Z")


def numbers(words: Sequence[str], count: int, what: str) -> list[int]:
    """`3`, `0-5` (both ends), `7-` (to the last) among 0 to count - 1, rising and each once. Raises RecipeError naming the word."""
    found: set[int] = set()
    for word in (w.strip() for words_ in words for w in str(words_).split(",")):
        run = RUN.match(word)
        start, stop = (int(run[1]), int(run[3] or count - 1) if run[2] else int(run[1])) if run else (1, 0)
        if run is None or start > stop or stop >= count:
            raise RecipeError(f"no such {what} of this model", where=f"{what}s", found=word, expected=f"0 to {count - 1}",
                              fix=f"write one as `3`, several as `0-5`, all from one on as `{min(7, count - 1)}-`")
        found.update(range(start, stop + 1))
    return sorted(found)


def layers(words: Sequence[str], anatomy: Anatomy) -> list[int]:
    """Layers by number; all of them where no word is given."""
    return numbers(words, anatomy.layers, "layer") if words else list(range(anatomy.layers))


def places(words: Iterable[str], anatomy: Anatomy) -> list[tuple[str, str | None]]:
    """(kind, role) of words such as `attn`, `up`, `ffn.down`; a role also means that of experts. Raises RecipeError for another word."""
    own = {(p.kind, p.role) for p in anatomy.parts.values() if p.kind in WITHIN and p.role}
    fused = {role for kind, stored in own for role in FUSED if FUSED[role] == kind and role in _names(stored)}
    own |= {(FUSED[role], role) for role in fused}
    known = {kind for kind, _ in own} | {role.removeprefix("experts.") for kind, role in own if kind != "norm"} | {f"{k}.{r}" for k, r in own}
    found: list[tuple[str, str | None]] = []
    for word in words:
        if word not in known:
            raise RecipeError("the model has no such part", where="parts", found=word, expected=", ".join(sorted(known)),
                              fix=suggestion(word, known))
        kind, _, role = word.partition(".")
        if kind in WITHIN:
            found.append((kind, role or None))
        else:
            found += sorted((k, r) for k, r in own if k != "norm" and r.removeprefix("experts.") == word)
    return found


def _names(stored: str) -> tuple[str, ...]:
    return {"qkv": ("q", "k", "v"), "gate_up": ("gate", "up")}.get(stored, ())


def select(words: Sequence[str], chosen: Iterable[int], anatomy: Anatomy, shapes: Shapes) -> Selection:
    """These parts of these layers, whole; of a fused tensor their rows."""
    at = product(chosen, places(words, anatomy))
    return selections.on([Entry(layer, kind, role) for layer, (kind, role) in at], anatomy, shapes)
