"""Group M, on running code: planning, running offline, reporting and verifying open no socket and write nowhere but in their folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.group("M")

# A child process in which every socket and every file opened for writing is noted by the interpreter itself.
WATCH = """
import json, os, sys
seen = {"sockets": [], "writes": []}
def hook(event, args):
    if event.startswith("socket.") and event != "socket.gethostname":
        seen["sockets"].append(event)
    elif event == "open" and isinstance(args[0], str) and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        seen["writes"].append(os.path.abspath(args[0]))
    elif event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"):
        seen["writes"].append(os.path.abspath(os.fsdecode(args[0])))
sys.addaudithook(hook)
from polygraft import cli
code = cli.run(sys.argv[1:])
sys.stderr.write("\\nSEEN" + json.dumps([code, seen["sockets"], seen["writes"]]))
"""
SECRET = "hf_thisIsASecretThatMustNotBeWritten1234"


@pytest.fixture(scope="module")
def home(tmp_path_factory, tiny):
    """A folder with two experts and a recipe that plans, runs and reports."""
    root = tmp_path_factory.mktemp("gates")
    one, two = tiny("llama", layers=4, noise=0.01), tiny("llama", layers=4, noise=0.02)
    (root / "r.yaml").write_text(f"recipe: 1\nname: gates\nmodels: {{one: '{one}', two: '{two}'}}\nsteps:\n"
                                 "  - {id: graft, use: merge.swap, task: one, language: two, bottom: 1, top: 1}\n")
    return root


def watched(home: Path, *words: str) -> tuple[int, list[str], list[str]]:
    env = {**os.environ, "HF_TOKEN": SECRET, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", WATCH, *words], cwd=home, env=env, capture_output=True, text=True)
    assert SECRET not in done.stdout + done.stderr
    code, sockets, writes = json.loads(done.stderr.rpartition("SEEN")[2])
    return code, sockets, writes


@pytest.mark.parametrize("words", [["plan", "r.yaml"], ["run", "r.yaml", "--offline"], ["report", "runs/gates"], ["verify", "runs/gates"]],
                         ids=lambda w: w[0])
def test_no_socket_and_no_write_elsewhere(home, words):
    if words[0] in ("report", "verify") and not (home / "runs").exists():
        assert watched(home, "run", "r.yaml", "--offline")[0] == 0
    code, sockets, writes = watched(home, *words)
    assert code == 0 and sockets == []
    allowed = (str(home / "runs"), str(home / ".cache"), "/dev/", "/proc/self/clear_refs", "/tmp/matplotlib", str(home / ".config" / "matplotlib"))
    assert [w for w in writes if not w.startswith(allowed) and w != str(home / "runs")] == []
    assert words[0] in ("run", "report") or not [w for w in writes if w.startswith(str(home / "runs"))]


def test_the_token_is_in_no_file(home):
    assert watched(home, "run", "r.yaml", "--offline")[0] == 0
    files = [p for p in (home / "runs").rglob("*") if p.is_file()]
    assert len(files) > 8 and not [p for p in files if SECRET.encode() in p.read_bytes()]
