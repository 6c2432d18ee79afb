"""Groups F and H: killed at any moment, an evaluation has lost one batch at most; two at once on one model share what they find."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time

import pytest

from fakeengine import FakeEngine
from polygraft.evals.asking import Asker
from polygraft.evals.engines.base import Decoding
from polygraft.evals.responses import About, Store

FORK = multiprocessing.get_context("fork")
CHOICE, WRITTEN, TEXT = About("choice@1", "en"), About("written@1", "sw", 2), About("bpb", "en")
BATCH, N = 3, 24


class Slow(FakeEngine):
    """Takes a moment for every batch, so that a kill can fall anywhere, and counts on disk what it was asked."""

    def __init__(self, counted):
        super().__init__(BATCH)
        self.counted = counted

    def _count(self, n):
        with self.counted.open("ab", buffering=0) as f:
            f.write(b"." * n)
        time.sleep(0.001)

    def _batches(self, kind, n, answer, done):
        def told(found):
            self._count(len(found))
            done(found)
        super()._batches(kind, n, answer, told)

    def documents(self, texts, window, stride):
        self._count(len(texts))
        return super().documents(texts, window, stride)


def everything(root, counted):
    """Choices, written answers and documents, without their times."""
    with Store(root, "model") as store:
        asker = Asker(Slow(counted), store)
        pairs = asker.pairs([(CHOICE, f"Q{i // 2}", f" {i}") for i in range(N)])
        texts = asker.generate([(WRITTEN, f"Q{i}", Decoding(8)) for i in range(N)])
        documents = asker.documents([(TEXT, f"text {i} " * 800) for i in range(N // 4)])
        return ([(p.nats, p.greedy) for p in pairs], [(t.text, t.tokens, t.finished) for t in texts],
                [(d.nats, d.bytes, d.tokens) for d in documents], store.notes)


@pytest.mark.group("F")
@pytest.mark.parametrize("round_", range(40))
def test_a_kill_at_any_moment_costs_one_batch_of_each_kind_at_most(round_, tmp_path):
    want = everything(None, tmp_path / "quiet")
    whole = (tmp_path / "quiet").stat().st_size
    rng, kills = random.Random(round_), 3
    for _ in range(kills):
        child = FORK.Process(target=everything, args=(tmp_path / "store", tmp_path / "counted"))
        child.start()
        time.sleep(rng.uniform(0, 0.05))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
    assert everything(tmp_path / "store", tmp_path / "counted") == want
    assert (tmp_path / "counted").stat().st_size <= whole + kills * BATCH, "each kill cost one batch"
    before = (tmp_path / "counted").stat().st_size
    assert everything(tmp_path / "store", tmp_path / "counted") == want
    assert (tmp_path / "counted").stat().st_size == before, "and nothing is asked again"


@pytest.mark.group("H")
@pytest.mark.parametrize("seed", range(3))
def test_two_evaluations_at_once_of_one_model(seed, tmp_path):
    want = everything(None, tmp_path / "quiet")
    children = [FORK.Process(target=everything, args=(tmp_path / "store", tmp_path / f"counted{i}")) for i in range(2)]
    for child in children:
        child.start()
        time.sleep(random.Random(seed).uniform(0, 0.02))
    for child in children:
        child.join()
    assert [c.exitcode for c in children] == [0, 0]
    assert everything(tmp_path / "store", tmp_path / "after") == want and not (tmp_path / "after").exists()


@pytest.mark.group("H")
def test_a_killed_evaluation_beside_a_running_one_does_it_no_harm(tmp_path):
    want = everything(None, tmp_path / "quiet")
    for round_ in range(6):
        root = tmp_path / f"store{round_}"
        one, other = (FORK.Process(target=everything, args=(root, tmp_path / "counted")) for _ in range(2))
        one.start()
        other.start()
        time.sleep(random.Random(round_).uniform(0, 0.04))
        os.kill(other.pid, signal.SIGKILL)
        other.join()
        one.join()
        assert one.exitcode == 0 and everything(root, tmp_path / "counted") == want
