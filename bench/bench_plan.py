"""How far a plan is from what training took: time and peak memory, guessed from shapes and measured by a probe.

    .venv/bin/python bench/bench_plan.py [full] [slam] [neurons] [lora]        about 10 minutes on two cores, a quiet machine

A random llama of some 50 M parameters; examples of 20 to 80 tokens, so that steps differ. Each plan and each training runs in a
process of its own. Full tuning and LoRA (rank 16 on every linear layer) in float32; SLAM (up and down of 6 of 30 layers) and
neurons (1 %) hold what is frozen in bfloat16 and compute in it where the CPU can (`--dtype` decides otherwise), in float32 where it
cannot. A state is saved once on the way.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

KINDS = ("full", "slam", "neurons", "lora")
LAYERS, GOAL = 6, 0.15
WORDS = ("the", "river", "of", "stone", "carried", "every", "winter", "letter", "to", "a", "distant", "harbour", "where",
         "children", "counted", "seven", "lamps", "and", "nobody", "answered", "before", "morning", "came", "over", "hills")


def config(kind: str, folder: Path, steps: int, dtype: str) -> tuple[str, dict[str, Any]]:
    """The step and its config."""
    import numpy as np

    from polygraft.edits import sizes
    from polygraft.selectionfile import Entry, write
    from polygraft.sources import resolve

    checkpoint = resolve(folder / "base").checkpoint
    assert checkpoint is not None
    common = {"model": str(folder / "base"), "data": [str(folder / "rows.jsonl")], "steps": steps, "batch": 4, "length": 512,
              "save_every": steps // 2, "device": "cpu"}
    if kind in ("full", "lora"):
        return "tune.sft", common | {"method": kind}
    from polygraft.anatomy import Anatomy

    anatomy = Anatomy.of(checkpoint.config, checkpoint.tensors)
    rng = random.Random(0)

    def some(width: int) -> Any:
        return np.array(sorted(rng.sample(range(width), width // 100)))

    entries = [Entry(i, "ffn", role) for i in range(LAYERS) for role in ("up", "down")] if kind == "slam" else [
        Entry(i, "ffn", "neuron", some(width)) for i, width in enumerate(sizes(anatomy))]
    write(folder / f"{kind}.json", {"all": entries})
    rest = common | {"dtype": dtype, "select": str(folder / f"{kind}.json")}
    return ("tune.sft", rest | {"method": "full"}) if kind == "slam" else ("tune.neurons", rest)


def one(kind: str, what: str, folder: Path, steps: int, dtype: str) -> dict[str, float]:
    """A plan (`guess` or `probe`) or the training (`run`), in this process: seconds and bytes."""
    from polygraft import recipe as engine
    from polygraft.steps import TABLE

    name, fields = config(kind, folder, steps, dtype)
    step = next(s for s in TABLE if s.name == name)
    if what == "run":
        result = engine.run_step(step, step.config(**fields), folder / f"out-{kind}")
        return {"seconds": result.data["seconds"], "bytes": result.cost.peak_bytes}
    planned = engine.plan_step(step, step.config(**fields), probe=what == "probe")
    if planned.errors:
        sys.exit("\n".join(str(e) for e in planned.errors))
    print(*planned.plan.lines, sep="\n", file=sys.stderr)
    return {"seconds": planned.plan.seconds, "bytes": planned.plan.peak_bytes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--dtype", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--one", nargs=3, metavar=("KIND", "WHAT", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.dtype == "auto":
        from polygraft.model import dtype_for

        args.dtype = "bf16" if dtype_for("cpu", "auto")[0] == "auto" else "fp32"
    if args.one:
        kind, what, folder = args.one
        print(json.dumps(one(kind, what, Path(folder), args.steps, args.dtype)))
        return

    def told(kind: str, what: str, folder: str) -> dict[str, float]:
        command = [sys.executable, __file__, "--one", kind, what, folder, "--steps", str(args.steps), "--dtype", args.dtype]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])

    with tempfile.TemporaryDirectory() as scratch:
        prepare(Path(scratch))
        found = {kind: {what: told(kind, what, scratch) for what in ("guess", "probe", "run")} for kind in args.kinds}
    print(f"computed in {args.dtype}; of full tuning and LoRA always in fp32\n")
    print("| training | s, guessed | probed | measured | probe off | MB, guessed | probed | measured | probe off | guess off |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for kind, f in found.items():
        off = {k: f["probe"][k] / f["run"][k] - 1 for k in ("seconds", "bytes")}
        seconds, mega = ([f"{f[w][k] / d:,.0f}" for w in f] for k, d in (("seconds", 1), ("bytes", 1e6)))
        guess = f["guess"]["bytes"] / f["run"]["bytes"] - 1
        shown = " | ".join([*seconds, f"{off['seconds']:+.0%}", *mega, f"{off['bytes']:+.0%}", f"{guess:+.0%}"])
        print(f"| {kind} | {shown} |")
        met = all(abs(x) <= GOAL for x in off.values())
        print(f"  {kind}: within {GOAL:.0%} {'ok' if met else 'missed'}", file=sys.stderr)


def prepare(folder: Path) -> None:
    """The model and its examples."""
    from bench_tune import llama

    llama(folder / "base")
    rng = random.Random(1)
    rows = ({"text": " ".join(rng.choice(WORDS) for _ in range(rng.randrange(15, 60)))} for _ in range(200))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
