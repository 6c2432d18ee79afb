"""Shared fixtures, and the fault-catalogue counts printed at the end of a run."""

from __future__ import annotations

import gc
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))  # so that `import tiny` works from every test folder

GROUPS = {
    "A": "hostile tensor files refused", "A2": "fuzzed headers judged as the reference does", "B": "broken folders and indexes handled",
    "C": "bad recipes refused with their line", "D": "pickles refused", "E": "incompatible sources refused",
    "F": "crashes survived", "G": "I/O faults survived", "H": "concurrent uses settled", "I": "resume decisions right",
    "J": "odd numbers defined or refused", "K": "texts of the world read", "L": "report injections escaped",
    "M": "security gates closed", "N": "orders and threads gave the same bytes", "O": "bounds kept", "P": "outputs reloaded",
}

settings.register_profile("any machine", deadline=None)  # a busy machine is no failure
settings.load_profile("any machine")

FROZEN = pytest.StashKey[int]()  # so many modules were imported when the collector last set them aside


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "group(name): the fault group of the reliability catalogue that a test belongs to")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark in item.iter_markers("group"):
            item.user_properties.append(("group", mark.args[0]))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Keep imported libraries out of later garbage collections: every training ends with one, and most of its time was spent on them."""
    if len(sys.modules) - item.config.stash.get(FROZEN, 0) > 100:
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        item.config.stash[FROZEN] = len(sys.modules)


def pytest_terminal_summary(terminalreporter) -> None:
    """`A hostile tensor files refused 34/34`, one line a group. A property `cases` counts for a test that runs many."""
    passed, total = Counter(), Counter()
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            properties = dict(getattr(report, "user_properties", []))
            if (group := properties.get("group")) and (report.when == "call" or outcome == "error"):
                n = int(properties.get("cases", 1))
                total[group] += n
                passed[group] += n if outcome == "passed" else 0
    if total:
        terminalreporter.section("fault catalogue")
        for group in sorted(total, key=lambda g: list(GROUPS).index(g) if g in GROUPS else 99):
            terminalreporter.write_line(f"{group:>3} {GROUPS.get(group, 'cases')} {passed[group]}/{total[group]}")


@pytest.fixture(scope="session", autouse=True)
def no_responses_of_other_runs():
    """Tests find no answers of earlier runs, and leave none in the user's cache."""
    os.environ["POLYGRAFT_RESPONSES"] = "none"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`tiny("llama", layers=4, seed=1, noise=0.02, dtype="bfloat16", shard="20KB") -> Path`: cached, so never write into it."""
    import tiny as make

    root = tmp_path_factory.mktemp("tiny")
    return lambda family="llama", **options: make.folder(root, family, **options)
