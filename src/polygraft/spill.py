"""Spill: tensors by number, in memory up to a limit and in files of a folder beyond it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polygraft.errors import ResourceError
from polygraft.files import OPS, resource_errors, write_all

if TYPE_CHECKING:
    import torch


class Spill:
    """`put(i, tensor)`, `get(i, device)`. `folder` None: memory only. Files are scratch: never fsynced, removed by `clear`."""

    def __init__(self, folder: Path | None, limit: int):
        self.folder, self.limit = folder, limit
        self.memory: dict[int, torch.Tensor] = {}
        self.files: dict[int, tuple[Any, tuple[int, ...]]] = {}  # dtype and shape of what lies in a file

    @property
    def held(self) -> int:
        """Bytes in memory."""
        return sum(t.nbytes for t in self.memory.values())

    def put(self, number: int, value: torch.Tensor) -> None:
        """Keep a copy on the CPU. Raises ResourceError where the limit is reached and there is no folder, or no room in it."""
        self.memory.pop(number, None)
        if number not in self.files and self.held + value.nbytes <= self.limit:  # once in a file, always: the sizes do not change
            self.memory[number] = value.detach().to("cpu", copy=True)
            return
        if self.folder is None:
            raise ResourceError("hidden states do not fit the memory that they may take", found=f"over {self.limit:,} bytes",
                                fix="read less text at a time, or name a folder for them")
        self._write(number, value.detach().cpu().contiguous())

    def _write(self, number: int, value: torch.Tensor) -> None:
        import torch

        path = self._path(number)
        with resource_errors(path, value.nbytes):
            path.parent.mkdir(parents=True, exist_ok=True)
            fd = OPS.open(str(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            try:
                write_all(fd, value.view(-1).view(torch.uint8).numpy().data)
            finally:
                OPS.close(fd)
        self.files[number] = value.dtype, tuple(value.shape)

    def get(self, number: int, device: str = "cpu") -> torch.Tensor:
        """A copy: what is done to it in place leaves the kept one as it was."""
        import numpy as np
        import torch

        if number in self.memory:
            return self.memory[number].to(device, copy=True)
        dtype, shape = self.files[number]
        out = torch.empty(shape, dtype=dtype)
        if out.numel():
            out.view(-1).view(torch.uint8).numpy()[:] = np.fromfile(self._path(number), np.uint8)
        return out.to(device)

    def drop(self, number: int) -> None:
        """Forget one, and remove its file."""
        self.memory.pop(number, None)
        if self.files.pop(number, None) is not None:
            with resource_errors(self._path(number)):
                OPS.unlink(str(self._path(number)))

    def clear(self) -> None:
        """Forget everything, and remove the files, those of a killed run too."""
        for path in self.folder.glob("state.*.bin") if self.folder is not None else ():
            with resource_errors(path):
                OPS.unlink(str(path))
        self.files.clear()
        self.memory.clear()

    def _path(self, number: int) -> Path:
        assert self.folder is not None
        return self.folder / f"state.{number}.bin"
