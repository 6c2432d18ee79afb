"""Ranks: several processes, started by torchrun, that share one reading. Work is dealt by index; what they counted is summed.

Integers are summed as int64, real numbers as float64. Only process 0 writes and prints.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from polygraft.errors import InputError

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")
Sum = Callable[["np.ndarray"], "np.ndarray"]
WIDE = {"i": "int64", "u": "int64", "f": "float64"}


def _alone(value: np.ndarray) -> np.ndarray:
    return value


@dataclass(frozen=True)
class Ranks:
    """This process, `rank` of `size`. `sum` adds an int64 or float64 array over all processes, the same on each."""

    rank: int = 0
    size: int = 1
    sum: Sum = _alone

    def mine(self, items: Iterable[T]) -> Iterator[T]:
        """Every `size`-th item, beginning with this process's."""
        return islice(items, self.rank, None, self.size)

    def total(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The arrays summed over all processes, in their own dtypes; every process must give the same names and shapes.

        Raises InputError for a sum of integers that its dtype cannot hold.
        """
        return {name: self._one(name, arrays[name]) for name in sorted(arrays)}

    def _one(self, name: str, value: np.ndarray) -> np.ndarray:
        import numpy as np  # asking for a rank, as the command line does, needs no arrays

        if self.size == 1:
            return value
        wide = self.sum(np.ascontiguousarray(value, WIDE[value.dtype.kind]))
        if value.dtype.kind in "iu" and wide.size and int(wide.max()) > np.iinfo(value.dtype).max:
            raise InputError("a count is too large for its array", where=name, found=f"{int(wide.max()):,}",
                             fix="read fewer tokens of each language")
        return wide.astype(value.dtype)

    def wait(self) -> None:
        """Until every process is here."""
        import numpy as np

        self.sum(np.zeros(1, np.int64))


def rank() -> int:
    """The number of this process: 0 where there is only one."""
    return _number("RANK", 0)


def size() -> int:
    """How many processes torchrun started: 1 without it."""
    return _number("WORLD_SIZE", 1)


def device(wanted: str) -> str:
    """The device of this process: each of several on one machine has its own accelerator."""
    return f"cuda:{_number('LOCAL_RANK', 0)}" if wanted == "cuda" and size() > 1 else wanted


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default


@contextlib.contextmanager
def joined(place: str = "cpu") -> Iterator[Ranks]:
    """`with ranks.joined() as r:` meets the other processes (gloo; nccl on CUDA devices). Alone, nothing happens."""
    if size() == 1:
        yield Ranks()
        return
    import torch
    import torch.distributed as dist

    cuda = place.startswith("cuda")
    if cuda:
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if cuda else "gloo")

    def summed(value: np.ndarray) -> np.ndarray:
        tensor = torch.tensor(value, device=place if cuda else "cpu")  # a copy: the caller's array stays as it was
        dist.all_reduce(tensor)
        return tensor.cpu().numpy()

    try:
        yield Ranks(rank(), size(), summed)
    finally:
        dist.destroy_process_group()
