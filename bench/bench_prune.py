"""SparseGPT on SmolLM2-135M, against a reference that does what the published scripts do: a Hessian for every Linear.

    OMP_NUM_THREADS=1 .venv/bin/python bench/bench_prune.py --data ../shared/data            a quarter of an hour

Both prune the same model (float32) by half on the same windows of WikiText-2, layer by layer, and send what the pruned layer gives
on to the next. The reference is written from the published algorithm (Frantar and Alistarh, 2301.00774, and what its code is known
to do): the whole model in memory, every Linear's own running sum of products, inverse, factor, and a rank-one update of the
block's columns behind each column. It reads as many windows together as ours, so that both run the same forward
(`--reference-batch 1`: one by one, as published). Ours reads layers from disk, writes each finished one, and is run with its
defaults. "solve" is from the products to the new weights, "total" everything but the loading of the reference's model.
Perplexity is over other windows of the same corpus; the reference's threshold takes one weight more in every block of 128 columns.
"""

from __future__ import annotations

import argparse
import contextlib
import lzma
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

GOALS = {"solve": 1.4, "total": 1.15}
LINEARS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
           "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")  # fmt: skip


class Reference:
    """One Linear of the published script."""

    def __init__(self, layer: Any):
        import torch

        self.layer, self.samples = layer, 0
        self.h = torch.zeros(layer.in_features, layer.in_features)

    def add(self, x: Any) -> None:
        more, x = len(x), x.reshape(-1, x.shape[-1]).t()
        self.h *= self.samples / (self.samples + more)
        self.samples += more
        x = math.sqrt(2 / self.samples) * x.float()
        self.h += x.matmul(x.t())

    def prune(self, sparsity: float, block: int = 128, damping: float = 0.01) -> None:
        import torch

        w, h = self.layer.weight.data.clone().float(), self.h
        dead = torch.diag(h) == 0
        h[dead, dead] = 1
        w[:, dead] = 0
        h.diagonal().add_(damping * torch.mean(torch.diag(h)))
        u = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)
        for start in range(0, w.shape[1], block):
            stop = min(start + block, w.shape[1])
            w1, u1 = w[:, start:stop].clone(), u[start:stop, start:stop]
            q1, e1 = torch.zeros_like(w1), torch.zeros_like(w1)
            score = w1**2 / torch.diag(u1).reshape(1, -1) ** 2
            gone = score <= torch.sort(score.flatten())[0][int(score.numel() * sparsity)]
            for i in range(stop - start):
                q = w1[:, i].clone()
                q[gone[:, i]] = 0
                q1[:, i] = q
                e1[:, i] = (w1[:, i] - q) / u1[i, i]
                w1[:, i:] -= e1[:, i].unsqueeze(1).matmul(u1[i, i:].unsqueeze(0))
            w[:, start:stop] = q1
            w[:, stop:] -= e1.matmul(u[start:stop, stop:])
        self.layer.weight.data = w


class _Stop(Exception):
    pass


def reference(model: Any, windows: Any, sparsity: float, batch: int) -> float:
    """Prune the model in place, as the scripts do; returns the seconds of solving."""
    import torch

    layers, held, solving = model.model.layers, list[Any](), 0.0

    def catch(_module: Any, args: Any, kwargs: Any) -> None:
        held.append((args[0] if args else kwargs.pop("hidden_states"), kwargs))
        raise _Stop

    hook = layers[0].register_forward_pre_hook(catch, with_kwargs=True)
    for some in windows.split(batch):
        with contextlib.suppress(_Stop):
            model(some, use_cache=False)
    hook.remove()
    states, given = [state for state, _ in held], [kwargs for _, kwargs in held]
    for layer in layers:
        found = {name: Reference(layer.get_submodule(name)) for name in LINEARS}
        hooks = [r.layer.register_forward_hook(lambda _m, args, _out, r=r: r.add(args[0])) for r in found.values()]
        for state, kwargs in zip(states, given, strict=True):
            layer(state, **kwargs)
        for one in hooks:
            one.remove()
        start = time.perf_counter()
        for r in found.values():
            r.prune(sparsity)
        solving += time.perf_counter() - start
        states = [out[0] if isinstance(out := layer(state, **kwargs), tuple) else out
                  for state, kwargs in zip(states, given, strict=True)]  # fmt: skip
    assert all(torch.isfinite(state).all() for state in states)
    return solving


def ours(spec: str, windows: Any, sparsity: float, folder: Path, batch: int) -> tuple[float, Any]:
    """Prune from disk to disk; returns the seconds of solving, and the result as weights."""
    import torch

    from polygraft.prune.engine import Overlay, Work, prune
    from polygraft.prune.masks import METHODS, Options
    from polygraft.prune.masks.pattern import Pattern
    from polygraft.sources import resolve

    maker, gram = METHODS["sparsegpt"]
    method, solving = maker(Pattern.of(sparsity), Options()), [0.0]

    def timed(ws: Any, moments: Any) -> Any:
        start = time.perf_counter()
        found = method(ws, moments)
        solving[0] += time.perf_counter() - start
        return found

    source = resolve(spec)
    batches = [{"input_ids": part} for part in windows.split(batch)]
    work = Work(source, batches, [torch.ones(b["input_ids"].shape) for b in batches], timed, gram, "float32")
    prune(work, folder)
    return solving[0], Overlay(source.weights, folder, int(source.weights.config["num_hidden_layers"]))


def perplexity(model: Any, windows: Any) -> float:
    import torch

    with torch.inference_mode():
        losses = [float(model(w[None], labels=w[None], use_cache=False).loss) for w in windows]
    return math.exp(sum(losses) / len(losses))


def text(data: Path, tokenizer: Any, length: int, calibration: int, test: int) -> tuple[Any, Any]:
    """Windows of WikiText-2, int64 [n, length]: the first ones, and others from the end."""
    import torch

    raw = lzma.decompress((data / "wikitext2_sample" / "wikitext2_train_5k.txt.xz").read_bytes()).decode()
    ids = torch.tensor(tokenizer(raw)["input_ids"])
    windows = ids[: len(ids) // length * length].reshape(-1, length)
    if len(windows) < calibration + test:
        sys.exit(f"{len(windows)} windows of {length} tokens, and {calibration + test} are needed")
    return windows[:calibration], windows[-test:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds wikitext2_sample")
    parser.add_argument("--model", default="demo:smollm2", help="a llama")
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--batch", type=int, default=8, help="windows that ours reads together")
    parser.add_argument("--reference-batch", type=int, help="windows that the reference reads together (default: as many as ours)")
    parser.add_argument("--test", type=int, default=16, help="windows of which perplexity is taken")
    args = parser.parse_args()
    import torch

    from polygraft.model import load

    live = load(args.model, dtype="float32")
    windows, test = text(args.data, live.tokenizer, args.length, args.windows, args.test)
    dense = {name: p.detach().clone() for name, p in live.model.named_parameters()}
    rows, found = {}, {"dense": perplexity(live.model, test)}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        start = time.perf_counter(), time.process_time()
        solving, pruned = ours(args.model, windows, 0.5, Path(folder), args.batch)
        rows["ours"] = (solving, time.perf_counter() - start[0], time.process_time() - start[1])
        for key in pruned.masks:
            target = live.model.get_parameter(live.anatomy.live_name(key))
            target.copy_(torch.from_numpy(pruned.f32(key)).reshape(target.shape))
        found["ours"] = perplexity(live.model, test)
        for name, p in live.model.named_parameters():
            p.copy_(dense[name])
        start = time.perf_counter(), time.process_time()
        solving = reference(live.model, windows, 0.5, args.reference_batch or args.batch)
        rows["reference"] = (solving, time.perf_counter() - start[0], time.process_time() - start[1])
        found["reference"] = perplexity(live.model, test)
    print(f"| {args.windows} x {args.length} tokens | solve, s | total, s | CPU, s | perplexity |\n| --- | --- | --- | --- | --- |")
    print(f"| dense | | | | {found['dense']:.3f} |")
    for name, (solve, total, cpu) in rows.items():
        print(f"| {name} | {solve:.1f} | {total:.1f} | {cpu:.1f} | {found[name]:.3f} |")
    (a, b, c), (x, y, z) = rows["reference"], rows["ours"]
    print(f"| reference / ours | {a / x:.2f} (>= {GOALS['solve']}) | {b / y:.2f} (>= {GOALS['total']}) | {c / z:.2f} | |")


if __name__ == "__main__":
    main()
