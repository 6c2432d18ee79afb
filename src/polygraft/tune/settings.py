"""How to train: numbers that say nothing of what is trained, nor on what."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Settings:
    """How to train. `rate` None means 2e-4 for LoRA and 1e-5 for full tuning; `alpha` None means 2 r; `targets` empty means
    every linear layer of the decoder; `steps` None means `epochs` times round the examples."""

    method: Literal["lora", "full"] = "lora"
    r: int = 16
    alpha: float | None = None
    dropout: float = 0.0
    rslora: bool = False
    targets: tuple[str, ...] = ()
    steps: int | None = None
    epochs: float = 1.0
    batch: int = 8
    accumulate: int = 1
    lr: float | None = None
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: float = 0.05
    weight_decay: float = 0.0
    clip: float = 1.0
    length: int = 1024
    packing: bool = False
    blocks: bool = False
    answer_only: bool = True
    template: Literal["chat", "human-assistant"] = "chat"
    dtype: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0
    save_every: int = 100
    recompute: bool = False
    device: str = "auto"
    optimizer: Literal["adamw", "adamw8bit", "adafactor", "sgd"] = "adamw"
    liger: bool = False
    report_to: Literal["none", "trackio", "wandb", "tensorboard"] = "none"

    @property
    def rate(self) -> float:
        return self.lr if self.lr is not None else {"lora": 2e-4, "full": 1e-5}[self.method]

    @property
    def scale(self) -> float:
        return self.alpha if self.alpha is not None else 2.0 * self.r

    def count(self, rows: int) -> int:
        """Optimiser steps for this many training rows."""
        return self.steps or max(1, math.ceil(self.epochs * rows / (self.batch * self.accumulate)))
