"""KL divergence to the start model, added to the loss: on ordinary text the trained model is to go on speaking as it did.

    loss += weight * mean over tokens of sum_v p_start(v) * (log p_start(v) - log p_now(v))

The forward KL of a frozen teacher on unlabelled text: knowledge distillation (Hinton et al. 2015, arXiv 1503.02531) from the model
that training began with, as Learning without Forgetting (Li and Hoiem 2016, arXiv 1606.09282) does for old tasks. No second model
is held: the start differs from what is trained in the trained tensors alone; only these are kept, and put in for one forward pass.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from polygraft.errors import InputError
from polygraft.result import Curve
from polygraft.tune import examples
from polygraft.tune.examples import Tokens
from polygraft.tune.hooks import Hook, Said
from polygraft.tune.losses import padded

if TYPE_CHECKING:
    import torch

    from polygraft.model import Live
    from polygraft.tune.chosen import Chosen
    from polygraft.tune.settings import Settings

SHORTEST = 8  # tokens; a window with fewer says little
LONGEST = 1 << 30  # no example is cut before it is divided into windows


def divergence(start: torch.Tensor, now: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """KL(p_start || p_now) in nats a token, from logits [rows, t, vocabulary] and a mask [rows, t] of the tokens that count."""
    import torch.nn.functional as F

    one, two = F.log_softmax(start.float(), -1), F.log_softmax(now.float(), -1)
    each = F.kl_div(two, one, reduction="none", log_target=True).sum(-1)
    return (each * mask).sum() / mask.sum()


def windows(rows: Sequence[Mapping[str, Any]], tokenizer: Any, settings: Settings, length: int) -> list[Tokens]:
    """Every example's tokens in stretches of `length`, answers and questions alike; a short rest is left out."""
    out: list[Tokens] = []
    for row in rows:
        ids = examples.tokenize(row, tokenizer, LONGEST, settings.answer_only, settings.template)["input_ids"]
        parts = [ids[i : i + length] for i in range(0, len(ids), length)]
        out += [{"input_ids": p, "labels": p} for p in parts if len(p) >= min(SHORTEST, length)]
    return out


@dataclass
class StartKL(Hook):
    """Every `every` optimiser steps, `count` windows of `length` tokens: their divergence from the start, times `weight`."""

    weight: float
    rows: Sequence[Mapping[str, Any]]
    settings: Settings
    every: int = 1
    count: int = 4
    length: int = 256
    values: list[tuple[int, float]] = field(default_factory=list)  # (optimiser steps done, KL in nats a token)
    seconds: float = 0.0  # of the forward passes, and of the backward one as twice the forward one that it belongs to

    @property
    def key(self) -> Any:
        return ["kl", self.weight, examples.digest(self.rows), self.every, self.count, self.length]

    def start(self, live: Live, chosen: Chosen | None) -> None:
        self.live, self.grafts, self.last = live, chosen.grafts if chosen else None, -1
        self.windows = windows(self.rows, live.tokenizer, self.settings, self.length)
        if not self.windows:
            raise InputError("no text is long enough for the divergence from the start", where="retain-text",
                             expected=f"{min(SHORTEST, self.length)} tokens in a document")
        self.trained = [p for p in live.model.parameters() if p.requires_grad]
        self.begun = [p.detach().clone() for p in self.trained]

    def loss(self, model: Any, step: int) -> Any:
        """The divergence, in the first forward pass of an optimiser step."""
        import torch

        from polygraft.watching import undisturbed

        if step % self.every or step == self.last:
            return None
        self.last, net, since = step, self.live.model, time.monotonic()
        device = next(net.parameters()).device
        ids, mask, _ = padded([self.windows[i] for i in self.places(step // self.every)], device)
        half = torch.autocast(device.type, torch.bfloat16, enabled=self.settings.dtype == "bf16", cache_enabled=False)
        with undisturbed(net), half:
            net.eval()  # no dropout: a model that has not moved is at distance 0
            with torch.no_grad(), self.as_begun():
                start = net(input_ids=ids, attention_mask=mask, use_cache=False).logits
            between = time.monotonic()
            now = net(input_ids=ids, attention_mask=mask, use_cache=False).logits
        found = divergence(start, now, mask)
        self.values.append((step, found.item()))
        self.seconds += between - since + 3 * (time.monotonic() - between)
        return self.weight * found

    @contextlib.contextmanager
    def as_begun(self) -> Iterator[None]:
        """The model as training began with it. A graph that waits for its backward pass finds its tensors where they were."""
        import torch

        torch.clear_autocast_cache()
        held = [p.data for p in self.trained]
        try:
            self._hold(self.begun)
            yield
        finally:
            self._hold(held)

    def _hold(self, values: Sequence[torch.Tensor]) -> None:
        for parameter, value in zip(self.trained, values, strict=True):
            parameter.data = value
        if self.grafts is not None:
            self.grafts.sync()

    def places(self, turn: int) -> list[int]:
        """Which windows are read at the turn-th time: each once before any twice, in an order of the seed."""
        n = len(self.windows)
        out = []
        for place in range(turn * self.count, (turn + 1) * self.count):
            order = list(range(n))
            random.Random(f"kl/{self.settings.seed}/{place // n}").shuffle(order)
            out.append(order[place % n])
        return out

    def end(self, model: Any, step: int) -> None:
        self.begun, self.trained = [], []

    def said(self) -> Said:
        first, last = self.values[0][1], self.values[-1][1]
        often = "every step" if self.every == 1 else f"every {self.every} steps"
        text = (f"KL to the start model (weight {self.weight:g}, {self.count} windows of {self.length} tokens {often}): "
                f"{first:.4f} nats a token at first, {last:.4f} at last.")
        steps, values = tuple(float(s) for s, _ in self.values), tuple(v for _, v in self.values)
        curve = Curve("KL to the start model", steps, {"KL": values}, "step", "nats a token", "on the text that is to be kept")
        facts = {"weight": self.weight, "first": first, "last": last, "seconds": round(self.seconds, 3)}
        return Said((text,), curves=(curve,), data={"kl": facts})

    def kept(self) -> Mapping[str, Any]:
        return {"values": [list(v) for v in self.values], "seconds": self.seconds}

    def take(self, kept: Mapping[str, Any]) -> None:
        self.values, self.seconds = [(int(s), float(v)) for s, v in kept["values"]], float(kept["seconds"])
