"""What training a part saves: tokens a second, gradient and optimiser memory, peak memory, each over full fine-tuning.

    .venv/bin/python bench/bench_tune.py        about 15 minutes on two cores, a quiet machine

One trainer, the same batches (8 x 128 tokens, every token with loss) for all. Each training runs in a process of its own, so that
its peak of resident memory is its own; trainings take turns, and the median step of the fastest round counts. With bf16 full tuning
holds float32 and computes in bfloat16 by autocast, a part holds float32 where it trains and bfloat16 elsewhere; a CPU without
bfloat16 instructions computes that many times more slowly than float32, so that there everything is float32 (`--dtype` decides
otherwise). Bytes of gradients and of optimiser state are counted on the tensors after a step.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BATCH, LENGTH, LAYERS = 8, 128, 6
KINDS = ("full", "slam", "neurons in slam's layers", "top layers", "all feed-forward", "1 % of neurons")


def selection(kind: str, anatomy: Any, shapes: Any) -> Any:
    """What is trained; None: everything."""
    import numpy as np

    from polygraft import selectionfile
    from polygraft.edits import sizes
    from polygraft.selectionfile import Entry

    low, top = range(LAYERS), range(anatomy.layers - LAYERS, anatomy.layers)
    if kind == "full":
        return None
    if kind == "slam":
        entries = [Entry(i, "ffn", role) for i in low for role in ("up", "down")]
    elif kind == "top layers":
        entries = [Entry(i, k) for i in top for k in ("attn", "ffn")]
    elif kind == "all feed-forward":
        entries = [Entry(i, "ffn") for i in range(anatomy.layers)]
    else:
        rng, width = np.random.default_rng(0), sizes(anatomy)
        layers = low if "slam" in kind else range(anatomy.layers)
        entries = [Entry(i, "ffn", "neuron", np.sort(rng.choice(width[i], round(width[i] / 100), replace=False))) for i in layers]
    return selectionfile.on(entries, anatomy, shapes)


def one(kind: str, model: str, steps: int, dtype: str) -> dict[str, float]:
    """Train in this process."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from polygraft.anatomy import Anatomy
    from polygraft.meter import peak_resident
    from polygraft.sources import resolve
    from polygraft.tune import Settings, Work, train

    source = resolve(model)
    checkpoint = source.checkpoint
    assert checkpoint is not None
    anatomy = Anatomy.of(checkpoint.config, checkpoint.tensors)
    chosen = selection(kind, anatomy, {k: t.shape for k, t in checkpoint.tensors.items()})
    words = " ".join(f"{i * 7919 % 1000}" for i in range(600))
    rows = [{"text": f"{i} {words}"} for i in range(BATCH * steps)]
    held: dict[str, float] = {}

    def counted(optimizer: Any, *_: Any) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        held["gradients"] = sum(p.grad.nbytes for p in parameters if p.grad is not None)
        held["optimiser"] = sum(v.nbytes for s in optimizer.state.values() for v in s.values() if torch.is_tensor(v))

    register_optimizer_step_post_hook(counted)
    stamps: list[float] = []
    settings = Settings(method="full", dtype=dtype, batch=BATCH, length=LENGTH, steps=steps, save_every=0, answer_only=False,
                        device="cpu", lr=1e-5)
    with tempfile.TemporaryDirectory() as folder:
        train(Work(source, rows, settings, chosen), Path(folder), lambda *_: stamps.append(time.perf_counter()))
    step = statistics.median(b - a for a, b in itertools.pairwise(stamps[1:]))
    return {"speed": BATCH * LENGTH / step, "peak": peak_resident(), **held}


def llama(folder: Path) -> str:
    """A random llama of some 50 M parameters, 30 layers deep, with the embedded model's tokenizer."""
    import torch
    import transformers as hf

    from polygraft.sources import resolve

    demo = resolve("demo:smollm2").path
    tokenizer = hf.AutoTokenizer.from_pretrained(demo)
    torch.manual_seed(0)
    config = hf.LlamaConfig(hidden_size=320, intermediate_size=896, num_hidden_layers=30,
                            num_attention_heads=8, num_key_value_heads=4, vocab_size=len(tokenizer), tie_word_embeddings=True,
                            max_position_embeddings=2048)
    hf.AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def measured(model: str, steps: int, rounds: int, dtype: str) -> dict[str, dict[str, float]]:
    """Every kind in a process of its own, by turns; the fastest round of each."""
    best: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        for kind in KINDS:
            told = subprocess.run([sys.executable, __file__, "--one", kind, "--model", model, "--steps", str(steps),
                                   "--dtype", dtype], check=True, capture_output=True, text=True).stdout
            found = json.loads(told.splitlines()[-1])
            if kind not in best or found["speed"] > best[kind]["speed"]:
                best[kind] = found
    return best


def table(name: str, found: dict[str, dict[str, float]]) -> None:
    """One row a kind, each over full tuning."""
    full, ffn, slam = found["full"], found["all feed-forward"], found["slam"]

    def held(f: dict[str, float]) -> float:
        return f["gradients"] + f["optimiser"]

    print(f"\n{name}\n\n| trained | tokens/s | over full | gradients + optimiser, MB | over full | peak memory, MB | over full |")
    print("|---|---|---|---|---|---|---|")
    for kind, f in found.items():
        print(f"| {kind} | {f['speed']:.0f} | {f['speed'] / full['speed']:.2f} | {held(f) / 1e6:.1f} | {held(f) / held(full):.3f} "
              f"| {f['peak'] / 1e6:.0f} | {f['peak'] / full['peak']:.2f} |")
    neurons = found["neurons in slam's layers"]
    rows = (("SLAM: tokens/s over full", slam["speed"] / full["speed"], 1.25, True),
            ("SLAM: gradients + optimiser over full", held(slam) / held(full), 0.09, False),
            ("SLAM: peak memory over full", slam["peak"] / full["peak"], 0.65, False),
            ("1 % of neurons: gradients + optimiser over all feed-forward", held(found["1 % of neurons"]) / held(ffn), 0.03, False),
            ("neurons over SLAM, the same layers: tokens/s", neurons["speed"] / slam["speed"], 1.0, True),
            ("top layers: tokens/s over full", found["top layers"]["speed"] / full["speed"], 1.7, True))
    print("\n| what | measured | goal | |\n|---|---|---|---|")
    for what, value, goal, more in rows:
        met = value >= goal if more else value <= goal
        print(f"| {what} | {value:.3f} | {'>=' if more else '<='} {goal} | {'ok' if met else 'missed'} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", choices=KINDS)
    parser.add_argument("--model", default="")
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--dtype", choices=("auto", "fp32", "bf16"), default="auto")
    given = parser.parse_args()
    if given.dtype == "auto":
        from polygraft.model import dtype_for

        given.dtype = "bf16" if dtype_for("cpu", "auto")[0] == "auto" else "fp32"
    if given.one:
        print(json.dumps(one(given.one, given.model, given.steps, given.dtype)))
        return
    print(f"computed in {given.dtype}")
    if given.model:
        table(given.model, measured(given.model, given.steps, given.rounds, given.dtype))
        return
    table("SmolLM2-135M", measured("demo:smollm2", given.steps, given.rounds, given.dtype))
    with tempfile.TemporaryDirectory() as folder:
        table("random llama, 50 M", measured(llama(Path(folder)), given.steps, given.rounds, given.dtype))


if __name__ == "__main__":
    main()
