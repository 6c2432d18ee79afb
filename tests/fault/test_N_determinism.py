"""Same inputs, same bytes: 3 hash seeds x 2 thread counts x 3 shard sizes x 2 source orders give equal digests per tensor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from folders import llama
from polygraft import files

CODE = """
import json, sys
from pathlib import Path
from polygraft import files, merge
from polygraft.merge import engine, write
files.OPS.fsync = lambda fd: None  # what is on the disk when the power goes is another test's business
engine.WORKERS = write.WORKERS = int(sys.argv[2])
for kind, fields in json.loads(sys.argv[1]):
    getattr(merge, kind)(**fields)
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("determinism")
    made = [
        llama(root / n, seed=s, noise=0.05, layers=3, shards=k, hidden=64, ffn=96, vocab=70)
        for n, s, k in (("one", 1, 1), ("two", 2, 3), ("three", 3, 2))
    ]
    return [str(p) for p in (*made, llama(root / "base", layers=3, hidden=64, ffn=96, vocab=70))]


def merges(models: list[str], out: Path, shard_bytes: int, turned: bool) -> list[tuple[str, dict]]:
    """Six merges into folders below `out`."""
    *experts, base = models
    listed = experts[::-1] if turned else experts
    weights = [3.0, 2.0, 1.0] if turned else [1.0, 2.0, 3.0]
    kinds = {"soup": {"models": listed}, "task": {"models": listed, "base": base, "scales": [0.4] * 3},
             "ties": {"models": listed, "base": base, "weights": weights}, "dare_ties": {"models": listed, "base": base},
             "slerp": {"models": [listed[0], listed[-1]]}, "swap": {"task": experts[0], "language": experts[1]}}  # fmt: skip
    return [(kind, {"out": str(out / kind), "shard_bytes": shard_bytes, **fields}) for kind, fields in kinds.items()]


def run(jobs: list, seed: int, workers: int) -> None:
    """In a fresh process, whose hash seed and number of threads are these."""
    env = os.environ | {"PYTHONHASHSEED": str(seed), "OMP_NUM_THREADS": str(workers), "OPENBLAS_NUM_THREADS": str(workers)}
    subprocess.run([sys.executable, "-c", CODE, json.dumps(jobs), str(workers)], check=True, env=env)


SIZES, ORDERS = (5_000_000_000, 60_000, 20_000), (False, True)
PROCESSES = list(product((0, 1, 2), (1, 4)))


@pytest.mark.group("N")
def test_every_variant_gives_the_same_tensors(models, tmp_path, record_property):
    record_property("cases", len(PROCESSES) * len(SIZES) * len(ORDERS))
    made = []
    for seed, workers in PROCESSES:
        outs = [(tmp_path / f"{seed}-{workers}-{size}-{turned}", size, turned) for size, turned in product(SIZES, ORDERS)]
        run([job for out, size, turned in outs for job in merges(models, out, size, turned)], seed, workers)
        made += [out for out, *_ in outs]
    assert len(made) == 36
    for kind in ("soup", "task", "ties", "dare_ties", "slerp", "swap"):
        first = files.read_json(made[0] / kind / "manifest.json")["tensors"]
        for out in made[1:]:
            assert files.read_json(out / kind / "manifest.json")["tensors"] == first, f"{kind}: {out.name}"


@pytest.mark.group("N")
def test_files_are_equal_too_when_only_seeds_and_threads_differ(models, tmp_path):
    for name, seed, workers in (("a", 0, 1), ("b", 7, 3)):
        run(merges(models, tmp_path / name, 60_000, False), seed, workers)
    shards = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.safetensors*"))
    assert len(shards) > 20
    for shard in shards:
        assert (tmp_path / "a" / shard).read_bytes() == (tmp_path / "b" / shard).read_bytes(), shard
