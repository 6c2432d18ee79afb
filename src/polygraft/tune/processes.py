"""Several processes that train one model, started by torchrun or `accelerate launch`: the steps that one process would do.

An optimiser step is the same examples however many processes share it: `batch` x `accumulate` of them, dealt out in order. The
gradient is reduced by torch's DistributedDataParallel; frozen tensors take no part in that, grafts do like any parameter. Only the
first process writes, scores and speaks; what it decides (where to resume, what a check read) is told to the others.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from polygraft.errors import RecipeError
from polygraft.ranks import Ranks
from polygraft.watching import Reading, Watcher

if TYPE_CHECKING:
    from polygraft.tune.settings import Settings


def dealt(s: Settings, size: int) -> tuple[int, int]:
    """Examples in one forward pass of one process, and its forward passes in an optimiser step.

    The passes are shared out where their number allows it, else the examples of each. Raises RecipeError where neither can be.
    """
    if s.accumulate % size == 0:
        return s.batch, s.accumulate // size
    if s.batch % size == 0:
        return s.batch // size, s.accumulate
    raise RecipeError("the examples of a step cannot be shared equally", where="batch, accumulate",
                      found=f"{s.accumulate} passes of {s.batch} examples for {size} processes",
                      fix=f"make `accumulate` or `batch` a multiple of {size}")  # fmt: skip


def sharding() -> str:
    """How the launcher was told to cut one model into shards: "FSDP", "DeepSpeed", or ""."""
    for name, told in (("FSDP", "ACCELERATE_USE_FSDP"), ("DeepSpeed", "ACCELERATE_USE_DEEPSPEED")):
        if os.environ.get(told, "").lower() in ("true", "1", "yes"):
            return name
    return ""


def check_shards(s: Settings, *, gpu: bool, rows: bool, watched: bool) -> None:
    """Raise RecipeError for what cannot be trained in shards. rows: of tensors are trained; watched: scores are taken."""
    kind = sharding()
    if not kind:
        return
    if kind == "DeepSpeed" and find_spec("deepspeed") is None:
        raise RecipeError("DeepSpeed is not installed", where="accelerate", fix="pip install deepspeed, or use fsdp2.yaml")
    if not gpu:
        raise RecipeError(f"{kind} shards a model over GPUs; on CPU accelerate would leave the shards out without a word",
                          where="accelerate", found="no GPU", fix="start it with torchrun and no config file")  # fmt: skip
    if kind == "FSDP" and os.environ.get("FSDP_VERSION", "1") != "2":
        raise RecipeError("FSDP's first version is not supported", where="accelerate", fix="set fsdp_version to 2 (fsdp2.yaml)")
    wrong = {
        "rows and columns cannot be trained in shards, which cut across them": rows and "ddp.yaml, or whole tensors, or LoRA",
        "no training state is kept of shards": s.save_every > 0 and "save_every 0",
        "scores are not taken of shards": watched and "no `watch`, and `polygraft eval` afterwards",
    }
    for what, instead in wrong.items():
        if instead:
            raise RecipeError(what, where="accelerate", found=kind, fix=f"use {instead}")


def whole(model: Any, names: Collection[str], here: Ranks) -> None:
    """Make the named parameters of a model in shards whole again in the first process, which writes them. All take part."""
    import torch

    for name in sorted(names):
        owner, _, own = name.rpartition(".")
        module = model.get_submodule(owner)
        parameter = module._parameters[own]
        if hasattr(parameter, "full_tensor"):  # FSDP2: a DTensor
            value = parameter.detach().full_tensor()
        elif hasattr(parameter, "ds_id"):  # ZeRO-3
            import deepspeed

            with deepspeed.zero.GatheredParameters([parameter]):
                value = parameter.detach().clone()
        else:
            continue
        if here.rank == 0:
            module._parameters[own] = torch.nn.Parameter(value, requires_grad=False)


def from_first(here: Ranks, value: Any) -> Any:
    """The first process's JSON value, in every process. The others' `value` is not looked at."""
    import numpy as np

    if here.size == 1:
        return value
    text = np.frombuffer(json.dumps(value).encode(), np.uint8) if here.rank == 0 else np.zeros(0, np.uint8)
    total = np.zeros(int(here.sum(np.array([len(text)], np.int64))[0]), np.int64)
    total[: len(text)] = text
    return json.loads(here.sum(total).astype(np.uint8).tobytes())


@dataclass
class OneReader:
    """A watcher that scores in the first process alone; the others are told what it read, so that all stop, or go on, together."""

    watcher: Watcher
    here: Ranks

    @property
    def job(self) -> str:
        return self.watcher.job

    @job.setter
    def job(self, job: str) -> None:
        self.watcher.job = job

    def read(self, model: Any, tokenizer: Any, step: int) -> Reading:
        found: dict[str, Any] = {}
        if self.here.rank == 0:
            begun = time.monotonic()
            found = asdict(self.watcher.read(model, tokenizer, step)) | {"seconds": round(time.monotonic() - begun, 3)}
        return Reading.from_json(from_first(self.here, found))
