"""The study of calibration languages: Wanda at half, five languages by five, three seeds, read by bits per byte.

    OMP_NUM_THREADS=2 .venv/bin/python bench/bench_prune_study.py --data ../shared/data            less than half an hour
    .venv/bin/python bench/bench_prune_study.py --data ../shared/data --seeds 1 --tokens 300 --languages en,sw     a first look

Calibrated on NTREX-128, read in FLORES-200 (a sentence is a document), through the step that `polygraft prune study` runs. States
are compared too with `--diagnose N`. Where the time went is counted from within: drawing text, pruning, reading.
"""

from __future__ import annotations

import argparse
import functools
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

GOAL = 30 * 60
LANGUAGES = {"en": ("eng-US", "eng_Latn"), "de": ("deu", "deu_Latn"), "es": ("spa", "spa_Latn"), "ru": ("rus", "rus_Cyrl"),
             "sw": ("swa", "swh_Latn")}  # NTREX, FLORES-200  # fmt: skip


def config(args: argparse.Namespace) -> dict[str, Any]:
    names = {g: LANGUAGES[g] for g in args.languages.split(",")}
    return {"model": args.model, "corpus": {g: str(args.data / "ntrex128" / f"{n}.txt.xz") for g, (n, _) in names.items()},
            "evaluate": {g: str(args.data / "flores200_devtest" / f"{n}.txt.xz") for g, (_, n) in names.items()},
            "parallel": True, "settings": ("alone",), "seeds": args.seeds, "samples": args.samples, "seq_len": args.length,
            "tokens": args.tokens, "diagnose": args.diagnose, "dtype": "float32"}  # fmt: skip


@contextmanager
def counted(places: dict[str, tuple[Any, str]]) -> Iterator[Counter[str]]:
    """Seconds spent in functions, by the name of what they do; one within another counts for both."""
    spent: Counter[str] = Counter()

    def timed(name: str, real: Any) -> Any:
        @functools.wraps(real)
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return real(*args, **kwargs)
            finally:
                spent[name] += time.perf_counter() - start
        return call

    with ExitStack() as stack:
        for name, (where, what) in places.items():
            stack.enter_context(mock.patch.object(where, what, timed(name, getattr(where, what))))
        yield spent


def shown(value: Any) -> str:
    """A cell of a table."""
    if (low := getattr(value, "low", None)) is not None:
        return f"{value.value:+.4f} ({low:+.4f} to {value.high:+.4f}) {value.verdict}".rstrip()
    return f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds ntrex128 and flores200_devtest")
    parser.add_argument("--model", default="demo:smollm2")
    parser.add_argument("--languages", default=",".join(LANGUAGES))
    for name, default in (("seeds", 3), ("samples", 32), ("length", 256), ("tokens", 12_000), ("diagnose", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    from polygraft.config import filled
    from polygraft.prune.study import cell
    from polygraft.prune.study.config import Study, cells
    from polygraft.sources import resolve
    from polygraft.step import Context
    from polygraft.steps import TABLE

    study, step = filled(Study, config(args)), next(s for s in TABLE if s.name == "prune.study")
    parts = {"drawing text": (cell.Bed, "text"), "pruning with its text": (cell, "pruned"), "reading": (cell, "seen")}
    with tempfile.TemporaryDirectory(prefix="polygraft-bench-") as folder, counted(parts) as spent:
        start, cpu = time.perf_counter(), time.process_time()
        result = step.run(study, Context(model=resolve, data=Path, folder=Path), Path(folder))
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    for table in result.tables:
        print(f"\n{table.title}\n\n| {' | '.join(table.columns)} |\n|{' --- |' * len(table.columns)}")
        for row in table.rows:
            print("| " + " | ".join(shown(value) for value in row) + " |")
    print(f"\n{len(cells(study))} prunings at {args.samples} x {args.length} tokens, {args.tokens:,} tokens read in each of "
          f"{len(study.languages)} languages, diagnose {args.diagnose:,}, {os.environ.get('OMP_NUM_THREADS', 'all')} threads")
    print(f"\n| wall, min | goal | CPU, min | {' | '.join(spent)} |\n| --- | --- | --- |{' --- |' * len(spent)}")
    told = " | ".join(f"{s / 60:.1f}" for s in spent.values())
    print(f"| {wall / 60:.1f} | < {GOAL / 60:.0f} | {cpu / 60:.1f} | {told} |")


if __name__ == "__main__":
    main()
