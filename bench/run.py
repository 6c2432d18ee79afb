"""Run every measurement in this folder, one after another, and print their tables.

    make bench                      everything (tens of minutes, tens of gigabytes of disk, wants a quiet machine)
    .venv/bin/python bench/run.py cli merge
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    scripts = {p.stem.removeprefix("bench_"): p for p in sorted(HERE.glob("bench_*.py"))}
    chosen = sys.argv[1:] or list(scripts)
    unknown = set(chosen) - set(scripts)
    if unknown:
        sys.exit(f"no such measurement: {', '.join(sorted(unknown))}; there are {', '.join(scripts)}")
    failed = [name for name in chosen if subprocess.run([sys.executable, str(scripts[name])], check=False).returncode]
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
