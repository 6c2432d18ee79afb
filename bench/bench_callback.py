"""What watching costs a training: checks of 200 items in all, every 200 steps, over the time of those steps.

    .venv/bin/python bench/bench_callback.py --data ../shared/data      some minutes on two cores, a quiet machine

The embedded small model, a LoRA of rank 16 on Swahili instructions (batch 8, examples of at most 256 tokens). Steps take the same
time from first to last, so `--steps` of them are timed, in the same run as two checks: share = check / (200 x step).
"""

from __future__ import annotations

import argparse
import json
import lzma
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

EVERY, ITEMS, GOAL = 200, 200, 0.05
TASKS = ("blimp:en", "xcopa:sw", "copy-sentence:sw", "next-sentence:sw")


def rows(data: Path, count: int) -> list[dict]:
    with lzma.open(data / "xinstruct" / "sw.jsonl.xz", "rt", encoding="utf-8") as lines:
        found = [json.loads(line) for _, line in zip(range(count), lines)]
    return [{"prompt": f"Human: {r['instruction']}\n{r.get('input') or ''}\nAssistant: ", "completion": r["output"]} for r in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--steps", type=int, default=12)
    args = parser.parse_args()
    if not args.data.is_dir():
        sys.exit(f"no data at {args.data}: name the folder that holds xinstruct, xcopa, minimal_pairs and ntrex128 with --data")

    from polygraft.evals.callback import TaskWatcher
    from polygraft.sources import resolve
    from polygraft.step import Context
    from polygraft.tune.settings import Settings
    from polygraft.tune.training import Watched, Work, train
    from polygraft.watching import Log, Watch

    stamps: list[tuple[float, float]] = []

    class Timed(TaskWatcher):
        """A watcher that notes what each of its checks took."""

        def read(self, model: Any, tokenizer: Any, step: int) -> Any:
            start = now()
            found = super().read(model, tokenizer, step)
            checks.append(tuple(b - a for a, b in zip(start, now())))
            return found

    checks: list[tuple[float, ...]] = []
    watcher = Timed(Watch(tasks=TASKS, data=str(args.data), items=ITEMS), Context(resolve, Path))
    items, log = sum(len(j.items) for j in watcher.jobs), Log(10**9)
    settings = Settings(r=16, steps=args.steps, batch=8, length=256, save_every=0, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        work = Work(resolve("demo:smollm2"), rows(args.data, 8 * args.steps), settings, watched=Watched(watcher, log))
        train(work, Path(folder), lambda *_: stamps.append(now()))
    timed = stamps[:-1]  # the last stamp comes after the last check
    steps = [(b - a) / (len(timed) - 1) for a, b in zip(timed[0], timed[-1])]
    print("| what | wall seconds | CPU seconds |\n| --- | --- | --- |")
    print(f"| one training step (mean of {len(timed) - 1}) | {steps[0]:.2f} | {steps[1]:.2f} |")
    print(f"| one check of {items} items, the first (with its imports) | {checks[0][0]:.1f} | {checks[0][1]:.1f} |")
    print(f"| one check of {items} items, a later one | {checks[-1][0]:.1f} | {checks[-1][1]:.1f} |")
    share = [check / (EVERY * step) for check, step in zip(checks[-1], steps)]
    print(f"| share of the training's time, every {EVERY} steps (goal {GOAL:.0%}) | {share[0]:.2%} | {share[1]:.2%} |")
    for name, estimate in log.readings[-1].scores.items():
        print(f"  {name}: {estimate.value:.3g} {estimate.unit}")


def now() -> tuple[float, float]:
    """(wall, CPU) seconds; with OMP_NUM_THREADS=1 the second says the same on a busy machine as on a quiet one."""
    return time.monotonic(), time.process_time()


if __name__ == "__main__":
    main()
