"""A model hub on 127.0.0.1: the few routes that the client uses, for folders of the test as models and data sets, with faults to order.

`with Hub() as hub: hub.add("org/name", folder)`; `hub.served` counts body bytes by file, `hub.tokens` holds what clients sent.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from polygraft.header import build

REVISION = r"(?P<revision>refs/convert/parquet|[^/]+)"
API = re.compile(rf"/api/(?:models|datasets)/(?P<repo>[^/]+/[^/]+)/(?P<what>revision|tree)/{REVISION}$")
FILE = re.compile(rf"/(?:datasets/)?(?P<repo>[^/]+/[^/]+)/resolve/{REVISION}/(?P<file>.+)$")
RANGE = re.compile(r"bytes=(\d+)-(\d*)$")


@dataclass
class Repo:
    """A folder at a commit. `fault`: "gated", "whole" (ignores ranges), or a status that its files answer with."""

    folder: Path
    commit: str
    fault: str | int = ""


class Hub:
    """The server. `url` is its address, `down` makes every answer a 503."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.served: Counter[str] = Counter()
        self.tokens: set[str | None] = set()
        self.down = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def add(self, name: str, folder: Path, fault: str | int = "") -> str:
        """Publish a folder, as it is now; returns the commit."""
        commit = hashlib.sha1(f"{name} {folder}".encode()).hexdigest()
        self.repos[name] = Repo(folder, commit, fault)
        return commit

    @property
    def weights_served(self) -> int:
        return sum(n for name, n in self.served.items() if name.endswith(".safetensors"))

    def __enter__(self) -> Hub:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.tokens.add(self.headers.get("Authorization"))
        found = API.match(path) or FILE.match(path)
        repo = self.hub.repos.get(found["repo"]) if found else None
        if self.hub.down:
            self._fail(503)
        elif found is None or repo is None:
            self._fail(404, "RepoNotFound")
        elif found["revision"] not in ("main", "refs/convert/parquet", repo.commit):
            self._fail(404, "RevisionNotFound")
        elif "what" in found.groupdict():
            self._json(_info(found["repo"], repo) if found["what"] == "revision" else _tree(repo))
        else:
            self._file(repo, found["file"])

    def _file(self, repo: Repo, name: str) -> None:
        if repo.fault == "gated":
            return self._fail(403, "GatedRepo")
        if isinstance(repo.fault, int) and name.endswith(".safetensors"):
            return self._fail(repo.fault)
        file = repo.folder / name
        if not file.is_file():
            return self._fail(404, "EntryNotFound")
        size, asked = file.stat().st_size, RANGE.match(self.headers.get("Range") or "")
        start, stop, status = 0, size, 200
        if asked and repo.fault != "whole":
            start, stop, status = int(asked[1]), min(size, int(asked[2] or size) + 1), 206
        self.send_response(status)
        self.send_header("X-Repo-Commit", repo.commit)
        self.send_header("ETag", f'"{hashlib.sha1(str(file).encode()).hexdigest()}"')
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        if self.command == "GET":
            self._send(file, name, start, stop)

    def _send(self, file: Path, name: str, start: int, stop: int) -> None:
        with file.open("rb") as f:
            f.seek(start)
            while start < stop and (data := f.read(min(1 << 16, stop - start))):
                try:
                    self.wfile.write(data)
                except OSError:  # the client has enough
                    self.close_connection = True
                    return
                start += len(data)
                self.hub.served[name] += len(data)

    def _json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _fail(self, status: int, code: str = "") -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _files(repo: Repo) -> list[tuple[str, int]]:
    return [(p.relative_to(repo.folder).as_posix(), p.stat().st_size) for p in sorted(repo.folder.rglob("*")) if p.is_file()]


def _info(name: str, repo: Repo) -> object:
    files = [{"rfilename": n, "size": size, "blobId": hashlib.sha1(n.encode()).hexdigest()} for n, size in _files(repo)]
    return {"id": name, "modelId": name, "sha": repo.commit, "siblings": files, "tags": [], "private": False, "downloads": 0}


def _tree(repo: Repo) -> object:
    return [{"type": "file", "path": n, "size": size, "oid": hashlib.sha1(n.encode()).hexdigest()} for n, size in _files(repo)]


# ------------------------------------------------------------------------------------------------------------ large models

LLAMA_8B = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
            "tie_word_embeddings": False, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "torch_dtype": "bfloat16"}  # fmt: skip


def llama_8b(folder: Path, shards: int = 4) -> Path:
    """The 291 tensors of Llama-3.1-8B in sparse files: real headers, 16.1 GB of holes."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(LLAMA_8B))
    specs = _llama_specs()
    keys, names = list(specs), [f"model-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)]
    place = {key: names[i * shards // len(keys)] for i, key in enumerate(keys)}
    for name in names:
        head, infos = build({k: specs[k] for k in keys if place[k] == name}, {"format": "pt"}, name)
        with (folder / name).open("wb") as f:
            f.write(head)
            f.truncate(infos[-1].end)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": place}))
    return folder


def _llama_specs() -> dict[str, tuple[str, tuple[int, ...]]]:
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (128256, 4096)}
    for i in range(32):
        at = f"model.layers.{i}."
        shapes |= {f"{at}self_attn.{n}_proj.weight": (r, 4096) for n, r in (("q", 4096), ("k", 1024), ("v", 1024), ("o", 4096))}
        shapes |= {f"{at}mlp.{n}_proj.weight": (14336, 4096) for n in ("gate", "up")}
        shapes |= {f"{at}mlp.down_proj.weight": (4096, 14336)}
        shapes |= {f"{at}{n}_layernorm.weight": (4096,) for n in ("input", "post_attention")}
    shapes |= {"model.norm.weight": (4096,), "lm_head.weight": (128256, 4096)}
    return {key: ("BF16", shape) for key, shape in shapes.items()}
