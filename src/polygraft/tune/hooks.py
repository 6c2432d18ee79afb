"""Where a method steps into the training loop: before a forward pass, beside the loss, and in what a training state keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from polygraft.result import Curve, Table

if TYPE_CHECKING:
    from polygraft.model import Live
    from polygraft.tune.chosen import Chosen


@dataclass(frozen=True)
class Said:
    """What a method adds to the result once the training is over."""

    summary: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    curves: tuple[Curve, ...] = ()
    caveats: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)


class Hook:
    """One method's part in a training; each of these does nothing unless it is overridden.

    A training that is resumed calls `start` anew, then `take` with what `kept` gave when the state was saved. `reads`: it does no
    more before a pass than to measure the model, and a probe, which foretells the steps alone, leaves that out.
    """

    reads = False

    @property
    def key(self) -> Any:
        """JSON of what decides the result: a training state of another key is not resumed."""
        return type(self).__name__

    @property
    def lean(self) -> Mapping[str, int]:
        """Trained elements by file key, of selected tensors of which it does not train all."""
        return {}

    def start(self, live: Live, chosen: Chosen | None) -> None:
        """The model is prepared (`chosen` is None for LoRA) and has not been trained."""

    def before(self, step: int) -> None:
        """A forward pass begins; `step` optimiser steps are done."""

    def loss(self, model: Any, step: int) -> Any:
        """What this forward pass adds to the loss of its optimiser step: a scalar tensor, or None.

        The examples' own loss is a mean over all tokens of a step; what is returned here is summed over the passes of a process,
        of which the mean over all processes counts.
        """
        return None

    def end(self, model: Any, step: int) -> None:
        """Training is over after `step` optimiser steps, and `model` holds what will be written."""

    def said(self) -> Said:
        """What the result tells of it, asked for after `end`."""
        return Said()

    def kept(self) -> Mapping[str, Any]:
        """JSON for the training state."""
        return {}

    def take(self, kept: Mapping[str, Any]) -> None:
        """The inverse of `kept`."""
