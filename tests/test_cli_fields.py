"""Flags are made from the fields of a step's config: each explains itself, and what is typed means what a recipe would say."""

from __future__ import annotations

from typing import Literal, get_args, get_origin

import pytest

from polygraft import cli
from polygraft.cli.fields import inner, typeable, typed
from polygraft.cli.verb import step_command
from polygraft.recipe import parse_recipe
from polygraft.steps import TABLE


def recipe_of(capsys, *words: str):
    assert cli.run([*words, "--recipe"]) == 0
    return parse_recipe(capsys.readouterr().out, TABLE).steps[0].config


@pytest.mark.parametrize("step", TABLE, ids=lambda s: s.name)
def test_every_field_explains_itself(step):
    silent = [".".join(path) for path, field in typeable(step.config.model_fields) if not (field.description or "").strip()]
    assert silent == []


@pytest.mark.parametrize("step", TABLE, ids=lambda s: s.name)
def test_every_choice_can_be_typed(step):
    """What `--help` offers, words and numbers, is taken as it stands there."""
    for _, field in typeable(step.config.model_fields):
        if get_origin(kind := inner(field.annotation)) is Literal:
            assert [typed(str(choice), field, "") for choice in get_args(kind)] == list(get_args(kind))


def test_a_number_that_is_one_of_a_few(capsys):
    assert recipe_of(capsys, "prune", "plan", "./m", "--bits", "3").bits == 3
    assert cli.run(["prune", "plan", "./m", "--bits", "7"]) == 2 and "one of 2, 3, 4, 5, 6, 8" in capsys.readouterr().err


@pytest.mark.parametrize("step", TABLE, ids=lambda s: s.name)
def test_what_is_needed_comes_first_in_the_help(step, capsys):
    params = step_command(step.name).params
    needed = [p.required or "[required]" in (getattr(p, "help", None) or "") for p in params]
    assert needed == sorted(needed, reverse=True)
    names = [p.name for p in params]
    assert len(names) == len(set(names)), "two fields with one name"


def test_a_setting_inside_a_setting_has_its_own_flag(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = recipe_of(capsys, "eval", "./m", "--problems-steps", "1,2", "--problems-operations", "+-", "--limit", "5")
    assert config.problems.steps == (1, 2) and config.problems.operations == "+-" and config.problems.split == "test"
    assert cli.run(["eval", "./m", "--problems-steps", "one", "--recipe"]) == 2
    assert "--problems-steps" in capsys.readouterr().err


def test_lists_split_at_commas_but_paths_do_not(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert recipe_of(capsys, "eval", "./m", "--langs", "sw,en", "--tasks", "mgsm").langs == ("sw", "en")
    config = recipe_of(capsys, "tune", "sft", "./m", "--data", "problems:en?steps=1,2", "--data", "more.jsonl")
    assert config.data == ("problems:en?steps=1,2", "more.jsonl")


def test_a_corpus_is_named_with_its_language(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = recipe_of(capsys, "eval", "./m", "--corpus", "swh_Latn=texts/sw.txt", "--corpus", "en=sampler")
    assert config.corpora == {"sw": "texts/sw.txt", "en": "sampler"}


def test_a_language_named_twice_is_refused(capsys):
    assert cli.run(["eval", "./m", "--corpus", "en=a.txt", "--corpus", "en=b.txt", "--recipe"]) == 2
    assert "named twice" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "said"), [
    (["--langs", "englsh"], "did you mean `en`"), (["--corpus", "swx=a.txt"], "did you mean `sw`"), (["--corpus", "a.txt"], "NAME=VALUE"),
    (["--tasks", "mgms"], "did you mean `mgsm`"), (["--tasks", "mgsm@7"], "version"), (["--limit", "0"], "at least 1"),
    (["--dtype", "floot32"], "did you mean `float32`"),
])
def test_a_slip_is_named_with_its_flag_and_exits_2(words, said, capsys):
    assert cli.run(["eval", "./m", *words]) == 2
    err = capsys.readouterr().err
    assert words[0] in err and said in err
    assert "[0]" not in err, "the flag and the word say where"


def test_a_plan_says_what_is_wrong_once(tiny, capsys):
    for words in (["--langs", ""], ["--tasks", "lm-eval:hellaswg"]):
        assert cli.run(["eval", str(tiny("llama")), *words, "--plan", "--offline"]) == 2
        said = capsys.readouterr()
        assert (said.out + said.err).count("nothing to evaluate" if words[1] == "" else "no such task") == 1
    assert "did you mean `hellaswag`?" in said.err
