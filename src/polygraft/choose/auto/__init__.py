"""Layers chosen from weights alone: each rule proposes a profile, with reasons, beside the paper's default, soup and chance."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polygraft.result import Result

__all__ = ["merge"]


def merge(*, out: str | Path, offline: bool = False, **fields: Any) -> Result:
    """Write the merge that a rule proposes into `out`: `merge(task=..., language=..., base=..., out="grafted")`.

    Fields as in `choose.auto.config.Auto`, sources as paths, hub ids or open `Source`s. Raises UserError; `out` is absent or
    complete.
    """
    from polygraft.choose.auto import steps
    from polygraft.choose.auto.config import Auto
    from polygraft.merge import direct

    return direct.written(Auto, steps.into, Path(out), offline, fields)
