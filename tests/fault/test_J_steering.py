"""Group J for steering: odd effects are defined or refused, and none becomes NaN in a table, a sentence or a result."""

import json
import math

import numpy as np
import pytest

from polygraft.analysis.steering import matrix, verdict
from polygraft.analysis.steering.effects import Observed, Ratio, effects
from polygraft.errors import UserError
from polygraft.result import Estimate, Result

pytestmark = pytest.mark.group("J")


class Spent:
    def __init__(self, nats, tokens, size):
        self.nats, self.tokens, self.bytes = nats, tokens, size


def score(*nats, sizes=None, unit="nats/token"):
    return Ratio(np.array(nats, float), np.array(sizes or [1] * len(nats), float), unit)


def runs(plain, edited, controls=()):
    """Languages aa, bb, ... whose scores are given, edited by rows of the same names."""
    return Observed(plain, dict.fromkeys(plain, edited), {row: list(controls) for row in plain})


PLAIN = {"aa": score(1, 2, 3), "bb": score(2, 2, 4)}
WORSE = {"aa": score(2, 3, 4), "bb": score(3, 3, 5)}
EMPTY = {"aa": score(0, 2, sizes=[0, 4]), "bb": score(1, 1)}
HUGE = {"aa": score(1e150, 1e-150), "bb": score(1, 1)}

DEFINED = {
    "no effect at all": (runs(PLAIN, PLAIN, [PLAIN] * 3), 0.0),
    "every cell alike": (runs(PLAIN, WORSE, [PLAIN] * 3), 1.0),
    "controls that equal the edit": (runs(PLAIN, WORSE, [WORSE] * 3), 1.0),
    "one control": (runs(PLAIN, WORSE, [PLAIN]), 1.0),
    "no control": (runs(PLAIN, WORSE), 1.0),
    "one language only": (runs({"aa": PLAIN["aa"]}, {"aa": WORSE["aa"]}, [{"aa": PLAIN["aa"]}] * 3), 1.0),
    "languages with other numbers of documents": (
        runs(PLAIN | {"bb": score(1, 1)}, WORSE | {"bb": score(2, 2)}, [PLAIN | {"bb": score(1, 1)}] * 3), 1.0),
    "a document without tokens": (runs(EMPTY, EMPTY, [EMPTY] * 3), 0.0),
    "one document": (runs({"aa": score(1)}, {"aa": score(3)}, [{"aa": score(1)}] * 3), 2.0),
    "huge and tiny nats": (runs(HUGE, HUGE, [HUGE] * 3), 0.0),
    "an edit that helps": (runs(WORSE, PLAIN, [WORSE] * 3), -1.0),
    "edits of languages that are not read": (Observed(PLAIN, {"zz": WORSE}, {"zz": [PLAIN] * 3}), 1.0),
}


@pytest.mark.parametrize("case", DEFINED, ids=str)
def test_a_defined_effect(case):
    observed, expected = DEFINED[case]
    e, d = matrix.of(observed, draws=200)
    assert e.own.value[0, 0] == pytest.approx(expected)
    tables = matrix.tables(e)
    said, found = [matrix.sentence(d)], {"matrix": matrix.data(e, d)}
    if min(e.controls) >= 3:
        v = verdict.judge(e, e.columns[0], dict.fromkeys(e.rows, "neurons"))
        tables, said = (*tables, *verdict.tables(v, e)), [*said, v.sentence]
        found["verdict"] = verdict.data(v)
    text = json.dumps(Result("steer", "", "", tuple(said), tables=tables, data=found).to_json(), allow_nan=False)
    assert "nan" not in text.lower()
    for cell in (c for t in tables for row in t.rows for c in row if isinstance(c, Estimate)):
        assert cell.low <= cell.value <= cell.high and math.isfinite(cell.value)


def read(*spent):
    return matrix.Reader({"aa": ["x"] * len(spent)}, lambda _live, _texts: list(spent))(None)


REFUSED = {
    "nats that are NaN": (lambda: read(Spent(1.0, 2, 2), Spent(math.nan, 2, 2)), "not a number"),
    "infinite nats": (lambda: read(Spent(math.inf, 2, 2), Spent(1.0, 2, 2)), "not a number"),
    "only empty documents": (lambda: read(Spent(0.0, 0, 0), Spent(0.0, 0, 0)), "nothing was measured"),
    "no documents": (lambda: read(), "too few documents"),
    "one document in a reading": (lambda: read(Spent(1.0, 1, 1)), "too few documents"),
    "nats without sizes": (lambda: Ratio(np.ones(3), np.ones(2)), "one size per item"),
    "an edited run of other documents": (lambda: runs(PLAIN, {"aa": score(1), "bb": score(1)}), "other items"),
    "an edited run without a language": (lambda: runs(PLAIN, {"aa": WORSE["aa"]}), "other columns"),
    "a control of other languages": (lambda: runs(PLAIN, WORSE, [{"aa": PLAIN["aa"], "cc": PLAIN["bb"]}]), "other columns"),
    "a verdict without controls": (
        lambda: verdict.judge(effects(runs(PLAIN, WORSE), draws=50), "aa", dict.fromkeys(PLAIN, "neurons")), "random controls"),
    "a verdict on two controls": (
        lambda: verdict.judge(effects(runs(PLAIN, WORSE, [PLAIN] * 2), draws=50), "aa", dict.fromkeys(PLAIN, "neurons")),
        "random controls"),
    "a verdict without a way of neurons": (
        lambda: verdict.judge(effects(runs(PLAIN, WORSE), draws=50), "aa", dict.fromkeys(PLAIN, "comparator")), "editing neurons"),
    "a verdict on what was not measured": (
        lambda: verdict.judge(effects(runs(PLAIN, WORSE), draws=50), "sw", dict.fromkeys(PLAIN, "neurons")), "not measured"),
    "no edit at all": (lambda: effects(Observed(PLAIN, {})), "nothing was edited"),
}


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_refused(case):
    act, said = REFUSED[case]
    with pytest.raises(UserError, match=said):
        act()
