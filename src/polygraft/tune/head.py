"""The loss at the output head on a CPU: only the positions that have a label, a few rows of logits at a time, one pass.

TRL's fused head scores every position where it has no Triton, and forms all logits again in its backward pass. Here the gradient
is formed while the logits are at hand (as fused linear cross-entropies do on GPUs): a step costs one product less.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

CHUNK = 1 << 23  # logits that exist at once


@dataclass(frozen=True)
class Head:
    """How hidden states become logits: cap * tanh(scale * (h W^T + b) / cap), cap None for none; matrix products in `dtype`."""

    weight: torch.Tensor  # [V, H]
    bias: torch.Tensor | None  # [V]
    scale: float
    cap: float | None
    dtype: torch.dtype


@dataclass
class Scored:
    """Of n positions, float32 [n] each: log-probability of the label, entropy in nats, whether the label is the likeliest; and the
    gradient of sum(coefficients * log-probability), None where it is not wanted."""

    log_probs: torch.Tensor
    entropy: torch.Tensor
    top: torch.Tensor
    hidden: torch.Tensor | None = None  # [n, H]
    weight: torch.Tensor | None = None  # [V, H]
    bias: torch.Tensor | None = None  # [V]


def score(hidden: torch.Tensor, head: Head, labels: torch.Tensor, coefficients: torch.Tensor | None,
          wanted: tuple[bool, bool, bool]) -> Scored:  # fmt: skip
    """Log-probabilities of `labels` int64 [n] after `hidden` [n, H], and the gradients of (hidden, weight, bias) that are wanted.

    `coefficients` float32 [n] weigh the positions in the gradients (None: 1 each).
    """
    import torch

    n, whole = len(hidden), head.weight.to(head.dtype)
    made = Scored(*(torch.empty(n, dtype=d) for d in (torch.float32, torch.float32, torch.bool)))
    made.hidden = torch.empty(n, hidden.shape[1]) if wanted[0] else None
    made.weight = torch.zeros(head.weight.shape) if wanted[1] else None
    made.bias = torch.zeros(len(head.weight)) if wanted[2] else None
    step = max(1, CHUNK // len(head.weight))
    for start in range(0, n, step):
        at = slice(start, start + step)
        some = hidden[at].to(head.dtype)
        logits = torch.nn.functional.linear(some, whole, None if head.bias is None else head.bias.to(head.dtype)).float()
        slope = _shaped(logits, head)
        made.top[at] = logits.argmax(1) == labels[at]
        logits -= logits.amax(1, keepdim=True)
        label = logits.gather(1, labels[at, None])[:, 0]
        p = logits.exp()
        total = p.sum(1)
        made.log_probs[at] = label - total.log()
        made.entropy[at] = total.log() - (p[:, None] @ logits[:, :, None])[:, 0, 0] / total
        if not any(wanted):
            continue
        p.div_(-total[:, None])
        p.scatter_add_(1, labels[at, None], torch.ones(len(p), 1))  # of a label's log-probability: 1 - p, of the others: -p
        if slope is not None:
            p *= slope
        if head.scale != 1:
            p *= head.scale
        if coefficients is not None:
            p *= coefficients[at, None]
        _gather(made, at, p.to(head.dtype), whole, some)
    return made


def _shaped(logits: torch.Tensor, head: Head) -> torch.Tensor | None:
    """Scale and cap the logits in place; the slope of the cap, None without one."""
    if head.scale != 1:
        logits *= head.scale
    if head.cap is None:
        return None
    logits.div_(head.cap).tanh_()
    slope = 1 - logits * logits
    logits *= head.cap
    return slope


def _gather(made: Scored, at: slice, grad: torch.Tensor, weight: torch.Tensor, hidden: torch.Tensor) -> None:
    if made.hidden is not None:
        made.hidden[at] = grad @ weight
    if made.weight is not None:
        if grad.dtype == made.weight.dtype:
            made.weight.addmm_(grad.T, hidden)
        else:
            made.weight += grad.T @ hidden
    if made.bias is not None:
        made.bias += grad.float().sum(0)


@cache
def _function() -> Any:
    import torch

    class LogProb(torch.autograd.Function):
        """(hidden, weight, bias, labels, scale, cap, graph) -> log-probabilities and, without a gradient, entropies and is_top1."""

        @staticmethod
        def forward(ctx: Any, hidden: Any, weight: Any, bias: Any, labels: Any, scale: float, cap: Any, graph: bool) -> Any:
            kind = hidden.device.type
            dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
            head, needs = Head(weight, bias, scale, cap, dtype), ctx.needs_input_grad
            wanted = graph and needs[0], graph and needs[1], graph and needs[2]
            with torch.autocast(kind, enabled=False):
                found = score(hidden, head, labels, None, wanted)
            ctx.save_for_backward(hidden, weight, bias, labels, found.hidden, found.weight, found.bias)
            ctx.how = scale, cap, dtype
            ctx.mark_non_differentiable(found.entropy, found.top)
            return found.log_probs, found.entropy, found.top

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            hidden, weight, bias, labels, of_hidden, of_weight, of_bias = ctx.saved_tensors
            given = grads[0].float()
            if (of_weight is not None or of_bias is not None) and len(given) and not bool((given == given[0]).all()):
                wanted = of_hidden is not None, of_weight is not None, of_bias is not None
                again = score(hidden, Head(weight, bias, *ctx.how), labels, given, wanted)
                return _typed(again.hidden, hidden), _typed(again.weight, weight), _typed(again.bias, bias), *[None] * 4
            one = given[0] if len(given) else given.new_zeros(())
            return (None if of_hidden is None else _typed(of_hidden * given[:, None], hidden),
                    None if of_weight is None else _typed(of_weight.mul_(one), weight),
                    None if of_bias is None else _typed(of_bias.mul_(one), bias), *[None] * 4)  # fmt: skip

    return LogProb


def _typed(grad: Any, like: Any) -> Any:
    return None if grad is None else grad.to(like.dtype)


@contextmanager
def in_place_of_trl(labels: torch.Tensor) -> Iterator[None]:
    """Within, TRL's fused head on a CPU scores by the function above, and only where `labels` [batch, t] are not -100."""
    import torch
    from trl.trainer import utils

    trl: Any = utils
    if labels.device.type != "cpu":
        yield
        return
    mask = (labels[:, 1:] != -100).reshape(-1)

    def apply(hidden: Any, weight: Any, bias: Any, targets: Any, temperature: float, _: int, cap: float | None, scale: float,
              __: Any) -> Any:  # fmt: skip
        found = _function().apply(hidden[mask], weight, bias, targets[mask], scale / temperature, _over(cap, temperature),
                                  torch.is_grad_enabled())
        log_probs, entropy, top = (x.new_zeros(mask.shape).masked_scatter(mask, x) for x in found)
        return log_probs, entropy, None, None, top

    before = trl._ChunkedLogProbFunction
    trl._ChunkedLogProbFunction = SimpleNamespace(apply=apply)
    try:
        yield
    finally:
        trl._ChunkedLogProbFunction = before


def _over(cap: float | None, temperature: float) -> float | None:
    """The cap of logits that are divided by the temperature afterwards."""
    return None if cap is None else cap / temperature
