"""Batches of token ids: which sequences go together, how they are padded, what is read from their logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

LOGIT_BLOCK = 64 << 20  # elements of logits that are turned to float32 at a time
CACHED = 1 << 19  # the same on a CPU: 2 MB, as large as a cache


def by_length(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Indices in batches of at most `tokens` padded tokens (always at least one), the longest first, so that padding is small
    and a batch that does not fit in memory fails at once."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    out: list[list[int]] = []
    for i in order:
        if out and lengths[out[-1][0]] * (len(out[-1]) + 1) <= tokens:
            out[-1].append(i)
        else:
            out.append([i])
    return out


def entry(model: Any) -> Any:
    """The device that a model takes its ids on; the CPU where its embedding is kept off its device."""
    device = model.get_input_embeddings().weight.device
    return "cpu" if device.type == "meta" else device


def pad(rows: Sequence[Sequence[int]], width: int, *, left: bool, device: Any) -> tuple[Any, Any]:
    """(ids, mask), each int64 [rows, width]; padded with id 0 and mask 0 on the left or the right."""
    import torch

    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for r, row in enumerate(rows):
        if row:
            at = slice(width - len(row), width) if left else slice(0, len(row))
            ids[r, at] = torch.tensor(row, dtype=torch.long)
            mask[r, at] = 1
    return ids.to(device), mask.to(device)


def gathered(logits: Any, row: Any, gold: Any) -> tuple[Any, Any]:
    """Log-probability (nats, float64 [n]) of each gold id after its row of logits [r, v], and whether it is the most likely.

    Taken a block of rows at a time: a float32 copy of all logits would be the largest thing in memory.
    """
    import torch

    row, gold = (torch.as_tensor(x, dtype=torch.long, device=logits.device) for x in (row, gold))
    step = max(1, min(LOGIT_BLOCK, CACHED if logits.device.type == "cpu" else LOGIT_BLOCK) // logits.shape[-1])
    sums, tops = [], []
    for start in range(0, len(logits), step):
        block = logits[start:start + step].float()
        top = block.amax(1, keepdim=True)
        sums.append((block - top).exp_().sum(1).log_() + top[:, 0])
        tops.append(top[:, 0])
    picked = logits[row, gold].float()
    best = picked == torch.cat(tops)[row]
    best[best.clone()] = logits[row[best]].argmax(1) == gold[best]  # of equal logits the first is written
    return (picked.double() - torch.cat(sums)[row].double()).cpu().numpy(), best.cpu().numpy()


def cut(text: str, stops: Sequence[str]) -> str:
    """The text before the first stop string that occurs in it."""
    at = [text.find(s) for s in stops if s and s in text]
    return text[:min(at)] if at else text
