"""A scheduled check: the chain of manifests, the same items, drift against the first ancestor, one line of history a check."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

import watched
from polygraft import cli
from polygraft.errors import InputError
from polygraft.poc import ancestry, drift, history, watch
from polygraft.poc.history import Change, Check
from polygraft.result import Estimate
from polygraft.sources import resolve


@pytest.fixture(scope="module")
def home(tmp_path_factory, request):
    root = tmp_path_factory.mktemp("watched")
    patch = pytest.MonkeyPatch()
    patch.setenv("POLYGRAFT_RESPONSES", str(root / "responses"))
    request.addfinalizer(patch.undo)
    watched.family(root)
    watched.evaluation(root, root / "evaluation")
    return root


def find(spec, base=None):
    return resolve(spec, offline=True, base=base)


def names(chain):
    return [link.name for link in chain.links]


# ------------------------------------------------------------------------------------------------------------------ the chain


def test_a_chain_leads_back_to_the_model_that_nobody_made(home):
    chain = ancestry.chain(str(home / "v3"), find)
    assert names(chain) == ["v3", "v2", "v1", "v0"] and not chain.broken
    assert [link.made_by for link in chain.links] == ["merge.soup@1"] * 3 + [""]
    assert not any(link.note for link in chain.links)


def test_a_missing_ancestor_breaks_the_chain_and_the_one_before_is_the_first(home, tmp_path):
    for name in ("v2", "v3"):
        shutil.copytree(home / name, tmp_path / name)
    manifest = json.loads((tmp_path / "v2" / "manifest.json").read_text())
    manifest["inputs"][0]["spec"] = str(tmp_path / "gone")
    manifest["recipe"]["models"][0] = manifest["inputs"][0]["name"]
    (tmp_path / "v2" / "manifest.json").write_text(json.dumps(manifest))
    third = json.loads((tmp_path / "v3" / "manifest.json").read_text())
    third["inputs"][0]["spec"] = str(tmp_path / "v2")
    (tmp_path / "v3" / "manifest.json").write_text(json.dumps(third))
    chain = ancestry.chain(str(tmp_path / "v3"), find)
    assert names(chain) == ["v3", "v2"] and "gone" in chain.broken and "not here any more" in chain.broken


def test_a_parent_that_was_moved_is_known_by_its_tensors(home, tmp_path):
    """The copy has other times; what its manifest says of its tensors is what the child was made from."""
    for name in ("v1", "v2"):
        shutil.copytree(home / name, tmp_path / name)
    manifest = json.loads((tmp_path / "v2" / "manifest.json").read_text())
    manifest["inputs"][0]["spec"] = "/nowhere/v1"
    (tmp_path / "v2" / "manifest.json").write_text(json.dumps(manifest))
    chain = ancestry.chain(str(tmp_path / "v2"), find)
    assert names(chain)[:2] == ["v2", "v1"] and chain.links[1].source.path == tmp_path / "v1" and not chain.links[1].note


def test_another_model_in_the_place_of_the_parent_is_not_taken(home, tmp_path):
    shutil.copytree(home / "v2", tmp_path / "v2")
    shutil.copytree(home / "v3", tmp_path / "v1")  # under the parent's name
    manifest = json.loads((tmp_path / "v2" / "manifest.json").read_text())
    manifest["inputs"][0]["spec"] = "/nowhere/v1"
    (tmp_path / "v2" / "manifest.json").write_text(json.dumps(manifest))
    chain = ancestry.chain(str(tmp_path / "v2"), find)
    assert names(chain) == ["v2"] and "its tensors are others" in chain.broken


def test_a_chain_that_comes_back_to_itself_ends(home, tmp_path):
    for name in ("v1", "v2"):
        shutil.copytree(home / name, tmp_path / name)
    for name, parent in (("v1", "v2"), ("v2", "v1")):
        manifest = json.loads((tmp_path / name / "manifest.json").read_text())
        manifest["inputs"][0] = {"name": "x", "spec": str(tmp_path / parent)}
        manifest["recipe"]["models"] = ["x"]
        (tmp_path / name / "manifest.json").write_text(json.dumps(manifest))
    chain = ancestry.chain(str(tmp_path / "v2"), find)
    assert names(chain) == ["v2", "v1"] and "comes back to v2" in chain.broken


@pytest.mark.parametrize(("recipe", "wanted"), [
    ({"model": "m", "data": ["d"]}, "m"), ({"task": "t", "language": "l", "base": "b"}, "t"), ({"base": "b", "instruct": "i", "donor": "d"}, "i"),
    ({"models": ["a", "b"], "base": "b"}, "a"), ({"expert": "e", "base": "b"}, "e"), ({"corpus": {"sw": "x"}}, None), ({"model": "other"}, None)])
def test_the_line_follows_the_model_that_a_step_changes(recipe, wanted):
    inputs = [{"name": n, "spec": f"/models/{n}"} for n in ("b", "d", "l", "t", "i", "m", "a", "e")]
    found = ancestry.parent_input({"recipe": recipe, "inputs": inputs})
    assert (found and found["name"]) == wanted


def test_a_step_of_a_run_is_found_by_its_key(home, tmp_path, monkeypatch):
    (tmp_path / "chain.yaml").write_text(
        f"recipe: 1\nname: chain\nmodels: {{a: {home / 'v0'}, b: {home / 'wrong'}}}\nsteps:\n"
        "  - {id: one, use: merge.soup, models: [a, b]}\n  - {id: two, use: merge.slerp, models: [one, b]}\n")
    monkeypatch.chdir(tmp_path)
    assert cli.run(["run", "chain.yaml"]) == 0
    [two] = (tmp_path / "runs/chain/steps").glob("two-*")
    assert names(ancestry.chain(str(two / "model"), find)) == ["two", "one", "v0"]
    (two / "model" / "manifest.json").unlink()  # as of a step whose model has none of its own: the step's says it
    chain = ancestry.chain(str(two / "model"), find)
    assert names(chain)[:2] == ["two", "one"] and not chain.links[1].note  # the same key, the same content
    shutil.move(tmp_path / "runs", tmp_path / "moved")
    assert names(ancestry.chain(str(tmp_path / "moved/chain/steps" / two.name / "model"), find))[:2] == ["two", "one"]


# ------------------------------------------------------------------------------------------------------------------ the check


def check_of(home, model, out, loss, capsys, *more):
    capsys.readouterr()
    path = watched.criteria(home / f"criteria-{loss:g}.yaml", loss)
    code = cli.run(["watch", str(home / model), "--of", str(home / "evaluation"), "--criteria", str(path), "--out", str(out),
                    "--offline", "--json", *more])
    return code, json.loads(capsys.readouterr().out)


def test_small_steps_pass_and_their_sum_fails(home, tmp_path, capsys):
    out = tmp_path / "watch"
    code, lax = check_of(home, "v3", tmp_path / "lax", 1000.0, capsys)
    assert code == 0
    [change] = history.read(tmp_path / "lax" / "history.jsonl")[0].changes
    total, step = change.since_first.value, change.since_previous[0].value
    assert total > 1.8 * step > 0, "what was planted"
    tolerated = (total + step) / 2
    codes = [check_of(home, v, out, tolerated, capsys)[0] for v in ("v1", "v2", "v3")]
    checks = history.read(out / "history.jsonl")
    assert [c.model for c in checks] == ["v1", "v2", "v3"] and [c.passed for c in checks][-1] is False
    assert checks[-1].chain == ("v3", "v2", "v1", "v0") and checks[-1].first == "v0" and checks[-1].previous == "v2"
    drifts = [c.changes[0].since_first.value for c in checks]
    assert drifts == sorted(drifts) and checks[-1].reasons
    assert codes == [6 if d > tolerated else 0 for d in drifts] and codes[0] == 0 and codes[-1] == 6
    told = json.loads((out / "result.json").read_text())
    assert "The last update alone is within what is tolerated: the loss is that of all updates together." in told["summary"]
    [curve] = told["curves"]
    assert curve["series"]["en"] == [0.0, *drifts] and curve["x"] == [0.0, 1.0, 2.0, 3.0]
    page = (out / "report.html").read_text()
    assert "change since v0" in page and "Chain of manifests" in page and lax["data"]["criteria"]["passed"]


def test_every_check_keeps_its_answers_and_old_ones_are_found_again(home, tmp_path, capsys):
    code, _ = check_of(home, "v1", tmp_path / "w", 1000.0, capsys)
    again, second = check_of(home, "v1", tmp_path / "w", 1000.0, capsys, "--lang", "ja")
    assert code == again == 0 and len(list((tmp_path / "w/checks").iterdir())) == 2
    one, two = history.read(tmp_path / "w" / "history.jsonl")
    assert one.changes == two.changes and one.digest == two.digest
    assert '<html lang="ja">' in (tmp_path / "w/report.html").read_text()
    assert second["data"]["checks"] == 2 and not one.changes[0].since_previous  # the parent is the first ancestor


def test_a_first_ancestor_can_be_named(home, tmp_path, capsys):
    _, told = check_of(home, "wrong", tmp_path / "w", 1000.0, capsys, "--first", str(home / "v0"))
    assert told["data"]["chain"] == ["wrong"] and history.read(tmp_path / "w/history.jsonl")[0].first == "v0"


def test_items_that_are_others_are_refused_and_nothing_is_added(home, tmp_path, capsys):
    root = tmp_path / "elsewhere"
    root.mkdir()
    watched.corpus(root / "en.jsonl", shift=1)
    task = watch.prepare(str(home / "v1"), home / "evaluation", watched.criteria(tmp_path / "c.yaml", 1.0), tmp_path / "w", base=root, offline=True)
    with pytest.raises(InputError, match="not those of the evaluation"):
        watch.run(task, offline=True)
    assert not (tmp_path / "w/history.jsonl").exists() and not (tmp_path / "w/report.html").exists()


# ----------------------------------------------------------------------------------------------------------- history and words


def a_check(n=1, value=0.5, last=0.1, **more):
    now, since = Estimate(3.0, 2.9, 3.1, 30, "bpb"), Estimate(value, value - 0.1, value + 0.1, 30, "bpb", "worse")
    change = Change("bpb", "en", "bits per byte", now, since, (Estimate(last, last - 0.2, last + 0.2, 30, "bpb", "not distinguishable"),))
    return Check(**{"time": f"2026-01-0{n}T00:00:00Z", "model": f"v{n}", "digest": f"d{n}", "first": "v0", "first_digest": "d0",
                    "previous": f"v{n - 1}", "evaluation": "e", "passed": True, "reasons": (), "chain": (f"v{n}", "v0"),
                    "changes": (change,)} | more)


def test_a_line_comes_back_as_it_was(tmp_path):
    path = tmp_path / "deep" / "history.jsonl"
    for n in (1, 2, 3):
        history.append(path, a_check(n))
    assert history.read(path) == [a_check(n) for n in (1, 2, 3)] and history.read(tmp_path / "none") == []
    assert path.read_bytes().count(b"\n") == 3


def test_a_curve_has_a_gap_where_a_score_was_not_taken():
    other = replace(a_check(2), changes=(replace(a_check(2).changes[0], language="sw"),))
    [curve] = history.curves([a_check(1), other, a_check(3, 0.9)])
    assert curve.series == {"en": (0.0, 0.5, None, 0.9), "sw": (0.0, None, 0.5, None)} and curve.title == "bpb: bits per byte, change since v0"
    assert [row[0] for row in history.table([a_check(1), a_check(2)], a_check().changes[0].key).rows] == [2, 1]


def test_drift_that_no_single_update_shows_is_said():
    told = drift.sentences(a_check(3, chain=("v3", "v2", "v1", "v0")), {})
    assert told[1] == "Since v0 (3 updates ago): 1 of 1 scores worse, 0 better, 0 not distinguishable."
    assert told[2] == "Since v2, the last update: 0 of 1 scores worse, 0 better, 1 not distinguishable."
    assert told[3] == "Worse since v0, but not by the last update alone: bpb en bits per byte."


def test_a_history_is_of_one_evaluation_and_one_ancestor(tmp_path):
    history.refuse_other([], tmp_path, evaluation="x", first="y", first_digest="z")
    history.refuse_other([a_check()], tmp_path, evaluation="e", first="v0", first_digest="d0")
    for change in ({"evaluation": "f"}, {"first_digest": "dx"}):
        with pytest.raises(InputError):
            history.refuse_other([a_check()], tmp_path, **({"evaluation": "e", "first": "v0", "first_digest": "d0"} | change))
