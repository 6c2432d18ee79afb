"""A matrix of estimates in the report: one colour scale around 0, the interval under the number, everything in the tooltip."""

from __future__ import annotations

import json
import math
import re

import pytest

from polygraft.report import Meta
from polygraft.report.html import render
from polygraft.report.intervals import block, reaches
from polygraft.report.palette import STEPS
from polygraft.result import Estimate, Result, Table
from reporting import Page

CELLS = ((Estimate(0.4, 0.3, 0.5, 40, "nats", "worse"), Estimate(-0.1, -0.2, 0.05, 40, "nats", "not distinguishable")),
         (None, Estimate(-0.4, -0.5, -0.3, 40, "nats", "better")))
MATRIX = Table("Effect", ("edited", "reading en", "reading <sw>"), tuple((g, *row) for g, row in zip(("en", "<sw>"), CELLS)), "", True)


def levels(text: str) -> list[int]:
    return [int(n) for n in re.findall(r'class="lm heat".*?<path class="h(\d+)"', text, re.DOTALL)]


def test_colours_run_evenly_from_below_zero_to_above():
    assert levels(render([Result("steer@1", "m", "M", tables=(MATRIX,))], Meta())) == [STEPS, STEPS // 2, 0]


@pytest.mark.parametrize("value, level", [(0.0, STEPS // 2), (2.0, STEPS), (-2.0, 0), (1.0, round(0.75 * STEPS))])
def test_a_value_has_its_place_on_the_scale(value, level):
    assert levels(block(Estimate(value), 2.0, "")) == [level]


@pytest.mark.parametrize("cell, told", [(Estimate(1.0, 0.5, 1.5), True), (Estimate(1.0, -0.5, 2.5), False), (Estimate(-1.0, -2.0, 0.0), False),
                                        (Estimate(1.0, 0.5, 1.5, verdict="not distinguishable"), False), (Estimate(1.0), True)])
def test_what_may_be_zero_has_no_colour(cell, told):
    assert (levels(block(cell, 1.0, "")) != [STEPS // 2]) is told


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_its_colours_are_not_those_of_better_and_worse(theme):
    from polygraft.report.palette import DIVERGING, EFFECTS, to_oklab

    def hue(colour):
        return math.degrees(math.atan2(*to_oklab(colour)[:0:-1]))

    for effect in (EFFECTS[theme][1], EFFECTS[theme][3]):
        for verdict in (DIVERGING[theme][1], DIVERGING[theme][3]):
            assert abs((hue(effect) - hue(verdict) + 180) % 360 - 180) > 40


def test_a_matrix_of_zeros_has_the_middle_colour():
    table = Table("t", ("a", "b"), (("x", Estimate(0.0, 0.0, 0.0, 1, "nats", "not distinguishable")),), "", True)
    assert levels(render([Result("steer@1", "m", "M", tables=(table,))])) == [STEPS // 2]


def test_units_have_scales_of_their_own():
    table = Table("t", ("a", "b", "c"), (("x", Estimate(3.0, unit="nats"), Estimate(50.0, unit="%")),), "", True)
    assert reaches(table) == {("nats", False): 3.0, ("%", False): 50.0}


def test_every_cell_says_all_of_it_and_nothing_escapes():
    page = Page(render([Result("steer@1", "m", "M", tables=(MATRIX,))]))
    said = [value for tag, name, value in page.attributes if name == "aria-label" and "reading" in value]
    assert page.wrong == [] and len(said) == 3
    assert said[0] == "en · reading en, +0.40 nats (0.30 to 0.50), worse"
    assert said[2] == "<sw> · reading <sw>, −0.40 nats (−0.50 to −0.30), better"


@pytest.mark.parametrize("heat", [True, False])
def test_it_comes_back_from_json(heat):
    result = Result("s", "i", "t", tables=(Table("t", ("a", "b"), (("x", Estimate(1.0, 0.0, 2.0)),), "n", heat),))
    assert Result.from_json(json.loads(json.dumps(result.to_json()))) == result
