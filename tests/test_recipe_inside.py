"""What a step wrote, named file by file: `one/model/weights` in the fields that take data and models."""

from __future__ import annotations

import pytest

import toys
from polygraft.errors import RecipeError
from polygraft.recipe import parse_recipe, plan, run

RECIPE = """\
recipe: 1
name: inside
models: {a: models/a, b: models/b}
steps:
  - {id: one, use: toy.blend, left: a, right: b}
  - id: scores
    use: toy.score
    models: [one/model]
    texts:
      sw: {corpus: one/model/weights}
"""


def go(folder, text=RECIPE):
    return run(parse_recipe(text, toys.TABLE, folder), folder / "runs", resolve=toys.resolve)


@pytest.fixture
def folder(tmp_path):
    toys.world(tmp_path)
    return tmp_path


def test_a_file_of_a_step_is_found_once_it_is_made(folder):
    told = plan(parse_recipe(RECIPE, toys.TABLE, folder), folder / "runs", resolve=toys.resolve)
    assert told.errors == () and "has not run yet" in told.steps[1].plan.notes[0]
    done = go(folder)
    assert dict(done.results[1].tables[0].rows) == {"one/model": 22, "sw": 22}
    assert go(folder).skipped == ("one", "scores")
    assert "one/model/weights" in (done.folder / "recipe.resolved.yaml").read_text()


def test_the_step_behind_it_decides_whether_a_step_runs_again(folder):
    go(folder)
    again = go(folder, RECIPE.replace("right: b", "right: b, bottom: 6"))
    assert again.ran == ("one", "scores")


def test_two_files_of_one_step_are_two_inputs(folder):
    key = plan(parse_recipe(RECIPE, toys.TABLE, folder), folder / "runs", resolve=toys.resolve).steps[1].key
    other = RECIPE.replace("one/model/weights", "one/result.json")
    assert plan(parse_recipe(other, toys.TABLE, folder), folder / "runs", resolve=toys.resolve).steps[1].key != key
    assert go(folder, other).results[1].tables[0].rows[1][0] == "sw"


def test_a_file_that_the_step_does_not_write_is_refused(folder):
    with pytest.raises(Exception, match=r"one/model/other: no such file or folder"):
        go(folder, RECIPE.replace("one/model/weights", "one/model/other"))


def test_a_later_step_cannot_be_looked_into(folder):
    text = RECIPE.replace("left: a,", "left: scores/model,")
    with pytest.raises(RecipeError, match="`scores` comes later"):
        parse_recipe(text, toys.TABLE, folder)


def test_dots_do_not_climb_out_of_a_step(folder):
    told = plan(parse_recipe(RECIPE.replace("one/model/weights", "one/../texts/sw.txt"), toys.TABLE, folder), folder / "runs",
                resolve=toys.resolve)
    assert "no such file" in str(told.errors[0])
