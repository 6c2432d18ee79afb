"""Grafter: sources opened once, and any number of their merges evaluated without writing or materialising one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraft.anatomy import Anatomy
from polygraft.blocks import holds, whole_bytes
from polygraft.choose.graft import reading, trie
from polygraft.choose.graft.frame import Frame
from polygraft.choose.graft.head import Divergence, Likelihoods, Reference
from polygraft.choose.graft.parameters import Parameters
from polygraft.choose.graft.pieces import Read
from polygraft.choose.graft.scores import Scores, Work, totals
from polygraft.choose.graft.variants import Places, Variant
from polygraft.choose.graft.walk import Memory, Walk
from polygraft.errors import InputError
from polygraft.merge import compat, tokens
from polygraft.merge.profile import Profile
from polygraft.spill import Spill

if TYPE_CHECKING:
    from polygraft.sources import Source

LIMIT = 256 << 20  # bytes of hidden states in memory
Progress = Callable[[int, int], None]  # layers computed, of how many


def _unheard(done: int, total: int) -> None:
    """Nobody wants to know how far it is."""


@dataclass(frozen=True)
class Plan:
    """Candidates as a trie, and what each ends with."""

    trie: trie.Trie
    ends: list[Variant]

    @property
    def leaves(self) -> dict[int, list[int]]:
        """Candidates by the node where they end."""
        found: dict[int, list[int]] = {}
        for candidate, node in enumerate(self.trie.leaf):
            found.setdefault(node, []).append(candidate)
        return found


@dataclass
class Grafter:
    """Many merges of the same sources, computed together: candidates share what they begin with, down to the last equal layer.

    anatomy, tokenizer and max_length (tokens) are the lead source's; `notes` say what a reader of the scores should know; `work` what
    was computed. Numbers equal those of the written merge but for float rounding. Made by `open`.
    """

    anatomy: Anatomy
    tokenizer: Any
    max_length: int
    frame: Frame
    parameters: Parameters
    names: tuple[str, ...]
    whole: bool
    spill: Path | None
    limit: int
    batch_tokens: int
    notes: list[str] = field(default_factory=list)
    work: Work = field(default_factory=Work)

    def __post_init__(self) -> None:
        self.places = Places.of(self.anatomy)
        self.reader = reading.Reader(self.frame.model, self.frame.device, self.batch_tokens, self._lead_alone)

    @classmethod
    def open(cls, sources: Sequence[Source], *, lead: int = 0, dtype: str = "auto", device: str = "cpu", whole: bool | None = None,
             spill: Path | None = None, limit: int = LIMIT, batch_tokens: int = 512) -> Grafter:
        """Sources in the order that profiles name them; `lead` is the one that config and tokenizer come from.

        dtype: as in an evaluation ("auto": the checkpoint's, or float32 on a CPU without bfloat16). whole: hold every source in
        memory (None: where they fit), else one layer of them at a time. limit: bytes of hidden states in memory; beyond, fewer
        candidates go up at once, or, with layers from files, states go to files in `spill`. batch_tokens: tokens in one call.
        Raises InputError where the sources cannot be merged, or the model cannot be built or run a layer at a time.
        """
        from polygraft import model as live_models
        from polygraft.evals.engines.hf import context_length
        from polygraft.standins import skeleton

        weights = [s.weights for s in sources]
        names = tuple(s.spec for s in sources)
        compat.check(list(zip(names, weights)))
        notes = tokens.check([(n, w.extras) for n, w in zip(names, weights)], lead)
        place = live_models.device_for(device)
        dtype, _ = live_models.dtype_for(place, dtype)
        first = sources[lead]
        folder = first.base.path if first.adapter is not None and first.base is not None else first.path
        anatomy = Anatomy.of(first.weights.config, first.weights.tensors, where=first.path)
        with live_models.quiet():
            model = skeleton(folder, first.weights, dtype)
            tokenizer = live_models.load_tokenizer(first.path) or live_models.load_tokenizer(folder)
        for module in model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                module._buffers[name] = buffer.to(place)
        if whole is None:
            whole = holds(sum(whole_bytes(w, dtype) for w in [*weights, first.weights]), place)
        one = sum(p.nbytes for p in model.parameters())
        parameters = Parameters(model, anatomy, weights, place, keep=whole, room=one)
        return cls(anatomy, tokenizer, context_length(model, tokenizer), Frame(model, anatomy, place), parameters, names, whole, spill,
                   limit, batch_tokens, list(notes))

    # ------------------------------------------------------------------------------------------------------------ what is asked

    def likelihoods(self, profiles: Sequence[Profile], rows: Sequence[Sequence[int]], scored: Sequence[int],
                    progress: Progress = _unheard) -> Scores:
        """Log-likelihood (nats) of the last `scored[i]` tokens of each id sequence under each profile, and whether all are greedy."""
        plan = self._plan(profiles)
        read = self.reader.read(rows, scored)
        found = Likelihoods(len(profiles), read.asked)
        self._walk(plan, read, found, progress)
        return Scores(*totals(found.nats, found.greedy, read.paths))

    def divergence(self, profiles: Sequence[Profile], rows: Sequence[Sequence[int]], scored: Sequence[int], reference: Profile,
                   progress: Progress = _unheard) -> np.ndarray:
        """KL(reference || candidate) in nats, float64 [profiles, rows], summed over the scored positions; no gold answer counts."""
        read = self.reader.read(rows, scored)
        against = Reference(self.limit)
        self._walk(self._plan([reference]), read, against, _unheard)
        found = Divergence(len(profiles), len(read.spots), against)
        self._walk(self._plan(profiles), read, found, progress)
        spots = [np.unique(read.asked[path, 0]) for path in read.paths]
        return np.stack([found.kl[:, at].sum(1) for at in spots], 1)

    def _lead_alone(self, read: Read) -> np.ndarray:
        """Nats of each row under the first source alone."""
        weights = {key: tuple(float(i == 0) for i in range(len(self.names))) for key in self.anatomy.parts}
        found = Likelihoods(1, read.asked)
        self._walk(self._plan([Profile("lead", "linear", self.names, weights)]), read, found, _unheard)
        return totals(found.nats, found.greedy, read.paths)[0][0]

    # ----------------------------------------------------------------------------------------------------------------- the walk

    def _plan(self, profiles: Sequence[Profile]) -> Plan:
        paths, ends = [], []
        models = tuple(range(len(self.names)))
        for profile in profiles:
            if len(profile.sources) != len(models):
                raise InputError("not a profile of these sources", where=profile.name, found=", ".join(profile.sources),
                                 expected=f"{len(models)} models: {', '.join(self.names)}")
            path, end = self.places.path(self.parameters.settled(profile, models), models)
            paths.append(path)
            ends.append(end)
        return Plan(trie.build(paths), ends)

    def _walk(self, plan: Plan, read: Read, found: Any, progress: Progress) -> None:
        import torch

        leaves, total, done = plan.leaves, len(plan.trie), 0

        def arrived(node: int, hidden: Any) -> None:
            for candidate in leaves[node]:
                found.read(self.frame, candidate, hidden, partial(self.parameters.wear, plan.ends[candidate]))

        def step() -> None:
            nonlocal done
            done += 1
            progress(done, total)

        self.frame.forget()
        states = Memory() if self.whole else Spill(self.spill, self.limit)
        each = read.tokens * self.frame.width * self.frame.itemsize
        room = max(1, self.limit // max(1, each)) if self.whole else None
        widest = max((p.rows * p.width for p in read.pieces), default=1)
        walk = Walk(self.frame, self.parameters, states, together=max(1, self.batch_tokens // widest), room=room, work=self.work)
        with torch.inference_mode():
            walk.run(plan.trie, read, arrived, step)
        self.work.naive += len(plan.ends) * self.anatomy.layers
        self.work.blends = self.parameters.blends
        self.work.state_bytes = max(self.work.state_bytes, self.work.states * each)
