"""The layer map: where values land, what is drawn, what a terminal and a screen reader get."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polygraft.report import layermap, palette
from polygraft.report.layermap import Frame, Scale, short_value, svg, text
from polygraft.result import LayerMap
from reporting import ROWS, a_map

SVG = "{http://www.w3.org/2000/svg}"
numbers = st.one_of(st.none(), st.floats(-1e6, 1e6), st.sampled_from([0.0, 1.0, math.nan, math.inf]))


@st.composite
def maps(draw):
    rows, layers = draw(st.integers(0, 5)), draw(st.integers(1, 40))
    values = tuple(tuple(draw(numbers) for _ in range(layers)) for _ in range(rows))
    return LayerMap("A map", tuple(f"part {i}" for i in range(rows)), layers, values, draw(st.dictionaries(st.sampled_from(
        ["embed", "position", "final_norm", "head"]), numbers)), "unit", draw(st.sampled_from(["sequential", "diverging", "categorical"])))


@settings(deadline=None)
@given(maps())
def test_any_map_is_a_well_formed_file_with_every_cell(m):
    root = ET.fromstring(svg(m))
    titles = [t.text or "" for t in root.iter(f"{SVG}title")]
    for name in m.rows:
        assert sum(t.startswith(f"{name} · layer ") for t in titles) == m.layers
    assert "nan" not in svg(m).lower().replace("not a number", "") and "inf" not in "".join(titles)
    assert text(m).count("\n") >= len(m.rows) + 2


@settings(deadline=None)
@given(maps(), st.floats(-1e7, 1e7))
def test_levels_stay_on_the_scale(m, value):
    scale = Scale.of(m)
    if scale.kind != "categorical":
        assert 0 <= scale.level(value) <= palette.STEPS
        assert scale.level(scale.low) == 0 and scale.level(scale.high) == palette.STEPS


def test_a_planted_value_is_the_darkest_cell_where_it_was_planted():
    values = tuple(tuple(1.0 if (r, layer) == (2, 7) else 0.01 for layer in range(12)) for r in range(5))
    root = ET.fromstring(svg(a_map(values=values, outside={})))
    deep = [p for p in root.iter(f"{SVG}path") if p.get("class") == "q20" and len(p)]
    assert [p[0].text for p in deep] == ["attn.o · layer 7: 1.00 mean |Δ|"]
    drawn = text(a_map(values=values, outside={})).splitlines()
    assert [line for line in drawn[2:7] if "█" in line] == [drawn[4]] and drawn[4].index("█") == drawn[1].index("5") + 4


def test_maps_in_one_frame_share_their_x_axis():
    first, second = a_map(outside={}), a_map(rows=("a much longer label", "b"), outside={"embed": 1.0, "position": 2.0, "head": None})
    frame = Frame.of([first, second])
    xs = [[float(re.match(r"M([\d.]+)", p.get("d"))[1]) for p in ET.fromstring(svg(m, frame)).iter("path")
           if len(p) and " layer " in (p[0].text or "")][:12] for m in (first, second)]
    assert xs[0] == xs[1] == sorted(xs[0])


def test_what_lies_outside_stands_at_its_own_place_whichever_map_has_it():
    first, second = a_map(outside={"head": 1.0, "final_norm": 0.5, "embed": 2.0}), a_map(outside={"head": 1.0})
    frame = Frame.of([first, second])
    assert (frame.left, frame.right) == (("embed",), ("final_norm", "head"))
    places = [re.search(r'd="M([\d.]+)[^>]*><title>head: ', svg(m, frame))[1] for m in (first, second)]
    assert places[0] == places[1]


def test_joined_cells_keep_the_range_of_what_they_cover():
    m = a_map(layers=200, values=tuple((0.5,) * 100 + (0.52,) * 100 for _ in ROWS), outside={}, low=0.0, high=1.0)
    assert svg(m, Frame.of([m]), detail=0).count(" layer ") == 5
    assert "attn.q · layer 0–199: 0.500 to 0.520 mean |Δ|" in svg(m, Frame.of([m]), detail=0)


def test_a_diverging_scale_has_zero_in_the_middle():
    m = a_map(values=tuple(tuple(-0.1 if layer else 0.4 for layer in range(12)) for _ in ROWS), scale="diverging", outside={})
    scale = Scale.of(m)
    assert (scale.low, scale.high, scale.css_class(0.0)) == (-0.4, 0.4, "d10")
    assert "▲" in text(m) and "▽" in text(m)


def test_categories_are_named_and_lettered():
    m = a_map(scale="categorical", values=tuple(tuple(float(layer > 5) for layer in range(12)) for _ in ROWS), outside={},
              labels={"0": "language expert", "1": "task expert"})
    assert "A language expert   B task expert" in text(m) and "AAAAAABBBBBB" in text(m).replace(" ", "")
    assert "attn.q · layer 3: language expert" in svg(m)


def test_absent_cells_are_hatched_and_said():
    m = a_map(values=tuple((None,) * 12 for _ in ROWS))
    assert svg(m).count('class="na"') == 5 * 12 + 1 + 1 and "not present" in svg(m) and "╱ not present" in text(m)


def test_a_wide_terminal_gives_each_layer_two_columns_and_a_narrow_one_wraps():
    assert max(map(len, text(a_map(30), width=100).splitlines()[1:7])) <= 100
    wrapped = text(a_map(120), width=60).splitlines()
    assert sum(line.startswith("attn.q") for line in wrapped) == 3 and max(map(len, wrapped)) <= 62


@pytest.mark.parametrize(("value", "shown"), [(0, "0"), (0.5, ".5"), (1, "1"), (-0.3, "−.3"), (0.999, "1"), (12.2, "12"), (0.001, "0"),
                                              (-0.001, "0"), (9.96, "10"), (100, "100")])
def test_cell_numbers_are_short(value, shown):
    assert short_value(value, 1.0) == shown


@settings(deadline=None)
@given(st.floats(1e-30, 1e30), st.booleans())
def test_the_greatest_cell_number_fits_its_cell(value, negative):
    m = a_map(rows=("a",), values=((-value if negative else value,) * 12,), outside={})
    assert len(short_value(value, Scale.of(m).factor)) <= 4


def test_right_to_left_labels_keep_their_side():
    word = layermap.word(100, 10, "الطبقة", anchor="end")
    assert 'direction="rtl"' in word and "text-anchor" not in word and 'lang="ar"' in word
    assert 'text-anchor="end"' in layermap.word(100, 10, "layer", anchor="end")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_numbers_are_legible_on_every_colour(theme):
    for name, colour in palette.colours(theme).items():
        assert palette.contrast(palette.ink(colour), colour) >= 4.5, (name, colour)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_lightness_alone_orders_the_sequential_scale(theme):
    lights = [palette.to_oklab(palette.colours(theme)[f"q{i}"])[0] for i in range(palette.STEPS + 1)]
    assert lights == sorted(lights, reverse=theme == "light")
    assert min(abs(a - b) for a, b in pairwise(lights)) > 0.012


def test_oklab_goes_there_and_back():
    for colour in ("#000000", "#ffffff", "#ff0000", "#1b2f6b", "#e9f2bd"):
        assert palette.from_oklab(palette.to_oklab(colour)) == colour


@pytest.mark.parametrize(("layers", "unit"), [(4, "|Wx - W'x|^2 / |Wx|^2"), (4, ""), (24, "|Wx - W'x|^2 / |Wx|^2")])
def test_what_the_numbers_in_cells_are_multiplied_by_stands_within_the_picture(layers, unit):
    m = LayerMap("map", ("attn.q",), layers, ((0.0306,) * layers,), unit=unit)
    drawn = svg(m)
    width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawn).groups())
    at, y = map(float, re.search(r'<text x="([\d.]+)" y="([\d.]+)"[^>]*>numbers in cells', drawn).groups())
    assert at + 24 * 6.1 <= width
    top = float(re.findall(r'<g transform="translate\(0 ([\d.]+)\)">', drawn)[-1])
    assert top + y <= height
