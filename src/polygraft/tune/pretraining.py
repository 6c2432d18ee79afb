"""A short continued pretraining of embedding and head on plain text, whose losses are all that is wanted of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from polygraft import ranks
from polygraft.sources import resolve
from polygraft.tune.data.devloss import DevLoss
from polygraft.tune.data.gathering import Example
from polygraft.tune.embeddings import rows_of
from polygraft.tune.settings import Settings
from polygraft.tune.start import Start
from polygraft.tune.training import Work, prepared, trainer_for

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Pretrained:
    """`losses`: nats per token of every step; `nats` by step: of every held-out text, float64 [n]; `bytes`: that these were spent
    on, int64 [n]; `tokens`: seen in training."""

    losses: tuple[float, ...]
    nats: Mapping[int, np.ndarray]
    bytes: np.ndarray
    tokens: int = 0


def pretrain(model: Path, texts: Sequence[str], held: Sequence[str], *, rows: np.ndarray | None, steps: int,
             every: int | None = None, lr: float = 1e-3, batch: int = 8, length: int = 256, seed: int = 0, device: str = "auto",
             progress: Callable[..., None] = lambda *_: None) -> Pretrained:  # fmt: skip
    """Train these rows (None: all) of embedding and head for some steps on blocks of the texts; the folder stays as it is.

    `held` texts are read at step 0, every `every` steps and at the end. Raises InputError as training does.
    """
    import numpy as np

    start = Start(resolve(str(model)), [{"text": t} for t in texts])
    shapes = {key: t.shape for key, t in start.checkpoint.tensors.items()}
    settings = Settings(method="full", steps=steps, lr=lr, batch=batch, length=length, seed=seed, blocks=True, save_every=0,
                        device=device)
    dev = DevLoss([Example({"text": t}, "held") for t in held], every, settings)
    work = Work(start.source, start.rows, settings, rows_of(rows, "both", False, start.anatomy, shapes), hooks=(dev,))
    losses, tokens = _trained(work, progress)
    return Pretrained(losses, {step: np.asarray(nats) for step, nats in dev.nats.items()}, np.asarray(dev.bytes), tokens)


def _trained(work: Work, progress: Callable[..., None]) -> tuple[tuple[float, ...], int]:
    from polygraft.model import device_for, quiet

    with (ranks.joined(ranks.device(device_for(work.settings.device))) as here, quiet(),
          tempfile.TemporaryDirectory(prefix="polygraft-") as scratch):  # fmt: skip
        ready = prepared(work)
        trainer = trainer_for(work, ready, Path(scratch), progress, here)
        trainer.train()
        for hook in work.hooks:
            hook.end(trainer.model, trainer.state.global_step)
    losses = tuple(h["loss"] for h in trainer.state.log_history if "loss" in h)
    return losses, sum(len(ids) for ids in ready.data["input_ids"])
