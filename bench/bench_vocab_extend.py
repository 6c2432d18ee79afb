"""Extending a tokenizer by 32,000 merges on 50 MB of text in many languages: seconds and peak memory, a process each.

    .venv/bin/python bench/bench_vocab_extend.py [--model demo:smollm2] [--megabytes 50]     two cores, some minutes

The peer is the tokenizers library's own BpeTrainer, which learns a new vocabulary of as many merges from the same text: it cannot
continue an old one. Text: the corpora of ../shared/data that may be trained on.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

GOAL_SECONDS = 300
DATA = Path(__file__).parents[2] / "shared" / "data"
CORPORA = ("ms_courses", "common_voice_text", "ruslit", "eltec_novels", "gnome_help", "japanese_text", "libreoffice_help",
           "telugu_wikisource", "bengali_pd", "tatoeba", "course_pairs", "xinstruct", "african_storybook", "ud_pud")  # fmt: skip


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--model", default="demo:smollm2")
    args.add_argument("--megabytes", type=int, default=50)
    args.add_argument("--merges", type=int, default=32_000)
    args.add_argument("--data", type=Path, default=DATA)
    given = args.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        text = Path(scratch) / "text.jsonl"
        size, files = gather(given.data, given.megabytes * 1_000_000, text)
        print(f"{size / 1e6:.1f} MB of text from {files} files", flush=True)
        if size < given.megabytes * 1_000_000:
            sys.exit(f"not enough text under {given.data}")
        for name, work in (("polygraft, continued merges", extended), ("tokenizers.BpeTrainer, from scratch", scratched)):
            taken = apart(work, given.model, str(text), given.merges)
            verdict = "" if work is scratched else "   ok" if taken["seconds"] < GOAL_SECONDS else "   over the goal"
            print(f"{name:36} {taken['seconds']:6.1f} s   {taken['peak'] / 2**20:6.0f} MiB   {taken['what']}{verdict}", flush=True)


def gather(data: Path, size: int, out: Path) -> tuple[int, int]:
    """Write documents of all files in turn, until it is so many bytes; bytes and files."""
    from polygraft.data import ENDINGS, ending

    paths = sorted(p for name in CORPORA for p in (data / name).rglob("*") if ending(p) in ENDINGS)
    written = 0
    with out.open("w", encoding="utf-8") as stream:
        for text in chain.from_iterable(zip_longest(*map(documents, paths))):
            if written >= size:
                break
            if text:
                stream.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
                written += len(text.encode())
    return written, len(paths)


def documents(path: Path) -> Iterator[str]:
    """Texts of a corpus: lines, or the longest strings of each object."""
    from polygraft.data import ending, lines, objects

    if ending(path).startswith(".txt"):
        yield from (line.decode() for _, line in lines(path))
    elif ending(path).startswith(".jsonl"):
        for _, value in objects(path):
            yield "\n".join(v for v in value.values() if isinstance(v, str) and " " in v)


def apart(work: Any, *given: Any) -> dict[str, Any]:
    """What `work` says, in a process of its own, with its seconds and peak resident bytes."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(False)
    process = context.Process(target=told, args=(theirs, work, *given))
    process.start()
    found = ours.recv()
    process.join()
    return found


def told(out: Any, work: Any, *given: Any) -> None:
    started = time.perf_counter()
    what = work(*given)
    seconds = time.perf_counter() - started
    out.send({"what": what, "seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024})


def vocabulary_of(model: str) -> Any:
    from polygraft.sources import resolve
    from polygraft.vocab.tokenizer.folder import read_tokenizer

    return read_tokenizer(resolve(model).weights.extras).vocabulary


def extended(model: str, text: str, merges: int) -> str:
    from polygraft.data import Corpus
    from polygraft.vocab.tokenizer import counting, extend, filters

    vocabulary, started = vocabulary_of(model), time.perf_counter()
    counted = counting.counts(counting.pieces(Corpus("und", Path(text)).documents()), vocabulary)
    half = time.perf_counter()
    allowed = filters.allowed(vocabulary, digits=1, joined=False, longest=24)
    made = extend.extend(vocabulary, counted.words, merges, allowed=allowed)
    return (f"{made.tokens:,} new tokens; {len(counted.words):,} words counted in {half - started:.0f} s "
            f"({counted.pruned + made.pruned:,} of {counted.seen:,} left out)")  # fmt: skip


def scratched(model: str, text: str, merges: int) -> str:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    from polygraft.data import Corpus

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = vocabulary_of(model).tokenizer.pre_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(Corpus("und", Path(text)).documents(),
                             trainers.BpeTrainer(vocab_size=merges + len(alphabet), initial_alphabet=alphabet, show_progress=False))
    return f"{core.get_vocab_size():,} tokens"


if __name__ == "__main__":
    main()
