"""One more mask in five languages: from kept Gram matrices, against a forward pass over the text that they are of.

    OMP_NUM_THREADS=2 .venv/bin/python bench/bench_prune_score.py --data ../shared/data            some minutes

The store is gathered once, from NTREX. A Wanda mask is then scored in all languages: model and store are read from the disk, errors
come out; making the mask does not count, as it does not in the forward pass. That is the
model's own over `--forward` windows of each language, without its head; the rest is as many times that. With `--documents N` twelve
masks of one sparsity (`prune score --check 12`) also read N FLORES sentences a language, and the rank correlation of their bits per
byte with the score, and with column norms alone, is printed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

GOAL = 1 / 20
MASKS = 12
LANGUAGES = {"en": ("eng-US", "eng_Latn"), "de": ("deu", "deu_Latn"), "es": ("spa", "spa_Latn"), "ru": ("rus", "rus_Cyrl"),
             "sw": ("swa", "swh_Latn")}  # NTREX, FLORES-200  # fmt: skip


def kept(args: argparse.Namespace, folder: Path) -> tuple[Any, Any, Any]:
    """The text, the store, and the seconds that gathering took."""
    from polygraft.config import filled
    from polygraft.model import load_tokenizer
    from polygraft.prune.calibration import calibration
    from polygraft.prune.config import Calibrating
    from polygraft.prune.grams.store import gather
    from polygraft.prune.languages import Reading
    from polygraft.sources import resolve
    from polygraft.step import Context

    source = resolve(args.model)
    corpus = {g: str(args.data / "ntrex128" / f"{name}.txt.xz") for g, (name, _) in LANGUAGES.items()}
    config = filled(Calibrating, {"model": args.model, "corpus": corpus, "samples": args.windows * len(corpus),
                                  "seq_len": args.length})  # fmt: skip
    text = calibration(config, Context(model=resolve, data=Path), load_tokenizer(source.path))
    start = time.perf_counter()
    grams = gather(Reading.calibrated(source, text, "float32"), folder / "grams", {"model": source.identity})
    return text, grams, time.perf_counter() - start


def scored(args: argparse.Namespace, grams: Any) -> float:
    """Seconds of scoring one mask in all languages, the better of two; its making is not counted."""
    import numpy as np

    from polygraft.anatomy import Anatomy
    from polygraft.prune.grams.scoring import score
    from polygraft.sources import resolve

    weights = resolve(args.model).weights
    anatomy, making, took = Anatomy.of(weights.config, weights.tensors), [0.0], []

    def half(site: Any, before: Any) -> Any:
        start = time.perf_counter()
        norms = grams.norms(site)[0].astype(np.float32)
        found = {}
        for key, w in before.items():
            value = np.abs(w) * norms
            found[key] = np.where(value > np.median(value, axis=1, keepdims=True), w, np.float32(0))
        making[0] += time.perf_counter() - start
        return found

    for _ in range(2):
        making[0], start = 0.0, time.perf_counter()
        score(grams, weights, anatomy, half)
        took.append(time.perf_counter() - start - making[0])
    return min(took)


def forward(args: argparse.Namespace, text: Any) -> float:
    """Seconds of the model's forward pass over all windows, from `--forward` of each language."""
    import torch

    from polygraft.model import load

    live, some = load(args.model, dtype="float32"), list[Any]()
    for g in text.languages:
        ids = torch.cat([b["input_ids"] for b, of in zip(text.batches, text.of) if of == g])
        some.append(ids[: args.forward])
    with torch.inference_mode():
        live.model.base_model(input_ids=some[0][:1], use_cache=False)
        start = time.perf_counter()
        for ids in some:
            live.model.base_model(input_ids=ids, use_cache=False)
    return (time.perf_counter() - start) * args.windows / args.forward


def correlated(args: argparse.Namespace, folder: Path) -> None:
    """Rank correlation over masks of one sparsity, by language, beside that of column norms alone: through the step itself."""
    from polygraft.config import filled
    from polygraft.evals import conditions
    from polygraft.prune.grams.ranking import Scoring, score_step
    from polygraft.prune.harm import Judge
    from polygraft.sources import resolve
    from polygraft.step import Context

    held = {g: str(args.data / "flores200_devtest" / f"{name}.txt.xz") for g, (_, name) in LANGUAGES.items()}
    config = filled(Scoring, {"model": args.model, "grams": "grams", "check": MASKS, "sparsity": args.sparsity,
                              "evaluate": held, "documents": args.documents, "dtype": "float32"})  # fmt: skip
    context = Context(model=resolve, data=Path, folder=lambda ref: folder / ref)
    result = score_step(Judge(conditions.load, conditions.nats)).run(config, context, folder)
    for table in result.tables:
        print(f"\n{table.title}\n\n| {' | '.join(table.columns)} |\n|{' --- |' * len(table.columns)}")
        for row in table.rows:
            print("| " + " | ".join(str(cell) for cell in row) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds ntrex128 and flores200_devtest")
    parser.add_argument("--model", default="demo:smollm2")
    parser.add_argument("--windows", type=int, default=64, help="of each language")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--forward", type=int, default=4, help="windows of each language that the forward pass is timed on")
    parser.add_argument("--documents", type=int, default=0, help="sentences of each language for the rank correlation")
    parser.add_argument("--sparsity", type=float, default=0.5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text, grams, gathering = kept(args, Path(folder))
        size = sum(p.stat().st_size for p in grams.folder.iterdir()) / 1e9
        one, whole = scored(args, grams), forward(args, text)
        print(f"{args.windows} x {args.length} tokens in {len(LANGUAGES)} languages: {size:.2f} GB, gathered in {gathering:.0f} s")
        print("| scoring one mask, s | a forward pass, s | share | goal |\n| --- | --- | --- | --- |")
        print(f"| {one:.1f} | {whole:.1f} | 1/{whole / one:.0f} | <= 1/{1 / GOAL:.0f} |")
        if args.documents:
            correlated(args, Path(folder))


if __name__ == "__main__":
    main()
