"""What one stage of SLAM saves over the two stages of question alignment: seconds of training, at equal alignment data.

    .venv/bin/python bench/bench_slam_stages.py --data ../shared/data      about 15 minutes on two cores, a quiet machine

Three trainings of the embedded small model take turns, a few steps each: SLAM (up and down of the lowest layers) and question
alignment of every weight on the same pairs of GSM8K's questions, and English reasoning (GSM8K) of every weight. Their seconds an
example times the examples of the whole sets is what the stages would take: the steps timed are few, the whole sets are counted, not
trained on. Full tuning computes in bfloat16 by autocast, SLAM holds what it freezes in bfloat16 (`--dtype fp32`: both in float32).
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

LANGUAGES = ("de", "es", "fr", "ja", "ru", "sw", "zh")
# examples of stage two; the second set is taken to have GSM8K's length, which makes it an estimate
REASONING = {"GSM8K": 7_473, "a set of MetaMathQA's size": 395_000}
EPOCHS = 3  # of either stage, as QAlign has it
CLAIM = "SLAM's abstract: 4.1 to 11.9"
SLAM, ALIGN, REASON = "SLAM", "alignment, all weights", "reasoning, all weights"
Cost = tuple[float, int]  # seconds, tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--model", default="demo:smollm2")
    parser.add_argument("--layers", type=int, default=6, help="lowest layers that SLAM trains")
    parser.add_argument("--steps", type=int, default=4, help="steps a round; the first is not counted")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--dtype", default="bf16", choices=("bf16", "fp32"))
    given = parser.parse_args()
    if not (given.data / "gsm8k_multiq").is_dir():
        sys.exit(f"no data at {given.data}: name the folder that holds gsm8k and gsm8k_multiq with --data")
    pairs, problems = alignment(given.data), reasoning(given.data)
    costs = measured({SLAM: pairs, ALIGN: pairs, REASON: problems}, given)
    report(costs, {ALIGN: len(pairs), REASON: len(problems)}, examples_a_round=given.batch * (given.steps - 1) * given.rounds)


def alignment(data: Path) -> list[dict]:
    """Every question of every language with the task of putting it into English."""
    from polygraft.sources import resolve
    from polygraft.step import Context
    from polygraft.tune.translation import Alignment, gather

    files = {tag: str(data / "gsm8k_multiq" / f"gsm8k_train_{tag}.jsonl.xz") for tag in LANGUAGES}
    config = Alignment(pairs=files, english=str(data / "gsm8k" / "train.jsonl.gz"))
    return [e.row for e in gather(config, Context(resolve, Path), 0).examples]


def reasoning(data: Path) -> list[dict]:
    with gzip.open(data / "gsm8k" / "train.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [{"prompt": f"Question: {r['question']}\nAnswer:", "completion": " " + r["answer"]} for r in rows]


def measured(sets: Mapping[str, list[dict]], given: argparse.Namespace) -> dict[str, Cost]:
    """Seconds and tokens of the counted steps of each training, which take turns."""
    costs: dict[str, Cost] = dict.fromkeys(sets, (0.0, 0))
    for turn in range(given.rounds):
        for name, rows in sets.items():
            seconds, tokens = once(name, rows, given, seed=turn)
            costs[name] = costs[name][0] + seconds, costs[name][1] + tokens
            print(f"round {turn + 1}  {name:24} {tokens / seconds:8.1f} tokens/s", flush=True)
    return costs


def once(name: str, rows: list[dict], given: argparse.Namespace, seed: int) -> Cost:
    """One short training: seconds and tokens of its steps after the first."""
    from polygraft.sources import resolve
    from polygraft.tune.settings import Settings
    from polygraft.tune.slam import feed_forward
    from polygraft.tune.training import Work, train

    source = resolve(given.model)
    some = random.Random(seed).sample(rows, given.steps * given.batch)  # the same for both alignments
    work = Work(source, some, Settings(
        method="full", steps=given.steps, batch=given.batch, length=given.length, lr=2e-5, dtype=given.dtype, save_every=0,
        seed=seed, template="human-assistant", device="auto"))  # fmt: skip
    if name == SLAM:
        from dataclasses import replace

        shapes = {key: t.shape for key, t in work.checkpoint.tensors.items()}
        work = replace(work, selection=feed_forward(range(given.layers), work.anatomy, shapes))
    stamps: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        done = train(work, Path(folder), lambda *_: stamps.append(time.perf_counter()))
    counted = stamps[-given.steps :]
    return counted[-1] - counted[0], sum(step[0] for step in done.seen[1:])


def report(costs: Mapping[str, Cost], examples: Mapping[str, int], examples_a_round: int) -> None:
    """Rates as measured, then the stages on whole sets."""
    print(f"\n{'training':26} {'tokens/s':>9} {'s / 1k examples':>16}")
    an_example: dict[str, float] = {}
    for name, (seconds, tokens) in costs.items():
        an_example[name] = seconds / examples_a_round
        print(f"{name:26} {tokens / seconds:9.1f} {1000 * an_example[name]:16.1f}")
    align = examples[ALIGN] * EPOCHS
    one, first = align * an_example[SLAM], align * an_example[ALIGN]
    print(f"\n{examples[ALIGN]:,} pairs, {EPOCHS} epochs of each stage. Freezing alone: {first / one:.2f} times less")
    for what, count in REASONING.items():
        second = count * EPOCHS * an_example[REASON]
        hours = [f"{x / 3600:.1f} h" for x in (first, second, one)]
        print(f"stage two on {what}: (stage one {hours[0]} + stage two {hours[1]}) / SLAM {hours[2]} = "
              f"{(first + second) / one:.1f} ({CLAIM})")
        print(f"{'':4}with the English training that SLAM starts from counted too: {(first + second) / (one + second):.2f}")


if __name__ == "__main__":
    main()
