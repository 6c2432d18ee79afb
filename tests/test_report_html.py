"""The page: what it says, in what order, and that it is whole in itself."""

from __future__ import annotations

import json
import math
import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polygraft import files, report
from polygraft.errors import InputError
from polygraft.report import charts, intervals, numbers, render, views
from polygraft.report.escape import clean, columns, csv_text, cut, rtl, script_language
from polygraft.report.views import Limits, Meta
from polygraft.result import Cost, Curve, Estimate, InputRef, Result, Sample, Table
from polygraft.store import RunFolder, write_result
from reporting import Page, a_map, a_meta, a_result


def test_a_page_has_every_section_in_order_and_needs_nothing_else():
    html = render([a_result()], a_meta())
    seen = Page(html)
    ids = [v for _, k, v in seen.attributes if k == "id" and not v.endswith("-h") and not re.match(r"c\d+-|lm-|step-", v)]
    assert ids == ["question", "answer", "maps", "curves", "samples", "steps", "cost", "provenance", "caveats"]
    assert not seen.wrong and "script" not in seen.tags and "link" not in seen.tags
    assert not re.search(r"https?://|@import|url\((?!#)", html)
    assert ("meta", "content", "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'") \
        in seen.attributes


def test_ids_are_unique_with_many_charts():
    ids = [v for _, k, v in Page(render([a_result(), a_result(id="b")])).attributes if k == "id"]
    assert len(ids) == len(set(ids))


def test_same_results_same_bytes():
    assert render([a_result()], a_meta()) == render([a_result()], a_meta())


def test_verdicts_are_words_and_shapes_not_only_colours():
    text = Page(render([a_result()])).text()
    for mark, word in (("▲", "better"), ("▼", "worse"), ("○", "not distinguishable")):
        assert mark in text and word in text
    assert "+11 points" in text and "3 to 19" in text and "n = 100 items each." in text


def steps_of_an_answer():
    """Two that measured, between them one that compared, and one that concluded."""
    plain = Table("t", ("a", "b"), (("x", Estimate(1.0, 0.0, 2.0)),))
    compared = Table("t", ("a", "b"), (("x", Estimate(1.0, 0.5, 2.0, verdict="better")), ("y", Estimate(-1.0, -2.0, -0.5, verdict="worse"))))
    return [Result("m@1", "first", "Measured first", ("Early words.",), tables=(plain,)),
            Result("c@1", "compared", "Compared", ("Middle words.",), tables=(compared,)),
            Result("s@1", "concluded", "Concluded", ("Edited at every token.", "No: it does not help."), tables=(compared,)),
            Result("m@1", "last", "Measured last", ("Late words.",), tables=(plain,))]


def test_the_answer_opens_with_the_last_conclusion_and_goes_step_by_step():
    html = render(steps_of_an_answer())
    text = Page(html[html.index('id="answer"'):html.index('id="steps"')]).text()
    order = ["Concluded", "No: it does not help.", "Edited at every token.", "Compared", "Middle words.", "Measured last", "Late words.",
             "Measured first", "Early words."]
    assert [text.index(words) for words in order] == sorted(text.index(words) for words in order)


def test_each_step_counts_its_own_verdicts():
    html = render(steps_of_an_answer())
    tallies = re.findall(r'<p class="tally">(.*?)</p>', html, re.DOTALL)
    assert [re.findall(r"<b>(\d+)</b>", t) for t in tallies] == [["1", "1", "0"]] * 2


def test_steps_without_a_result_are_named():
    assert "Not finished when this report was written: swap, scores." in Page(render([], Meta(missing=("swap", "scores")))).text()


def test_no_number_is_shown_as_nan():
    table = Table("t", ("a", "b", "c"), ((math.nan, Estimate(math.nan, None, None), Estimate(1.0, math.nan, math.inf, 3)),))
    text = Page(render([a_result(tables=(table,), curves=(Curve("c", (0, 1), {"s": (math.nan, 1.0)}),))])).text()
    assert "undefined" in text and not re.search(r"\bnan\b|\binf\b", text.lower())


@pytest.mark.parametrize("interval, decimals", [
    ((3.2, 1.0, 5.4), 1), ((0.069, 0.043, 0.091), 3), ((0.0, -4e-5, 3e-5), 4), ((69.123456, 69.123455, 69.123457), 4),
    ((-1.6e-6, -2.1e-6, -1.3e-6), 6), ((1e-100, 1e-101, 2e-100), 8), ((0.25, 1e-6, 0.5), 2), ((3.0, None, None), 1)])
def test_an_interval_beside_0_is_not_printed_as_0(interval, decimals):
    assert numbers.spread(*interval) == decimals


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (0.0, "0"), (1234567, "1,234,567"), (0.5, "0.500"), (-12.345, "−12.3"),
                                             (123456.0, "123,456"), (0.00072, "7.20×10⁻⁴"), (1e9, "1.00×10⁹"), (math.nan, "undefined")])
def test_numbers(value, text):
    assert numbers.number(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.04, "0.0 s"), (9.9, "9.9 s"), (9.97, "10 s"), (59.6, "1 min"), (312, "5 min 12 s"),
                                               (7800, "2 h 10 min"), (3599.9, "1 h")])
def test_durations(seconds, text):
    assert numbers.duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_999, "1 MB"), (16_060_000_000, "16.1 GB"),
                                             (5e15, "5,000 TB")])
def test_sizes(count, text):
    assert numbers.size(count) == text


def test_an_interval_prints_two_digits_of_its_width():
    assert intervals.words(Estimate(76.04, 67.2, 83.1, 100, "%")) == ("76 %", "67 to 83")
    assert intervals.words(Estimate(1.0123, 0.992, 1.031, 9, "bpb")) == ("1.012 bpb", "0.992 to 1.031")
    assert intervals.words(Estimate(11.0, 3.0, 19.0, 9, "points", "better")) == ("+11 points", "3 to 19")


def test_estimates_of_one_kind_share_an_axis_and_percentages_get_the_whole_of_it():
    table = a_result().tables[0]
    axis = intervals.axes(table)[("%", False)]
    assert (axis.low, axis.high) == (0, 100) and axis.x(0) == intervals.EDGE and axis.x(100) == intervals.WIDTH - intervals.EDGE
    differences = intervals.axes(a_result().tables[1])[("points", True)]
    assert differences.low < -23 and differences.high > 19


@settings(deadline=None)
@given(st.floats(-1e9, 1e9), st.floats(0, 1e6), st.sampled_from(["", "better", "worse", "not distinguishable"]))
def test_a_plot_never_leaves_its_box(value, width, verdict):
    e = Estimate(value, value - width, value + width, 10, "x", verdict)
    axis = intervals.axes(Table("t", ("a",), ((e,),)))[intervals.kind(e)]
    assert all(0 <= axis.x(v) <= intervals.WIDTH for v in (value, e.low, e.high, 0.0))


def test_samples_are_picked_by_hash_whatever_their_answers_and_order():
    many = [Sample(f"item {i}", "es", "p", {"m": str(i)}) for i in range(100)]
    picked = {s.id for s in views.by_hash(many, 7)}
    altered = [Sample(s.id, s.language, "q", {"m": "better"}) for s in reversed(many)]
    assert len(picked) == 7 and picked == {s.id for s in views.by_hash(altered, 7)}


def test_long_answers_are_cut_and_say_so():
    result = a_result(samples=(Sample("a", "en", "p", {"m": "word " * 10_000}),))
    assert re.search(r"… 48,\d{3} more characters", Page(render([result])).text())


def test_an_input_used_twice_stands_once():
    assert len(views.input_views([a_result(), a_result()], 100)) == 1


def test_a_digest_taken_by_one_step_fills_the_input_of_another():
    early, late = (a_result(inputs=(InputRef("math", "a/math", "", "headers:1", digest),)) for digest in ("", "9c3e"))
    for order in ([early, late], [late, early]):
        assert [i["digest"] for i in views.input_views(order, 9)] == ["9c3e"]


def test_cost_adds_times_and_takes_the_greatest_memory():
    total = views.cost_view([a_result(), a_result()])["total"]
    assert total == {"time": "6.4 s", "memory": "1 GB", "read": "4 GB", "written": "10 B"}


def test_thin_keeps_extremes():
    curve = Curve("c", tuple(range(10_000)), {"s": tuple(50.0 if i == 7777 else -9.0 if i == 4242 else 1.0 for i in range(10_000))})
    x, series, _ = charts.thin(curve)
    assert len(x) == len(series["s"]) <= 410 and max(series["s"]) == 50 and min(series["s"]) == -9


def test_a_chart_takes_the_pages_colours_and_holds_no_url():
    drawing = charts.svg(a_result().curves[0], "c9")
    assert "var(--c0)" in drawing and "#0102" not in drawing and "http" not in drawing and "font-family" not in drawing
    assert all(i.startswith("c9-") for i in re.findall(r'id="([^"]*)"', drawing))


def test_tick_numbers_are_the_ones_that_matplotlib_wrote():
    drawing = charts.svg(Curve("c", (0, 1, 2), {"s": (1.0, None, 3.0)}), "c1")
    assert re.findall(r">([\d.]+)</text>", drawing) == ["0", "1", "2", "1.00", "1.25", "1.50", "1.75", "2.00", "2.25", "2.50", "2.75", "3.00"]


def test_csv_spreads_estimates_and_disarms_formulas():
    assert views.csv_file(Table("t", ("m", "s"), (("=cmd()", Estimate(1.5, 1.0, 2.0)), ('a,"b"', None)))) == \
        "m,s,s low,s high\n'=cmd(),1.5,1.0,2.0\n\"a,\"\"b\"\"\",,,\n"
    assert csv_text([[-1, "-1"]]) == "-1,'-1\n"


@settings(deadline=None)
@given(st.text())
def test_clean_text_is_encodable_and_clean_again(text):
    shown = clean(text)
    shown.encode()
    assert clean(shown) == shown and not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202d\u202e]", shown)


@settings(deadline=None)
@given(st.text(), st.integers(1, 40))
def test_cut_text_fits(text, width):
    assert columns(cut(text, width)) <= width or columns(text) <= width


def test_languages_are_named():
    assert [views.language_name(t) for t in ("ar", "zh-Hant", "<b>")] == ["Arabic (ar)", "Chinese (Traditional) (zh-Hant)", "<b>"]
    assert [views.language_tag(t) for t in ("ar", "zh-Hant", '"><b>')] == ["ar", "zh-Hant", ""]


def test_scripts_are_recognised():
    assert [script_language(t) for t in ("layer", "日本語の", "中文", "한국어", "हिन्दी", "العربية", "naïve")] == ["", "ja", "zh", "ko", "hi", "ar", ""]
    assert rtl("1. العربية") and not rtl("12 abc العربية") and not rtl("")


# ---------------------------------------------------------------------------------------------------------- run folders


def make_run(path, results, extra=()):
    """A run folder as the store leaves it."""
    run = RunFolder(path)
    recipe = "recipe: 1\nname: demo\nquestion: Does Spanish gain?\nsteps: []\n"
    run.begin(recipe, recipe, [(r.id, r.step, run.step(r.id, "ab" * 32)) for r in (*results, *extra)])
    for result in results:
        with files.commit(run.step(result.id, "ab" * 32), {"versions": {"numpy": "2.4"}}) as folder:
            write_result(folder, result)
    return path


def test_write_reports_a_run_in_recipe_order(tmp_path):
    later = Result("merge.swap@1", "aaa", "The second step")
    path = report.write(make_run(tmp_path / "run", [a_result(), later], extra=[Result("x@1", "unfinished", "")]))
    seen = Page(path.read_text(encoding="utf-8"))
    text = seen.text()
    assert path.name == "report.html" and ("h1", "Does Spanish gain?") in seen.texts
    assert text.index("Scores") < text.index("The second step") and "Not finished when this report was written: unfinished." in text
    assert "steps/scores-abababababab" in text and "2.4" in text and "question: Does Spanish gain?" in text
    first = path.read_bytes()
    assert report.write(tmp_path / "run").read_bytes() == first


def test_write_puts_long_tables_beside(tmp_path):
    table = Table("long", ("i",), tuple((i,) for i in range(1000)))
    report.write(make_run(tmp_path / "run", [Result("x@1", "long", "t", tables=(table,))]))
    assert len((tmp_path / "run" / "report-tables" / "long-1.csv").read_text().splitlines()) == 1001


def test_csv_names_are_plain():
    assert views.csv_name(Result("x", "../../etc/passwd", ""), 0) == "etc-passwd-1.csv"


def test_write_refuses_what_is_not_a_run(tmp_path):
    with pytest.raises(InputError, match="not a run folder"):
        report.write(tmp_path)


def test_write_names_a_broken_result(tmp_path):
    path = make_run(tmp_path / "run", [a_result()])
    folder = next((path / "steps").iterdir())
    (folder / "result.json").write_text(json.dumps({"nonsense": 1}))
    with pytest.raises(InputError, match="not the result of a step"):
        report.write(path)


def test_limits_only_ever_tighten():
    ladder = report.html.LADDER
    for loose, tight in pairwise(ladder):
        assert all(getattr(tight, f) <= getattr(loose, f) for f in Limits.__dataclass_fields__)


def test_the_hugest_run_is_still_one_small_page():
    text = "x" * 100_000
    many = [Result("eval@1", f"s{i}", text, (text,) * 20, tuple(a_map(200, tuple(map(str, range(20)))) for _ in range(3)),
                   (Table(text, ("a",) * 12, ((text,) * 12,) * 80),), (), tuple(Sample(f"{i}", "en", text, {"m": text}) for i in range(30)),
                   Cost(1.0), (), (text + str(i),)) for i in range(15)]
    assert len(render(many, Meta(recipe=text, question=text)).encode()) < report.html.MAX_BYTES


def test_a_layer_map_stands_in_the_page_with_its_step():
    text = Page(render([a_result(maps=(a_map(text="Where it changed", note="in float32"),))])).text()
    assert "Where it changed" in text and "in float32" in text


def test_the_same_name_with_another_content_is_seen():
    pair = [a_result(inputs=(InputRef("math", "a/math", "", "headers:1", digest),)) for digest in ("9c3e", "", "77aa")]
    assert [i["digest"] for i in views.input_views(pair, 9)] == ["9c3e", "77aa"]
