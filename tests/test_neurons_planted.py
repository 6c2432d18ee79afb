"""Neurons wired to one language's tokens are found again in every family: all of them, nothing else, and not by chance."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import planted
import tiny
from polygraft import arrays, selectionfile
from polygraft.analysis.neurons import lape
from polygraft.analysis.neurons.methods import Rates, identify
from polygraft.analysis.neurons.steps import Neurons, plan, run
from polygraft.analysis.reading.config import Wanted
from polygraft.analysis.reading.passing import How, gather
from polygraft.data import open_corpus
from polygraft.errors import InputError
from polygraft.result import Result
from polygraft.selectionfile import matched
from polygraft.sources import resolve
from polygraft.step import Context
from polygraft.windows import batches, budgeted, tokenized

WINDOW = 61  # of no length that a document or a batch has, so that windows hold parts of documents


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return planted.write(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module")
def models(tiny, tmp_path_factory):
    """Planted models by family, with what was wired and the folder that holds them."""
    found = {}

    def of(family):
        if family not in found:
            live, wired = planted.plant(tiny(family))
            folder = tmp_path_factory.mktemp(family)
            live.model.save_pretrained(folder)
            live.tokenizer.save_pretrained(folder)
            found[family] = live, wired, folder
        return found[family]

    return of


def sets(masks):
    return {g: set(map(tuple, np.argwhere(m).tolist())) for g, m in masks.items()}


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_planted_neurons_are_found_in_every_family_and_random_ones_are_others(family, models, texts, tmp_path):
    live, wired, _ = models(family)
    streams = {g: tokenized(open_corpus(g, path), live.tokenizer) for g, path in texts.items()}
    activity = gather(live, budgeted(streams, tokens=None, parallel=True)[0], Wanted(), tmp_path / "a", how=How(WINDOW, 4))
    share = sum(map(len, wired.values())) / activity.real.sum()
    found = identify("lape", activity, Rates(top=share))
    assert sets(found.masks) == wired  # precision and recall 1.0
    assert sets(identify("align-lape", activity, Rates(top=share)).masks) == wired
    for seed in range(3):
        random = sets({g: matched(m, activity.real, seed, found.any) for g, m in found.masks.items()})
        assert not any(random[g] & wired[g] for g in wired)
    others = activity.probability()[~found.any & activity.real]
    assert np.ptp(others, axis=-1).max() < 1e-12  # the rest fires equally often in every language


def context():
    return Context(resolve, Path)


@pytest.fixture(scope="module")
def step(models, texts, tmp_path_factory):
    """The step on a family: (result, folder, what was wired)."""
    done = {}

    def of(family, **more):
        if (key := (family, *more.items())) not in done:
            _, wired, folder = models(family)
            out = tmp_path_factory.mktemp("out")
            total = sum(b.size for i in range(2) for b in models(family)[0].anatomy.neurons(i))
            config = Neurons(model=str(folder), corpus={g: str(p) for g, p in zip(("en", "sw", "th"), texts.values())}, parallel=True,
                             window=WINDOW, top_rate=12 / total, per_language=4 / total, draws=5, **more)
            done[key] = run(config, context(), out), out, dict(zip(("en", "sw", "th"), wired.values()))
        return done[key]

    return of


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt2", "mixtral", "qwen3_moe"])
def test_the_step_writes_the_folder_that_others_read(family, step, models):
    result, out, wired = step(family)
    held, data = arrays.Arrays(out / "neurons.safetensors"), result.data
    shape = (data["layers"], data["neurons"], len(data["languages"]))
    assert held["probability"].shape == shape and held["probability"].dtype == np.float32
    assert held["entropy"].shape == shape[:2] and held["entropy"].dtype == np.float32 and not np.isnan(held["entropy"]).any()
    assert (held["score"] == held["entropy"]).all() and np.isinf(held["entropy"]).any()  # of lape: what it filtered
    named = selectionfile.read(out / "selection.json")
    assert list(named) == ["en", "sw", "th", "random.en", "random.sw", "random.th"]
    anatomy, experts = models(family)[0].anatomy, data["experts"]
    for g in data["languages"]:
        assert held[f"selected.{g}"].dtype == np.int64 and set(map(tuple, held[f"selected.{g}"].tolist())) == wired[g]
        for name, rows in ((g, held[f"selected.{g}"]), (f"random.{g}", held[f"random.{g}"])):
            mask = selectionfile.neurons(named[name], data["layers"], data["sizes"], experts)
            assert np.argwhere(mask).tolist() == rows.tolist()
        assert not set(map(tuple, held[f"random.{g}"].tolist())) & wired[g]
    weights = resolve(str(models(family)[2])).weights
    assert selectionfile.on(named["sw"], anatomy, {k: t.shape for k, t in weights.tensors.items()})
    assert data["tokens"] == dict.fromkeys(wired, 960) and data["found"] == dict.fromkeys(wired, 4) and data["shared"][1] == 12
    written = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert result.maps[0].rows == ("en", "sw", "th") and Result.from_json(written) == result
    assert {k: written[k] for k in ("languages", "layers", "neurons", "thresholds", "tokens")}.items() <= written["data"].items()


def test_a_mixture_s_neurons_are_told_by_expert(step):
    _, out, _ = step("mixtral")
    assert {e.expert for e in selectionfile.read(out / "selection.json")["sw"]} == {0, 1}


def test_the_study_of_planted_neurons_says_what_is_true_of_them(step):
    result, _, _ = step("llama")
    tables = {t.title: t for t in result.tables}
    own = tables["Neurons of each language"].rows[0]
    assert own[:6] == ("en", 960, 4, 4, 1.0, 0.0) and own[6] == pytest.approx(own[7]) and own[8].value == 1.0
    assert all(r[3] == 0.0 for r in tables["Overlap of languages"].rows)
    language = {r[0]: r for r in tables["How much is language, how much topic"].rows}
    assert language["en"][1] == pytest.approx(1.0, abs=0.02) and language["random (en)"][1].value < 0.02
    assert "found 12 of 96 neurons: en 4, sw 4, th 4." in result.summary[0]


@pytest.mark.parametrize("method", ["align-lape", "mean-difference", "pooled-90p"])
def test_other_methods_find_them_too(method, step):
    result, out, wired = step("llama", method=method)
    held = arrays.Arrays(out / "neurons.safetensors")
    assert held["score"].shape == ((2, 48) if method == "align-lape" else (2, 48, 3)) and held["score"].dtype == np.float32
    p = held["probability"].astype(np.float64)
    assert held["entropy"] == pytest.approx(np.where(p.max(-1) > 0, lape.entropy(p), np.inf), abs=1e-6)
    found = {g: set(map(tuple, held[f"selected.{g}"].tolist())) for g in wired}
    assert found == wired
    assert result.data["method"] == method


def test_the_published_percentile_is_the_mean_of_the_windows_own(models, texts, tmp_path):
    """Every window's percentile by sorting its activations; a bin is up to half as wide as its lower edge."""
    import torch

    from polygraft.taps import Taps

    live, _, _ = models("llama")
    stream = tokenized(open_corpus("en", texts["aa"]), live.tokenizer)
    wanted = Wanted(histogram=True, percentile=True)
    activity = gather(live, {"en": stream}, wanted, tmp_path / "a", how=How(WINDOW, 4))
    found = activity.array("en", "window.percentile") / activity.tokens("en")
    exact, seen = np.zeros(found.shape), []
    with torch.inference_mode(), Taps(live.model, live.anatomy, seen.append):
        for batch in batches(stream, WINDOW, 1):
            live.model(torch.from_numpy(batch.ids))
            for p in seen:
                exact[p.layer] += np.quantile(p.value[0, batch.skip :].numpy(), 0.9, axis=0, method="inverted_cdf") * batch.tokens
            seen.clear()
    exact /= activity.tokens("en")
    assert (np.abs(found - exact) <= 0.5 * np.abs(exact) + 2e-3).all()


def test_the_published_ranking_runs_and_a_mixture_is_refused(step):
    result, _, _ = step("llama", method="probability-90p")
    assert result.data["thresholds"] == {"quantile": 0.9} and result.data["method"] == "probability-90p"
    with pytest.raises(InputError, match="not taken in a mixture"):
        step("mixtral", method="probability-90p")


def test_a_reading_made_before_gives_the_same_bytes_without_reading(step, models, tmp_path):
    _, first, _ = step("llama")
    config = Neurons(model=str(models("llama")[2]), activity=str(first), top_rate=12 / 96, draws=5)
    run(config, context(), tmp_path)
    for name in ("neurons.safetensors", "selection.json"):
        assert (tmp_path / name).read_bytes() == (first / name).read_bytes()
    assert not (tmp_path / "activity").exists()
    with pytest.raises(InputError, match="lacks"):
        run(config.model_copy(update={"method": "pooled-90p"}), context(), tmp_path)


def test_a_reading_that_was_cut_goes_on(models, texts, tmp_path, monkeypatch):
    from polygraft.analysis.neurons.steps import STEPS
    from polygraft.analysis.reading import passing
    from polygraft.files import partial_path
    from polygraft.recipe import run_step

    config = Neurons(model=str(models("llama")[2]), corpus={g: str(p) for g, p in zip(("en", "sw", "th"), texts.values())},
                     window=WINDOW, top_rate=12 / 96, draws=0, groups=6)  # fmt: skip
    whole, cut, read = tmp_path / "whole", tmp_path / "cut", passing._language
    run_step(STEPS[0], config, whole)

    def interrupted(model, live, stream, *rest):
        if stream.language == "th":
            raise KeyboardInterrupt
        read(model, live, stream, *rest)

    monkeypatch.setattr(passing, "_language", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_step(STEPS[0], config, cut)
    monkeypatch.setattr(passing, "_language", read)
    kept = partial_path(cut) / "activity/activity.en.safetensors"
    before = kept.stat().st_mtime_ns
    run_step(STEPS[0], config, cut)
    assert (cut / "activity" / kept.name).stat().st_mtime_ns == before  # not read again
    for name in ("neurons.safetensors", "selection.json"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
    assert arrays.Arrays(cut / "activity" / kept.name)["group.tokens"].shape == (6,)


def test_the_plan_counts_from_headers(models, texts):
    plans = {m: plan(Neurons(model=str(models("mixtral")[2]), corpus={"en": str(texts["aa"]), "sw": str(texts["bb"])}, method=m), context())
             for m in ("lape", "mean-difference")}
    said = {m: p.lines[0] for m, p in plans.items()}
    assert not plans["lape"].problems and plans["lape"].peak_bytes > 0 and said["lape"] == "lape: 3 of 288 neurons in 2 layers" and "0 for each language of 288" in said["mean-difference"]


def test_one_language_is_refused(models, texts, tmp_path):
    config = Neurons(model=str(models("llama")[2]), corpus={"en": str(texts["aa"])})
    (problem,) = plan(config, context()).problems
    assert "beside one another" in str(problem)
    with pytest.raises(InputError, match="beside one another"):
        run(config, context(), tmp_path)
