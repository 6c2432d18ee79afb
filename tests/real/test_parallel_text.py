"""Tasks made from plain parallel text, on NTREX, FLORES and the Declaration as they are, where they are on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from polygraft.evals import tasks
from polygraft.evals.tasks import suites

pytestmark = pytest.mark.real
DATA = Path(__file__).parents[3] / "shared" / "data"
needed = pytest.mark.skipif(not (DATA / "ntrex128").is_dir(), reason="NTREX-128 is not in ../shared/data")


@needed
@pytest.mark.parametrize("name", ["copy-sentence", "copy-paragraph", "next-sentence", "match-translation", "parallel-nats"])
def test_languages_of_all_sources_are_asked_the_same(name):
    task = tasks.load(name)
    ids = {tag: [i.id for i in tasks.items(task, tag, data=DATA, limit=10)] for tag in ("sw", "ja", "te", "ar", "zh-Hant")}
    assert len({tuple(found) for found in ids.values()}) == 1 and len(ids["sw"]) == 10
    flores = tasks.items(task, "jv", data=DATA, limit=10)  # not in NTREX
    assert len(flores) == 10
    if "ace" in task.known_languages():  # in neither
        assert tasks.items(task, "ace", data=DATA, limit=10)


@needed
def test_nats_have_ntrexs_1997_sentences_in_123_documents():
    items = tasks.items(tasks.load("parallel-nats"), "sw", data=DATA)
    assert (len(items), len({i.group for i in items})) == (1997, 123)


@needed
def test_a_swahili_and_a_japanese_benchmark_are_there():
    found = {tag: {p.task for p, _ in suites.expand(f"darumeru:{tag}", data=DATA).asked} for tag in ("sw", "ja")}
    assert {"copy-sentence", "next-sentence", "match-translation", "xcopa", "sib200", "mgsm"} <= found["sw"]
    assert {"copy-paragraph", "next-sentence", "pawsx", "jcommonsenseqa", "mgsm"} <= found["ja"]
