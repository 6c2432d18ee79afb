"""Models evaluated together and models evaluated apart: the same averages, tables and verdicts, from the same records."""

import json
import lzma
from functools import cache
from pathlib import Path

import pytest

from polygraft import cli
from polygraft.evals import run, steps
from polygraft.evals.engines.base import Written
from polygraft.evals.jobs import faults
from polygraft.evals.models import Evaluated, Outcome
from polygraft.evals.responses import Store
from polygraft.evals.run import Job
from polygraft.evals.steps import EvalConfig
from polygraft.files import commit
from polygraft.result import Result
from polygraft.step import Context
from polygraft.store import read_result, write_result

CONTEXT = Context(model=lambda ref: None, data=Path, offline=True)
CRITERIA = """criteria:
- {task: "darumeru:sw@1", metric: suite score, language: macro, tolerated_loss: 1}
- {task: copy-sentence, metric: repetition, language: sw, floor: 50}
- {task: problems, metric: calibration error, language: en, tolerated_loss: 100}
"""


class Writer:
    """Copies a share of the words that it is shown; finds texts likelier the shorter they are."""

    max_length, name, chat_template = 100_000, "writer", None

    def __init__(self, share):
        self.share = share

    def pairs(self, pairs, done):
        done([(i, (-len(text) * (1 + self.share * ("a" in text)), False)) for i, (_, text) in enumerate(pairs)])

    def generate(self, prompts, decoding, done):
        shown = [p.rsplit("\n", 1)[0].rsplit(": ", 1)[-1].split() for p in prompts]
        texts = [" ".join(w[: round(self.share * len(w))]) for w in shown]
        done([(i, Written(t, self.count(t), True)) for i, t in enumerate(texts)])

    def documents(self, texts, window, stride):
        return []

    def count(self, text):
        return len(text.split())


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    (folder / "ntrex128").mkdir()
    for code, text in {"eng.src": "This is sentence {n} and it says {w}.", "swa": "Hii ni sentensi ya {n} inayosema {w}."}.items():
        lines = "".join(text.format(n=n, w=" ".join([["simba", "chui", "kobe"][n % 3]] * (n % 5 + 1))) + "\n" for n in range(40))
        (folder / "ntrex128" / f"{code}.txt.xz").write_bytes(lzma.compress(lines.encode()))
    return folder


SHARES = {"whole": 1.0, "half": 0.5, "most": 0.9, "more": 0.85, "much": 0.8}


def answer(config, context, jobs, folder):
    """What the models of an evaluation give when they are writers, named by how much they copy."""
    found = []
    for name in config.models:
        with Store(folder / "responses", name) as store:
            found.append(Evaluated(name, run.run_jobs(Writer(SHARES[name]), jobs, folder=folder, model=name, store=store, computed={})))
    return Outcome(list(jobs), found, "computed here", ())


@pytest.fixture(scope="module")
def evaluated(data, tmp_path_factory):
    """evaluated("whole", "half"): the folder of a finished evaluation of both."""
    @cache
    def of(*models, **more):
        out = tmp_path_factory.mktemp("evals") / "-".join(models)
        fields = {"models": models, "tasks": ("darumeru:sw", "copy-sentence+typos:sw", "problems:en"), "limit": 10, "data": str(data)}
        with pytest.MonkeyPatch.context() as patch, commit(out, {"kind": "step"}) as part:
            patch.setattr(steps.models, "evaluate", answer)
            write_result(part, steps.run_step(EvalConfig(**(fields | more)), CONTEXT, part))
        return out

    return of


def compare(capsys, *words):
    code = cli.run(["compare", *map(str, words), "--json"])
    said = capsys.readouterr()
    return code, Result.from_json(json.loads(said.out)) if said.out else said.err


def shown(result):
    return result.to_json()["summary"], result.to_json()["tables"]


def test_apart_and_together_give_the_same_averages_tables_and_verdicts(evaluated, tmp_path, capsys):
    (tmp_path / "criteria.yaml").write_text(CRITERIA)
    together = read_result(evaluated("whole", "half", criteria=str(tmp_path / "criteria.yaml")))
    code, apart = compare(capsys, evaluated("whole"), evaluated("half"), "--criteria", tmp_path / "criteria.yaml")
    assert code == 6 and shown(apart) == shown(together)
    for part in ("scores", "differences", "averages", "suites", "criteria"):
        assert apart.data[part] == together.data[part], part
    [micro] = [d for d in apart.data["averages"]["differences"] if d["language"].startswith("Micro-Avg of ")]
    assert micro["verdict"] == "worse" and micro["value"] < -5
    titles = {t.title for t in apart.tables}
    assert {"What untidy questions cost", "Quality of what was written", "How sure and how right", "Criteria"} <= titles
    assert "darumeru:sw" in apart.data["criteria"]["reasons"][0]


def test_the_average_of_what_only_some_were_asked_says_so(evaluated, capsys):
    few = evaluated("half", tasks=("copy-sentence:sw",), shots=5)
    code, found = compare(capsys, evaluated("whole"), few)
    assert code == 0 and any("not in all of these evaluations and left out: copy-paragraph sw" in c for c in found.caveats)
    assert any("Micro-Avg of 1" in t.columns for t in found.tables)
    code, found = compare(capsys, evaluated("whole"), few, evaluated("most"))
    assert code == 0 and any("no average of half, which lacks copy-paragraph sw" in c for c in found.caveats)


def test_averages_of_methods_and_another_reference(evaluated, capsys):
    seeds = "copies=" + ",".join(str(evaluated(m)) for m in ("most", "more", "much"))
    code, found = compare(capsys, evaluated("half"), seeds, "--reference", "copies")
    [micro] = [d for d in found.data["averages"]["differences"] if d["language"].startswith("Micro-Avg of ")]
    assert code == 0 and (micro["model"], micro["reference"], micro["verdict"]) == ("half", "copies", "worse")
    code, found = compare(capsys, evaluated("whole"), evaluated("half"), "--reference", "half")
    assert code == 0 and {d["model"] for d in found.data["differences"]} == {"whole"} and found.data["reference"] == "half"
    code, said = compare(capsys, evaluated("whole"), evaluated("half"), "--reference", "hafl")
    assert code == 2 and "did you mean `half`" in said


def test_models_whose_names_make_one_file_name_have_two_files():
    job = Job("en", documents=("a text",))
    names = [run.sample_name(job, m) for m in ("a/b", "a_b", "a b", "a\\b")]
    assert len(set(names)) == 4 and names[1] == "bpb.en.a_b" and all(set("/\\ ").isdisjoint(n) for n in names)


def test_criteria_on_suites_and_on_certainty_pass_the_plan(data, tmp_path):
    (tmp_path / "criteria.yaml").write_text(CRITERIA.replace("@1", ""))
    fields = {"models": ("a", "b"), "tasks": ("darumeru:sw", "problems:en"), "limit": 10, "data": str(data)}
    assert faults(EvalConfig(**fields, criteria=str(tmp_path / "criteria.yaml")), CONTEXT)[1] == []
    (tmp_path / "criteria.yaml").write_text(CRITERIA.replace("calibration error", "calibration eror"))
    [wrong] = faults(EvalConfig(**fields, criteria=str(tmp_path / "criteria.yaml")), CONTEXT)[1]
    assert "calibration error" in str(wrong)
