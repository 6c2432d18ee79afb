"""Hub models: planned from the first bytes of their files, downloaded when run, refused in clear words. All on 127.0.0.1."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import folders
from fakehub import Hub, llama_8b
from polygraft import cli, hub
from polygraft.checkpoint import Checkpoint, RemoteCheckpoint
from polygraft.errors import InputError
from polygraft.recipe import plan, read_recipe, run, run_step
from polygraft.sources import resolve
from polygraft.steps import TABLE
from polygraft.vocab.assess.steps import Assess
from tiny import folder

TOKEN = "hf_notASecretButShapedLikeOne1234567"
RECIPE = """recipe: 1
name: grafted
models: {base: lab/base, math: lab/math, swahili: lab/swahili}
steps:
  - {id: change, use: analyze.delta, base: base, models: [math, swahili]}
  - {id: swapped, use: merge.swap, task: math, language: swahili, base: base, bottom: 1, top: 1, transition: 0}
"""


SIZES = {"hidden": 64, "ffn": 96, "vocab": 200}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Three siblings of 0.3 MB in three shards each."""
    root = tmp_path_factory.mktemp("models")
    return {name: folders.llama(root / name, seed=i, noise=i / 100, shards=3, **SIZES) for i, name in enumerate(("base", "math", "swahili"))}


@pytest.fixture
def server(models, tmp_path, monkeypatch):
    """A hub with the three models, and an empty cache."""
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    close_session()  # nothing is kept of another test's server
    with Hub() as at:
        monkeypatch.setattr(constants, "ENDPOINT", at.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", at.url + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        for name, folder in models.items():
            at.add(f"lab/{name}", folder)
        yield at


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return read_recipe(tmp_path / "recipe.yaml", TABLE)


def cached(tmp_path: Path) -> list[str]:
    return sorted(p.name for p in (tmp_path / "cache").rglob("*.safetensors"))


# --------------------------------------------------------------------------------------------------------------- headers


def test_headers_tell_all_but_the_values(server, models, tmp_path):
    source, real = resolve("lab/base", headers_only=True), Checkpoint.open(models["base"])
    assert isinstance(source.checkpoint, RemoteCheckpoint) and source.weights.tensors == real.tensors
    assert source.weights.config == real.config and set(source.weights.extras) == set(real.extras)
    assert source.missing == {f"lab/base@{source.revision}": sum(p.stat().st_size for p in real.path.glob("*.safetensors"))}
    assert cached(tmp_path) == []
    key = next(iter(real.tensors))
    for read in (source.weights.read, source.weights.f32, source.weights.tensor_sha256):
        with pytest.raises(InputError, match="only the headers"):
            read(key)


def test_the_download_is_the_commit_whose_headers_were_read(server, tmp_path):
    source = resolve("lab/base", headers_only=True)
    folder = shutil.copytree(server.repos["lab/base"].folder, tmp_path / "newer")
    old = server.repos["lab/base"]
    server.repos["lab/base"] = type(old)(folder, "f" * 40)  # main moves on; the old commit is gone from this simple hub
    with pytest.raises(InputError, match="no such revision"):
        source.downloaded()
    server.repos["lab/base"] = old
    here = source.downloaded()
    assert here.identity == source.identity and here.revision == old.commit and here.spec == "lab/base"
    assert here.missing == {} and not isinstance(here.checkpoint, RemoteCheckpoint)
    assert here.identity == resolve("lab/base").identity == f"hub:lab/base@{old.commit}"
    key = next(iter(here.weights.tensors))
    assert here.weights.read(key) == Checkpoint.open(old.folder).read(key)


def test_a_step_that_reads_headers_alone_leaves_the_weights_on_the_hub(server, tmp_path, tmp_path_factory):

    server.add("lab/whole", folder(tmp_path_factory.mktemp("whole"), "llama", hidden_size=64, vocab_size=2000))
    (tmp_path / "ru.txt").write_text("кошка сидела на окне и смотрела на собаку\n" * 300)
    step = next(s for s in TABLE if s.name == "vocab.assess")
    made = run_step(step, Assess(model="lab/whole", corpus={"ru": "ru.txt"}, sizes=(20,)), tmp_path / "out", folder=tmp_path)
    assert made.data["options"][1]["added"] == 20 and made.data["shape"]["rows"] == 2000
    assert cached(tmp_path) == [] and 0 < server.weights_served < 100_000  # of 1.2 MB


def test_a_complete_snapshot_in_the_cache_is_used(server, tmp_path):
    whole = resolve("lab/base")
    before = server.weights_served
    again = resolve("lab/base", headers_only=True)
    assert not isinstance(again.checkpoint, RemoteCheckpoint) and again.identity == whole.identity
    assert server.weights_served == before
    server.down = True
    assert resolve("lab/base", headers_only=True).identity == whole.identity
    assert resolve("lab/base", headers_only=True, offline=True).identity == whole.identity


def test_headers_longer_than_the_first_window(server, monkeypatch):
    monkeypatch.setattr(hub, "WINDOW", 600)
    source = resolve("lab/math", headers_only=True)
    assert source.weights.tensors == Checkpoint.open(server.repos["lab/math"].folder).tensors


def test_an_adapter_is_downloaded_and_its_base_is_not(server, tmp_path):
    from safetensors.numpy import save_file

    folder, module = tmp_path / "adapter", "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    folder.mkdir()
    save_file({f"{module}{n}.weight": np.ones(s, np.float32) for n, s in (("A", (2, 64)), ("B", (64, 2)))},
              folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2}))
    server.add("lab/adapter", folder)
    source = resolve("lab/adapter", base="lab/base", headers_only=True)
    assert source.kind == "adapter" and source.weights.tensors and cached(tmp_path) == ["adapter_model.safetensors"]
    assert list(source.missing) == [f"lab/base@{server.repos['lab/base'].commit}"]
    here = source.downloaded()
    assert here.weights.read("model.layers.0.self_attn.q_proj.weight") and here.missing == {}


# ------------------------------------------------------------------------------------------------------------ plan and run


def test_a_plan_reads_headers_and_a_run_downloads(server, recipe, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(hub, "WINDOW", 1024)
    planned = plan(recipe, tmp_path / "runs")
    assert not planned.errors and planned.steps[1].plan.maps and cached(tmp_path) == []
    files = [f for r in server.repos.values() for f in r.folder.glob("*.safetensors")]
    assert server.weights_served == sum(1024 + int.from_bytes(f.read_bytes()[:8], "little") for f in files)
    sizes = {n: sum(p.stat().st_size for p in r.folder.glob("*.safetensors")) for n, r in server.repos.items()}
    assert planned.downloads == {f"{n}@{server.repos[n].commit}": size for n, size in sizes.items()}
    assert [note.partition(":")[0] for note in planned.notes] == [f"downloads {n:,} bytes" for n in sizes.values()]
    told = []
    done = run(recipe, tmp_path / "runs", tell=told.append)
    assert done.ran == ("change", "swapped") and len(set(cached(tmp_path))) > 2
    assert [e.text for e in told if e.kind == "note"] == list(planned.notes)
    after = plan(recipe, tmp_path / "runs")
    assert [s.key for s in after.steps] == [s.key for s in planned.steps]
    assert all(s.cached for s in after.steps) and after.downloads == {} and after.notes == ()
    assert run(recipe, tmp_path / "runs", offline=True).skipped == ("change", "swapped")
    out = capfd.readouterr()
    texts = [out.out, out.err, *(p.read_bytes().decode("latin-1") for p in (tmp_path / "runs").rglob("*") if p.is_file())]
    assert f"Bearer {TOKEN}" in server.tokens and not any(TOKEN in t for t in texts)


def test_only_what_is_still_to_do_is_downloaded(server, recipe, tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("models: [math, swahili]}", "models: [math]}").replace("task: math, language: swahili", "task: math, language: math"))
    planned = plan(read_recipe(tmp_path / "recipe.yaml", TABLE, ()), tmp_path / "runs")
    assert set(planned.downloads) == {f"lab/{n}@{server.repos[f'lab/{n}'].commit}" for n in ("base", "math")}


def test_room_for_downloads_is_counted(server, recipe, tmp_path, monkeypatch):
    from polygraft import planning

    planned = plan(recipe, tmp_path / "runs")
    monkeypatch.setattr(planning, "free_space", lambda _: planned.disk_bytes + planned.download_bytes - 1)
    assert any("not enough room on the disk" in str(e) for e in plan(recipe, tmp_path / "runs").errors)
    monkeypatch.setattr(planning, "free_space", lambda _: planned.disk_bytes + planned.download_bytes)
    assert not plan(recipe, tmp_path / "runs").errors
    monkeypatch.setattr(planning, "disk_of", lambda path: "cache" in str(path))
    monkeypatch.setattr(planning, "free_space", lambda path: (planned.download_bytes - 1) if "cache" in str(path) else 1 << 60)
    assert any(str(e.where).endswith("cache") for e in plan(recipe, tmp_path / "runs").errors)


def test_inspect_reads_headers(server, tmp_path, capsys):
    assert cli.run(["inspect", "lab/math"]) == 0
    assert "llama" in capsys.readouterr().out and cached(tmp_path) == []


def test_a_single_step_says_what_it_downloads(server, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["merge", "soup", "lab/math", "lab/swahili"]
    assert cli.run([*words, "--plan"]) == 0
    assert capsys.readouterr().out.count("note: downloads") == 2 and cached(tmp_path) == []
    assert cli.run([*words, "--out", "out"]) == 0
    assert Checkpoint.open(tmp_path / "out").tensors and cached(tmp_path)


# ---------------------------------------------------------------------------------------------------------------- refusals


def _pickle(folder: Path) -> None:
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def _shards_gone(folder: Path) -> None:
    next(iter(sorted(folder.glob("*.safetensors")))).unlink()


def _cut(folder: Path) -> None:
    file = next(iter(sorted(folder.glob("*.safetensors"))))
    file.write_bytes(file.read_bytes()[:-4])


def _not_tensors(folder: Path) -> None:
    next(iter(sorted(folder.glob("*.safetensors")))).write_bytes(b"<html>no such page</html>")


BROKEN = {"pickle": (_pickle, "no safetensors", "save_pretrained"), "a shard is gone": (_shards_gone, "shards are missing", "lab/x@"),
          "cut short": (_cut, "cut short", "lab/x@"), "a web page": (_not_tensors, "web page", "lab/x@")}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_remote_files_are_judged_like_local_ones(case, server, tmp_path, capsys):
    spoil, *words = BROKEN[case]
    spoil(shutil.copytree(server.repos["lab/base"].folder, tmp_path / "x"))
    server.add("lab/x", tmp_path / "x")
    assert cli.run(["inspect", "lab/x"]) == 3
    err = capsys.readouterr().err
    assert all(w in err for w in words) and "Traceback" not in err
    assert server.weights_served < 200_000


FAULTS = {"gated": "accept its licence", "whole": "does not send parts of files", 500: "could not be reached", 401: "hf auth login"}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_the_hub_refuses_is_said(fault, server, recipe, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(hub, "RETRIES", 0)
    server.repos["lab/math"].fault = fault
    before = server.weights_served
    assert cli.run(["plan", str(tmp_path / "recipe.yaml"), "--root", str(tmp_path / "runs")]) == 3
    said = capsys.readouterr()
    assert FAULTS[fault] in said.err and "lab/math" in said.err and TOKEN not in said.out + said.err
    assert server.weights_served - before < 700_000 and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("spec", "words"), [
    ("lab/nothing", ["no such model on the hub"]),
    ("lab/base@v9", ["no such revision", "v9"]),
], ids=["repository", "revision"])  # fmt: skip
def test_what_is_not_there_is_said(spec, words, server, capsys):
    assert cli.run(["inspect", spec]) == 3
    err = capsys.readouterr().err
    assert all(w in err for w in (spec, *words))


def test_offline_and_a_hub_that_is_down(server, capsys):
    assert cli.run(["inspect", "lab/base", "--offline"]) == 3
    assert "not in the hub's cache" in capsys.readouterr().err and not server.served
    server.down = True
    assert cli.run(["inspect", "lab/base"]) == 3
    assert "could not be reached" in capsys.readouterr().err


def test_a_hub_that_does_not_exist(server, monkeypatch, capsys):
    from huggingface_hub import constants

    server.__exit__()
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert cli.run(["inspect", "lab/base"]) == 3
    err = capsys.readouterr().err
    assert "could not be reached" in err and "--offline" in err


def test_half_a_download_is_finished(server, tmp_path):
    resolve("lab/base", headers_only=True)
    with pytest.raises(InputError, match="not in the hub's cache"):
        resolve("lab/base", offline=True)
    assert resolve("lab/base").weights.tensors


# ------------------------------------------------------------------------------------------------------- the packaged recipe

PLANNED = """
import sys, time
start = time.process_time()
from polygraft import planning
planning.free_space = lambda path: 1 << 60
planning.memory_limit = lambda: None
from polygraft import cli
code = cli.run(sys.argv[1:])
heavy = sorted({"torch", "transformers", "datasets", "lm_eval"} & set(sys.modules))
print(f"planned {code} {heavy} {time.process_time() - start < 4}", file=sys.stderr)
"""


def test_the_packaged_8b_recipe_plans_from_the_hub_in_seconds(tmp_path):
    recipe = Path(__file__).parents[1] / "recipes" / "swap-math-into-swahili.yaml"
    with Hub() as server:
        for name in ("meta-llama/Llama-3.1-8B", "my-org/Llama-3.1-8B-math-en", "my-org/Llama-3.1-8B-swahili"):
            server.add(name, llama_8b(tmp_path / name))
        env = {**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN}
        env.pop("HF_HUB_CACHE", None)
        command = [sys.executable, "-c", PLANNED, "plan", str(recipe), "--root", str(tmp_path / "runs"), "--json"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert "planned 0 [] True" in done.stderr, done.stderr
    told = json.loads(done.stdout)
    assert [round(n / 1e9, 1) for n in told["downloads"].values()] == [16.1] * 3 and told["problems"] == []
    assert told["steps"][1]["maps"] and TOKEN not in done.stdout + done.stderr
    assert sum(server.served.values()) < 20_000_000
    assert sum(p.stat().st_size for p in (tmp_path / "home").rglob("*") if p.is_file()) < 1_000_000
