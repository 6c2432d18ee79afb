"""Group J for the evaluation: odd numbers are defined or refused, and never reach a record or a report as NaN."""

import json
import math

import numpy as np
import pytest

from fakeengine import FakeEngine
from oracle import stats_oracle as oracle
from polygraft import stats
from polygraft.errors import UserError
from polygraft.evals import bpb, metrics, run
from polygraft.evals.bpb import Scored
from polygraft.evals.items import Item, Response
from polygraft.evals.metrics.likelihood import BITS, NATS
from polygraft.evals.responses import Store
from polygraft.evals.run import Job
from polygraft.evals.tasks import items, load
from polygraft.evals.verdicts import compare, seeds, tables
from polygraft.evals.verdicts.measures import Measure

pytestmark = pytest.mark.group("J")
ACCURACY = metrics.get("accuracy")
SAME = 0.0, 1.0  # difference and p of models that cannot be told apart


def right(*values):
    return np.array([[v, 1.0] for v in values])


def measured(metric, base, other, languages=("en",)):
    return [Measure("t", x, metric, {"base": np.asarray(base, float), "other": np.asarray(other, float)}) for x in languages]


# ------------------------------------------------------------------------------------------ scores and differences, defined

DEFINED = {
    "all right": (measured(ACCURACY, right(*[1] * 20), right(*[1] * 20)), 100.0, SAME),
    "all wrong": (measured(ACCURACY, right(*[0] * 20), right(*[0] * 20)), 0.0, SAME),
    "one item": (measured(ACCURACY, right(0), right(1)), 100.0, (100.0, 1.0)),
    "two items": (measured(NATS, [[1, 1], [2, 1]], [[0, 1], [1, 1]]), 0.5, (-1.0, 0.5)),
    "one document": (measured(BITS, [[math.log(2), 1]], [[2 * math.log(2), 1]]), 2.0, (1.0, 1.0)),
    "every item discordant": (measured(ACCURACY, right(*[0] * 12), right(*[1] * 12)), 100.0, (100.0, 2 / 2**12)),
    "ties": (measured(ACCURACY, right(*[0, 1] * 6), right(*[1, 0] * 6)), 50.0, SAME),
    "equal nats": (measured(NATS, [[3, 1]] * 9, [[3, 1]] * 9), 3.0, SAME),
    "documents without bytes among others": (measured(BITS, [[0, 0], [math.log(2), 1]], [[0, 0], [math.log(2), 1]]), 1.0, SAME),
    "items that are not defined": (measured(ACCURACY, [[0, 0], [1, 1]], [[0, 0], [0, 1]]), 0.0, (-100.0, 1.0)),
    "one language only": (measured(ACCURACY, right(1, 0), right(1, 0)), 50.0, SAME),
    "the same in all languages": (measured(ACCURACY, right(1, 0), right(1, 0), ("de", "en", "sw")), 50.0, SAME),
    "huge and tiny values": (measured(NATS, [[1e150, 1], [1e-150, 1]], [[1e150, 1], [1e-150, 1]]), 5e149, SAME),
    "values of both signs": (measured(NATS, [[-1, 1], [1, 1]] * 6, [[1, 1], [-1, 1]] * 6), 0.0, SAME),
}


@pytest.mark.parametrize("case", DEFINED, ids=str)
def test_a_defined_value(case):
    given, value, (difference, p) = DEFINED[case]
    found = compare.compared(given, "base", draws=500)
    scores = {s.language: s.estimate for s in found.scores if s.model == "other"}
    d = found.differences[0]
    assert scores["en"].value == pytest.approx(value) and scores["en"].low <= scores["en"].value <= scores["en"].high
    assert d.value == pytest.approx(difference) and d.p == pytest.approx(p, abs=2e-3) and d.holm >= d.p
    json.dumps(found.data(), allow_nan=False)
    assert "nan" not in str([tables.tables(found), tables.summary(found), tables.caveats(found)]).lower()


@pytest.mark.parametrize("case", ["all items undefined", "one model undefined"])
def test_what_nobody_could_score_has_no_number(case):
    nothing = np.zeros((4, 2))
    found = compare.compared(measured(ACCURACY, nothing if "all" in case else right(1, 0, 1, 1), nothing), "base")
    assert found.differences == () and {s.model for s in found.scores} == ({"base"} if "one" in case else set())
    assert [[r[0] for r in t.rows] for t in tables.tables(found)] == ([] if "all" in case else [["base"]])


REFUSED = {
    "no items": lambda: measured(ACCURACY, np.zeros((0, 2)), np.zeros((0, 2))),
    "no models": lambda: Measure("t", "en", ACCURACY, {}),
    "models with other items": lambda: measured(ACCURACY, right(1), right(1, 0)),
    "not a number": lambda: measured(NATS, [[float("nan"), 1]], [[1, 1]]),
    "infinite": lambda: measured(NATS, [[1, 1]], [[-float("inf"), 1]]),
    "a metric that gives no number": lambda: compare.compared(measured(
        metrics.base.Metric("bad", "", "", lambda i, r: (), lambda s: np.log(s[..., 0] * 0 - 1)), [[1, 1]] * 3, [[1, 1]] * 3), "base"),
}


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_a_value_that_is_refused(case):
    with pytest.raises(UserError) as e:
        REFUSED[case]()
    assert e.value.where == "t en: accuracy" or "t en" in str(e.value)


# --------------------------------------------------------------------------------------------------------- equal to the oracle


@pytest.mark.parametrize("k", [0, 1, 7, 8])
def test_wilson_at_its_ends_is_the_oracle(k):
    assert stats.wilson(k, 8) == pytest.approx(oracle.wilson(k, 8), abs=1e-9)


@pytest.mark.parametrize("pair", [((), ()), ((1,), (0,)), ((0, 0), (1, 1)), ((1, 1, 0), (1, 1, 0))])
def test_mcnemar_at_its_ends_is_the_oracle(pair):
    assert stats.mcnemar(*pair) == pytest.approx(oracle.mcnemar(*pair))


def test_seeds_without_any_spread():
    found = seeds.two_level((np.ones(3), np.ones((50, 3))), (np.full(3, 2.0), np.full((50, 3), 2.0)), 30)
    assert (found.value, found.low, found.high, found.se) == (1.0, 1.0, 1.0, 0.0) and found.p == 2.0**-29


# ------------------------------------------------------------------------------------------------------ every metric there is

EXTRA = {"labels": ("12", "7"), "bytes": 0.0, "preferred": (), "in_subject": 1, "in_variant": 1, "category": 0, "type": "text",
         "id_task": "1", "relevant": ()}
ODD = {
    "nothing written": Response(),
    "white space": Response(text=" \n\t", tokens=2),
    "one letter without end": Response(text="a" * 20_000, tokens=20_000, finished=False),
    "a lone surrogate": Response(text="\ud800", tokens=1),
    "no likelihood at all": Response(nats=(-1e308, -1e308), greedy=(False, False), text="x"),
    "a tie": Response(nats=(-1.0, -1.0), greedy=(False, False), text="1", tokens=1),
    "certain": Response(nats=(0.0, -1e6), greedy=(True, False), text="0", tokens=1),
}


def asked(response):
    choices = ("a", "b") if response.nats else ()
    return Item("1", "en", "What is it?", choices=choices, golds=("12",), extra=EXTRA)


@pytest.mark.parametrize("name", sorted({m.name: key for key, m in metrics.table().items()}.values()))
def test_a_metric_of_odd_answers_is_a_number(name):
    metric, seen = metrics.get(name), 0
    for words, response in ODD.items():
        try:
            columns = np.asarray(metric.score(asked(response), response), float)
        except (IndexError, KeyError):  # written answers have no likelihood, and choices no text: tasks do not mix them
            continue
        seen += 1
        with np.errstate(all="raise", under="ignore"):
            values = metric.value(np.stack([columns, columns * 0]))
        assert np.isfinite(columns).all() and np.isfinite(values).all(), (words, columns, values)
    assert seen, f"{name} scored none of the odd answers"


# ------------------------------------------------------------------------------------------------------------ whole evaluations


class Broken(FakeEngine):
    """Answers with one number that is none."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def pairs(self, pairs, done):
        done([(i, (self.number, False)) for i in range(len(pairs))])

    def documents(self, texts, window, stride):
        return [Scored(self.number, len(t), 1) for t in texts]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")], ids=str)
@pytest.mark.parametrize("kind", ["choices", "documents"])
def test_an_engine_whose_numbers_are_not_finite_leaves_nothing(tmp_path, number, kind):
    job = Job("en", documents=("text",))
    if kind == "choices":
        task = load("problems")
        job = Job("en", task, tuple(items(task, "en", limit=2)))
    with pytest.raises(UserError):
        run.run_jobs(Broken(number), [job], folder=tmp_path, model="m", store=Store(None, "m"), computed={})
    assert not list(tmp_path.rglob("*.jsonl"))


class Letters:
    """A tokenizer of single letters without BOS, and a model to which each costs one nat."""

    max_length, tokenizer = 8, None

    def __init__(self):
        self.tokenizer = self
        self.bos_token_id, self.is_fast = None, True

    def __call__(self, text, **_):
        return {"input_ids": list(range(len(text))), "offset_mapping": [(i, i + 1) for i in range(len(text))]}

    def windows(self, ids, scored):
        return [(-float(k), k) for k in scored]


@pytest.mark.parametrize(("text", "nats", "size"), [("", 0, 0), ("a", 0, 0), ("ab", 1, 1), ("a" * 40, 39, 39)],
                         ids=["empty text", "text of one token", "two tokens", "longer than the context"])
def test_documents_of_odd_lengths(text, nats, size):
    [found] = bpb.score_documents(Letters(), [text])
    assert (found.nats, found.bytes) == (nats, size)
    if size:
        assert bpb.bits_per_byte([found]) == pytest.approx(oracle.bits_per_byte([1.0] * nats, "a" * size))
    with pytest.raises(ValueError):
        bpb.bits_per_byte([Scored(0.0, 0, 0)])
