"""Merging measured: against the cost of merely hashing and copying the bytes, against mergekit 0.1.5, and against our own plan.

    .venv/bin/python bench/bench_merge.py                  two sharded bf16 llamas of 2.2 GB each; ~12 GB of disk, a quiet machine
    .venv/bin/python bench/bench_merge.py --layers 11      a smaller pair (1.2 GB each), for a first look
    .venv/bin/python bench/bench_merge.py --no-mergekit    skip the neighbour (installed into its own environment on first use)

Every figure is the median of `--repeat` rounds; the rounds of all contestants alternate on one disk, with warm inputs. mergekit
never waits for the disk, so `sync` after it counts; ours includes fsync, digests per file and tensor, and reading everything back.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from polygraft.checkpoint import Checkpoint
from polygraft.floats import from_f32
from polygraft.header import build, spec_bytes
from polygraft.merge import makers
from polygraft.merge.write import Named, anatomy_of
from polygraft.writer import CheckpointWriter

MERGEKIT = "mergekit==0.1.5"
SIZES = {"hidden": 2048, "ffn": 5632, "heads": 32, "kv": 4, "vocab": 32000}
PURE = ["--embed", "task", "--norm", "task", "--head", "task"]
VARIANTS = {  # name -> flags of `merge swap`
    "no transition, embed, norm and head from the task expert": ["--transition", "0", *PURE],
    "no transition, default (embed, norm and head are means)": ["--transition", "0"],
    "transition 1, embed, norm and head from the task expert": ["--transition", "1", *PURE],
    "transition 1, default (embed, norm and head are means)": ["--transition", "1"],
}
Cost = tuple[float, int]  # seconds, peak resident bytes


def llama(layers: int, hidden: int, ffn: int, heads: int, kv: int, vocab: int) -> tuple[dict, dict]:
    """Shapes and config."""
    dim = hidden // heads
    attn = {"q": (hidden, hidden), "k": (kv * dim, hidden), "v": (kv * dim, hidden), "o": (hidden, hidden)}
    mlp = {"gate": (ffn, hidden), "up": (ffn, hidden), "down": (hidden, ffn)}
    layer = {f"self_attn.{k}_proj": s for k, s in attn.items()} | {f"mlp.{k}_proj": s for k, s in mlp.items()}
    layer |= {"input_layernorm": (hidden,), "post_attention_layernorm": (hidden,)}
    outer = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,), "lm_head.weight": (vocab, hidden)}
    shapes = outer | {f"model.layers.{i}.{k}.weight": s for i in range(layers) for k, s in layer.items()}
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": layers, "hidden_size": hidden}
    config |= {"intermediate_size": ffn, "num_attention_heads": heads, "num_key_value_heads": kv, "vocab_size": vocab}
    config |= {"rms_norm_eps": 1e-5, "tie_word_embeddings": False, "rope_theta": 10000.0, "hidden_act": "silu"}
    config |= {"max_position_embeddings": 2048, "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2}
    return shapes, config


def make(folder: Path, seed: int, layers: int, shard_bytes: float = 5e8) -> Path:
    """A sharded random model: one block of noise, turned differently for each tensor."""
    folder.mkdir(parents=True)
    shapes, config = llama(layers, **SIZES)
    specs = {k: ("BF16", s) for k, s in shapes.items()}
    noise = from_f32(np.random.default_rng(seed).normal(0, 0.02, 1 << 21).astype(np.float32), "BF16")
    with CheckpointWriter(folder, specs, shard_bytes) as writer:
        for n, (key, spec) in enumerate(specs.items()):
            block, size = noise[2 * n :] + noise[: 2 * n], spec_bytes(*spec)
            writer.write(key, (block[: min(len(block), size - i)] for i in range(0, size, len(block))))
        writer.close()
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def hollow(folder: Path, **sizes: int) -> Path:
    """Headers of a model whose tensors are holes in sparse files."""
    folder.mkdir(parents=True)
    shapes, config = llama(**sizes)
    head, infos = build({k: ("BF16", s) for k, s in shapes.items()}, {"format": "pt"}, "model.safetensors")
    with (folder / "model.safetensors").open("wb") as f:
        f.write(head)
        f.truncate(infos[-1].end)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def run(*words: str | Path, **more: str) -> Cost:
    """A process, waited for; its wall time and peak resident memory (children's included)."""
    start = time.perf_counter()
    process = subprocess.Popen([str(w) for w in words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ | more)
    told = process.stderr.read() if process.stderr else b""
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"failed: {' '.join(map(str, words))}\n{told.decode()[-3000:]}")
    return time.perf_counter() - start, usage.ru_maxrss * 1024


def swap_command(pair: tuple[Path, Path], out: Path, flags: list[str]) -> list[str | Path]:
    places = ["--task", pair[0], "--language", pair[1], "--bottom", "5", "--top", "2", "--out", out]
    return [sys.executable, "-m", "polygraft", "merge", "swap", *places, *flags]


def ours(pair: tuple[Path, Path], out: Path, flags: list[str]) -> Cost:
    shutil.rmtree(out, ignore_errors=True)
    return run(*swap_command(pair, out, flags))


def used_bytes(pair: tuple[Path, Path], flags: list[str], folder: Path) -> Path:
    """Files that hold exactly the bytes of the inputs that this swap reads."""
    given = dict(zip(flags[::2], flags[1::2]))
    outer = {f: given.get(f"--{f}") for f in ("embed", "norm", "head")}
    models = [Checkpoint.open(p) for p in pair]
    anatomy = anatomy_of(Named("task", models[0]))
    profile = makers.swap(anatomy, bottom=5, top=2, transition=int(given["--transition"]), **outer)  # type: ignore[arg-type]
    folder.mkdir()
    for i, model in enumerate(models):
        with (folder / f"used-{i}").open("wb") as f:
            for key in profile.weights:
                if i in profile.used(key):
                    f.writelines(model.chunks(key))
    return folder


def floor(used: Path, pair: tuple[Path, Path], out: Path) -> Cost:
    """sha256sum of the bytes used + cp of one model + sync + sha256sum of the copy: what a careful person would do by hand."""
    shutil.rmtree(out, ignore_errors=True)
    script = f"sha256sum {used}/* && cp -r {pair[0]} {out} && sync && sha256sum {out}/*.safetensors"
    return run("sh", "-c", script)


def neighbour(python: Path, config: Path, out: Path) -> Cost:
    """mergekit on the same job, and the sync that it leaves to others."""
    shutil.rmtree(out, ignore_errors=True)
    seconds, peak = run(python.with_name("mergekit-yaml"), config, out, "--no-copy-tokenizer", "--quiet")
    return seconds + run("sync")[0], peak


def environment() -> Path:
    """mergekit's own environment, made once in the cache; never this project's."""
    root = Path(os.environ.get("POLYGRAFT_CACHE", Path.home() / ".cache" / "polygraft")) / "bench" / MERGEKIT.replace("==", "-")
    python = root / "bin" / "python"
    if not (root / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", root], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "torch==2.13.0", MERGEKIT], check=True)
        (root / "ready").touch()
    return python


def rounds(repeat: int, contestants: dict[str, Callable[[], Cost]]) -> dict[str, Cost]:
    """Median seconds and largest peak of each, the contestants taking turns."""
    found: dict[str, list[Cost]] = {name: [] for name in contestants}
    for _ in range(repeat):
        for name, call in contestants.items():
            subprocess.run(["sync"], check=True)
            found[name].append(call())
    return {name: (statistics.median(s for s, _ in costs), max(p for _, p in costs)) for name, costs in found.items()}


def agreement(ours: Path, theirs: Path) -> tuple[str, float]:
    """How many tensors are equal to the bit, and the largest difference of any entry."""
    a, b = Checkpoint.open(ours), Checkpoint.open(theirs)
    same, worst, size = 0, 0.0, 1 << 18  # in small pieces: a child's peak memory counts from its parent's
    for key, t in a.tensors.items():
        apart = [
            float(np.abs(a.f32(key, i, min(i + size, t.numel)) - b.f32(key, i, min(i + size, t.numel))).max())
            for i in range(0, t.numel, size)
        ]
        same += not any(apart)
        worst = max(worst, *apart)
    return f"{same} of {len(a.tensors)}", worst


def row(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def compare(work: Path, pair: tuple[Path, Path], repeat: int, python: Path | None) -> None:
    """The first rows: every variant against the floor, the first of them also against mergekit."""
    for number, (name, flags) in enumerate(VARIANTS.items()):
        used = used_bytes(pair, flags, work / "used")
        contestants = {"floor": lambda u=used: floor(u, pair, work / "copy"), "ours": lambda f=flags: ours(pair, work / "ours", f)}
        goal = "1.0" if flags[1] == "0" else "1.2"
        if python is not None and number in (0, 3):
            ours(pair, work / "ours", flags)
            shutil.copy(work / "ours" / "mergekit_config.yml", work / "config.yml")
            contestants["mergekit"] = lambda p=python: neighbour(p, work / "config.yml", work / "theirs")
        told = rounds(repeat, contestants)
        (mine, peak), (base, _) = told["ours"], told["floor"]
        row(
            f"swap, {name}: wall time / (hash + copy + sync + hash)",
            f"{mine / base:.2f}",
            f"<= {goal}",
            f"{mine:.1f} s / {base:.1f} s",
        )
        row(f"swap, {name}: peak memory", f"{peak / 1e6:.0f} MB", "<= 300 MB", "")
        if "mergekit" in told:
            theirs, their_peak = told["mergekit"]
            row(f"swap, {name}: mergekit 0.1.5 wall time / ours", f"{theirs / mine:.1f}", ">= 3", f"{theirs:.1f} s, sync included")
            row(f"swap, {name}: our peak memory / mergekit's", f"{peak / their_peak:.3f}", "<= 0.1", f"{their_peak / 1e6:.0f} MB")
            same, worst = agreement(work / "ours", work / "theirs")
            row(f"swap, {name}: tensors equal to mergekit's bit for bit", same, "all but blends", f"largest difference {worst:.1e}")
        shutil.rmtree(used)


PLAN = """
import json, sys, time
start = time.perf_counter()
from pathlib import Path
from polygraft import meter
from polygraft.merge import configs, steps
from polygraft.sources import resolve
from polygraft.step import Context
with meter.measured() as m:
    config = configs.Swap(task=sys.argv[1], language=sys.argv[2], **json.loads(sys.argv[3]))
    plan = steps.plan(config, Context(resolve, Path, planning=True))
heavy = sorted({"torch", "transformers"} & set(sys.modules))
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "read": m.cost.read_bytes, "peak": plan.peak_bytes, "disk": plan.disk_bytes, "heavy": heavy}))
"""


def planned(pair: tuple[Path, Path], **fields: object) -> dict:
    words = [sys.executable, "-c", PLAN, *map(str, pair), json.dumps(fields)]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def predicted(command: list[str | Path]) -> dict:
    """What `--plan` of the same command says."""
    return json.loads(subprocess.run([*map(str, command), "--plan", "--json"], check=True, capture_output=True, text=True).stdout)


def plan_of_8b(work: Path) -> None:
    sizes = {"layers": 32, "hidden": 4096, "ffn": 14336, "heads": 32, "kv": 8, "vocab": 128256}
    pair = hollow(work / "8b-one", **sizes), hollow(work / "8b-two", **sizes)
    told = planned(pair)
    row(
        "plan of 2 x 8B, process start included", f"{told['seconds']:.2f} s", "< 2 s", f"read {told['read'] / 1e6:.1f} MB (< 20 MB)"
    )
    row("plan of 2 x 8B imports torch or transformers", ", ".join(told["heavy"]) or "no", "no", "")


def predictions(work: Path, pair: tuple[Path, Path]) -> None:
    """plan's peak memory and disk against a run's, in three configurations."""
    configurations = {"pure copy": {"transition": 0, "embed": "task", "norm": "task", "head": "task"}, "default": {},
                      "two transitions, ramp": {"transition": 2, "weights": "ramp"}}  # fmt: skip
    for name, fields in configurations.items():
        flags = [w for k, v in fields.items() for w in (f"--{k}", str(v))]
        told = predicted(swap_command(pair, work / "planned", flags))
        _, peak = ours(pair, work / "ours", flags)
        disk = sum(p.stat().st_size for p in (work / "ours").iterdir())
        peaks, disks = told["peak_bytes"] / peak, told["disk_bytes"] / disk
        row(f"plan / measured, {name}: peak memory, disk", f"{peaks:.2f}, {disks:.3f}", "0.85 to 1.15", f"{peak / 1e6:.0f} MB")


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--layers", type=int, default=22)
    ask.add_argument("--repeat", type=int, default=3)
    ask.add_argument("--dir", type=Path, default=None, help="where to work (default: the system's temporary folder)")
    ask.add_argument("--no-mergekit", action="store_true")
    given = ask.parse_args()
    if given.layers < 11:
        ask.error("--layers must be at least 11: the swap takes 5 and 2, and two transitions of 2")
    python = None if given.no_mergekit else environment()
    work = Path(tempfile.mkdtemp(prefix="polygraft-bench-", dir=given.dir))
    try:
        pair = make(work / "math", 1, given.layers), make(work / "swahili", 2, given.layers)
        size = sum(p.stat().st_size for p in pair[0].iterdir())
        row(f"merging, 2 x {size / 1e9:.2f} GB, {len(list(pair[0].glob('*.safetensors')))} shards each", "measured", "goal", "")
        row("---", "---", "---", "---")
        compare(work, pair, given.repeat, python)
        plan_of_8b(work)
        predictions(work, pair)
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
