"""Choosing layers by evaluation, without writing a merge: many candidates together against one at a time, and against the practice.

    .venv/bin/python bench/bench_search.py                       about 15 minutes on two cores, a quiet machine
    .venv/bin/python bench/bench_search.py --tiny --grid 5x3     a small random llama: seconds, for a first look
    .venv/bin/python bench/bench_search.py --only grid           of grid, practice, memory

The demo's two experts (LoRA on SmolLM2-135M-Instruct), windows of (bottom, top) layers with a transition of one blended layer,
items of the demo's own task.
  grid      one candidate at a time with everything that an evaluation has: both experts and every blend stay in memory, a layer is
            swapped by a pointer, texts share what they begin with, the head sees the scored positions alone, the better of two
            batch sizes. Some candidates, evenly over the grid, are timed (all cost the same); their scores are compared.
  practice  write the merge with mergekit (a process, as its users run it, from experts that are whole models), load it, ask lm-eval
            in a process that is warm; lm-eval gets the best of several batch sizes. With our own merge as writer for comparison.
  memory    the peak of a process of its own, less that of one that has the sources' headers open and nothing computed. The bound
            is what the experts take (what both share is held once), as much as one model for blends, and the room of states.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import bench_merge

GOALS = {"grid": 3.5, "practice": 10.0}
SIZES = (1, 4, 8, 16)  # lm-eval's batches
TOKENS = (256, 512)  # the naive engine's
NAMES = ("math", "spanish")


@dataclass(frozen=True)
class Asked:
    """Items as texts (context, continuation) and as rows of ids."""

    pairs: list[tuple[str, str]]
    rows: list[list[int]]
    scored: list[int]


def sources(args: argparse.Namespace) -> list[Any]:
    from polygraft.sources import resolve

    if args.tiny:
        sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
        import tiny

        sizes = {"hidden_size": 192, "intermediate_size": 512, "num_attention_heads": 3, "num_key_value_heads": 1, "noise": 0.02,
                 "layers": args.layers, "vocab_size": 8192, "max_position_embeddings": 512, "tie_word_embeddings": True}
        return [resolve(tiny.folder(Path(args.folder), "llama", seed=seed, **sizes)) for seed in (1, 2)]
    import polygraft

    experts, base = Path(polygraft.__file__).parent / "experts", resolve("demo:smollm2", offline=True)
    return [resolve(experts / name, base=base) for name in ("math-en", "read-es")]


def asked(tokenizer: Any, max_length: int, items: int) -> Asked:
    """The gold answers of the demo's task in two languages."""
    from polygraft.choose.search.asking import Ledger
    from polygraft.evals import tasks
    from polygraft.evals.tasks import ProblemKind, rendering

    task, ledger, pairs = tasks.load("problems"), Ledger(tokenizer, max_length), []
    for language in ("es", "en"):
        found = tasks.items(task, language, limit=items // 2, seed=0, kind=ProblemKind(operations="+-", wrong=0))
        sent = [rendering.asked(task, item, ledger) for item in found]
        pairs += [(s.text, s.continuations[i.target]) for s, i in zip(sent, found)]
    ledger.pairs(pairs, lambda found: None)
    return Asked(pairs, ledger.rows, ledger.scored)


def windows(anatomy: Any, grid: str) -> list[Any]:
    from polygraft.merge import makers

    bottoms, tops = map(int, grid.split("x"))
    return [makers.swap(anatomy, bottom=b, top=u, transition=1, names=NAMES) for b in range(bottoms) for u in range(tops)]


def spread(count: int, some: int) -> list[int]:
    """As many places as wanted, evenly from first to last."""
    return sorted({round(x) for x in np.linspace(0, count - 1, min(some, count))})


def timed(call: Callable[..., Any], *args: Any, **options: Any) -> tuple[np.ndarray, Any]:
    """(seconds by the wall and of the processor, what the call gives)"""
    start = np.array([time.perf_counter(), time.process_time()])
    given = call(*args, **options)
    return np.array([time.perf_counter(), time.process_time()]) - start, given


class Naive:
    """One candidate at a time in one model that wears its parameters; nothing is read or blended twice."""

    def __init__(self, args: argparse.Namespace):
        from polygraft.choose.graft.parameters import Parameters
        from polygraft.choose.graft.variants import Places
        from polygraft.model import dtype_for
        from polygraft.standins import unfilled

        found = sources(args)
        self.live = unfilled(found[0], dtype=dtype_for("cpu", "auto")[0])
        self.parameters = Parameters(self.live.model, self.live.anatomy, [s.weights for s in found], "cpu", keep=True, room=1 << 60)
        self.places, self.tokens = Places.of(self.live.anatomy), TOKENS[-1]
        self.engine: Any = None

    def wear(self, profile: Any) -> None:
        path, end = self.places.path(self.parameters.settled(profile, (0, 1)), (0, 1))
        for variant in (*path, end):
            self.parameters.wear(variant)

    def score(self, profile: Any, work: Asked) -> list[float]:
        from polygraft.evals.engines.hf import Scorer

        self.wear(profile)
        self.engine = self.engine or Scorer(self.live.model, self.live.tokenizer)
        self.engine.batch_tokens = self.tokens
        found: dict[int, tuple[float, bool]] = {}
        self.engine.likelihoods(work.rows, work.scored, found.update)
        return [found[i][0] for i in range(len(work.rows))]

    def choose(self, profile: Any, work: Asked) -> None:
        """The batch that is fastest; everything is warm after that."""
        took = {}
        for tokens in TOKENS:
            self.tokens = tokens
            self.score(profile, Asked(work.pairs[:4], work.rows[:4], work.scored[:4]))
            took[tokens] = timed(self.score, profile, work)[0][1]
        self.tokens = min(took, key=lambda t: took[t])


def grid(args: argparse.Namespace) -> tuple[list[list[str]], float]:
    """(rows of the table, seconds a candidate of ours by the wall)"""
    from polygraft.choose.graft import Grafter

    grafter, naive = Grafter.open(sources(args)), Naive(args)
    work = asked(grafter.tokenizer, grafter.max_length, args.items)
    profiles = windows(grafter.anatomy, args.grid)
    some = spread(len(profiles), args.naive)
    for i in some:
        naive.wear(profiles[i])  # reads and blends what the clock is not to see
    naive.choose(profiles[0], work)
    first = [timed(naive.score, profiles[i], work) for i in some[::2]]
    grafter.likelihoods(profiles[:1], work.rows[:2], work.scored[:2])  # branches are tried, libraries are warm
    layers = grafter.work.layers
    ours, found = timed(grafter.likelihoods, profiles, work.rows, work.scored)
    alone = dict(zip([*some[::2], *some[1::2]], [*first, *(timed(naive.score, profiles[i], work) for i in some[1::2])]))
    each = np.mean([took for took, _ in alone.values()], 0) * len(profiles)
    off = max(float(np.abs(found.nats[i] - nats).max()) for i, (_, nats) in alone.items())
    done, whole = grafter.work.layers - layers, len(profiles) * grafter.anatomy.layers
    tokens = sum(map(len, work.rows))
    rows = [
        [f"{args.grid} grid, {len(work.rows)} items ({tokens:,} tokens, {sum(work.scored):,} scored)",
         f"{each[0]:.1f} s ({len(some)} timed)", f"{ours[0]:.1f} s", f"{each[0] / ours[0]:.2f}x", f">= {GOALS['grid']}x"],
        ["the same by processor time", f"{each[1]:.1f} s", f"{ours[1]:.1f} s", f"{each[1] / ours[1]:.2f}x", ""],
        ["layers computed", f"{whole:,}", f"{done:,}", f"{whole / done:.2f}x", ""],
        ["largest difference of a score", "", f"{off:.1e} nats", "", "<= 1e-2"],
    ]
    assert off <= 1e-2, "candidates together do not score as candidates alone"
    return rows, float(ours[0]) / len(profiles)


def practice(args: argparse.Namespace, ours: float) -> list[list[str]]:
    """Write, load, ask lm-eval: seconds a candidate, the median of a few; written by mergekit and, to compare, by our merge."""
    from polygraft import merge
    from polygraft.choose.graft import Grafter

    grafter = Grafter.open(sources(args))
    work, profiles = asked(grafter.tokenizer, grafter.max_length, args.items), windows(grafter.anatomy, args.grid)
    size, parts, own = 0, [], []
    with tempfile.TemporaryDirectory() as folder:
        pair = whole(sources(args), Path(folder), grafter.anatomy.layers)
        for i in spread(len(profiles), args.practice):
            said, here, out = profiles[i].params, Path(folder) / "ours", Path(folder) / "merged"
            swapped, _ = timed(merge.swap, task=pair[0], language=pair[1], transition=1, out=here,
                               bottom=said["bottom"], top=said["top"])  # fmt: skip
            own.append(swapped[0])
            write = swapped[0]
            if args.no_mergekit:
                here.rename(out)
            else:
                write, _ = bench_merge.neighbour(bench_merge.environment(), here / "mergekit_config.yml", out)
                for name in ("tokenizer.json", "tokenizer_config.json"):
                    shutil.copy(here / name, out)
            took, nats, size = practised(out, work, size)
            parts.append([float(write), *took])
            off = float(np.abs(grafter.likelihoods([profiles[i]], work.rows, work.scored).nats[0] - nats).max())
            assert off <= 0.1, f"lm-eval says otherwise by {off} nats"
            for left in (here, out):
                shutil.rmtree(left, ignore_errors=True)
    middle, writer = float(np.median(np.sum(parts, 1))), "our merge" if args.no_mergekit else bench_merge.MERGEKIT
    rows = [[f"a candidate: write ({writer}), load, lm-eval (batch {size})", f"{middle:.1f} s", f"{ours:.2f} s",
             f"{middle / ours:.1f}x", f">= {GOALS['practice']:.0f}x"],
            ["of it write, load, ask", " + ".join(f"{x:.1f}" for x in np.mean(parts, 0)), "", "", ""]]  # fmt: skip
    if not args.no_mergekit:
        same = float(np.median(np.sum(parts, 1) - np.array(parts)[:, 0] + np.array(own)))
        rows.append(["the same, written by our merge", f"{same:.1f} s", f"{ours:.2f} s", f"{same / ours:.1f}x", ""])
    return rows


def whole(found: list[Any], folder: Path, layers: int) -> list[Path]:
    """Both experts as plain models, which mergekit reads: made once, ahead of the clock."""
    from polygraft import merge

    made = [folder / name for name in NAMES]
    for out, bottom in zip(made, (0, layers)):
        merge.swap(task=found[0], language=found[1], bottom=bottom, top=0, transition=0, out=out)
    return made


def practised(out: Path, work: Asked, size: int) -> tuple[list[float], np.ndarray, int]:
    """(seconds of loading and of asking, nats of the items, lm-eval's best batch)"""
    load, lm_eval = timed(theirs, out)
    size = size or best(lm_eval, work)
    ask, nats = timed(lm_eval, work.pairs, size)
    return [float(x[0]) for x in (load, ask)], np.array(nats), size


def theirs(folder: Path) -> Callable[[Sequence[tuple[str, str]], int], list[float]]:
    """lm-eval's own hf backend on a model's folder."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from polygraft.model import dtype_for, load

    live = load(folder, dtype=dtype_for("cpu", "auto")[0])

    def ask(pairs: Sequence[tuple[str, str]], size: int) -> list[float]:
        lm = HFLM(pretrained=live.model, tokenizer=live.tokenizer, batch_size=size, device="cpu")
        requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
        return [nats for nats, _ in lm.loglikelihood(requests, disable_tqdm=True)]

    return ask


def best(ask: Callable[[Sequence[tuple[str, str]], int], list[float]], work: Asked) -> int:
    some = work.pairs[::max(1, len(work.pairs) // 16)]
    ask(some[:2], 1)
    took = {size: timed(ask, some, size)[0][1] for size in SIZES}
    return min(took, key=lambda s: took[s])


def memory(args: argparse.Namespace) -> list[list[str]]:
    def child(shape: str) -> dict[str, int]:
        command = [sys.executable, __file__, "--child", shape, "--items", str(args.items), "--layers", str(args.layers),
                   "--folder", str(args.folder), *(["--tiny"] if args.tiny else [])]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])

    bare, small, large = child("0x0"), child("3x3"), child(args.grid)
    bound = large["experts"] + large["path"] + large["states"]
    mb = 1 << 20
    return [
        ["peak memory, 3x3 grid", "", f"{(small['peak'] - bare['peak']) / mb:,.0f} MB", "", ""],
        [f"peak memory, {args.grid} grid", "", f"{(large['peak'] - bare['peak']) / mb:,.0f} MB",
         f"{(large['peak'] - bare['peak']) / bound:.2f}", f"<= {bound / mb:,.0f} MB: experts, one path, the states' room"],
    ]


def measured(args: argparse.Namespace) -> None:
    """In a process of its own: the peak of a grid, and what is allowed."""
    from polygraft.choose.graft import Grafter
    from polygraft.meter import peak_resident

    grafter = Grafter.open(sources(args))
    work = asked(grafter.tokenizer, grafter.max_length, args.items)
    if args.child != "0x0":
        grafter.likelihoods(windows(grafter.anatomy, args.child), work.rows, work.scored)
    held = grafter.parameters
    print(json.dumps({"peak": peak_resident(), "experts": held.held - held.blended, "path": held.room, "states": grafter.limit}))


def table(rows: Sequence[Sequence[str]]) -> str:
    head = ["what", "naive or practice", "ours", "ratio", "goal"]
    return "\n".join("| " + " | ".join(r) + " |" for r in (head, ["---"] * len(head), *rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", default="15x9", help="bottoms x tops, each from 0")
    parser.add_argument("--items", type=int, default=64)
    parser.add_argument("--naive", type=int, default=12, help="candidates that are timed one at a time")
    parser.add_argument("--practice", type=int, default=3, help="candidates that are written and asked by lm-eval")
    parser.add_argument("--only", nargs="+", choices=["grid", "practice", "memory"], default=["grid", "practice", "memory"])
    parser.add_argument("--no-mergekit", action="store_true", help="let our own merge write")
    parser.add_argument("--tiny", action="store_true", help="a small random llama instead of the demo's experts")
    parser.add_argument("--layers", type=int, default=12, help="of the small llama")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "polygraft-bench-search",
                        help="for the small llama")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        measured(args)
        return
    rows: list[list[str]] = []
    if {"grid", "practice"} & set(args.only):
        found, each = grid(args)
        rows += found
    if "practice" in args.only:
        rows += practice(args, each)
    if "memory" in args.only:
        rows += memory(args)
    print(table(rows))


if __name__ == "__main__":
    main()
