"""Group F, training: `kill -9` at a random moment, then the same call again, until it finishes. The bytes are those of a quiet run."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
from pathlib import Path

import pytest

from polygraft.sources import resolve

ROWS = [{"prompt": f"{a}+{b}=", "completion": str(a + b)} for a in range(4) for b in range(5)]
KINDS = {"adapter": "adapter_model.safetensors", "rows": "model.safetensors", "sides": "model.safetensors"}


def job(base: str, folder: Path, kind: str) -> None:
    """One training in a process of its own, saving after every second step: an adapter, or rows of tensors with a hook."""
    import torch

    from polygraft.selection import Selection
    from polygraft.tune.hooks import Hook
    from polygraft.tune.settings import Settings
    from polygraft.tune.training import Work, train

    class Pull(Hook):
        """A method with a state of its own, which its part of the loss depends on."""

        def start(self, live, chosen):
            self.pulls, self.held = 0, chosen.grafts.all[0].held

        def loss(self, model, step):
            self.pulls += 1
            return 1e-3 * self.pulls * self.held.square().sum()

        def kept(self):
            return {"pulls": self.pulls}

        def take(self, kept):
            self.pulls = kept["pulls"]

    torch.set_num_threads(1)  # a forked child has none of its parent's worker threads
    if kind == "sides":
        return both_sides(base, folder)
    if kind == "adapter":
        settings, chosen, hooks = Settings(r=2, steps=12, batch=4, lr=1e-2, save_every=2, length=32, device="cpu"), None, ()
    else:
        settings = Settings(method="full", steps=12, batch=4, accumulate=2, lr=1e-2, save_every=2, length=32, device="cpu",
                            dtype="bf16", weight_decay=0.1)
        chosen = Selection({"model.layers.0.mlp.up_proj.weight": [1, 7], "model.layers.1.mlp.down_proj.weight": [3, 4, 40],
                            "model.embed_tokens.weight": [20, 21], "model.norm.weight": None},
                           {"model.layers.1.mlp.down_proj.weight": 1})
        hooks = (Pull(),)
    done = train(Work(resolve(base), ROWS, settings, chosen, hooks=hooks), folder)
    (folder / "losses.json").write_text(json.dumps(done.losses))


def both_sides(base: str, folder: Path) -> None:
    """A partition's training of both sides at once, whose neurons lie in the same matrices."""
    import numpy as np

    from polygraft import selectionfile
    from polygraft.evals.callback import WATCHERS
    from polygraft.step import Context
    from polygraft.tune.config import Around
    from polygraft.tune.partition import Partition, partition_step

    rows, found = {"rows": lambda part: ROWS[:8] if part == "a" else ROWS[8:]}, folder.parent / f"{folder.name}.json"
    selectionfile.write(found, {"sw": selectionfile.from_mask(np.tile(np.arange(48) < 9, (2, 1)))})
    config = Partition(model="m", task_data=["rows:a"], language_data=["rows:b"], language_select=f"{found}:sw", steps=12, batch=4,
                       lr=1e-2, weight_decay=0.1, save_every=2, length=32, device="cpu")
    context = Context(model=lambda ref: resolve(base), data=Path, folder=Path)
    result = partition_step(Around(rows, WATCHERS)).run(config, context, folder)
    (folder / "selection.json").unlink()
    (folder / "losses.json").write_text(json.dumps([dict(curve.series) for curve in result.curves]))


def attempt(base: str, folder: Path, kind: str, seconds: float | None) -> int:
    """Run the job and kill it after so many seconds; its exit code."""
    child = multiprocessing.get_context("fork").Process(target=job, args=(base, folder, kind))
    child.start()
    child.join(seconds)
    if child.is_alive():
        os.kill(child.pid, signal.SIGKILL)
        child.join()
    return child.exitcode


@pytest.mark.slow
@pytest.mark.group("F")
@pytest.mark.parametrize("round_", range(20))
@pytest.mark.parametrize("kind", KINDS)
def test_killed_training_ends_with_the_same_bytes(tiny, tmp_path, quiet_run, kind, round_):
    base, wanted, losses, seconds = quiet_run(kind)
    rng = random.Random(round_)
    model = tmp_path / "model" / KINDS[kind]
    kills = 0
    for _ in range(2):
        kills += attempt(base, tmp_path, kind, rng.uniform(0.2, 1.0) * seconds) == -signal.SIGKILL
        assert not (tmp_path / "losses.json").exists() or model.read_bytes() == wanted
    assert attempt(base, tmp_path, kind, None) == 0
    assert model.read_bytes() == wanted and (tmp_path / "losses.json").read_bytes() == losses
    assert {p.name for p in tmp_path.iterdir()} == {"model", "losses.json"}


@pytest.fixture(scope="module")
def quiet_run(tiny, tmp_path_factory):
    """The base, and of an undisturbed run of a kind: the bytes that it writes, its losses and the seconds that it takes."""
    import time

    import peft  # noqa: F401  imported before the children are forked, so that they spend their time training
    import trl  # noqa: F401

    base, known = str(tiny("llama")), {}

    def quiet(kind):
        if kind not in known:
            folder = tmp_path_factory.mktemp("quiet")
            assert attempt(base, folder, kind, None) == 0
            begun = time.monotonic()
            assert attempt(base, tmp_path_factory.mktemp("again"), kind, None) == 0
            bytes_of = [(folder / name).read_bytes() for name in (f"model/{KINDS[kind]}", "losses.json")]
            known[kind] = base, *bytes_of, time.monotonic() - begun
        return known[kind]

    return quiet
