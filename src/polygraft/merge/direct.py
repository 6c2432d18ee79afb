"""A merge called as a function, without a recipe."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from polygraft import files
from polygraft.config import filled
from polygraft.merge import configs, steps
from polygraft.meter import measured
from polygraft.result import Result
from polygraft.sources import Source, resolve
from polygraft.step import Context


def merge(kind: str, out: Path, offline: bool, fields: dict[str, Any]) -> Result:
    """Run the merge `kind` (a class of `configs`) into `out`. Raises UserError; `out` is absent or complete."""
    return written(getattr(configs, kind), steps.into, out, offline, fields)


Into = Callable[[Any, Context, Path], tuple[Result, dict[str, Any]]]


def written(kind: type[BaseModel], into: Into, out: Path, offline: bool, fields: dict[str, Any]) -> Result:
    """Run `into` of a config of this kind, made of `fields`, into `out`. Raises UserError; `out` is absent or complete."""
    given: dict[str, Source] = {}
    config = filled(kind, {k: _named(v, given) for k, v in fields.items()})
    cache: dict[str, Source] = {}

    def model(ref: str) -> Source:
        if ref not in cache:
            cache[ref] = given[ref] if ref in given else resolve(ref, offline=offline)
        return cache[ref]

    manifest: dict[str, Any] = {}
    with measured() as meter, files.commit(out, manifest) as part:
        result, described = into(config, Context(model, Path, offline=offline), part)
        manifest.update(described)
    return replace(result, cost=replace(meter.cost, written_bytes=result.cost.written_bytes or meter.cost.written_bytes))


def _named(value: Any, given: dict[str, Source]) -> Any:
    """Paths as text; open sources under their spec."""
    if isinstance(value, Source):
        given[value.spec] = value
        return value.spec
    if isinstance(value, list | tuple):
        return tuple(_named(v, given) for v in value)
    return os.fspath(value) if isinstance(value, Path) else value
