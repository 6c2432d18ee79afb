"""Group H: two at once in one run folder. The second says who holds it, readers are never in the way, nothing is corrupted."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import toys
from polygraft.errors import ResourceError
from polygraft.recipe import read_recipe, run
from polygraft.store import RunFolder, lock, verify_run

pytestmark = pytest.mark.group("H")

HOLD = """
import sys, time
from pathlib import Path
from polygraft.store import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def recipe(tmp_path):
    return read_recipe(toys.world(tmp_path), toys.TABLE)


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of runs/toys, as a run of another person would."""
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "runs" / "toys")], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "held\n"
    yield child
    child.kill()
    child.wait()


def go(recipe, tmp_path, told=None):
    return run(recipe, tmp_path / "runs", resolve=toys.resolve, tell=(told.append if told is not None else lambda e: None))


def note(tmp_path) -> Path:
    return tmp_path / "runs" / "toys" / "run.lock"


def no_locks(monkeypatch):
    """A file system whose locks succeed and do nothing, as some network ones do."""
    monkeypatch.setattr(fcntl, "flock", lambda fd, how: None)


def test_a_second_run_is_told_who_holds_the_folder(recipe, tmp_path, holder):
    with pytest.raises(ResourceError) as caught:
        go(recipe, tmp_path)
    assert caught.value.exit_code == 4
    assert f"process {holder.pid} on " in str(caught.value) and "another run is at work" in str(caught.value)
    assert not (tmp_path / "runs" / "toys" / "run.json").exists()
    assert json.loads(note(tmp_path).read_text())["pid"] == holder.pid


def test_two_runs_in_one_process(recipe, tmp_path):
    with lock(tmp_path / "runs" / "toys"), pytest.raises(ResourceError, match=f"process {os.getpid()} "):
        go(recipe, tmp_path)


def test_a_race_of_eight_runs_has_one_writer_at_a_time(recipe, tmp_path):
    outcomes = []

    def attempt():
        try:
            outcomes.append(len(go(recipe, tmp_path).ran))
        except ResourceError as e:
            outcomes.append(str(e))

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(outcomes) == 8 and outcomes.count(3) == 1
    assert all(o in (0, 3) or "another run is at work" in o for o in outcomes)
    assert verify_run(tmp_path / "runs" / "toys") == []


def test_the_report_reads_while_a_run_is_at_work(recipe, tmp_path):
    go(recipe, tmp_path)
    with lock(tmp_path / "runs" / "toys"):
        assert [r.id for r in RunFolder(tmp_path / "runs" / "toys").results()] == ["one", "two", "scores"]


def test_verify_reads_while_a_run_is_at_work(recipe, tmp_path):
    run_folder = tmp_path / "runs" / "toys"
    go(recipe, tmp_path)
    with lock(run_folder):
        (run_folder / "steps" / "three-0123456789ab.partial").mkdir()
        assert verify_run(run_folder) == []


def test_eight_readers_beside_a_run(recipe, tmp_path):
    go(recipe, tmp_path)
    seen: list[int] = []
    stop = threading.Event()

    def read():
        while not stop.is_set():
            seen.append(len(RunFolder(tmp_path / "runs" / "toys").results()))

    readers = [threading.Thread(target=read) for _ in range(8)]
    for r in readers:
        r.start()
    longer = read_recipe(tmp_path / "recipe.yaml", toys.TABLE, ["steps.two.bottom=9"])
    ran = go(longer, tmp_path).ran
    stop.set()
    for r in readers:
        r.join()
    assert ran == ("two", "scores") and seen and set(seen) <= {1, 2, 3}


def test_a_lock_left_by_a_killed_run_is_explained_and_taken(recipe, tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    told = []
    assert go(recipe, tmp_path, told).ran == ("one", "two", "scores")
    assert told[0].kind == "note" and f"process {holder.pid}" in told[0].text and "was cut off" in told[0].text
    assert note(tmp_path).read_text() == ""


def test_where_locks_do_nothing_a_live_holder_is_still_respected(recipe, tmp_path, holder, monkeypatch):
    no_locks(monkeypatch)
    with pytest.raises(ResourceError, match=f"process {holder.pid} "):
        go(recipe, tmp_path)
    assert json.loads(note(tmp_path).read_text())["pid"] == holder.pid


def test_where_locks_do_nothing_a_dead_holder_is_not(recipe, tmp_path, holder, monkeypatch):
    no_locks(monkeypatch)
    holder.kill()
    holder.wait()
    assert go(recipe, tmp_path).ran == ("one", "two", "scores")


def test_a_process_that_took_the_number_of_a_dead_holder_is_not_it(recipe, tmp_path, holder):
    left = json.loads(note(tmp_path).read_text())
    holder.kill()
    holder.wait()
    note(tmp_path).write_text(json.dumps({**left, "pid": os.getpid()}))
    assert go(recipe, tmp_path).ran == ("one", "two", "scores")


def test_a_holder_on_another_machine_is_for_a_person_to_judge(recipe, tmp_path):
    note(tmp_path).parent.mkdir(parents=True)
    left = json.dumps({"pid": 7, "host": "elsewhere", "boot": "x", "born": "1", "since": "2026-01-01T00:00:00Z"})
    note(tmp_path).write_text(left)
    with pytest.raises(ResourceError, match="process 7 on elsewhere") as caught:
        go(recipe, tmp_path)
    assert f"delete {note(tmp_path)}" in str(caught.value)
    assert note(tmp_path).read_text() == left


@pytest.mark.parametrize("left", ["garbage", "[1]", "{}", '{"host": 3, "pid": "x"}', "\x00" * 10])
def test_a_note_that_cannot_be_read_does_not_stop_a_run(left, recipe, tmp_path):
    note(tmp_path).parent.mkdir(parents=True)
    note(tmp_path).write_text(left)
    told = []
    go(recipe, tmp_path, told)
    assert "was cut off" in told[0].text


def test_the_lock_is_free_again_after_success_and_after_failure(recipe, tmp_path):
    go(recipe, tmp_path)
    assert note(tmp_path).read_text() == ""
    failing = read_recipe(tmp_path / "recipe.yaml", toys.TABLE, ["steps.two.note=fail"])
    with pytest.raises(Exception, match="asked to fail"):
        go(failing, tmp_path)
    assert note(tmp_path).read_text() == ""
    assert go(recipe, tmp_path).skipped == ("one", "two", "scores")
