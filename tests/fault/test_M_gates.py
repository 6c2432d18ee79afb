"""Group M: what must never stand in a source line, and what a run must never do."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.group("M")

SRC = Path(__file__).parent.parent.parent / "src" / "polygraft"
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "marshal", "shelve", "cloudpickle", "joblib"}
FORBIDDEN_ATTRIBUTES = {("torch", "load"), ("torch", "save"), ("yaml", "load"), ("yaml", "unsafe_load"), ("yaml", "full_load"), ("os", "system"),
                        ("os", "popen"), ("jinja2", "Environment"), ("jinja2", "Template")}
TREES = [(p, ast.parse(p.read_text())) for p in sorted(SRC.rglob("*.py"))]


def nodes(kind):
    return [(p, n) for p, tree in TREES for n in ast.walk(tree) if isinstance(n, kind)]


def test_no_pickle_module():
    for p, n in nodes(ast.Import):
        assert not {a.name.split(".")[0] for a in n.names} & FORBIDDEN_MODULES, f"{p}:{n.lineno}"
    for p, n in nodes(ast.ImportFrom):
        assert (n.module or "").split(".")[0] not in FORBIDDEN_MODULES, f"{p}:{n.lineno}"


def test_no_call_that_runs_text():
    for p, n in nodes(ast.Call):
        assert not (isinstance(n.func, ast.Name) and n.func.id in FORBIDDEN_CALLS), f"{p}:{n.lineno}"


def test_no_loader_that_runs_data():
    for p, n in nodes(ast.Attribute):
        pair = (n.value.id if isinstance(n.value, ast.Name) else "", n.attr)
        assert pair not in FORBIDDEN_ATTRIBUTES, f"{p}:{n.lineno} {'.'.join(pair)}"


@pytest.mark.parametrize("keyword", ["shell", "trust_remote_code", "allow_pickle"])
def test_no_switch_that_opens_the_door(keyword):
    for p, n in nodes(ast.keyword):
        assert not (n.arg == keyword and isinstance(n.value, ast.Constant) and n.value.value is True), f"{p}: {keyword}=True"


def test_templates_render_in_the_sandbox_only():
    for p, tree in TREES:
        text = ast.unparse(tree).replace("from jinja2.exceptions import", "")  # who catches its errors renders nothing
        if "import jinja2" in text or "from jinja2" in text:
            assert "ImmutableSandboxedEnvironment" in text, p
            assert "autoescape=True" in text or p.parent.name == "tasks" or p.name == "chat.py", p  # a prompt is plain text, not HTML


def test_no_telemetry_or_url_fetch():
    """Only the client of a server that the user names opens connections; the hub's own library does the rest."""
    fetchers = {"requests", "httpx", "aiohttp", "socket", "urllib3", "urllib", "http", "ftplib", "smtplib", "xmlrpc", "asyncio"}
    for p, n in nodes(ast.Import):
        assert not {a.name.split(".")[0] for a in n.names} & fetchers, f"{p}:{n.lineno}"
    for p, n in nodes(ast.ImportFrom):
        if p.relative_to(SRC).as_posix() != "evals/engines/client.py" and n.module != "urllib.parse":
            assert (n.module or "").split(".")[0] not in fetchers, f"{p}:{n.lineno}"


def test_the_client_of_a_server_follows_no_redirect_and_opens_no_file():
    tree = next(tree for p, tree in TREES if p.name == "client.py")
    taken = {a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and (n.module or "") == "urllib.request" for a in n.names}
    assert taken == {"HTTPDefaultErrorHandler", "HTTPErrorProcessor", "HTTPHandler", "HTTPSHandler", "OpenerDirector", "ProxyHandler", "Request"}


def test_public_text_names_no_private_place():
    root = SRC.parent.parent
    for p in [*root.rglob("src/**/*.py"), *root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("recipes/*.yaml")]:
        for i, line in enumerate(p.read_text().splitlines(), 1):
            assert not re.search(r"/work/|/root/|/tmp/brief|farm", line), f"{p}:{i}: {line.strip()[:80]}"
