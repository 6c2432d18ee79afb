"""What every training begins with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from polygraft.anatomy import Anatomy
from polygraft.errors import InputError

if TYPE_CHECKING:
    from polygraft.checkpoint import Checkpoint
    from polygraft.sources import Source


@dataclass(frozen=True)
class Start:
    """A model, and the examples that it is trained on."""

    source: Source
    rows: Sequence[Mapping[str, Any]]

    @property
    def checkpoint(self) -> Checkpoint:
        """The tensors to start from. Raises InputError for an adapter."""
        if self.source.checkpoint is None:
            raise InputError("an adapter cannot be tuned further", where=self.source.spec,
                             fix="merge it into its base and tune that")  # fmt: skip
        return self.source.checkpoint

    @property
    def anatomy(self) -> Anatomy:
        return Anatomy.of(self.checkpoint.config, self.checkpoint.tensors)
