"""Batches of token ids: which sequences go together, how they are padded, what is read from their logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

LOGIT_BLOCK = 64 << 20  # elements of logits that are turned to float32 at a time


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


def gathered(logits: Any, gold: Any) -> tuple[Any, Any]:
    """Log-probability (nats, float64) of each gold id and whether it is the most likely: logits [r, t, v], gold [r, t].

    Taken a block of rows and positions at a time: a float32 copy of all logits would be the largest thing in memory.
    """
    import torch

    flat, ids = logits.reshape(-1, logits.shape[-1]), gold.reshape(-1)
    step = max(1, LOGIT_BLOCK // flat.shape[-1])
    nats, greedy = [], []
    for start in range(0, len(ids), step):
        block, want = flat[start:start + step].float(), ids[start:start + step, None]
        nats.append((block.gather(1, want)[:, 0] - block.logsumexp(1)).double())
        greedy.append(block.argmax(1) == want[:, 0])
    return torch.cat(nats).reshape(gold.shape).cpu(), torch.cat(greedy).reshape(gold.shape).cpu()


def cut(text: str, stops: Sequence[str]) -> str:
    """The text before the first stop string that occurs in it."""
    at = [text.find(s) for s in stops if s and s in text]
    return text[:min(at)] if at else text


class StopAt:
    """A stopping criterion for `generate`: a row is done when its new text holds a stop string."""

    def __init__(self, tokenizer: Any, stops: Sequence[str], start: int):
        self.tokenizer, self.stops, self.start = tokenizer, [s for s in stops if s], start

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        import torch

        if not self.stops:
            return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        texts = self.tokenizer.batch_decode(input_ids[:, self.start:], skip_special_tokens=True)
        return torch.tensor([any(s in t for s in self.stops) for t in texts], device=input_ids.device)
