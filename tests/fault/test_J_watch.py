"""Group J: a check that would mean nothing is refused before anything is loaded, and the history stays as it was."""

from __future__ import annotations

import json
import shutil

import pytest

import tiny
from polygraft import cli
from polygraft.files import commit, write_json
from polygraft.poc import ancestry, history
from polygraft.sources import resolve
from test_poc_watch import a_check

pytestmark = pytest.mark.group("J")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A model without a manifest, one made from it, and an evaluation whose records are written by hand."""
    root = tmp_path_factory.mktemp("faults")
    tiny.folder(root, "llama").rename(root / "base")
    tiny.folder(root, "llama", seed=1).rename(root / "made")
    inputs = [{"name": "base", "spec": str(root / "base"), "identity": resolve(root / "base").identity}]
    write_json(root / "made" / "manifest.json", {"files": {}, "inputs": inputs, "recipe": {"use": "tune.sft@1", "model": "base"}})
    (root / "en.txt").write_text("A text.\n\nAnother text.\n")
    evaluation(root / "evaluation")
    (root / "good.yaml").write_text("criteria:\n  - {metric: accuracy, task: t, language: en, floor: 10}\n")
    return root


def evaluation(out, **entry):
    records = [{"id": str(i), "prompt_sha256_16": f"{i:016x}", "prompt": f"q {i}", "shots": 0, "gold": 0,
                "scores": {"accuracy": [i % 2, 1]}} for i in range(8)]
    recipe = {"id": "eval", "use": "eval@1", "models": ["base"], "tasks": ["blimp"], "langs": ["en"]} | entry
    with commit(out, {"kind": "step", "recipe": recipe}) as part:
        (part / "samples").mkdir()
        (part / "samples" / "t.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
        rows = [{"file": "samples/t.jsonl", "task": "t@1", "language": "en", "model": "base"}]
        write_json(part / "result.json", {"step": "eval@1", "id": "", "title": "", "data": {"records": rows}})
    return out


def edit(path, change):
    path.write_text(change(path.read_text()))


CASES = {  # what is done to the files before, the words of the command, the exit code, what is said
    "criteria with another task": (lambda h, d: (d / "c.yaml").write_text("criteria:\n  - {metric: accuracy, task: tt, language: en, floor: 1}\n"),
                                   ["made", "--criteria", "c.yaml"], 2, "no task `tt`"),
    "criteria with another metric": (lambda h, d: (d / "c.yaml").write_text("criteria:\n  - {metric: acuracy, task: t, language: en, floor: 1}\n"),
                                     ["made", "--criteria", "c.yaml"], 2, "accuracy"),
    "criteria with another language": (lambda h, d: (d / "c.yaml").write_text("criteria:\n  - {metric: accuracy, task: t, language: sw, floor: 1}\n"),
                                       ["made", "--criteria", "c.yaml"], 2, "no language `sw`"),
    "criteria beyond the unit": (lambda h, d: (d / "c.yaml").write_text("criteria:\n  - {metric: accuracy, task: t, language: en, floor: 250}\n"),
                                 ["made", "--criteria", "c.yaml"], 2, "beyond what accuracy can be"),
    "criteria that demand nothing": (lambda h, d: (d / "c.yaml").write_text("criteria:\n  - {metric: accuracy, task: t, language: en}\n"),
                                     ["made", "--criteria", "c.yaml"], 2, "nothing is demanded"),
    "criteria with a key misspelt": (lambda h, d: (d / "c.yaml").write_text("criterai: []\n"), ["made", "--criteria", "c.yaml"], 2, "criteria"),
    "no criteria file": (None, ["made", "--criteria", "none.yaml"], 3, "none.yaml"),
    "no model": (None, ["nobody"], 3, "no such model"),
    "a model behind a server": (None, ["server:http://localhost:1#m"], 3, "cannot be watched"),
    "no evaluation": (None, ["made", "--of", "base"], 3, "not a finished evaluation"),
    "a first ancestor that is not there": (None, ["made", "--first", "nobody"], 3, "no such model"),
    "no ancestor at hand": (None, ["base"], 3, "no ancestor of the model is at hand"),
    "a history cut off": (lambda h, d: (d / "w").mkdir() or (d / "w/history.jsonl").write_text('{"time": '), ["made"], 3, "history.jsonl:1"),
    "a history that is not JSON": (lambda h, d: (d / "w").mkdir() or (d / "w/history.jsonl").write_text("{}}\n"), ["made"], 3, "a line that `polygraft watch` wrote"),
    "an output that holds something else": (lambda h, d: (d / "w").mkdir() or (d / "w/notes.txt").write_text("mine"), ["made"], 2, "taken"),
    "a history of other things": (lambda h, d: (d / "w").mkdir() or (d / "w/history.jsonl").write_text('{"step": 1}\n'), ["made"], 3, "not a check"),
    "a history with an empty line": (lambda h, d: history.append(d / "w/history.jsonl", a_check()) or edit(d / "w/history.jsonl", lambda t: t + "\n"),
                                     ["made"], 3, "history.jsonl:2"),
    "a history with a number that is none": (lambda h, d: history.append(d / "w/history.jsonl", a_check()) or edit(
        d / "w/history.jsonl", lambda t: t.replace('"value": 3.0', '"value": "3.0"')), ["made"], 3, "not what it must be"),
    "a history of NaN": (lambda h, d: history.append(d / "w/history.jsonl", a_check()) or edit(
        d / "w/history.jsonl", lambda t: t.replace('"value": 3.0', '"value": NaN')), ["made"], 3, "history.jsonl:1"),
    "a history of another evaluation": (lambda h, d: history.append(d / "w/history.jsonl", a_check()), ["made"], 3, "another evaluation"),
    "a history that is a folder": (lambda h, d: (d / "w/history.jsonl").mkdir(parents=True), ["made"], 3, "cannot be read"),
    "an evaluation that was altered": (lambda h, d: edit(evaluation(d / "e") / "samples/t.jsonl", lambda t: t.replace("q 1", "q 9")),
                                       ["made", "--of", "e"], 3, "not what its manifest says"),
    "an evaluation of an unknown setting": (lambda h, d: evaluation(d / "e", shotz=3), ["made", "--of", "e"], 3, "another version"),
    "an evaluation without its entry": (lambda h, d: evaluation(d / "e", use="compare@1"), ["made", "--of", "e"], 3, "does not say what was asked"),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_and_nothing_written(name, home, tmp_path, monkeypatch, capsys):
    prepare, words, code, said = CASES[name]
    monkeypatch.chdir(tmp_path)
    for link in ("base", "made", "evaluation", "good.yaml"):
        (tmp_path / link).symlink_to(home / link)
    if prepare:
        prepare(home, tmp_path)
    before = (tmp_path / "w/history.jsonl").read_bytes() if (tmp_path / "w/history.jsonl").is_file() else None
    more = [w for option, value in (("--of", "evaluation"), ("--criteria", "good.yaml"), ("--out", "w")) if option not in words
            for w in (option, value)]
    assert cli.run(["watch", *words, *more, "--offline"]) == code
    assert said in capsys.readouterr().err
    assert ((tmp_path / "w/history.jsonl").read_bytes() if before is not None else None) == before
    assert not (tmp_path / "w/report.html").exists() and not (tmp_path / "w/checks").exists()


BROKEN = {
    "not JSON": ("{", "cannot be read"),
    "no inputs": ('{"files": {}}', "names no inputs"),
    "inputs of another shape": ('{"inputs": {"a": 1}, "recipe": {"model": "a"}}', "does not say which"),
    "inputs that are words": ('{"inputs": ["base"], "recipe": {"model": "base"}}', "does not say which"),
    "no recipe": ('{"inputs": [{"name": "base", "spec": "x"}]}', "does not say which"),
    "a recipe that names nobody": ('{"inputs": [{"name": "base", "spec": "x"}], "recipe": {"model": "other"}}', "does not say which"),
    "a parent that is gone": ('{"inputs": [{"name": "base", "spec": "/gone/for/ever"}], "recipe": {"model": "base"}}', "not here any more"),
    "a step that is gone": ('{"inputs": [{"name": "one", "spec": "step one", "identity": "abc"}], "recipe": {"model": "one"}}', "not here any more"),
    "a parent without words": ('{"inputs": [{"name": "base"}], "recipe": {"model": "base"}}', "not here any more"),
    "a parent of odd words": ('{"inputs": [{"name": "base", "spec": "\\u0000"}], "recipe": {"model": "base"}}', "not here any more"),
    "a parent that is no model": ('{"inputs": [{"name": "base", "spec": "en.txt"}], "recipe": {"model": "base"}}', "not here any more"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_where_a_chain_breaks_is_said(name, home, tmp_path):
    text, said = BROKEN[name]
    model = tmp_path / "model-x"
    shutil.copytree(home / "base", model)
    (model / "manifest.json").write_text(text)
    chain = ancestry.chain(str(model), lambda spec, base=None: resolve(spec, offline=True, base=base))
    assert len(chain.links) == 1 and said in chain.broken
