"""Steps that build on what earlier steps wrote: found by id or path, known by content, skipped and made again with them."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import Field

import toys
from polygraft import recipe as engine
from polygraft.config import Strict
from polygraft.errors import InputError, RecipeError
from polygraft.files import write_json
from polygraft.recipe import Context, DataRef, FolderRef, Plan, SelectRef, Step, parse_recipe, plan, plan_step, run, run_step
from polygraft.recipetext import references
from polygraft.result import Result
from polygraft.selectionfile import FILE, Entry, pick, write


class Gather(Strict):
    texts: DataRef
    share: float = 0.5
    found: FolderRef | None = None


class Use(Strict):
    found: FolderRef | None = None
    select: SelectRef | None = None
    many: tuple[SelectRef, ...] = ()
    deep: dict[str, FolderRef] = Field(default_factory=dict)


def _gather(config: Gather, context: Context, out: Path) -> Result:
    text = context.data(config.texts).read_text()
    (out / "words.txt").write_text(text * 2)
    n = len(text)
    write(out / FILE, {"sw": (Entry(0, "ffn", "neuron", [n]),), "en": (Entry(1, "ffn", "neuron", [n, n + 1]),)})
    return Result("gather", "", "Gathered", data={"share": config.share})


def _use(config: Use, context: Context, out: Path) -> Result:
    rows = [e.rows.tolist() for s in (config.select, *config.many) if s for e in pick(s, context.folder)]
    words = [(context.folder(f) / "words.txt").read_text() for f in (config.found, *config.deep.values()) if f]
    return Result("use", "", "Used", data={"rows": rows, "words": words})


def _plan(config: Use, context: Context) -> Plan:
    lines = [str(len(pick(s, context.folder))) for s in (config.select, *config.many) if s]
    return Plan(lines=tuple(lines + [context.folder(f).name for f in (config.found, *config.deep.values()) if f]))


GATHER = Step("toy.gather", 1, Gather, lambda c, x: Plan(), _gather)
USE = Step("toy.use", 1, Use, _plan, _use)
TABLE = (*toys.TABLE, GATHER, USE)
CHAIN = """\
recipe: 1
name: chain
steps:
  - {id: read, use: toy.gather, texts: texts/sw.txt}
  - {id: used, use: toy.use, found: read, select: "read:sw", many: ["read:en", "read:en+sw"], deep: {a: read}}
"""


@pytest.fixture
def world(tmp_path):
    toys.world(tmp_path)
    return tmp_path


def parsed(text: str, world: Path):
    return parse_recipe(text, TABLE, world)


def go(text: str, world: Path):
    return run(parsed(text, world), world / "runs", resolve=toys.resolve)


def of(text: str, world: Path):
    return plan(parsed(text, world), world / "runs", resolve=toys.resolve)


def use(out: Path, **fields):
    return run_step(USE, Use(**fields), out, folder=out.parent, resolve=toys.resolve)


def test_a_chain_runs_and_is_skipped_the_second_time(world):
    first = go(CHAIN, world)
    assert first.ran == ("read", "used")
    assert first.results[1].data == {"rows": [[7], [7, 8], [7, 8], [7]], "words": ["habari\nhabari\n"] * 2}
    assert [i.spec for i in first.results[1].inputs] == ["step read", "step read:sw", "step read:en", "step read:en+sw"]
    second = go(CHAIN, world)
    assert second.ran == () and second.skipped == ("read", "used")


@pytest.mark.parametrize("change, ran", [
    (("texts: texts/sw.txt", "texts: texts/sw.txt, share: 0.25"), ("read", "used")), (("read:sw", "read:en"), ("used",)),
    (("deep: {a: read}", "deep: {b: read}"), ("used",)), (("name: chain", "name: chain\nquestion: Why?"), ()),
])  # fmt: skip
def test_what_changes_runs_again_and_all_that_builds_on_it(world, change, ran):
    go(CHAIN, world)
    assert change[0] in CHAIN and go(CHAIN.replace(*change), world).ran == ran


def test_a_changed_text_runs_the_chain_again(world):
    go(CHAIN, world)
    (world / "texts" / "sw.txt").write_text("karibu sana\n")
    assert go(CHAIN, world).ran == ("read", "used")


def test_a_damaged_step_is_made_again_before_it_is_used(world):
    first = go(CHAIN, world)
    folder = next((first.folder / "steps").glob("read-*"))
    (folder / "words.txt").write_text("x")
    shutil.rmtree(next((first.folder / "steps").glob("used-*")))
    again = go(CHAIN, world)
    assert again.ran == ("read", "used") and again.results[1].data == first.results[1].data


def test_planning_before_the_first_run_says_what_waits(world):
    before = of(CHAIN, world)
    assert before.errors == () and all(s.key for s in before.steps)
    assert before.steps[1].plan.notes == ("planned in full when it can be: the step `read` has not run yet",)
    go(CHAIN, world)
    assert of(CHAIN, world).steps[1].plan.lines[:3] == ("1", "1", "2") and of(CHAIN, world).steps[1].cached
    assert [s.key for s in of(CHAIN, world).steps] == [s.key for s in before.steps]


@pytest.mark.parametrize("old, new, what", [
    ("found: read", "found: used", "a step cannot use its own output"), ('"read:sw"', '"raed:sw"', "nothing is called `raed`"),
    ("found: read", "found: reed", "nothing is called `reed`"), ("deep: {a: read}", "deep: {a: nought}", "nothing is called `nought`"),
    ("texts: texts/sw.txt", "texts: texts/sw.txt, found: used", "`used` comes later"),
])  # fmt: skip
def test_references_that_lead_nowhere_are_refused_with_their_line(world, old, new, what):
    with pytest.raises(RecipeError, match=what) as error:
        parsed(CHAIN.replace(old, new, 1), world)
    assert "recipe:" in str(error.value)


def test_a_slip_of_a_step_is_guessed(world):
    with pytest.raises(RecipeError, match="did you mean `read`"):
        parsed(CHAIN.replace("found: read", "found: raed"), world)


def test_a_step_that_makes_no_model_is_still_no_model(world):
    text = CHAIN + "  - {id: b, use: toy.blend, left: read, right: models/a}\n"
    with pytest.raises(RecipeError, match="makes no model"):
        parsed(text, world)


def test_a_step_that_makes_a_model_may_be_named_as_a_folder(world):
    text = "recipe: 1\nname: m\nsteps:\n  - {id: one, use: toy.blend, left: models/a, right: models/b}\n  - {id: two, use: toy.use, deep: {}}\n"
    looked = {}
    step = replace(USE, run=lambda c, x, o: looked.setdefault("at", x.folder(c.found)) and Result("use", "", "x"))
    recipe = parse_recipe(text.replace("deep: {}", "found: one"), (*toys.TABLE, step), world)
    run(recipe, world / "runs", resolve=toys.resolve)
    assert (looked["at"] / "model" / "weights").is_file()


def test_the_resolved_recipe_names_the_same_things(world):
    made = go(CHAIN, world)
    resolved = (made.folder / "recipe.resolved.yaml").read_text()
    assert "read:en+sw" in resolved
    again = parse_recipe(resolved, TABLE, world.parent)
    assert run(again, world / "runs", resolve=toys.resolve).ran == ()


def test_a_path_in_a_resolved_recipe_is_whole_and_keeps_its_names(world):
    go(CHAIN, world)
    shutil.copytree(next((world / "runs").glob("chain/steps/read-*")), world / "found")
    recipe = parsed("recipe: 1\nname: x\nsteps:\n  - {id: u, use: toy.use, found: found, select: 'found:en'}\n", world)
    text = engine.resolved(recipe)
    assert f"found: {world / 'found'}" in text and f"{world / 'found'}:en" in text


# ------------------------------------------------------------------------------------------------------------- on disk


@pytest.fixture
def found(world):
    run_step(GATHER, Gather(texts=str(world / "texts" / "sw.txt")), world / "found", folder=world)
    return world / "found"


def test_a_verb_takes_a_folder_or_a_file(found, world):
    assert use(world / "a", select=f"{found}:en").data["rows"] == [[7, 8]]
    assert use(world / "b", select=f"{found / FILE}:en").data["rows"] == [[7, 8]]
    assert use(world / "c", found="found").data["words"] == ["habari\nhabari\n"]


def test_the_same_verb_again_changes_nothing_and_other_names_do(found, world):
    use(world / "a", select=f"{found}:en")
    before = (world / "a" / "manifest.json").stat().st_mtime_ns
    use(world / "a", select=f"{found}:en")
    assert (world / "a" / "manifest.json").stat().st_mtime_ns == before
    with pytest.raises(RecipeError):
        use(world / "a", select=f"{found}:sw")


def key(world: Path, **fields) -> str:
    planned = plan_step(USE, Use(**fields), folder=world, resolve=toys.resolve)
    assert planned.errors == ()
    return planned.key


def test_a_folder_is_known_by_what_is_in_it(found, world):
    shutil.copytree(found, world / "copy")
    for path in (world / "copy").iterdir():
        os.utime(path, (1, 1))
    assert key(world, found=str(found)) == key(world, found=str(world / "copy")) == key(world, found="copy")
    assert key(world, select="found:sw") == key(world, select="copy:sw") == key(world, select=f"copy/{FILE}:sw")
    assert key(world, select="found:sw") != key(world, select="found:en")


def test_only_the_selection_file_of_a_folder_counts_for_a_selection(found, world):
    before, all_of_it = key(world, select="found:sw"), key(world, found="found")
    (found / "words.txt").write_text("other words!\n\n")  # as many bytes, so that the folder still looks whole
    manifest = json.loads((found / "manifest.json").read_text())
    manifest["files"]["words.txt"]["sha256"] = "0" * 64
    write_json(found / "manifest.json", manifest)
    assert key(world, select="found:sw") == before and key(world, found="found") != all_of_it


def test_a_folder_without_a_manifest_is_known_by_its_files(world):
    assert key_of_texts(world) == key_of_texts(world)
    first = key_of_texts(world)
    (world / "texts" / "words.txt").write_text("b")
    assert key_of_texts(world) != first


def key_of_texts(world: Path) -> str:
    return plan_step(replace(USE, plan=lambda c, x: Plan()), Use(found="texts"), folder=world).key


@pytest.mark.parametrize("fields, what", [
    ({"found": "nowhere/x"}, "no such file or folder"), ({"select": "nowhere/x:sw"}, "no such file or folder"),
    ({"select": "found:xx"}, "no selection of this name"), ({"select": "found"}, "several selections"),
    ({"select": "texts/sw.txt:sw"}, "not valid JSON"), ({"select": "models:sw"}, "cannot be read"),
])  # fmt: skip
def test_what_is_not_there_is_refused_when_planned_and_nothing_is_written(found, world, fields, what):
    planned = plan_step(USE, Use(**fields), folder=world, resolve=toys.resolve)
    assert [e for e in planned.errors if what in str(e)] and "step `use`" in str(planned.errors[0])
    with pytest.raises((InputError, RecipeError), match=what):
        use(world / "out", **fields)
    assert not (world / "out").exists()


def test_a_damaged_folder_is_refused(found, world):
    (found / "words.txt").unlink()
    planned = plan_step(USE, Use(found="found"), folder=world)
    assert "not as it was written" in str(planned.errors[0]) and "words.txt: missing" in str(planned.errors[0])


def test_an_output_may_not_lie_in_what_is_used(found):
    with pytest.raises(RecipeError):
        use(found / "inner", select=f"{found}:sw")
    assert not (found / "inner").exists()


def test_references_of_every_kind_are_found():
    config = Use(found="a", select="b:x", many=("c:y",), deep={"k": "d"})
    assert [(place, ref.target) for place, ref in references(config)] == [
        (("found",), "a"), (("select",), "b"), (("many", 0), "c"), (("deep", "k"), "d")]  # fmt: skip
