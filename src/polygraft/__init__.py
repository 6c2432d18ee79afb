"""Polygraft: make an open decoder LLM good at another language, cheaply, and prove what it cost."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

ROOMS = ("analysis", "ask", "checkpoint", "choose", "evals", "inspection", "merge", "model", "recipe", "report", "sources", "tune")


def __getattr__(name: str) -> Any:
    """`import polygraft as pg; pg.merge.swap(...)`: a room is imported when it is first named."""
    if name in ROOMS:
        return import_module(f"polygraft.{name}")
    raise AttributeError(f"module 'polygraft' has no attribute {name!r}")


def __dir__() -> list[str]:
    return ["__version__", *ROOMS]
