"""Group J: a search that cannot be: its numbers, words and items are refused with their place, before any weight is read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tiny
from polygraft import cli
from polygraft.choose.search import fanout, proposals
from polygraft.choose.search.config import Search
from polygraft.choose.search.steps import STEPS
from polygraft.errors import InputError
from polygraft.recipe import run_step

BAD = {
    "bottoms without end": (["--bottoms", "0.."], 2, "not a list of whole numbers"),
    "bottoms backwards": (["--bottoms", "3..1"], 2, "not a list that can be tried"),
    "a step of nothing": (["--tops", "0..4:0"], 2, "not a list of whole numbers"),
    "no window fits": (["--bottoms", "9", "--tops", "0"], 2, "no window fits this model"),
    "a part that is none": (["--parts", "attn+mlp"], 2, "not kinds of parts"),
    "a part twice": (["--parts", "attn+attn"], 2, "not kinds of parts"),
    "a kind in two mixtures": (["--strategy", "greedy", "--parts", "attn+ffn,ffn"], 2, "chooses each kind of parts once"),
    "a transition of another kind": (["--weights", "steep"], 2, "one of plain, magnitude, ramp"),
    "magnitude without a base": (["--weights", "magnitude"], 2, "`base` is not named"),
    "embedding of a base that is not named": (["--embed", "base"], 2, "`base` is not named"),
    "near a base that is not named": (["--corpus", "en=sampler", "--kl", "en=base"], 2, "`base` is not named"),
    "near a source on no text": (["--kl", "es=task"], 2, "there is none in this language"),
    "near what is no source": (["--corpus", "en=sampler", "--kl", "en=both"], 2, "one of task, language, base"),
    "too few items": (["--limit", "6"], 3, "too few items"),
    "nothing left to confirm": (["--confirm", "0.01", "--limit", "40"], 3, "too few items"),
    "all items held out": (["--confirm", "1"], 2, "less than 1"),
    "an objective that is not asked": (["--objectives", "sw"], 2, "nothing that is asked has this name"),
    "one objective twice": (["--objectives", "en,problems"], 2, "one objective is named twice"),
    "objectives of different kinds in one": (["--corpus", "en=sampler", "--objectives", "en"], 2, "different kinds have no mean"),
    "a metric that nothing has": (["--metric", "acuracy"], 2, "did you mean `accuracy`"),
    "written answers only": (["--tasks", "problems-generate"], 2, "nothing that candidates can be scored on"),
    "a task of lm-eval": (["--tasks", "lm-eval:arc_easy"], 2, "never made"),
    "a task that is none": (["--tasks", "problms"], 2, "did you mean `problems`"),
    "a budget that is no time": (["--time-budget", "8"], 2, "8s"),
    "no worker": (["--workers", "0"], 2, "at least 1"),
    "a strategy that is none": (["--strategy", "gird"], 2, "did you mean `grid`"),
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> list[Path]:
    root = tmp_path_factory.mktemp("pair")
    return [tiny.folder(root, "llama", layers=4, seed=s, noise=0.05) for s in (1, 2)]


@pytest.mark.group("J")
@pytest.mark.parametrize("case", BAD)
def test_a_search_that_cannot_be_is_refused(case, pair, capsys):
    words, code, said = BAD[case]
    limit = [] if "--limit" in words else ["--limit", "40"]
    found = cli.run(["merge", "search", "--task", str(pair[0]), "--language", str(pair[1]), *limit, *words, "--plan"])
    told = capsys.readouterr().err
    assert found == code and said in told and "Traceback" not in told


@pytest.mark.group("J")
@pytest.mark.parametrize(("options", "module", "said"), [
    (["--strategy", "optuna"], proposals, "polygraft[search]"), (["--workers", "2"], fanout, "polygraft[ray]")], ids=["optuna", "ray"])
def test_what_is_not_installed_is_said_before_anything_runs(options, module, said, pair, capsys, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    words = ["merge", "search", "--task", str(pair[0]), "--language", str(pair[1]), "--limit", "40", *options, "--plan"]
    assert cli.run(words) == 2 and said in capsys.readouterr().err


@pytest.mark.group("J")
@pytest.mark.parametrize("what", ["one model twice", "another depth"])
def test_sources_that_cannot_be_searched_are_refused(what, pair, tmp_path, capsys):
    other = pair[0] if what == "one model twice" else tiny.folder(tmp_path, "llama", layers=3, seed=2, noise=0.05)
    code = cli.run(["merge", "search", "--task", str(pair[0]), "--language", str(other), "--limit", "40", "--plan"])
    assert code in (2, 3) and "Traceback" not in capsys.readouterr().err


@pytest.mark.group("J")
def test_a_model_that_would_be_written_nowhere_is_refused_before_the_search(pair, capsys):
    words = ["merge", "search", "--task", str(pair[0]), "--language", str(pair[1]), "--limit", "40", "--write", "best"]
    assert cli.run(words) == 2 and "`--out` is missing" in capsys.readouterr().err


@pytest.mark.group("J")
@pytest.mark.parametrize("name", ["soup", "paper's default", "random window 1", "b1 u0 t0"])
def test_a_source_called_as_candidates_are_goes_by_its_role(name, pair, tmp_path):
    import shutil

    from polygraft.choose.search.opening import opened
    from polygraft.sources import resolve
    from polygraft.step import Context

    other = shutil.copytree(pair[1], tmp_path / name)
    found = opened(Search(task=(str(pair[0]),), language=(str(other),)), Context(resolve, Path))
    assert found.names == ("task", "language")


@pytest.mark.group("J")
def test_a_source_with_numbers_that_are_none_is_named_and_leaves_nothing(pair, tmp_path):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(pair[1], broken)
    weights = load_file(broken / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] = np.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    config = Search(task=(str(pair[0]),), language=(str(broken),), bottoms="0,1", tops="0", limit=12, windows=0)
    with pytest.raises(InputError, match=r"not numbers|not finite|NaN|nan"):
        run_step(STEPS[0], config, tmp_path / "out", offline=True)
    assert not (tmp_path / "out").exists()
    kept = [json.loads(p.read_text()) for p in tmp_path.rglob("result.json")]
    assert kept == []
