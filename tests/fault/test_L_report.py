"""Group L: whatever stands in a name, a prompt or an answer, the report shows it and does not obey it; and no size breaks it."""

from __future__ import annotations

import re
import unicodedata

import pytest
import yaml

from polygraft.merge import card
from polygraft.report import layermap, render
from polygraft.report.escape import clean, one_line
from polygraft.report.html import MAX_BYTES, page
from polygraft.report.views import Meta
from polygraft.result import Sample, Table
from reporting import Page, a_map, a_meta, a_result

pytestmark = pytest.mark.group("L")

INJECTIONS = {
    "script": "<script>document.title='pwned'</script>",
    "script end": "</script><script>document.title='pwned'</script>",
    "textarea": "</textarea><script>document.title='pwned'</script>",
    "title end": "</title><script>document.title='pwned'</script>",
    "style end": "</style><style>*{display:none}</style>",
    "img onerror": "<img src=x onerror=\"document.title='pwned'\">",
    "double quote": "\" onmouseover=\"document.title='pwned'\" x=\"",
    "single quote": "' onfocus='document.title=1' autofocus='",
    "svg onload": "</text></svg><svg onload=\"document.title='pwned'\"><title>",
    "comment": "<!-- <![CDATA[ --> ]]> -->",
    "template expression": "{{7*7}} {{ ''.__class__.__mro__ }} ${7*7} #{7*7}",
    "template statement": "{% for x in range(9) %}x{% endfor %}{# gone #}",
    "format field": "{0} {missing} {left} {shown.__class__} %s %(x)s",
    "mathtext": r"$\frac{1}{0}$ $$ \input{/etc/passwd} _hidden",
    "ansi colour": "\x1b[31mred\x1b[0m \x1b[2J\x1b[1;1H",
    "ansi link": "\x1b]8;;http://example.com\x07click\x1b]8;;\x07 \x1b]0;pwned\x07 \x9b31m",
    "control characters": "a\x00b\x07c\x08d\x7fe\x85f\r\ng\ufeff",
    "lone surrogate": "a\ud800b\udfffc",
    "markdown": "[x](javascript:alert(1)) ![y](http://example.com/z.png) `code` | cell |\n# heading",
    "yaml front matter": "---\nlicense: mit\n---\n# not yours\n\"x\": !!python/object:os.system",
    "reading order": "safe\u202egnp.exe\u202d x\u2066y",
}


@pytest.fixture(scope="module")
def elements() -> set[str]:
    """The elements of a page without a payload."""
    return set(Page(render([a_result()], a_meta())).tags)


@pytest.mark.parametrize("payload", INJECTIONS.values(), ids=INJECTIONS)
def test_injection_is_text(payload, elements):
    html = render([a_result(payload)], a_meta(payload))
    html.encode("utf-8")
    seen = Page(html)
    assert not seen.wrong and not seen.comments
    assert set(seen.tags) == elements, "the payload made an element"
    safe_attributes(seen)
    shown = clean(payload)
    assert sum(shown.strip() in t for _, t in seen.texts) >= 5, "the text itself must stay readable"
    assert not any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" for c in html)
    assert not set("\u202d\u202e\x1b") & set(html)
    in_a_terminal(payload)
    on_a_card(payload)


def safe_attributes(seen: Page) -> None:
    """No attribute runs or loads anything; links stay on the page."""
    for tag, name, value in seen.attributes:
        assert not name.startswith("on") and name not in {"src", "srcset", "action", "data", "autofocus", "xmlns", "xlink:href"}, (tag, name)
        if name == "href":
            assert value.startswith("#")
        if name == "style":
            assert re.fullmatch(r"[\w\s:;.,#%()/-]*", value) and "url(" not in value.replace("url(#", ""), value


def in_a_terminal(payload: str) -> None:
    """The same map as text holds no character that a terminal would obey."""
    drawn = layermap.text(a_map(rows=(payload, "b"), text=payload, labels={"0": payload}, outside={payload: 1.0}))
    assert not any(unicodedata.category(c) == "Cc" and c != "\n" for c in drawn) and "\u202e" not in drawn


def on_a_card(payload: str) -> None:
    """A model card's front matter gives the text back whole, and its body holds no live markup."""
    front = yaml.safe_load(f"name: {card.yaml_text(payload.replace(chr(0xd800), '').replace(chr(0xdfff), ''))}\nlicense: apache-2.0\n")
    assert list(front) == ["name", "license"] and front["license"] == "apache-2.0"
    body = card.plain(payload)
    assert "\n" not in body and "\x1b" not in body and "\u202e" not in body and "<" not in body
    assert not re.search(r"(?<!\\)(?:\\\\)*\]\(", body)


def small_enough(html: str) -> Page:
    assert len(html.encode()) < MAX_BYTES
    seen = Page(html)
    assert not seen.wrong
    safe_attributes(seen)
    return seen


def test_a_table_of_100_000_rows():
    table = Table("Every item", ("item", "score"), tuple((f"item {i}", i / 7) for i in range(100_000)))
    html, beside = page([a_result(tables=(table,))], Meta(csv_folder="report-tables"))
    seen = small_enough(html)
    assert "of 100,000 rows" in seen.text() and "report-tables/scores-1.csv" in seen.text()
    assert 100 <= seen.tags.count("tr") < 1000
    lines = beside["scores-1.csv"].splitlines()
    assert len(lines) == 100_001 and lines[0] == "item,score" and lines[-1].startswith("item 99999,")


def test_no_rows_and_no_results():
    empty = a_result(tables=(Table("Nothing", ("a", "b"), ()),), maps=(a_map(rows=(), values=(), outside={}),), curves=(), samples=())
    assert "No rows." in small_enough(render([empty])).text()
    assert "No step has finished yet" in small_enough(render([])).text()


def test_200_layers():
    maps = tuple(a_map(200, tuple(f"part.{i}" for i in range(16)), f"Map {m}") for m in range(8))
    seen = small_enough(render([a_result(maps=maps)]))
    assert seen.tags.count("figure") >= 8 and "180" in seen.text() and any("layer 199" in t or "–199" in t for _, t in seen.texts)


def test_one_layer():
    seen = small_enough(render([a_result(maps=(a_map(1),))]))
    assert any("layer 0: 0.05" in t for _, t in seen.texts)


LONG = ("Lateinamerikanisches Spanisch mit Voseo der Rioplatense", "اللغة العربية الفصحى الحديثة كما تكتب في الصحف اليومية", "日本語" * 17)


def test_50_character_language_names():
    maps = (a_map(rows=LONG, labels={}, outside={LONG[0]: 0.5, LONG[1]: 0.2}),
            a_map(scale="categorical", rows=("a",), values=(tuple(float(i % 3) for i in range(12)),), outside={},
                  labels={str(i): name for i, name in enumerate(LONG)}))
    table = Table("By language", ("language", *LONG), tuple((name, 1, 2.5, None) for name in LONG))
    samples = tuple(Sample(str(i), name, name, {name: name}) for i, name in enumerate(LONG))
    seen = small_enough(render([a_result(maps=maps, tables=(table,), samples=samples)]))
    assert [sum(name in t for _, t in seen.texts) >= 5 for name in LONG] == [True] * 3
    assert any(tag == "text" and (k, v) == ("direction", "rtl") for tag, k, v in seen.attributes)
    assert max(len(one_line(name, 26)) for name in LONG) <= 26
