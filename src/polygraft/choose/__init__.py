"""The layers choose themselves: from weights alone (`auto`), and from evaluation without writing a merged model (`search`)."""

from __future__ import annotations

from importlib import import_module
from typing import Any

ROOMS = ("auto", "search")


def __getattr__(name: str) -> Any:
    """`pg.choose.auto.merge(...)`: a room is imported when it is first named."""
    if name in ROOMS:
        return import_module(f"polygraft.choose.{name}")
    raise AttributeError(f"module 'polygraft.choose' has no attribute {name!r}")
