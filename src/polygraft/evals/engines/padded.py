"""Padded batches of whole sequences: exact for every causal model, and the only way for those that cannot read a row of branches
(ALiBi, linear attention, sequences longer than an attention window).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from polygraft import edits
from polygraft.evals.engines import batches, writing
from polygraft.evals.engines.writing import Answer


def tails(model: Any, rows: Sequence[Sequence[int]], scored: Sequence[int]) -> list[tuple[float, bool]]:
    """(nats, all greedy?) of the last `scored[i]` tokens of each row, in one pass; the head sees no other position.

    To edits of the model, what is scored counts as generated, the rest as prompt.
    """
    import torch

    keep, device = max(scored), batches.entry(model)
    inputs, mask = batches.pad(rows, max(map(len, rows)), left=True, device=device)
    position = (mask.cumsum(1) - 1).clamp(min=0)
    width = inputs.shape[1]
    scores = torch.arange(width, device=device) >= width - torch.tensor(scored, device=device)[:, None]
    with torch.inference_mode(), edits.told(scores):
        logits = model(input_ids=inputs, attention_mask=mask, position_ids=position, use_cache=False,
                       logits_to_keep=keep + 1).logits[:, -keep - 1:-1]
        gold = inputs[:, -keep:].reshape(-1)
        nats, greedy = batches.gathered(logits.reshape(-1, logits.shape[-1]), np.arange(len(gold)), gold.cpu())
    nats, greedy = nats.reshape(-1, keep), greedy.reshape(-1, keep)
    return [(float(nats[r, keep - n:].sum()), bool(greedy[r, keep - n:].all())) for r, n in enumerate(scored)]


def write(model: Any, prompts: Sequence[Sequence[int]], written: Sequence[Answer]) -> None:
    """Write the answers to some prompts with transformers' own loop, which knows the cache of every kind of model."""
    import torch
    from transformers import GenerationConfig

    device, width = batches.entry(model), max(map(len, prompts))
    inputs, mask = batches.pad(prompts, width, left=True, device=device)
    ends = sorted({e for a in written for e in a.ends})

    def next_token(ids: Any, scores: Any) -> Any:
        """Only the token that each answer chose stays possible."""
        chosen = writing.choose(scores, written)
        out = torch.full_like(scores, float("-inf"))
        for r, (answer, token) in enumerate(zip(written, chosen)):
            if not answer.over:
                answer.add(token)
            out[r, max(token, 0)] = 0
        return out

    def over(ids: Any, scores: Any, **_: Any) -> Any:
        return torch.tensor([a.over for a in written], device=ids.device)

    # a fresh configuration: what a folder's generation_config.json samples with must not colour an evaluation
    config = GenerationConfig(max_new_tokens=max(a.limit for a in written), do_sample=False, num_beams=1,
                              eos_token_id=ends or None, pad_token_id=ends[0] if ends else 0)
    with torch.inference_mode(), edits.told(width):
        model.generate(input_ids=inputs, attention_mask=mask, generation_config=config, logits_processor=[next_token],
                       stopping_criteria=[over])
