"""The candidates that a search may try: windows of every pair of experts, and free mixtures of layers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polygraft.anatomy import Anatomy
from polygraft.choose.candidates import Candidate, custom, default, experts, mean, placed, window
from polygraft.choose.graft import trie
from polygraft.choose.graft.variants import Places
from polygraft.choose.search import numbers
from polygraft.choose.search.config import Search
from polygraft.errors import RecipeError
from polygraft.merge.makers import Policy
from polygraft.merge.profile import Profile

Pair = tuple[str, str]
HALVES = (0.5, 0.5)
POLICIES = ("embed", "norm", "head")


@dataclass(frozen=True)
class Space:
    """`names`: all sources, as they are called, in the profiles' order. `shares[pair]`: weights of blends in proportion to
    1 / mean |change| of each expert, measured where they are asked for. `missed`: windows that do not fit the model."""

    config: Search
    anatomy: Anatomy
    names: tuple[str, ...]
    shares: Mapping[Pair, tuple[float, float]]

    @property
    def pairs(self) -> list[Pair]:
        """Every task expert with every language expert."""
        n = len(self.config.task)
        return [(t, s) for t in self.names[:n] for s in self.names[n : n + len(self.config.language)]]

    @property
    def base(self) -> str | None:
        return self.names[-1] if self.config.base else None

    def of(self, pair: Pair) -> tuple[str, ...]:
        """The sources of one pair's candidates."""
        return (*pair, *((self.base,) if self.base else ()))

    def label(self, pair: Pair) -> str:
        """What stands before the names of a pair's candidates where there are several pairs."""
        return f"{pair[0]}+{pair[1]} " if len(self.pairs) > 1 else ""

    def place(self, pair: Pair, made: Candidate) -> Candidate:
        return placed(made, self.names, self.label(pair) + made.name)

    # ---------------------------------------------------------------------------------------------------------- windows

    def bottoms(self) -> tuple[int, ...]:
        """As typed, or 0 to under a half of the layers."""
        given = self.config.bottoms
        return numbers.parse(given) if given else tuple(range((self.anatomy.layers - 1) // 2 + 1))

    def tops(self) -> tuple[int, ...]:
        """As typed, or 0 to a quarter of the layers, rounded up."""
        given = self.config.tops
        return numbers.parse(given) if given else tuple(range(-(-self.anatomy.layers // 4) + 1))

    def policies(self) -> list[dict[str, Policy | None]]:
        """Every mixture of the sources outside the layers; one tensor that is embedding and head has one source."""
        named = {k: getattr(self.config, k) or (None,) for k in POLICIES}
        found = [dict(zip(named, values)) for values in itertools.product(*named.values())]
        if self.anatomy.tied:
            found = [p for p in found if p["embed"] is None or p["head"] is None or p["embed"] == p["head"]]
        return found

    def grid(self) -> list[Candidate]:
        """Every window that fits, none twice. Raises RecipeError where none does."""
        c = self.config
        found: dict[Any, Candidate] = {}
        axes = itertools.product(self.pairs, self.bottoms(), self.tops(), numbers.parse(c.transitions), c.weights, c.parts,
                                 self.policies())
        for pair, bottom, top, transition, weights, parts, policy in axes:
            sides = (bottom > 0) + (top > 0)
            if bottom + top + transition * sides > self.anatomy.layers:
                continue
            made = window(self.anatomy, self.of(pair), bottom=bottom, top=top, transition=transition, weights=weights,
                          shares=self.shares.get(pair, HALVES) if weights == "magnitude" else HALVES, parts=parts.split("+"),
                          **policy)
            made = self.place(pair, made)
            found.setdefault(content(made), made)
        if not found:
            raise RecipeError("no window fits this model", where="bottoms, tops", expected=f"{self.anatomy.layers} layers in all",
                              fix="try fewer layers at each end")
        return list(found.values())

    def anchors(self) -> list[Candidate]:
        """What candidates are compared with, whatever the strategy: each source as it is, and of each pair the soup and the paper's
        default."""
        made = [self.place(p, make(self.anatomy, self.of(p))) for p in self.pairs for make in (mean, default)]
        return [*experts(self.anatomy, self.names), *made]

    # --------------------------------------------------------------------------------------------------------- mixtures

    def runs(self) -> list[range]:
        """Runs of neighbouring layers that change together: at most `groups`, as equal as can be."""
        n, k = self.anatomy.layers, min(self.config.groups, self.anatomy.layers)
        ends = [round(i * n / k) for i in range(k + 1)]
        return [range(a, b) for a, b in itertools.pairwise(ends)]

    def kinds(self) -> list[tuple[str, ...]]:
        """The kinds of parts that change together, as `parts` lists them. Raises RecipeError where two have a kind in common."""
        found = [tuple(p.split("+")) for p in self.config.parts]
        every = [kind for group in found for kind in group]
        if len(set(every)) < len(every):
            raise RecipeError("a mixture chooses each kind of parts once", where="parts", found=", ".join(self.config.parts),
                              expected="no kind in two of them, such as attn+norm,ffn")
        return found

    def genes(self) -> list[tuple[int, int]]:
        """What a mixture is free in: (number of the run, number of the kinds)."""
        return [(r, k) for k in range(len(self.kinds())) for r in range(len(self.runs()))]

    def mixture(self, pair: Pair, shares: Sequence[float], policy: Mapping[str, Policy | None] | None = None) -> Candidate:
        """The candidate whose every gene has this share of the language expert."""
        runs, kinds = self.runs(), self.kinds()
        by = {kind: [0.0] * self.anatomy.layers for group in kinds for kind in group}
        for (r, k), share in zip(self.genes(), shares, strict=True):
            for kind in kinds[k]:
                for layer in runs[r]:
                    by[kind][layer] = float(share)
        words = {k: v for k, v in (policy or {}).items() if v is not None}
        name = " ".join(["".join(_letter(s) for s in shares), *(f"{k}={v}" for k, v in words.items())])
        return self.place(pair, custom(self.anatomy, self.of(pair), by, name=f"mix {name}", **(policy or {})))


def _letter(share: float) -> str:
    """One character for a share of the language expert: 0 none, 1 all, 5 a half."""
    return {0.0: "0", 1.0: "1"}.get(share, f"({share:g})" if share != 0.5 else "5")


def content(candidate: Candidate) -> tuple[Any, ...]:
    """What makes two candidates the same."""
    return (candidate.profile.method, *candidate.profile.weights.values())


def together(profiles: Sequence[Profile], anatomy: Anatomy) -> trie.Trie:
    """The trie in which these would be computed: once each, what they begin with alike."""
    places = Places.of(anatomy)
    return trie.build([places.path(p, range(len(p.sources)))[0] for p in profiles])


def ordered(profiles: Sequence[Profile], anatomy: Anatomy) -> list[int]:
    """Places in an order in which those that share their lower layers are neighbours: what is cut into runs keeps sharing."""
    return sorted(range(len(profiles)), key=together(profiles, anatomy).route)
