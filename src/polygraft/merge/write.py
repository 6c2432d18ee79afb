"""From a Profile to a model folder: check, plan from headers, then stream, digest, re-read and describe.

Non-finite numbers are refused in every tensor that is computed; what is copied byte for byte is not interpreted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from polygraft import files
from polygraft.anatomy import Anatomy
from polygraft.checkpoint import CHUNK, Weights
from polygraft.floats import FLOATS
from polygraft.merge import blend, compat, mergekit, tokens
from polygraft.merge.card import Origin, card
from polygraft.merge.engine import WORKERS, Merge, settle
from polygraft.merge.profile import VECTORS, Profile
from polygraft.result import Cost, InputRef, Result
from polygraft.versions import MERGING, versions
from polygraft.writer import CheckpointWriter, natural, split

SHARD_BYTES = 1e9
THREADS = 14 << 20  # the blocks that are being read back, stacks and allocator arenas, as measured
Progress = Callable[..., None]
PASSES = {"linear": 1, "slerp": 2, "ties": 3, "dare_ties": 1}  # how often a blended tensor is read


def _quiet(done: float, total: float, text: str = "") -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Named:
    """A source: what the profile calls it, how it was named, its weights, and the hub ids that it stands on."""

    name: str
    weights: Weights
    spec: str = ""
    revision: str = ""
    kind: str = "folder"
    hub: tuple[str, ...] = ()
    coming: str = ""  # the step that has yet to write it

    @property
    def origin(self) -> Origin:
        return Origin(self.name, self.spec or self.name, self.hub)


@dataclass(frozen=True)
class Job:
    """A checked merge: sources in the profile's order; the result takes config and tokenizer of source `donor`."""

    profile: Profile
    sources: tuple[Named, ...]
    anatomy: Anatomy
    donor: int = 0
    recipe: dict[str, Any] = field(default_factory=dict)
    shard_bytes: float = SHARD_BYTES
    notes: tuple[str, ...] = ()

    @property
    def specs(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        return {k: (t.dtype, tuple(t.shape)) for k, t in self.sources[0].weights.tensors.items()}


def anatomy_of(named: Named, extra: Sequence[Mapping[str, Any]] = ()) -> Anatomy:
    """The anatomy of a source; `extra` are rows for keys that no rule knows."""
    return Anatomy.of(named.weights.config, named.weights.tensors, extra=extra, where=named.name)


def job(profile: Profile, sources: Sequence[Named], anatomy: Anatomy, donor: str | None = None, **more: Any) -> Job:
    """Check that the sources can be merged and that the donor describes the result. Raises InputError."""
    compat.check([(s.name, s.weights) for s in sources])
    at = [s.name for s in sources].index(donor) if donor is not None else 0
    compat.check_donor(sources[at].name, sources[at].weights.config, sources[at].weights, anatomy.layers, anatomy.tied)
    notes = (*profile_notes(profile), *same_notes(sources), *tokens.check([(s.name, s.weights.extras) for s in sources], at))
    return Job(settle(profile, [s.weights for s in sources]), tuple(sources), anatomy, at, notes=notes, **more)


def profile_notes(profile: Profile) -> tuple[str, ...]:
    """What a person should hear about an odd but legal request."""
    used = {i for k in profile.weights for i in profile.used(k)}
    if len(used) == 1 and not profile.blended:
        return (f"nothing is merged: every tensor is copied from {profile.sources[used.pop()]}",)
    if profile.params.get("density") == 0:
        return ("a density of 0 keeps no change: the result is the base",)
    return ()


def same_notes(sources: Sequence[Named]) -> tuple[str, ...]:
    """Two names for one model are seldom meant."""
    first: dict[str, str] = {}
    return tuple(f"{s.name} and {n} are the same model" for s in sources
                 if not s.coming and (n := first.setdefault(s.weights.identity, s.name)) != s.name)  # fmt: skip


# ------------------------------------------------------------------------------------------------------------------ plan


@dataclass(frozen=True)
class Needs:
    """Bytes: resident memory at the peak, output on disk, read; hashed in all; copied and blended parts of the output."""

    peak: int
    disk: int
    read: int
    hashed: int
    copied: int
    blended: int

    @property
    def seconds(self) -> float:
        """Wall time, guessed from how fast this machine hashes (measured for a few milliseconds)."""
        return self.hashed / _sha_rate() / WORKERS + (self.read + self.disk) / 2e9 + self.blended * 8e-9


def needs(job: Job) -> Needs:
    """Predicted from headers alone."""
    tensors, profile = job.sources[0].weights.tensors, job.profile
    blended = sum(tensors[k].nbytes for k in profile.blended)
    total = sum(t.nbytes for t in tensors.values())
    read = sum(tensors[k].nbytes * _reads(profile, k) for k in profile.weights)
    hashed = 2 * total + sum(tensors[k].nbytes * len(profile.used(k)) for k in profile.blended)
    return Needs(resident() + _buffers(job), total + _small_bytes(job), read + total, hashed, total - blended, blended)


def _reads(profile: Profile, key: str) -> int:
    if profile.copied_from(key) is not None:
        return 1
    used = len(profile.used(key))
    return used + 2 * (PASSES[profile.method] - 1) * (used - 1 if profile.method in VECTORS else 1)


def _buffers(job: Job) -> int:
    """Bytes of buffers at the busiest moment: two workers, and the two threads that read shards back."""
    tensors = job.sources[0].weights.tensors
    copies = max((min(CHUNK, t.nbytes) for k, t in tensors.items() if job.profile.copied_from(k) is not None), default=0)
    blends = 0
    for key in job.profile.blended:
        t = tensors[key]
        n, used = min(blend.CHUNK, t.numel), len(job.profile.used(key))
        arrays = used + (2 * used + 4 if job.profile.method in VECTORS else 4)
        blends = max(blends, n * (used * t.itemsize + 4 * arrays))
    return int(WORKERS * (max(copies, blends) + min(CHUNK, max((t.nbytes for t in tensors.values()), default=0))) + THREADS)


def resident() -> int:
    """This process's resident bytes now (Linux); elsewhere what Python and numpy take."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 60 << 20
    return pages * 4096


def _sha_rate() -> float:
    """SHA-256 bytes per second on one core of this machine, measured for a few milliseconds."""
    data, start = bytes(1 << 20), time.perf_counter()
    files.hashlib.sha256(data).digest()
    return len(data) / max(1e-6, time.perf_counter() - start)


def _small_bytes(job: Job) -> int:
    """Headers, index, config, tokenizer, card and manifest, nearly."""
    specs = job.specs
    extras = sum(p.stat().st_size for p in job.sources[job.donor].weights.extras.values())
    keys = sum(len(k) for k in specs)
    shards = len(split(specs, job.shard_bytes))
    per_tensor = 90 + 75 + (35 if shards > 1 else 0)  # header entry, digest in the manifest, index entry
    return extras + 2 * keys + keys * (shards > 1) + per_tensor * len(specs) + 8000


# ----------------------------------------------------------------------------------------------------------------- write


def fill(job: Job, folder: Path, progress: Progress = _quiet) -> tuple[Result, dict[str, Any]]:
    """Write the whole model folder but its manifest; returns the Result and what belongs into the manifest."""
    started, cpu = time.perf_counter(), files.now()
    plan = needs(job)
    merge = Merge(job.profile, [s.weights for s in job.sources])
    written = _tensors(job, merge, folder, progress)
    _describe(job, folder, plan)
    inputs = _inputs(job, merge, written["tensors"])
    manifest = {
        "kind": "model",
        "started": cpu,
        "files": written["files"],
        "tensors": written["tensors"],
        "inputs": [
            {"name": i.name, "spec": i.spec, "revision": i.revision, "identity": i.identity, "tensors_sha256": i.digest}
            for i in inputs
        ],
        "recipe": job.recipe,
        "profile": job.profile.to_json(),
        "versions": versions(MERGING),
    }
    size = sum(p.stat().st_size for p in files.list_files(folder))
    result = Result(
        step=f"merge.{job.profile.name}",
        id="",
        title=f"{job.profile.name} of {', '.join(job.profile.sources)}",
        summary=(*(line.strip() for line in job.profile.text(job.anatomy)[1:]), *counts(plan, job.profile)),
        maps=job.profile.maps(job.anatomy),
        inputs=inputs,
        caveats=job.notes,
        cost=Cost(time.perf_counter() - started, 0, plan.read, size),
        data={"profile": job.profile.to_json(), "bytes": size, "donor": job.sources[job.donor].name},
    )
    return result, manifest


def _tensors(job: Job, merge: Merge, folder: Path, progress: Progress) -> dict[str, Any]:
    tensors = job.sources[0].weights.tensors
    total, done = sum(t.nbytes for t in tensors.values()), 0
    with CheckpointWriter(folder, job.specs, job.shard_bytes) as writer, ThreadPoolExecutor(WORKERS) as pool:
        keys = sorted(tensors, key=natural)
        for key, _ in zip(keys, pool.map(lambda k: writer.write(k, merge.stream(k)), keys), strict=True):
            done += tensors[key].nbytes
            progress(done, total, key)
        return writer.close()


def _describe(job: Job, folder: Path, plan: Needs) -> None:
    """Config, tokenizer and generation settings of the donor; the card; the mergekit configuration where there is one."""
    donor = job.sources[job.donor]
    write = files.write_atomic
    write(folder / "config.json", files_bytes(donor.weights))
    for name, path in sorted(donor.weights.extras.items()):
        write(folder / name, path.read_bytes())
    specs = [s.spec or s.name for s in job.sources]
    text = card(job.profile, job.anatomy, [s.origin for s in job.sources], donor.name, job.recipe, counts(plan, job.profile))
    write(folder / "README.md", text.encode())
    if all(s.kind != "adapter" for s in job.sources):
        dtype = max((t.dtype for t in donor.weights.tensors.values() if t.dtype in FLOATS), key=str, default="")
        recipe = mergekit.config(job.profile, job.anatomy, specs, specs[job.donor], dtype)
        if recipe:
            write(folder / "mergekit_config.yml", recipe.encode())


def files_bytes(weights: Weights) -> bytes:
    """The donor's config.json as it is, or as JSON when it lies in no file."""
    path = weights.path / "config.json"
    return path.read_bytes() if path.is_file() else (files.json.dumps(weights.config, indent=2) + "\n").encode()


def _inputs(job: Job, merge: Merge, made: dict[str, str]) -> tuple[InputRef, ...]:
    """Every source with the digest of what was read of it: {tensor key: sha256}, also for what was copied."""
    refs = []
    for i, source in enumerate(job.sources):
        read = merge.seen[i] | {k: made[k] for k in made if job.profile.copied_from(k) == i}
        refs.append(
            InputRef(source.name, source.spec, source.revision, source.weights.identity, files.digest(read) if read else "")
        )
    return tuple(refs)


def counts(plan: Needs, profile: Profile) -> tuple[str, ...]:
    """Sentences about how much is copied and how much computed."""
    blended = len(profile.blended)
    lines = [f"{len(profile.weights) - blended:,} tensors ({plan.copied:,} bytes) are copied byte for byte."]
    if blended:
        lines.append(f"{blended:,} tensors ({plan.blended:,} bytes) are computed in float32 and rounded once.")
    return tuple(lines)
