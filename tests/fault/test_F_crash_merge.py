"""`kill -9` at any moment of a merge, then the same merge: it finishes, with the digests of an undisturbed one, and nothing else is left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from folders import llama

pytestmark = pytest.mark.group("F")
SCRIPT = Path(__file__).with_name("crash_merge.py")
ROUNDS = 200


@pytest.fixture
def room(tmp_path):
    """A folder in memory where there is one: hundreds of merges wait for no disk, and a killed process is as dead there."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(prefix="polygraft-crash-", dir=memory))
    yield folder
    shutil.rmtree(folder)


def crash(root: Path, *words: str) -> dict:
    for name, seed in (("task", 1), ("language", 2)):
        llama(root / name, seed=seed, layers=4, shards=2)
    run = subprocess.run(
        [sys.executable, str(SCRIPT), words[0], str(root), *words[1:]], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    told = json.loads(run.stdout.splitlines()[-1])
    assert told["heavy"] == []
    return told


def test_killed_at_random_moments(room, record_property):
    record_property("cases", ROUNDS)
    found = crash(room, "kills", str(ROUNDS))["found"]
    assert found["same"] == ROUNDS, found
    assert found.get("torn", 0) == 0
    assert found["absent"] >= ROUNDS / 4  # the moments did fall into the work


def test_dead_at_every_system_call(room, record_property):
    told = crash(room, "calls")
    record_property("cases", told["calls"])
    assert told["calls"] >= 60
    assert told["found"]["same"] == told["calls"], told
    assert told["found"].get("torn", 0) == 0


def test_every_system_call_fails_once(room, record_property):
    told = crash(room, "errors")
    record_property("cases", told["calls"])
    assert told["found"]["same"] == told["calls"], told
    assert told["found"].get("torn", 0) == 0
    assert told["found"]["named"] == told["calls"], told
