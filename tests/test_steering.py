"""Ways of steering against their definitions, and the `steer` step from text to tables."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from polygraft import arrays, model, selectionfile
from polygraft.activity import Activity
from polygraft.analysis.steering import answers
from polygraft.analysis.steering.ways import Where, make, parse
from polygraft.edits import Edits, applied
from polygraft.errors import InputError, RecipeError
from polygraft.recipe import run_step
from polygraft.result import Result
from polygraft.sources import resolve
from polygraft.step import Context
from polygraft.steps import TABLE

STEER = next(s for s in TABLE if s.name == "steer")
LAYERS, WIDTH, HIDDEN, TOKENS = 3, 4, 5, {"sw": 10, "en": 20, "fr": 40}
EDGES = (-1.0, 0.0, 1.0, 2.0, 3.0)


@pytest.fixture
def where(tmp_path):
    """Statistics in three languages; neurons found for Swahili: two of layer 0, one of layer 2."""
    rng = np.random.default_rng(0)
    for language in TOKENS:
        arrays.write(tmp_path / f"activity.{language}.safetensors", {
            "sum": rng.normal(size=(LAYERS, WIDTH)), "residual": rng.normal(size=(LAYERS + 1, HIDDEN)),
            "histogram": rng.integers(1, 9, (LAYERS, WIDTH, len(EDGES) - 1)).astype(np.int32)})
    told = {g: {"tokens": n, "documents": 2, "groups": 0, "digest": "", "path": ""} for g, n in TOKENS.items()}
    mask = np.zeros((LAYERS, WIDTH), bool)
    mask[0, [1, 3]] = mask[2, 0] = True
    activity = Activity(tmp_path, told, LAYERS, (WIDTH,) * LAYERS, HIDDEN, edges=EDGES)
    return Where((WIDTH,) * LAYERS, HIDDEN, mask, "sw", activity)


def means(where, name="sum"):
    return {g: where.activity.array(g, name) / n for g, n in TOKENS.items()}


def flat(edits, point="act"):
    return np.concatenate([np.broadcast_to(e.values, e.rows.shape if e.rows is not None else e.values.shape)
                           for e in edits.edits if e.point == point])


def test_neurons_get_their_own_statistic(where):
    m = means(where)
    expected = {"zero": 0 * m["sw"], "value=0.5": 0 * m["sw"] + 0.5, "mean": m["sw"], "add=2": 2 * m["sw"], "scale=3": 0 * m["sw"] + 3,
                "diff=2": 2 * (m["sw"] - (m["en"] + m["fr"]) / 2), "atleast=mean": m["sw"]}
    ops = {"add=2": "add", "diff=2": "add", "scale=3": "scale", "atleast=mean": "atleast"}
    for word, values in expected.items():
        found = make(word, where)
        assert [(e.layer, e.op, e.rows.tolist()) for e in found.edits] == [(0, ops.get(word, "set"), [1, 3]), (2, ops.get(word, "set"), [0])]
        np.testing.assert_allclose(flat(found), values[where.neurons], rtol=1e-6, atol=1e-7)


def test_percentiles_are_of_the_target_and_rise(where):
    lower, upper = flat(make("p10", where)), flat(make("p90", where))
    assert (lower <= upper).all() and (lower < upper).any() and (lower >= EDGES[0]).all() and (upper <= EDGES[-1]).all()
    np.testing.assert_array_equal(upper, flat(make("atleast=p90", where)))
    assert not np.array_equal(flat(make("p50", where)), flat(make("p50", replace(where, language="en"))))


def test_the_stream_gets_the_difference_of_means_after_its_layer(where):
    m = means(where, "residual")
    for layers in ((0, 2), ()):
        found = make("residual-diff=-1.5", replace(where, layers=layers))
        assert [e.layer for e in found.edits] == list(layers or (2,))
        for e in found.edits:
            expected = -1.5 * (m["sw"] - (m["en"] + m["fr"]) / 2)[e.layer + 1]
            np.testing.assert_allclose(e.values, expected, rtol=1e-5, atol=1e-7)


def test_a_projection_reads_the_basis_after_its_layer(where):
    basis = {f"basis.{i}": np.linalg.qr(np.random.default_rng(i).normal(size=(HIDDEN, 2)))[0] for i in (0, 1, 3)}
    found = make("project", replace(where, basis=basis))
    assert [(e.layer, e.op) for e in found.edits] == [(0, "project"), (2, "project")]
    np.testing.assert_allclose(found.edits[1].values, basis["basis.3"].T, atol=1e-6)
    assert make("keep", replace(where, basis=basis, layers=(0,))).edits[0].op == "keep"
    with pytest.raises(InputError, match="was not found"):
        make("project", replace(where, basis=basis, layers=(1,)))
    with pytest.raises(InputError, match="no language subspace was given"):
        make("project", where)


def test_layer_off_takes_the_layer_with_most_neurons_or_those_named(where):
    assert [(e.layer, e.op, e.rows, e.values.tolist()) for e in make("layer-off", where).edits] == [(0, "scale", None, [0.0])]
    assert [e.layer for e in make("layer-off", replace(where, layers=(1, 2)), "prompt").edits] == [1, 2]
    with pytest.raises(InputError, match="no layer is named"):
        make("layer-off", replace(where, neurons=where.neurons & False))


@pytest.mark.parametrize("word", ["", "p0", "p100", "p5.5", "value", "value=", "value=nan", "add=inf", "zero=1", "men", "atleast=2", "P90"])
def test_words_that_are_no_way_are_refused(word):
    with pytest.raises(RecipeError, match="no such way"):
        parse(word)


@pytest.mark.parametrize("word", ["p200", "p0", "p5.5", "p-3", "atleast=p100"])
def test_a_percentile_out_of_range_says_the_range(word):
    with pytest.raises(RecipeError) as e:
        parse(word)
    assert "p1 to p99" in e.value.fix


def test_statistics_that_are_not_there_are_refused(where):
    one = replace(where.activity, languages={"sw": where.activity.languages["sw"]})
    for at, word, what in [
        (replace(where, activity=None), "mean", "needs what was read"), (replace(where, language="de"), "mean", "was not read"),
        (replace(where, activity=one), "diff=1", "another one"), (replace(where, experts=2), "p50", "each expert"),
        (replace(where, hidden=6), "residual-diff=1", "another shape"), (replace(where, neurons=where.neurons & False), "zero", "no neurons"),
    ]:
        with pytest.raises(InputError, match=what):
            make(word, at)
    assert len(make("zero", replace(where, activity=None, experts=2)).edits) == 2


def test_prompts_are_lines_or_objects(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    (tmp_path / "a.jsonl").write_text('{"prompt": "one"}\n{"prompt": "two\\nlines"}\n')
    assert answers.prompts(tmp_path / "a.txt") == ["one", "two"]
    assert answers.prompts(tmp_path / "a.jsonl") == ["one", "two\nlines"]
    for text in ("", '{"text": "no"}\n', "[1]\n", "{\n"):
        (tmp_path / "b.jsonl").write_text(text)
        with pytest.raises(InputError):
            answers.prompts(tmp_path / "b.jsonl")


def test_the_first_answers_are_shown_on_one_line_and_cut():
    found = {"unedited": ["a\n\nb", "", "c", "d"], "zero": ["x" * 300, "y", "c", "d"], "zero, random": ["r"] * 4}
    table = answers.beside(["p", "q" * 201, "r", "s"], found)
    assert [r[2] for r in table.rows] == ["unedited", "zero"] * 3 and table.rows[0][1:] == ("p", "unedited", "a b")
    assert table.rows[1][3] == "x" * 200 + " ..." and table.rows[2][1] == "q" * 200 + " ..." and table.rows[2][3] == "(empty)"
    assert table.note.startswith("The first 3 of 4 prompts")


# --------------------------------------------------------------------------------------------------------------- the step


@pytest.fixture
def study(tiny, tmp_path):
    """A folder with texts, prompts and a selection for a tiny model of three layers."""
    rng = np.random.default_rng(0)
    masks = {name: rng.random((3, 48)) < 0.2 for name in ("sw", "en", "random.sw")}
    selectionfile.write(tmp_path / "selection.json", {n: selectionfile.from_mask(m) for n, m in masks.items()})
    for language, words in (("sw", "habari ya asubuhi "), ("en", "good morning to you ")):
        (tmp_path / f"{language}.txt").write_text("".join(f"{words * (1 + i % 3)}{i}\n" for i in range(12)))
    (tmp_path / "prompts.txt").write_text("habari\nhello\n")
    return tmp_path, tiny(layers=3)


def steer(study, **fields):
    folder, source = study
    config = STEER.config(**{"model": str(source), "max_tokens": 4, "controls": 0} | fields)
    context = Context(lambda ref: resolve(ref), lambda ref: folder / ref, folder=lambda ref: folder / ref)
    out = folder / "out"
    out.mkdir(exist_ok=True)
    plan = STEER.plan(config, context)
    if plan.problems:
        raise plan.problems[0]
    result = STEER.run(config, context, out)
    said = json.dumps(result.to_json(), allow_nan=False)
    assert json.dumps(Result.from_json(json.loads(said)).to_json()) == said
    return result, out


def test_answers_side_by_side_and_the_edits_are_kept(study):
    result, out = steer(study, select=("selection.json:sw",), way=("value=4", "zero"), prompts="prompts.txt",
                        deactivate=("selection.json:en",))
    assert [list(s.outputs) for s in result.samples] == [["unedited", "value=4", "zero"]] * 2
    kept = Edits.load(out / "edits" / "value=4")
    assert kept.digest == result.data["edits"]["value=4"] and {e.op for e in kept.edits} == {"set"}
    live = model.load(study[1])
    with applied(live, kept):
        from polygraft.evals import conditions

        assert conditions.write(live, ["habari", "hello"], 4, False) == [s.outputs["value=4"] for s in result.samples]
    assert "out of" not in result.summary[0] and result.summary[0].startswith("Edited at every token: value=4 (")


def test_statistics_are_read_from_text_on_the_way(study):
    result, out = steer(study, select=("selection.json:sw",), way=("mean", "p90", "residual-diff=1"), corpus={"sw": "sw.txt", "en": "en.txt"},
                        read={"sw": "sw.txt"}, controls=1)
    activity = Activity.open(out / "activity")
    means = activity.array("sw", "sum") / activity.tokens("sw")
    for e in Edits.load(out / "edits" / "mean").edits:
        np.testing.assert_allclose(e.values, means[e.layer, e.rows], rtol=1e-6)
    table = next(t for t in result.tables if t.title == "What editing changes")
    assert any("text read in sw is the one" in c for c in result.caveats)
    assert table.columns == ("way", "nats sw") and [r[0] for r in table.rows] == ["mean", "p90", "residual-diff=1"]


def test_the_matrix_takes_every_language_of_the_file(study):
    result, _ = steer(study, select=("selection.json",), matrix=True, read={"sw": "sw.txt", "en": "en.txt"}, controls=2, documents=6)
    for cells in result.data["matrix"]["units"].values():
        assert cells["edited"] == cells["read"] == ["sw", "en"] and cells["controls"] == [2, 2]


def test_tasks_and_a_verdict(study, monkeypatch):
    monkeypatch.setenv("POLYGRAFT_RESPONSES", "none")
    result, _ = steer(study, select=("selection.json:sw",), way=("zero", "layer-off"), verdict=True, controls=3, tasks=("problems",),
                      langs=("sw", "en"), limit=4, read={"en": "en.txt"}, documents=4)
    assert result.data["verdict"]["measure"] == "problems sw accuracy" and result.data["verdict"]["answer"] in ("yes", "no")
    assert {s["model"] for s in result.data["evaluation"]["scores"]} == {"unedited", "zero", "layer-off"}
    result, _ = steer(study, select=("selection.json:sw",), way=("zero",), positions="generated", tasks=("problems",), langs=("sw",), limit=3)
    assert "zero" in result.data["effects"]["edited"]


@pytest.mark.parametrize(("fields", "what"), [
    ({"select": ("selection.json:sw",)}, "need what was read"),
    ({"select": ("selection.json:xx",), "way": ("zero",)}, "no selection of this name"),
    ({"way": ("zero",)}, "which neurons"),
    ({"select": ("selection.json:sw", "selection.json:en"), "way": ("zero",)}, "several languages"),
    ({"select": ("selection.json:sw",), "way": ("zero",), "backend": "vllm"}, "under vLLM"),
    ({"select": ("selection.json:sw",), "way": ("zero",), "verdict": True, "read": {"sw": "sw.txt"}}, "random controls"),
    ({"select": ("selection.json:sw",), "way": ("zero",), "verdict": True, "controls": 3}, "nothing to measure"),
    ({"select": ("selection.json",), "matrix": True, "tasks": ("problems",), "read": {"sw": "sw.txt"}}, "asked for alone"),
    ({"select": ("selection.json:sw",), "way": ("zero",), "positions": "prompt", "read": {"sw": "sw.txt"}}, "no prompt and no answer"),
    ({"select": ("selection.json:sw",), "way": ("zero",), "tasks": ("nothing",)}, "nothing"),
    ({"select": ("selection.json:sw",), "way": ("project",)}, "no language subspace"),
])
def test_what_cannot_be_run_is_refused_before_the_model_is_loaded(study, fields, what, monkeypatch):
    monkeypatch.setattr(model, "load", lambda *_, **__: pytest.fail("the model was loaded"))
    with pytest.raises((RecipeError, InputError), match=what):
        steer(study, **fields)


def test_paths_of_a_verb_begin_where_it_is_called(study):
    folder, source = study
    config = STEER.config(model=str(source), select=("selection.json:sw",), way=("zero",), prompts="prompts.txt", max_tokens=4, controls=0)
    result = run_step(STEER, config, folder / "answers", folder=folder)
    assert len(result.samples) == 2 and (folder / "answers" / "edits" / "zero" / "edits.json").is_file()
