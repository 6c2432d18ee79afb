"""Evaluation measured against lm-eval's own hf backend: the same model in memory, the same requests, the same threads, one run.

    .venv/bin/python bench/bench_eval.py --data ../shared/data      about ten minutes on two cores, a quiet machine
    .venv/bin/python bench/bench_eval.py --quick                    a quarter of the items, for a first look

lm-eval gets the best of several batch sizes, chosen on a part of each kind of work. Prompts are lm-eval's: Belebele with letters,
XCOPA with a connective, minimal pairs with an empty context, MGSM with the published exemplars; worked examples are the first rows
of the data, the same for every item. The data are those of the public sets, as `docs/benchmarks.md` names them.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import lzma
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SIZES = (1, 4, 8, 16)
NEAR = 1e-4  # nats between two choices that count as a near-tie
STOPS = ["\n\n", "Question:", "Frage:"]
LETTERS = " A", " B", " C", " D"


@dataclass(frozen=True)
class Work:
    """Requests of one kind: (context, continuation) pairs in runs of one item each, or prompts to be answered."""

    name: str
    goal: float
    items: list[list[tuple[str, str]]]
    tokens: int = 0  # new tokens; 0 for likelihoods
    trial: int = 16  # items that lm-eval's batch size is chosen on

    def part(self, count: int) -> Work:
        """Some items, from all over the list."""
        return Work(self.name, self.goal, self.items[::max(1, len(self.items) // count)][:count], self.tokens)


def lines(path: Path) -> list[dict[str, Any]]:
    opened = {".xz": lzma.open, ".gz": gzip.open}[path.suffix](path, "rt", encoding="utf-8")
    with opened as f:
        return [json.loads(line) for line in f]


# ---------------------------------------------------------------------------------------------------------------- prompts


def belebele(data: Path, language: str, n: int, shots: int) -> Iterator[list[tuple[str, str]]]:
    rows = lines(data / "belebele_en_de" / f"{language}.jsonl.xz")

    def text(row: dict[str, Any]) -> str:
        choices = "".join(f"{letter.strip()}: {choice}\n" for letter, choice in zip(LETTERS, row["choices"]))
        return f"P: {row['passage']}\nQ: {row['question'].strip()}\n{choices}Answer:"

    block = "".join(text(r) + LETTERS[r["answer"]] + "\n\n" for r in rows[:shots])
    for row in rows[shots:shots + n]:
        yield [(block + text(row), letter) for letter in LETTERS]


def xcopa(data: Path, language: str, n: int, shots: int) -> Iterator[list[tuple[str, str]]]:
    words = {"it": ("quindi", "perché"), "sw": ("kwa hiyo", "kwa sababu")}[language]
    folder = data / "xcopa" / "data" / language

    def text(row: dict[str, Any]) -> str:
        return row["premise"].strip()[:-1] + " " + words[row["question"] == "cause"]

    def choice(row: dict[str, Any], i: int) -> str:
        found = row[f"choice{i + 1}"]
        return " " + found[0].lower() + found[1:]

    block = "".join(text(r) + choice(r, r["label"]) + "\n\n" for r in lines(folder / f"val.{language}.jsonl.gz")[:shots])
    for row in lines(folder / f"test.{language}.jsonl.gz")[:n]:
        yield [(block + text(row), choice(row, i)) for i in (0, 1)]


def minimal_pairs(data: Path, file: str, n: int) -> Iterator[list[tuple[str, str]]]:
    rows = lines(data / "minimal_pairs" / file)
    for row in rows[::len(rows) // n][:n]:
        yield [("", " " + row["good"]), ("", " " + row["bad"])]


def mgsm(data: Path, language: str, n: int) -> Iterator[list[tuple[str, str]]]:
    question, answer = {"en": ("Question: ", "Step-by-Step Answer:"), "de": ("Frage: ", "Schritt-für-Schritt-Antwort:")}[language]
    shown = json.loads((data / "mgsm" / "exemplars.json").read_text("utf-8"))["MGSM_EXEMPLARS"][language]
    block = "".join(f"{s['q']}\n{s['a']}\n\n" for s in shown.values())
    with (data / "mgsm" / f"mgsm_{language}.tsv").open(encoding="utf-8", newline="") as f:
        rows = list(csv.reader(f, delimiter="\t", quoting=csv.QUOTE_NONE))
    for row in rows[:n]:
        yield [(f"{block}{question}{row[0]}\n{answer}", "")]


def works(data: Path, quick: bool) -> list[Work]:
    n = 4 if quick else 16
    pairs = [x for f in ("blimp_en.jsonl.xz", "rublimp_ru.jsonl.xz") for x in minimal_pairs(data, f, 10 * n)]
    reading = {shots: [x for c in ("eng_Latn", "deu_Latn") for x in belebele(data, c, n, shots)] for shots in (5, 0)}
    causes = {shots: [x for c in ("it", "sw") for x in xcopa(data, c, 3 * n, shots)] for shots in (5, 0)}
    return [
        Work("Belebele en de, 5-shot", 0, reading[5], trial=4), Work("XCOPA it sw, 5-shot", 0, causes[5]),
        Work("minimal pairs en ru", 0, pairs),
        Work("Belebele en de, 0-shot", 0, reading[0]), Work("XCOPA it sw, 0-shot", 0, causes[0]),
        Work("MGSM en de, 8-shot, 128 tokens", 2.0, [x for c in ("en", "de") for x in mgsm(data, c, n // 2)], 128, trial=4),
    ]


# ------------------------------------------------------------------------------------------------------------- contestants


def theirs(model: Any, tokenizer: Any, size: int) -> Callable[[Work], list[Any]]:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=size, device="cpu")

    def run(work: Work) -> list[Any]:
        flat = [pair for item in work.items for pair in item]
        if work.tokens:
            options = {"until": STOPS, "max_gen_toks": work.tokens, "do_sample": False}
            asked = [Instance("generate_until", {}, (context, dict(options)), i) for i, (context, _) in enumerate(flat)]
            return lm.generate_until(asked, disable_tqdm=True)
        asked = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(flat)]
        return [nats for nats, _ in lm.loglikelihood(asked, disable_tqdm=True)]

    return run


def ours(model: Any, tokenizer: Any) -> Callable[[Work], list[Any]]:
    from polygraft.evals.engines.base import Decoding
    from polygraft.evals.engines.hf import Scorer

    scorer = Scorer(model, tokenizer)

    def run(work: Work) -> list[Any]:
        flat = [pair for item in work.items for pair in item]
        found: dict[int, Any] = {}
        if work.tokens:
            scorer.generate([context for context, _ in flat], Decoding(work.tokens, tuple(STOPS)), found.update)
            return [found[i].text for i in range(len(flat))]
        scorer.pairs(flat, found.update)
        return [found[i][0] for i in range(len(flat))]

    return run


def timed(run: Callable[[Work], list[Any]], work: Work) -> tuple[float, float, list[Any]]:
    """(wall seconds, CPU seconds, answers); the second says more when the machine is not quiet."""
    start, cpu = time.perf_counter(), time.process_time()
    found = run(work)
    return time.perf_counter() - start, time.process_time() - cpu, found


def best(runs: dict[int, Callable[[Work], list[Any]]], work: Work) -> int:
    """The batch size that is fastest on a part of the work."""
    part = work.part(work.trial)
    return min(runs, key=lambda size: timed(runs[size], part)[1])


# --------------------------------------------------------------------------------------------------------------- agreement


def agreement(work: Work, a: Sequence[Any], b: Sequence[Any]) -> str:
    """How many items come out alike, and how far likelihoods are apart at most."""
    if work.tokens:
        return f"{sum(x == y for x, y in zip(a, b))} of {len(a)} texts identical"
    same, near, at = 0, [], 0
    for i, item in enumerate(work.items):
        x, y = (list(values[at:at + len(item)]) for values in (a, b))
        at += len(item)
        first, second = sorted(x)[-1], sorted(x)[-2]
        same += x.index(max(x)) == y.index(max(y))
        if first - second < NEAR:
            near.append(i)
    largest = max(abs(x - y) for x, y in zip(a, b))
    ties = f", near-ties {near}" if near else ""
    return f"{same} of {len(work.items)} choices identical{ties}; largest difference {largest:.1e} nats"


Row = tuple[Work, np.ndarray, np.ndarray, int, str]  # their and our (wall, CPU) seconds, their batch size, agreement


def table(rows: Sequence[Row]) -> None:
    columns = ("work", "items", "lm-eval hf, s (batch)", "ours, s", "ratio", "goal", "CPU time ratio", "agreement")
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for work, t, o, size, same in rows:
        goal = f">= {work.goal}" if work.goal else ""
        ratio, cpu = t / o
        print(f"| {work.name} | {len(work.items)} | {t[0]:.1f} ({size}) | {o[0]:.1f} | {ratio:.2f} | {goal} | {cpu:.2f} | {same} |")
    for title, words, goal in (("all 5-shot and minimal pairs", ("5-shot", "pairs"), 2.5), ("all 0-shot", ("0-shot",), 1.3)):
        chosen = [(t, o) for work, t, o, _, _ in rows if not work.tokens and any(w in work.name for w in words)]
        if chosen:
            t, o = sum(c[0] for c in chosen), sum(c[1] for c in chosen)
            print(f"| **{title}** | | {t[0]:.1f} | {o[0]:.1f} | **{t[0] / o[0]:.2f}** | >= {goal} | {t[1] / o[1]:.2f} | |")


def main() -> None:
    import torch

    from polygraft.model import load

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--model", default="demo:smollm2")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="", help="works whose name holds one of these, with commas between")
    parser.add_argument("--repeat", type=int, default=1, help="rounds; each figure is the median")
    given = parser.parse_args()
    live = load(given.model, dtype="float32")
    mine, other = ours(live.model, live.tokenizer), {size: theirs(live.model, live.tokenizer, size) for size in SIZES}
    rows = []
    for work in works(given.data, given.quick):
        if not any(part in work.name for part in given.only.split(",")):
            continue
        timed(mine, work.part(1)), timed(other[1], work.part(1))  # what is done once per process is done
        size = best(other, work)
        rounds = [(timed(other[size], work), timed(mine, work)) for _ in range(given.repeat)]
        t, o = (np.median([r[k][:2] for r in rounds], axis=0) for k in (0, 1))
        rows.append((work, t, o, size, agreement(work, rounds[0][0][2], rounds[0][1][2])))
        print(f"{work.name}: {t / o}", file=sys.stderr, flush=True)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {given.model} in float32\n")
    table(rows)


if __name__ == "__main__":
    main()
