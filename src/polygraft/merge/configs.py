"""What each merge takes: the fields of a recipe's step, the flags of a verb, the arguments of the Python functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

from pydantic import Field

from polygraft.anatomy import Anatomy
from polygraft.config import Strict
from polygraft.errors import RecipeError
from polygraft.merge import makers
from polygraft.merge.makers import PARTS, Kind, Policy, Weighting
from polygraft.merge.profile import Profile
from polygraft.selectionfile import Entry
from polygraft.step import ModelRef, SelectRef

Space = Literal["weights", "adapter"]
Shares = tuple[float, float]
Make = Callable[[Anatomy, Sequence[str], Shares], Profile]
MODELS: dict[str, Any] = {"argument": True}
LONGEST = 40  # characters of a short name
HIDDEN: dict[str, Any] = {"hidden": True}


@dataclass(frozen=True)
class Request:
    """A merge before its sources are opened. `refs` and `roles` are in the profile's order; `base` is the base's place, if any."""

    name: str
    refs: tuple[str, ...]
    roles: tuple[str, ...]
    make: Make
    base: int | None = None
    lead: int = 0
    measured: bool = False
    space: Space = "weights"

    @property
    def names(self) -> tuple[str, ...]:
        """What maps and cards call the sources: the last word of what was typed, or the roles when those are ambiguous or long."""
        short = tuple(PurePath(r.split("@")[0]).name or r for r in self.refs)
        return short if len(set(short)) == len(short) and max(map(len, short)) <= LONGEST else self.roles

    def donor(self, asked: str | None) -> int:
        """The place of the source that gives config and tokenizer: named by role, by its short name or as it was typed."""
        if asked is None:
            return self.lead
        for words in (self.roles, self.refs, self.names):
            if asked in words:
                return words.index(asked)
        raise RecipeError(
            "not one of the sources", where="donor", found=asked, expected=", ".join(dict.fromkeys((*self.roles, *self.names)))
        )


class Common(Strict):
    """What every merge takes."""

    donor: str | None = Field(
        None, description="the source whose config, tokenizer and chat template the result takes (default: the expert)"
    )
    shard_bytes: int = Field(1_000_000_000, gt=0, description="a larger model is written in files of at most so many bytes")
    anatomy: tuple[dict[str, str], ...] = Field((), description="rows for tensors that no rule knows", json_schema_extra=HIDDEN)


class Swap(Common):
    """Bottom and top layers of a language expert, the middle of a task expert (arXiv 2410.01335)."""

    task: ModelRef = Field(description="the task expert, which gives the middle layers")
    language: ModelRef = Field(description="the language expert, which gives the bottom and top layers")
    base: ModelRef | None = Field(None, description="what both were trained from; needed by magnitude weights and the policy base")
    bottom: int | None = Field(None, ge=0, description="bottom layers from the language expert (default: 5 of 32, scaled)")
    top: int | None = Field(None, ge=0, description="top layers from the language expert (default: 2 of 32, scaled)")
    transition: int | None = Field(None, ge=0, description="blended layers inside each swapped zone (default: 1 of 32, scaled)")
    t_bottom: int | None = Field(None, ge=0, description="transition at the bottom, where it differs")
    t_top: int | None = Field(None, ge=0, description="transition at the top, where it differs")
    weights: Weighting = Field(
        "plain", description="how blends weigh: halves, by 1/mean|change| of each expert, or a ramp through the transition"
    )
    embed: Policy | None = Field(None, description="source of the embedding (default: mean)")
    norm: Policy | None = Field(None, description="source of the final norm (default: mean)")
    head: Policy | None = Field(None, description="source of the output head (default: mean)")
    parts: tuple[Kind, ...] = Field(PARTS, min_length=1, description="which parts of the layers are swapped")
    space: Space = Field("weights", description="adapter: both experts are LoRA on one base, and the result is an adapter too")

    def request(self) -> Request:
        if self.weights == "magnitude" and self.base is None:
            raise RecipeError(
                "magnitude weights compare each expert with the base, and no base is named",
                where="base",
                fix="name the base model, or use plain or ramp",
            )
        refs = (self.task, self.language, *((self.base,) if self.base else ()))

        def make(anatomy: Anatomy, names: Sequence[str], shares: Shares) -> Profile:
            fields = self.model_dump(include=SWAP_NUMBERS | {"weights", "embed", "norm", "head", "parts"})
            return makers.swap(anatomy, **fields, shares=shares, base=self.base is not None, names=names)

        return Request(
            "swap",
            refs,
            ("task", "language", "base")[: len(refs)],
            make,
            2 if self.base else None,
            measured=self.weights == "magnitude",
            space=self.space,
        )


SWAP_NUMBERS = {"bottom", "top", "transition", "t_bottom", "t_top"}
ZONE = SWAP_NUMBERS | {"embed", "norm", "head", "parts", "zone"}
Kept = Literal["expert", "base", "mean"]


class Revert(Common):
    """Train-then-revert: an expert with its outer or middle layers put back to the base (arXiv 2505.18356)."""

    expert: ModelRef = Field(description="the trained model")
    base: ModelRef = Field(description="what it was trained from")
    zone: Literal["outer", "middle"] = Field(
        "outer", description="which layers go back to the base: bottom and top, or what lies between"
    )
    bottom: int | None = Field(None, ge=0, description="layers of the bottom zone (default: 5 of 32, scaled)")
    top: int | None = Field(None, ge=0, description="layers of the top zone (default: 2 of 32, scaled)")
    transition: int | None = Field(None, ge=0, description="blended layers inside each zone (default: 1 of 32, scaled)")
    t_bottom: int | None = Field(None, ge=0, description="transition at the bottom, where it differs")
    t_top: int | None = Field(None, ge=0, description="transition at the top, where it differs")
    embed: Kept | None = Field(None, description="source of the embedding (default: expert)")
    norm: Kept | None = Field(None, description="source of the final norm (default: expert)")
    head: Kept | None = Field(None, description="source of the output head (default: expert)")
    parts: tuple[Kind, ...] = Field(PARTS, min_length=1, description="which parts of the layers are reverted")
    select: SelectRef | None = Field(None, description="put back the parts that a selection file names, instead of a zone")
    space: Space = Field("weights", description="adapter: the expert is LoRA, and the result is an adapter too")

    def request(self, selected: tuple[Entry, ...] | None = None) -> Request:
        """`selected` are the entries that `select` means."""
        fields = type(self).model_fields
        also = [n for n in sorted(ZONE) if getattr(self, n) != fields[n].default]
        if self.select is not None and also:
            raise RecipeError("a selection says all that goes back", where="select", found=", ".join(also),
                              fix=f"leave out select, or {', '.join(also)}")

        def make(anatomy: Anatomy, names: Sequence[str], shares: Shares) -> Profile:
            if selected is not None:
                return makers.revert_selected(anatomy, selected, names)
            fields = self.model_dump(include=ZONE)
            return makers.revert(anatomy, names=names, **fields)

        return Request("revert", (self.expert, self.base), ("expert", "base"), make, 1, space=self.space)


class Soup(Common):
    """Weighted mean of models (arXiv 2203.05482)."""

    models: tuple[ModelRef, ...] = Field(min_length=2, description="the models", json_schema_extra=MODELS)
    weights: tuple[float, ...] | None = Field(None, description="one number per model, divided by their sum (default: equal)")
    space: Space = Field("weights", description="adapter: all are LoRA on one base, and the result is an adapter too")

    def request(self) -> Request:
        roles = tuple(f"model {i + 1}" for i in range(len(self.models)))
        return Request("soup", self.models, roles, lambda a, names, _: makers.soup(a, names, self.weights), space=self.space)


class OnBase(Common):
    """Methods on differences to a base."""

    models: tuple[ModelRef, ...] = Field(min_length=1, description="the experts", json_schema_extra=MODELS)
    base: ModelRef = Field(description="what they were trained from")

    def on_base(self, name: str, make: Make, space: Space = "weights") -> Request:
        roles = ("base", *(f"expert {i + 1}" for i in range(len(self.models))))
        return Request(name, (self.base, *self.models), roles, make, 0, 1, space=space)


class Task(OnBase):
    """Task arithmetic: base + sum of scale x (expert - base) (arXiv 2212.04089)."""

    scales: tuple[float, ...] | None = Field(None, description="one number per expert (default: 1 each)")
    space: Space = Field("weights", description="adapter: the experts are LoRA on the base, and the result is an adapter too")

    def request(self) -> Request:
        scales = self.scales if self.scales is not None else (1.0,) * len(self.models)
        return self.on_base("task", lambda a, names, _: makers.task(a, names, scales), self.space)


class Ties(OnBase):
    """TIES-merging: trim, elect signs, average what agrees (arXiv 2306.01708)."""

    weights: tuple[float, ...] | None = Field(None, description="one number per expert (default: 1 each)")
    density: float = Field(0.2, ge=0, le=1, description="share of each expert's change that is kept, the largest entries")
    scale: float = Field(1.0, description="factor of the merged change, lambda in the paper")

    def request(self) -> Request:
        kept: dict[str, Any] = {"density": self.density, "scale": self.scale}
        return self.on_base("ties", lambda a, names, _: makers.ties(a, names, self.weights, **kept))


class DareTies(OnBase):
    """DARE, then TIES: drop entries of each change at random, rescale, elect signs, average (arXiv 2311.03099)."""

    weights: tuple[float, ...] | None = Field(None, description="one number per expert (default: 1 each)")
    density: float = Field(0.5, ge=0, le=1, description="probability of keeping an entry")
    scale: float = Field(1.0, description="factor of the merged change")
    seed: int = Field(0, ge=0, description="seed of the random drop")

    def request(self) -> Request:
        kept: dict[str, Any] = {"density": self.density, "scale": self.scale, "seed": self.seed}
        return self.on_base("dare_ties", lambda a, names, _: makers.dare_ties(a, names, self.weights, **kept))


class Slerp(Common):
    """Spherical interpolation of two models, tensor by tensor."""

    models: tuple[ModelRef, ...] = Field(min_length=2, max_length=2, description="the two models", json_schema_extra=MODELS)
    t: float | dict[str, float] = Field(
        0.5,
        description="from the first model (0) to the second (1); in a recipe also one per part: {attn: 0.3, other: 0.5}",
        json_schema_extra={"metavar": "X"},
    )

    def request(self) -> Request:
        return Request("slerp", self.models, ("model 1", "model 2"), lambda a, names, _: makers.slerp(a, names, self.t))


Config = Swap | Revert | Soup | Task | Ties | DareTies | Slerp
