"""Searching real model folders, tiny ones: planted windows are found, and scores are those of the evaluation of the written merge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tiny
from planted_pairs import hunt
from polygraft.choose.search import steps
from polygraft.choose.search.config import Search
from polygraft.cli import main
from polygraft.errors import InputError
from polygraft.recipe import plan_step, run_step

STEP = steps.STEPS[0]


def found(config: Search, out: Path):
    return run_step(STEP, config, out, offline=True)


@pytest.mark.parametrize("seed", [0, 4, *(pytest.param(s, marks=pytest.mark.slow) for s in range(20) if s not in (0, 4))])
def test_the_window_of_a_planted_pair_is_found_and_random_ones_are_rejected(tmp_path, seed):
    assert hunt(tmp_path, seed) == (True, True)


def test_scores_are_those_of_evaluating_the_written_merge(tmp_path):
    """One search over word problems, a corpus and a divergence; its best is written, and evaluated as any model is."""
    folders = [tiny.folder(tmp_path, "llama", layers=3, seed=s, noise=0.05) for s in (1, 2)]
    config = Search(task=(str(folders[0]),), language=(str(folders[1]),), bottoms="1", tops="0,1", langs=("es",), limit=16, windows=1,
                    corpora={"en": "sampler", "es": "sampler"}, kl={"es": "language"}, max_bytes=3000, write="best",
                    metric="accuracy", objectives=("problems", "bpb", "kl"))
    made = found(config, tmp_path / "out")
    best, held = made.data["chosen"]["name"], made.data["held_out"]
    from polygraft.evals.engines.hf import Scorer
    from polygraft.evals.jobs import make_jobs
    from polygraft.evals.responses import Store
    from polygraft.evals.run import run_jobs
    from polygraft.evals.timed import picked, units
    from polygraft.model import load_folder
    from polygraft.sources import resolve
    from polygraft.step import Context

    live = load_folder(tmp_path / "out" / "model")
    jobs = make_jobs(config.evaluation(), Context(resolve, Path))
    jobs = [picked(j, [i for u in units(j, 0)[len(units(j, 0)) - round(len(units(j, 0)) / 2):] for i in u]) for j in jobs]
    rows = run_jobs(Scorer(live.model, live.tokenizer), jobs[:2], folder=None, model="x", store=Store(None, "x"), computed={})
    right = np.mean([r["scores"]["accuracy"][0] for r in rows[0]])
    nats, size = np.sum([r["scores"]["bits per byte"] for r in rows[1]], axis=0)
    assert held["problems"][best][0] == pytest.approx(100 * right)
    assert held["bpb"][best][0] == pytest.approx(nats / size / np.log(2), rel=1e-5)
    assert held["kl"]["language" if "language" in held["kl"] else folders[1].name][0] == pytest.approx(0, abs=1e-6)
    assert made.maps and (tmp_path / "out" / "model" / "manifest.json").is_file()
    assert not (tmp_path / "out" / "scores").exists() and not (tmp_path / "out" / "states").exists()


def test_finalists_write_and_their_answers_are_judged(tmp_path):
    folders = [tiny.folder(tmp_path, "llama", layers=3, seed=s, noise=0.05) for s in (1, 2)]
    made = found(Search(task=(str(folders[0]),), language=(str(folders[1]),), bottoms="0,1", tops="0", limit=12, windows=0,
                        tasks=("problems", "problems-generate")), tmp_path / "out")
    assert any(t.title.startswith("problems-generate") for t in made.tables)
    assert {s["model"] for s in made.data["written"]["scores"]} >= {made.data["chosen"]["name"]}


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_family_can_be_planned(tmp_path, family):
    """Running every family is the trie engine's test; what a search adds to it is no matter of families but for its plan."""
    folders = [tiny.folder(tmp_path, family, layers=3, seed=s, noise=0.05) for s in (1, 2)]
    planned = plan_step(STEP, Search(task=(str(folders[0]),), language=(str(folders[1]),), limit=20, transitions="0,1"))
    assert not planned.errors and planned.plan.peak_bytes > 0
    assert any("layers are computed instead of" in line for line in planned.plan.lines)


def test_the_verb_plans_and_prints_its_recipe(tmp_path, capfd):
    folders = [tiny.folder(tmp_path, "llama", layers=4, seed=s, noise=0.05) for s in (1, 2, 3)]
    words = ["merge", "search", "--task", f"{folders[0]},{folders[1]}", "--language", str(folders[2]), "--tasks", "problems", "--langs",
             "es", "--limit", "30", "--bottoms", "0..2", "--tops", "0,1", "--strategy", "halving"]
    with pytest.raises(SystemExit) as exit:
        main([*words, "--plan"])
    said = capfd.readouterr().out
    assert exit.value.code in (0, None) and "12 windows of 2 pairs (halving)" in said and "15 items choose, 15 confirm" in said
    with pytest.raises(SystemExit) as exit:
        main([*words, "--recipe"])
    assert exit.value.code in (0, None) and "bottoms: 0..2" in capfd.readouterr().out


def test_a_model_behind_a_server_is_refused(tmp_path):
    one = tiny.folder(tmp_path, "llama", layers=3, seed=1, noise=0.05)
    wrong = plan_step(STEP, Search(task=(str(one),), language=("server:http://localhost:1#m",))).errors
    assert len(wrong) == 1 and isinstance(wrong[0], InputError) and "no layers here" in str(wrong[0])
