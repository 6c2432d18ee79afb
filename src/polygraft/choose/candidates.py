"""Candidates: profiles that a choice is made among, what it is made against, and the parameters that made each.

A swap's windows come from `merge.makers.swap` (arXiv 2410.01335); free mixtures of layers are `custom`. Every choice is
compared with the paper's default, the soup, each expert, and random windows, which are as many layers of the language expert put
anywhere else; without them a window's place and its width cannot be told apart. Pure functions of an Anatomy.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from polygraft.anatomy import Anatomy, Part
from polygraft.errors import RecipeError
from polygraft.merge.makers import PARTS, Policy, Weighting, group, policies, soup, swap
from polygraft.merge.profile import Profile
from polygraft.merge.zones import zones

MADE = re.compile(r"(.+\+.+ )?(soup|paper's default|random window .*|b\d+ u\d+ t\d+.*|mix .*)")  # what candidates are called here
DRAWS = 200  # tries to find a random window that is not there yet
Vector = tuple[float, ...]


@dataclass(frozen=True)
class Candidate:
    """A profile to be tried. `params` says what made it, as JSON: kind (window, custom, soup, expert, random), task, language, and
    what its maker was told (bottom, top, transition, weights, embed, norm, head, parts ...)."""

    name: str
    profile: Profile
    params: Mapping[str, Any] = field(default_factory=dict)


def window(
    anatomy: Anatomy,
    names: Sequence[str],
    *,
    bottom: int | None = None,
    top: int | None = None,
    transition: int | None = None,
    weights: Weighting = "plain",
    shares: tuple[float, float] = (0.5, 0.5),
    embed: Policy | None = None,
    norm: Policy | None = None,
    head: Policy | None = None,
    parts: Sequence[str] = PARTS,
) -> Candidate:
    """A swap of outer layers. `names`: task, language and, where there is one, base. What is not given is the paper's, scaled.

    A transition that is too wide for the task zone is an error, as in `merge swap`. Raises RecipeError.
    """
    profile = swap(anatomy, bottom=bottom, top=top, transition=transition, weights=weights, shares=shares, embed=embed, norm=norm,
                   head=head, parts=parts, base=len(names) > 2, names=names)
    z = zones(anatomy.layers, bottom=bottom, top=top, transition=transition)
    policy = {"embed": embed, "norm": norm, "head": head}
    words = [f"b{z.bottom} u{z.top} t{max(z.t_bottom, z.t_top) if transition is None else transition}"]
    words += [weights] * (weights != "plain") + ["+".join(p for p in PARTS if p in parts)] * (set(parts) != set(PARTS))
    words += [f"{k}={v}" for k, v in policy.items() if v is not None]
    made = {"kind": "window", "task": names[0], "language": names[1], "bottom": z.bottom, "top": z.top,
            "transition": max(z.t_bottom, z.t_top) if transition is None else transition, "weights": weights,
            "parts": [p for p in PARTS if p in parts], **policy}
    return Candidate(" ".join(words), profile, made)


def custom(
    anatomy: Anatomy,
    names: Sequence[str],
    layers: Sequence[float] | Mapping[str, Sequence[float]],
    *,
    name: str = "custom",
    embed: Policy | None = None,
    norm: Policy | None = None,
    head: Policy | None = None,
) -> Candidate:
    """A share of the language expert for every layer: one list, or one for each kind of part (attn, ffn, norm).

    A kind that is not named stays the task expert's; what is outside the layers follows `embed`, `norm` and `head` (default: the
    mean, as in a swap). Raises RecipeError for lists of another length and for shares outside 0 to 1.
    """
    by: dict[str, Sequence[float]] = dict(layers) if isinstance(layers, Mapping) else dict.fromkeys(map(str, PARTS), layers)
    for kind, shares in by.items():
        if kind not in PARTS:
            raise RecipeError("not a kind of part that can be chosen", where="layers", found=kind, expected=", ".join(PARTS))
        if len(shares) != anatomy.layers or not all(0 <= s <= 1 for s in shares):
            raise RecipeError("not one share for every layer", where=f"layers.{kind}", found=f"{len(shares)} numbers",
                              expected=f"{anatomy.layers} numbers from 0 to 1")
    rules = policies(anatomy.tied, embed, norm, head)
    n = len(names)
    outer = {"task": mix(n, 0.0), "language": mix(n, 1.0), "mean": mix(n, 0.5), "base": (0.0, 0.0, 1.0)[:n]}
    if n < 3 and "base" in rules.values():
        raise RecipeError("takes its weights from the base, and no base is named", where="embed, norm, head", found="base")

    def vector(part: Part) -> Vector:
        if part.layer is None:
            return outer[rules.get(group(part) or "", "task")]
        return mix(n, float(by[part.kind][part.layer])) if part.kind in by else mix(n, 0.0)

    given = {kind: [float(s) for s in shares] for kind, shares in by.items()}
    weights = {k: vector(p) for k, p in anatomy.parts.items()}
    profile = Profile("custom", "linear", tuple(names), weights, {"layers": given, **rules})
    made = {"kind": "custom", "task": names[0], "language": names[1], "layers": given, "embed": embed, "norm": norm, "head": head}
    return Candidate(name, profile, made)


def mix(n: int, share: float) -> Vector:
    """The weights of n sources (task, language, base) for a share of the language expert."""
    return (1.0 - share, share, 0.0)[:n]


# -------------------------------------------------------------------------------------------------------- several experts


def placed(candidate: Candidate, sources: Sequence[str], name: str | None = None) -> Candidate:
    """The same candidate over a longer list of sources, each found by its name; those it does not know have weight 0."""
    at = [candidate.profile.sources.index(s) if s in candidate.profile.sources else None for s in sources]
    weights = {k: tuple(0.0 if i is None else w[i] for i in at) for k, w in candidate.profile.weights.items()}
    profile = replace(candidate.profile, sources=tuple(sources), weights=weights)
    return replace(candidate, name=name or candidate.name, profile=profile)


def needed(profile: Profile) -> tuple[Profile, list[int]]:
    """The profile without the sources that it takes nothing from, and the places of those it keeps: what writing it must read."""
    used = sorted({i for w in profile.weights.values() for i, x in enumerate(w) if x})
    weights = {k: tuple(w[i] for i in used) for k, w in profile.weights.items()}
    return replace(profile, sources=tuple(profile.sources[i] for i in used), weights=weights), used


# --------------------------------------------------------------------------------------------------------------- controls


def default(anatomy: Anatomy, names: Sequence[str]) -> Candidate:
    """The published 5, 2, 1 at 32 layers, scaled (arXiv 2410.01335)."""
    return replace(window(anatomy, names), name="paper's default")


def mean(anatomy: Anatomy, names: Sequence[str]) -> Candidate:
    """The soup of the task and the language expert, half of each (arXiv 2203.05482)."""
    made = Candidate("soup", soup(anatomy, names[:2]), {"kind": "soup", "task": names[0], "language": names[1]})
    return placed(made, names)


def experts(anatomy: Anatomy, names: Sequence[str]) -> list[Candidate]:
    """Each source as it is."""
    ones = [tuple(float(i == j) for j in range(len(names))) for i in range(len(names))]
    return [Candidate(n, Profile("expert", "linear", tuple(names), dict.fromkeys(anatomy.parts, one), {"expert": n}),
                      {"kind": "expert", "expert": n}) for n, one in zip(names, ones)]


# --------------------------------------------------------------------------------------------------------- random windows

Column = dict[str, Vector]  # what one layer takes, by kind of part


def windows(anatomy: Anatomy, candidate: Candidate, seeds: Iterable[int]) -> list[Candidate]:
    """The candidate's blocks of changed layers, in random order at random places: one for each seed, none twice, never itself.

    Fewer than there are seeds where there are not that many places; none where no layer, or every layer, is changed alike.
    """
    task = _task(candidate)
    found, taken = [], [columns(anatomy, candidate.profile)]
    for seed in seeds:
        rng = random.Random(seed)
        for _ in range(DRAWS):
            drawn = _scattered(taken[0], task, rng)
            if drawn not in taken:
                taken.append(drawn)
                found.append(_moved(anatomy, candidate, drawn, seed))
                break
    return found


def columns(anatomy: Anatomy, profile: Profile) -> list[Column]:
    """What each layer takes of every source, for each kind of part, as its first tensor of that kind does."""
    found: list[Column] = [{} for _ in range(anatomy.layers)]
    for key, part in anatomy.parts.items():
        if part.layer is not None and part.kind in PARTS and key in profile.weights:
            found[part.layer].setdefault(part.kind, profile.weights[key])
    return found


def _task(candidate: Candidate) -> int:
    """The place of the task expert among a candidate's sources."""
    return candidate.profile.sources.index(candidate.params["task"])


def _untouched(column: Column, task: int) -> bool:
    return all(v[task] == 1.0 for v in column.values())


def blocks(layers: Sequence[Column], task: int) -> tuple[list[list[Column]], list[Column]]:
    """Runs of layers that are not wholly the task expert's, and the untouched layers between them."""
    runs: list[list[Column]] = []
    rest, inside = [], False
    for column in layers:
        if _untouched(column, task):
            rest.append(column)
            inside = False
        else:
            runs = runs if inside else [*runs, []]
            runs[-1].append(column)
            inside = True
    return runs, rest


def _scattered(layers: Sequence[Column], task: int, rng: random.Random) -> list[Column]:
    """The same layers with their blocks moved: order and gaps uniformly at random."""
    runs, rest = blocks(layers, task)
    order = rng.sample(runs, len(runs))
    cuts = sorted(rng.sample(range(len(rest) + len(runs)), len(runs)))  # stars and bars: all gaps equally likely
    out, at = [], 0
    for i, cut in enumerate(cuts):
        gap = cut - i
        out += [*rest[at:gap], *order[i]]
        at = gap
    return [*out, *rest[at:]]


def _moved(anatomy: Anatomy, candidate: Candidate, layers: Sequence[Column], seed: int) -> Candidate:
    old = candidate.profile
    weights = {k: layers[p.layer].get(p.kind, old.weights[k]) if p.layer is not None else old.weights[k]
               for k, p in anatomy.parts.items()}
    changed = [i for i, c in enumerate(layers) if not _untouched(c, _task(candidate))]
    kept = {k: candidate.params[k] for k in ("task", "language") if k in candidate.params}
    params = {"kind": "random", "of": candidate.name, "seed": seed, "layers": changed, **kept}
    profile = Profile("random window", old.method, old.sources, weights, {"of": old.params, "seed": seed, "layers": changed},
                      old.anchor)
    return Candidate(f"random window {seed}", profile, params)

