"""`vocab propagate` measured: an 8B model's tables by conversion, and its solver against float64 lstsq(gelsy) on the same rows.

    .venv/bin/python bench/bench_propagate.py                      d 4096, 128,000 tokens (10 GB of disk), and d 2048, 64,000 tokens
    .venv/bin/python bench/bench_propagate.py --width 1024 --tokens 16000 --ridge auto     a first look, and other settings
    .venv/bin/python bench/bench_propagate.py --no-gelsy           without lstsq, which takes minutes

Files are synthetic: random rows in bf16, a vocabulary of random merges, one layer. Half of the donor's tokens are the base's.
The process's wall time and peak resident memory count, from its start to the last fsync.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np

from polygraft.checkpoint import Checkpoint
from polygraft.floats import from_f32
from polygraft.tokenfile import CHARACTER_OF
from polygraft.vocab.propagation.fitting import Both, fit, solved, sums_of
from polygraft.vocab.tables import Table
from polygraft.writer import CheckpointWriter

STEP = 2048  # rows that are made at a time
LONGEST = 12  # bytes of a token


def merges(count: int, rng: np.random.Generator, first: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """`first`, and random merges of known tokens until there are `count`."""
    known = {CHARACTER_OF[b] for b in range(256)} | {a + b for a, b in first}
    tokens, found = sorted(known), list(first)
    while len(found) < count:
        a, b = (tokens[i] for i in rng.integers(0, len(tokens), 2))
        if len(a) + len(b) <= LONGEST and a + b not in known:
            known.add(a + b)
            tokens.append(a + b)
            found.append((a, b))
    return found


def tokenizer(folder: Path, pairs: list[tuple[str, str]]) -> None:
    """A byte-level BPE of `<s>`, `</s>`, the bytes and these merges."""
    names = ["<s>", "</s>", *(CHARACTER_OF[b] for b in range(256)), *(a + b for a, b in pairs)]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tree = {"version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None,
            "added_tokens": [{"id": i, "content": names[i], **flags} for i in (0, 1)],
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                      "vocab": {name: i for i, name in enumerate(names)}, "merges": pairs}}  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(tree))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>",
                "chat_template": "{% for m in messages %}<s>{{ m.content }}</s>{% endfor %}"}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def three(root: Path, width: int, tokens: int) -> tuple[Path, Path, Path]:
    """Base, instruct model (its rows times W, with noise) and donor, each with untied tables of `tokens` rows."""
    rng, places = np.random.default_rng(0), tuple(root / n for n in ("base", "instruct", "donor"))
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 1, "hidden_size": width,
              "intermediate_size": 64, "num_attention_heads": width // 64, "num_key_value_heads": 1, "head_dim": 64,
              "vocab_size": tokens, "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 1}
    shapes = {"self_attn.q_proj": (width, width), "self_attn.k_proj": (64, width), "self_attn.v_proj": (64, width),
              "self_attn.o_proj": (width, width), "mlp.gate_proj": (64, width), "mlp.up_proj": (64, width),
              "mlp.down_proj": (width, 64), "input_layernorm": (width,), "post_attention_layernorm": (width,)}  # fmt: skip
    body = {"model.norm.weight": (width,)} | {f"model.layers.0.{k}.weight": s for k, s in shapes.items()}
    tables = {"model.embed_tokens.weight": (tokens, width), "lm_head.weight": (tokens, width)}
    old = merges(tokens - 258, rng, [])
    new = merges(tokens - 258, rng, old[: (tokens - 258) // 2])
    for place, pairs in zip(places, (old, old, new)):
        place.mkdir(parents=True)
        (place / "config.json").write_text(json.dumps(config))
        tokenizer(place, pairs)
    writers = [CheckpointWriter(p, {k: ("BF16", s) for k, s in (body | tables).items()}) for p in places]
    for key, shape in body.items():
        values = rng.normal(0, 0.02, shape).astype(np.float32)
        for writer in writers:
            writer.write(key, [from_f32(values, "BF16")])
    turn = (0.05 / np.sqrt(width) * rng.standard_normal((width, width), np.float32)).astype(np.float32)
    for key in tables:
        fill(key, tokens, width, turn, rng, writers)
    for writer in writers:
        writer.close()
    return places  # type: ignore[return-value]


def fill(key: str, tokens: int, width: int, turn: np.ndarray, rng: np.random.Generator, writers: list[CheckpointWriter]) -> None:
    """One table of all three, a temporary file each, since a writer takes a tensor at a time."""
    with tempfile.TemporaryDirectory(dir=writers[0].folder.parent) as scratch:
        names = [Path(scratch) / str(n) for n in range(3)]
        handles = [name.open("wb") for name in names]
        for start in range(0, tokens, STEP):
            rows = min(STEP, tokens - start)
            a, noise, other = (0.02 * rng.standard_normal((rows, width), np.float32) for _ in range(3))
            for handle, values in zip(handles, (a, a + a @ turn + 0.02 * noise, other)):
                handle.write(from_f32(values, "BF16"))
        for name, handle, writer in zip(names, handles, writers):
            handle.close()
            with name.open("rb") as f:
                writer.write(key, iter(lambda f=f: f.read(4 << 20), b""))  # type: ignore[misc]


def run(*words: str | Path) -> tuple[float, int]:
    """Wall time and peak resident bytes of a process."""
    start = time.perf_counter()
    process = subprocess.Popen([str(w) for w in words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    told = process.stderr.read() if process.stderr else b""
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"failed: {' '.join(map(str, words))}\n{told.decode()[-3000:]}")
    return time.perf_counter() - start, usage.ru_maxrss * 1024


def row(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def whole(root: Path, width: int, tokens: int, mode: str, ridge: str) -> None:
    """The verb on files."""
    models = three(root, width, tokens)
    seconds, peak = run(sys.executable, "-m", "polygraft", "vocab", "propagate", "--base", models[0], "--instruct", models[1],
                        "--donor", models[2], "--mode", mode, *(["--ridge", ridge] if ridge != "0" else []), "--out", root / "out")
    told = json.loads((root / "out" / "propagation.json").read_text())["sides"]
    shape = f"{mode}, ridge {ridge}, d {width:,}, {tokens:,} tokens, {os.cpu_count()} cores"
    row(f"vocab propagate ({shape})", f"{seconds:.0f} s", "< 600 s", "synthetic bf16 files, untied, one layer")
    row("peak memory", f"{peak / 1e9:.2f} GB", "< 4 GB", "")
    for name, side in told.items():
        row(f"{name}: held-out error / doing nothing", f"{side['held_out_error']['ratio']['value']:.3f}", "",
            f"condition {side['w']['condition']:.3g}, solved by {side['w']['way']}")


class InMemory(Both):
    """Rows that were read before."""

    def take(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.rows[0][ids[0] : ids[-1] + 1], self.rows[1][ids[0] : ids[-1] + 1]

    @cached_property
    def rows(self) -> list[np.ndarray]:
        return [t.block(0, len(self)) for t in (self.base, self.instruct)]


def beside_gelsy(root: Path, width: int, tokens: int) -> None:
    """W by both from the same float32 rows in memory, lstsq's conversion to float64 included; and ours with all that it does."""
    import torch

    models = [Checkpoint.open(p) for p in three(root, width, tokens)[:2]]
    tables = [Table(m, "model.embed_tokens.weight") for m in models]
    every = np.arange(tokens)
    with timed() as whole:
        fit(Both(tables[0], tables[1], every), 0.0, 0)
    both = InMemory(tables[0], tables[1], every)
    a, b = both.rows
    with timed() as ours:
        made = solved(both, sums_of(both, every, 0.0), every, 0.0)
    with timed() as theirs:
        w = torch.linalg.lstsq(torch.from_numpy(a).double(), torch.from_numpy(b).double(), driver="gelsy").solution.numpy()
    apart = float(np.linalg.norm(made.change + np.eye(width) - w) / np.linalg.norm(w))
    shape = f"d {width:,}, {tokens:,} tokens, {torch.get_num_threads()} threads"
    row(f"lstsq(gelsy) / ours, rows in memory to W, {shape}", f"{theirs[0] / ours[0]:.1f}", ">= 5",
        f"{theirs[0]:.1f} s, {ours[0]:.1f} s; by {made.way}; W differs by {apart:.1e} of its norm")
    row("the same lstsq / ours with reading and the held-out fit", f"{theirs[0] / whole[0]:.1f}", "", f"{whole[0]:.1f} s")


@contextmanager
def timed() -> Iterator[list[float]]:
    """Seconds that the block took, in a list."""
    taken: list[float] = []
    start = time.perf_counter()
    yield taken
    taken.append(time.perf_counter() - start)


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("--width", type=int, default=4096)
    words.add_argument("--tokens", type=int, default=128_000)
    words.add_argument("--mode", default="conversion")
    words.add_argument("--ridge", default="0")
    words.add_argument("--no-gelsy", action="store_true")
    words.add_argument("--no-verb", action="store_true")
    asked = words.parse_args()
    row("figure", "here", "goal", "note")
    row("---", "---", "---", "---")
    with tempfile.TemporaryDirectory(prefix="polygraft-bench-") as scratch:
        if not asked.no_verb:
            whole(Path(scratch) / "verb", asked.width, asked.tokens, asked.mode, asked.ridge)
        if not asked.no_gelsy:
            beside_gelsy(Path(scratch) / "gelsy", asked.width // 2, asked.tokens // 2)


if __name__ == "__main__":
    main()
