"""README.ja.md says what README.md says: the same commands, links, figures and sections, in Japanese."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENGLISH, JAPANESE = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.ja.md"))
FENCE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Every block of code, line by line, without what is said about it."""
    return [(kind, [re.sub(r"\s+# .*$", "", line) for line in body.splitlines()]) for kind, body in FENCE.findall(text)]


def prose(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))


def links(text: str) -> set[str]:
    return set(re.findall(r"\]\(([^)]+)\)", text)) - {"README.md", "README.ja.md"}


def figures(row: str) -> list[str]:
    return re.findall(r"[+−]?\d+\.\d+|[+−]?\d+ %|\[[^\]]*\d\]", row)


def test_commands_are_the_same():
    assert commands(JAPANESE) == commands(ENGLISH) and len(commands(ENGLISH)) >= 8


def test_comments_are_translated():
    said = [m[1] for _, body in FENCE.findall(JAPANESE) for m in re.finditer(r"\s# (.*)$", body, re.MULTILINE)]
    assert len(said) == sum(len(re.findall(r"\s# .*$", body, re.MULTILINE)) for _, body in FENCE.findall(ENGLISH))
    assert all(re.search(r"[ぁ-んァ-ヶ一-龠]", s) for s in said)


def test_links_are_the_same_and_lead_somewhere():
    assert links(JAPANESE) == links(ENGLISH)
    assert "README.md" in re.findall(r"\]\(([^)]+)\)", JAPANESE)
    assert [x for x in links(JAPANESE) if ":" not in x and not (ROOT / x.partition("#")[0]).exists()] == []


def test_sections_tables_and_lists_are_as_many():
    for mark in (r"^## ", r"^\|", r"^- ", r"^!\["):
        assert len(re.findall(mark, JAPANESE, re.MULTILINE)) == len(re.findall(mark, ENGLISH, re.MULTILINE)), mark


def test_figures_are_the_same():
    english, japanese = ([figures(row) for row in text.splitlines() if row.startswith("|")] for text in (ENGLISH, JAPANESE))
    assert english == japanese and sum(map(len, english)) > 40


@pytest.mark.parametrize("paragraph", [p for p in re.split(r"\n\s*\n", prose(JAPANESE)) if len(p) > 40 and not p.startswith(("|", "[English]"))])
def test_paragraphs_are_japanese(paragraph):
    assert re.search(r"[ぁ-ん]", paragraph)
