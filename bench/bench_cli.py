"""How soon the command line answers, as whole processes: `--help` and `init` against a bare `python -c pass`.

    .venv/bin/python bench/bench_cli.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 9
BIN = Path(sys.executable).parent / "polygraft"


def seconds(command: list[str]) -> float:
    """Median wall seconds of a command after one warm-up run."""
    times = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    bare = seconds([sys.executable, "-c", "pass"])
    print("| command | median s | goal | bare python s |\n|---|---|---|---|")
    for words in (["--help"], ["init", "swap", "--model", "org/model", "--lang", "sw"], ["merge", "--help"]):
        print(f"| `polygraft {' '.join(words)}` | {seconds([str(BIN), *words]):.3f} | < 0.3 | {bare:.3f} |")


if __name__ == "__main__":
    main()
