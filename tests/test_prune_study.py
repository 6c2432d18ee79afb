"""`prune study`: cells are the prunings that the verb makes, measures follow their formulas, noise is told from effects."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny as make
from oracle import study_oracle as oracle
from polygraft import arrays, stats
from polygraft.analysis.neurons.lape import entropy, lape
from polygraft.data import Corpus
from polygraft.evals.conditions import nats
from polygraft.model import load
from polygraft.prune.calibration import Drawn
from polygraft.prune.engine import Overlay, prune
from polygraft.prune.pruning import work
from polygraft.prune.study import cell as cells_
from polygraft.prune.study import measures
from polygraft.prune.study import steps as study
from polygraft.prune.study.compare import Column, chosen, compared, differences
from polygraft.prune.study.config import Study, cells, masking, roles
from polygraft.prune.study.found import Found, relate
from polygraft.prune.study.noise import noisy
from polygraft.prune.study.states import halves
from polygraft.recipe import plan_step, run_step
from polygraft.result import Estimate, Result
from polygraft.sources import resolve
from polygraft.step import Context
from polygraft.steps import STUDY
from polygraft.windows import Stream
from studied import STEP, configured, studied

CONTEXT = Context(model=lambda ref: resolve(str(ref)), data=lambda ref: Path(str(ref)))


def table(result, start):
    return next(t for t in result.tables if t.title.startswith(start))


def cell(table_, row, column):
    found = next(r for r in table_.rows if r[0] == row)[table_.columns.index(column)]
    return found.value if isinstance(found, Estimate) else found


# ------------------------------------------------------------------------------------------------------------------- whole


@pytest.fixture(scope="module")
def done(tiny, tmp_path_factory):
    """(model, root, folder, result) of one study of a tiny llama."""
    root, model = tmp_path_factory.mktemp("study"), tiny("llama", layers=2)
    return model, root, *studied(model, root, settings=("alone", "hybrid", "equal", "protected"))


def bed_of(model, root, **more):
    (root / "bed").mkdir(exist_ok=True)
    return study.prepared(configured(model, root, **more), CONTEXT, root / "bed", STUDY, None)


def test_a_cell_is_the_pruning_that_the_verb_makes_and_is_read_as_such(done, tmp_path):
    model, root, folder, _ = done
    config = configured(model, root, settings=("alone", "hybrid", "equal", "protected"))
    one = next(c for c in cells(config) if c.setting == "sw" and c.seed == 1)
    bed = bed_of(model, root)
    job = work(masking(config, one), bed.source, bed.text(masking(config, one)), {}, lambda _key: None)
    prune(job, tmp_path / "layers")
    live = load(resolve(str(model)), dtype="float32")
    with torch.no_grad():
        cells_.copy_weights(live, Overlay(bed.source.weights, tmp_path / "layers", 2), list(bed.extent.matrices))
    for language, documents in bed.documents.items():
        expected = [(s.nats, s.bytes) for s in nats(live, documents)]
        got = json.loads((folder / "result.json").read_text())["data"]["matrices"][0]
        value = oracle.bits(np.array(expected)[:, :1], np.array(expected)[:, 1:])
        assert got["bits"][language][got["settings"].index("sw")][1] == pytest.approx(value, rel=1e-6)


def test_all_settings_stand_side_by_side_and_the_report_holds_no_nan(done):
    _, _, folder, result = done
    advice = table(result, "Which calibration")
    assert [r[0] for r in advice.rows] == ["en", "sw"] and all(r[3] for r in advice.rows)
    row = dict(zip(advice.columns, advice.rows[1], strict=True))
    assert all(isinstance(row[role], Estimate) for role in ("target", "reference", "hybrid", "protected", "equal"))
    text = (folder / "result.json").read_text()
    assert Result.from_json(json.loads(text)) == result
    json.dumps(result.to_json(), allow_nan=False)
    kinds = ("What every language loses", "Against calibration on en", "Overlap", "Signal to noise of outputs", "Which matrices",
             "Error of states, language-specific", "Neurons of languages")  # fmt: skip
    assert all(table(result, kind) for kind in kinds) and len(result.maps) == 3 and len(result.curves) == 2
    assert not (folder / "work").exists()


def test_the_tables_hold_what_the_cells_measured(done):
    _, _, folder, result = done
    told = result.data["matrices"][0]
    names = {(c["setting"], c["seed"]): name for name, c in result.data["cells"].items()}
    for language in told["languages"]:
        for setting in told["settings"]:
            reads = [arrays.Arrays(folder / "cells" / names[setting, s])[f"bits.{language}"] for s in told["seeds"]]
            value = oracle.bits(np.stack([r[:, 0] for r in reads], 1), np.stack([r[:, 1] for r in reads], 1))
            lost = cell(table(result, "What every language loses"), setting, language)
            assert lost == pytest.approx(value - told["dense"][language], abs=1e-9)
    assert all(c["sparsity"] == pytest.approx(0.5, abs=0.01) for c in result.data["cells"].values())


def test_a_language_s_outputs_keep_most_under_its_own_calibration(done):
    found = table(done[3], "Signal to noise of outputs")
    assert cell(found, "en", "en") > cell(found, "sw", "en") and cell(found, "sw", "sw") > cell(found, "en", "sw")
    masks = done[3].data["masks"][table(done[3], "Overlap").title.partition(": ")[2]]
    assert masks["en / en"]["iou"] > masks["en / sw"]["iou"] > masks["en / sw"]["chance"] == pytest.approx(1 / 3, abs=0.01)


@pytest.mark.parametrize("family", make.FAMILIES)
def test_every_family_is_studied(tiny, tmp_path, family):
    _, result = studied(tiny(family), tmp_path, seeds=1, settings=("alone",), tokens=60, diagnose=48, samples=2)
    assert len(result.data["cells"]) == 2 and len(table(result, "Which matrices").rows) >= 2
    json.dumps(result.to_json(), allow_nan=False)
    assert all(r[-1].verdict == "not distinguishable" for r in table(result, "Against").rows[:-1])  # one seed: no floor


@pytest.mark.parametrize("more", [{"sparsity": (0.0,)}, {"sparsity": (1.0,)}, {"sparsity": (), "patterns": ("2:4",)},
                                  {"methods": ("magnitude", "sparsegpt")}, {"diagnose": 0}, {"noise": (0.5,), "more_samples": (8,)}])  # fmt: skip
def test_the_ends_and_the_axes(tiny, tmp_path, more):
    _, result = studied(tiny("llama"), tmp_path, settings=("alone",), tokens=100, diagnose=more.pop("diagnose", 48), **more)
    json.dumps(result.to_json(), allow_nan=False)
    if more.get("sparsity") == (0.0,):
        assert cell(table(result, "What every language loses"), "sw", "sw") == 0
        assert cell(table(result, "Signal to noise of hidden"), "sw", "sw") is None
    if "noise" in more:
        assert {c.x_label for c in result.curves} >= {"windows", "share of tokens dealt anew"}


def test_a_study_that_was_cut_goes_on_with_the_cells_that_are_left(tiny, tmp_path, monkeypatch):
    class Cut(Exception):
        pass

    measured, calls = cells_.measured, []

    def cuts(bed, one, *more):
        calls.append(one)
        if len(calls) == 4:
            raise Cut
        measured(bed, one, *more)

    more = {"settings": ("alone",), "tokens": 100, "diagnose": 48}
    folder, config = tmp_path / "a", configured(tiny("llama"), tmp_path, **more)
    folder.mkdir()
    monkeypatch.setattr(cells_, "measured", cuts)
    with pytest.raises(Cut):
        study.run(config, CONTEXT, folder, STUDY)
    assert len(list((folder / "cells").iterdir())) == 4  # three, and the dense model's
    monkeypatch.undo()
    pruned = []
    monkeypatch.setattr(cells_, "prune", lambda *args: pruned.append(1) or prune(*args))
    resumed = study.run(config, CONTEXT, folder, STUDY)
    assert len(pruned) == 1
    (tmp_path / "b").mkdir()
    assert resumed == study.run(config, CONTEXT, tmp_path / "b", STUDY)


def test_what_another_study_left_is_not_taken_up(tmp_path):
    work = study.taken(tmp_path, "one")
    (tmp_path / "cells" / "a.safetensors").write_text("measured")
    (work / "kept").write_text("states")
    assert study.taken(tmp_path, "one") == work and (work / "kept").exists() and (tmp_path / "cells" / "a.safetensors").exists()
    study.taken(tmp_path, "another")
    assert not (work / "kept").exists() and not list((tmp_path / "cells").iterdir())


def test_the_dense_model_is_back_after_every_cell(tiny, tmp_path):
    bed = bed_of(tiny("gpt2"), tmp_path)
    before = {k: v.clone() for k, v in bed.live.model.state_dict().items()}
    cells_.measured(bed, cells(bed.config)[0])
    assert all(torch.equal(v, before[k]) for k, v in bed.live.model.state_dict().items())


# ---------------------------------------------------------------------------------------------------------------- measures


def test_states_and_outputs_against_hooks_on_both_models(tiny, tmp_path):
    bed = bed_of(tiny("llama"), tmp_path, parallel=False)
    one = cells(bed.config)[0]
    layers = tmp_path / "layers"
    _, modules = cells_.pruned(bed, one, layers, lambda *_: None)
    cells_.measured(bed, one)
    read, other = arrays.Arrays(bed.path(one)), load(bed.source, dtype="float32")
    with torch.no_grad():
        cells_.copy_weights(other, Overlay(bed.source.weights, layers, 2), list(modules))
    assert bed.dense is not None
    ids = [torch.from_numpy(b.ids) for b in bed.dense.texts["sw"]]
    states = []
    for live in (bed.live, other):
        with torch.no_grad():
            states.append(np.concatenate([live.model.model(i, output_hidden_states=True).hidden_states[1][:, 1:].reshape(-1, 32)
                                          for i in ids]))  # fmt: skip
    total, lost = read["states.sw"][0, [measures.TOTAL, measures.LOST]]
    assert measures.decibels(total, lost) == pytest.approx(oracle.snr(*states), rel=1e-4)
    expected = oracle.subspace_errors(states[0].astype(float), states[1].astype(float), bed.dense.bases[0])
    got = [float(e[0]) for e in measures.subspace_errors(read["states.sw"])]
    assert got == pytest.approx(expected, rel=1e-4)
    key = "model.layers.0.mlp.down_proj.weight"
    seen = []
    hook = bed.live.model.model.layers[0].mlp.down_proj.register_forward_pre_hook(lambda _m, a: seen.append(a[0][:, 1:].reshape(-1, 48)))
    with torch.no_grad():
        for i in ids:
            bed.live.model(i)
    hook.remove()
    x = np.concatenate([s.numpy() for s in seen])
    w, new = (m.model.state_dict()[key].numpy() for m in (bed.live, other))
    at = list(bed.extent.matrices).index(key)
    signal, noise = read["matrices.sw"][at]
    assert len(x) <= 256  # so all of them were kept
    assert measures.decibels(signal, noise) == pytest.approx(oracle.snr(x @ w.T, x @ new.T), rel=1e-4)
    assert measures.decibels(*read["matrices.weight"][at]) == pytest.approx(oracle.snr(w, new), rel=1e-5)


@given(st.integers(1, 200), st.floats(0.05, 1), st.floats(0.05, 1), st.integers(0, 99))
@settings(max_examples=50)
def test_overlap_is_that_of_plain_masks(size, p, q, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.random(size) < p, rng.random(size) < q
    a[0] = b[0] = True
    got, chance = measures.overlap(np.packbits(a, bitorder="little"), np.packbits(b, bitorder="little"), size)
    assert got == pytest.approx(oracle.iou(a, b))
    k, m = a.mean(), b.mean()
    assert chance == pytest.approx(k * m / (k + m - k * m))


def test_chance_is_what_random_masks_of_half_have():
    rng = np.random.default_rng(0)
    a, b = (rng.permutation(100_000) < 50_000 for _ in range(2))
    got, chance = measures.overlap(np.packbits(a), np.packbits(b), 100_000)
    assert chance == pytest.approx(1 / 3) and abs(measures.beyond(got, chance)) < 0.01
    assert measures.beyond(1.0, 1.0) is None and measures.overlap(np.packbits(a & False), np.packbits(b & False), 100_000) == (1, 1)


def test_errors_split_into_what_lies_in_the_languages_directions():
    rng = np.random.default_rng(1)
    basis, _ = np.linalg.qr(rng.normal(size=(8, 2)))
    h = rng.normal(size=(50, 8))
    inside = h - h @ basis @ basis.T  # all of the languages' part is lost, nothing else
    specific, agnostic = measures.subspace_errors(measures.sums(h.astype(np.float32), inside, basis))
    assert specific == pytest.approx(1, abs=1e-5) and agnostic == pytest.approx(0, abs=1e-5)


def test_a_planted_shift_of_neurons_is_seen_and_none_where_there_is_none():
    rng = np.random.default_rng(2)
    p = np.full((2, 400, 3), 0.3) + 0.01 * rng.random((2, 400, 3))
    p[0, :8] = (0.9, 0.0, 0.0)  # 1 % of 800 neurons fire for one language
    at = measures.thresholds(lape(p, np.ones((2, 400), bool)), entropy(p), p.any(-1))
    assert at.specific == pytest.approx(oracle.entropy(p[0, 0]))
    same = measures.shift(p, p, entropy, at)
    assert (same.before, same.after, same.both, same.shift) == (8, 8, 8, 0)
    moved = p.copy()
    moved[0, :4] = 0.3
    moved[1, :6] = (0.0, 0.95, 0.0)
    found = measures.shift(p, moved, entropy, at)
    assert (found.before, found.after, found.both) == (8, 10, 4)


def test_noise_moves_so_many_tokens_and_keeps_what_they_are():
    drawn = Drawn(Corpus("sw", Path("sw.txt")), np.arange(3 * 101).reshape(3, 101), 1, np.arange(3), 3)
    found = noisy(drawn, 0.4, 7)
    assert (found.ids[:, 0] == drawn.ids[:, 0]).all() and sorted(found.ids.ravel()) == sorted(drawn.ids.ravel())
    assert 0.3 < (found.ids != drawn.ids).mean() <= 0.4 and (noisy(drawn, 0.4, 7).ids == found.ids).all()


def test_the_two_halves_share_no_token():
    stream = Stream("sw", np.arange(10, dtype=np.int32), np.array([0, 3, 7, 10]), np.array([3, 4, 3]))
    for parallel, cut in ((True, 3), (False, 5)):
        first, second = halves(stream, parallel)
        assert first.ids.tolist() == list(range(cut)) and second.ids.tolist() == list(range(cut, 10)) and second.tokens == 10 - cut


# ----------------------------------------------------------------------------------------------------------------- verdicts


def column(effects, seeds=3, n=120, floor=0.0, seed=0, higher=False):
    """Documents of 100 bytes; `effects`: nats a byte that each setting adds; seeds differ by `floor`."""
    rng = np.random.default_rng(seed)
    base = rng.normal(100, 20, (n, 1, 1))
    extra = 100 * (np.array(effects)[:, None] + floor * np.arange(seeds)) + rng.normal(0, 1, (n, len(effects), seeds))
    return Column("sw", base + extra, np.full((n, len(effects), seeds), 100.0), np.hstack([base[:, 0], np.full((n, 1), 100.0)]),
                  higher=higher)  # fmt: skip


def test_a_planted_difference_is_found_and_the_floor_silences_what_a_seed_does():
    plain = compared([column([0.0, 0.05, 0.0])])
    judged = differences(plain, [(0, 1, 0), (0, 2, 0)])
    assert judged[0, 1].verdict == stats.WORSE and judged[0, 2].verdict == stats.UNCLEAR
    assert judged[0, 1].value == pytest.approx(0.05, abs=0.01) and judged[0, 1].low < 0.05 < judged[0, 1].high
    noisy_ = compared([column([0.0, 0.05, 0.0], floor=0.06)])
    assert noisy_[0].floor == pytest.approx(0.12, abs=0.02)
    assert differences(noisy_, [(0, 1, 0)])[0, 1].verdict == stats.UNCLEAR
    assert differences(compared([column([0.0, 0.05], seeds=1)]), [(0, 1, 0)])[0, 1].verdict == stats.UNCLEAR


def test_the_advice_names_what_cannot_be_told_from_the_best():
    found = compared([column([0.2, 0.0, 0.0, 0.3])])[0]
    assert sorted(chosen(found, [0, 1, 2, 3])) == [1, 2] and chosen(found, [0, 3]) == [0]
    assert chosen(compared([column([0.2, 0.0, 0.3], higher=True)])[0], [0, 1, 2]) == [2]


@given(st.integers(2, 30), st.integers(1, 4), st.integers(1, 3), st.integers(0, 99))
@settings(max_examples=25)
def test_values_are_those_of_the_formula(n, some, seeds, seed):
    rng = np.random.default_rng(seed)
    tops, bottoms = rng.random((n, some, seeds)), rng.integers(1, 50, (n, some, seeds)).astype(float)
    found = compared([Column("sw", tops, bottoms, rng.random((n, 2)) + 1, scale=1 / np.log(2))])[0]
    assert found.values == pytest.approx([oracle.bits(tops[:, i], bottoms[:, i]) for i in range(some)])


# ------------------------------------------------------------------------------------------------------------ tasks, config


class Asked:
    """Stands for an evaluation: what is right depends on which model is asked."""

    def __init__(self, fields, *_):
        self.identity, self.tasks, self.labels = "", fields["tasks"], []

    def ask(self, live, label):
        self.labels.append((label, self.identity))
        right = np.zeros(40) if ", sw," in label else np.ones(40)
        return {f"{t} sw accuracy": (right, np.ones(40), "%", True) for t in self.tasks}


def test_tasks_are_asked_of_every_pruned_model_and_advised_on_by_purpose(tiny, tmp_path):
    made = []

    def factory(*args):
        made.append(Asked(*args))
        return made[-1]

    around = replace(STUDY, planned=lambda *_: (0.0, 0, []), make=factory)
    config = configured(tiny("llama"), tmp_path, tokens=60, diagnose=0, understanding=("reading",), knowledge=("facts",))
    result = run_step(study.study_step(around), config, tmp_path / "out")
    advice = {(r[0], r[1]): r[3] for r in table(result, "Which calibration").rows}
    assert set(advice) == {("en", "text"), ("sw", "text"), ("sw", "understanding"), ("sw", "knowledge")}
    assert advice["sw", "knowledge"] in ("reference or hybrid", "hybrid or reference")
    identities = [i for label, i in made[0].labels if label != "dense"]
    assert len(set(identities)) == len(identities) == 6  # another model for every cell


def test_axes_add_cells_one_at_a_time(tmp_path):
    config = configured("m", tmp_path, languages=("en", "sw", "de"), seeds=2, more_samples=(8,), noise=(0.5,), sparsity=(0.5, 0.6))
    every = cells(config)
    assert len(every) == 2 * 2 * (5 + 3 + 3) == len({c.key("base") for c in every})
    assert every[0].key("base") != every[0].key("other") and all(c.seed == 0 for c in every[: len(every) // 2])
    assert roles(config, "sw") == {"target": "sw", "reference": "en", "hybrid": "sw+en"} and "reference" not in roles(config, "en")
    assert [relate("sw+en", g, config) for g in ("sw", "de")] == ["a mixture", "another language's"]
    assert relate("sw", "sw", config) == "its own text"


def test_a_protected_cell_sees_every_language_and_is_calibrated_on_its_own(tmp_path):
    config = configured("m", tmp_path, settings=("alone", "protected"))
    one = masking(config, next(c for c in cells(config) if c.protected))
    assert one.protect == "auto" and set(one.corpus) == {"en", "sw"} and one.calibrate == {"en": 1.0, "sw": 0.0}


def test_the_plan_counts_the_prunings_and_says_what_one_seed_cannot(tiny, tmp_path):
    found = plan_step(STEP, configured(tiny("llama"), tmp_path, seeds=1, parallel=False)).plan
    assert found.lines[0].startswith("3 prunings") and found.peak_bytes > 0 and found.disk_bytes > 0
    assert "floor" in found.notes[0] and "parallel" in found.notes[1] and not found.problems


def test_found_groups_cells_that_are_compared(tmp_path):
    config = configured("m", tmp_path, more_samples=(8,))
    found = Found(config, None, None, dict.fromkeys(cells(config)), None, {})
    assert [len(g.settings) for g in found.groups] == [3, 2] and len(found.main) == 1


def test_the_config_fills_in_what_is_not_said(tmp_path):
    config = configured("m", tmp_path, languages=("sw", "de"))
    assert isinstance(config, Study) and config.against == "sw" and config.languages == ("sw", "de")
