"""Who computes: this process, or several (Ray), each with the experts open and a run of candidates that share their lower layers.

Candidates are cut into as many runs as there are workers, in the trie's order, and answers are put back in the order asked: who
gave an answer makes no difference to it, beyond float rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraft.anatomy import Anatomy
from polygraft.choose.search.judge import Found, Progress, Score
from polygraft.choose.search.space import ordered
from polygraft.errors import RecipeError
from polygraft.merge.profile import Profile

if TYPE_CHECKING:
    from polygraft.choose.graft import Grafter
    from polygraft.sources import Source

Call = tuple[Sequence[Profile], Sequence[Sequence[int]], Sequence[int], Profile | None]


def asked(grafter: Grafter, call: Call, progress: Callable[[int, int], None]) -> Found:
    """What one open Grafter says to one call: nats and greedy, or a divergence from `near` (and nothing greedy)."""
    profiles, rows, scored, near = call
    if near is None:
        found = grafter.likelihoods(profiles, rows, scored, progress)
        return found.nats, found.greedy
    values = grafter.divergence(profiles, rows, scored, near, progress)
    return values, np.zeros(values.shape, bool)


def local(grafter: Grafter) -> Score:
    """One worker: this process."""
    def score(profiles: Sequence[Profile], rows: Sequence[Sequence[int]], scored: Sequence[int], near: Profile | None,
              progress: Progress) -> Found:
        told = f"{len(profiles)} candidate{'s' * (len(profiles) > 1)} on {len(rows)} rows"
        return asked(grafter, (profiles, rows, scored, near), lambda done, total: progress(done, total, told))

    return score


def shared(workers: Sequence[Callable[[Call], Any]], gather: Callable[[list[Any]], list[Found]], anatomy: Anatomy) -> Score:
    """Several workers. Each takes a call and gives a promise of its answer; `gather` waits for promises, in their order."""
    def score(profiles: Sequence[Profile], rows: Sequence[Sequence[int]], scored: Sequence[int], near: Profile | None,
              progress: Progress) -> Found:
        shards = cut(ordered(profiles, anatomy), len(workers))
        promised = [worker(([profiles[i] for i in shard], rows, scored, near)) for worker, shard in zip(workers, shards)]
        progress(0, 1, f"{len(profiles)} candidates over {len(shards)} workers")
        found, order = gather(promised), [i for shard in shards for i in shard]
        back = np.argsort(order)
        progress(1, 1, "")
        return tuple(np.concatenate([part[k] for part in found])[back] for k in (0, 1))  # type: ignore[return-value]

    return score


def cut(order: Sequence[int], parts: int) -> list[list[int]]:
    """At most `parts` runs of neighbours, as equal as can be, none empty."""
    n = min(parts, len(order))
    return [list(order[i * len(order) // n : (i + 1) * len(order) // n]) for i in range(n)]


# -------------------------------------------------------------------------------------------------------------------- Ray


@dataclass(frozen=True)
class Opening:
    """All that it takes to open the sources somewhere else: (what names a source, what names its base), and how to compute."""

    sources: tuple[tuple[str, str | None], ...]
    dtype: str
    device: str
    offline: bool

    def open(self) -> Grafter:
        from polygraft.choose.graft import Grafter
        from polygraft.sources import resolve

        found = [resolve(spec, offline=self.offline, base=base) for spec, base in self.sources]
        return Grafter.open(found, lead=0, dtype=self.dtype, device=self.device)


def opening(sources: Sequence[Source], dtype: str, device: str, offline: bool) -> Opening:
    """How workers open these sources: folders by their path, which every machine must have, others by their names."""
    def spec(source: Source) -> str:
        return source.spec if source.kind in ("hub", "demo") else str(source.path.resolve())

    return Opening(tuple((spec(s), spec(s.base) if s.base else None) for s in sources), dtype, device, offline)


def missing() -> RecipeError | None:
    """What is wrong where Ray is not installed."""
    if find_spec("ray") is not None:
        return None
    return RecipeError("several workers need Ray, which is not installed", where="workers", found="ray",
                       fix="pip install 'polygraft[ray]', or use one worker")


def over_ray(opened: Opening, workers: int, anatomy: Anatomy) -> Score:
    """Workers of a Ray cluster (one is started on this machine where none is). Raises RecipeError where Ray is not installed."""
    if (wrong := missing()) is not None:
        raise wrong
    import ray

    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False)

    class Worker:
        """One process with the sources open."""

        def __init__(self, how: Opening):
            self.grafter = how.open()

        def answer(self, call: Call) -> Found:
            return asked(self.grafter, call, lambda done, total: None)

    def calls(actor: Any) -> Callable[[Call], Any]:
        return lambda call: actor.answer.remote(call)

    remote: Any = ray.remote(num_gpus=1 if opened.device.startswith("cuda") else 0)(Worker)
    return shared([calls(remote.remote(opened)) for _ in range(workers)], ray.get, anatomy)
