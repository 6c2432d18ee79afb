"""The command line: every verb answers, every mistake has its exit code and one clear sentence, no traceback ever."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tiny
from polygraft import cli
from polygraft.cli import show
from polygraft.result import Estimate, Table


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a base and two experts of six layers."""
    root = tmp_path_factory.mktemp("cli")
    for name, seed, noise in (("base", 0, 0.0), ("math", 0, 0.01), ("swahili", 0, 0.02)):
        shutil.move(tiny.folder(root / "made", "llama", layers=6, seed=seed, noise=noise), root / name)
    return root


@pytest.fixture
def at(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setenv("COLUMNS", "100")
    return home


def call(capsys, *words: str) -> tuple[int, str, str]:
    code = cli.run(list(words))
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out, err


VERBS = [[v] for v in cli.VERBS] + [[g, v] for g, t in cli.VERBS.items() if isinstance(t, dict) for v in t]


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_every_verb_explains_itself(words, capsys):
    code, out, _ = call(capsys, *words, "--help")
    assert code == 0 and "Usage: polygraft" in out and len(out) > 150


def test_no_words_show_the_verbs(capsys):
    code, out, _ = call(capsys)
    assert code == 0 and "merge" in out and "Exit codes" in out


@pytest.mark.parametrize("words, said", [
    (["mrge"], "did you mean `merge`"),
    (["merge", "swp"], "did you mean `swap`"),
    (["merge", "swap", "--taks", "x"], "--task"),
    (["merge", "swap", "--task", "math"], "`language` is missing"),
    (["merge", "swap", "--task", "math", "--language", "swahili"], "`--out` is missing"),
    (["merge", "swap", "--task", "math", "--language", "swahili", "--out", "o", "--bottom", "four"], "--bottom"),
    (["merge", "swap", "--task", "math", "--language", "swahili", "--out", "o", "--bottom", "4", "--top", "4"], "overlap"),
    (["merge", "swap", "--task", "math", "--language", "swahili", "--out", "o", "--weights", "plan"], "did you mean `plain`"),
    (["merge", "swap", "--task", "math", "--language", "swahili", "--out", "base"], "not empty"),
    (["plan"], "Missing argument"),
    (["run", "recipe.yaml", "--set", "nonsense"], "recipe.yaml"),
    (["ask", "base"], "prompt"),
])
def test_what_was_typed_wrong_exits_2(at, capsys, words, said):
    code, out, err = call(capsys, *words)
    assert code == (3 if words[0] == "run" else 2), err  # the recipe file itself is an input that is missing
    assert said in out + err


@pytest.mark.parametrize("words", [
    ["merge", "swap", "--task", "absent", "--language", "swahili", "--out", "o"], ["inspect", "absent"], ["plan", "absent.yaml"],
    ["verify", "absent"], ["report", "absent"], ["ask", "absent", "hello"],
], ids=" ".join)
def test_an_input_that_is_missing_exits_3(at, capsys, words):
    code, _, err = call(capsys, *words)
    assert code == 3 and "absent" in err and not (at / "o").exists()


def test_swap_verify_and_damage(at, capsys):
    code, out, _ = call(capsys, "merge", "swap", "--task", "math", "--language", "swahili", "--base", "base", "--out", "swapped",
                        "--bottom", "1", "--top", "1", "--transition", "1")
    assert code == 0 and "use: merge.swap@1" in out and "█" in out
    assert call(capsys, "verify", "swapped")[0] == 0
    path = at / "swapped" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 4
    path.write_bytes(data)
    code, _, err = call(capsys, "verify", "swapped")
    assert code == 3 and "model.safetensors: content differs" in err
    code, out, _ = call(capsys, "verify", "swapped", "--json")
    assert code == 3 and json.loads(out)["problems"] == [{"file": "model.safetensors", "what": "content differs from its digest"}]


def test_the_output_may_not_touch_an_input(at, capsys):
    words = ["merge", "swap", "--task", "math", "--language", "swahili"]
    before = sorted(p.name for p in (at / "math").iterdir())
    for out in ("math/new", "math", str(at)):
        for force in ([], ["--force"]):
            code, _, err = call(capsys, *words, "--out", out, *force)
            assert code == 2 and ("touch an input" in err or out == str(at))
    assert sorted(p.name for p in (at / "math").iterdir()) == before and not list(at.glob("*.replaced-*"))


@pytest.mark.parametrize("words, code, said", [
    (["eval", "base", "--limit", "99999999999", "--plan"], 2, "at most 1,000,000"),
    (["tune", "sft", "base", "--data", "problems:en?n=99999999999999", "--out", "o", "--plan"], 2, "at most 1,000,000"),
    (["tune", "sft", "base", "--data", "/dev/zero", "--out", "o"], 3, "not a plain file"),
    (["eval", "base", "--corpus", "en=/dev/zero"], 3, "not a plain file"),
])
def test_nothing_hangs_or_strands(at, capsys, words, code, said):
    got, _, err = call(capsys, *words)
    assert (got, said in err) == (code, True), err


def test_the_current_folder_is_not_replaced(at, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for out in (".", ""):
        code, _, err = call(capsys, "merge", "soup", str(at / "math"), str(at / "swahili"), "--out", out)
        assert code == 2 and "current folder" in err
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_behind_standard_output_is_no_bug(at):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-m", "polygraft", "inspect", "base"], stdout=full, stderr=subprocess.PIPE, text=True, cwd=at)
    assert done.returncode == 4 and "bug" not in done.stderr


def test_what_a_failed_run_leaves_is_named(at, capsys):
    (at / "few.jsonl").write_text('{"prompt": "ab", "completion": "cd"}\n' * 8)
    words = ["tune", "sft", "base", "--data", "few.jsonl", "--method", "full", "--lr", "1000", "--weight-decay", "1e9",
             "--steps", "6", "--batch", "1", "--length", "64", "--save-every", "1", "--device", "cpu", "--out", "burst"]
    code, _, err = call(capsys, *words)
    assert code == 5 and "burst.partial: the same command goes on from there" in err and (at / "burst.partial").exists()
    code, _, err = call(capsys, "tune", "sft", "nowhere", *words[3:-1], "other")
    assert code == 3 and "other.partial" not in err


def test_the_same_verb_again_changes_nothing(at, capsys):
    words = ["merge", "soup", "math", "swahili", "--out", "twice"]
    assert call(capsys, *words)[0] == 0
    (at / "twice.partial").mkdir()  # what a kill right after the last rename leaves
    before = {p.name: p.stat().st_mtime_ns for p in (at / "twice").iterdir()}
    code, _, err = call(capsys, *words)
    assert code == 0 and "nothing changed" in err and not (at / "twice.partial").exists()
    assert {p.name: p.stat().st_mtime_ns for p in (at / "twice").iterdir()} == before
    assert call(capsys, "merge", "soup", "math", "base", "--out", "twice")[0] == 2  # other inputs: the folder is taken
    assert call(capsys, "verify", "twice")[0] == 0


def test_plan_makes_nothing_and_recipe_round_trips(at, capsys):
    words = ["merge", "swap", "--task", "math", "--language", "swahili", "--bottom", "2"]
    before = sorted(p.name for p in at.iterdir())
    code, out, _ = call(capsys, *words, "--plan", "--out", "never")
    assert code == 0 and "copied byte for byte" in out and sorted(p.name for p in at.iterdir()) == before
    code, text, _ = call(capsys, *words, "--recipe")
    assert code == 0
    (at / "again.yaml").write_text(text)
    code, out, _ = call(capsys, "plan", "again.yaml", "--json")
    assert code == 0 and json.loads(out)["problems"] == []
    code, out, _ = call(capsys, "run", "again.yaml")
    assert code == 0 and "report.html" in out
    code, _, err = call(capsys, "run", "again.yaml")
    assert code == 0 and "nothing changed" in err
    folder = next((at / "runs").iterdir())
    assert call(capsys, "verify", str(folder))[0] == 0
    assert call(capsys, "report", str(folder))[0] == 0
    code, out, _ = call(capsys, "plan", "again.yaml", "--resolved")
    assert code == 0 and "transition:" in out


def test_plan_says_every_problem_and_fails(at, capsys):
    (at / "bad.yaml").write_text("recipe: 1\nsteps:\n  - {id: a, use: merge.swap, task: math, language: swahili, bottom: 5, top: 5}\n"
                                 "  - {id: b, use: merge.swap, task: math, language: swahili, bottom: 9}\n")
    code, _, err = call(capsys, "plan", "bad.yaml")
    assert code == 2 and "bad.yaml:3" in err and "bad.yaml:4" in err


def test_json_is_json(at, capsys):
    code, out, _ = call(capsys, "inspect", "base", "--json")
    assert code == 0 and json.loads(out)["title"]
    code, out, _ = call(capsys, "merge", "soup", "--help")
    assert code == 0


def test_inspect_check(at, capsys):
    code, out, _ = call(capsys, "inspect", "base", "--check")
    assert code == 0 and "changed the logits." in out and "did not or could not" not in out


def test_ask_side_by_side(at, capsys):
    code, out, _ = call(capsys, "ask", "base", "math", "Hello", "--max-tokens", "3")
    assert code == 0 and "base" in out and "math" in out and "3 tokens" in out


def test_a_bug_is_called_a_bug(monkeypatch, capsys):
    def broken(*args, **kwargs):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(cli.root, "main", broken)
    assert cli.run(["inspect", "x"]) == 1
    assert "bug in polygraft: ZeroDivisionError" in capsys.readouterr().err


def test_interruption_exits_130(monkeypatch, capsys):
    def stopped(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.root, "main", stopped)
    assert cli.run(["run", "x"]) == 130


def test_module_entry():
    out = subprocess.run([sys.executable, "-m", "polygraft", "--version"], capture_output=True, text=True, check=True)
    assert out.stdout.startswith("polygraft ")


def test_planning_and_merging_import_no_torch(at):
    code = ("import sys; from polygraft import cli; code = cli.run(['merge','swap','--task','math','--language','swahili','--out','quiet']); "
            "print(code, [m for m in ('torch','transformers','peft','trl') if m in sys.modules])")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=at)
    assert out.stdout.strip().endswith("0 []")
    shutil.rmtree(Path(at) / "quiet")


@pytest.mark.parametrize("width, pieces", [(160, 1), (80, 2)])
def test_tables_wider_than_the_terminal_lose_no_word(width, pieces, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    words = ("language fidelity", "script fidelity", "repetition", "truncated", "refusal")
    rows = tuple(("translate-from-english", "sw", name, *(Estimate(100.0, 100.0 - i, 100.0, 9, "%") for i in range(5)))
                 for name in ("SmolLM2-135M", "other", "third", "fourth"))
    show.table(Table("Quality", ("task", "language", "model", *words), rows))
    out = capsys.readouterr().out
    assert all(w in out for w in (*words, "SmolLM2-135M", "fourth")) and "…" not in out and out.count("script fidelity") == pieces
    assert max(map(len, out.splitlines())) <= width and "100% [100, 100]" in out and out.count("Quality") == 1
