"""The blind comparison: nothing shows whose answer is whose, and what comes back is what was chosen, or is refused."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polygraft import cli
from polygraft.errors import InputError
from polygraft.evals.governance import preferred, sheet
from polygraft.evals.governance.sheet import Pair
from sheets import NAMES, PAIRS, filled, prefers, rows


def test_the_sheet_is_blind_drawn_and_repeatable():
    text, key = sheet.make(PAIRS, NAMES, 3)
    assert not any(name in text for name in NAMES) and (text, key) == sheet.make(PAIRS, NAMES, 3) != sheet.make(PAIRS, NAMES, 4)
    assert 15 < Counter(r["left"] for r in key["rows"])["a"] < 45
    assert [r["language"] for r in key["rows"]] != sorted(r["language"] for r in key["rows"])
    for shown, kept in zip(rows(text)[1:], key["rows"]):
        assert ("answer" in shown[4]) == (kept["left"] == "a") and shown[6] == ""


@pytest.mark.parametrize(("delimiter", "encoding"), [(",", "utf-8-sig"), (";", "utf-8"), ("\t", "utf-8-sig")])
def test_choices_come_back_whatever_the_spreadsheet_saves(delimiter, encoding):
    text, key = sheet.make(PAIRS, NAMES, 0)
    judged = sheet.read(filled(text, prefers("jibu"), delimiter, encoding), json.loads(json.dumps(key)), "s.csv")
    assert len(judged) == 60 and {j.preferred for j in judged} == {"b"}
    assert {(j.language, j.id) for j in judged} == {(p.language, p.id) for p in PAIRS}


def test_counts_intervals_and_exact_tests():
    text, key = sheet.make([*PAIRS, Pair("open@1", "sw", "same", "?", "alike ", "alike")], NAMES, 0)
    judged = sheet.read(filled(text, lambda r: prefers("jibu")(r) if r[1] == "sw" else "Tie"), key, "s.csv")
    de, sw, everything = preferred.counts(judged)
    assert (de.a, de.b, de.ties, de.p) == (0, 0, 30, 1.0) and (sw.a, sw.b, sw.ties) == (0, 30, 1)
    assert sw.p == pytest.approx(2 / 2**30) and sw.holm == pytest.approx(4 / 2**30) and everything.language == "all"
    result = preferred.result(judged, NAMES)
    assert "expert-sw was preferred to base-7b: 30 to 0, 31 ties" in result.summary[0]
    assert result.tables[0].rows[0][4].n == 0 and result.tables[0].rows[1][4].low > 85
    json.dumps(result.to_json(), allow_nan=False)


def test_a_coin_prefers_nobody():
    import random

    text, key = sheet.make(PAIRS, NAMES, 0)
    rng = random.Random(5)
    judged = sheet.read(filled(text, lambda r: rng.choice(["l", "R"])), key, "s.csv")
    assert "Neither" in preferred.result(judged, NAMES).summary[0]


@pytest.mark.parametrize(("wins", "losses", "p"), [(0, 0, 1), (1, 0, 1), (5, 0, 1 / 16), (0, 5, 1 / 16), (8, 2, 112 / 1024), (5, 5, 1)])
def test_sign_test(wins, losses, p):
    assert preferred.sign_test(wins, losses) == pytest.approx(p)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40)), min_size=1, max_size=4), st.integers(0, 5))
def test_any_text_goes_to_the_sheet_and_back(texts, seed):
    pairs = [Pair("t@1", "en", str(i), q, a, b) for i, (q, a, b) in enumerate(texts)]
    if all(p.same for p in pairs):
        with pytest.raises(InputError):
            sheet.make(pairs, NAMES, seed)
        return
    text, key = sheet.make(pairs, NAMES, seed)
    judged = sheet.read(filled(text, lambda r: "left"), key, "s.csv")
    side = {r["id"]: r["left"] for r in key["rows"]}
    assert {j.id: j.preferred for j in judged} == {p.id: side.get(p.id, "tie") for p in pairs}


# ---------------------------------------------------------------------------------------------------------- command line


@pytest.fixture
def evaluation(tmp_path):
    """Folders as `polygraft eval --out` leaves them, with written answers of given models."""
    from polygraft import files
    from polygraft.result import Result

    def make(name, answers):
        folder = tmp_path / name
        with files.commit(folder, {"kind": "step"}) as partial:
            (partial / "samples").mkdir()
            index = []
            for model, texts in answers.items():
                records = [{"id": str(i), "language": "sw", "prompt": f"Swali {i}?", "prompt_sha256_16": f"{i:016d}", "shots": 0, "gold": "",
                            "output": t, "scores": {}} for i, t in enumerate(texts)]
                (partial / "samples" / f"open-prompts.sw.{model}.jsonl").write_text("\n".join(json.dumps(r) for r in records), encoding="utf-8")
                index.append({"file": f"samples/open-prompts.sw.{model}.jsonl", "task": "open-prompts@1", "language": "sw", "model": model})
            result = Result("eval@1", "", "t", data={"records": index})
            files.write_json(partial / "result.json", result.to_json())
        return folder

    return make


def test_write_and_read_on_the_command_line(evaluation, tmp_path, capsys):
    one = evaluation("one", {"base": ["a", "b", "c"], "other": ["x", "x", "x"]})
    two = evaluation("two", {"expert": ["jibu", "jibu", "c"]})
    out = tmp_path / "new" / "sheet.csv"
    assert cli.run(["ab", "write", f"{one}#base", str(two), "--out", str(out)]) == 0
    assert "2 questions" in capsys.readouterr().out
    assert cli.run(["ab", "write", f"{one}#base", str(two), "--out", str(out)]) == 2  # it may hold choices
    assert "it may hold choices" in capsys.readouterr().err
    assert cli.run(["ab", "read", str(out)]) == 3
    assert "2 of 2 rows have no choice" in capsys.readouterr().err
    out.write_bytes(filled(out.read_text("utf-8-sig"), prefers("jibu")))
    assert cli.run(["ab", "read", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["data"]["counts"] == [{"language": "sw", "a": 0, "b": 2, "ties": 1, "p": 0.5, "holm": 0.5}]
    assert cli.run(["ab", "read", str(out)]) == 0 and "expert" in capsys.readouterr().out


def test_refusals_on_the_command_line(evaluation, tmp_path, capsys):
    one, two = evaluation("one", {"base": ["a"], "other": ["x"]}), evaluation("two", {"expert": ["a"]})
    out = str(tmp_path / "s.csv")
    for arguments, code, said in (
            ([str(one), str(two)], 3, "several models"), ([f"{one}#base", str(two)], 3, "wrote the same everywhere"),
            ([f"{one}#base", str(tmp_path)], 3, "not a finished evaluation"), ([f"{one}#other", str(two), "--task", "mgsm"], 2, "open-prompts")):
        assert cli.run(["ab", "write", *arguments, "--out", out]) == code
        assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("s.*"))
    assert cli.run(["ab", "read", out]) == 3 and "the sheet is not here" in capsys.readouterr().err
