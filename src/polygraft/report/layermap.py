"""The picture that every method shares: layers across, parts down, what lies outside the layers at either side.

`svg(map)` is a drawing for a page or, without a frame, a file of its own; `text(map)` is the same for a terminal.
Both are pure functions of a LayerMap and import nothing heavy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape

from polygraft.report import palette
from polygraft.report.escape import columns, cut, one_line, rtl, script_language
from polygraft.report.numbers import number, superscript
from polygraft.report.strings import EN, Strings, named
from polygraft.result import LayerMap

LEFT, RIGHT = ("embed", "position"), ("final_norm", "head")  # before the first layer and after the last; others after these
ROW, GAP, SIDE, LABEL_PX = 20, 8, 42, 6.1
INNER = 900  # width that the layers share, in SVG units
FACTOR_PX = 170  # width of what says by how much the numbers in cells are multiplied


# ----------------------------------------------------------------------------------------------------------------- scale


@dataclass(frozen=True)
class Scale:
    """Where a map's values lie: `low`..`high` of a colour scale, or the keys of categories; cells print value times `factor`."""

    kind: str
    low: float = 0.0
    high: float = 1.0
    keys: tuple[str, ...] = ()
    factor: float = 1.0

    @classmethod
    def of(cls, m: LayerMap) -> Scale:
        """Given bounds win; else a sequential scale starts at 0 unless something is below, a diverging one is even around 0."""
        seen = sorted(v for v in all_values(m) if v is not None and math.isfinite(v))
        if m.scale == "categorical":
            return cls(m.scale, keys=tuple(dict.fromkeys([*map(str, m.labels), *(f"{v:g}" for v in seen)])))
        least, most = (seen[0], seen[-1]) if seen else (0.0, 1.0)
        reach = max(abs(least), abs(most))
        low = m.low if m.low is not None else -reach if m.scale == "diverging" else min(0.0, least)
        high = m.high if m.high is not None else reach if m.scale == "diverging" else most
        return cls(m.scale, low, high if high > low else low + 1.0, factor=cell_factor(reach))

    def level(self, value: float) -> int:
        """The colour step 0..20 of a value (clipped to the bounds), or the number of its category."""
        if self.kind == "categorical":
            return self.keys.index(f"{value:g}")
        return round(min(1.0, max(0.0, (value - self.low) / (self.high - self.low))) * palette.STEPS)

    def css_class(self, value: float | None) -> str:
        """The class that colours a value; what is absent, or not a number, is hatched."""
        if value is None or not math.isfinite(value):
            return "na"
        if self.kind == "categorical":
            return f"k{self.level(value) % len(palette.CATEGORIES['light'])}"
        return f"{'d' if self.kind == 'diverging' else 'q'}{self.level(value)}"


def all_values(m: LayerMap) -> Iterator[float | None]:
    """Every value of a map, in layers and outside."""
    yield from m.outside.values()
    for row in m.values:
        yield from row


def meaning(m: LayerMap, value: float | None, t: Strings = EN) -> str:
    """A value in words: its label, or the number with its unit."""
    if value is None:
        return t["not_present"]
    if not math.isfinite(value):
        return t["undefined"]
    key = f"{value:g}"
    if m.scale == "categorical" or key in m.labels:
        return named(t, one_line(m.labels.get(key, key), 60))
    return f"{number(value)} {named(t, one_line(m.unit, 30))}".rstrip()


def sides(maps: Iterable[LayerMap]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of what lies before and after the layers in any of the maps, in the order of a model."""
    names = dict.fromkeys(n for m in maps for n in m.outside)
    right = [n for n in RIGHT if n in names] + [n for n in names if n not in LEFT + RIGHT]
    return tuple(n for n in LEFT if n in names), tuple(right)


# ----------------------------------------------------------------------------------------------------------------- frame


@dataclass(frozen=True)
class Frame:
    """One x axis for several maps, so that equal layers stand above one another; `t` are the words that stand on them."""

    gutter: float
    left: tuple[str, ...]
    right: tuple[str, ...]
    layers: int
    cell: float
    t: Strings = field(default_factory=lambda: EN, repr=False)

    @classmethod
    def of(cls, maps: Iterable[LayerMap], t: Strings = EN) -> Frame:
        """The frame that fits every one of `maps`."""
        maps = list(maps)
        layers = max((m.layers for m in maps), default=1)
        wide = max((columns(one_line(r, 26)) for m in maps for r in m.rows), default=0)
        return cls(max(60.0, wide * LABEL_PX + 14), *sides(maps), layers, min(44.0, max(4.0, INNER / max(1, layers))), t)

    def layer_x(self, layer: int) -> float:
        return self.gutter + len(self.left) * (SIDE + GAP) + layer * self.cell

    def outside_x(self, name: str) -> float:
        """The left edge of what lies outside the layers."""
        if name in self.left:
            return self.gutter + self.left.index(name) * (SIDE + GAP)
        return self.layer_x(self.layers) + GAP + self.right.index(name) * (SIDE + GAP)

    @property
    def width(self) -> float:
        return max(440.0, self.layer_x(self.layers) + GAP + len(self.right) * (SIDE + GAP) + 4)


# ------------------------------------------------------------------------------------------------------------------- svg


def attr(text: object) -> str:
    """Text for an attribute or an element, escaped."""
    return escape(one_line(text, 400), quote=True)


def word(x: float, y: float, text: str, css: str = "", anchor: str = "start", width: int = 60) -> str:
    """A label whose language and direction a browser needs for the right font and order; cut, with the whole in its tooltip."""
    line = one_line(text, 400)
    short = cut(line, width)
    flip = {"start": "end", "end": "start"} if rtl(short) else {}  # SVG anchors follow the direction of the text
    attrs = f' class="{css}"' if css else ""
    attrs += f' text-anchor="{flip.get(anchor, anchor)}"' if flip.get(anchor, anchor) != "start" else ""
    attrs += ' direction="rtl" unicode-bidi="embed"' if flip else ""
    attrs += f' lang="{tag}"' if (tag := script_language(short)) else ""
    tip = f"<title>{attr(line)}</title>" if short != line else ""
    return f'<text x="{x:g}" y="{y:g}"{attrs}>{attr(short)}{tip}</text>'


def short_value(value: float, factor: float) -> str:
    """At most four characters for the inside of a cell: .12, 1.5, −.3, 12."""
    scaled = value * factor
    text = f"{scaled:.2f}" if abs(scaled) < 0.995 else f"{scaled:.1f}" if abs(scaled) < 9.95 else f"{scaled:.0f}"
    sign, digits = ("−", text[1:]) if text.startswith("-") else ("", text)
    digits = digits.rstrip("0").rstrip(".") if "." in digits else digits
    return sign + digits.removeprefix("0") if digits not in ("0", "") else "0"


def cell_factor(most: float) -> float:
    """The power of a thousand by which numbers up to `most` are multiplied to be worth printing in four characters."""
    if most < 1e-290 or 0.05 <= most < 1000:
        return 1.0
    return 10.0 ** (-3 * math.floor(math.log10(most) / 3))


def cells(m: LayerMap, scale: Scale, frame: Frame, row: int, detail: int) -> str:
    """One row of layer cells. At detail 0, neighbours of equal colour become one, whose tooltip gives their range."""
    out, y, values = [], row * ROW, m.values[row]
    name, start = attr(m.rows[row]), 0
    gap = 1 if frame.cell >= 8 else 0
    numbered = detail == 2 and frame.cell >= 26 and scale.kind != "categorical"
    while start < len(values):
        stop = start + 1
        css = scale.css_class(values[start])
        while detail == 0 and stop < len(values) and scale.css_class(values[stop]) == css:
            stop += 1
        run = values[start:stop]
        at = f"{start}–{stop - 1}" if stop - start > 1 else str(start)
        tip = f"{name} · {frame.t['at_layer'].format(n=at)}: {escape(spoken(m, run, frame.t))}"
        x = frame.layer_x(start)
        out.append(box(css, x, y, frame.cell * (stop - start) - gap, ROW - 1, tip))
        if numbered and css != "na":
            out.append(value_text(css, x + frame.cell / 2 - 0.5, y + 13, run[0], scale.factor))
        start = stop
    return "".join(out)


def box(css: str, x: float, y: float, width: float, height: float, tip: str = "") -> str:
    """A filled rectangle with a tooltip (escaped already), in the fewest bytes."""
    end = f"><title>{tip}</title></path>" if tip else "/>"
    return f'<path class="{css}" d="M{x:g} {y:g}h{width:g}v{height:g}h-{width:g}z"{end}'


def value_text(css: str, x: float, y: float, value: float | None, factor: float) -> str:
    """The number inside a cell, in the ink that is legible on it."""
    return f'<text class="v v{css}" x="{x:g}" y="{y:g}">{short_value(value or 0.0, factor)}</text>'


def spoken(m: LayerMap, run: Iterable[float | None], t: Strings = EN) -> str:
    """A run of cells in words: one value, or the least and the greatest."""
    found = [v for v in run if v is not None and math.isfinite(v)]
    if not found:
        return meaning(m, None, t)
    least, most = min(found), max(found)
    return meaning(m, least, t) if least == most else t["interval"].format(low=number(least), high=meaning(m, most, t))


def outside(m: LayerMap, scale: Scale, frame: Frame, height: float) -> str:
    """Embedding, final norm, head ...: tall cells beside the layers, their names above."""
    out = []
    for name, value in m.outside.items():
        x, css = frame.outside_x(name), scale.css_class(value)
        out.append(box(css, x, 0, SIDE, height, attr(f"{name}: {meaning(m, value, frame.t)}")))
        if css != "na" and scale.kind != "categorical":
            out.append(value_text(css, x + SIDE / 2, height / 2 + 3.5, value, scale.factor))
        shown = {"final_norm": "norm", "position": "pos."}.get(name, name)
        out.append(word(x + SIDE / 2, -6, shown, "soft", "middle", 8))
    return "".join(out)


def axis(m: LayerMap, frame: Frame) -> str:
    """Layer numbers above the cells, as many as fit."""
    need = 6.5 * len(str(m.layers - 1)) + 9
    every = next(n for n in (1, 2, 5, 10, 20, 25, 50, 100) if n * frame.cell >= need or n == 100)
    ticks = "".join(f'<text class="soft" text-anchor="middle" x="{frame.layer_x(i) + frame.cell / 2:g}" y="-6">{i}</text>'
                    for i in range(0, m.layers, every))
    return ticks + word(frame.gutter - 8, -6, frame.t["layer"], "soft", "end")


def legend(m: LayerMap, scale: Scale, frame: Frame) -> tuple[str, float]:
    """The key under a map and its height: a colour bar, or a swatch for each category, and the hatch if anything is absent."""
    out, x, y = [], frame.gutter, 0.0
    items = [(f"k{i % len(palette.CATEGORIES['light'])}", named(frame.t, one_line(m.labels.get(k, k), 60)))
             for i, k in enumerate(scale.keys)]
    if scale.kind != "categorical":
        bar, x, y = colour_bar(m, scale, frame)
        out.append(bar)
    if any(v is None or not math.isfinite(v) for v in all_values(m)):
        items.append(("na", frame.t["not_present"]))
    for css, label in items:
        need = 36 + min(40, columns(label)) * LABEL_PX
        if x + need > frame.width and x > frame.gutter:
            x, y = frame.gutter, y + 18
        out += [box(css, x, y, 12, 11, ""), word(x + 18, y + 10, label, "soft", width=40)]
        x += need
    return "".join(out), (y + 14 if out else 0)


def colour_bar(m: LayerMap, scale: Scale, frame: Frame) -> tuple[str, float, float]:
    """The colours from low to high with their ends named, and where (x, y) the next item of the legend may begin."""
    low, high = bound(m, scale.low, t=frame.t), bound(m, scale.high, True, frame.t)
    letter = "d" if scale.kind == "diverging" else "q"
    x = frame.gutter + min(40, columns(low)) * LABEL_PX + 6
    end = x + 7 * (palette.STEPS + 1)
    bar = "".join(box(f"{letter}{i}", x + 7 * i, 0, 7.2, 11) for i in range(palette.STEPS + 1))
    bar += word(frame.gutter, 10, low, "soft", width=40) + word(end + 6, 10, high, "soft", width=40)
    end += min(40, columns(high)) * LABEL_PX + 36
    if frame.cell < 26 or scale.factor == 1.0:
        return bar, end, 0.0
    end, y = (end, 0.0) if end + FACTOR_PX <= frame.width else (frame.gutter, 18.0)  # a narrow map has no room beside the bar
    bar += word(end, y + 10, f"{frame.t['cell_factor']}{superscript(-round(math.log10(scale.factor)))}", "soft")
    return bar, end + FACTOR_PX, y


def bound(m: LayerMap, value: float, unit: bool = False, t: Strings = EN) -> str:
    """An end of the colour bar: its meaning if it has one, else the number."""
    label = m.labels.get(f"{value:g}")
    whole = int(value) if abs(value) < 1e6 and value == int(value) else value
    return named(t, one_line(label, 40)) if label else f"{number(whole)} {named(t, one_line(m.unit, 24)) if unit else ''}".rstrip()


HATCH = ('<defs><pattern id="lm-none" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
         '<path class="hatch" d="M0 0v5"/></pattern></defs>')
FONTS = "system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans',sans-serif"


def svg(m: LayerMap, frame: Frame | None = None, detail: int = 2) -> str:
    """A map as SVG. With a `frame` it is a piece of a page that holds `HATCH` and `palette.css()`; without, a file of its own.

    `detail` 2 prints numbers into large cells, 1 leaves them to the tooltips, 0 also joins neighbours of equal colour, so that
    thousands of cells stay small.
    """
    alone = frame is None
    frame = frame or Frame.of([m])
    scale = Scale.of(m)
    height = max(1, len(m.rows)) * ROW - 1
    top = 22 + (30 if alone else 0)
    key, key_height = legend(m, scale, frame)
    total = top + height + 14 + key_height + 2
    labels = "".join(word(frame.gutter - 8, i * ROW + 14, r, "", "end", 26) for i, r in enumerate(m.rows))
    body = "".join(cells(m, scale, frame, i, detail) for i in range(len(m.rows)))
    head = f"{HATCH}<style>{palette.css()}</style>{word(4, 18, m.title, 'big', width=100)}" if alone else ""
    size = f'width="{frame.width:g}" height="{total:g}"'
    space = f' xmlns="http://www.w3.org/2000/svg" font-family="{FONTS}" {size}' if alone else ""
    space += f' viewBox="0 0 {frame.width:g} {total:g}" role="img" direction="ltr" aria-label="{attr(m.title)}"'
    tight = " tight" if frame.cell < 8 else ""  # no gap between cells: no seams either
    return (f'<svg class="lm{tight}"{space}>'
            f'{head}<g transform="translate(0 {top})">{labels}{axis(m, frame)}{body}{outside(m, scale, frame, height)}</g>'
            f'<g transform="translate(0 {top + height + 14:g})">{key}</g></svg>\n')


# ------------------------------------------------------------------------------------------------------------------ text

BARS = "·▁▂▃▄▅▆▇█"
ARROWS = "▼▽·△▲"


def glyph(scale: Scale, value: float | None) -> str:
    """One character for one value: bars for amounts, triangles for below and above, letters for categories."""
    if value is None or not math.isfinite(value):
        return "╱"
    if scale.kind == "categorical":
        return chr(ord("A") + scale.level(value) % 26)
    share = scale.level(value) / palette.STEPS
    return ARROWS[round(share * 4)] if scale.kind == "diverging" else BARS[math.ceil(share * 8)]


def text(m: LayerMap, width: int = 100) -> str:
    """A map for a terminal `width` columns wide: one character a layer (two where there is room), wrapped when layers are many."""
    scale = Scale.of(m)
    gutter = max([5, *(columns(one_line(n, 26)) for n in (*m.rows, *m.outside))])
    room = max(10, width - gutter - 2)
    step = 2 if m.layers * 2 <= room else 1
    lines = [one_line(m.title, width)]
    for start in range(0, max(1, m.layers), room // step):
        stop = min(m.layers, start + room // step)
        lines.append(pad("layer", gutter) + "  " + ruler(start, stop, step))
        for name, values in zip(m.rows, m.values):
            marks = "".join(glyph(scale, v).ljust(step) for v in values[start:stop]).rstrip()
            lines.append(f"{pad(one_line(name, 26), gutter)}  {marks}")
    lines += [f"{pad(one_line(n, 26), gutter)}  {glyph(scale, v)}  {meaning(m, v)}" for n, v in m.outside.items()]
    return "\n".join([*lines, pad("", gutter) + "  " + text_legend(m, scale)]) + "\n"


def pad(label: str, width: int) -> str:
    return label + " " * (width - columns(label))


def ruler(start: int, stop: int, step: int) -> str:
    """Layer numbers over their columns, every fifth or tenth."""
    line = [" "] * ((stop - start) * step + 4)
    for layer in range(start, stop):
        if layer % (5 if step == 2 else 10) == 0 or layer == start:
            line[(layer - start) * step:(layer - start) * step + len(str(layer))] = str(layer)
    return "".join(line).rstrip()


def text_legend(m: LayerMap, scale: Scale) -> str:
    """What the characters mean."""
    if scale.kind == "categorical":
        parts = [f"{chr(ord('A') + i % 26)} {one_line(m.labels.get(k, k), 60)}" for i, k in enumerate(scale.keys)]
    else:
        marks = ARROWS if scale.kind == "diverging" else BARS
        parts = [f"{bound(m, scale.low)} {marks} {bound(m, scale.high, True)}"]
    if any(v is None for v in all_values(m)):
        parts.append("╱ not present")
    return "   ".join(parts)
