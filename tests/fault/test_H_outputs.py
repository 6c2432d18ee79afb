"""Group H: two at once with one `--out`. The second is told at once who makes it, and nothing of the first is touched."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import toys
from polygraft import cli
from polygraft.errors import ResourceError
from polygraft.lock import Held, lock_output
from polygraft.recipe import Step, run_step

pytestmark = pytest.mark.group("H")

HOLD = """
import sys, time
from pathlib import Path
from polygraft.lock import lock_output
with lock_output(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def asked(tmp_path):
    """A step's config on two models that exist."""
    toys.world(tmp_path)
    return toys.Blend(left=str(tmp_path / "models" / "a"), right=str(tmp_path / "models" / "b"))


def go(asked, out: Path, step: Step = toys.BLEND, **more):
    return run_step(step, asked, out, resolve=toys.resolve, **more)


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if "models" not in p.parts)


def test_the_second_is_told_who_makes_the_output(asked, tmp_path):
    out = tmp_path / "made"
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "held\n"
        (tmp_path / "made.partial").mkdir()
        (tmp_path / "made.partial" / "half").write_text("of the other")
        before = names(tmp_path)
        for force in (False, True):
            with pytest.raises(Held, match="another run is making this output") as caught:
                go(asked, out, force=force)
            assert caught.value.exit_code == 4 and f"process {child.pid} on " in caught.value.found and caught.value.fix
        assert names(tmp_path) == before
    finally:
        child.kill()
        child.wait()
    said = []
    assert go(asked, out, tell=said.append).summary
    assert any("was cut off" in event.text for event in said), "what a killed holder left is told, and no hindrance"


def test_planning_does_not_keep_the_second_waiting(asked, tmp_path):
    """A plan may read for minutes: who makes the output is told before it."""
    def slow(config, context):
        raise AssertionError("planned")

    with lock_output(tmp_path / "made"), pytest.raises(Held, match=f"process {os.getpid()} "):
        go(asked, tmp_path / "made", Step("toy.slow", 1, toys.Blend, slow, toys.BLEND.run, makes_model=True))


def test_who_finds_the_lock_and_no_note_is_refused_too(asked, tmp_path):
    with lock_output(tmp_path / "made"):
        (tmp_path / "made.lock").write_bytes(b"")
        with pytest.raises(Held, match="a process that left no name"):
            go(asked, tmp_path / "made")


@pytest.mark.parametrize("note", ["", "fail", "crash", "interrupt"])
def test_the_lock_goes_with_the_run(note, asked, tmp_path):
    try:
        go(asked.model_copy(update={"note": note}), tmp_path / "made")
    except BaseException:
        assert note
    assert names(tmp_path) == sorted(x for x in names(tmp_path) if not x.endswith((".lock", ".partial")))


@pytest.mark.parametrize("model", [True, False])
def test_a_name_that_is_taken_meanwhile_costs_nothing(model, asked, tmp_path):
    out = tmp_path / "made"

    def run(config, context, folder):
        result = toys.BLEND.run(config, context, folder)
        out.mkdir()
        (out / "theirs").write_text("mine")
        return result

    with pytest.raises(ResourceError, match="taken while this was made") as caught:
        go(asked, out, Step("toy.taken", 1, toys.Blend, toys.BLEND.plan, run, makes_model=model))
    (kept,) = tmp_path.glob("made.made-*")
    assert str(kept) in caught.value.fix and (out / "theirs").read_text() == "mine"
    assert {"weights" if model else "model", "result.json", "manifest.json"} <= {p.name for p in kept.iterdir()}
    assert not (tmp_path / "made.partial").exists()


def test_nothing_of_another_run_is_said_to_be_kept(tmp_path, capsys, tiny):
    (tmp_path / "made.partial").mkdir()
    (tmp_path / "made.partial" / "half").write_text("of the other")
    with lock_output(tmp_path / "made"):
        code = cli.run(["merge", "soup", str(tiny("llama")), str(tiny("llama")), "--out", str(tmp_path / "made")])
    said = capsys.readouterr().err
    assert code == 4 and "another run is making this output" in said and "kept in" not in said


@pytest.mark.parametrize("left", [(), ("state",)])
def test_a_run_that_kept_nothing_leaves_nothing(left, asked, tmp_path):
    """A resumable step that fails before it has saved anything."""
    def run(config, context, folder):
        for name in left:
            (folder / name).mkdir()
        raise ResourceError("no such device")

    with pytest.raises(ResourceError):
        go(asked, tmp_path / "made", Step("toy.kept", 1, toys.Blend, toys.BLEND.plan, run, makes_model=True, resumable=True))
    assert not list(tmp_path.glob("made*"))
