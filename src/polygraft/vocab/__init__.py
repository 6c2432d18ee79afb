"""Vocabularies: tokenizers that fit a language, rows for their tokens, and the way of those rows to other models.

`propagate(base=..., instruct=..., donor=..., mode="conversion", out="adapted")` does from Python what `polygraft vocab propagate`
does: the folder `out` gets the model and propagation.json, and is absent or complete.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polygraft.result import Result

__all__ = ["propagate"]


def propagate(*, out: str | Path, offline: bool = False, **fields: Any) -> Result:
    """The instruct model with the donor's vocabulary; fields as in `propagation.steps.Propagate`, models as paths, hub ids or open
    `Source`s. Raises UserError."""
    from polygraft.vocab.propagation import direct

    return direct.propagate(Path(out), offline, fields)
