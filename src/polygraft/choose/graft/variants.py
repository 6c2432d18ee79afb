"""From profiles to variants: how every tensor of a candidate comes about, told so that equal ones are equal whoever asks."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from polygraft.anatomy import Anatomy
from polygraft.errors import InputError
from polygraft.merge.profile import VECTORS, Profile


@dataclass(frozen=True)
class Blend:
    """A tensor that is computed from several sources. `token` decides its numbers; `profile` is one that asks for it, and `models`
    says which source stands at each place of that profile."""

    token: tuple[Hashable, ...]
    profile: Profile = field(compare=False)
    models: tuple[int, ...] = field(compare=False)


Origin = int | Blend  # the source that a tensor is copied from, or how it is computed
Variant = tuple[tuple[str, Origin], ...]  # keys of files with their origins, in the order of the checkpoint


def origin(profile: Profile, key: str, models: Sequence[int]) -> Origin:
    """Where the numbers of this tensor come from; `models` says which source stands at each place of the profile."""
    copied = profile.copied_from(key)
    if copied is not None:
        return models[copied]
    token: tuple[Hashable, ...] = (profile.method, tuple(models), profile.weights[key])
    if profile.method in VECTORS:
        said = {name: profile.params.get(name) for name in ("density", "scale", "seed")}
        token += (profile.sources, *said.items())
    elif profile.method == "linear":
        token += (profile.anchor,)
    return Blend(token, profile, tuple(models))


@dataclass(frozen=True)
class Places:
    """Which keys a live model reads where: before the layers, in each of them, and behind them. Buffers are nowhere."""

    before: tuple[str, ...]
    layers: tuple[tuple[str, ...], ...]
    behind: tuple[str, ...]

    @classmethod
    def of(cls, anatomy: Anatomy) -> Places:
        """Keys of an anatomy, in the order of the checkpoint. A tied embedding stands on both sides."""
        live = {key: part for key, part in anatomy.parts.items() if anatomy.live_name(key) is not None}
        outside = {key: part for key, part in live.items() if part.layer is None}
        last = {k for k, p in outside.items() if p.kind in ("final_norm", "head")}
        both = {k for k, p in outside.items() if p.label == "embed" and anatomy.tied}
        if anatomy.tied:  # a head that is stored all the same is not read
            last -= {k for k, p in outside.items() if p.label == "head"}
        layers: list[list[str]] = [[] for _ in range(anatomy.layers)]
        for key, part in live.items():
            if part.layer is not None:
                layers[part.layer].append(key)
        before = tuple(k for k, p in outside.items() if k not in last and p.label != "head")
        return cls(before, tuple(map(tuple, layers)), tuple(k for k in outside if k in last | both))

    def path(self, profile: Profile, models: Sequence[int]) -> tuple[list[Variant], Variant]:
        """(the embedding's variant and each layer's, what stands behind them). Raises InputError for a profile of another model."""
        def variant(keys: Sequence[str]) -> Variant:
            return tuple((key, origin(profile, key, models)) for key in keys)

        try:
            return [variant(keys) for keys in (self.before, *self.layers)], variant(self.behind)
        except KeyError as error:
            raise InputError("the profile says nothing of a tensor", where=profile.name, found=str(error.args[0]),
                             fix="make the profile for this model") from None
