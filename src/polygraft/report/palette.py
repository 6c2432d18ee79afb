"""Colours of layer maps and matrices: 21 steps a scale, mixed in OKLab, one set for light pages and one for dark.

Lightness alone orders the sequential scale, and orange/blue the diverging one, so both survive every common colour blindness; a
matrix of effects is green/purple, since blue and orange say better and worse there, and above 0 may be either. The categories are
after Okabe and Ito. The low end recedes into the page in both themes.
"""

from __future__ import annotations

STEPS = 20
SEQUENTIAL = {"light": ("#efede5", "#a9d0c6", "#4a9fb0", "#22669b", "#1b2f6b"),
              "dark": ("#20272e", "#1f4a63", "#2b7f97", "#63bfae", "#e9f2bd")}
DIVERGING = {"light": ("#8c3b00", "#e08a3c", "#f1eee6", "#5b9bd0", "#0b3c7d"),
             "dark": ("#ffb673", "#a85c1c", "#262c32", "#2f6fae", "#a3cfff")}
EFFECTS = {"light": ("#1b5e37", "#6db083", "#f1eee6", "#b48ac4", "#56297a"),
           "dark": ("#8fdba8", "#2f7a4c", "#262c32", "#74448c", "#e0bcf0")}
CATEGORIES = {"light": ("#2f6db3", "#dd8a1f", "#1f9e89", "#b8609b", "#c9b227", "#7d858c", "#c8502c", "#6fb5dd"),
              "dark": ("#5b9ade", "#eda44a", "#3fbfa8", "#d685ba", "#e0cd55", "#9aa4ad", "#e57a55", "#98d0f0")}
INKS = ("#080d12", "#ffffff")

Lab = tuple[float, float, float]


def _linear(c: float) -> float:
    return c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4


def _gamma(c: float) -> float:
    c = min(1.0, max(0.0, c))
    return 12.92 * c if c <= 0.0031308 else 1.055 * c ** (1 / 2.4) - 0.055


def to_oklab(colour: str) -> Lab:
    """`#rrggbb` in OKLab (Ottosson 2020), where equal steps look equal."""
    r, g, b = (_linear(int(colour[i:i + 2], 16) / 255) for i in (1, 3, 5))
    l_ = (0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b) ** (1 / 3)
    m_ = (0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b) ** (1 / 3)
    s_ = (0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b) ** (1 / 3)
    return (0.2104542553 * l_ + 0.7936177850 * m_ - 0.0040720468 * s_,
            1.9779984951 * l_ - 2.4285922050 * m_ + 0.4505937099 * s_,
            0.0259040371 * l_ + 0.7827717662 * m_ - 0.8086757660 * s_)


def from_oklab(lab: Lab) -> str:
    """The inverse of `to_oklab`, clipped to what a screen can show."""
    lightness, a, b = lab
    l_, m_, s_ = ((lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3,
                  (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3,
                  (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3)
    rgb = (4.0767416621 * l_ - 3.3077115913 * m_ + 0.2309699292 * s_,
           -1.2684380046 * l_ + 2.6097574011 * m_ - 0.3413193965 * s_,
           -0.0041960863 * l_ - 0.7034186147 * m_ + 1.7076147010 * s_)
    return "#" + "".join(f"{round(255 * _gamma(c)):02x}" for c in rgb)


def ramp(stops: tuple[str, ...], steps: int = STEPS) -> list[str]:
    """`steps` + 1 colours along evenly spaced stops."""
    labs = [to_oklab(s) for s in stops]
    colours = []
    for i in range(steps + 1):
        at = i / steps * (len(labs) - 1)
        k = min(int(at), len(labs) - 2)
        first, second = labs[k], labs[k + 1]
        mixed = [x + (y - x) * (at - k) for x, y in zip(first, second)]
        colours.append(from_oklab((mixed[0], mixed[1], mixed[2])))
    return colours


def colours(theme: str) -> dict[str, str]:
    """Class name -> colour: q0..q20 sequential, d0..d20 diverging, h0..h20 effects, k0..k7 categories."""
    found = {f"{name}{i}": c for name, stops in (("q", SEQUENTIAL), ("d", DIVERGING), ("h", EFFECTS))
             for i, c in enumerate(ramp(stops[theme]))}
    return found | {f"k{i}": c for i, c in enumerate(CATEGORIES[theme])}


def luminance(colour: str) -> float:
    """Relative luminance, 0 to 1 (WCAG 2)."""
    return sum(w * _linear(int(colour[i:i + 2], 16) / 255) for w, i in ((0.2126, 1), (0.7152, 3), (0.0722, 5)))


def contrast(a: str, b: str) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2)."""
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def ink(colour: str) -> str:
    """The ink that is easier to read on `colour`."""
    return max(INKS, key=lambda i: contrast(i, colour))


def _rules(theme: str) -> str:
    found = colours(theme)
    fills = "".join(f".lm .{name}{{fill:{c}}}" for name, c in found.items())
    inks = "".join(f"{','.join(f'.lm .v{n}' for n, c in found.items() if ink(c) == i)}{{fill:{i}}}" for i in INKS)
    return fills + inks


def css() -> str:
    """Rules for every class that the layer map uses, light and dark."""
    light = ".lm{--lm-ink:#1f2328;--lm-soft:#5f6872;--lm-line:#cfcbc2}"
    dark = ".lm{--lm-ink:#e6e4df;--lm-soft:#a0a9b2;--lm-line:#454d55}"
    common = (".lm text{fill:var(--lm-ink);font-size:11px}.lm .soft{fill:var(--lm-soft)}.lm .v{font-size:9.5px;text-anchor:middle}"
              ".lm .big{font-size:14px;font-weight:600}.lm .hatch{stroke:var(--lm-line);stroke-width:1.2}"
              ".lm .na{fill:url(#lm-none)}.tight path{shape-rendering:crispEdges}")
    return f"{light}{common}{_rules('light')}@media screen and (prefers-color-scheme:dark){{{dark}{_rules('dark')}}}"
