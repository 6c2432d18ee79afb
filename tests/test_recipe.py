"""Planning and running recipes, single steps, and the texts that go back to the person."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import toys
from polygraft import files, planning, recipe
from polygraft.errors import InputError, RecipeError, ResourceError, StepFailed, UserError
from polygraft.files import verify_folder
from polygraft.recipe import Plan, find_step, one_step_recipe, parse_recipe, plan, plan_step, read_recipe, resolved, run, run_step
from polygraft.result import Cost


@pytest.fixture
def folder(tmp_path):
    toys.world(tmp_path)
    return tmp_path


def read(folder: Path, *sets: str, table=toys.TABLE):
    return read_recipe(folder / "recipe.yaml", table, sets)


def go(folder: Path, *sets: str, table=toys.TABLE, tell=lambda e: None):
    return run(read(folder, *sets, table=table), folder / "runs", resolve=toys.resolve, tell=tell)


def planned(folder: Path, *sets: str, table=toys.TABLE):
    return plan(read(folder, *sets, table=table), folder / "runs", resolve=toys.resolve)


# ------------------------------------------------------------------------------------------------------------------ plan


def test_a_plan_tells_each_step_and_touches_nothing(folder):
    before = sorted(folder.rglob("*"))
    told = planned(folder)
    assert [(s.id, s.use, s.cached, s.why) for s in told.steps] == [
        ("one", "toy.blend@1", False, "not made yet"), ("two", "toy.blend@2", False, "not made yet"), ("scores", "toy.score@1", False, "not made yet")]
    assert told.errors == () and told.seconds == 2.5 and told.disk_bytes == 40 == told.read_bytes
    assert told.steps[0].plan.lines == ("blend a and b",)
    assert sorted(folder.rglob("*")) == before


def test_a_plan_counts_only_what_is_left_to_do(folder):
    go(folder, "steps.scores.langs=[sw]")
    told = planned(folder)
    assert [s.cached for s in told.steps] == [True, True, False] and told.seconds == 0.5 and told.disk_bytes == 0


def test_a_plan_tells_every_reason_why_it_would_fail(folder):
    (folder / "models/b/weights").unlink()
    (folder / "texts/sw.txt").unlink()
    told = planned(folder)
    assert len(told.errors) == 2 and not (folder / "runs").exists()
    with pytest.raises(InputError) as caught:
        told.check()
    text = str(caught.value)
    assert text.startswith("2 problems\n") and "recipe.yaml:8: step `one`" in text and "models/b: no such model" in text
    assert "recipe.yaml:17: step `scores`: texts/sw.txt: no such file or folder" in text and caught.value.exit_code == 3
    with pytest.raises(InputError, match="2 problems"):
        go(folder)
    assert not (folder / "runs").exists(), "nothing is written when the plan finds a fault"


def test_what_a_step_says_against_itself_is_a_problem(folder):
    (folder / "models/a/weights").write_bytes(b"broken....")
    with pytest.raises(UserError, match=r"recipe\.yaml:8: step `one`: the left model is marked as broken"):
        go(folder)


def test_a_step_whose_input_has_no_shape_yet_is_planned_later(folder):
    shapeless = tuple(replace(s, plan=lambda c, x, plan=s.plan: replace(plan(c, x), like=None)) for s in toys.TABLE)
    told = planned(folder, table=shapeless)
    assert told.errors == () and told.steps[1].plan.notes == ("planned in full when it can be: the model of the step `one` is not made yet",)
    assert go(folder, table=shapeless).ran == ("one", "two", "scores")


@pytest.mark.parametrize(("field", "words"), [("disk_bytes", "not enough room on the disk"), ("peak_bytes", "not enough memory")])
def test_a_machine_that_is_too_small_is_said_at_once(field, words, folder):
    greedy = tuple(replace(s, plan=lambda c, x: Plan(**{field: 1 << 60})) for s in toys.TABLE)
    with pytest.raises(ResourceError, match=words) as caught:
        go(folder, table=greedy)
    assert "1,152,921,504,606,846,976 bytes" in str(caught.value) or field == "disk_bytes"
    with pytest.raises(ResourceError, match=words):
        run_step(greedy[0], toys.Blend(left="models/a", right="models/b"), folder / "out", folder=folder, resolve=toys.resolve)


def test_planning_imports_neither_torch_nor_transformers(folder):
    code = (f"import sys; sys.path.insert(0, {str(Path(toys.__file__).parent)!r})\nimport toys\nfrom pathlib import Path\n"
            f"from polygraft.recipe import plan, read_recipe\nf = Path({str(folder)!r})\n"
            "p = plan(read_recipe(f / 'recipe.yaml', toys.TABLE), f / 'runs', resolve=toys.resolve)\nassert not p.errors\n"
            "print(sorted({'torch', 'transformers', 'numpy', 'huggingface_hub'} & set(sys.modules)))")  # fmt: skip
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# ------------------------------------------------------------------------------------------------------------------- run


def test_a_run_leaves_what_the_layout_says(folder):
    done = go(folder)
    assert done.ran == ("one", "two", "scores") and done.folder == folder / "runs" / "toys"
    assert sorted(p.name for p in done.folder.iterdir()) == ["recipe.resolved.yaml", "recipe.yaml", "run.json", "run.lock", "steps"]
    assert (done.folder / "recipe.yaml").read_text() == toys.RECIPE
    assert dict(done.results[2].tables[0].rows) == {"a": 10, "one": 22, "two": 34, "sw": 7}
    step = next((done.folder / "steps").glob("two-*"))
    manifest = json.loads((step / "manifest.json").read_text())
    assert manifest["recipe"]["use"] == "toy.blend@2" and manifest["recipe"]["bottom"] == 7 and manifest["key"].startswith(step.name[4:])
    assert [i["name"] for i in manifest["inputs"]] == ["one", "c"] and manifest["inputs"][1]["spec"] == "models/c on a"
    assert manifest["versions"]["python"] and manifest["started"] <= manifest["finished"]


def test_results_carry_id_step_inputs_and_cost(folder):
    for result in go(folder).results:
        assert result.step.endswith("@1") or result.id == "two"
        assert result.inputs and result.cost != Cost() and result.cost.peak_bytes > 1 << 20


def test_events_tell_the_story_with_the_time_left(folder):
    events = []
    go(folder, tell=events.append)
    assert [e.kind for e in events if e.step == "one"] == ["start", "progress", "done"]
    last = next(e for e in events if e.kind == "progress")
    assert (last.done, last.total, last.eta, last.index, last.count) == (2, 2, 0.0, 0, 3)
    events.clear()
    go(folder, tell=events.append)
    assert [e.text for e in events] == [f"Skipping '{i}': nothing changed" for i in ("one", "two", "scores")]


def test_time_left_is_in_proportion(monkeypatch):
    clock, seen = iter([100.0, 150.0, 160.0, 161.0]), []
    monkeypatch.setattr(recipe.time, "monotonic", lambda: next(clock))
    progress = recipe._ticker("x", 0, 1, seen.append)
    progress(1, 4, "a")
    progress(2, 4, "b")
    progress(4, 4, "c")
    assert [(e.seconds, e.eta) for e in seen] == [(50.0, None), (60.0, 20.0), (61.0, 0.0)], "what was before the first news is no speed"


@pytest.mark.parametrize(("note", "kind", "words"), [
    ("fail", InputError, "recipe.yaml:12: step `two`: toy: asked to fail\n  fix: ask for something else"),
    ("crash", StepFailed, "step `two`: the step could not finish\n  found: ZeroDivisionError: asked to crash"),
])
def test_a_failing_step_names_its_place_and_leaves_nothing(note, kind, words, folder):
    with pytest.raises(kind) as caught:
        go(folder, f"steps.two.note={note}")
    assert words in str(caught.value) and caught.value.exit_code == {InputError: 3, StepFailed: 5}[kind]
    assert [p.name[:3] for p in (folder / "runs/toys/steps").iterdir()] == ["one"]


@pytest.mark.parametrize(("error", "words"), [
    (MemoryError(), "out of memory"), (ResourceError("could not write", where="/x", found="disk full"), "step `one`: /x: could not write"),
])
def test_a_lack_of_resources_stays_one(error, words, folder):
    def fail(config, context, out):
        raise error

    with pytest.raises(ResourceError, match=words):
        go(folder, table=tuple(replace(s, run=fail) for s in toys.TABLE))


@pytest.mark.parametrize("kind", [RecipeError, InputError])
def test_what_was_typed_or_given_keeps_its_exit_code(kind, folder):
    def fail(config, context, out):
        raise kind("not so", where="there")

    with pytest.raises(kind, match="step `one`: there: not so"):
        go(folder, table=tuple(replace(s, run=fail) for s in toys.TABLE))


def test_paths_begin_at_the_recipe_wherever_one_stands(folder, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert go(folder).ran == ("one", "two", "scores")


def test_a_complete_folder_inside_a_step_is_not_hashed_twice(folder, monkeypatch):
    def sealed(config, context, out):
        result = toys.BLEND.run(config, context, out)
        files.seal(out / "model", {})
        return result

    hashed = []
    real = files.sha256_file
    monkeypatch.setattr(files, "sha256_file", lambda p: hashed.append(Path(p).name) or real(p))
    done = go(folder, table=(replace(toys.BLEND, run=sealed), replace(toys.BLEND2, run=sealed), toys.SCORE))
    assert hashed.count("weights") == 2
    assert verify_folder(next((done.folder / "steps").glob("one-*"))) == []


# ----------------------------------------------------------------------------------------------------------------- texts


def test_the_resolved_recipe_has_every_default_and_the_same_keys(folder, tmp_path_factory):
    text = resolved(read(folder))
    assert "use: toy.blend@2" in text and "share: 0.5" in text and str(folder / "models" / "a") in text
    elsewhere = parse_recipe(text, toys.TABLE, tmp_path_factory.mktemp("elsewhere"))
    keys = [s.key for s in planned(folder).steps]
    assert [s.key for s in plan(elsewhere, folder / "runs", resolve=toys.resolve).steps] == keys
    assert resolved(elsewhere) == text
    go(folder)
    again = read_recipe(folder / "runs/toys/recipe.resolved.yaml", toys.TABLE)
    assert run(again, folder / "runs", resolve=toys.resolve).ran == ()


def test_keys_do_not_depend_on_the_hash_seed(folder):
    code = (f"import sys; sys.path.insert(0, {str(Path(toys.__file__).parent)!r})\nimport toys\nfrom pathlib import Path\n"
            f"from polygraft.recipe import plan, read_recipe\nf = Path({str(folder)!r})\n"
            "print([s.key for s in plan(read_recipe(f / 'recipe.yaml', toys.TABLE), f, resolve=toys.resolve).steps])")  # fmt: skip
    keys = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}).stdout
            for seed in "012"}  # fmt: skip
    assert len(keys) == 1


def test_a_verb_as_a_recipe_reads_back_as_the_same_config(folder):
    config = toys.Score(models=["models/a", "models/b"], texts={"no": toys.Texts(corpus="texts/sw.txt", limit=3)}, langs=("no", "1"))
    text = one_step_recipe(toys.SCORE, config)
    (use,) = parse_recipe(text, toys.TABLE, folder).steps
    assert use.config == config and use.step is toys.SCORE and use.id == "score"
    assert "batch" not in text and text.startswith("recipe: 1\nname: toy-score\n")


def test_a_folder_beside_the_recipe_may_be_named_by_one_word(folder):
    (folder / "lonely").mkdir()
    (folder / "lonely" / "weights").write_bytes(b"z")
    assert go(folder, "steps.one.left=lonely").ran[0] == "one"
    with pytest.raises(RecipeError, match="nothing is called `lonly`"):
        read(folder, "steps.one.left=lonly")


def test_an_adapter_cannot_stand_on_an_adapter(folder):
    told = planned(folder, "models.d={adapter: models/b, base: c}", "steps.two.right=d")
    assert any("an adapter cannot stand on another adapter" in str(e) for e in told.errors)


def test_an_adapter_without_a_base_finds_the_one_its_config_names(folder):
    class Adapter:
        base = "models/a"

    def resolve(spec, *, offline=False, base=None):
        source = toys.resolve(spec, base=base)
        source.adapter = Adapter() if spec.endswith("/c") else None
        return source

    def replaced(source, **changes):
        source.base = changes["base"]
        return source

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "replace", replaced)
        space = planning.Workspace(read(folder), planning.RunFolder(folder / "runs"), resolve=resolve)
        assert space.source("models/c").base is space.source("a")


def test_a_step_without_a_version_is_the_latest():
    assert find_step(toys.TABLE, "toy.blend") is toys.BLEND2 and find_step(toys.TABLE, "toy.blend@1") is toys.BLEND


# -------------------------------------------------------------------------------------------------------------- one step


def blend(folder: Path, out: Path, **options):
    fields = {k: options.pop(k) for k in ("note", "bottom") if k in options}
    config = toys.Blend(left="models/a", right="models/b", **fields)
    return run_step(toys.BLEND, config, out, folder=folder, resolve=toys.resolve, **options)


def test_a_single_step_writes_its_model_straight_into_the_output(folder):
    result = blend(folder, folder / "out")
    assert sorted(p.name for p in (folder / "out").iterdir()) == ["manifest.json", "result.json", "weights"]
    assert verify_folder(folder / "out") == [] and result.id == "blend" and not list(folder.glob("*.partial"))


def test_a_model_that_brings_its_own_manifest_keeps_it(folder):
    def sealed(config, context, out):
        result = toys.BLEND.run(config, context, out)
        files.seal(out / "model", {"kind": "model", "donor": "a"})
        return result

    config = toys.Blend(left="models/a", right="models/b")
    run_step(replace(toys.BLEND, run=sealed), config, folder / "out", folder=folder, resolve=toys.resolve)
    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    assert manifest["donor"] == "a" and sorted(manifest["files"]) == ["result.json", "weights"] and verify_folder(folder / "out") == []


def test_a_single_step_that_makes_no_model_fills_the_output(folder):
    config = toys.Score(models=["models/a"])
    result = run_step(toys.SCORE, config, folder / "out", folder=folder, resolve=toys.resolve)
    assert dict(result.tables[0].rows) == {"models/a": 10}
    assert sorted(p.name for p in (folder / "out").iterdir()) == ["manifest.json", "result.json"] and verify_folder(folder / "out") == []


@pytest.mark.parametrize("kind", ["full", "file"])
def test_an_output_that_is_taken_is_refused_before_any_work(kind, folder):
    out = folder / "out"
    if kind == "full":
        out.mkdir()
    (out / "old" if kind == "full" else out).write_text("old")
    with pytest.raises(RecipeError) as caught:
        blend(folder, out)
    assert caught.value.exit_code == 2 and (out / "old" if kind == "full" else out).read_text() == "old"


def test_an_empty_output_folder_is_used(folder):
    (folder / "out").mkdir()
    blend(folder, folder / "out")
    assert verify_folder(folder / "out") == []


def test_force_moves_the_old_output_aside(folder):
    blend(folder, folder / "out")
    events = []
    blend(folder, folder / "out", force=True, bottom=9, tell=events.append)
    (aside,) = folder.glob("out.replaced-*")
    assert verify_folder(aside) == [] == verify_folder(folder / "out")
    assert (aside / "weights").read_bytes().endswith(b"5") and (folder / "out" / "weights").read_bytes().endswith(b"9")
    assert events[0].text == f"Moved the old out to {aside.name}"


@pytest.mark.parametrize(("note", "error"), [("fail", InputError), ("interrupt", KeyboardInterrupt)])
def test_force_gives_the_old_output_back_when_the_new_one_fails(note, error, folder):
    blend(folder, folder / "out")
    with pytest.raises(error):
        blend(folder, folder / "out", force=True, note=note)
    assert verify_folder(folder / "out") == [] and sorted(p.name for p in folder.glob("out*")) == ["out"]


def test_what_a_killed_single_step_left_is_cleared(folder):
    (folder / "out.partial" / "model").mkdir(parents=True)
    (folder / "out.partial" / "model" / "junk").write_text("junk")
    blend(folder, folder / "out")
    assert sorted(p.name for p in (folder / "out").iterdir()) == ["manifest.json", "result.json", "weights"]


def test_a_single_step_is_planned_without_a_recipe(folder):
    told = plan_step(toys.BLEND, toys.Blend(left="models/a", right="models/nope"), folder=folder, resolve=toys.resolve)
    assert [type(e) for e in told.errors] == [InputError] and "command line: step `blend`: models/nope: no such model" in str(told.errors[0])
    assert plan_step(toys.BLEND, toys.Blend(left="models/a", right="models/b"), folder=folder, resolve=toys.resolve).plan.disk_bytes == 20
