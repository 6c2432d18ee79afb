"""What reading costs beyond the forward pass that it rides on, and what the same statistics cost as hooks are usually written.

    OMP_NUM_THREADS=1 .venv/bin/python bench/bench_analyze.py            minutes, most of them the peer's

Every row of a model reads the same tokens in the same batches, by the model's body alone (no head). Rows take turns, all of them
equally often, and the fastest of `--rounds` counts, in CPU seconds (which other programs on the machine change little) and in wall
seconds. The usual way is that of published code (soumenkm/LangSpecificNeurons, code/activation.py): a forward hook on the
activation module, boolean sums, sums and squares of the whole batch, and one call of `torch.quantile` on the batch for each of
seven percentiles, which are then averaged over batches; a kinder row asks for all seven in one call. Ours counts 64 fixed bins.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

GOALS = {"counts": 1.10, "everything": 1.60, "usual": 3.0}
QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)


def usual(model: Any, layers: int, run: Callable[[], None], asked: list[Any]) -> None:
    """Hooks in the style of the public repositories, `torch.quantile` once for each of `asked`; the result is thrown away."""
    import torch

    over_zero: dict[int, Any] = {}
    total: dict[int, Any] = {}
    square: dict[int, Any] = {}
    percent: dict[int, list[Any]] = {i: [] for i in range(layers)}

    def hook(layer: int) -> Callable[..., None]:
        def fired(_module: Any, _inputs: Any, output: Any) -> None:
            act = output.float()
            over_zero[layer] = over_zero.get(layer, 0) + (act > 0).sum(dim=(0, 1))
            total[layer] = total.get(layer, 0) + act.sum(dim=(0, 1))
            square[layer] = square.get(layer, 0) + act.pow(2).sum(dim=(0, 1))
            flat = act.flatten(0, 1)
            percent[layer] += [torch.quantile(flat, q, dim=0) for q in asked]

        return fired

    handles = [model.model.layers[i].mlp.act_fn.register_forward_hook(hook(i)) for i in range(layers)]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    for found in percent.values():
        if found:
            torch.stack(found).mean(0)


def ways(live: Any, batches: list[Any], groups: Any) -> dict[str, Callable[[], None]]:
    """Name -> one reading of all the batches."""
    import torch

    from polygraft.analysis.reading import shapes
    from polygraft.analysis.reading.collect import Collector
    from polygraft.analysis.reading.config import Wanted
    from polygraft.taps import Taps

    ids = [torch.from_numpy(b.ids) for b in batches]
    body, layers = live.model.base_model, live.anatomy.layers

    def plain() -> None:
        with torch.inference_mode():
            for one in ids:
                body(input_ids=one, use_cache=False)

    def ours(wanted: Wanted) -> None:
        collector = Collector(live.anatomy, wanted)
        with torch.inference_mode(), Taps(live.model, live.anatomy, collector, points=shapes.points(wanted)):
            for batch, one in zip(batches, ids):
                collector.begin(batch, groups)
                body(input_ids=one, use_cache=False)
                collector.count()
        collector.check()
        collector.arrays()

    everything = Wanted(histogram=True, groups=20, residual=True, attention=True)
    return {
        "forward pass, no head": plain,
        "counts, sums, squares": lambda: ours(Wanted()),
        "the same, with 64 bins": lambda: ours(Wanted(histogram=True)),
        "everything: bins, 20 groups, stream, attention": lambda: ours(everything),
        "usual hooks: counts, sums, squares": lambda: usual(live.model, layers, plain, []),
        "usual hooks: the same, 7 percentiles": lambda: usual(live.model, layers, plain, list(QUANTILES)),
        "usual hooks: the same, in one call": lambda: usual(live.model, layers, plain, [torch.tensor(QUANTILES)]),
    }


def measure(live: Any, tokens: int, window: int, rows: int, rounds: int) -> dict[str, tuple[float, float]]:
    """(CPU, wall) seconds of each way: the fastest of its rounds. Documents of 60 tokens, drawn at random."""
    import numpy as np

    from polygraft.windows import Stream, batches

    drawn = np.random.default_rng(0).integers(10, live.anatomy.sizes.vocab - 10, tokens).astype(np.int32)
    starts = np.append(np.arange(0, tokens, 60), tokens)
    stream = Stream("en", drawn, starts, np.diff(starts), bos=1)
    found = list(batches(stream, window, rows))
    every = ways(live, found, stream.groups(20))
    best = dict.fromkeys(every, (float("inf"), float("inf")))
    for _ in range(rounds):
        for name, way in every.items():
            start = time.process_time(), time.perf_counter()
            way()
            took = time.process_time() - start[0], time.perf_counter() - start[1]
            best[name] = min(best[name][0], took[0]), min(best[name][1], took[1])
    return best


def random_llama(folder: Path) -> Any:
    """A random llama of 50 million parameters, 512 wide, with the usual proportions."""
    import torch
    import transformers

    from polygraft.model import load_folder

    config = transformers.LlamaConfig(vocab_size=8192, hidden_size=512, intermediate_size=1408, num_hidden_layers=13,
                                      num_attention_heads=8, num_key_value_heads=8, tie_word_embeddings=False)  # fmt: skip
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return load_folder(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1022)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    import tempfile

    from polygraft.model import load

    with tempfile.TemporaryDirectory() as folder:
        models = {"SmolLM2-135M": load("demo:smollm2", dtype="float32"), "random llama, 50M": random_llama(Path(folder))}
        print("| model | what | CPU s | wall s | CPU / forward |\n| --- | --- | --- | --- | --- |")
        for name, live in models.items():
            found = measure(live, args.tokens, 512, 2, args.rounds)
            plain, counts, bins, everything, _, hooks, kinder = (cpu for cpu, _ in found.values())
            for what, (cpu, wall) in found.items():
                print(f"| {name} | {what} | {cpu:.2f} | {wall:.2f} | {cpu / plain:.3f} |")
            print(f"| {name} | goals | | | counts {counts / plain:.3f} (<= {GOALS['counts']:.2f}), everything "
                  f"{everything / plain:.3f} (<= {GOALS['everything']:.2f}), usual / ours {hooks / bins:.1f}, in one call "
                  f"{kinder / bins:.1f} (>= {GOALS['usual']:g}) |", flush=True)


if __name__ == "__main__":
    main()
