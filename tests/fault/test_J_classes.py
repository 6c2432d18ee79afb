"""Group J, numbers: metrics of classes and answers where nothing, one thing only, or the same everywhere is to be seen."""

import math

import numpy as np
import pytest

from polygraft.evals import metrics
from polygraft.evals.items import Item, Response

LOW = -math.inf
NAMES = ("mcc", "macro_f1", "mean of acc and mcc", "mean of acc and macro_f1", "acc_norm", "acc_bytes")
CASES = {  # (right, nats) of each item -> expected values in the order of NAMES
    "no items": ([], (0, 0, 0, 0, 0, 0)),
    "one class is right, and given": ([(0, (-1, -2))] * 3, (0, 1, 0.5, 1, 1, 1)),
    "one class is right, the other given": ([(0, (-2, -1))] * 3, (0, 0, 0, 0, 0, 0)),
    "one class given, both right": ([(0, (-1, -2)), (1, (-1, -2))], (0, 1 / 3, 0.25, 5 / 12, 0.5, 0.5)),
    "always the wrong way round": ([(0, (-2, -1)), (1, (-1, -2))], (-1, 0, -0.5, 0, 0, 0)),
    "ties everywhere": ([(0, (-1, -1)), (1, (-1, -1))], (-1, 0, -0.5, 0, 0, 0)),
    "all impossible": ([(0, (LOW, LOW)), (1, (LOW, LOW))], (-1, 0, -0.5, 0, 0, 0)),
    "the right one certain": ([(0, (0.0, LOW)), (1, (LOW, 0.0))], (1, 1, 1, 1, 1, 1)),
}


@pytest.mark.group("J")
@pytest.mark.parametrize("case", CASES)
def test_values_are_defined(case):
    answered, expected = CASES[case]
    for name, value in zip(NAMES, expected):
        metric = metrics.get(name)
        columns = [metric.score(Item("1", "en", "?", choices=("x", "y"), target=right), Response(nats=nats)) for right, nats in answered]
        sums = np.sum(columns, 0) if columns else np.zeros(2 if metric.binary else 6)
        assert float(metric.value(np.asarray(sums, float))) == pytest.approx(value), name
