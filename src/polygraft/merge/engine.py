"""Follow a Profile tensor by tensor, in chunks: copies pass byte for byte, blends are computed and rounded once."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from polygraft.checkpoint import Weights
from polygraft.errors import InputError
from polygraft.floats import FLOATS, from_f32, to_f32
from polygraft.merge import blend
from polygraft.merge.profile import VECTORS, Profile
from polygraft.topk import TopK, magnitude_bits

Combine = Callable[[list[np.ndarray]], np.ndarray]
WORKERS = 2  # reading and hashing fill two cores; more only adds buffers


@dataclass
class Merge:
    """Sources in the profile's order, and the digests of what was read of each: `seen[i][key]`."""

    profile: Profile
    models: Sequence[Weights]
    seen: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.seen = [{} for _ in self.models]

    def stream(self, key: str) -> Iterator[bytes | memoryview]:
        """The bytes of one tensor of the result, in order. Raises InputError for numbers that are not finite in what is blended."""
        copied = self.profile.copied_from(key)
        if copied is not None:
            yield from self.models[copied].chunks(key)
        elif self.profile.method in VECTORS:
            yield from self._chunks(key, self._task_vectors(key))
        else:
            yield from self._chunks(key, self._linear(key))

    def _chunks(self, key: str, combine: Callable[[list[bytes], list[np.ndarray]], np.ndarray]) -> Iterator[bytes]:
        used, info = self.profile.used(key), self.models[0].info(key)
        hashes = [hashlib.sha256() for _ in used]
        for start in range(0, info.numel, blend.CHUNK):
            stop = min(start + blend.CHUNK, info.numel)
            raws = [self.models[i].read_range(key, start * info.itemsize, stop * info.itemsize) for i in used]
            for h, raw in zip(hashes, raws):
                h.update(raw)
            arrays = [to_f32(raw, info.dtype) for raw in raws]
            with np.errstate(over="ignore", invalid="ignore"):
                out = combine(raws, arrays)
            data = from_f32(out, info.dtype)
            heard = [out, *arrays] if self.profile.method in VECTORS else [out]  # an election drops a NaN unheard
            if info.dtype == "F16" or not all(math.isfinite(x.sum(dtype=np.float64)) for x in heard):
                self._refuse_not_finite(key, start, arrays, to_f32(data, info.dtype))
            yield data
        for i, h in zip(used, hashes):
            self.seen[i][key] = h.hexdigest()

    def _refuse_not_finite(self, key: str, start: int, arrays: list[np.ndarray], out: np.ndarray) -> None:
        names = [self.profile.sources[i] for i in self.profile.used(key)]
        for name, values in (*zip(names, arrays), ("the blend", out)):
            bad = np.flatnonzero(~np.isfinite(values))
            if bad.size:
                raise InputError(
                    "a number that is not finite cannot be blended",
                    where=f"{name}: {key}",
                    found=f"{values[bad[0]]} at element {start + bad[0]:,}",
                    expected="finite numbers",
                    fix="the model is damaged or was trained to divergence; use another checkpoint of it",
                )

    # -------------------------------------------------------------------------------------------------- weighted sums

    def _linear(self, key: str) -> Callable[[list[bytes], list[np.ndarray]], np.ndarray]:
        used = self.profile.used(key)
        weights: Sequence[float] = [self.profile.weights[key][i] for i in used]
        anchor, combination = None, blend.affine
        if self.profile.method == "slerp":
            weights, combination = self._slerp(key), blend.combination
        elif self.profile.anchor in used:
            anchor = used.index(self.profile.anchor)

        def combine(raws: list[bytes], arrays: list[np.ndarray]) -> np.ndarray:
            order = blend.order(raws, weights, anchor)
            if raws.count(raws[0]) == len(raws):
                return arrays[0]  # equal sources, whatever the weights: also the sign of a zero stays
            return combination([arrays[i] for i in order], [weights[i] for i in order])

        return combine

    def _slerp(self, key: str) -> tuple[float, float]:
        dot = one = two = 0.0
        for a, b in self._pairs(key, 0, 1):
            x, y = a.astype(np.float64), b.astype(np.float64)
            dot, one, two = dot + float((x * y).sum()), one + float((x * x).sum()), two + float((y * y).sum())
        return blend.slerp_weights(dot, one, two, self.profile.weights[key][1])

    def _pairs(self, key: str, i: int, j: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        n = self.models[i].info(key).numel
        for start in range(0, n, blend.CHUNK):
            stop = min(start + blend.CHUNK, n)
            yield self.models[i].f32(key, start, stop), self.models[j].f32(key, start, stop)

    # --------------------------------------------------------------------------------------------------- task vectors

    def _task_vectors(self, key: str) -> Callable[[list[bytes], list[np.ndarray]], np.ndarray]:
        used, params = self.profile.used(key), self.profile.params
        weights = [self.profile.weights[key][i] for i in used[1:]]
        trims: list[Callable[[np.ndarray], np.ndarray]]
        if self.profile.method == "dare_ties":
            trims = [blend.Drop(params["density"], params["seed"], key, self.profile.sources[i]).apply for i in used[1:]]
        else:
            trims = [self._trim(key, i) for i in used[1:]]

        def combine(raws: list[bytes], arrays: list[np.ndarray]) -> np.ndarray:
            deltas = [trim(x - arrays[0]) for trim, x in zip(trims, arrays[1:])]
            order = blend.order(raws[1:], weights)
            step = blend.elect_and_average([deltas[i] for i in order], [weights[i] for i in order])
            step *= np.float32(params["scale"])
            return np.where(step == 0, arrays[0], arrays[0] + step)

        return combine

    def _trim(self, key: str, i: int) -> Callable[[np.ndarray], np.ndarray]:
        n = self.models[0].info(key).numel
        k = blend.kept(self.profile.params["density"], n)
        if k >= n:
            return lambda delta: delta
        top = TopK(k)
        if k:
            for base, x in self._pairs(key, 0, i):
                top.upper(magnitude_bits(x - base))
            top.turn()
            for base, x in self._pairs(key, 0, i):
                top.lower(magnitude_bits(x - base))
            top.finish()
        return lambda delta: np.where(top.keep(magnitude_bits(delta)), delta, np.float32(0))


def settle(profile: Profile, models: Sequence[Weights]) -> Profile:
    """The profile with tensors that cannot be computed with (masks, positions in integers) copied from their heaviest source."""
    fixed = {}
    for key, weights in profile.weights.items():
        if models[0].tensors[key].dtype not in FLOATS and profile.copied_from(key) is None:
            best = 0 if profile.method in VECTORS else max(range(len(weights)), key=lambda i: weights[i])
            fixed[key] = tuple(0.0 if profile.method in VECTORS else float(i == best) for i in range(len(weights)))
    if not fixed:
        return profile
    return Profile(profile.name, profile.method, profile.sources, profile.weights | fixed, profile.params, profile.anchor)


def mean_change(expert: Weights, base: Weights, progress: Callable[[int], None] = lambda n: None) -> float:
    """mean |theta_e - theta_0| over every float entry of the model (float32 differences, float64 sum)."""
    keys = [k for k, t in base.tensors.items() if t.dtype in FLOATS]

    def one(key: str) -> float:
        n, total = base.tensors[key].numel, 0.0
        for start in range(0, n, blend.CHUNK):
            stop = min(start + blend.CHUNK, n)
            delta = expert.f32(key, start, stop)
            delta -= base.f32(key, start, stop)
            total += float(np.abs(delta, out=delta).sum(dtype=np.float64))
        progress(base.tensors[key].nbytes + expert.tensors[key].nbytes)
        if not math.isfinite(total):
            raise InputError(
                "a number that is not finite, here or in the base", where=f"{expert.path}: {key}", fix="use another checkpoint"
            )
        return total

    with ThreadPoolExecutor(WORKERS) as pool:
        return math.fsum(pool.map(one, keys)) / max(1, sum(base.tensors[k].numel for k in keys))


def shares(
    task: Weights, language: Weights, base: Weights, progress: Callable[[int], None] = lambda n: None
) -> tuple[float, float]:
    """Weights (task, language) proportional to 1/mean|delta|, so that both experts' changes count the same in a blend."""
    changes = [mean_change(e, base, progress) for e in (task, language)]
    for name, expert, change in zip(("task", "language"), (task, language), changes):
        if change == 0.0:
            raise InputError(
                f"the {name} expert equals the base, so its change has no magnitude",
                where=expert.path,
                fix="use --weights plain, or check that the right base is named",
            )
    inverse = [1.0 / c for c in changes]
    return inverse[0] / sum(inverse), inverse[1] / sum(inverse)
