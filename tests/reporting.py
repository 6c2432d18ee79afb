"""Results for report tests: a benign one with everything in it, and one whose every text is a given payload."""

from __future__ import annotations

from html.parser import HTMLParser

from polygraft.report import Meta
from polygraft.result import Cost, Curve, Estimate, InputRef, LayerMap, Result, Sample, Table

ROWS = ("norm", "attn.q", "attn.o", "ffn.up", "ffn.down")


def a_map(layers: int = 12, rows: tuple[str, ...] = ROWS, text: str = "Change", **more) -> LayerMap:
    values = tuple(tuple((r + 1) * (layer + 1) / 100 for layer in range(layers)) for r in range(len(rows)))
    return LayerMap(**{"title": text, "rows": rows, "layers": layers, "values": values, "unit": "mean |Δ|",
                       "outside": {"embed": 0.1, "final_norm": None, "head": 0.2}} | more)


def a_result(text: str = "Scores", **more) -> Result:
    """A Result in which `text` stands wherever a text may stand."""
    scores = Table(text, (text, "score"), ((text, Estimate(76.0, 67.0, 83.0, 100, "%")), ("b", Estimate(9.0, 5.0, 15.0, 100, "%"))), text)
    difference = Table("Difference", ("model", "es"), ((text, Estimate(11.0, 3.0, 19.0, 100, "points", "better")),
                                                       ("soup", Estimate(-15.0, -23.0, -7.0, 100, "points", "worse")),
                                                       ("swap", Estimate(2.0, -6.0, 10.0, 100, "points", "not distinguishable"))))
    plain = Table("Parts", ("part", "count"), ((text, 3), ("b", None)))
    maps = (a_map(text=text, labels={"0": text}, note=text), a_map(text=text, scale="categorical", unit=text,
            values=tuple(tuple(float(i % 2) for i in range(12)) for _ in ROWS), outside={text: 1.0}, labels={"0": text, "1": "b"}),
            a_map(rows=(text, "b"), text="Rows"))
    curve = Curve(text, (0, 1, 2), {text: (3.0, None, 1.0), "b": (1.0, 2.0, 3.0)}, text, text, text)
    sample = Sample(text, text, text, {text: text, "b": ""}, text, text)
    fields = {"step": "eval@1", "id": "scores", "title": text, "summary": (text,), "maps": maps, "tables": (scores, difference, plain),
              "curves": (curve,), "samples": (sample,), "cost": Cost(3.2, 10 ** 9, 2 * 10 ** 9, 5), "caveats": (text,),
              "inputs": (InputRef(text, text, text, text, text),)}
    return Result(**fields | more)


def a_meta(text: str = "Does it help?") -> Meta:
    return Meta(name=text, question=text, recipe=text, versions={text: text}, started=text, finished=text, folders={"scores": text},
                missing=(text,))


class Page(HTMLParser):
    """What a browser would see: tags in order, attributes, text by enclosing tag, and tags left open or closed wrongly."""

    VOID = frozenset({"meta", "br", "hr", "img", "input", "link"})

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[tuple[str, str]] = []
        self.comments: list[str] = []
        self.stack: list[str] = []
        self.wrong: list[str] = []
        self.feed(text)
        self.close()
        self.wrong += self.stack

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, k, v or "") for k, v in attrs]
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, k, v or "") for k, v in attrs]

    def handle_endtag(self, tag):
        if not self.stack or self.stack.pop() != tag:
            self.wrong.append(f"/{tag}")

    def handle_data(self, data):
        self.texts.append((self.stack[-1] if self.stack else "", data))

    def handle_comment(self, data):
        self.comments.append(data)

    def text(self) -> str:
        return "\n".join(t for tag, t in self.texts if tag != "style")
