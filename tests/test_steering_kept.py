"""What `steer` refuses while planning, what its controls stay away from, and a study that goes on where it was cut."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from polygraft import arrays, model, selectionfile
from polygraft.activity import Activity
from polygraft.analysis.steering import controls, halves, targets, verdict
from polygraft.analysis.steering.effects import Observed, Ratio
from polygraft.analysis.steering.kept import Kept
from polygraft.analysis.steering.steps import steer_step
from polygraft.analysis.steering.ways import Where
from polygraft.anatomy import Anatomy
from polygraft.edits import Edits, at_work
from polygraft.errors import InputError, RecipeError
from polygraft.evals import conditions
from polygraft.evals.engines import exact
from polygraft.recipe import run_step
from polygraft.sources import resolve
from polygraft.step import Context
from polygraft.steps import BENCH

STEER = steer_step(BENCH)
LAYERS, WIDTH = 3, 48


@pytest.fixture
def study(tiny, tmp_path):
    """Selections whose languages share some neurons, texts, and a reading without histograms, for a tiny model."""
    rng = np.random.default_rng(0)
    masks = {name: rng.random((LAYERS, WIDTH)) < 0.25 for name in ("sw", "en", "zh")}
    masks["sw"][0, 0] = masks["en"][0, 0] = True
    selectionfile.write(tmp_path / "selection.json", {n: selectionfile.from_mask(m) for n, m in masks.items()})
    for language, words in (("sw", "habari ya asubuhi "), ("en", "good morning to you ")):
        (tmp_path / f"{language}.txt").write_text("".join(f"{words * (1 + i % 3)}{i}\n" for i in range(12)))
    (tmp_path / "prompts.txt").write_text("habari\nhello\n")
    return SimpleNamespace(folder=tmp_path, source=resolve(str(tiny(layers=LAYERS))), masks=masks)


def reading(study, languages=("sw", "en")):
    """A reading that gathered means only."""
    place = study.folder / "read"
    place.mkdir(exist_ok=True)
    for language in languages:
        arrays.write(place / f"activity.{language}.safetensors", dict.fromkeys(("positive", "sum", "square"), np.ones((LAYERS, WIDTH))))
    told = {g: {"tokens": 5, "documents": 1, "groups": 0, "digest": "", "path": ""} for g in languages}
    hidden = anatomy(study).sizes.hidden
    Activity(place, told, LAYERS, (WIDTH,) * LAYERS, hidden, identity=study.source.identity).save()


def anatomy(study):
    return Anatomy.of(study.source.weights.config, study.source.weights.tensors)


def context(study):
    return Context(lambda _: study.source, lambda ref: study.folder / ref, folder=lambda ref: study.folder / ref)


def config(study, **fields):
    return STEER.config(**{"model": str(study.source.spec), "select": ("selection.json:sw",), "way": ("zero",), "controls": 2} | fields)


def rows(study, **fields):
    asked = config(study, **fields)
    return targets.rows(asked, context(study), anatomy(study), targets.chosen(asked, context(study), anatomy(study)), None)


def edited(edits):
    return controls.edited(edits, (LAYERS, WIDTH))


def test_languages_with_as_many_neurons_draw_other_sets():
    neurons = np.arange(12) < 3
    at = Where((12,) * 3, 4, np.stack([neurons] * 3), "sw")
    drawn = {g: [e.digest for e in controls.several("zero", replace(at, language=g), 3, 0)] for g in ("sw", "en")}
    assert not set(drawn["sw"]) & set(drawn["en"])


def test_controls_stay_away_from_every_language_of_the_file_and_from_what_is_deactivated(study):
    taken = np.any([*study.masks.values()], axis=0)
    (row,) = rows(study, deactivate=("selection.json:en",), controls=3)
    off = study.masks["sw"] | study.masks["en"]
    assert np.array_equal(edited(row.edits), off) and len(row.controls) == 3
    for drawn in row.controls:
        assert sum(len(e.rows) for e in drawn.edits) == study.masks["sw"].sum() + study.masks["en"].sum()
        assert (edited(drawn) & study.masks["en"]).sum() < study.masks["en"].sum() / 2  # those that are deactivated stay at work
    (row,) = rows(study, controls=3)
    free = (~taken).sum(1) >= study.masks["sw"].sum(1)
    assert free.any() and not any((edited(c) & taken)[free].any() for c in row.controls)


def test_neurons_that_are_both_selected_and_deactivated_are_counted(study):
    shared = int((study.masks["sw"] & study.masks["en"]).sum())
    plan = STEER.plan(config(study, deactivate=("selection.json:en",)), context(study))
    assert shared and any(f"{shared} neurons are both selected and deactivated" in note for note in plan.notes)


@pytest.mark.parametrize(("fields", "what"), [
    ({"way": ("zero", "value=0")}, "the same edits"),
    ({"select": ("selection.json",), "matrix": True, "way": ("zero", "value=1"), "read": {"sw": "sw.txt"}}, "of one way"),
    ({"layers": (LAYERS,), "way": ("layer-off",)}, "no such layer"),
    ({"layers": (-1,), "way": ("residual-diff=1",), "activity": "read"}, "no such layer"),
    ({"way": ("p90",), "activity": "read"}, "no histogram"),
    ({"way": ("residual-diff=1",), "activity": "read"}, "no residual"),
    ({"way": ("diff=1",), "corpus": {"sw": "sw.txt"}}, "another one"),
    ({"way": ("mean",), "corpus": {"en": "en.txt"}}, "not among the texts"),
    ({"select": ("selection.json:zh",), "way": ("mean",), "activity": "read"}, "target language was not read"),
    ({"way": ("project",), "subspace": "other"}, "another model's"),
    ({"verdict": True, "way": ("zero",), "controls": 3}, "nothing to measure"),
])
def test_told_while_planning(study, fields, what, monkeypatch):
    monkeypatch.setattr(model, "load", lambda *_, **__: pytest.fail("the model was loaded"))
    reading(study)
    (study.folder / "other").mkdir()
    (study.folder / "other" / "result.json").write_text(json.dumps({"inputs": [{"name": "model", "identity": "another"}]}))
    problems = STEER.plan(config(study, **fields), context(study)).problems
    assert problems and isinstance(problems[0], (RecipeError, InputError)) and what in str(problems[0])


def test_one_language_read_says_so_while_planning(study):
    reading(study, ("sw",))
    assert "another one" in str(STEER.plan(config(study, way=("diff=1",), activity="read"), context(study)).problems[0])


def test_neurons_of_another_model_are_told(study):
    (study.folder / "result.json").write_text(json.dumps({"inputs": [{"name": "model", "identity": "another"}]}))
    assert any("found in another model" in note for note in STEER.plan(config(study), context(study)).notes)
    (study.folder / "result.json").write_text(json.dumps({"inputs": [{"name": "model", "identity": study.source.identity}]}))
    assert not any("another model" in note for note in STEER.plan(config(study), context(study)).notes)


def test_the_time_grows_with_runs_texts_tasks_and_answers(study):
    def seconds(**fields):
        return STEER.plan(config(study, **fields), context(study)).seconds

    texts = {"sw": "sw.txt", "en": "en.txt"}
    short, long = seconds(read={"sw": "sw.txt"}), seconds(read=texts)
    many = seconds(read=texts, way=("zero", "value=1", "scale=2", "layer-off"), controls=6)
    assert seconds() == 0 < 5 < short < long < many
    assert (many - 5) / (long - 5) == pytest.approx(29 / 4)
    assert seconds(read=texts, tasks=("problems",), limit=4) > long + 0.02
    assert seconds(prompts="prompts.txt", max_tokens=64) > 5 + 3 * 64 * 0.02


def test_few_other_layers_are_told(study):
    asked = config(study, way=("layer-off", "zero"), controls=3, layers=(0,))
    (note,) = [n for n in STEER.plan(asked, context(study)).notes if "layer-off" in n]
    assert "only 2 random controls instead of 3" in note
    off, zero = rows(study, way=("layer-off", "zero"), controls=3, layers=(0,))
    assert len(off.controls) == 2 and len(zero.controls) == 3
    assert not STEER.plan(asked.model_copy(update={"controls": 2}), context(study)).notes[:-1]
    assert "no random control" in targets.few(asked.model_copy(update={"layers": (0, 1)}), anatomy(study))[0]
    assert not targets.few(config(study, controls=9), anatomy(study))


@pytest.mark.parametrize("fields", [{}, {"prompts": "prompts.txt"}, {"way": ("mean",), "activity": "read"}])
def test_a_file_of_several_selections_says_how_one_is_named(study, fields):
    reading(study)
    with pytest.raises(RecipeError, match="several selections") as e:
        STEER.plan(config(study, select=("selection.json",), **fields), context(study))
    assert e.value.fix == "name one: --select selection.json:sw"


def test_the_only_selection_of_a_file_names_its_language(study):
    selectionfile.write(study.folder / "one.json", {"sw": selectionfile.from_mask(study.masks["sw"])})
    assert rows(study, select=("one.json",))[0].language == "sw"


def test_edits_alone_are_written_and_say_how_they_are_used(study, monkeypatch):
    monkeypatch.setattr(model, "load", lambda *_, **__: pytest.fail("the model was loaded"))
    out = study.folder / "out"
    out.mkdir()
    found = STEER.run(config(study), context(study), out)
    assert found.summary[0].startswith("Wrote edits at every token: zero (") and "Nothing was asked" in found.summary[-1]
    assert found.data["edits"]["zero"] == Edits.load(out / "edits" / "zero").digest and not (out / "kept").exists()


def test_tasks_are_asked_in_the_selections_language_and_in_english(study):
    asked = []
    step = steer_step(replace(BENCH, planned=lambda fields, _: asked.append(fields["langs"]) or (0.0, 0, [])))
    step.plan(config(study, tasks=("problems",)), context(study))
    step.plan(config(study, tasks=("problems",), langs=("de",)), context(study))
    assert asked == [("sw", "en"), ("de",)]


# ------------------------------------------------------------------------------------------------------------------ halves


def observed(shifts, n, seed=0):
    """Ways whose effect on each item is its shift plus noise of the way's own."""
    rng = np.random.default_rng(seed)
    plain = rng.normal(5, 1, n)

    def score(top):
        return {"sw": Ratio(top, np.ones(n), "nats/token")}

    still = [score(plain + rng.normal(0, 0.01, n)) for _ in range(3)]
    return Observed(score(plain), {w: score(plain + np.asarray(s)) for w, s in shifts.items()}, dict.fromkeys(shifts, still))


def test_a_way_that_helps_only_the_items_that_choose_it_is_a_no():
    n, noise = 80, np.random.default_rng(1).normal(0, 0.05, 80)
    chosen = halves.half(n)
    assert chosen.sum() == n // 2
    found = observed({"lucky": np.where(chosen, -1.0, 0.6) + noise, "idle": noise}, n)
    v, _ = halves.judge(found, "sw", dict.fromkeys(found.edited, "neurons"), draws=500)
    assert v.best == "lucky" and not v.answer and v.confirmed.effect.value == pytest.approx(0.6, abs=0.05) and v.items == (40, 40)
    whole = observed({"lucky": noise - 0.3, "idle": noise}, n)
    v, _ = halves.judge(whole, "sw", dict.fromkeys(whole.edited, "neurons"), draws=500)
    assert v.answer and "40 items" in verdict.caveats(v)[0]
    json.dumps(verdict.data(v), allow_nan=False)


@pytest.mark.parametrize(("shift", "said"), [(-0.5, "Yes: of 2 ways"), (0.5, "No: of 2 ways"), (0.0, "No: of 2 ways")])
def test_the_sentence_is_of_the_half_that_confirms_and_so_is_a_table(shift, said):
    n, chosen, noise = 80, halves.half(80), np.random.default_rng(1).normal(0, 0.05, 80)
    found = observed({"lucky": np.where(chosen, -1.0, shift) + noise, "idle": noise + 0.2}, n)
    v, e = halves.judge(found, "sw", dict.fromkeys(found.edited, "neurons"), draws=500)
    assert v.sentence.startswith(f"{said} of editing neurons, lucky was best on one half of the items (40); on the other half it ")
    assert "40 items): " in v.sentence and verdict.said(v.confirmed.effect) in v.sentence and "one way" not in v.sentence
    whole, half = verdict.tables(v, e)
    assert half.title == "lucky on the other half of the items" and [r[0] for r in half.rows] == ["lucky"]
    assert half.rows[0][2].value == v.confirmed.effect.value and half.rows[0][2].n == 40
    assert whole.note.startswith("All 80 items, those that the best way was chosen on included.") and whole.rows[0][2].n == 80


def test_few_items_are_not_split_and_say_so():
    found = observed({"a": np.linspace(-1, -0.5, 39), "b": np.zeros(39)}, 39)
    v, _ = halves.judge(found, "sw", dict.fromkeys(found.edited, "neurons"), draws=200)
    assert v.confirmed is None and "fewer than 40 items" in v.sentence and "likely smaller" in verdict.caveats(v)[0]


def test_one_way_was_not_chosen_and_takes_all_items():
    found = observed({"a": np.linspace(-1, -0.5, 60)}, 60)
    v, _ = halves.judge(found, "sw", {"a": "neurons"}, draws=200)
    assert v.confirmed is None and v.answer and "other items" not in v.sentence and len(verdict.caveats(v)) == 1


# --------------------------------------------------------------------------------------------------------------- the model


def test_answers_have_a_random_control(study):
    out = study.folder / "out"
    out.mkdir()
    found = STEER.run(config(study, way=("value=4",), prompts="prompts.txt", max_tokens=3), context(study), out)
    assert list(found.samples[0].outputs) == ["unedited", "value=4", "value=4, random"]
    assert "under a random edit of its size" in found.summary[1] and len(found.tables[-1].rows) == 3
    table = next(t for t in found.tables if t.title == "Answers side by side")
    assert [r[:3] for r in table.rows] == [(1, "habari", "unedited"), (1, "", "value=4"), (2, "hello", "unedited"), (2, "", "value=4")]


def test_a_cut_matrix_goes_on_and_ends_the_same(study):
    asked = []

    def nats(live, texts):
        if len(asked) == cut:
            raise KeyboardInterrupt
        asked.append(at_work(live.model).digest)
        return conditions.nats(live, texts)

    step = steer_step(replace(BENCH, nats=nats))
    fields = {"select": ("selection.json",), "matrix": True, "read": {"sw": "sw.txt", "en": "en.txt"}, "documents": 3, "controls": 1}
    cut, out = 5, study.folder / "matrix"
    with pytest.raises(KeyboardInterrupt):
        run_step(step, config(study, **fields), out, folder=study.folder)
    assert len(asked) == 5
    cut = -1
    found = run_step(step, config(study, **fields), out, folder=study.folder)
    assert len(asked) == 14  # 7 conditions, 2 languages: none twice
    again = run_step(step, config(study, **fields), study.folder / "again", folder=study.folder)
    assert len(asked) == 28 and again.data == found.data and len(list((out / "kept").iterdir())) == 14


def test_what_is_kept_and_broken_is_computed_again(study):
    kept, live = Kept(study.folder / "kept", ["model"]), SimpleNamespace(model=None)
    assert kept(live, ["a"], lambda: [[1.0, 2, 3]]) == [[1.0, 2, 3]] == kept(live, ["a"], lambda: pytest.fail("computed twice"))
    (path,) = kept.used
    path.write_text("{")
    assert kept(live, ["a"], lambda: [[4.0, 2, 3]]) == [[4.0, 2, 3]]
    other = Kept(study.folder / "kept", ["another model"])
    assert other(live, ["a"], lambda: ["said"]) == ["said"] and len(list(kept.folder.iterdir())) == 2
    other.clear()
    assert set(kept.folder.iterdir()) == other.used


def test_branching_is_proved_once_for_a_model(study, monkeypatch):
    live, proved = model.load(study.source), []
    agree = exact.agree
    monkeypatch.setattr(exact, "agree", lambda *a: proved.append(1) or agree(*a))
    first = conditions.nats(live, ["good morning"])
    second = conditions.nats(live, ["good morning"])
    assert [s.nats for s in first] == [s.nats for s in second] and len(proved) == 1
    conditions.engine(live, 256).likelihoods([[1, 2, 3]], [1], lambda _: None)
    assert len(proved) == 1
