"""Merge models: `swap(task=..., language=..., bottom=5, top=2, out="grafted")` and its siblings.

Each function takes the fields of the step of the same name (see `configs`), sources as paths, hub ids or open `Source`s, and
`out`, a folder that must not exist or be empty. It returns the step's Result; the folder is absent or complete.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polygraft.result import Result

__all__ = ["dare_ties", "revert", "slerp", "soup", "swap", "task", "ties"]


def swap(*, out: str | Path, offline: bool = False, **fields: Any) -> Result:
    """Bottom and top layers of `language`, the middle of `task`; fields as in `configs.Swap`. Raises UserError."""
    return _do("Swap", out, offline, fields)


def revert(*, out: str | Path, offline: bool = False, **fields: Any) -> Result:
    """`expert` with its outer or middle layers put back to `base`; fields as in `configs.Revert`. Raises UserError."""
    return _do("Revert", out, offline, fields)


def soup(*, out: str | Path, offline: bool = False, **fields: Any) -> Result:
    """Weighted mean of `models`; fields as in `configs.Soup`. Raises UserError."""
    return _do("Soup", out, offline, fields)


def task(*, out: str | Path, offline: bool = False, **fields: Any) -> Result:
    """`base` plus scaled differences of `models`; fields as in `configs.Task`. Raises UserError."""
    return _do("Task", out, offline, fields)


def ties(*, out: str | Path, offline: bool = False, **fields: Any) -> Result:
    """TIES-merging of `models` on `base`; fields as in `configs.Ties`. Raises UserError."""
    return _do("Ties", out, offline, fields)


def dare_ties(*, out: str | Path, offline: bool = False, **fields: Any) -> Result:
    """DARE, then TIES, of `models` on `base`; fields as in `configs.DareTies`. Raises UserError."""
    return _do("DareTies", out, offline, fields)


def slerp(*, out: str | Path, offline: bool = False, **fields: Any) -> Result:
    """Spherical interpolation between two `models`; fields as in `configs.Slerp`. Raises UserError."""
    return _do("Slerp", out, offline, fields)


def _do(kind: str, out: str | Path, offline: bool, fields: dict[str, Any]) -> Result:
    from polygraft.merge import direct

    return direct.merge(kind, Path(out), offline, fields)
