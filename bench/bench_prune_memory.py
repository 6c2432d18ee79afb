"""Memory of `polygraft prune` on a synthetic model of 24 blocks, beside two blocks, the embeddings and what the text's states take.

    OMP_NUM_THREADS=1 .venv/bin/python bench/bench_prune_memory.py                  3B: 20 GB of disk, several minutes
    .venv/bin/python bench/bench_prune_memory.py --hidden 1024 --ffn 2816           0.35B: a first look
    .venv/bin/python bench/bench_prune_memory.py --method sparsegpt                 with products of inputs

Random bf16 weights of a llama, random text. A block is its parameters in the numbers that the model computes with (`--dtype`): what
one in memory takes, in float32 twice what the file does. States are those of all the text. Not allowed for are activations of the
windows read together, products of inputs (SparseGPT), and what libraries take beyond their import. The peak is that of a process
of its own, less what Python takes with torch and transformers imported; it runs under a limit on its data segment (`--limit`), so
that a larger one fails.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from polygraft.anatomy import Anatomy
from polygraft.blocks import block_bytes
from polygraft.checkpoint import Checkpoint
from polygraft.floats import from_f32
from polygraft.prune.costs import Extent
from polygraft.prune.masks import METHODS
from polygraft.writer import CheckpointWriter

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
IMPORTS = "torch, transformers.models.llama.modeling_llama, polygraft.steps, polygraft.meter"
BARE = f"import {IMPORTS}; print(polygraft.meter.peak_resident())"
VOCAB = 32_000


def config(args: argparse.Namespace) -> dict:
    return {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": args.hidden, "intermediate_size": args.ffn,
            "num_hidden_layers": args.layers, "num_attention_heads": args.hidden // 128, "num_key_value_heads": args.hidden // 128,
            "vocab_size": VOCAB, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "hidden_act": "silu",
            "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16"}  # fmt: skip


def specs(args: argparse.Namespace) -> dict[str, tuple[str, tuple[int, ...]]]:
    h, f = args.hidden, args.ffn
    found = {"model.embed_tokens.weight": (VOCAB, h), "lm_head.weight": (VOCAB, h), "model.norm.weight": (h,)}
    for i in range(args.layers):
        at = f"model.layers.{i}."
        found |= {f"{at}self_attn.{n}_proj.weight": (h, h) for n in "qkvo"}
        found |= {f"{at}mlp.{n}_proj.weight": (f, h) for n in ("gate", "up")} | {f"{at}mlp.down_proj.weight": (h, f)}
        found |= {f"{at}{n}_layernorm.weight": (h,) for n in ("input", "post_attention")}
    return {key: ("BF16", shape) for key, shape in found.items()}


def make(args: argparse.Namespace, out: Path) -> None:
    """The model, a byte-level tokenizer, and text for it."""
    import tiny

    out.mkdir()
    rng, made = np.random.default_rng(0), specs(args)
    pool = from_f32((rng.standard_normal(1 << 22) * 0.02).astype(np.float32), "BF16")  # one draw, read from another place each time

    def noise(size: int) -> Iterator[bytes]:
        while size:
            start = int(rng.integers(0, len(pool) // 4)) * 2
            piece = pool[start : start + min(size, len(pool) - start)]
            size -= len(piece)
            yield piece

    with CheckpointWriter(out, made) as writer:
        for key, (_, shape) in made.items():
            size = int(np.prod(shape))
            writer.write(key, from_f32(np.ones(size, np.float32), "BF16") if len(shape) == 1 else noise(2 * size))
        writer.close()
    (out / "config.json").write_text(json.dumps(config(args)))
    tiny.tokenizer().save_pretrained(out)
    letters = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz ", np.uint8)
    text = letters[rng.integers(0, len(letters), 12 * args.samples * args.seq_len)].tobytes().decode()
    (out.parent / "en.txt").write_text("\n".join(text[i : i + 1000] for i in range(0, len(text), 1000)))


def run(words: list[str], limit: int) -> str:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, preexec_fn=limited)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return done.stdout


def measured(args: argparse.Namespace, root: Path) -> None:
    make(args, root / "model")
    weights = Checkpoint.open(root / "model")
    anatomy = Anatomy.of(weights.config, weights.tensors)
    words = ["-m", "polygraft", "prune", str(root / "model"), "--corpus", f"en={root / 'en.txt'}", "--samples", str(args.samples),
             "--seq-len", str(args.seq_len), "--method", args.method, "--dtype", args.dtype, "--json"]  # fmt: skip
    limit = int(args.limit * 1e9)
    planned = json.loads(run([*words, "--plan"], limit))["peak_bytes"]
    cost = json.loads(run([*words, "--out", str(root / "out")], limit))["cost"]
    bare = int(run(["-c", BARE], limit))
    outside = sum(t.numel for k, t in weights.tensors.items() if anatomy.parts[k].layer is None and anatomy.parts[k].kind != "head")
    width = 2 if args.dtype == "bfloat16" else 4
    block = block_bytes(weights, anatomy, args.dtype) - width * sum(
        t.numel for k, t in weights.tensors.items() if anatomy.parts[k].layer is None)
    states = args.samples * args.seq_len * args.hidden * width
    allowed = 2 * block + width * outside + states
    parameters = sum(t.numel for t in weights.tensors.values())
    peak, products = cost["peak_bytes"] - bare, 4 * sum(n * n for n in Extent.of(weights, anatomy).grams()[0])
    print(f"{args.method}, {parameters / 1e9:.2f}B parameters in {args.layers} blocks, {args.samples} x {args.seq_len} tokens, "
          f"{args.dtype}: {cost['seconds']:.0f} s")
    for name, value in (("bare import", bare), ("peak above it", peak), ("2 blocks + embeddings + states", allowed),
                        ("of these one block", block), ("products of a layer's inputs", products * METHODS[args.method][1]),
                        ("planned, in all", planned), ("limit", limit)):
        print(f"  {name:32} {value / 1e6:10,.0f} MB")
    print(f"  peak / allowed {peak / allowed:.2f} (goal: at most 1.00)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    for name, default in (("hidden", 3072), ("ffn", 8192), ("layers", 24), ("samples", 8), ("seq_len", 512)):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    parser.add_argument("--method", default="wanda")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--limit", type=float, default=8.0, help="GB of data segment that the process may have")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="polygraft-bench-") as root:
        measured(args, Path(root))


if __name__ == "__main__":
    main()
