"""Parameters of many merges of the same sources: each source's held once, each blend computed once and forgotten for room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from polygraft.adapter import MergedView
from polygraft.anatomy import Anatomy
from polygraft.checkpoint import Weights
from polygraft.choose.graft.variants import Blend, Origin, Variant
from polygraft.errors import InputError
from polygraft.merge.engine import Merge, settle
from polygraft.merge.live import tensor
from polygraft.merge.profile import Profile
from polygraft.model import inside
from polygraft.standins import empty_parameter, places, read

if TYPE_CHECKING:
    import torch


class Parameters:
    """Reads and computes what variants ask for, and puts it into a live model, whose own code then runs on it.

    model: built without weights. room: bytes of blends that are kept, the least recently used are forgotten. keep: hold what was
    read of a source for good, else until `forget`. blends: how many tensors were computed.
    """

    def __init__(self, model: Any, anatomy: Anatomy, sources: Sequence[Weights], device: str, *, keep: bool, room: int):
        self.model, self.anatomy, self.sources, self.device = model, anatomy, list(sources), device
        self.keep, self.room, self.blends = keep, room, 0
        self.shapes = {name: empty_parameter(p, "meta") for name, p in model.named_parameters()}
        self.spots = {name: list(places(model, [name])) for name in self.shapes}
        self.changed = [w.changed() if isinstance(w, MergedView) else set() for w in sources]
        self.layer_of = {name: anatomy.parts[anatomy.file_keys(name)[0]].layer for name in self.shapes}
        self._read: dict[tuple[Any, str], Any] = {}
        self._blended: OrderedDict[tuple[str, tuple[Origin, ...]], Any] = OrderedDict()
        self._worn: dict[str, tuple[Origin, ...]] = {}

    def wear(self, variant: Variant) -> None:
        """Let the live model's parameters be this variant's; those that already are stay. Raises InputError."""
        origins = dict(variant)
        for name in dict.fromkeys(self._name(key) for key in origins):
            wanted = tuple(origins[key] for key in self.anatomy.file_keys(name))
            if self._worn.get(name) != wanted:
                value = self._parameter(name, wanted)
                for module, own in self.spots[name]:
                    module._parameters[own] = value
                self._worn[name] = wanted

    def forget(self, layer: int) -> None:
        """Take a layer's parameters out of memory, unless what is read is kept; they are read again when they are worn again."""
        names = set() if self.keep else {name for name in self._worn if self.layer_of[name] == layer}
        for name in names:
            for module, own in self.spots[name]:
                module._parameters[own] = self.shapes[name]
            del self._worn[name]
        self._read = {k: v for k, v in self._read.items() if k[1] not in names}
        self._blended = OrderedDict((k, v) for k, v in self._blended.items() if k[0] not in names)

    @property
    def held(self) -> int:
        """Bytes of parameters in memory: what was read of the sources, and blends."""
        return sum(p.nbytes for p in self._read.values()) + self.blended

    @property
    def blended(self) -> int:
        """Bytes of blends in memory, at most `room` and one tensor."""
        return sum(p.nbytes for p in self._blended.values())

    def _name(self, key: str) -> str:
        name = self.anatomy.live_name(key)
        if name not in self.shapes:
            raise InputError("a tensor that the model has no place for", where=self.anatomy.where, found=key)
        return str(name)

    def _parameter(self, name: str, wanted: tuple[Origin, ...]) -> Any:
        first = wanted[0]
        if isinstance(first, int) and all(o == first for o in wanted):
            return self._copied(name, first)
        key = (name, wanted)
        if key in self._blended:
            self._blended.move_to_end(key)
            return self._blended[key]
        made = self._filled(name, wanted)
        self._blended[key] = made
        while len(self._blended) > 1 and self.blended > self.room:
            self._blended.popitem(last=False)
        return made

    def _copied(self, name: str, source: int) -> Any:
        held = (self._owner(source, self.anatomy.file_keys(name)), name)
        if held not in self._read:
            self._read[held] = self._filled(name, tuple(source for _ in self.anatomy.file_keys(name)))
        return self._read[held]

    def _owner(self, source: int, keys: Sequence[str]) -> Any:
        """Whose bytes these are: of a tensor that an adapter leaves alone its base's, which other adapters may share.

        An identity is made of headers and times, which two checkpoints out of one archive have in common: the folder tells them
        apart.
        """
        weights = self.sources[source]
        if not isinstance(weights, MergedView):
            return str(weights.path), weights.identity
        if self.changed[source].isdisjoint(keys):
            return str(weights.base.path), weights.base.identity
        return source

    def _filled(self, name: str, wanted: tuple[Origin, ...]) -> Any:
        """A new parameter from the tensors of the files that make it up. Raises InputError where they do not fill it."""
        made = empty_parameter(self.shapes[name], self.device)
        filled = 0
        for key, origin in zip(self.anatomy.file_keys(name), wanted):
            target = inside(self.anatomy, key, made.data)
            if isinstance(origin, int):
                read(self.sources[origin], key, target)
            else:
                target.copy_(self._computed(origin, key))
                self.blends += 1
            filled += target.numel()
        if filled != made.numel():
            raise InputError("the tensors of the files do not fill a parameter", where=self.anatomy.where, found=name)
        return made

    def _computed(self, blend: Blend, key: str) -> torch.Tensor:
        return tensor(Merge(blend.profile, [self.sources[i] for i in blend.models]), key)

    def settled(self, profile: Profile, models: Sequence[int]) -> Profile:
        """The profile with what cannot be computed copied from its heaviest source, as a written merge has it."""
        return settle(profile, [self.sources[i] for i in models])


