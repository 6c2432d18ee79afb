"""Group I: after any change exactly the affected steps run again; damage is seen; a sample log survives a cut at any byte."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import toys
from polygraft import planning
from polygraft.errors import InputError
from polygraft.recipe import Step, plan, read_recipe, run
from polygraft.store import RunFolder, SampleLog, verify_run

pytestmark = pytest.mark.group("I")
ALL = ("one", "two", "scores")


def go(folder: Path, *sets: str, table=toys.TABLE):
    return run(read_recipe(folder / "recipe.yaml", table, sets), folder / "runs", resolve=toys.resolve)


@pytest.fixture
def done(tmp_path):
    """A folder whose recipe has been run once."""
    toys.world(tmp_path)
    assert go(tmp_path).ran == ALL
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def swap_lines(folder: Path) -> None:
    """Put `scores` between the merges: it then names only what is before it."""
    text = (folder / "recipe.yaml").read_text()
    head, one, two, scores = text.replace("models: [a, one, two]", "models: [a, one]").split("  - id: ")
    (folder / "recipe.yaml").write_text("  - id: ".join([head, one, scores, two]))


SETS = {
    "nothing": ((), ()),
    "a field of the first step": (("steps.one.bottom=6",), ALL),
    "a field of the second": (("steps.two.share=0.25",), ("two", "scores")),
    "a field of the last": (("steps.scores.langs=[sw]",), ("scores",)),
    "a choice": (("steps.two.weights=ramp",), ("two", "scores")),
    "a flag": (("steps.one.quiet=true",), ALL),
    "a default written out": (("steps.one.bottom=5", "steps.one.weights=plain", "steps.two.share=0.5"), ()),
    "a number written as a whole one": (("steps.one.share=5e-1",), ()),
    "batch size": (("steps.scores.batch=64",), ()),
    "threads": (("steps.one.threads=4",), ()),
    "the question": (("question=Is it so?",), ()),
    "another model for a step": (("steps.one.right=c",), ALL),
    "another base for the adapter": (("models.c.base=b",), ("two", "scores")),
    "fewer models to score": (("steps.scores.models=[a]",), ("scores",)),
    "the order of models to score": (("steps.scores.models=[one, a, two]",), ("scores",)),
    "a nested field": (("steps.scores.texts.sw.limit=3",), ("scores",)),
}


@pytest.mark.parametrize("name", SETS)
def test_a_change_of_the_recipe_runs_what_it_affects(name, done):
    sets, expected = SETS[name]
    again = go(done, *sets)
    assert again.ran == expected and again.skipped == tuple(i for i in ALL if i not in expected)
    assert [r.id for r in again.results] == list(ALL)
    assert go(done).ran == (), "the first results are still there"


FILES = {
    "bytes of a model": (lambda d: (d / "models/b/weights").write_bytes(b"B" * 10), ALL),
    "bytes of the adapter": (lambda d: (d / "models/c/weights").write_bytes(b"C" * 10), ("two", "scores")),
    "one byte of the adapter's base": (lambda d: (d / "models/a/weights").write_bytes(b"aaaaaaaaaA"), ALL),
    "the text that is scored": (lambda d: (d / "texts/sw.txt").write_text("jambo\n"), ("scores",)),
    "times only": (lambda d: [os.utime(p, (1, 1)) for p in d.rglob("models/*/weights")], ()),
    "a comment in the recipe": (lambda d: edit(d / "recipe.yaml", "recipe: 1\n", "# by hand\nrecipe: 1\n"), ()),
    "the layout of the recipe": (lambda d: edit(d / "recipe.yaml", "    left: a\n    right: b\n", "    right: 'b'\n    left: \"a\"\n"), ()),
    "the order of steps": (swap_lines, ("scores",)),
    "the version of a step": (lambda d: edit(d / "recipe.yaml", "toy.blend@1", "toy.blend@2"), ALL),
    "the name of a step": (lambda d: (d / "recipe.yaml").write_text((d / "recipe.yaml").read_text().replace("two", "zwei")), None),
}


@pytest.mark.parametrize("name", FILES)
def test_a_change_of_a_file_runs_what_it_affects(name, done):
    change, expected = FILES[name]
    change(done)
    assert go(done).ran == (("zwei", "scores") if expected is None else expected)
    assert go(done).ran == ()


def test_another_version_of_the_package_runs_everything(done, monkeypatch):
    monkeypatch.setattr(planning, "__version__", "99.0")
    assert go(done).ran == ALL


def folder_of(done: Path, id: str) -> Path:
    return next((done / "runs" / "toys" / "steps").glob(f"{id}-*"))


ARTEFACTS = [("one", "model/weights"), ("one", "result.json"), ("one", "manifest.json"), ("scores", "result.json"), ("two", "manifest.json")]


@pytest.mark.parametrize(("id", "file"), ARTEFACTS)
@pytest.mark.parametrize("how", ["delete", "shorten", "lengthen"])
def test_a_damaged_artefact_is_made_again_and_nothing_else(how, id, file, done):
    path = folder_of(done, id) / file
    before = path.read_bytes()
    if how == "delete":
        path.unlink()
    else:
        path.write_bytes(before[:-2] if how == "shorten" else before + b" ")
    lengthened_json = how == "lengthen" and file == "manifest.json"  # a space after JSON is no damage
    assert go(done).ran == (() if lengthened_json else (id,))
    assert verify_run(done / "runs" / "toys") == []
    if file == "model/weights":
        assert path.read_bytes() == before


def test_an_extra_file_is_damage(done):
    (folder_of(done, "two") / "model" / "extra").write_text("x")
    assert go(done).ran == ("two",)


@pytest.mark.parametrize(("id", "file"), [a for a in ARTEFACTS if a[1] != "manifest.json"])
def test_a_flipped_bit_is_found_by_verify(id, file, done):
    path = folder_of(done, id) / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert [p.file for p in verify_run(done / "runs" / "toys")] == [f"{path.relative_to(path.parents[len(Path(file).parts)]).as_posix()}"]


def test_a_flipped_bit_in_a_manifest_is_found_by_verify(done):
    path = folder_of(done, "one") / "manifest.json"
    text = path.read_text()
    at = text.index('"sha256": "') + 11
    path.write_text(text[:at] + ("0" if text[at] != "0" else "1") + text[at + 1 :])
    assert len(verify_run(done / "runs" / "toys")) == 1


def test_steps_before_a_failure_stay_done(tmp_path):
    toys.world(tmp_path)
    with pytest.raises(Exception, match="asked to fail"):
        go(tmp_path, "steps.two.note=fail")
    assert not list(tmp_path.glob("runs/toys/steps/*.partial"))
    again = go(tmp_path)
    assert again.skipped == ("one",) and again.ran == ("two", "scores")


KILL = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import toys
from dataclasses import replace
from polygraft.recipe import read_recipe, run

def die(config, context, out):
    (out / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)

table = [replace(s, run=die) if s.name == "toy.score" else s for s in toys.TABLE]
folder = Path(sys.argv[2])
run(read_recipe(folder / "recipe.yaml", table), folder / "runs", resolve=toys.resolve)
"""


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    toys.world(tmp_path)
    dead = subprocess.run([sys.executable, "-c", KILL, str(Path(toys.__file__).parent), str(tmp_path)], check=False)
    assert dead.returncode == -signal.SIGKILL
    (left,) = tmp_path.glob("runs/toys/steps/*.partial")
    planned = plan(read_recipe(tmp_path / "recipe.yaml", toys.TABLE), tmp_path / "runs", resolve=toys.resolve)
    assert [(s.cached, s.why) for s in planned.steps] == [(True, ""), (True, ""), (False, "interrupted before")]
    assert go(tmp_path).ran == ("scores",)
    assert not left.exists() and not (folder_of(tmp_path, "scores") / "half").exists()


def test_an_interrupted_step_leaves_nothing(tmp_path):
    toys.world(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, "steps.two.note=interrupt")
    assert [p.name.split("-")[0] for p in (tmp_path / "runs/toys/steps").iterdir()] == ["one"]


def resumable(score: Step) -> Step:
    """A step that needs three attempts, each of which goes on from what the last one left."""

    def step(config, context, out):
        log = SampleLog(out / "samples.jsonl")
        log.append([{"attempt": len(log.rows)}])
        log.close()
        if len(log.rows) < 3:
            raise InputError("not yet")
        return toys.SCORE.run(config, context, out)

    return replace(score, run=step, resumable=True)


def test_a_resumable_step_finds_what_it_left(tmp_path):
    toys.world(tmp_path)
    table = (toys.BLEND, toys.BLEND2, resumable(toys.SCORE))
    for _ in range(2):
        with pytest.raises(Exception, match="not yet"):
            go(tmp_path, table=table)
    assert go(tmp_path, "steps.scores.batch=2", table=table).ran == ("scores",)
    assert len(SampleLog(folder_of(tmp_path, "scores") / "samples.jsonl").rows) == 3


def test_what_an_edited_recipe_no_longer_wants_is_not_resumed_from(tmp_path):
    toys.world(tmp_path)
    table = (toys.BLEND, toys.BLEND2, resumable(toys.SCORE))
    with pytest.raises(Exception, match="not yet"):
        go(tmp_path, table=table)
    with pytest.raises(Exception, match="not yet"):
        go(tmp_path, "steps.scores.langs=[sw]", table=table)
    (left,) = tmp_path.glob("runs/toys/steps/*.partial")
    assert len(SampleLog(left / "samples.jsonl").rows) == 1


# ------------------------------------------------------------------------------------------------------------ sample logs

ROWS = [{"id": "sw-1", "gold": "12", "nats": 0.1 + 0.2}, {"id": "ja-2", "output": "答え: 三\n\u2028", "ok": None}, {"id": "last", "text": "x" * 160}]


def test_a_log_cut_at_any_byte_of_its_last_line_keeps_the_others(tmp_path, record_property):
    path = tmp_path / "log.jsonl"
    with SampleLog(path) as log:
        log.append(ROWS)
    whole = path.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    record_property("cases", len(whole) - start)
    assert len(whole) - start >= 200
    for cut in range(start, len(whole)):
        path.write_bytes(whole[:cut])
        with SampleLog(path) as log:
            assert log.rows == ROWS[:2]
            log.append(ROWS[2:])
        assert path.read_bytes() == whole


@pytest.mark.parametrize("at", [2, 12, 30, 60])
def test_a_flipped_bit_in_a_log_is_named_by_its_line(at, tmp_path):
    path = tmp_path / "log.jsonl"
    with SampleLog(path) as log:
        log.append(ROWS)
    data = bytearray(path.read_bytes())
    second = data.index(b"\n") + 1
    data[second + at] ^= 4
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"log\.jsonl:2: a line does not match"):
        SampleLog(path)


def test_a_recipe_that_is_renamed_starts_afresh(done):
    assert go(done, "name=other").ran == ALL
    assert len(RunFolder(done / "runs" / "toys").results()) == 3
