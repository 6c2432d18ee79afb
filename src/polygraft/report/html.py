"""The page: one HTML file that needs no network, no script and no other file, under 1 MB whatever it is given."""

from __future__ import annotations

from functools import cache
from typing import Any

from polygraft import __version__
from polygraft.report import layermap, palette, views
from polygraft.report.escape import clean, one_line
from polygraft.report.numbers import when
from polygraft.report.strings import spoken_language, strings
from polygraft.report.views import Limits, Meta
from polygraft.result import Result

MAX_BYTES = 1_000_000
# Tried in order until the page is small enough: what many cells and long texts cost goes first.
LADDER = (Limits(), Limits(detail=1), Limits(chars=1000, detail=0), Limits(rows=60, samples=10, chars=500, detail=0),
          Limits(rows=20, samples=4, chars=240, maps=30, detail=0, tables=10, recipe=10_000),
          Limits(rows=6, samples=2, chars=120, maps=10, detail=0, tables=2, recipe=4_000),
          Limits(rows=3, samples=1, chars=60, maps=3, detail=0, tables=1, recipe=1_000))
MANY_CELLS = (6_000, 11_000)  # layer-map cells beyond which a number, or a tooltip, for each is certain to be too much


@cache
def _environment() -> Any:
    from jinja2 import PackageLoader, StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    loader = PackageLoader("polygraft.report", "template")
    return ImmutableSandboxedEnvironment(loader=loader, autoescape=True, undefined=StrictUndefined,
                                         trim_blocks=True, lstrip_blocks=True)


def render(results: list[Result], meta: Meta | None = None) -> str:
    """Results, in the order of the recipe, as one self-contained HTML page of less than 1 MB (UTF-8)."""
    return page(results, meta or Meta())[0]


def page(results: list[Result], meta: Meta) -> tuple[str, dict[str, str]]:
    """The page, and the tables that are too long for it: {name of a CSV file: its text}."""
    cells = sum(m.layers * len(m.rows) for r in results for m in r.maps)
    for limits in LADDER[sum(cells > many for many in MANY_CELLS):]:
        text = _render(results, meta, limits)
        if len(text.encode()) < MAX_BYTES:
            break
    long = {views.csv_name(r, i): views.csv_file(t) for r in results for i, t in enumerate(r.tables)
            if len(t.rows) > limits.rows} if meta.csv_folder else {}
    return text, long


def _render(results: list[Result], meta: Meta, limits: Limits) -> str:
    return filled("report.html", **content(results, meta, limits))


def filled(template: str, **content: Any) -> str:
    """A page of `template/` with what it prints, in the report's style; whatever is not Markup is escaped."""
    from markupsafe import Markup

    return _environment().get_template(template).render(**{"safe": Markup, "css": _css(), **content})


def content(results: list[Result], meta: Meta, limits: Limits) -> dict[str, Any]:
    """Everything that the template prints."""
    t = strings(meta.language)
    steps = [views.step_view(r, meta, limits, t) for r in results]
    groups, more_maps = views.map_groups(results, limits, t)
    samples = [(r, views.by_hash(r.samples, limits.samples)) for r in results if r.samples]
    curves = [(r, c) for r in results for c in r.curves][:limits.maps]
    inputs = views.input_views(results, limits.rows)
    return {
        "t": t, "language": spoken_language(meta.language), "name": one_line(meta.name, 120), "question": clean(meta.question),
        "steps": steps, "answers": [steps[i] for i in views.in_answer(results)],
        "missing": ", ".join(one_line(m, 80) for m in meta.missing), "groups": groups, "more_maps": more_maps,
        "curves": [{**views.curve_view(c, f"c{i}", t), "step": one_line(r.id, 60)} for i, (r, c) in enumerate(curves)],
        "samples": [{"total": len(r.samples), "shown": [views.sample_view(s, limits.chars, t) for s in kept]}
                    for r, kept in samples],
        "cost": views.cost_view(results, t), "inputs": inputs, "caveats": views.caveat_views(results, limits.chars),
        "recipe": views.shorten(meta.recipe, limits.recipe, t["text_more"]),
        "versions": {one_line(k, 40): one_line(v, 60) for k, v in ({"polygraft": __version__} | meta.versions).items()},
        "started": when(one_line(meta.started, 40), t), "finished": when(one_line(meta.finished, 40), t),
        "hatch": layermap.HATCH, "map_css": palette.css(),
    }


@cache
def _css() -> str:
    return _environment().loader.get_source(_environment(), "report.css")[0]
