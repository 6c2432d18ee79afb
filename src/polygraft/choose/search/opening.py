"""From a config to what a search works with: sources with their names, the items, and how blends are weighed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from polygraft.anatomy import Anatomy
from polygraft.choose.candidates import MADE, experts
from polygraft.choose.search.config import Search
from polygraft.choose.search.space import Pair, Space
from polygraft.errors import InputError, RecipeError
from polygraft.merge import compat, engine, steps, tokens
from polygraft.merge.configs import Request
from polygraft.merge.profile import Profile
from polygraft.merge.write import Named, anatomy_of
from polygraft.sources import SERVER, Source
from polygraft.step import Context


@dataclass(frozen=True)
class Opened:
    """The sources in the profiles' order, checked to be models that can be merged; `notes`: harmless differences."""

    sources: tuple[Source, ...]
    named: tuple[Named, ...]
    anatomy: Anatomy
    notes: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(n.name for n in self.named)

    def near(self, config: Search) -> Mapping[str, Profile]:
        """The profile of each source that candidates may be asked to stay near: of several experts of a side the first."""
        alone = [c.profile for c in experts(self.anatomy, self.names)]
        found = {"task": alone[0], "language": alone[len(config.task)]}
        return found | ({"base": alone[-1]} if config.base else {})


def opened(config: Search, context: Context) -> Opened:
    """Open every source; an adapter that names no base lies on the config's. Raises UserError for what cannot be merged."""
    base = len(config.sources) - 1 if config.base else None
    request = Request("search", config.sources, roles(config), _never, base)
    sources = steps.opened(request, context)
    for ref, source in zip(config.sources, sources):
        if source.kind == SERVER:
            raise InputError("a model behind a server has no layers here", where=ref, fix="name a folder or a hub id")
    named = steps.named(request, sources)
    if any(MADE.fullmatch(n.name) for n in named):  # a folder called `soup` is not the soup
        named = tuple(replace(n, name=role) for n, role in zip(named, request.roles))
    compat.check([(n.name, n.weights) for n in named])
    notes = tokens.check([(n.name, n.weights.extras) for n in named], 0)
    return Opened(tuple(sources), named, anatomy_of(named[0]), notes)


def roles(config: Search) -> tuple[str, ...]:
    """What sources are called where their own names are ambiguous or long: task, language, base; task 1, task 2 ... of several."""
    def of(role: str, n: int) -> list[str]:
        return [role] if n == 1 else [f"{role} {i + 1}" for i in range(n)]

    return (*of("task", len(config.task)), *of("language", len(config.language)), *(("base",) if config.base else ()))


def _never(*_: object) -> Profile:
    raise RecipeError("a search makes many profiles, and not one from a request")


def measured(config: Search, found: Opened, context: Context) -> dict[Pair, tuple[float, float]]:
    """For magnitude weights, the shares of each pair's blends: proportional to 1 / mean |change| from the base."""
    if "magnitude" not in config.weights:
        return {}
    pairs, at = Space(config, found.anatomy, found.names, {}).pairs, {n.name: n.weights for n in found.named}
    base = found.named[-1].weights
    shares = {}
    for i, (task, language) in enumerate(pairs):
        context.progress(i, len(pairs), "measuring changes")
        shares[task, language] = engine.shares(at[task], at[language], base, lambda n: None)
    return shares


def reference(config: Search, space: Space) -> str:
    """The name of the anchor that candidates are drawn against: of several pairs, the first's."""
    task, language = space.pairs[0]
    before = space.label((task, language))
    return {"task": task, "language": language, "soup": f"{before}soup", "default": f"{before}paper's default"}[config.against]
