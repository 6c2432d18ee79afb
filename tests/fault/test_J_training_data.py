"""Data that leave nothing, or too little, to learn from: a refusal or a sentence that says so, never an empty table or NaN."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from polygraft.errors import UserError
from polygraft.result import InputRef
from polygraft.tune.data.config import Mix
from polygraft.tune.data.gathering import Example, Gathered, gather
from polygraft.tune.data.leaks import Held


def rows(label: str, *texts: str) -> list[Example]:
    return [Example({"text": t}, label) for t in texts]


MANY = rows("sw", *(f"row {i} of many" for i in range(50)))
ITEM = Held("mgsm", "sw", "1", "one two three four five six seven eight nine ten")


def read(found: list[Example], held: tuple[Held, ...] = (), inputs: tuple[InputRef, ...] = (), **mix) -> Gathered:
    made = gather(found, inputs, Mix(**mix), held, 0)
    assert made.rows and all(math.isfinite(v) for t in made.tables for r in t.rows for v in r if isinstance(v, float))
    return made


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "all too short": (lambda: read(MANY, min_chars=10**6), "50 too short"),
    "all too long": (lambda: read(MANY, max_chars=3), "50 too long"),
    "all evaluation items": (lambda: read(rows("sw", ITEM.text), (ITEM,)), "1 evaluation item"),
    "one label all duplicates of another": (lambda: read([*rows("a", "x y"), *rows("b", "X  Y")], dedup="exact"), "data b"),
    "one label all held out": (lambda: read([*MANY, *rows("b", "zzz")], dev=0.999), "held out"),
    "nothing held out": (lambda: read(MANY[:3], dev=1e-6), "no example is held out"),
    "weights of zero": (lambda: read(MANY, weights={"sw": 0.0}), "all weights are 0"),
    "a weight for nothing": (lambda: read(MANY, weights={"sw": 1.0, "te": 1.0}), "a weight for data that are not there"),
    "a label without a weight": (lambda: read([*MANY, *rows("b", "z")], weights={"sw": 1.0}), "data without a weight"),
}


@pytest.mark.group("J")
@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_counts(case):
    work, words = REFUSED[case]
    with pytest.raises(UserError) as e:
        work()
    assert words in str(e.value) and len(str(e.value)) < 600


def texts_of_spaces() -> None:
    """Texts without one letter are duplicates of nothing and hold no item."""
    made = read(rows("sw", "!!!", "???", "..."), (ITEM,), dedup="near")
    assert len(made.rows) == 3


def one_row() -> None:
    assert len(read(rows("sw", "one"), dedup="near", alpha=0.3).rows) == 1


def all_rows_alike() -> None:
    assert len(read(rows("sw", *["one two"] * 1000), dedup="near").rows) == 1


def items_too_short_to_be_told() -> None:
    made = read(MANY, (Held("t", "sw", "1", "row 1"), Held("t", "sw", "2", "")))
    assert "2 of 2 evaluation items are too short" in made.caveats[-1] and len(made.rows) == 50


def a_tiny_label_repeated_many_times() -> None:
    made = read([*MANY, *rows("b", "z")], weights={"sw": 0.5, "b": 0.5}, repeat=True)
    assert len(made.rows) == 51 and abs(made.labels.count("b") - made.labels.count("sw")) == 1


def a_share_too_small_for_one_example() -> None:
    made = read([*MANY, *rows("b", "z")], weights={"sw": 1.0, "b": 1000.0})
    assert made.labels == ("b",) and "sw has no example in a mixture of 1" in made.caveats[0]


def one_label_far_larger_than_the_rest() -> None:
    assert "uneven" in read([*MANY, *rows("b", "z")]).caveats[0]


def a_file_given_twice() -> None:
    twice = (InputRef("data", "a", digest="d"), InputRef("data", "./a", digest="d"))
    assert "same examples" in read([*MANY, *MANY], inputs=twice).caveats[0]
    assert len(read([*MANY, *MANY], inputs=twice, dedup="exact").rows) == 50


def fewer_than_asked() -> None:
    made = read(MANY, examples=500)
    assert len(made.rows) == 50 and "50 examples of the 500 asked" in made.caveats[0]


@pytest.mark.group("J")
@pytest.mark.parametrize("case", [texts_of_spaces, one_row, all_rows_alike, items_too_short_to_be_told, a_tiny_label_repeated_many_times,
                                  a_share_too_small_for_one_example,                                  one_label_far_larger_than_the_rest, a_file_given_twice, fewer_than_asked], ids=lambda f: f.__name__)
def test_defined(case):
    case()
