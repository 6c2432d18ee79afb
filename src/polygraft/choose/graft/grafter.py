"""Grafter: sources opened once, and any number of their merges evaluated without writing or materialising one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraft.anatomy import Anatomy
from polygraft.blocks import holds, whole_bytes
from polygraft.choose.graft import reading, trie
from polygraft.choose.graft.frame import Frame
from polygraft.choose.graft.head import Arrived, Divergence, Likelihoods, Reading, Reference
from polygraft.choose.graft.parameters import Parameters
from polygraft.choose.graft.pieces import Read
from polygraft.choose.graft.scores import Scores, Work, totals
from polygraft.choose.graft.variants import Places, Variant
from polygraft.choose.graft.walk import Computed, Memory, States, Walk
from polygraft.errors import InputError
from polygraft.evals.engines.exact import Branches
from polygraft.merge import compat, tokens
from polygraft.merge.profile import Profile
from polygraft.spill import Spill
from polygraft.standins import unfilled

if TYPE_CHECKING:
    from polygraft.sources import Source

LIMIT = 128 << 20  # bytes of hidden states in memory
BATCH = 512  # tokens in one call of a layer
STATES = 4  # side by side in one call, where there are as many
Progress = Callable[[int, int], None]  # layers computed, of how many
Heard = Callable[[], None]
Rows = Sequence[Sequence[int]]


def _unheard(done: int, total: int) -> None:
    """Nobody wants to know how far it is."""


def _silent() -> None:
    """Nobody wants to know of a node."""


def _unseen(node: int, value: Any) -> None:
    """Nobody looks at states."""


@dataclass(frozen=True)
class Plan:
    """Candidates as a trie, and what each ends with: norm and head."""

    trie: trie.Trie
    ends: list[Variant]

    @property
    def models(self) -> dict[int, dict[Variant, list[int]]]:
        """Candidates by the node where they end, and by what they end with: those that are the same model stand together."""
        found: dict[int, dict[Variant, list[int]]] = {}
        for candidate, (node, end) in enumerate(zip(self.trie.leaf, self.ends)):
            found.setdefault(node, {}).setdefault(end, []).append(candidate)
        return found


@dataclass
class Grafter:
    """Many merges of the same sources, computed together: candidates share what they begin with, up to the last equal layer.

    anatomy, tokenizer and max_length (tokens) are the lead source's; `notes` say what a reader of the scores should know; `work`
    what was computed. Numbers equal those of the written merge but for float rounding. Made by `open`.
    """

    anatomy: Anatomy
    tokenizer: Any
    max_length: int
    frame: Frame
    parameters: Parameters
    names: tuple[str, ...]
    whole: bool
    spill: Path | None = None
    limit: int = LIMIT
    batch_tokens: int = BATCH
    notes: list[str] = field(default_factory=list)
    work: Work = field(default_factory=Work)

    @classmethod
    def open(cls, sources: Sequence[Source], *, lead: int = 0, dtype: str = "auto", device: str = "cpu", whole: bool | None = None,
             spill: Path | None = None, limit: int = LIMIT, batch_tokens: int = BATCH) -> Grafter:
        """Sources in the order that profiles name them; `lead` is the one that config and tokenizer come from.

        dtype: as in an evaluation ("auto": the checkpoint's, or float32 on a CPU without bfloat16). whole: hold every source in
        memory (None: where they fit), else one layer of them at a time. limit: bytes of hidden states in memory; beyond, fewer
        candidates go up at once, or, with layers from files, states go to files in `spill`. batch_tokens: tokens in one call.
        Raises InputError where the sources cannot be merged, or the model cannot be built or run a layer at a time.
        """
        from polygraft import model as live_models
        from polygraft.evals.engines.hf import context_length

        weights, names = [s.weights for s in sources], tuple(s.spec for s in sources)
        compat.check(list(zip(names, weights)))
        notes = tokens.check([(n, w.extras) for n, w in zip(names, weights)], lead)
        if (place := live_models.device_for(device)) == live_models.SPREAD:
            raise InputError("candidates are computed on one device", found=device, fix="name one, such as cuda:0, or cpu")
        dtype, _ = live_models.dtype_for(place, dtype)
        live = unfilled(sources[lead], dtype=dtype, device=place)
        size = whole_bytes(weights[lead], dtype)
        keep = holds(size * (len(sources) + 1), place) if whole is None else whole
        parameters = Parameters(live.model, live.anatomy, weights, place, keep=keep, room=size if keep else 0)
        return cls(live.anatomy, live.tokenizer, context_length(live.model, live.tokenizer), Frame(live.model, live.anatomy, place),
                   parameters, names, keep, spill, limit, batch_tokens, list(notes))

    def __post_init__(self) -> None:
        self.places = Places.of(self.anatomy)
        trial = partial(reading.agree, self.frame.model, self.frame.device, self._lead_alone)
        branches = Branches(self.frame.model, trial)
        self.reader = reading.Reader(self.frame.model, self.frame.device, self.max_length, branches)

    # ------------------------------------------------------------------------------------------------------------ what is asked

    def likelihoods(self, profiles: Sequence[Profile], rows: Rows, scored: Sequence[int], progress: Progress = _unheard) -> Scores:
        """Log-likelihoods of the last `scored[i]` tokens of each row of ids under each profile, and whether all are greedy.

        Raises InputError for rows that the model cannot read, profiles of other models, and a candidate whose likelihoods are not
        numbers (naming the layer); ResourceError when memory runs out.
        """
        plan, out = self._plan(profiles), Scores.of(len(profiles), len(rows))
        for group, read, heard in self._reads(plan, rows, scored, progress):
            found = Likelihoods(len(profiles), read.asked)
            self._walk(plan, read, found, heard)
            out.nats[:, group], out.greedy[:, group] = totals(found.nats, found.greedy, read.paths)
            self._finite(profiles, out.nats[:, group], read)
        return out

    def divergence(self, profiles: Sequence[Profile], rows: Rows, scored: Sequence[int], reference: Profile,
                   progress: Progress = _unheard) -> np.ndarray:
        """KL(reference || candidate) in nats, float64 [profiles, rows], summed over the scored positions; no gold answer counts.

        Raises as `likelihoods`.
        """
        plan, against, out = self._plan(profiles), self._plan([reference]), np.zeros((len(profiles), len(rows)))
        for group, read, heard in self._reads(plan, rows, scored, progress):
            other = Reference(len(read.spots), self.limit)
            self._walk(against, read, other, _silent)
            self._finite([reference], other.sums[None], read)
            found = Divergence(len(profiles), len(read.spots), other)
            self._walk(plan, read, found, heard)
            out[:, group] = np.stack([found.kl[:, np.unique(read.asked[path, 0])].sum(1) for path in read.paths], 1)
            self._finite(profiles, out[:, group], read)
        return out

    def _reads(self, plan: Plan, rows: Rows, scored: Sequence[int], progress: Progress) -> Iterator[tuple[list[int], Read, Heard]]:
        """Rows as they are read, and whom to tell of each node that is computed."""
        groups, piece = self.reader.groups(rows, scored, self._most), self._piece(plan)
        self.work.layers += plan.trie.layers
        self.work.naive += len(plan.ends) * self.anatomy.layers
        done, total = 0, len(groups) * len(plan.trie)

        def heard() -> None:
            nonlocal done
            done += 1
            progress(done, total)

        for group in groups:
            yield group, self.reader.read([rows[i] for i in group], [scored[i] for i in group], piece), heard
        self.work.blends = self.parameters.blends
        if (why := self.reader.branches.why) and not any(why in note for note in self.notes):
            self.notes.append(f"items do not share what they begin with ({why})")

    def _piece(self, plan: Plan) -> int:
        """Tokens of a stretch: few, since they attend past one another, where states side by side fill the call all the same."""
        return max(1, self.batch_tokens // min(STATES, max(1, round(plan.trie.layers / self.anatomy.layers))))

    @property
    def _most(self) -> int | None:
        """Tokens of a read: of so many that a state a layer, and as many beside them, are within the limit."""
        if not self.whole:
            return None
        return max(self.batch_tokens, self.limit // (2 * self.anatomy.layers * self.frame.token_bytes))

    # ----------------------------------------------------------------------------------------------------------------- the walk

    def _plan(self, profiles: Sequence[Profile]) -> Plan:
        paths, ends, models = [], [], range(len(self.names))
        for profile in profiles:
            if len(profile.sources) != len(models):
                raise InputError("not a profile of these sources", where=profile.name, found=", ".join(profile.sources),
                                 expected=f"{len(models)} models: {', '.join(self.names)}")
            path, end = self.places.path(self.parameters.settled(profile, models), models)
            paths.append(path)
            ends.append(end)
        return Plan(trie.build(paths), ends)

    def _walk(self, plan: Plan, read: Read, found: Reading, heard: Heard, watch: Computed = _unseen) -> None:
        """Send every candidate up; `found` reads what arrives."""
        import torch

        models, spots = plan.models, torch.from_numpy(read.spots).to(self.frame.device)
        arrived = Arrived(self.frame, self.parameters.wear, found, self.limit)

        def computed(node: int, value: Any) -> None:
            watch(node, value)
            for end, candidates in models.get(node, {}).items():
                arrived.add(end, candidates, value[spots])
            heard()

        self.frame.forget()
        each = max(1, read.tokens * self.frame.token_bytes)
        with torch.inference_mode(), self._states() as states:
            walk = Walk(self.frame, self.parameters, states, together=max(1, self.batch_tokens // max(1, read.widest)),
                        room=max(1, self.limit // each) if self.whole else None, work=self.work)
            walk.run(plan.trie, read, computed)
            arrived.flush()
        self.work.state_bytes = max(self.work.state_bytes, self.work.states * each)

    @contextlib.contextmanager
    def _states(self) -> Iterator[States]:
        if self.whole:
            yield Memory()
            return
        spill = Spill(self.spill, self.limit)
        try:
            yield spill
        finally:
            spill.clear()

    def _lead_alone(self, read: Read) -> np.ndarray:
        """Nats of each row under the first source alone."""
        weights = {key: tuple(float(i == 0) for i in range(len(self.names))) for key in self.anatomy.parts}
        found = Likelihoods(1, read.asked)
        self._walk(self._plan([Profile("lead", "linear", self.names, weights)]), read, found, _silent)
        return totals(found.nats, found.greedy, read.paths)[0][0]

    def _finite(self, profiles: Sequence[Profile], values: np.ndarray, read: Read) -> None:
        """Refuse numbers that are none: nothing that is computed from a NaN would mean anything. Names the layer they come from."""
        bad = np.flatnonzero(~np.isfinite(values).all(1))
        if not len(bad):
            return
        profile, spots, first = profiles[bad[0]], read.spots, list[int]()
        plan = self._plan([profile])

        def watch(node: int, value: Any) -> None:
            if not first and not value[spots].isfinite().all():
                first.append(plan.trie.depth[node])

        with contextlib.suppress(InputError):
            self._walk(plan, read, Likelihoods(1, read.asked), _silent, watch)
        where = "the head" if not first else f"layer {first[0] - 1}" if first[0] else "the embedding"
        raise InputError("the likelihoods of a candidate are not numbers", where=f"{profile.name}, candidate {bad[0]}",
                         found=f"NaN or Inf behind {where}", fix="look for NaN or Inf in the sources (inspect --check)")
