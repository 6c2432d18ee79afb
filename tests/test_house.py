"""The house rules that a program can check: who imports whom, how long things may grow, what stays unimported."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src" / "polygraft"
MODULES = sorted(SRC.rglob("*.py"))
LEVELS = [
    {"errors", "files", "config", "result", "yamltext", "redact", "samplelog", "meter", "allocator", "timeleft", "versions"},
    {"checkpoint", "writer", "sources", "languages", "data", "header", "floats", "folder", "adapter", "gguf", "embedded", "hub", "topk", "arrays", "activity", "stats", "tokenfile", "chat"},
    {"anatomy", "selection", "anatomy_rules", "addresses", "maps", "selectionfile", "windows"},
    {"model", "taps", "edits", "inspection", "ask", "step", "watching", "blocks", "standins", "spill", "ranks"},
    {"analysis", "merge", "tune", "evals", "vocab", "prune", "world"},
    {"lock", "store", "recipetext", "planning", "recipe", "steps", "choose"},
    {"report", "cli", "demo", "poc"},
]
LEVEL = {name: i for i, names in enumerate(LEVELS) for name in names}
METHODS = LEVELS[4]
HEAVY = {"torch", "transformers", "datasets", "trl", "peft", "lm_eval", "matplotlib", "jinja2", "huggingface_hub", "accelerate", "scipy", "pyarrow"}


def room(path: Path) -> str:
    """The name that the level table knows a module by: its folder, or its own stem at the top."""
    parts = path.relative_to(SRC).with_suffix("").parts
    return parts[0]


def imports(tree: ast.AST) -> list[tuple[str, ast.stmt]]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(a.name, node) for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found += [(f"{node.module}.{a.name}" if node.module == "polygraft" else node.module, node) for a in node.names]
    return found


def top_level(tree: ast.Module) -> list[str]:
    body = ast.Module([n for n in tree.body if not isinstance(n, ast.FunctionDef | ast.ClassDef | ast.If)], [])
    return [name for name, _ in imports(body)]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(SRC).as_posix())
def test_dependencies_point_downward(path):
    here = room(path)
    if here in {"__init__", "__main__"}:
        return
    assert here in LEVEL, f"{here} has no level: add it to the table here and in docs/architecture.md"
    for name, node in imports(ast.parse(path.read_text())):
        if not name.startswith("polygraft."):
            continue
        there = name.split(".")[1]
        if there in {"__version__", here}:
            continue
        assert there in LEVEL, f"{path.name}:{node.lineno} imports {name}, which has no level"
        assert LEVEL[there] <= LEVEL[here], f"{path.name}:{node.lineno} looks up to {name}"
        assert not (there in METHODS and here in METHODS), f"{path.name}:{node.lineno}: methods compose in recipes, not in {name}"


def test_the_level_table_is_the_documented_one_and_names_nothing_else():
    assert {room(p) for p in MODULES} - {"__init__", "__main__"} == set(LEVEL)
    text = (SRC.parent.parent / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| L(\d) \| ([^|]+) \|", text, re.MULTILINE)
    assert [(int(n), set(re.findall(r"`(\w+)`", names))) for n, names in rows] == list(enumerate(LEVELS))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(SRC).as_posix())
def test_nothing_heavy_at_import(path):
    heavy = {n.split(".")[0] for n in top_level(ast.parse(path.read_text()))} & HEAVY
    if path.name in {"lm.py"}:  # subclasses lm-eval's LM: imported only inside the functions that evaluate
        return
    assert not heavy, f"{path.name} imports {heavy} at the top; import what is heavy inside the function that needs it"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(SRC).as_posix())
def test_nothing_grows_out_of_hand(path):
    text = path.read_text()
    assert text.count("\n") <= 450, f"{path.name} has {text.count(chr(10))} lines: is it still one idea?"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{path.name}:{node.lineno} {node.name} is too long"


LIGHT = ["polygraft", "polygraft.cli", "polygraft.steps", "polygraft.recipe", "polygraft.merge", "polygraft.analysis", "polygraft.checkpoint",
         "polygraft.sources", "polygraft.report"]


def test_light_rooms_import_nothing_heavy():
    code = f"import sys\n{''.join(f'import {m}' + chr(10) for m in LIGHT)}print(sorted(set({sorted(HEAVY)}) & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
