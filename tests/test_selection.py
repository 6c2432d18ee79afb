"""Selection obeys the laws of sets, whatever the rows, and knows its share."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polygraft.addresses import Address
from polygraft.errors import InputError
from polygraft.selection import Selection

SHAPES = {"a": (4, 3), "b": (5,), "c": (2, 6), "d": ()}
AXIS = {"c": 1}
LENGTH = {"a": 4, "b": 5, "c": 6, "d": 1}


def naive(s: Selection) -> set[tuple[str, int]]:
    return {(k, int(i)) for k, r in s.rows.items() for i in (range(LENGTH[k]) if r is None else r)}


def some(key: str) -> st.SearchStrategy:
    return st.none() | st.lists(st.integers(0, LENGTH[key] - 1), max_size=8)


selections = st.fixed_dictionaries({}, optional={k: some(k) for k in SHAPES}).map(lambda rows: Selection(rows, AXIS))


@given(selections, selections)
def test_operations_are_those_of_sets(s, t):
    assert naive(s | t) == naive(s) | naive(t)
    assert naive(s & t) == naive(s) & naive(t)
    assert naive(s.difference(t, SHAPES)) == naive(s) - naive(t)
    everything = {(k, i) for k, n in LENGTH.items() for i in range(n)}
    assert naive(s.inverse(SHAPES)) == everything - naive(s)
    assert naive(s.normal(SHAPES)) == naive(s)


@given(selections, selections)
def test_laws(s, t):
    def n(x):
        return x.normal(SHAPES)

    assert n(s.inverse(SHAPES).inverse(SHAPES)) == n(s)
    assert n((s | t).inverse(SHAPES)) == n(s.inverse(SHAPES) & t.inverse(SHAPES))
    assert s | t == t | s and s & t == t & s and s | s == s and s & s == s
    assert abs(s.share(SHAPES) + s.inverse(SHAPES).share(SHAPES) - 1) < 1e-12
    assert (s & t).count(SHAPES) + (s | t).count(SHAPES) == s.count(SHAPES) + t.count(SHAPES)


@given(selections)
def test_json_round_trip(s):
    assert Selection.from_json(json.loads(json.dumps(s.to_json()))) == s


@given(selections)
def test_count_is_that_of_a_mask(s):
    total = 0
    for key, shape in SHAPES.items():
        mask = np.zeros(shape, dtype=bool)
        if key in s:
            rows = s.rows[key]
            np.moveaxis(np.atleast_1d(mask), AXIS.get(key, 0), 0)[... if rows is None else rows] = True
            mask = mask if mask.ndim else np.ones(())
        total += int(mask.sum())
    assert s.count(SHAPES) == total


def test_from_addresses_and_runs():
    s = Selection.of([Address("c", 1, 0, 2), Address("c", 1, 4, 5), Address("b", 0, 1, 2)])
    assert s.to_json() == {"rows": {"b": [[1, 2]], "c": [[0, 2], [4, 5]]}, "axis": {"c": 1}}
    assert s.share(SHAPES) == (1 + 3 * 2) / (12 + 5 + 12 + 1)


@pytest.mark.parametrize("rows, axis", [({"a": [4]}, {}), ({"z": None}, {}), ({"b": [0]}, {"b": 1})])
def test_what_does_not_exist_is_refused(rows, axis):
    with pytest.raises(InputError):
        Selection(rows, axis).share(SHAPES)


def test_negative_rows_two_axes_and_odd_json_are_refused():
    with pytest.raises(InputError):
        Selection({"a": [-1]})
    with pytest.raises(InputError):
        Selection({"a": [0]}) | Selection({"a": [0]}, {"a": 1})
    with pytest.raises(InputError):
        Selection.of([Address("a", 0, 0, 1), Address("a", 1, 0, 1)])
    with pytest.raises(InputError):
        Selection({"a": None}).difference(Selection({"a": [0]}))
    for odd in ({}, {"rows": 3}, {"rows": {"a": [[1]]}}, {"rows": {"a": [["x", "y"]]}}):
        with pytest.raises(InputError):
            Selection.from_json(odd)


def test_empty_is_nothing():
    assert len(Selection({"a": []})) == 0 and Selection().share({}) == 0.0 and "a" not in Selection({"a": []})
