"""How well a model in training predicts held-out examples, before and after: one loss per example, and their paired difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraft import stats
from polygraft.result import Estimate
from polygraft.tune.examples import IGNORE, Tokens

if TYPE_CHECKING:
    import torch

UNIT, BITS = "nats/token", "bits/byte"
CHUNK = 1 << 22  # logits that become float32 log-probabilities at once


@dataclass(frozen=True)
class Losses:
    """One reading of n examples: the nats that each cost, float64 [n], and the tokens these were spent on, int64 [n]; or with
    `unit` BITS the bits, and the bytes."""

    nats: np.ndarray
    tokens: np.ndarray
    unit: str = UNIT

    @property
    def mean(self) -> float:
        """All nats over all tokens: longer examples weigh more, as they do in a training loss."""
        return float(self.nats.sum() / self.tokens.sum())


def measure(model: Any, data: Sequence[Tokens], batch: int = 8, bf16: bool = False) -> Losses:
    """Read every example once, in eval mode, and leave training undisturbed (modes of modules, random numbers).

    Labels of -100 cost nothing. `bf16` computes under autocast, as such a training does.
    """
    import torch

    from polygraft.watching import undisturbed

    device = next(model.parameters()).device
    order = sorted(range(len(data)), key=lambda i: len(data[i]["input_ids"]))
    nats, tokens = np.zeros(len(data)), np.zeros(len(data), np.int64)
    with undisturbed(model), torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        model.eval()
        for start in range(0, len(order), batch):
            some = order[start : start + batch]
            ids, mask, labels = padded([data[i] for i in some], device)
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            nats[some] = _nats(logits[:, :-1], labels[:, 1:]).cpu().numpy()
            tokens[some] = (labels[:, 1:] != IGNORE).sum(1).cpu().numpy()
    return Losses(nats, tokens)


def padded(rows: Sequence[Tokens], device: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(ids, attention mask, labels), int64 [rows, longest], filled up on the right with what is neither seen nor scored."""
    import torch

    longest = max(len(r["input_ids"]) for r in rows)
    ids, mask = torch.zeros(len(rows), longest, dtype=torch.int64), torch.zeros(len(rows), longest, dtype=torch.int64)
    labels = torch.full((len(rows), longest), IGNORE)
    for i, row in enumerate(rows):
        n = len(row["input_ids"])
        ids[i, :n], mask[i, :n], labels[i, :n] = torch.tensor(row["input_ids"]), 1, torch.tensor(row["labels"])
    return ids.to(device), mask.to(device), labels.to(device)


def _nats(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Nats of each row, float64 [rows], from logits [rows, t, vocabulary] and labels [rows, t], a few rows at a time."""
    import torch

    size = max(1, CHUNK // max(1, logits.shape[1] * logits.shape[2]))
    parts = [torch.nn.functional.cross_entropy(a.float().transpose(1, 2), b, ignore_index=IGNORE, reduction="none").double().sum(1)
             for a, b in zip(logits.split(size), labels.split(size), strict=True)]  # fmt: skip
    return torch.cat(parts)


def value(read: Losses) -> Estimate:
    """The mean loss with the interval that resampling the examples gives."""
    columns = np.stack([read.nats, read.tokens], axis=1).astype(np.float64)
    draws = np.concatenate([s[:, 0] / s[:, 1] for (s,) in stats.resampled([columns])])
    found = stats.summarise(read.mean, draws, len(columns))
    return Estimate(found.value, found.low, found.high, len(columns), read.unit)


def differences(before: Sequence[Losses], after: Sequence[Losses]) -> list[Estimate]:
    """after - before of each set of examples, read twice: paired bootstrap over the examples, Holm over the sets.

    The verdict is that of a loss: "better" where it fell, "worse" where it rose, "not distinguishable" where that cannot be told.
    """
    found = []
    for a, b in zip(before, after, strict=True):
        columns = np.stack([a.nats, b.nats, a.tokens], axis=1).astype(np.float64)
        draws = [stats.paired(s[:, 0] / s[:, 2], s[:, 1] / s[:, 2]) for (s,) in stats.resampled([columns])]
        found.append(stats.summarise(float(stats.paired(a.mean, b.mean)), np.concatenate(draws), len(columns)))
    adjusted = stats.holm([f.p for f in found])
    return [Estimate(f.value, f.low, f.high, len(a.tokens), a.unit, stats.verdict(f.value, p, higher_is_better=False))
            for f, p, a in zip(found, adjusted, before, strict=True)]
