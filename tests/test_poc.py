"""`polygraft poc` from end to end on tiny models: stages, resuming, a method that fails apart, the files that it leaves."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

import tiny as make
from polygraft import cli, evals
from polygraft import recipe as engine
from polygraft.poc import budget, stages, texts
from polygraft.poc.config import Poc
from polygraft.poc.decision import Decision
from polygraft.steps import TABLE
from polygraft.store import verify_run

WORDS = ["habari", "maji", "mti", "nyumba", "mtoto", "shule", "kitabu", "jua", "mwezi", "safari", "chakula", "rafiki"]
SMALL = {"steps": 2, "items": 3, "read": 300, "windows": 2, "max_bytes": 600}
assert evals


def lines(path: Path, rows: list) -> str:
    path.write_text("\n".join(json.dumps(r, ensure_ascii=False) for r in rows), encoding="utf-8")
    return str(path)


@dataclass
class Ground:
    """Models, texts and what `poc` takes."""

    root: Path
    config: Poc

    @property
    def out(self) -> Path:
        return self.root / "poc-sw"


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """A base, a task expert, text, pairs too long for the model's context, an evaluation, prices; everything small."""
    root, draw = tmp_path_factory.mktemp("poc"), random.Random(0)
    base, expert = (make.folder(root, "llama", layers=4, **more) for more in ({}, {"seed": 3, "noise": 0.02}))
    shutil.copytree(base, root / "base")
    (root / "base" / "README.md").write_text("---\nlicense: apache-2.0\n---\n")

    def sentence() -> str:
        return " ".join(draw.choices(WORDS, k=9)).capitalize() + "."

    text = lines(root / "sw.jsonl", [{"text": " ".join(sentence() for _ in range(4))} for _ in range(24)])
    pairs = lines(root / "pairs.jsonl", [{"question": sentence() * 4, "en": f"How many apples has {i}?"} for i in range(8)])
    asked = lines(root / "eval.jsonl", [{"question": sentence(), "choices": draw.sample(WORDS, 3), "answer": draw.randrange(3)} for _ in range(9)])
    (root / "prices.yaml").write_text("currency: EUR\nmachine_hour: 1.5\nmillion_tokens: 0.4\n")
    config = Poc(base=str(root / "base"), lang="sw", task_expert=str(expert), eval=asked, text=text, pairs=pairs, budget="2m",
                 methods=("swap", "slam", "lep", "prune"), prices=str(root / "prices.yaml"), licence={"text": "cc-by-sa-4.0"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYGRAFT_RESPONSES", str(root / "responses"))
        for name, value in SMALL.items():
            patch.setitem(budget.SMOKE, name, value)
        patch.setitem(budget.READ, "pilot", 300)
        patch.setitem(budget.BYTES, "pilot", 600)
        for module, name, value in ((budget, "WINDOWS", 2), (budget, "LEAST_STEPS", 3), (budget, "LEAST_ITEMS", 4), (budget, "PROBLEMS", 4),
                                    (budget, "ROUNDS", 0.0), (texts, "CONTINUED", 4), (texts, "COPIED", 4)):
            patch.setattr(module, name, value)
        yield Ground(root, config)


class Stop(KeyboardInterrupt):
    """Somebody pressed Ctrl-C."""


@pytest.fixture(scope="module")
def smoke(ground):
    """A smoke stage that was interrupted as pruning began, and then run again: (steps begun and notes of the first run, steps begun by
    the second, its decision)."""
    first: list[str] = []
    then: list[str] = []

    def stopping(event):
        first.append(event.step if event.kind == "start" else event.text if event.kind == "note" else "")
        if event.kind == "start" and event.step == "prune":
            raise Stop

    with pytest.raises(Stop):
        stages.run(ground.config, ground.out, offline=True, tell=stopping)
    assert not (ground.out / "decision.json").exists() and not (ground.out / "report.html").exists()
    decision = stages.run(ground.config, ground.out, offline=True, tell=lambda e: then.append(e.step) if e.kind == "start" else None)
    return first, then, decision


def test_an_interrupted_stage_goes_on_where_it_stopped(smoke):
    first, then, _ = smoke
    assert {"swap-language", "swap", "scores-swap", "slam", "prune"} <= set(first)
    assert set(then) == {"prune", "scores-prune", "change-prune"}


def test_a_method_that_fails_is_told_and_the_others_go_on(smoke):
    first = smoke[0]
    (note,) = [text for text in first if text.startswith("slam cannot go on: ")]
    assert "no example has an answer within the length" in note and first.index("slam") < first.index(note) < first.index("prune")


def test_the_smoke_stage_decides_nothing_and_measures_everything(smoke, ground):
    decision = smoke[2]
    rows = {r.method: r for r in decision.outcomes}
    assert (decision.stage, decision.verdict, decision.recommended, decision.reference) == ("smoke", "undecided", "", "task_expert")
    assert {m: r.status for m, r in rows.items()} | {"swap": "", "prune": ""} == {
        "nothing": "nothing", "swap": "", "slam": "absent", "neurons": "absent", "lep": "absent", "prune": "", "steer": "absent"}
    assert (rows["slam"].reason.code, rows["lep"].reason.code) == ("refused", "no-instruct"), "once its layers are known, planning sees it"
    for m in ("swap", "prune"):
        found = rows[m]
        assert {e.role for e in found.effects} >= {"target", "english", "other", "copy"} and found.of("target")[0].measure == "accuracy of target"
        assert found.spent.seconds > 0 and found.spent.money == pytest.approx(found.spent.seconds / 3600 * 1.5)
        assert found.touched is not None and 0 < found.touched <= 1 and (ground.out / found.model / "config.json").is_file()
        assert found.serving.money == pytest.approx(0.4 * found.serving.tokens_per_character)
    assert rows["swap"].spent.tokens > 0 == rows["prune"].spent.tokens and rows["prune"].touched > 0.2
    assert {r.code for r in rows["swap"].obligations} >= {"oblige-share-alike", "oblige-unknown", "oblige-notice"}
    assert {r.source: r.licence for r in decision.licences}["base"] == "apache-2.0"


def test_what_it_leaves_can_be_read_verified_and_run_by_hand(smoke, ground):
    out, decision = ground.out, smoke[2]
    assert Decision.from_json(json.loads((out / "decision.json").read_text())) == decision
    page = (out / "report.html").read_text()
    assert decision.sentence in page and page.index(decision.sentence) < page.index("scores-swap") and len(page) < 10**6
    assert "<html" in (out / "meeting.html").read_text() and not verify_run(out)
    read = engine.read_recipe(out / "poc.yaml", TABLE)
    done = engine.run(read, out.parent, offline=True)
    assert done.ran == () and done.folder == out
    assert cli.run(["report", str(out)]) == 0 and decision.sentence in (out / "report.html").read_text()


def test_the_same_command_again_does_nothing_twice(smoke, ground):
    begun: list[str] = []
    again = stages.run(ground.config, ground.out, offline=True, tell=lambda e: begun.append(e.step) if e.kind == "start" else None)
    assert not begun and again == smoke[2]


def test_the_plan_of_the_next_stage_writes_nothing(smoke, ground):
    before = sorted(p.relative_to(ground.out) for p in ground.out.rglob("*"))
    planned = stages.plan(ground.config.model_copy(update={"stage": "pilot"}), ground.out, offline=True)
    assert sorted(p.relative_to(ground.out) for p in ground.out.rglob("*")) == before
    assert (planned.stage, planned.out["slam"][0], planned.out["lep"][0]) == ("pilot", "absent", "absent")
    assert planned.sizes.steps == 3 and {s.id for s in planned.run.steps if not s.cached} >= {"swap-language", "scores-prune"}


def test_a_pilot_stands_on_the_smoke_stage(smoke, ground):
    begun: list[str] = []
    decision = stages.run(ground.config.model_copy(update={"stage": "pilot"}), ground.out, offline=True,
                          tell=lambda e: begun.append(e.step) if e.kind == "start" else None)
    assert decision.stage == "pilot" and decision.outcome("slam").status == "absent" and decision.equal.values["steps"] == "3"
    assert "stage by stage" in (ground.out / "report.html").read_text()
    assert {"swap-language", "scores-swap", "scores-prune"} <= set(begun)
    assert sorted(p.name for p in (ground.out / "stages").iterdir()) == ["pilot.json", "smoke.json"]
    assert decision.verdict in ("keep", "adopt") and decision.outcome("swap").of("target")[0].difference.n in range(4, 10)  # as many as the time that the smoke stage took leaves
