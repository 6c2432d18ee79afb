"""Characters a second of a model before and after its vocabulary was extended, against the gain in characters per token.

    .venv/bin/python bench/bench_vocab_speed.py [--size 16000] [--after FOLDER]     some minutes on two cores, a quiet machine

Both write the same text, in their own tokens, one at a time with a cache, as greedy decoding does: every step computes the logits
and their largest, and the text's own next token goes on (rows that are hardly trained would write anything). Rounds take turns, so
that a slow minute meets both. Without `--after` the model is extended here, on three of four documents of the text, and its new
rows are made of old ones; what is written is from the fourth.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

GOAL = 0.9
DATA = Path(__file__).parents[2] / "shared" / "data"
GIVEN = 32  # characters of a text that are read at once, before the clock starts


def main() -> None:
    from polygraft import model
    from polygraft.data import open_corpus

    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--before", default="demo:smollm2")
    args.add_argument("--after", help="an extended model (default: made here)")
    args.add_argument("--size", type=int, default=16_000, help="new tokens, where it is made here")
    args.add_argument("--text", type=Path, default=DATA / "ruslit" / "ru.jsonl.xz")
    args.add_argument("--language", default="ru")
    args.add_argument("--characters", type=int, default=500, help="of each text that is written")
    args.add_argument("--texts", type=int, default=3)
    args.add_argument("--rounds", type=int, default=5)
    args.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"))
    given = args.parse_args()
    documents = list(open_corpus(given.language, given.text).documents())
    held = [prose(d, given.characters) for d in documents[3::4]][: given.texts]
    with tempfile.TemporaryDirectory(prefix="polygraft-") as scratch:
        after = given.after or extended(given.before, [d for i, d in enumerate(documents) if i % 4 != 3], given, Path(scratch))
        lives = {name: model.load(ref, dtype=model.dtype_for("cpu", given.dtype)[0]) for name, ref in
                 (("before", given.before), ("after", after))}  # fmt: skip
        report(lives, held, given.rounds)


def prose(document: str, characters: int) -> str:
    """A stretch from the middle of a document, on one line."""
    middle = len(document) // 2
    return " ".join(document[middle : middle + 2 * characters].split())[:characters]


def extended(before: str, documents: list[str], given: Any, scratch: Path) -> str:
    """The model with so many new tokens, by the verbs."""
    text = scratch / "text.jsonl"
    text.write_text("".join(json.dumps({"text": d}, ensure_ascii=False) + "\n" for d in documents), encoding="utf-8")
    polygraft = (sys.executable, "-m", "polygraft", "vocab")
    corpus = ("--corpus", f"{given.language}={text}")
    for words in (("extend", before, "--size", str(given.size), *corpus, "--out", str(scratch / "extend")),
                  ("init", before, "--tokenizer", str(scratch / "extend"), "--out", str(scratch / "init"))):
        subprocess.run([*polygraft, *words], check=True, stdout=subprocess.DEVNULL)
    return str(scratch / "init" / "model") if (scratch / "init" / "model").is_dir() else str(scratch / "init")


def report(lives: dict[str, Any], texts: list[str], rounds: int) -> None:
    """Characters a second of both, their ratio, and that of the characters per token."""
    coded = {name: [cut(live, t) for t in texts] for name, live in lives.items()}
    tokens = {name: sum(len(rest) for _, rest in some) for name, some in coded.items()}
    written = {name: sum(characters(lives[name], rest) for _, rest in some) for name, some in coded.items()}
    seconds: dict[str, list[float]] = {name: [] for name in lives}
    for turn in range(rounds + 1):
        for name, live in lives.items():
            taken = sum(write(live, *one) for one in coded[name])
            if turn:  # the first round warms up
                seconds[name].append(taken)
    speed = {name: [written[name] / s for s in some] for name, some in seconds.items()}
    for name in lives:
        rate, pace = statistics.median(speed[name]), tokens[name] / statistics.median(seconds[name])
        print(f"{name:8} {written[name] / tokens[name]:5.2f} characters a token   {rate:7.1f} characters/s   {pace:6.1f} tokens/s",
              flush=True)
    gain = written["after"] / tokens["after"] / (written["before"] / tokens["before"])
    ratios = sorted(a / b for a, b in zip(speed["after"], speed["before"], strict=True))
    faster = statistics.median(ratios)
    verdict = "ok" if faster >= GOAL * gain else "under the goal"
    print(f"{gain:.2f} times the characters a token, {faster:.2f} times the characters a second "
          f"({ratios[0]:.2f} to {ratios[-1]:.2f}): {faster / gain:.2f} of the gain   {verdict}")



def cut(live: Any, text: str) -> tuple[list[int], list[int]]:
    """The ids that are given and those that are written, as the tokenizer cuts the text."""
    given = live.tokenizer(text[:GIVEN], add_special_tokens=False)["input_ids"]
    return given, live.tokenizer(text[GIVEN:], add_special_tokens=False)["input_ids"]


def characters(live: Any, ids: list[int]) -> int:
    return len(live.tokenizer.decode(ids))


def write(live: Any, given: list[int], rest: list[int]) -> float:
    """Seconds in which the tokens were written after those given, one at a time."""
    import torch

    with torch.inference_mode():
        cache = live.model(torch.tensor([given]), use_cache=True).past_key_values
        started = time.perf_counter()
        for token in rest:
            out = live.model(torch.tensor([[token]]), past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            out.logits[0, -1].argmax().item()
        return time.perf_counter() - started


if __name__ == "__main__":
    main()
