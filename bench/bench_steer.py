"""What editing costs a generation: 2,000 neurons over all layers, in our engine and in transformers' own loop.

    .venv/bin/python bench/bench_steer.py       some minutes on two cores, a quiet machine

The embedded small model writes the same number of tokens with and without edits, in short turns, so that a slow minute meets both.
`--naive` adds a hook in the style of the public repositories: one indexed write a neuron.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from typing import Any

GOAL, NEURONS = 1.05, 2_000
PROMPTS = ["The capital of France is", "Write a short story about a fox:", "In 1969,", "To bake bread you need",
           "My favourite book", "The river runs", "She opened the door and", "Swahili is spoken in"]  # fmt: skip


def main() -> None:
    import numpy as np

    from polygraft import model
    from polygraft.edits import Edit, Edits, applied, sizes

    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--model", default="demo:smollm2")
    args.add_argument("--rounds", type=int, default=9)
    args.add_argument("--tokens", type=int, default=8)
    args.add_argument("--dtype", default="auto")
    args.add_argument("--device", default="cpu")
    args.add_argument("--naive", action="store_true")
    given = args.parse_args()
    live = model.load(given.model, dtype=given.dtype, device=given.device)
    rng, widths = np.random.default_rng(0), sizes(live.anatomy)
    dealt = rng.multinomial(NEURONS, [1 / len(widths)] * len(widths))
    rows = [np.sort(rng.choice(w, min(n, w), replace=False)) for w, n in zip(widths, dealt)]
    # values near what the neurons hold anyway, so that answers stay as long
    ways = {"set to 0": Edits(tuple(Edit("act", i, "set", r, np.zeros(1)) for i, r in enumerate(rows))),
            "add 0.01": Edits(tuple(Edit("act", i, "add", r, np.full(len(r), 0.01)) for i, r in enumerate(rows)))}
    conditions: dict[str, Callable[[], Any]] = {"unedited": nullcontext}
    conditions |= {name: (lambda e=work: applied(live, e)) for name, work in ways.items()}
    if given.naive:
        conditions["naive: set to 0"] = lambda: naive(live, rows)
    for name, write in (("our engine", ours), ("transformers generate", plain)):
        report(name, live, conditions, write, given.rounds, given.tokens)


def report(name: str, live: Any, conditions: dict[str, Callable[[], Any]], write: Callable[[Any, int], int], rounds: int,
           tokens: int) -> None:
    """Seconds a token of each condition over those without an edit, in the same round."""
    taken: dict[str, list[float]] = {c: [] for c in conditions}
    for turn in range(rounds + 1):
        for condition, under in conditions.items():
            started = time.perf_counter()
            with under():
                written = write(live, tokens)
            if turn:  # the first round warms up
                taken[condition].append((time.perf_counter() - started) / written)
    for condition, seconds in taken.items():
        ratios = sorted(a / b for a, b in zip(seconds, taken["unedited"]))
        ratio = statistics.median(ratios)
        verdict = "" if condition == "unedited" or condition.startswith("naive") else "ok" if ratio <= GOAL else "over the goal"
        print(f"{name:22} {condition:16} {1 / statistics.median(seconds):8.1f} tokens/s   ratio {ratio:.3f} "
              f"({ratios[0]:.3f} to {ratios[-1]:.3f})  {verdict}", flush=True)


def ours(live: Any, tokens: int) -> int:
    """Tokens that the engine wrote."""
    from polygraft.evals.engines.base import Decoding
    from polygraft.evals.engines.hf import Scorer

    found: dict[int, Any] = {}
    Scorer.ends = frozenset()  # type: ignore[assignment, arg-type]  # every answer as long as the others
    Scorer(live.model, live.tokenizer).generate(PROMPTS, Decoding(tokens), lambda some: found.update(some))
    return sum(w.tokens for w in found.values())


def plain(live: Any, tokens: int) -> int:
    """Tokens that transformers wrote, one prompt after another."""
    import torch

    with torch.inference_mode():
        for prompt in PROMPTS[:2]:
            coded = live.tokenizer(prompt, return_tensors="pt").to(live.model.device)
            live.model.generate(**coded, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=0)
    return 2 * tokens


def naive(live: Any, rows: list[Any]) -> Any:
    """A hook a layer that writes one neuron after another, as the public code of neuron studies does."""
    from polygraft import taps

    stack = ExitStack()
    for layer, some in enumerate(rows):
        module, _ = taps._site(live.model, live.anatomy, "act", layer)

        def write(_m: Any, _a: Any, out: Any, some: Any = some) -> Any:
            for j in some.tolist():
                out[..., j] = 0.0
            return out

        stack.callback(module.register_forward_hook(write).remove)
    return stack


if __name__ == "__main__":
    main()
