"""Curves as matplotlib SVG that takes the page's fonts and colours, light and dark.

Only tick numbers are text inside the drawing: titles, axis names and the legend are HTML, where every script is shaped right.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from typing import Any

from polygraft.result import Curve

POINTS = 400
# Colours that matplotlib is given to draw with, and the page's variables that take their places.
INK, RULE = "#010203", "#010204"
SERIES = [f"#0102{n:02x}" for n in range(16, 24)]
VARIABLES = {INK: "var(--muted)", RULE: "var(--rule)"} | {c: f"var(--c{i})" for i, c in enumerate(SERIES)}
DASHES = ("-", "--", "-.", ":")


def thin(curve: Curve, points: int = POINTS) -> tuple[list[float], dict[str, list[float]], int]:
    """At most about `points` points a series, keeping the least and greatest of each stretch; NaN where nothing was measured.

    Returns (positions into x, values by series, stretch length).
    """
    total = len(curve.x)
    step = max(1, math.ceil(2 * total / points))
    x: list[float] = []
    series: dict[str, list[float]] = {name: [] for name in curve.series}
    for start in range(0, total, step):
        stop = min(total, start + step)
        x += [curve.x[start]] if stop - start == 1 else [curve.x[start], curve.x[stop - 1]]
        for name, values in curve.series.items():
            found = [v for v in values[start:stop] if v is not None and math.isfinite(v)]
            if stop - start == 1:
                series[name].append(found[0] if found else math.nan)
            else:
                first, last = (min(found), max(found)) if found else (math.nan, math.nan)
                rising = len(found) < 2 or found[-1] >= found[0]
                series[name] += [first, last] if rising else [last, first]
    return x, series, step


def svg(curve: Curve, prefix: str) -> str:
    """The drawing as an SVG element for an HTML page; `prefix` keeps its ids apart from other charts'. Needs matplotlib."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    x, series, _ = thin(curve)
    style: Any = {"svg.fonttype": "none", "svg.hashsalt": prefix, "font.size": 10, "axes.edgecolor": RULE, "text.color": INK,
                  "xtick.color": INK, "ytick.color": INK, "axes.unicode_minus": True, "path.simplify": True}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure = Figure(figsize=(7.2, 2.9), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=RULE, linewidth=0.7)
        axes.tick_params(length=0)
        axes.ticklabel_format(useOffset=False)
        if all(float(v).is_integer() for v in curve.x):
            axes.locator_params(axis="x", integer=True)
        for i, values in enumerate(series.values()):
            # A series that was measured at a few places only is joined over the gaps, and its points are marked.
            points = [(at, v) for at, v in zip(x, values) if not math.isnan(v)]
            marker = "o" if len(points) <= 24 else None
            axes.plot([p[0] for p in points], [p[1] for p in points], color=SERIES[i % 8], linestyle=DASHES[i // 8 % 4],
                      linewidth=1.8, marker=marker, markersize=4)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return inline(out.getvalue(), prefix)


def inline(text: str, prefix: str) -> str:
    """matplotlib's file as a piece of HTML: no prologue, no namespaces (they are URLs), own ids, the page's colours and fonts."""
    text = text[text.index("<svg"):]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', r'<svg class="chart" viewBox="\1" aria-hidden="true">', text, count=1)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'href="#', f'href="#{prefix}-', text)
    text = re.sub(r"url\(#", f"url(#{prefix}-", text)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)  # it would style the whole page
    text = re.sub(r"font-family: [^;\"]*; ", "", text)
    text = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", text)
    text = re.sub(r'\b(?:d|x|y|x1|x2|y1|y2|transform)="[^"]*"', lambda m: re.sub(r"(\d\.\d)\d+", r"\1", m.group()), text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    return re.sub(r"\n\s*", "\n", text)
