"""Wanda at half of a synthetic 1B model, against llmcompressor: from a folder on disk to a folder on disk, wall time and memory.

    OMP_NUM_THREADS=2 .venv/bin/python bench/bench_prune_wanda.py                   1.06B: 10 GB of disk, a quarter of an hour
    .venv/bin/python bench/bench_prune_wanda.py --hidden 256 --ffn 512 --layers 4 --samples 4 --seq-len 128          a first look

llmcompressor runs in its own environment, made in the cache on first use from pip, with torch for the CPU and without nvidia-ml-py
(which Wanda there never imports; nothing of this project's environment changes). Both are whole processes, start included, that
read the same random bf16 weights of a llama and the same windows of ids, compute in `--dtype`, and leave a model in bf16. Memory
is the largest resident size of the process, less that of one that only imports the same modules. llmcompressor is at its
sequential pipeline, the one that propagates what pruned layers give; it takes the larger of `--batches` that is faster. Masks
differ in a few weights: ours does not count the token that a tokenizer puts in front of a text.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import bench_prune_memory as synthetic

LLMCOMPRESSOR = "llmcompressor==0.14.0.1"
# its own requirements less nvidia-ml-py; auto-round is imported with the library, and of its requirements only py-cpuinfo is
BESIDE = ("torch==2.13.0", "transformers==5.17.0", "compressed-tensors==0.19.0", "accelerate>=1.15.0", "datasets>=4.8.4",
          "loguru>=0.7.2", "pillow>=10.4.0", "requests>=2.32.2", "py-cpuinfo")  # fmt: skip
GOALS = {"wall": 2.0, "memory": 0.5}

PEER_IMPORTS = """
import sys, json, numpy, torch, transformers, datasets
import transformers.models.llama.modeling_llama
from llmcompressor import oneshot
from llmcompressor.modifiers.pruning.wanda import WandaPruningModifier
"""
PEER_PEAK = """
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
print("peak", int(status["VmHWM"].split()[0]) * 1024)
"""
PEER = """
source, ids, out, dtype, sparsity, batch = sys.argv[1:]
wanda = WandaPruningModifier(sparsity=float(sparsity), mask_structure="0:0", targets=["Linear"], ignore=["lm_head"])
ids = numpy.load(ids)
data = datasets.Dataset.from_dict({"input_ids": ids, "attention_mask": numpy.ones_like(ids)})
model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=getattr(torch, dtype))
oneshot(model=model, dataset=data, recipe=wanda, num_calibration_samples=len(ids), max_seq_length=ids.shape[1],
        batch_size=int(batch), pipeline="sequential")
model.to(torch.bfloat16).save_pretrained(out, save_compressed=False)
"""


def environment() -> Path:
    """The Python of llmcompressor's environment, made once."""
    cache = Path(os.environ.get("POLYGRAFT_CACHE", Path.home() / ".cache" / "polygraft"))
    root = cache / "bench" / LLMCOMPRESSOR.replace("==", "-")
    python, pip = root / "bin" / "python", [root / "bin" / "python", "-m", "pip", "install", "-q"]
    if not (root / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", root], check=True)
        subprocess.run([*pip, "--no-deps", LLMCOMPRESSOR, "auto-round==0.15.1"], check=True)
        subprocess.run([*pip, *BESIDE], check=True)
        (root / "ready").touch()
    return python


def timed(words: list[Any], root: Path) -> tuple[float, str]:
    """Seconds of a whole process, and what it wrote."""
    start = time.perf_counter()
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, cwd=root)
    if done.returncode:
        sys.exit(f"{words[0]} failed:\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}")
    return time.perf_counter() - start, done.stdout


def windows(args: argparse.Namespace, root: Path) -> np.ndarray:
    """The ids that ours reads, int64 [samples, seq_len]."""
    from polygraft.config import filled
    from polygraft.model import load_tokenizer
    from polygraft.prune.calibration import calibration
    from polygraft.prune.config import Calibrating
    from polygraft.step import Context

    config = filled(Calibrating, {"model": str(root / "model"), "corpus": {"en": str(root / "en.txt")}, "samples": args.samples,
                                  "seq_len": args.seq_len})  # fmt: skip
    text = calibration(config, Context(model=Path, data=Path), load_tokenizer(root / "model"))
    return np.concatenate([batch["input_ids"].numpy() for batch in text.batches])


def ours(args: argparse.Namespace, root: Path) -> tuple[float, int]:
    """Seconds, and bytes above the bare import."""
    words = ["-m", "polygraft", "prune", root / "model", "--corpus", f"en={root / 'en.txt'}", "--samples", args.samples,
             "--seq-len", args.seq_len, "--method", "wanda", "--sparsity", args.sparsity, "--dtype", args.dtype,
             "--out", root / "ours", "--json"]  # fmt: skip
    seconds, said = timed([sys.executable, *words], root)
    return seconds, json.loads(said)["cost"]["peak_bytes"] - int(timed([sys.executable, "-c", synthetic.BARE], root)[1])


def theirs(args: argparse.Namespace, root: Path, python: Path, batch: int) -> tuple[float, int]:
    """The same of llmcompressor."""
    words = [root / "model", root / "ids.npy", root / "theirs", args.dtype, args.sparsity, batch]
    seconds, said = timed([python, "-c", PEER_IMPORTS + PEER + PEER_PEAK, *words], root)
    return seconds, _peak(said) - _peak(timed([python, "-c", PEER_IMPORTS + PEER_PEAK], root)[1])


def _peak(said: str) -> int:
    return int(said.rpartition("peak")[2])


def agreement(root: Path) -> tuple[float, float, float, float]:
    """Zeros of ours and of theirs among the weights of the layers, the share of weights that are zero in both or neither, and that
    share in the first layer's q, k and v, which read the same in both."""
    from polygraft.checkpoint import Checkpoint

    a, b, counts, first = Checkpoint.open(root / "ours"), Checkpoint.open(root / "theirs"), np.zeros(4), np.zeros(2)
    for key in (key for key in a.tensors if "_proj." in key):
        mine, other = a.f32(key, 0, a.info(key).numel) == 0, b.f32(key, 0, b.info(key).numel) == 0
        counts += mine.sum(), other.sum(), (mine == other).sum(), mine.size
        if "layers.0.self_attn" in key and "o_proj" not in key:
            first += (mine == other).sum(), mine.size
    zeros, zeros_too, same = counts[:3] / counts[3]
    return float(zeros), float(zeros_too), float(same), float(first[0] / first[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("hidden", 2048), ("ffn", 5632), ("layers", 18), ("samples", 8), ("seq_len", 512)):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="numbers that both compute with")
    parser.add_argument("--batches", default="1,8", help="windows that llmcompressor reads together, to be tried")
    args = parser.parse_args()
    python = environment()
    with tempfile.TemporaryDirectory(prefix="polygraft-bench-") as folder:
        root = Path(folder)
        synthetic.make(args, root / "model")
        np.save(root / "ids.npy", windows(args, root))
        mine = ours(args, root)
        tried = {batch: theirs(args, root, python, batch) for batch in map(int, args.batches.split(","))}
        batch = min(tried, key=lambda b: tried[b][0])
        other, (zeros, zeros_too, same, first) = tried[batch], agreement(root)
    parameters = sum(int(np.prod(shape)) for _, shape in synthetic.specs(args).values())
    print(f"Wanda at {args.sparsity:g}, {parameters / 1e9:.2f}B parameters, {args.layers} layers, {args.samples} x {args.seq_len} "
          f"tokens, {args.dtype}, {os.environ.get('OMP_NUM_THREADS', 'all')} threads; {LLMCOMPRESSOR} by windows read together: "
          + ", ".join(f"{b}: {s:.0f} s and {m / 1e6:,.0f} MB" for b, (s, m) in tried.items()))  # fmt: skip
    print("\n| | wall, s | memory above the bare import, MB | zeros |\n| --- | --- | --- | --- |")
    print(f"| llmcompressor, {batch} together | {other[0]:.1f} | {other[1] / 1e6:,.0f} | {zeros_too:.4f} |")
    print(f"| ours | {mine[0]:.1f} | {mine[1] / 1e6:,.0f} | {zeros:.4f} |")
    print(f"| ratio | {other[0] / mine[0]:.2f} (>= {GOALS['wall']:g}) | {mine[1] / other[1]:.2f} (<= {GOALS['memory']:g}) | "
          f"masks agree in {same:.4%} of the weights, {first:.4%} of the first q, k, v |")


if __name__ == "__main__":
    main()
