"""The rules of a decision on planted effects: a clear winner, none, a winner that loses English, missing intervals, money."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polygraft.poc import gather
from polygraft.poc.config import Prices
from polygraft.poc.costs import priced, serving_price
from polygraft.poc.decision import REASONS, STATUSES, Decision, Effect, Outcome, Reason, Serving, Spent
from polygraft.poc.judging import BITS, POINTS, Rules, adjusted, ends, gain, judged, lost, told, unsure, verdict_of
from polygraft.poc.report import as_result
from polygraft.result import Cost, Estimate, Result, Table

RULES = Rules({POINTS: 2.0, BITS: 0.02})
TODAY = Outcome("nothing", "Do nothing", "nothing", Reason("nothing"), serving=Serving(1000, 800, 0.5))


def effect(role: str, value: float, half: float | None, verdict: str = "", *, unit: str = POINTS, higher: bool = True,
           p: float | None = None, n: int = 200) -> Effect:
    low, high = (None, None) if half is None else (value - half, value + half)
    return Effect(role, "accuracy of target", "en" if role == "english" else "sw", Estimate(value, low, high, n, unit, verdict), 40.0, 40.0 + value,
                  higher, "scores: row", detectable=3.0, p=p)


def row(method: str, *effects: Effect, serving: Serving = TODAY.serving) -> Outcome:
    return Outcome(method, method.title(), "unmeasured", Reason("unmeasured"), effects, serving=serving)


def decided(*rows: Outcome, stage: str = "full"):
    effects = adjusted({r.method: r.effects for r in rows})
    out = [judged(Outcome(r.method, r.title, r.status, r.reason, effects[r.method], serving=r.serving), TODAY, RULES) for r in rows]
    verdict, best, reason = verdict_of([TODAY, *out], stage, "Swahili", {r.method: "1 min" for r in rows})
    assert reason.text
    return {r.method: r for r in out}, verdict, best, reason


def test_a_clear_winner_is_adopted():
    rows, verdict, best, reason = decided(row("swap", effect("target", 9, 4, p=1e-4), effect("english", -0.5, 1)),
                                          row("prune", effect("target", 0.5, 4, p=0.8)))
    assert (rows["swap"].status, rows["prune"].status, verdict, best) == ("gains", "even", "adopt", "swap")
    assert "+9" in reason.text and "[5" in reason.text


def test_of_two_winners_the_one_with_the_higher_lower_end():
    rows, _, best, _ = decided(row("swap", effect("target", 9, 8, p=1e-4)), row("slam", effect("target", 7, 2, p=1e-4)))
    assert {r.status for r in rows.values()} == {"gains"} and best == "slam"


def test_no_winner_is_doing_nothing_and_says_what_could_have_been_seen():
    rows, verdict, best, reason = decided(row("swap", effect("target", 1, 4, p=0.5)), row("slam", effect("target", -1, 4, p=0.5)))
    assert {r.status for r in rows.values()} == {"even"} and (verdict, best, reason.code) == ("keep", "nothing", "keep-small")
    assert "200 items" in reason.text


def test_a_winner_that_loses_english_is_not_adopted():
    rows, verdict, best, reason = decided(row("slam", effect("target", 9, 3, p=1e-5), effect("english", 0.4, 0.1, "worse", unit=BITS, higher=False)))
    assert (rows["slam"].status, verdict, best, reason.code) == ("loses", "keep", "nothing", "keep-loses")
    assert "+0.40 bits/byte" in rows["slam"].reason.text and "Slam" in reason.text


def test_a_method_that_shows_no_gain_but_a_loss_says_so():
    rows, _, _, reason = decided(row("prune", effect("target", 1, 4, p=0.5), effect("english", 0.4, 0.1, "worse", unit=BITS, higher=False)),
                                 row("slam", effect("target", 1, 4, p=0.5)))
    assert (rows["prune"].status, rows["prune"].reason.code, rows["slam"].reason.code) == ("even", "even-loses", "even")
    assert "+0.40 bits/byte" in rows["prune"].reason.text and "(en)" in rows["prune"].reason.text and reason.code == "keep-small"


def test_a_shown_loss_within_the_tolerance_does_not_count():
    rows, verdict, *_ = decided(row("slam", effect("target", 9, 3, p=1e-5), effect("english", 0.01, 0.002, "worse", unit=BITS, higher=False)))
    assert (rows["slam"].status, verdict) == ("gains", "adopt")


def test_missing_intervals_decide_nothing():
    rows, verdict, best, reason = decided(row("swap", effect("target", 30, None)), row("slam"))
    assert {r.status for r in rows.values()} == {"unmeasured"} and (verdict, best, reason.code) == ("undecided", "", "undecided-unmeasured")


def test_a_worse_method_is_said_to_be():
    rows, verdict, *_ = decided(row("prune", effect("target", -9, 3, p=1e-5)))
    assert (rows["prune"].status, verdict) == ("worse", "keep")


def test_many_methods_make_each_harder_to_believe():
    one, *_ = decided(row("swap", effect("target", 4, 4, p=0.03)))
    many, verdict, *_ = decided(*(row(m, effect("target", 4, 4, p=0.03)) for m in ("swap", "slam", "lep")))
    assert one["swap"].status == "gains" and {r.status for r in many.values()} == {"even"} and verdict == "keep"


def test_the_smoke_stage_never_decides():
    _, verdict, best, reason = decided(row("swap", effect("target", 30, 2, p=1e-9)), row("slam"), stage="smoke")
    assert (verdict, best) == ("undecided", "") and "1 of 2" in reason.text


@pytest.mark.parametrize("half, status", [(1.0, "saves"), (4.0, "even")], ids=["a loss is excluded", "a loss is not excluded"])
def test_cheaper_serving_counts_only_where_a_loss_is_excluded(half, status):
    rows, verdict, best, _ = decided(row("lep", effect("target", 0.2, half, p=0.7), serving=Serving(1100, 820, 0.3)))
    assert rows["lep"].status == status and (verdict, best) == (("adopt", "lep") if status == "saves" else ("keep", "nothing"))


def test_what_could_not_be_excluded_is_noted():
    rows, *_ = decided(row("swap", effect("target", 9, 4, p=1e-4), effect("english", -1.0, 3.0)))
    assert [n.code for n in rows["swap"].notes] == ["note-unsure"] and "[-4" in rows["swap"].notes[0].text.replace("−", "-")


@given(st.floats(-50, 50), st.floats(0.01, 40), st.booleans())
def test_gain_and_its_ends_point_the_same_way_for_either_direction(value, half, higher):
    e = effect("target", value, half, higher=higher)
    low, high = ends(e)
    assert low < gain(e) < high and abs(gain(e)) == abs(value) and (gain(e) == value) is (higher or value == 0)


@given(st.floats(-5, 5), st.floats(0.0, 5), st.sampled_from(["better", "worse", "not distinguishable"]))
def test_no_loss_is_both_shown_and_unsure(value, half, verdict):
    e = effect("english", value, half, verdict)
    assert not (lost(e, RULES) and unsure(e, RULES))
    assert lost(e, RULES) == (verdict == "worse" and -value > 2)


@pytest.mark.parametrize("value, half, words", [(3.21, 2.0, "+3.2 points [1.2, 5.2]"), (0.0, 0.0, "0 points [0, 0]"), (-12.0, None, "−12 points")])
def test_a_change_in_words(value, half, words):
    assert told(effect("target", value, half).difference) == words


# ---------------------------------------------------------------------------------------------------------------- gathering


def difference(task, language, metric, value, unit="points", **more):
    return {"task": task, "language": language, "metric": metric, "average": "", "model": "swap", "reference": "instruct", "value": value,
            "low": value - 1, "high": value + 1, "n": 50, "p": 0.01, "detectable": 2.0, "unit": unit, "verdict": "better", **more}


def test_effects_have_the_roles_that_their_rows_mean():
    rows = [difference("problems", "en", "accuracy", -1), difference("problems", "en", "nats", -1, "nats"), difference("bpb", "sw", BITS_NAME, -0.1, BITS),
            difference("bpb", "es", BITS_NAME, 0.1, BITS), difference("target", "sw", "accuracy", 5), difference("continue", "sw", "language fidelity", 2),
            difference("continue", "sw", "refusal", 1), difference("copy", "sw", "copy characters", -4), difference("continue", "sw", "repetition", 3)]
    scores = [{"task": "target", "language": "sw", "metric": "accuracy", "model": m, "value": v} for m, v in (("instruct", 40.0), ("swap", 45.0))]
    found = gather.effects({"differences": rows, "scores": scores}, "scores-swap", "target", "accuracy", "sw")
    assert [(e.role, e.language, e.higher_is_better) for e in found] == [
        ("target", "sw", True), ("target", "sw", False), ("english", "en", True), ("fidelity", "sw", True), ("refusal", "sw", False),
        ("copy", "sw", True), ("other", "es", False)]
    assert (found[0].before, found[0].after, found[0].place) == (40.0, 45.0, "scores-swap: target sw accuracy")


def test_a_loss_that_its_own_test_shows_is_one_although_the_evaluation_adjusts_it_away():
    """-50 points with an interval below 0 must not read "not distinguishable" on the page that adopts the method."""
    row = difference("problems", "en", "accuracy", -50.0, low=-75.0, high=-15.0, p=0.03125, verdict="not distinguishable")
    (found,) = gather.effects({"differences": [row]}, "scores-swap", "target", "accuracy", "sw")
    assert found.difference.verdict == "worse" and lost(found, RULES)
    assert gather.own_verdict(row | {"p": None}) == "not distinguishable" and gather.own_verdict(row | {"p": 0.2}) == "not distinguishable"


BITS_NAME = gather.BITS


def test_tokens_and_times_are_of_the_steps_that_make_a_model():
    def step(id: str, seconds: float, tokens: int = 0) -> Result:
        tables = (Table("Training", ("what", "value"), (("steps", 4), ("tokens seen", tokens))),) if tokens else ()
        return Result("x", id, "", tables=tables, cost=Cost(seconds, 100 * int(seconds)), data={"steps": 4} if tokens else {})

    results = {r.id: r for r in (step("read", 2), step("swap-language", 10, 900), step("swap", 1), step("scores-swap", 50), step("neurons", 7, 800))}
    owners = {"read": ("neurons",), "swap-language": ("swap",), "swap": ("swap",), "scores-swap": ("swap",), "neurons": ("neurons",)}
    assert gather.spent(results, gather.making(owners, "swap")) == Spent(11, 900, 4, 1000)
    assert gather.spent(results, gather.making(owners, "neurons")) == Spent(9, 800, 4, 700)


# -------------------------------------------------------------------------------------------------------------------- money


def test_money_is_the_users_own_prices_and_nothing_without_them():
    prices = Prices(currency="EUR", machine_hour=3.6, million_tokens=2.0)
    assert priced(Spent(seconds=1000), prices).money == pytest.approx(1.0)
    assert priced(Spent(seconds=1000), None).money is None
    assert priced(Spent(seconds=1000), Prices(currency="EUR", million_tokens=2.0)).money is None
    today, lep = Serving(1000, 800, 0.5), Serving(1100, 880, 0.25)
    assert serving_price(today, today, prices).money == pytest.approx(2.0 * 0.5)
    assert serving_price(lep, today, prices).money == pytest.approx(2.0 * 0.25 * 1.1)
    assert serving_price(lep, today, Prices(currency="EUR", machine_hour=1.0)).money is None


# ------------------------------------------------------------------------------------------------------------------ decision


def a_decision(currency: str = "") -> Decision:
    rows, verdict, best, reason = decided(row("swap", effect("target", 9, 4, p=1e-4), effect("english", -0.5, 1)), row("slam"))
    left = Outcome("lep", "LEP", "absent", Reason("no-instruct"))
    equal = Reason("equal", {"steps": "3", "rows": "8", "length": "64"})
    return Decision("full", "sw", "Swahili", "base", verdict, best, reason, (TODAY, *rows.values(), left), "accuracy of target (sw)", equal, 1800.0,
                    900.0, currency=currency, caveats=(Reason("caveat-chosen"),))


def test_a_decision_goes_through_json_with_its_sentences():
    d = a_decision()
    value = json.loads(json.dumps(d.to_json()))
    assert Decision.from_json(value) == d and value["reason"]["text"] == d.sentence
    assert value["outcomes"][3]["reason"]["text"] == REASONS["no-instruct"]


def test_the_result_has_the_verdict_first_and_money_only_where_it_is_priced():
    plain, priced_ = as_result(a_decision()), as_result(a_decision("EUR"))
    assert plain.summary[0] == a_decision().sentence.replace("target (sw)", "your evaluation (Swahili)")
    assert plain.tables[0].rows[1][0] == "Swap" and plain.tables[0].columns[2] == "accuracy of your evaluation (Swahili), change"
    assert not any("EUR" in c for t in plain.tables for c in t.columns)
    assert [c for t in priced_.tables for c in t.columns if "EUR" in c] == ["cost to make, EUR", "to serve a million characters, EUR"] * 2
    assert all(len(r) == len(t.columns) for r_ in (plain, priced_) for t in r_.tables for r in t.rows)


def test_every_status_that_the_rules_give_is_explained():
    assert {"gains", "loses", "saves", "even", "worse", "unmeasured"} <= set(STATUSES)
